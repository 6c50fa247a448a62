// Does a WAL file belong to a cluster: one row for each way in which it may not, with the whole message.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct WALHeaderTests {
    private let format = WALFormat(
        systemIdentifier: SystemIdentifier(7_000_000_000_000_000_001), version: .v15, segmentSize: 16 << 20,
        walBlockSize: 8192)
    private let name = "00000003000000000000000A"

    /// The long header of the segment called `name`, with 15's magic.
    private func header() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: UInt16(0xD110))
        bytes.append(littleEndian: UInt16(0x0002))
        bytes.append(littleEndian: UInt32(3))
        bytes.append(littleEndian: UInt64(0x0A00_0000))
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: format.systemIdentifier.number)
        bytes.append(littleEndian: format.segmentSize)
        bytes.append(littleEndian: format.walBlockSize)
        return bytes
    }

    private func check(_ bytes: [UInt8], size: UInt64 = 16 << 20, name: String? = nil) throws -> WALSegment {
        let fileName = try #require(WALFileName(name ?? self.name))
        return try bytes.withBytes { (buffer) throws(KedgeError) in
            try WALFileCheck.check(name: fileName, firstPage: buffer, sizeBytes: size, format: format)
        }
    }

    @Test("a file of the cluster is accepted, whole, partial or with pages of an older timeline")
    func accepted() throws {
        #expect(try check(header()) == WALSegment(timeline: TimelineID(3), number: 10))
        #expect(try check(header(), name: name + ".partial").number == 10)
        var older = header()
        older[4] = 2
        #expect(try check(older).timeline == TimelineID(3))
    }

    struct Damage: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: ErrorCode
        let detail: String
        var size: UInt64 = 16 << 20
        let change: @Sendable (inout [UInt8]) -> Void
    }

    static let damages = [
        Damage(
            testDescription: "another cluster", code: .walForeign,
            detail: "Its system identifier is 7000000000000000000, but this cluster's is 7000000000000000001."
        ) { $0[24] ^= 1 },
        Damage(
            testDescription: "another version", code: .walForeign,
            detail: "It was written by PostgreSQL 17, but this cluster is PostgreSQL 15."
        ) { $0[0] = 0x16 },
        Damage(
            testDescription: "another segment size", code: .walForeign,
            detail: "It comes from a cluster with WAL segments of 33554432 bytes, but this cluster's have 16777216."
        ) { $0[35] = 2 },
        Damage(
            testDescription: "another WAL page size", code: .walForeign,
            detail: "It comes from a server with WAL pages of 16384 bytes, but this cluster's have 8192."
        ) { $0[37] = 0x40 },
        Damage(
            testDescription: "cut", code: .walInvalid,
            detail: "It has 8388608 bytes, but a WAL segment of this cluster has 16777216.", size: 8 << 20
        ) { _ in },
        Damage(
            testDescription: "empty", code: .walInvalid,
            detail: "It has 0 bytes, but a WAL segment of this cluster has 16777216.", size: 0
        ) { $0 = [] },
        Damage(
            testDescription: "zeroes", code: .walInvalid,
            detail: "It begins with zeroes where a WAL page header should be."
        ) { $0 = [UInt8](repeating: 0, count: 40) },
        Damage(
            testDescription: "an unknown magic", code: .walInvalid,
            detail: "Its first two bytes are 0xD111, but WAL of PostgreSQL 15 begins with 0xD110."
        ) { $0[0] = 0x11 },
        Damage(
            testDescription: "a short header", code: .walInvalid,
            detail: "Its first page lacks the long header that every segment begins with."
        ) { $0[2] = 0 },
        Damage(
            testDescription: "an unknown flag", code: .walInvalid,
            detail: "Its first page has the flags 0x12, of which PostgreSQL knows only 0xF."
        ) { $0[2] = 0x12 },
        Damage(
            testDescription: "a recycled file", code: .walInvalid,
            detail: "Its first page says that it begins at 0/9000000, but the name stands for 0/A000000."
        ) { $0[11] = 9 },
        Damage(
            testDescription: "a newer timeline", code: .walInvalid,
            detail: "Its first page is of timeline 4, but the name stands for timeline 3."
        ) { $0[4] = 4 },
    ]

    @Test("a file that does not belong is refused, and the error says what was found", arguments: damages)
    func refused(_ damage: Damage) throws {
        var bytes = header()
        damage.change(&bytes)
        let error = #expect(throws: KedgeError.self) { try check(bytes, size: damage.size) }
        #expect(error?.code == damage.code)
        #expect(error?.detail == damage.detail)
        #expect(
            error?.message
                == (damage.code == .walForeign
                    ? "cannot accept WAL file \"\(name)\": it belongs to another cluster"
                    : "cannot accept WAL file \"\(name)\" as valid"))
        #expect(error?.hint != nil)
    }

    @Test("a name that no segment of this size can have is refused")
    func impossibleName() throws {
        let error = #expect(throws: KedgeError.self) { try check(header(), name: "000000030000000000000100") }
        #expect(error?.detail == "With segments of 16777216 bytes no WAL file has this name.")
    }
}

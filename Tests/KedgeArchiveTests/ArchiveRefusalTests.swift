// The whole message of every local file that archive-push refuses.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct ArchiveRefusalTests {
    /// What is done to a good segment, and what push then says.
    struct Row: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var name = "000000010000000000000005"
        var change: @Sendable (inout [UInt8]) -> Void = { _ in }
        let code: ErrorCode
        let message: String
        let detail: String
    }

    static let rows = [
        Row(
            testDescription: "torn", change: { $0.removeLast(4096) }, code: .walInvalid,
            message: "cannot accept WAL file \"000000010000000000000005\" as valid",
            detail: "It has 1044480 bytes, but a WAL segment of this cluster has 1048576."),
        Row(
            testDescription: "of another cluster", change: { $0[24] ^= 1 }, code: .walForeign,
            message: "cannot accept WAL file \"000000010000000000000005\": it belongs to another cluster",
            detail: "Its system identifier is 7000000000000000000, but this cluster's is 7000000000000000001."),
        Row(
            testDescription: "under another one's name", name: "000000010000000000000006", code: .walInvalid,
            message: "cannot accept WAL file \"000000010000000000000006\" as valid",
            detail: "Its first page says that it begins at 0/500000, but the name stands for 0/600000."),
        Row(
            testDescription: "of another version", change: { $0[0] = 0x13 }, code: .walForeign,
            message: "cannot accept WAL file \"000000010000000000000005\": it belongs to another cluster",
            detail: "It was written by PostgreSQL 16, but this cluster is PostgreSQL 15."),
        Row(
            testDescription: "empty", change: { $0 = [] }, code: .walInvalid,
            message: "cannot accept WAL file \"000000010000000000000005\" as valid",
            detail: "It has 0 bytes, but a WAL segment of this cluster has 1048576."),
        Row(
            testDescription: "no WAL file", name: "postgresql.conf", code: .usage,
            message: "cannot archive file",
            detail: "WAL files are named like"),
    ]

    @Test("a file that is not this cluster's WAL is refused", arguments: rows)
    func refused(_ row: Row) throws {
        let fixture = try ArchiveFixture()
        let store = MemoryStore()
        let harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: store)])
        var bytes = try harness.local(fixture.writeSegments(count: 1)[0])
        row.change(&bytes)
        try fixture.write("pg_wal/" + row.name, bytes)
        let before = store.contents
        let error = #expect(throws: KedgeError.self) { _ = try harness.push(row.name) }
        #expect(error?.code == row.code)
        #expect(error?.message.hasPrefix(row.message) == true, "\(error?.message ?? "")")
        #expect(error?.detail?.hasPrefix(row.detail) == true, "\(error?.detail ?? "")")
        #expect(error?.hint != nil)
        #expect(store.contents == before)
    }

    @Test("records that fail their CRC are stored and marked suspect, or refused where the configuration says so")
    func suspect() throws {
        let fixture = try ArchiveFixture()
        let store = MemoryStore()
        var harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: store)])
        let name = try fixture.writeSegments(count: 1)[0]
        var bytes = try harness.local(name)
        bytes[500_000] ^= 1
        try fixture.write("pg_wal/" + name, bytes)
        harness.refusesDamagedWAL = true
        let error = #expect(throws: KedgeError.self) { _ = try harness.push(name) }
        #expect(error?.code == .walSuspect)
        harness.refusesDamagedWAL = false
        let outcome = try harness.push(name)
        let suspect = try #require(outcome.suspect)
        #expect((LSN(0x500000)...LSN(0x500000 + 500_000)).contains(suspect.lsn))
        #expect(try harness.get(name) == .fetched(repository: "main"))
        #expect(try harness.fetched() == bytes)
    }

    @Test("a missing file, and a working directory that is no data directory, are said")
    func missing() throws {
        let fixture = try ArchiveFixture()
        let harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: MemoryStore())])
        let absent = #expect(throws: KedgeError.self) { _ = try harness.push("000000010000000000000005") }
        #expect(absent?.code == .notFound)
        try FileSystem.removeFile(at: fixture.path("global/pg_control"))
        let name = try fixture.writeSegments(count: 1)[0]
        let homeless = #expect(throws: KedgeError.self) { _ = try harness.push(name) }
        #expect(homeless?.message.contains("pg_control") == true)
    }

    @Test("a system that is not registered is refused by name")
    func unregistered() throws {
        let fixture = try ArchiveFixture()
        let other = try ArchiveFixture(system: SystemIdentifier(42))
        let harness = ArchiveHarness(fixture: fixture, repositories: [try other.makeRepository(in: MemoryStore())])
        let name = try fixture.writeSegments(count: 1)[0]
        let error = #expect(throws: KedgeError.self) { _ = try harness.push(name) }
        #expect(error?.code == .walForeign)
        #expect(error?.cause?.detail?.contains("42") == true)
    }

    @Test("what is no regular file is refused at once, for a segment and for what is none, also above the queue limit")
    func irregular() throws {
        let fixture = try ArchiveFixture()
        let harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: MemoryStore())])
        let spool = SpoolHarness(fixture, harness.repositories[0])
        let waiting = try fixture.writeSegments(count: 2)
        for name in ["000000010000000000000009", "00000002.history"] {
            let path = fixture.path("pg_wal/" + name)
            // This end of the pipe is held open: whoever opens it for reading alone finds nothing to wait for.
            _ = try Subprocess(["mkfifo", path.description]).run()
            let pipe = try FileDescriptor.open(path, [.read, .write])
            let piped = #expect(throws: KedgeError.self) { _ = try harness.push(name) }
            #expect(piped?.code == .walInvalid)
            #expect(piped?.message == "cannot archive \"\(path)\": it is not a regular file")
            #expect(piped?.detail == "It is a device, a pipe or a socket.")
            try spool.makeReady(waiting + [name])
            let limit = QueueLimit(limitBytes: 1, spool: spool.spool, hostName: "db1", time: spool.time)
            if name.hasSuffix(".history") {
                let put = #expect(throws: KedgeError.self) {
                    _ = try limit.putOff(path, dataDirectory: fixture.path("."))
                }
                #expect(put?.code == .walInvalid)
            }
            try pipe.close()
            try FileSystem.removeFile(at: path)
            try FileSystem.createSymbolicLink(at: path, target: "/dev/zero")
            #expect(#expect(throws: KedgeError.self) { _ = try harness.push(name) }?.detail == piped?.detail)
            try FileSystem.removeFile(at: path)
            _ = try Directory.create(at: path)
            let directory = #expect(throws: KedgeError.self) { _ = try harness.push(name) }
            #expect(directory?.detail == "It is a directory.")
        }
    }
}

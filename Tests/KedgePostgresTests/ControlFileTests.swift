// pg_control: the layouts of 15, 17 and 18 from files that initdb wrote, torn reads, damage and poison. ServerFileTests
// compares every field with pg_controldata.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct ControlFileTests {
    /// The first 296 bytes of a new cluster's pg_control, and what pg_controldata said about it.
    struct Sample: Sendable, CustomTestStringConvertible {
        let version: PostgresVersion
        let systemIdentifier: UInt64
        let checkpoint: String
        let hex: String

        var testDescription: String { "PostgreSQL \(version.major)" }

        /// As the server writes it: 8192 bytes.
        var bytes: [UInt8] {
            let data = [UInt8](hex: hex) ?? []
            return data + [UInt8](repeating: 0, count: ControlFile.fileSize - data.count)
        }
    }

    static let samples = [
        Sample(
            version: .v15, systemIdentifier: 7_710_524_823_202_426_161, checkpoint: "0/17414F8",
            hex: """
                31edcf7e7949016b1405000025770d0c01000000000000007949016b00000000f814740100000000f814740100000000\
                01000000010000000100000000000000d402000000000000043500000100000000000000cc0200000100000001000000\
                01000000000000007949016b0000000000000000000000000000000000000000e8030000000000000000000000000000\
                00000000000000000000000000000000000000000000000000000000010000000000000064000000080000000a000000\
                000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000\
                cc070000000800000100000001000000fd1ba2535e73f0373e7954d3a325725669f2aa9870b7731adc16d3fe1783b65b\
                d596d21e00000000
                """),
        Sample(
            version: .v17, systemIdentifier: 7_710_524_826_736_192_857, checkpoint: "0/16C37F8",
            hex: """
                59ed70517a49016ba40600008979100c01000000000000007a49016b00000000f8376c0100000000f8376c0100000000\
                01000000010000000100000001000000e202000000000000e63100000100000000000000da0200000100000001000000\
                01000000000000007a49016b0000000000000000000000000000000000000000e8030000000000000000000000000000\
                00000000000000000000000000000000000000000000000000000000010000000000000064000000080000000a000000\
                000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000\
                cc070000000800000100000001000000256ac32d63c6d7956a2d354d8c2e273d48fc287ecc7fd724386ebcd5afc3584b\
                c72dd96600000000
                """),
        Sample(
            version: .v18, systemIdentifier: 7_710_524_828_328_402_285, checkpoint: "0/16EF458",
            hex: """
                6d1d58b07a49016b080700003300120c01000000000000007b49016b0000000058f46e010000000058f46e0100000000\
                01000000010000000100000001000000f002000000000000f03100000100000000000000e80200000100000001000000\
                01000000000000007b49016b0000000000000000000000000000000000000000e8030000000000000000000000000000\
                00000000000000000000000000000000000000000000000000000000010000000000000064000000080000000a000000\
                000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000\
                cc0700000008000001000000010000000131190a1038a47f56fa7f5350008d4c2b60786a609be30e34aaa9a8f81acb7f\
                bb0000007a0e4ef0
                """),
    ]

    @Test("the layout of every format is read", arguments: samples)
    func layout(_ sample: Sample) throws {
        let file = try ControlFile(parsing: sample.bytes)
        #expect(file.version == sample.version)
        #expect(file.systemIdentifier == SystemIdentifier(sample.systemIdentifier))
        #expect(file.checkpoint == LSN(sample.checkpoint))
        #expect(file.redo == file.checkpoint)
        #expect(file.state == .shutDown)
        #expect(file.timeline == TimelineID(1))
        #expect(file.walLevel == .replica)
        #expect(file.standbySettings.maxConnections == 100)
        #expect(file.standbySettings.maxWorkerProcesses == 8)
        #expect(file.standbySettings.maxWALSenders == 10)
        #expect(file.standbySettings.maxPreparedTransactions == 0)
        #expect(file.standbySettings.maxLocksPerTransaction == 64)
        #expect(!file.standbySettings.trackCommitTimestamp)
        #expect((file.blockSize, file.relationSegmentBlocks) == (8192, 131_072))
        #expect((file.walBlockSize, file.walSegmentSize) == (8192, 16 << 20))
        #expect(file.hasDataChecksums)
        #expect(file.charIsSigned == (sample.version >= .v18 ? true : nil))
        #expect(!file.isPoisoned)
    }

    @Test("a change of any bit that matters is seen", arguments: samples)
    func everyBit(_ sample: Sample) {
        let used = sample.version >= .v18 ? 296 : 292
        for bit in 0..<(used * 8) {
            var bytes = sample.bytes
            bytes[bit / 8] ^= 1 << (bit % 8)
            #expect(throws: KedgeError.self, "bit \(bit)") { try ControlFile(parsing: bytes) }
        }
    }

    @Test("a file that was cut is refused, at any length")
    func cut() {
        let bytes = ControlFileTests.samples[2].bytes
        for length in 0..<296 {
            #expect(throws: KedgeError.self) { try ControlFile(parsing: Array(bytes[..<length])) }
        }
    }

    @Test("a torn file is read again until it is whole (lesson 36)")
    func torn() throws {
        let whole = ControlFileTests.samples[0].bytes
        var torn = whole
        torn[40] ^= 0xFF
        var reads = 0
        var pauses = 0
        let bytes = try ControlFile.untorn(pause: { pauses += 1 }) { () throws(KedgeError) in
            reads += 1
            return reads < 4 ? torn : whole
        }
        #expect(bytes == whole)
        #expect((reads, pauses) == (4, 3))
    }

    @Test("a file that stays torn is an error after the last attempt, with the two checksums")
    func staysTorn() throws {
        var torn = ControlFileTests.samples[0].bytes
        torn[40] ^= 0xFF
        var reads = 0
        let error = #expect(throws: KedgeError.self) {
            _ = try ControlFile.untorn(attempts: 5, pause: {}) { () throws(KedgeError) in
                reads += 1
                return torn
            }
        }
        #expect(reads == 5)
        #expect(error?.code == .damaged)
        #expect(error?.message == "cannot read control file \"pg_control\"")
        #expect(error?.detail?.hasPrefix("Its checksum is 1ed296d5, but its content gives ") == true)
    }

    @Test("an unknown format is refused at once, with what kedge knows")
    func unknownFormat() throws {
        var bytes = ControlFileTests.samples[0].bytes
        bytes[8] = 0xB0
        bytes[9] = 0x04
        var reads = 0
        let error = #expect(throws: KedgeError.self) {
            _ = try ControlFile.untorn(pause: {}) { () throws(KedgeError) in
                reads += 1
                return bytes
            }
        }
        #expect(reads == 1)
        #expect(error?.code == .notSupported)
        #expect(error?.detail == "Its format is 1200; kedge knows 1300 (PostgreSQL 13 to 16), 1700 and 1800.")
    }

    @Test("a poisoned file differs in the checkpoint location alone (lesson 37)", arguments: samples)
    func poison(_ sample: Sample) throws {
        let original = sample.bytes
        let poisoned = try ControlFile.poisoned(original)
        let file = try ControlFile(parsing: poisoned)
        #expect(file.isPoisoned)
        #expect(file.checkpoint == ControlFile.poisonedCheckpoint)
        let crc = sample.version >= .v18 ? 292..<296 : 288..<292
        for offset in 0..<ControlFile.fileSize where !(32..<40).contains(offset) && !crc.contains(offset) {
            #expect(poisoned[offset] == original[offset])
        }
        #expect(throws: KedgeError.self) { try ControlFile.poisoned([UInt8](original[..<200])) }
    }

    @Test("the poison is a place where no record can be and the server still looks", arguments: [10, 13, 16])
    func poisonPlace(_ pageBits: UInt64) {
        let position = ControlFile.poisonedCheckpoint.position
        // The first segment of the smallest size, which is never written; past any page header; aligned as records are.
        #expect(position < 1 << 20)
        #expect(position % (1 << pageBits) >= 40)
        #expect(position.isMultiple(of: 8))
    }
}

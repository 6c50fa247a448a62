// backup_label and tablespace_map as every server version writes them, and what is refused.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct BackupLabelTests {
    private static let text = """
        START WAL LOCATION: A/2000028 (file 000000100000000A00000002)
        CHECKPOINT LOCATION: A/2000060
        BACKUP METHOD: streamed
        BACKUP FROM: primary
        START TIME: 2026-11-21 02:00:00 UTC
        LABEL: kedge 20261121T020000Z: full
        START TIMELINE: 16

        """

    @Test("all lines of a label are read")
    func label() throws {
        let label = try BackupLabel(parsing: Array(BackupLabelTests.text.utf8))
        #expect(label.startLSN == LSN("A/2000028"))
        #expect(label.startWALFile == "000000100000000A00000002")
        #expect(label.checkpointLSN == LSN("A/2000060"))
        #expect(!label.isFromStandby)
        #expect(label.startTimeText == "2026-11-21 02:00:00 UTC")
        #expect(label.label == "kedge 20261121T020000Z: full")
        #expect(label.startTimeline == TimelineID(16))
    }

    @Test(
        "a label with a missing or broken line is refused",
        arguments: [
            ("START TIMELINE: 16\n", ""), ("START TIMELINE: 16", "START TIMELINE: 0"),
            ("START TIMELINE: 16", "START TIMELINE: 4294967296"), ("A/2000028", "A-2000028"),
            ("A/2000060", "A/2000020"), ("(file 000000100000000A00000002)", "(file x)"), ("LABEL: ", "NAME: "),
            ("FROM: primary", "FROM: nowhere"), ("START WAL LOCATION: A/2000028 ", "START WAL LOCATION: A/2000028"),
        ])
    func broken(_ change: (from: String, to: String)) {
        let text = BackupLabelTests.text.replacing(change.from, with: change.to)
        #expect(text != BackupLabelTests.text)
        let error = #expect(throws: KedgeError.self) { try BackupLabel(parsing: Array(text.utf8)) }
        #expect(error?.code == .damaged)
    }

    @Test("a map survives writing and reading, whatever bytes its paths hold", arguments: [13, 14, 18])
    func mapRoundTrip(_ version: Int) throws {
        let map = TablespaceMap([
            .init(oid: 16384, path: Array("/data".utf8)),
            .init(oid: 4_294_967_295, path: Array("/data2 with space".utf8)),
            .init(oid: 3, path: Array("/a\nb\rc\\d\\\\e".utf8) + [0xFF, 0x01, 0xC3]),
        ])
        #expect(try TablespaceMap(parsing: map.bytes(majorVersion: version), majorVersion: version) == map)
    }

    @Test("a backslash in a path is escaped since 14, and stands for itself in 13")
    func backslash() throws {
        let map = TablespaceMap([.init(oid: 5, path: Array("/a\\b\n".utf8))])
        #expect(map.bytes(majorVersion: 14) == Array("5 /a\\\\b\\\n\n".utf8))
        #expect(map.bytes(majorVersion: 13) == Array("5 /a\\b\\\n\n".utf8))
    }

    @Test(
        "a map that a server would refuse is refused",
        arguments: [
            "5 /a", "x /a\n", "/a\n", "5\n", "5 \n", "0 /a\n", "4294967296 /a\n", "5 /a\\\n", "+5 /a\n", " 5 /a\n",
        ])
    func brokenMap(_ text: String) {
        let error = #expect(throws: KedgeError.self) {
            try TablespaceMap(parsing: Array(text.utf8), majorVersion: 15)
        }
        #expect(error?.code == .damaged)
    }

    @Test("no damage of a label or map makes the reader trap")
    func damage() {
        let texts = [Array(BackupLabelTests.text.utf8), Array("16384 /a\\\\b\n16385 /c\\\nd\n".utf8)]
        for text in texts {
            for index in text.indices {
                for byte in [UInt8(0), 0x0A, 0x20, 0x5C, 0xFF] {
                    var damaged = text
                    damaged[index] = byte
                    _ = try? BackupLabel(parsing: damaged)
                    _ = try? TablespaceMap(parsing: damaged, majorVersion: 15)
                }
                _ = try? BackupLabel(parsing: Array(text[..<index]))
                _ = try? TablespaceMap(parsing: Array(text[..<index]), majorVersion: 14)
            }
        }
    }
}

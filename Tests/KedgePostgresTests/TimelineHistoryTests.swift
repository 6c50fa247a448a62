// History files: what the server's own parser takes and refuses, and questions about ancestry.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct TimelineHistoryTests {
    private func history(_ text: String, of timeline: UInt32) throws -> TimelineHistory {
        try TimelineHistory(parsing: Array(text.utf8), timeline: TimelineID(timeline))
    }

    private let three = "1\t0/A000198\tno recovery target specified\n2\t0/C000000\tbefore 2026-11-21 02:00:00+00\n"

    @Test("the entries are the path from the root, each with its stretch of WAL")
    func entries() throws {
        let history = try history(three, of: 3)
        #expect(history.timeline == TimelineID(3))
        #expect(
            history.entries == [
                .init(timeline: TimelineID(1), begin: .invalid, end: LSN("0/A000198")),
                .init(timeline: TimelineID(2), begin: LSN(0xA00_0198), end: LSN("0/C000000")),
                .init(timeline: TimelineID(3), begin: LSN(0xC00_0000), end: nil),
            ])
    }

    @Test("a timeline without a history file has no ancestors")
    func root() {
        let history = TimelineHistory(root: TimelineID(1))
        #expect(history.timeline(containing: LSN(0xFF)) == TimelineID(1))
        #expect(history.switchPoint(leaving: TimelineID(1)) == nil)
    }

    @Test("comments, empty lines and blanks are skipped; timelines are decimal in the file (lesson 3)")
    func lenient() throws {
        let history = try history("# made by hand\n\n  9 0/10   \n10\t0/20\tx\r\n", of: 26)
        #expect(history.entries.map(\.timeline.number) == [9, 10, 26])
    }

    @Test(
        "what the server would refuse is refused, with the line",
        arguments: [
            ("1\t0/A000198\n2\n", 3, "Line 2 is not a timeline number followed by an LSN."),
            ("one\t0/A000198\n", 2, "Line 1 is not a timeline number followed by an LSN."),
            ("1\t0-A000198\n", 2, "Line 1 is not a timeline number followed by an LSN."),
            ("0\t0/A000198\n", 2, "Line 1 is not a timeline number followed by an LSN."),
            ("99999999999\t0/1\n", 2, "Line 1 is not a timeline number followed by an LSN."),
            ("", 2, "It names no timeline that this one branched off."),
            ("\n# nothing\n", 3, "It names no timeline that this one branched off."),
            ("2\t0/1\n2\t0/2\n", 3, "Timeline 2 follows timeline 2, but they must increase."),
            ("1\t0/1\n3\t0/2\n", 3, "It lists timeline 3, which is not older than the file's own."),
        ] as [(String, UInt32, String)])
    func refused(_ text: String, _ timeline: UInt32, _ detail: String) throws {
        let error = #expect(throws: KedgeError.self) { try history(text, of: timeline) }
        #expect(error?.code == .walInvalid)
        #expect(error?.message == "cannot read timeline history file \"0000000\(timeline).history\"")
        #expect(error?.detail == detail)
    }

    @Test("a record belongs to the timeline that was current where it begins")
    func containing() throws {
        let history = try history(three, of: 3)
        for (lsn, timeline) in [
            ("0/1", 1), ("0/A000197", 1), ("0/A000198", 2), ("0/BFFFFFF", 2), ("0/C000000", 3),
            ("7FFFFFFF/0", 3),
        ] as [(String, UInt32)] {
            #expect(history.timeline(containing: try #require(LSN(lsn))) == TimelineID(timeline), "\(lsn)")
        }
        #expect(history.switchPoint(leaving: TimelineID(2)) == LSN("0/C000000"))
        #expect(history.switchPoint(leaving: TimelineID(3)) == nil)
        #expect(history.contains(TimelineID(2)) && !history.contains(TimelineID(4)))
    }

    @Test("a backup can be recovered along a history only if its timeline was not left before its end")
    func upTo() throws {
        let history = try history(three, of: 3)
        #expect(history.contains(TimelineID(1), upTo: try #require(LSN("0/A000198"))))
        #expect(!history.contains(TimelineID(1), upTo: try #require(LSN("0/A000199"))))
        #expect(history.contains(TimelineID(3), upTo: LSN(.max)))
        #expect(!history.contains(TimelineID(4), upTo: LSN(1)))
    }

    @Test("a parent that was left before its own start owns nothing, and its own parent ends there")
    func decreasing() throws {
        let history = try history("1\t0/300\n2\t0/200\n", of: 3)
        #expect(history.timeline(containing: LSN(0x1FF)) == TimelineID(1))
        #expect(history.timeline(containing: LSN(0x250)) == TimelineID(3))
        #expect(history.entries.map(\.limit) == [LSN(0x200), LSN(0x200), nil])
        #expect(history.contains(TimelineID(1), upTo: LSN(0x200)))
        #expect(!history.contains(TimelineID(1), upTo: LSN(0x201)))
        #expect(!history.contains(TimelineID(2), upTo: LSN(0x200)))
        #expect(history.contains(TimelineID(3), upTo: LSN(0x201)))
    }

    @Test("a huge file is refused before it is split")
    func huge() throws {
        let bytes = [UInt8](repeating: 0x0A, count: TimelineHistory.maximumFileSize + 1)
        #expect(throws: KedgeError.self) { try TimelineHistory(parsing: bytes, timeline: TimelineID(2)) }
    }
}

@Suite struct BackupHistoryFileTests {
    private let text = """
        START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
        STOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)
        CHECKPOINT LOCATION: 0/2000080
        BACKUP METHOD: streamed
        BACKUP FROM: primary
        START TIME: 2026-11-21 02:00:00 GMT
        LABEL: nightly: one
        START TIMELINE: 1
        STOP TIME: 2026-11-21 02:00:05 GMT
        STOP TIMELINE: 1

        """

    @Test("locations, label and timelines are read")
    func parsed() throws {
        let file = try BackupHistoryFile(parsing: Array(text.utf8), name: "x.backup")
        #expect(file.startLSN == LSN("0/2000028"))
        #expect(file.startFile == "000000010000000000000002")
        #expect(file.stopLSN == LSN("0/2000138"))
        #expect(file.checkpointLSN == LSN("0/2000080"))
        #expect(file.label == "nightly: one")
        #expect(file.stopTimeline == TimelineID(1))
    }

    @Test("a missing location is named")
    func missing() throws {
        let cut = text.split(separator: "\n").filter { !$0.hasPrefix("CHECKPOINT") }.joined(separator: "\n")
        let error = #expect(throws: KedgeError.self) {
            try BackupHistoryFile(parsing: Array(cut.utf8), name: "x.backup")
        }
        #expect(error?.detail == "It has no line \"CHECKPOINT LOCATION: …\" with an LSN.")
    }
}

// Why a segment did not arrive: whole texts for every cause, and in generated cases that the cause follows from the
// facts that rule the others out (lesson 42, and the first of what users of other tools ask for).
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite struct ArchivingDiagnosisTests {
    private static let moment = Timestamp(secondsSince1970: 1_795_177_800)
    private static let awaited = "000000010000000000000005"

    /// Facts of a server that has written ten segments; `seconds` after the moment.
    private static func facts(
        seconds: Int64 = 0, archived: Int = 3, last: String? = "000000010000000000000004", failed: Int = 0,
        lastFailed: String? = nil, _ change: (inout ArchivingFacts) -> Void = { _ in }
    ) -> ArchivingFacts {
        var facts = ArchivingFacts(
            statistics: ArchiverStatistics(
                archivedCount: archived, lastArchivedFile: last, lastArchivedTime: last.map { _ in moment },
                failedCount: failed, lastFailedFile: lastFailed,
                lastFailedTime: lastFailed.map { _ in moment.adding(seconds: 5) }),
            timeline: TimelineID(1), lsn: LSN(10 << 24), time: moment.adding(seconds: seconds))
        facts.archiveCommand = "/k/kedge archive-push '%p' %f %% %x %"
        change(&facts)
        return facts
    }

    private static func diagnosis(before: ArchivingFacts? = nil, now: ArchivingFacts) -> ArchivingDiagnosis {
        ArchivingDiagnosis(
            segment: WALSegment(timeline: TimelineID(1), number: 5), segmentSize: 16 << 20,
            before: before ?? facts(), now: now, waitedSeconds: 60, dataDirectory: "/data")
    }

    struct Row: Sendable, CustomTestStringConvertible {
        let cause: ArchivingDiagnosis.Cause
        let diagnosis: ArchivingDiagnosis
        /// How the detail begins, before the counters.
        let detail: String
        /// A part of the hint that no other cause has.
        let hint: String
        var testDescription: String { "\(cause)" }
    }

    static let rows = [
        Row(
            cause: .modeIsOff, diagnosis: diagnosis(now: facts { $0.archiveMode = .off }),
            detail: "archive_mode is off: the server archives nothing.", hint: "and restart the server."),
        Row(
            cause: .standbyDoesNotArchive, diagnosis: diagnosis(now: facts { $0.isInRecovery = true }),
            detail: "The server is a standby, which archives nothing with archive_mode = on.",
            hint: "set archive_mode = always"),
        Row(
            cause: .nothingIsCalled, diagnosis: diagnosis(now: facts { $0.archiveCommand = "" }),
            detail: "archive_command is empty: segments pile up in pg_wal.", hint: "and reload the server."),
        Row(
            cause: .isNotFinished, diagnosis: diagnosis(now: facts { $0.lsn = LSN(6 << 24 - 8) }),
            detail: "The server still writes to this segment, and archives it once it is finished.",
            hint: "call pg_switch_wal()"),
        Row(
            cause: .libraryStoredElsewhere("basic_archive"),
            diagnosis: diagnosis(now: facts(last: awaited) { $0.archiveLibrary = "basic_archive" }),
            detail: "PostgreSQL counts the segment as archived, by archive_library \"basic_archive\", not by kedge.",
            hint: "Set archive_library = ''"),
        Row(
            cause: .otherCommandStoredElsewhere,
            diagnosis: diagnosis(now: facts(last: awaited) { $0.archiveCommand = "cp %p /there/%f" }),
            detail: "PostgreSQL counts the segment as archived, but by a command that is not kedge's: "
                + "\"cp %p /there/%f\".", hint: "If the command is a script that calls kedge"),
        Row(
            cause: .storedElsewhere, diagnosis: diagnosis(now: facts(last: "000000010000000000000006")),
            detail: "PostgreSQL counts the segment as archived, but it is not in this repository.",
            hint: "repositories there include \"main\""),
        Row(
            // The server's own note about the segment is believed before the order of names.
            cause: .isBehind,
            diagnosis: diagnosis(now: facts(archived: 4, last: "000000010000000000000006") { $0.isReady = true }),
            detail: "Archiving works but is behind: other files come first.", hint: "raise process-max"),
        Row(
            cause: .fails(awaited), diagnosis: diagnosis(now: facts(failed: 4, lastFailed: awaited)),
            detail: "The archive_command fails with this very segment.",
            hint: "cd '/data' && /k/kedge archive-push 'pg_wal/\(awaited)' \(awaited) % %x %"),
        Row(
            cause: .fails("000000010000000000000002"),
            diagnosis: diagnosis(now: facts(failed: 4, lastFailed: "000000010000000000000002")),
            detail: "The archive_command fails with \"000000010000000000000002\", and the archiver goes on to nothing "
                + "else before that.", hint: "pg_wal/000000010000000000000002"),
        Row(
            cause: .fails(awaited),
            diagnosis: diagnosis(now: facts(failed: 4, lastFailed: awaited) { $0.archiveLibrary = "basic_archive" }),
            detail: "The archive_library fails with this very segment.", hint: "what the library said"),
        Row(
            cause: .archiverIsNotRunning,
            diagnosis: diagnosis(now: facts { $0.archiver = .init(isRunning: false, since: nil) }),
            detail:
                "The server's archiver process does not run: a command that a signal ends, or that exits above 125, "
                + "ends it too, and PostgreSQL counts no failure then.", hint: "how the command or the archiver ended"),
        Row(
            cause: .archiverRestarts,
            diagnosis: diagnosis(
                before: facts { $0.archiver = .init(isRunning: true, since: moment) },
                now: facts { $0.archiver = .init(isRunning: true, since: moment.adding(seconds: 10)) }),
            detail: "The archiver process ended and was started anew meanwhile: a command that a signal ends, or that "
                + "exits above 125, does that to it, and PostgreSQL counts no failure then.",
            hint: "after ten seconds"),
        Row(
            cause: .hangs(awaited),
            diagnosis: diagnosis(now: facts { $0.backlog = .init(files: 1, next: awaited, since: nil) }),
            detail: "The archiver has neither stored this segment nor failed: its command does not come back.",
            hint: "for what it waits"),
        Row(
            cause: .hangs("00000002.history"),
            diagnosis: diagnosis(now: facts { $0.backlog = .init(files: 2, next: "00000002.history", since: nil) }),
            detail:
                "The archiver has neither stored nor failed anything meanwhile: it is at \"00000002.history\", which "
                + "comes before this segment.", hint: "for what it waits"),
        Row(
            // A history file, and a segment of another timeline, say nothing about this segment.
            cause: .standsStill, diagnosis: diagnosis(now: facts(last: "000000020000000000000009")),
            detail: "The archiver has neither stored nor failed anything meanwhile.", hint: "for what it waits"),
    ]

    @Test("a segment that does not arrive is explained with what PostgreSQL knows (lesson 42)", arguments: rows)
    func explained(_ row: Row) {
        #expect(row.diagnosis.cause == row.cause)
        let error = row.diagnosis.error("main")
        #expect(error.code == .archivingBroken)
        #expect(error.message == "could not find WAL segment \"\(Self.awaited)\" in repository \"main\" after 60 s")
        #expect(error.detail?.hasPrefix(row.detail + "  The server has archived ") == true, "\(error.detail ?? "")")
        #expect(error.hint?.contains(row.hint) == true, "\(error.hint ?? "")")
    }

    @Test("backlog, rates and the time until pg_wal is full are told where they are known")
    func numbers() {
        let now = Self.facts(seconds: 64, archived: 5, failed: 2, lastFailed: Self.awaited) { facts in
            facts.lsn = LSN(18 << 24)
            facts.backlog = .init(files: 37, next: Self.awaited, since: Self.moment.adding(seconds: -3600))
            facts.freeBytes = 1 << 30
        }
        let error = Self.diagnosis(now: now).error("main", explanation: "It says so.")
        #expect(
            error.detail
                == "The archive_command fails with this very segment.  It says so.  The server has archived 5 file(s), "
                + "the last one \"000000010000000000000004\" at 2026-11-20T12:30:00Z; 2 attempt(s) failed, the last "
                + "one with \"\(Self.awaited)\" at 2026-11-20T12:30:05Z.  37 file(s) wait in pg_wal, up to 592 MB, the "
                + "next one \"\(Self.awaited)\", the oldest since 2026-11-20T11:30:00Z.  WAL is written at 2 MB/s and "
                + "archived at 512 kB/s; the file system of pg_wal has 1 GB free and is full in 11 min 22 s at this "
                + "rate."
        )
        // Nothing is foretold where the backlog shrinks, and no rate is made up from no time at all.
        let shrinking = Self.facts(seconds: 64, archived: 50) { $0.freeBytes = 1 << 30 }
        let shrinks = Self.diagnosis(now: shrinking).error("main").detail ?? ""
        #expect(
            shrinks.contains("WAL is written at 0 bytes/s and archived at 12 MB/s; the file system of pg_wal has 1 GB"))
        #expect(!shrinks.contains("is full in"))
        #expect(Self.diagnosis(now: Self.facts()).error("main").detail?.contains("WAL is written") == false)
    }

    @Test("in generated cases the cause is the first that the facts allow, and no number makes it trap")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        var seen: [String: Int] = [:]
        func pick<Value>(_ values: [Value]) -> Value { values[random.next(below: values.count)] }
        for _ in 0..<20_000 {
            let files = [nil, Self.awaited, "000000010000000000000002", "000000020000000000000009", "x"]
            func some(_ seconds: Int64) -> ArchivingFacts {
                var facts = Self.facts(
                    seconds: seconds, archived: pick([0, 3, Int.max]), last: pick(files),
                    failed: pick([0, 1, Int.max]), lastFailed: pick(files))
                facts.archiveMode = pick([.on, .on, .on, .on, .off, .always])
                facts.isInRecovery = random.next(below: 6) == 0
                facts.archiveCommand = pick(["", "cp", "kedge archive-push %p", "kedge archive-push %p"])
                facts.archiveLibrary = pick(["", "", "", "lib"])
                facts.lsn = pick([LSN(0), LSN(6 << 24 - 1), LSN(6 << 24), LSN(UInt64.max)])
                facts.isReady = pick([nil, true, false])
                facts.backlog = pick([
                    nil, .init(files: Int.max, next: nil, since: nil), .init(files: 2, next: "y", since: nil),
                ])
                facts.archiver = pick([
                    nil, .init(isRunning: false, since: nil), .init(isRunning: true, since: Self.moment),
                ])
                facts.freeBytes = pick([nil, 0, UInt64.max])
                return facts
            }
            let (before, now) = (some(0), some(pick([0, 1, 100])))
            let diagnosis = Self.diagnosis(before: before, now: now)
            let cause = diagnosis.cause
            #expect(!diagnosis.error("main").message.isEmpty)
            seen["\(cause)".prefix { $0 != "(" }.description, default: 0] += 1
            let archives = now.archiveMode == .always || now.archiveMode == .on && !now.isInRecovery
            let isCalled = !now.archiveCommand.isEmpty || !now.archiveLibrary.isEmpty
            #expect((cause == .modeIsOff) == (now.archiveMode == .off))
            #expect((cause == .standbyDoesNotArchive) == (!archives && now.archiveMode != .off))
            #expect((cause == .nothingIsCalled) == (archives && !isCalled))
            let isFinished = now.lsn >= LSN(6 << 24)
            #expect((cause == .isNotFinished) == (archives && isCalled && !isFinished))
            guard archives, isCalled, isFinished else { continue }
            let isStored = now.isReady != true && now.statistics.lastArchivedFile == Self.awaited
            let saysStored = [
                ArchivingDiagnosis.Cause.storedElsewhere, .otherCommandStoredElsewhere, .libraryStoredElsewhere("lib"),
            ]
            #expect(saysStored.contains(cause) == isStored)
            // The last failure is always later than the last success here.
            if !isStored { #expect(now.statistics.lastFailedFile.map { cause == .fails($0) } != false) }
            #expect((diagnosis.failedPush != nil) == (now.callsKedge && "\(cause)".hasPrefix("fails")))
        }
        #expect(seen.count >= 11 && seen.values.allSatisfy { $0 > 20 }, "\(seen)")
    }
}

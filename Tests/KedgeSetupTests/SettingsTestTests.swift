// What `check` says about each setting, and why a segment did not arrive: whole texts, for every case of the rules.
import KedgeCore
import Testing

@testable import KedgePostgres
@testable import KedgeSetup

private func settings(
    archiveMode: ServerSettings.ArchiveMode = .on, command: String = "kedge archive-push %p", library: String = "",
    walLevel: String = "replica", fullPageWrites: Bool = true
) -> ServerSettings {
    ServerSettings(
        dataDirectory: "/data", archiveMode: archiveMode, archiveCommand: command, archiveLibrary: library,
        walLevel: walLevel, fullPageWrites: fullPageWrites, walSegmentSizeBytes: 16 << 20, blockSizeBytes: 8192,
        walBlockSizeBytes: 8192, relationSegmentBlocks: 131_072, dataChecksums: true,
        systemIdentifier: SystemIdentifier(7))
}

private func text(_ verdict: CheckFinding.Verdict) -> String {
    switch verdict {
    case .ok(let text): "ok: \(text)"
    case .warning(let error): "warning: \(error.message) | \(error.detail ?? "") | \(error.hint ?? "")"
    case .failed(let error): "failed: \(error.message) | \(error.detail ?? "") | \(error.hint ?? "")"
    }
}

private func verdicts(_ settings: ServerSettings, isInRecovery: Bool = false) -> [String] {
    SettingsTest.verdicts(settings, isInRecovery: isInRecovery).map { "\($0.subject.rawValue) \(text($0.verdict))" }
}

@Suite struct SettingsTestTests {
    private let good = [
        "wal_level ok: is replica", "archive_mode ok: is on", "archive_command ok: is \"kedge archive-push %p\"",
        "full_page_writes ok: is on",
    ]

    @Test("good settings are said to be so, one line each")
    func goodSettings() {
        #expect(verdicts(settings()) == good)
        #expect(
            verdicts(settings(archiveMode: .always, walLevel: "logical"))[0...1] == [
                "wal_level ok: is logical", "archive_mode ok: is always",
            ])
        #expect(SettingsTest.archives(settings()))
    }

    struct Row: Sendable, CustomTestStringConvertible {
        let settings: ServerSettings
        let index: Int
        let text: String
        let archives: Bool
        var testDescription: String { text }
    }

    static let rows = [
        Row(
            settings: settings(walLevel: "minimal"), index: 0,
            text:
                "wal_level failed: wal_level is minimal | The WAL then lacks what recovery from a base backup needs. | "
                + "Set wal_level = replica and restart the server.", archives: true),
        Row(
            settings: settings(archiveMode: .off), index: 1,
            text:
                "archive_mode failed: archive_mode is off | The server does not archive its WAL. | Put the lines that "
                + "\"kedge init\" prints into postgresql.conf and restart the server.", archives: false),
        Row(
            settings: settings(command: ""), index: 2,
            text:
                "archive_command failed: archive_command is empty | Segments pile up in pg_wal until it is set. | Put "
                + "the lines that \"kedge init\" prints into postgresql.conf and reload the server.", archives: false),
        Row(
            settings: settings(command: "cp %p /x"), index: 2,
            text:
                "archive_command warning: archive_command does not call \"kedge archive-push %p\" | It is \"cp %p "
                + "/x\". | If this is no script that calls it: put the lines that \"kedge init\" prints into "
                + "postgresql.conf and reload the server.", archives: true),
        Row(
            settings: settings(command: "", library: "basic_archive"), index: 2,
            text:
                "archive_command warning: archive_library is \"basic_archive\" | While it is set, the server does not "
                + "call archive_command. | Unless that library stores into kedge's repositories, set "
                + "archive_library = '' and archive_command to what \"kedge init\" prints, and reload the server.",
            archives: true),
        Row(
            settings: settings(fullPageWrites: false), index: 3,
            text:
                "full_page_writes warning: full_page_writes is off | The server turns it on while a backup is taken, "
                + "so backups are sound; but a crash of the host can leave torn pages that nothing repairs. | Set "
                + "full_page_writes = on unless the storage writes whole pages or none.", archives: true),
    ]

    @Test("a setting that is wrong says what follows and what to do, and hides no other", arguments: rows)
    func wrong(_ row: Row) {
        var expected = good
        expected[row.index] = row.text
        if row.settings.archiveMode == .off { expected.remove(at: 2) }
        #expect(verdicts(row.settings) == expected)
        #expect(SettingsTest.archives(row.settings) == row.archives)
        // On a standby the same is a warning: its archiving begins with a promotion.
        expected[row.index] = row.text.replacing(" failed: ", with: " warning: ")
        #expect(verdicts(row.settings, isInRecovery: true) == expected)
    }
}

@Suite struct ArchivingDiagnosisTests {
    static let moment = Timestamp(secondsSince1970: 1_795_177_800)

    static func state(
        archived: Int, last: String? = nil, failed: Int = 0, lastFailed: String? = nil, failedLater: Bool = false,
        waiting: Int? = nil
    ) -> ArchiverState {
        ArchiverState(
            statistics: ArchiverStatistics(
                archivedCount: archived, lastArchivedFile: last, lastArchivedTime: last.map { _ in moment },
                failedCount: failed, lastFailedFile: lastFailed,
                lastFailedTime: lastFailed.map { _ in moment.adding(seconds: failedLater ? 5 : -5) }),
            waitingFiles: waiting)
    }

    static func diagnosis(before: ArchiverState, now: ArchiverState, command: String = "") -> ArchivingDiagnosis {
        ArchivingDiagnosis(
            segment: WALSegment(timeline: TimelineID(1), number: 5), segmentSize: 16 << 20, before: before, now: now,
            waitedSeconds: 60, archiveCommand: command, dataDirectory: "/data")
    }

    struct Row: Sendable, CustomTestStringConvertible {
        let diagnosis: ArchivingDiagnosis
        let cause: ArchivingDiagnosis.Cause
        let detail: String
        let hint: String
        var testDescription: String { detail }
    }

    static let rows = [
        Row(
            diagnosis: diagnosis(
                before: state(archived: 3, last: "000000010000000000000004"),
                now: state(
                    archived: 3, last: "000000010000000000000004", failed: 4, lastFailed: "000000010000000000000005",
                    failedLater: true, waiting: 1), command: "/k/kedge archive-push '%p' %f %% %x %"),
            cause: .commandFails("000000010000000000000005"),
            detail:
                "The archive_command fails: the last attempt was with \"000000010000000000000005\".  The server has "
                + "archived 3 file(s), the last one \"000000010000000000000004\" at 2026-11-20T12:30:00Z; 4 attempt(s) "
                + "failed, the last one with \"000000010000000000000005\" at 2026-11-20T12:30:05Z; 1 file(s) wait in "
                + "pg_wal.",
            hint: "Look into the server's log for what the command said, or run it by hand as the server's user: "
                + "cd '/data' && /k/kedge archive-push 'pg_wal/000000010000000000000005' 000000010000000000000005 % %x "
                + "%"),
        Row(
            diagnosis: diagnosis(
                before: state(archived: 3), now: state(archived: 4, last: "000000010000000000000005", waiting: 0)),
            cause: .storedElsewhere,
            detail: "PostgreSQL counts the segment as archived, but it is not in this repository.  The server has "
                + "archived 4 file(s), the last one \"000000010000000000000005\" at 2026-11-20T12:30:00Z; 0 attempt(s) "
                + "failed; 0 file(s) wait in pg_wal.",
            hint: "Check that archive_command calls kedge with this configuration and cluster, that the cluster's "
                + "repositories there include \"main\", and that it does not hide a failure."),
        Row(
            diagnosis: diagnosis(
                before: state(archived: 3, last: "000000010000000000000001"),
                now: state(
                    archived: 4, last: "000000010000000000000002", failed: 2, lastFailed: "000000010000000000000001",
                    waiting: 3)),
            cause: .isBehind,
            detail:
                "Archiving works but is behind: other files come first.  The server has archived 4 file(s), the last "
                + "one \"000000010000000000000002\" at 2026-11-20T12:30:00Z; 2 attempt(s) failed, the last one with "
                + "\"000000010000000000000001\" at 2026-11-20T12:29:55Z; 3 file(s) wait in pg_wal.",
            hint: "Run \"kedge check\" again later, or with a longer --archive-timeout.  If the files that wait become "
                + "more, WAL is written faster than it is stored: raise process-max, or choose a faster compression."),
        Row(
            // A history file, and a segment of another timeline, say nothing about this segment.
            diagnosis: diagnosis(
                before: state(archived: 3, last: "00000002.history"),
                now: state(archived: 3, last: "000000020000000000000009")),
            cause: .standsStill,
            detail:
                "The archiver has neither stored nor failed anything meanwhile.  The server has archived 3 file(s), "
                + "the last one \"000000020000000000000009\" at 2026-11-20T12:30:00Z; 0 attempt(s) failed.",
            hint:
                "Look for a process \"archive-push\" on the server's host and for what it waits, and into the server's "
                + "log for the archiver.  After three failures the archiver pauses for a minute."),
        Row(
            diagnosis: diagnosis(before: state(archived: 0), now: state(archived: 0)), cause: .standsStill,
            detail:
                "The archiver has neither stored nor failed anything meanwhile.  The server has archived 0 file(s); "
                + "0 attempt(s) failed.",
            hint:
                "Look for a process \"archive-push\" on the server's host and for what it waits, and into the server's "
                + "log for the archiver.  After three failures the archiver pauses for a minute."),
    ]

    @Test("a segment that does not arrive is explained with what PostgreSQL counts (lesson 42)", arguments: rows)
    func explained(_ row: Row) {
        let error = row.diagnosis.error("main")
        #expect(row.diagnosis.cause == row.cause)
        #expect(error.code == .archivingBroken)
        #expect(
            error.message
                == "could not find WAL segment \"000000010000000000000005\" in repository \"main\" after 60 s")
        #expect(error.detail == row.detail)
        #expect(error.hint == row.hint)
    }
}

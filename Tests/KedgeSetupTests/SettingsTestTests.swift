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

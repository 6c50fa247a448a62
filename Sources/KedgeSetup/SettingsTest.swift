// The server's settings as `check` judges them. Pure: settings in, verdicts out.
//
// On a standby the settings say how it will archive once it is promoted, so what is wrong with them is a warning.

import KedgeCore
import KedgePostgres

/// Judges settings.
enum SettingsTest {
    /// Whether the server will call something for each finished segment.
    static func archives(_ settings: ServerSettings) -> Bool {
        settings.archiveMode != .off && !(settings.archiveCommand.isEmpty && settings.archiveLibrary.isEmpty)
    }

    /// One verdict for each setting that decides about WAL and backups. The archive command is left out while
    /// archive_mode is off: the server does not show it then (show_archive_command, src/backend/access/transam/xlog.c).
    static func verdicts(
        _ settings: ServerSettings, isInRecovery: Bool
    ) -> [(subject: CheckSubject, verdict: CheckFinding.Verdict)] {
        var verdicts = [(CheckSubject.walLevel, walLevel(settings)), (.archiveMode, archiveMode(settings))]
        if settings.archiveMode != .off { verdicts.append((.archiveCommand, archiveCommand(settings))) }
        verdicts.append((.fullPageWrites, fullPageWrites(settings)))
        guard isInRecovery else { return verdicts }
        return verdicts.map { subject, verdict in
            guard case .failed(let error) = verdict else { return (subject, verdict) }
            return (subject, .warning(error))
        }
    }

    private static let initHint = "Put the lines that \"kedge init\" prints into postgresql.conf"

    private static func walLevel(_ settings: ServerSettings) -> CheckFinding.Verdict {
        guard settings.walLevel == "minimal" else { return .ok("is \(settings.walLevel)") }
        return .failed(
            KedgeError(
                .archivingBroken, "wal_level is minimal",
                detail: "The WAL then lacks what recovery from a base backup needs.",
                hint: "Set wal_level = replica and restart the server."))
    }

    private static func archiveMode(_ settings: ServerSettings) -> CheckFinding.Verdict {
        guard settings.archiveMode == .off else { return .ok("is \(settings.archiveMode.rawValue)") }
        return .failed(
            KedgeError(
                .archivingBroken, "archive_mode is off", detail: "The server does not archive its WAL.",
                hint: initHint + " and restart the server."))
    }

    private static func archiveCommand(_ settings: ServerSettings) -> CheckFinding.Verdict {
        if !settings.archiveLibrary.isEmpty {
            return .warning(
                KedgeError(
                    .configuration, "archive_library is \"\(settings.archiveLibrary)\"",
                    detail: "While it is set, the server does not call archive_command.",
                    hint: "Unless that library stores into kedge's repositories, set archive_library = '' and "
                        + "archive_command to what \"kedge init\" prints, and reload the server."))
        }
        guard !settings.archiveCommand.isEmpty else {
            return .failed(
                KedgeError(
                    .archivingBroken, "archive_command is empty",
                    detail: "Segments pile up in pg_wal until it is set.", hint: initHint + " and reload the server."))
        }
        guard settings.archiveCommand.contains("archive-push"), settings.archiveCommand.contains("%p") else {
            return .warning(
                KedgeError(
                    .configuration, "archive_command does not call \"kedge archive-push %p\"",
                    detail: "It is \"\(settings.archiveCommand)\".",
                    hint:
                        "If this is no script that calls it: \(initHint.prefix(1).lowercased() + initHint.dropFirst())"
                        + " and reload the server."))
        }
        return .ok("is \"\(settings.archiveCommand)\"")
    }

    private static func fullPageWrites(_ settings: ServerSettings) -> CheckFinding.Verdict {
        guard !settings.fullPageWrites else { return .ok("is on") }
        return .warning(
            KedgeError(
                .configuration, "full_page_writes is off",
                detail: "The server turns it on while a backup is taken, so backups are sound; but a crash of the host "
                    + "can leave torn pages that nothing repairs.",
                hint: "Set full_page_writes = on unless the storage writes whole pages or none."))
    }
}

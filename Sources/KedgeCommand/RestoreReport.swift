// What `kedge restore` prints when it is done, or when it was asked for the plan alone.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRestore

/// The text and the JSON of one outcome.
struct RestoreReport {
    private let outcome: Restore.Outcome
    private let binDirectory: String?
    private let start: StartSettings

    init(_ outcome: Restore.Outcome, start: StartSettings, binDirectory: String?) {
        self.outcome = outcome
        self.start = start
        self.binDirectory = binDirectory
    }

    var result: CommandResult { CommandResult(lines: lines, json: json) }

    private var plan: RestorePlan { outcome.plan }
    private var isStandby: Bool { outcome.settings.isStandby }

    private var lines: [String] {
        let size = HumanText.size(outcome.totalBytes)
        let verb = outcome.isWritten ? "restored" : "would restore"
        var lines = [
            "\(verb) backup \(plan.backup.label) into \"\(outcome.pgdata)\": \(outcome.files) files, \(size)"
                + (outcome.isWritten ? " in \(HumanText.duration(.milliseconds(Int64(outcome.milliseconds))))" : ""),
            "backup: from repository \"\(outcome.repository)\", stopped at \(plan.backup.span.stopTime), LSN "
                + "\(plan.backup.span.stopLSN); \(plan.reason)",
            "recovery: \(targetText)",
        ]
        lines += deltaLines
        lines += plan.proofs.map { "proven: \($0)" }
        for placement in outcome.placements {
            lines.append("tablespace \(placement.oid): \"\(placement.target)\"")
        }
        for tablespace in plan.tablespaces {
            lines.append("tablespace \(tablespace.oid): recovery will create it in \"\(tablespace.path)\"")
        }
        lines += walDirectoryLines
        lines.append(
            outcome.settings.archiving == .keep
                ? "archiving: as configured; this is the original's place"
                : "archiving: off (archive_mode in postgresql.auto.conf), so that a copy does not archive into the "
                    + "original's repository")
        if outcome.settings.archiving == .off {
            lines.append(
                "subscriptions: off (max_logical_replication_workers in postgresql.auto.conf), so that a copy does not "
                    + "take changes that the original waits for")
        }
        if outcome.settings.leavesSlot {
            lines.append(
                "replication slot: none (primary_slot_name in postgresql.auto.conf), since the original's serves one "
                    + "standby alone: create one for this standby where it connects to, and name it there")
        }
        lines.append("replication slots are not restored: create those that are needed again")
        lines += extraFileLines
        if outcome.isWritten { lines += ["", "Start the server: \(startCommand)"] }
        return lines
    }

    private var targetText: String {
        if isStandby { return "as a standby, along \(plan.followed.map { "timeline \($0)" } ?? "the newest timeline")" }
        let end: String =
            switch plan.target {
            case .none: "as far as WAL can be fetched"
            case .immediate: "to the end of the backup"
            case .name(let name): "to restore point \"\(name)\""
            case .time(let time, let exclusive): exclusive ? "to just before \(time)" : "to \(time)"
            case .lsn(let lsn, let exclusive): exclusive ? "to just before LSN \(lsn)" : "to LSN \(lsn)"
            case .transaction(let number, let exclusive):
                exclusive ? "to just before transaction \(number)" : "to transaction \(number)"
            }
        return "\(end) on timeline \(plan.timeline), then \(outcome.settings.action.rawValue)"
    }

    private var deltaLines: [String] {
        guard let delta = outcome.delta else { return [] }
        let (compared, fetched) = (HumanText.size(delta.comparedBytes), HumanText.size(delta.fetchedBytes))
        let removed = "\(delta.removed.files) files (\(HumanText.size(delta.removed.bytes)))"
        var lines = [
            outcome.isWritten
                ? "delta: \(compared) compared, \(fetched) fetched, \(removed) removed"
                : "delta: \(compared) compared; would fetch \(fetched) and remove \(removed); nothing was changed"
        ]
        lines += delta.unarchived.map(unarchivedLines) ?? []
        lines += delta.abandoned.map { "no longer used by this data directory, and left as it is: \"\($0)\"" }
        return lines
    }

    private func unarchivedLines(_ unarchived: UnarchivedWALOutcome) -> [String] {
        let what = "\(unarchived.wal.summary), in no repository"
        if unarchived.choice == .discard {
            return ["\(outcome.isWritten ? "discarded" : "would discard"): \(what)"]
        }
        let kept = "\(outcome.isWritten ? "kept" : "would keep") in pg_wal: \(what)"
        guard !unarchived.isReplayed else { return ["\(kept); recovery goes on in it where the archive ends"] }
        return [
            "\(kept); this recovery does not come to it, and once it is promoted the server may remove it: copy away "
                + "what is still wanted"
        ]
    }

    /// Nothing of the original's layout is taken over unasked: its `pg_wal` may be another cluster's by now.
    private var walDirectoryLines: [String] {
        if let directory = outcome.walDirectory { return ["pg_wal: a link to \"\(directory)\""] }
        guard let directory = plan.backup.walDirectory else { return [] }
        return [
            "pg_wal: a plain directory, where the original's was a link to \"\(directory)\" (--waldir DIR makes a link)"
        ]
    }

    private var extraFileLines: [String] {
        guard !outcome.extraFiles.isEmpty else { return [] }
        let list = outcome.extraFiles.map { "\"\($0)\"" }.joined(separator: ", ")
        if let directory = outcome.extraFilesDirectory {
            return ["configuration files from outside the data directory, below \"\(directory)\": \(list)"]
        }
        return [
            "configuration files from outside the data directory, left out: \(list) (--extra-files DIR writes them)"
        ]
    }

    /// A configuration file may name the original's data directory, and that wins over -D: so the directory is given
    /// as a setting, which wins over both.
    private var startCommand: String {
        let program = binDirectory.map { $0 + "/pg_ctl" } ?? "pg_ctl"
        let pgdata = outcome.pgdata.description
        var words = [program, "-D", pgdata]
        var settings: [String] = []
        if let path = outcome.outerConfigurationFile { settings += ["-c", "config_file=\(path)"] }
        if !settings.isEmpty || start.overridesDataDirectory { settings += ["-c", "data_directory=\(pgdata)"] }
        if !settings.isEmpty { words += ["-o", settings.map(RestoreCommandLine.quoted).joined(separator: " ")] }
        return (words + ["-w", "start"]).map(RestoreCommandLine.quoted).joined(separator: " ")
    }

    private var json: JSONValue {
        [
            "written": .bool(outcome.isWritten), "backup": .string(plan.backup.label.text),
            "repository": .string(outcome.repository), "reason": .string(plan.reason),
            "pgdata": .string(outcome.pgdata.description), "timeline": .int(plan.timeline.number),
            "standby": .bool(isStandby), "action": .string(outcome.settings.action.rawValue), "target": targetJSON,
            "stopLSN": .optional((plan.stop?.record ?? plan.lastRecord)?.description),
            "proven": .array(plan.proofs.map(JSONValue.string)),
            "warnings": .array(outcome.warnings.map(JSONValue.string)),
            "unreadableRepositories": .array(outcome.awayRepositories.map(JSONValue.string)),
            "tablespaces": .array(
                outcome.placements.map {
                    ["oid": .int($0.oid), "directory": .string($0.target.description), "mapped": .bool($0.isMapped)]
                }),
            "createdByRecovery": .array(
                plan.tablespaces.map { ["oid": .int($0.oid), "directory": .string($0.path.description)] }),
            "walDirectory": .optional(outcome.walDirectory?.description),
            "archiving": .string(outcome.settings.archiving.rawValue), "files": .int(outcome.files),
            "bytes": .int(outcome.totalBytes), "milliseconds": .int(outcome.milliseconds),
            "delta": deltaJSON,
            "extraFiles": .array(outcome.extraFiles.map { .string($0.description) }),
            "unreadableBackups": .array(outcome.unreadable.map { .string($0.name) }),
            "start": .string(startCommand),
        ]
    }

    private var deltaJSON: JSONValue {
        guard let delta = outcome.delta else { return .null }
        return [
            "comparedBytes": .int(delta.comparedBytes), "fetchedBytes": .int(delta.fetchedBytes),
            "removedFiles": .int(delta.removed.files), "removedBytes": .int(delta.removed.bytes),
            "abandonedDirectories": .array(delta.abandoned.map { .string($0.description) }),
            "unarchivedWAL": delta.unarchived.map(unarchivedJSON) ?? .null,
        ]
    }

    private func unarchivedJSON(_ unarchived: UnarchivedWALOutcome) -> JSONValue {
        [
            "choice": .string(unarchived.choice.rawValue), "replayed": .bool(unarchived.isReplayed),
            "files": .array(unarchived.wal.files.map { .string($0.name.text) }),
            "endLSN": .optional(unarchived.wal.end?.description),
        ]
    }

    private var targetJSON: JSONValue {
        func target(_ kind: String, _ value: String, exclusive: Bool = false) -> JSONValue {
            ["kind": .string(kind), "value": .string(value), "exclusive": .bool(exclusive)]
        }
        return switch plan.target {
        case .none: .null
        case .immediate: target("immediate", "immediate")
        case .name(let name): target("name", name)
        case .time(let time, let exclusive): target("time", time.description, exclusive: exclusive)
        case .lsn(let lsn, let exclusive): target("lsn", lsn.description, exclusive: exclusive)
        case .transaction(let number, let exclusive): target("xid", String(number), exclusive: exclusive)
        }
    }
}

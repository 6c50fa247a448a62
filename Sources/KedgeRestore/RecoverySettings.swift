// What the restored server is told: the lines of postgresql.auto.conf and the signal file. Pure.
//
// postgresql.auto.conf is read last, so its lines win over postgresql.conf, wherever that lies
// (src/backend/utils/misc/guc-file.l, ProcessConfigFileInternal). Two different recovery targets are a fatal error of
// the server, and an empty value takes one back, so every target is emptied before one is set.

package import KedgeCore

/// What the server does when it has reached the target (`recovery_target_action`).
package enum TargetAction: String, Sendable, CaseIterable {
    case pause
    case promote
    case shutdown
}

/// Whether the restored cluster archives its own WAL, and its subscriptions take changes from their publishers.
package enum Archiving: String, Sendable, CaseIterable {
    case keep
    case off
}

/// The recovery configuration of a restored cluster.
package struct RecoverySettings: Hashable, Sendable {
    package var target: PlannedTarget
    /// Nil: follow the newest, as a standby does.
    package var timeline: TimelineID?
    package var action: TargetAction
    package var isStandby: Bool
    /// `restore_command`, as the server's shell gets it.
    package var restoreCommand: String
    package var archiving: Archiving
    /// False where the server must not ask for WAL before it needs it (`recovery_prefetch`).
    package var readsAhead: Bool

    package init(
        target: PlannedTarget, timeline: TimelineID?, action: TargetAction, isStandby: Bool, restoreCommand: String,
        archiving: Archiving, readsAhead: Bool = true
    ) {
        self.target = target
        self.timeline = timeline
        self.action = action
        self.isStandby = isStandby
        self.restoreCommand = restoreCommand
        self.archiving = archiving
        self.readsAhead = readsAhead
    }

    /// The name of the file that makes the server recover.
    package var signalFile: String { isStandby ? "standby.signal" : "recovery.signal" }

    /// Settings that an earlier recovery may have left behind, all in lower case.
    private static let replaced: Set<String> = [
        "restore_command", "recovery_end_command", "archive_cleanup_command", "recovery_target",
        "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn",
        "recovery_target_inclusive", "recovery_target_timeline", "recovery_target_action",
        "recovery_min_apply_delay", "recovery_prefetch",
    ]

    /// The same, in a copy.
    private static let replacedInCopies: Set<String> = ["archive_mode", "max_logical_replication_workers"]

    /// Whether the server is given no replication slot of its own upstream: it would be the original's, and a slot
    /// serves one standby (src/backend/replication/slot.c, ReplicationSlotAcquire). The two would take it from each
    /// other, and the upstream server keeps WAL for neither.
    package var leavesSlot: Bool { archiving == .off && isStandby }

    /// The lines to add to postgresql.auto.conf.
    package var lines: [String] {
        var lines = [RecoverySettings.line("restore_command", restoreCommand)]
        // Commands of the original could remove what is not ours.
        lines += ["recovery_end_command", "archive_cleanup_command"].map { RecoverySettings.line($0, "") }
        let targets = ["recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid"]
        lines += (targets + ["recovery_target_lsn"]).map { RecoverySettings.line($0, "") }
        if let (name, value, isInclusive) = targetSetting {
            lines.append(RecoverySettings.line(name, value))
            lines.append(RecoverySettings.line("recovery_target_inclusive", isInclusive ? "on" : "off"))
            lines.append(RecoverySettings.line("recovery_target_action", action.rawValue))
        }
        lines.append(RecoverySettings.line("recovery_target_timeline", timeline?.description ?? "latest"))
        if !isStandby { lines.append(RecoverySettings.line("recovery_min_apply_delay", "0")) }
        if !readsAhead {
            lines.append("# WAL is missing behind the end of this recovery: reading ahead would end it with an error.")
            lines.append(RecoverySettings.line("recovery_prefetch", "off"))
        }
        if archiving == .off {
            lines.append("# A copy must not archive into the original's repository: kedge restore --archiving off.")
            lines.append(RecoverySettings.line("archive_mode", "off"))
            lines.append("# Its subscriptions would use up what the original has not received yet.")
            lines.append(RecoverySettings.line("max_logical_replication_workers", "0"))
        }
        if leavesSlot {
            lines.append("# A slot serves one standby: name one here that was created for this one.")
            lines.append(RecoverySettings.line("primary_slot_name", ""))
        }
        return lines
    }

    private var targetSetting: (name: String, value: String, isInclusive: Bool)? {
        switch target {
        case .none: nil
        case .immediate: ("recovery_target", "immediate", true)
        case .name(let name): ("recovery_target_name", name, true)
        case .time(let time, let exclusive): ("recovery_target_time", RecoverySettings.text(time), !exclusive)
        case .lsn(let lsn, let exclusive): ("recovery_target_lsn", lsn.description, !exclusive)
        case .transaction(let number, let exclusive):
            // The server keeps the low 32 bits, and 13 and 14 take no more.
            ("recovery_target_xid", String(UInt32(truncatingIfNeeded: number)), !exclusive)
        }
    }

    /// The time as `timestamptz` reads it, whatever DateStyle and TimeZone are.
    private static func text(_ time: Timestamp) -> String {
        time.description.dropLast().split(separator: "T").joined(separator: " ") + "+00"
    }

    /// The file's new content: older recovery settings commented out, ours at the end.
    package func rewriting(_ old: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        for line in old.split(separator: 0x0A, omittingEmptySubsequences: false) {
            let name = RecoverySettings.name(of: line)
            if RecoverySettings.replaced.contains(name)
                || archiving == .off && RecoverySettings.replacedInCopies.contains(name)
                || leavesSlot && name == "primary_slot_name"
            {
                result += Array("# ".utf8)
            }
            result += line
            result.append(0x0A)
        }
        // The split of a file that ends with a newline has an empty last item.
        if old.isEmpty || old.last == 0x0A { result.removeLast() }
        result += Array("# Recovery, written by kedge restore\n".utf8)
        for line in lines { result += Array((line + "\n").utf8) }
        return result
    }

    /// The setting that a line sets, in lower case; empty for a comment or an empty line.
    private static func name(of line: ArraySlice<UInt8>) -> String {
        let name = line.drop { $0 == 0x20 || $0 == 0x09 }.prefix { byte in
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || byte == 0x5F || byte == 0x2E
        }
        return String(decoding: name, as: UTF8.self).lowercased()
    }

    /// `name = 'value'`, escaped as the server's configuration lexer undoes it (guc-file.l, DeescapeQuotedString).
    package static func line(_ name: String, _ value: String) -> String {
        var escaped = ""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "'": escaped += "''"
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\r": escaped += "\\r"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return "\(name) = '\(escaped)'"
    }
}

/// The command line that the restored server fetches WAL with.
package struct RestoreCommandLine: Hashable, Sendable {
    /// The words before `archive-get`, such as the path of kedge and its options.
    package let words: [String]

    package init(words: [String]) { self.words = words }

    /// The same, asking these repositories alone; nil: all that the configuration names.
    func reading(_ repositories: [String]?) -> RestoreCommandLine {
        guard let repositories else { return self }
        return RestoreCommandLine(words: words + ["--repositories", repositories.joined(separator: ",")])
    }

    /// For `restore_command`.
    package var text: String { text(running: ["archive-get", "%f", "\"%p\""]) }

    /// The words quoted for the shell, with `%` doubled for the server (src/backend/access/transam/xlogarchive.c,
    /// BuildRestoreCommand; src/backend/archive/shell_archive.c), and then those of `command` as they are.
    package func text(running command: [String]) -> String {
        let words = words.map { RestoreCommandLine.double("%", in: RestoreCommandLine.quoted($0)) }
        return (words + command).joined(separator: " ")
    }

    /// The word as a POSIX shell reads it back.
    package static func quoted(_ word: String) -> String {
        let plain = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+".utf8)
        if !word.isEmpty, word.utf8.allSatisfy(plain.contains) { return word }
        let pieces = word.split(separator: "'", omittingEmptySubsequences: false)
        return "'" + pieces.joined(separator: "'\\''") + "'"
    }

    private static func double(_ character: Character, in text: String) -> String {
        text.split(separator: character, omittingEmptySubsequences: false).joined(separator: "\(character)\(character)")
    }
}

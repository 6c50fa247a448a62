// The options that say which moment to recover to, as a request.
import KedgeCatalog
import KedgeCore
import KedgeRestore

/// The target options of one command line.
struct RestoreTargetOptions {
    private let arguments: ParsedArguments
    private let zones: TimeZoneFiles

    init(_ context: CommandContext) {
        arguments = context.arguments
        zones = TimeZoneFiles(readFile: context.surroundings.readFile)
    }

    /// What is asked for. Throws `usage`.
    func request() throws(KedgeError) -> RestoreRequest {
        let target = try target()
        let isStandby = arguments.has("standby")
        if isStandby && target != .latest {
            throw KedgeError(
                .usage, "cannot restore a standby to a target: it follows its primary without end",
                hint: "Leave out \"--standby\" or the target.")
        }
        if isStandby, let action = arguments.value("target-action") {
            throw KedgeError(
                .usage, "cannot use \"--target-action \(action)\" with \"--standby\": a standby has no target",
                hint: "Leave out one of them; \"pg_ctl promote\" makes a primary of a standby.")
        }
        var label: Label?
        if let text = arguments.value("backup") {
            label = Label(text)
            if label == nil {
                throw KedgeError(
                    .usage, "cannot read \"--backup \(text)\": that is not a backup's label",
                    hint: "Labels look like 20261121T020000Z-full-7k3q; \"kedge info\" lists them.")
            }
        }
        return RestoreRequest(backup: label, target: target, timeline: try timeline(), standby: isStandby)
    }

    private func target() throws(KedgeError) -> RecoveryTarget {
        let names = ["target-time", "target-lsn", "target-xid", "target-name"].filter { arguments.value($0) != nil }
        let given = names + (arguments.has("target-immediate") ? ["target-immediate"] : [])
        let isExclusive = arguments.has("target-exclusive")
        guard given.count < 2 else {
            let list = given.map { "\"--\($0)\"" }.joined(separator: " and ")
            throw KedgeError(.usage, "cannot recover to two targets at once: \(list)", hint: "Give one of them.")
        }
        switch (given.first, given.first.flatMap(arguments.value)) {
        case ("target-time", let text?): return .time(try zones.parse(text, in: zone()), exclusive: isExclusive)
        case ("target-lsn", let text?):
            guard let lsn = LSN(text) else {
                throw unreadable("target-lsn", text, "Write it as PostgreSQL prints it, such as 1/A2000028.")
            }
            return .lsn(lsn, exclusive: isExclusive)
        case ("target-xid", let text?):
            guard let number = UInt64(text), number > 2 else {
                throw unreadable("target-xid", text, "Give a number as pg_current_xact_id() returns it.")
            }
            return .transaction(number, exclusive: isExclusive)
        default: break
        }
        guard !isExclusive else {
            throw KedgeError(
                .usage, "cannot use \"--target-exclusive\" here",
                detail: "It has a meaning for times, LSNs and transactions only.", hint: "Leave it out.")
        }
        if let name = arguments.value("target-name") {
            guard (1...63).contains(name.utf8.count) else {
                throw unreadable("target-name", name, "A restore point's name has 1 to 63 bytes.")
            }
            return .name(name)
        }
        return arguments.has("target-immediate") ? .immediate : .latest
    }

    private func zone() throws(KedgeError) -> TimeZoneRules? {
        try arguments.value("time-zone").map { (name) throws(KedgeError) in try zones.zone(name) }
    }

    private func timeline() throws(KedgeError) -> TargetTimeline {
        switch arguments.value("target-timeline") {
        case nil, "latest": return .latest
        case "current": return .current
        case let text?:
            // In names of files the number is hexadecimal (lesson 3): what looks like that is never read as decimal.
            guard let number = UInt32(text), number > 0, text.first != "0", text.first != "+" else {
                let named = TimelineID(hex: text.prefix(8)).map { " Timeline \(text.prefix(8)) is number \($0)." }
                throw unreadable(
                    "target-timeline", text, "Give a decimal number, current or latest.\(named ?? "")")
            }
            return .number(TimelineID(number))
        }
    }

    private func unreadable(_ option: String, _ text: String, _ hint: String) -> KedgeError {
        KedgeError(.usage, "cannot read \"--\(option) \(text)\"", hint: hint)
    }
}

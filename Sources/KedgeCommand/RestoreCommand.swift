// `kedge restore`.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore

/// The command line of `restore`.
enum RestoreCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "restore", summary: "write a data directory and prepare its recovery to a moment",
        description: [
            "Chooses the newest backup that lies before the target, says whether the target can be reached, and only "
                + "then writes. Without a target it recovers to the end of the archived WAL. Start the server yourself "
                + "afterwards.",
            "The backup comes from the first repository of the cluster that has one for the target and can be read, or "
                + "from the one that --repository names; WAL comes from all of them.",
            "A time is written as 2026-11-20 14:30:00+02 or 2026-11-20T12:30:00Z; without a zone it is refused unless "
                + "--time-zone is given.",
            "At a target the server pauses, so that you can look, until you call pg_wal_replay_resume(); at the end of "
                + "the archived WAL it is promoted. --target-action says otherwise.",
            "With --delta the directory may hold a stopped data directory of the same database system, damaged or "
                + "outdated, or what an interrupted restore has left. Every byte that stays is read and compared with "
                + "the backup; only what differs is fetched, and what the backup does not have is removed: files in "
                + "the data directory, in the catalogue-version directories of its own tablespaces, and old WAL. "
                + "pg_control goes first and comes back last, so that nothing unfinished can be started; run the "
                + "command again to go on.",
            "After a crash the last commits may be in pg_wal alone: with --delta, WAL there that no repository has is "
                + "refused. --unarchived-wal keep leaves it there, and recovery to the end goes on in it; discard "
                + "removes it.",
        ],
        options: [
            .value("pgdata", "DIR", "Restore into this directory instead of the configured pgdata."),
            .value("backup", "LABEL", "Use this backup instead of choosing one."),
            .value("target-time", "TIME", "Recover to this time."),
            .value("target-lsn", "LSN", "Recover to this WAL position, such as 1/A2000028."),
            .value("target-xid", "XID", "Recover up to this transaction."),
            .value("target-name", "NAME", "Recover to this restore point."),
            .flag("target-immediate", "Stop as soon as the backup is consistent."),
            .flag("target-exclusive", "Stop just before the target instead of just after it."),
            .value("target-timeline", "TL", "Recover along this timeline: a number, current or latest."),
            .choice("target-action", TargetAction.allCases.map(\.rawValue), "What the server does at the target."),
            .value("time-zone", "NAME", "Read a time without a zone in this one, such as Europe/Berlin."),
            .flag("standby", "Restore a standby: write standby.signal and no target."),
            .flag("delta", "Keep what is right in an existing directory, fetch the rest, remove what is too much."),
            .value(
                "replace-system", "ID|unknown",
                "With --delta: also overwrite the data directory of this other database system, or one whose "
                    + "pg_control cannot be read."),
            .choice(
                "unarchived-wal", UnarchivedWALChoice.allCases.map(\.rawValue),
                "With --delta: what becomes of WAL in pg_wal that no repository has. Without this it is refused."),
            .value(
                "tablespace", "OID=DIR", "Restore this tablespace into another directory. May be repeated.",
                isRepeatable: true),
            .value("waldir", "DIR", "Make pg_wal a link to this directory instead of a plain directory."),
            .choice(
                "archiving", Archiving.allCases.map(\.rawValue),
                "Whether the restored cluster archives its WAL, its subscriptions run, and a standby keeps its "
                    + "primary_slot_name: keep in the configured pgdata, off elsewhere."),
            .value("extra-files", "DIR", "Write configuration files from outside the data directory below this one."),
            .flag("dry-run", "Print the plan and write nothing."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let arguments = context.arguments
        let replaced = try replacedSystem(arguments)
        let request = try RestoreTargetOptions(context).request()
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let all = context.sources(of: cluster, in: configuration)
        let wanted = try configuration.selectedRepositories(of: cluster).map(\.name)
        let series = RestoreSeries(all.filter { wanted.contains($0.settings.name) }, walSources: all)
        try WorkDirectory.prepare(cluster.workDirectory, user: context.surroundings.host.userID)
        let configured = try FileSystem.resolved(RawPath(context.absolute(cluster.pgdata)))
        let pgdata = try arguments.value("pgdata").map { (path) throws(KedgeError) in
            try FileSystem.resolved(RawPath(context.absolute(path)))
        }
        var options = Restore.Options(
            clusterName: cluster.name, request: request, pgdata: pgdata ?? configured, configuredPgdata: configured,
            tablespaces: try tablespaces(context),
            walDirectory: try arguments.value("waldir").map { (path) throws(KedgeError) in
                try FileSystem.resolved(RawPath(context.absolute(path)))
            },
            action: action(arguments, request.target),
            archiving: arguments.value("archiving").flatMap(Archiving.init),
            restoreCommand: restoreCommand(context, configuration, cluster),
            extraFilesDirectory: arguments.value("extra-files").map { RawPath(context.absolute($0)) },
            processMax: cluster.processMax, workDirectory: RawPath(cluster.workDirectory),
            isDryRun: arguments.has("dry-run"))
        options.isDelta = arguments.has("delta")
        options.replacedSystem = replaced
        options.unarchivedWAL = try unarchivedWAL(arguments)
        options.keptPaths = context.keptPaths(configuration)
        options.takesUnavailableForAbsent = cluster.onUnavailable == .absent
        let progress = WorkProgress()
        let served = try context.showing(progress) { () throws(KedgeError) in
            try series.run(
                options, progress: progress, time: context.surroundings.time, random: context.surroundings.random,
                interruption: context.surroundings.interruption)
        }
        let outcome = served.restored
        for (name, error) in served.passedOver {
            context.log.warn("repository \"\(name)\" could not serve: \(RepositoryFailures.text(error))")
        }
        for record in outcome.unreadable {
            context.log.warn("\"\(record.name)\" cannot be read: \(record.error.message)")
        }
        for warning in outcome.warnings { context.log.warn(warning) }
        if outcome.isWritten && context.surroundings.host.userID == 0 && !outcome.isOwnerKept {
            context.log.warn("the files belong to root: give them to the server's user before you start it")
        }
        let start = outcome.startSettings()
        if !start.outside.isEmpty && outcome.pgdata != outcome.plan.backup.dataDirectory {
            let list = start.outside.map { "\($0.name) = \"\($0.value)\"" }.joined(separator: ", ")
            context.log.warn("the restored configuration names files outside of the data directory: \(list)")
        }
        var result = RestoreReport(outcome, start: start, binDirectory: cluster.binDirectory).result
        if !outcome.isWritten { addForecast(outcome, served.source, cluster.name, context, to: &result) }
        return result
    }

    /// How long it would take, if a drill has measured that. Not being able to tell is no failure of the plan.
    private static func addForecast(
        _ outcome: Restore.Outcome, _ source: RepositorySource, _ name: String, _ context: CommandContext,
        to result: inout CommandResult
    ) {
        do throws(KedgeError) {
            let proofs = ProofCatalog(try source.openCluster(name, for: .read, random: context.surroundings.random))
            let names = try proofs.names().proofs.values.joined().filter {
                $0.level == .drilled && $0.result == .passed
            }
            let newest = names.sorted { $0.time > $1.time }.prefix(10)
            let end = outcome.plan.stop?.record ?? outcome.plan.lastRecord ?? outcome.plan.backup.span.stopLSN
            let stop = outcome.plan.backup.span.stopLSN
            guard
                let forecast = RestoreForecast(
                    bytes: outcome.totalBytes, walBytes: end > stop ? end - stop : 0,
                    drills: try proofs.open(Array(newest)).proofs)
            else { return }
            result.lines.append(forecast.sentence(HumanText.duration))
            if case .object(let members) = result.json {
                let value: JSONValue = [
                    "milliseconds": .int(forecast.milliseconds), "includesReplay": .bool(forecast.includesReplay),
                    "drill": .string(forecast.drill.finished.description),
                    "hostName": .string(forecast.drill.hostName),
                ]
                result.json = .object(members + [JSONMember("forecast", value)])
            }
        } catch {
            context.log.warn("cannot tell how long it will take: \(error.message)")
        }
    }

    private static func replacedSystem(_ arguments: ParsedArguments) throws(KedgeError) -> ReplacedSystem? {
        guard let text = arguments.value("replace-system") else { return nil }
        guard arguments.has("delta") else {
            throw KedgeError(
                .usage, "cannot use \"--replace-system\" without \"--delta\"",
                hint: "Without \"--delta\" nothing that is there is ever overwritten.")
        }
        if text == "unknown" { return .unknown }
        guard let system = SystemIdentifier(text) else {
            throw KedgeError(
                .usage, "cannot read \"--replace-system \(text)\"",
                hint: "Give the system identifier that pg_controldata shows, or \"unknown\".")
        }
        return .system(system)
    }

    private static func unarchivedWAL(_ arguments: ParsedArguments) throws(KedgeError) -> UnarchivedWALChoice? {
        guard let text = arguments.value("unarchived-wal") else { return nil }
        guard arguments.has("delta") else {
            throw KedgeError(
                .usage, "cannot use \"--unarchived-wal\" without \"--delta\"",
                hint: "Without \"--delta\" nothing that is there is ever removed.")
        }
        return UnarchivedWALChoice(rawValue: text)
    }

    /// What PostgreSQL itself would do: pause at a target, promote at the end of the WAL.
    private static func action(_ arguments: ParsedArguments, _ target: RecoveryTarget) -> TargetAction {
        arguments.value("target-action").flatMap(TargetAction.init) ?? (target == .latest ? .promote : .pause)
    }

    private static func tablespaces(_ context: CommandContext) throws(KedgeError) -> [UInt32: RawPath] {
        var mapping: [UInt32: RawPath] = [:]
        for text in context.arguments.values("tablespace") {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let oid = UInt32(parts[0]), !parts[1].isEmpty else {
                throw KedgeError(
                    .usage, "cannot read \"--tablespace \(text)\"",
                    hint: "Write it as OID=DIR, such as \"--tablespace 16385=/srv/fast\".")
            }
            guard
                mapping.updateValue(try FileSystem.resolved(RawPath(context.absolute(String(parts[1])))), forKey: oid)
                    == nil
            else {
                throw KedgeError(.usage, "cannot map tablespace \(oid) twice", hint: "Give one directory for it.")
            }
        }
        return mapping
    }

    private static func restoreCommand(
        _ context: CommandContext, _ configuration: Configuration, _ cluster: ClusterConfiguration
    ) -> RestoreCommandLine {
        let (variables, left) = configuration.overridesForOthers(cluster)
        if !left.isEmpty {
            context.log.warn(
                "restore_command knows nothing of the values of \(left.joined(separator: ", ")) that this command was "
                    + "given: put them into \"\(configuration.path)\" before you start the server")
        }
        let words = [
            context.surroundings.host.executable, "--config", context.absolute(configuration.path), "--cluster",
            cluster.name,
        ]
        return RestoreCommandLine(words: variables.isEmpty ? words : ["env"] + variables + words)
    }
}

// `kedge drill`.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeDrill
import KedgeRestore

/// The command line of `drill`.
enum DrillCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "drill", summary: "restore for real, recover, check, and keep the proof",
        description: [
            "Restores a backup below drill-directory, starts PostgreSQL there, lets it recover, and checks that the "
                + "target was reached, that every database accepts connections and that its schema can be dumped, the "
                + "extension amcheck on indexes and tables, all data checksums, and the statements of drill-check. "
                + "Then it stops the server, removes what it made, and stores a proof that info shows.",
            "Without options it drills the newest backup and recovers to the end of the archived WAL, all from one "
                + "repository: the one that --repository names, or else the cluster's first. The original "
                + "server is neither needed nor touched: drills may run on another host that has only the "
                + "configuration, the key and PostgreSQL of the same major version.",
            "Exit status 3 means that the backup did not restore or a check failed; 1 also that it restores but "
                + "misses rto-target or rpo-target. What kept the drill from being run at all is an error and leaves "
                + "no proof.",
        ],
        options: [
            .value("backup", "LABEL", "Drill this backup instead of the newest."),
            .flag("random", "Drill a random backup, and recover to a random moment after it."),
            .flag("random-target", "Recover to a random moment of those that can be recovered to."),
            .value("target-time", "TIME", "Recover to this time."),
            .value("target-lsn", "LSN", "Recover to this WAL position, such as 1/A2000028."),
            .value("target-xid", "XID", "Recover up to this transaction."),
            .value("target-name", "NAME", "Recover to this restore point."),
            .flag("target-immediate", "Stop as soon as the backup is consistent."),
            .flag("target-exclusive", "Stop just before the target instead of just after it."),
            .value("target-timeline", "TL", "Recover along this timeline: a number, current or latest."),
            .value("time-zone", "NAME", "Read a time without a zone in this one, such as Europe/Berlin."),
            .flag("keep", "Leave the server running, and say how to connect to it."),
            .flag("clean", "Only remove what earlier drills left, those with --keep included."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        guard let directory = cluster.drill.directory else {
            throw KedgeError(
                .configuration, "cannot drill: cluster \"\(cluster.name)\" has no key \"drill-directory\"",
                hint:
                    "Add it, such as \"drill-directory = /var/lib/kedge-drill\": the whole cluster is restored there."
            )
        }
        let wish = try wish(context)
        let assertions = try assertions(cluster.drill.checkFile, context)
        let settings = try cluster.drill.settings.map { (text) throws(KedgeError) in try DrillSetting.parse(text) }
        let user = context.surroundings.host.userID
        guard user != 0 else {
            throw KedgeError(
                .usage, "cannot drill as root: PostgreSQL refuses to run with the rights of root",
                hint: "Run it as the server's user, such as \"runuser -u postgres -- kedge drill\".")
        }
        let place = try prepare(RawPath(directory), configuration, cluster, user: user)
        // libpq must find nothing but what it is told, and no program that is started either.
        ProcessEnvironment.remove(prefix: "PG")
        try sweep(place, context)
        if context.arguments.has("clean") { return CommandResult(lines: ["nothing of a drill is left"], json: [:]) }
        let repository = try configuration.repositoryOrFirst(of: cluster) { name, count in
            context.log.info(
                "drills repository \"\(name)\", the first of \(count); --repository names another")
        }
        let source = try context.source(of: repository)
        try WorkDirectory.prepare(cluster.workDirectory, user: user)
        let progress = WorkProgress()
        var options = Drill.Options(
            clusterName: cluster.name, wish: wish, drillDirectory: place,
            binDirectory: cluster.binDirectory.map { RawPath($0) }, configuredPgdata: RawPath(cluster.pgdata),
            users: users(cluster), database: cluster.dbname ?? "postgres",
            amcheck: AmcheckMode(rawValue: cluster.drill.amcheck) ?? .sample, assertions: assertions,
            settings: settings ?? [], recoveryTimeObjective: cluster.drill.recoveryTimeObjective,
            recoveryPointObjective: cluster.drill.recoveryPointObjective,
            restoreCommand: restoreCommand(context, configuration, cluster, repository.name),
            processMax: cluster.processMax, workDirectory: RawPath(cluster.workDirectory),
            isKept: context.arguments.has("keep"), hostName: context.surroundings.host.name, processID: getpid())
        options.gapPatience = cluster.archiveTimeout
        let drill = Drill(
            source, options,
            Drill.Tools(
                time: context.surroundings.time, random: context.surroundings.random,
                interruption: context.surroundings.interruption, progress: progress))
        let outcome = try context.showing(progress) { () throws(KedgeError) in try drill.run() }
        for warning in outcome.warnings { context.log.warn(warning) }
        return DrillReport(outcome, repository: repository.name).result
    }

    // MARK: - Options

    private static func wish(_ context: CommandContext) throws(KedgeError) -> DrillWish {
        let arguments = context.arguments
        let request = try RestoreTargetOptions(context).request()
        let isRandom = arguments.has("random")
        guard isRandom || arguments.has("random-target") else { return .given(request) }
        let option = isRandom ? "random" : "random-target"
        guard request.target == .latest, !arguments.has("target-exclusive"),
            arguments.value("target-timeline") == nil, !(isRandom && request.backup != nil)
        else {
            throw KedgeError(
                .usage, "cannot drill at random and to what was given at once",
                hint: "Leave out \"--\(option)\", or the other options"
                    + (isRandom ? "; for a random moment after one backup give \"--random-target\"." : "."))
        }
        return isRandom ? .random : .randomTarget(request.backup)
    }

    private static func assertions(_ file: String?, _ context: CommandContext) throws(KedgeError) -> [Assertion] {
        guard let file else { return [] }
        let bytes: [UInt8]
        do throws(KedgeError) {
            bytes = try FileDescriptor.open(RawPath(file), .read).readAll(limit: 1 << 20)
        } catch {
            throw KedgeError(
                .configuration, "cannot read check file \"\(file)\": \(error.message)", detail: error.detail,
                hint: "Correct the key drill-check, or let this user read the file.")
        }
        let assertions = try Assertion.parse(bytes, file: file)
        if assertions.isEmpty { context.log.warn("check file \"\(file)\" holds no check: drill-check proves nothing") }
        return assertions
    }

    /// Without a configured role: what initdb makes by default, and what it makes where a package does not say.
    private static func users(_ cluster: ClusterConfiguration) -> [String] {
        var users: [String] = []
        var names = [cluster.user, "postgres"]
        if let entry = getpwuid(geteuid()), let name = entry.pointee.pw_name { names.append(String(cString: name)) }
        for case let name? in names where !users.contains(name) { users.append(name) }
        return users
    }

    /// Of this repository alone: it is what is to be proven.
    private static func restoreCommand(
        _ context: CommandContext, _ configuration: Configuration, _ cluster: ClusterConfiguration,
        _ repository: String
    ) -> RestoreCommandLine {
        var words = [
            context.surroundings.host.executable, "--config", context.absolute(configuration.path), "--cluster",
            cluster.name, "--repositories", repository, "--on-unavailable", "abort",
        ]
        // What was overridden for us holds for what we start as well.
        for override in context.arguments.overrides
        where !["repositories", "on-unavailable"].contains(override.key) && !override.key.hasPrefix("drill-") {
            words += ["--\(override.key)=\(override.value)"]
        }
        return RestoreCommandLine(words: words)
    }

    // MARK: - The directory

    private static func prepare(
        _ path: RawPath, _ configuration: Configuration, _ cluster: ClusterConfiguration, user: UInt32
    ) throws(KedgeError) -> RawPath {
        let repositories = configuration.repositories.compactMap { repository in
            repository.place.directory.map { ("repository \"\(repository.name)\"", $0) }
        }
        // What lies in a repository would be swept as a stranger, with a running server on it.
        let place = try FileSystem.resolved(path)
        for (what, other) in [("the data directory", cluster.pgdata)] + repositories {
            let other = try FileSystem.resolved(RawPath(other))
            guard (place.bytes + [0x2F]).starts(with: other.bytes + [0x2F]) else { continue }
            throw KedgeError(
                .configuration, "cannot drill in \"\(path)\": it lies in \(what)",
                hint: "Set drill-directory to a directory of its own.")
        }
        try Directory.createWithParents(at: path.parent, mode: 0o755)
        try WorkDirectory.prepare(path.description, user: user, key: "drill-directory")
        return try FileSystem.canonicalPath(of: path)
    }

    private static func sweep(_ place: RawPath, _ context: CommandContext) throws(KedgeError) {
        let found = try ScratchDirectory.sweep(
            place, includesKept: context.arguments.has("clean"), time: context.surroundings.time)
        for item in found {
            let directory = place.appending(item.name.directory)
            switch item.action {
            case .remove:
                let since = item.marker.map { " of \($0.created), process \($0.process) on \($0.host)" } ?? ""
                context.log.info("removed \"\(directory)\", left by the drill\(since)")
            case .removeMarker: break
            case .leave(.running): context.log.info("another drill is at work in \"\(directory)\"")
            case .leave(.kept):
                context.log.warn("\"\(directory)\" was kept by an earlier drill; \"kedge drill --clean\" removes it")
            case .leave(.foreign):
                context.log.warn("\"\(directory)\" looks like a drill's, but its marker does not say so: left alone")
            }
        }
    }
}

// `kedge archive-get`: PostgreSQL's restore_command.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The command line of `archive-get`.
enum ArchiveGetCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "archive-get", summary: "fetch one WAL file (restore_command)",
        description: [
            "Fetches a WAL file. In postgresql.conf: restore_command = 'kedge archive-get %f \"%p\"'.",
            "Exit status 1 means that every repository was read, none has the file, and nothing shows that it ever "
                + "existed: no later segment of its timeline, "
                + "no timeline that branched off behind it, no backup that was taken "
                + "there or later, nothing of the timeline whose history is asked for, "
                + "and no newer state of the repository that this host has seen. When that "
                + "cannot be known, the status is 126, which makes PostgreSQL stop rather than end recovery too early; "
                + "on a standby, which asks again, it is 1. on-unavailable overrides this.",
            "A server never gets WAL from behind the point where the timeline that it follows left the older one.",
        ],
        arguments: [
            ArgumentSpecification("WALFILE", "The file's name, as PostgreSQL gives it with %f."),
            ArgumentSpecification("DESTINATION", "Where to write it, as PostgreSQL gives it with %p."),
        ],
        logLevel: .warn)

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let rule = ArchiveGetRule(fileName: context.arguments.positionals[0], context.surroundings)
        do throws(KedgeError) {
            return try fetch(context, cluster, configuration, rule)
        } catch {
            return .failed(error, status: rule.status(of: error.code, onUnavailable: cluster.onUnavailable))
        }
    }

    private static func fetch(
        _ context: CommandContext, _ cluster: ClusterConfiguration, _ configuration: Configuration,
        _ rule: ArchiveGetRule
    ) throws(KedgeError) -> CommandResult {
        try configuration.refuseSelectedRepository(of: cluster, for: specification.name)
        let fileName = context.arguments.positionals[0]
        let dataDirectory = context.dataDirectory(of: cluster)
        let followed = try FollowedTimeline(
            context.surroundings, dataDirectory: dataDirectory, asked: WALFileName(fileName)
        ).history()
        let copies = context.fetchedCopies(of: cluster, in: configuration)
        let log = context.log
        func get(_ repositories: [RepositorySource]) -> ArchiveGet {
            var options = ArchiveGet.Options(
                fileName: fileName, destination: RawPath(context.arguments.positionals[1]),
                clusterName: cluster.name, dataDirectory: dataDirectory, repositories: repositories,
                threads: cluster.processMax, timeoutNanoseconds: cluster.archiveGetTimeout.nanoseconds,
                followed: followed)
            options.fetchedAhead = copies
            options.warn = { log.warn($0) }
            return ArchiveGet(
                options, random: context.surroundings.random, time: context.surroundings.time,
                interruption: context.surroundings.interruption)
        }
        let retries = retries(isStandby: rule.isStandby, cluster.archiveGetTimeout, context.surroundings.time)
        // Before any secret is read.
        let quick = try get([]).runFromSpool()
        let outcome =
            if let quick { quick } else {
                try get(context.sources(of: cluster, in: configuration, retries: retries)).run()
            }
        switch outcome {
        case .fetched(let repository):
            context.log.info("fetched WAL file \"\(fileName)\" from repository \"\(repository)\"")
            return fetched(fileName, from: repository, fromSpool: false, copies, cluster, configuration, context)
        case .fetchedAhead(let repository):
            context.log.info(
                "took WAL file \"\(fileName)\", fetched ahead from repository \"\(repository)\", from the spool")
            return fetched(fileName, from: repository, fromSpool: true, copies, cluster, configuration, context)
        case .absent:
            context.log.info("WAL file \"\(fileName)\" is in no repository")
            return CommandResult(
                lines: [], json: ["file": .string(fileName), "outcome": "absent"],
                status: ExitStatus.archiveGet(.provenAbsent, in: .noSignalFile, onUnavailable: nil))
        }
    }

    /// How often requests to an object store are repeated: all of one call, and those to all repositories, within the
    /// time that is given.
    static func retries(isStandby: Bool, _ timeout: Duration, _ time: any TimeSource) -> RetryPolicy {
        // A standby asks again by itself, and a promotion waits for this answer.
        var retries = isStandby ? RetryPolicy.brief : RetryPolicy()
        retries.deadlineNanoseconds = timeout.nanoseconds
        retries.startNanoseconds = time.monotonicNanoseconds()
        return retries
    }

    private static func fetched(
        _ fileName: String, from repository: String, fromSpool: Bool, _ copies: FetchedCopies?,
        _ cluster: ClusterConfiguration, _ configuration: Configuration, _ context: CommandContext
    ) -> CommandResult {
        if let copies, case .segment? = WALFileName(fileName) {
            ArchivePrefetchCommand.follow(
                fileName, isNoted: fromSpool, into: copies, cluster, configuration, context)
        }
        return CommandResult(
            lines: [],
            json: [
                "file": .string(fileName), "outcome": .string(fromSpool ? "fetched-ahead" : "fetched"),
                "repository": .string(repository),
            ])
    }
}

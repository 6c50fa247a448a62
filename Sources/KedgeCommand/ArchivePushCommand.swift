// `kedge archive-push`: PostgreSQL's archive_command.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The command line of `archive-push`.
enum ArchivePushCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "archive-push", summary: "store one WAL file (archive_command)",
        description: [
            "Stores a WAL file durably in every repository of the cluster. In postgresql.conf: "
                + "archive_command = 'kedge archive-push %p'.",
            "Exit status 0 means that the file is durable everywhere. Any other status is 125 or less, so that the "
                + "archiver stays alive and tries again.",
        ],
        arguments: [ArgumentSpecification("FILE", "The WAL file's path, as PostgreSQL gives it with %p.")],
        logLevel: .warn)

    /// What pushing a file of the data directory's pg_wal would come to, in a sentence, without storing anything.
    static func rehearsal(
        _ cluster: ClusterConfiguration, _ configuration: Configuration, _ context: CommandContext
    ) -> @Sendable (String) -> String? {
        { file in
            do throws(KedgeError) {
                let options = ArchivePush.Options(
                    path: RawPath(cluster.pgdata).appending("pg_wal").appending(file), clusterName: cluster.name,
                    dataDirectory: RawPath(cluster.pgdata),
                    repositories: context.sources(of: cluster, in: configuration), threads: cluster.processMax,
                    refusesDamagedWAL: cluster.refusesDamagedWAL, hostName: context.surroundings.host.name)
                try ArchivePush(options, random: context.surroundings.random, time: context.surroundings.time)
                    .rehearse()
                return "With this configuration and as this user, \"kedge archive-push\" finds nothing wrong with "
                    + "\"\(file)\" or the repositories: the command's own configuration, user or environment may "
                    + "differ."
            } catch {
                return "With this configuration, \"kedge archive-push\" says about \"\(file)\": \(error.message)."
                    + (error.detail.map { " \($0)" } ?? "")
            }
        }
    }

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        try configuration.refuseSelectedRepository(of: cluster, for: specification.name)
        let path = RawPath(context.arguments.positionals[0])
        let dataDirectory = context.dataDirectory(of: cluster)
        let destination = context.destination(of: cluster, in: configuration)
        let spool = context.spool(of: cluster)
        let limit = spool.flatMap { queueLimit(of: cluster, $0, context) }
        // From here on something may hang: a mount that does not answer, a store that answers a byte now and then.
        let hangs = limit.flatMap { watch($0, path, dataDirectory: dataDirectory, context) }
        defer { hangs?.stop() }
        let excess = excess(limit, path, dataDirectory)
        // Before any secret is read: PostgreSQL asks for one segment after the other that is stored already.
        if let spool,
            let outcome = AcknowledgedPush(
                path: path, dataDirectory: dataDirectory, spool: spool,
                destination: excess == nil ? destination : destination.unasked, time: context.surroundings.time
            ).run()
        {
            return result(outcome, context)
        }
        let all = configuration.repositories(of: cluster)
        let notesAway = limit != nil && all.count > 1
        func push(to repositories: [RepositoryConfiguration], isHasty: Bool) -> ArchivePush {
            let sources = repositories.map { source(of: $0, notesAway ? spool : nil, context) }
            var options = ArchivePush.Options(
                path: path, clusterName: cluster.name, dataDirectory: dataDirectory,
                repositories: isHasty ? sources.map(\.hasty) : sources, threads: cluster.processMax,
                refusesDamagedWAL: cluster.refusesDamagedWAL, hostName: context.surroundings.host.name)
            options.spool = spool
            options.destination = destination
            options.ahead = context.pushAhead(of: cluster, in: configuration)
            options.leavesOut = repositories.count < all.count
            options.notesAway = notesAway
            return ArchivePush(
                options, random: context.surroundings.random, time: context.surroundings.time,
                interruption: context.surroundings.interruption)
        }
        if let limit {
            var storedIn: [String] = []
            // With one repository it is the one that all waits for.
            if let spool, let excess, all.count > 1, limit.asksFirst(waitingBytes: excess), isSegment(path) {
                let now = context.surroundings.time.now()
                let asked = all.filter { !spool.isAway($0.name, at: now) }
                if !asked.isEmpty, let attempt = try attempt(push(to: asked, isHasty: true), context) {
                    if attempt.isEverywhere { return result(attempt.outcome, context) }
                    storedIn = attempt.outcome.stored.map(\.repository)
                }
            }
            if let result = try spare(path, dataDirectory, limit, storedIn: storedIn, context) { return result }
        }
        return result(try push(to: all, isHasty: false).run(), context)
    }

    /// Gives a segment up, or puts another file off, where more waits than may; nil where it is to be stored.
    private static func spare(
        _ path: RawPath, _ dataDirectory: RawPath, _ limit: QueueLimit, storedIn: [String], _ context: CommandContext
    ) throws(KedgeError) -> CommandResult? {
        do throws(KedgeError) {
            if let given = try limit.giveUp(path, dataDirectory: dataDirectory, storedIn: storedIn) {
                return result(given, context)
            }
            return try limit.putOff(path, dataDirectory: dataDirectory).map { result($0, context) }
        } catch {
            // Another content of that name was acknowledged: no repository may get this one first.
            if error.code == .archiveConflict { throw error }
            context.log.warn(
                "more WAL waits than archive-queue-limit allows, and it could not be noted what would be given up: "
                    + "\(error.message)")
            return nil
        }
    }

    private static func isSegment(_ path: RawPath) -> Bool {
        guard let name = path.lastComponent.text, case .segment? = WALFileName(name) else { return false }
        return true
    }

    /// Stores a segment where it can be stored, before it is given up for the other repositories; nil where the segment
    /// itself is why it can't be stored anywhere. Throws only where it was interrupted.
    private static func attempt(
        _ push: ArchivePush, _ context: CommandContext
    ) throws(KedgeError) -> ArchivePush.Attempt? {
        do throws(KedgeError) {
            let attempt = try push.attempt()
            if let failure = attempt.failure { context.log.warn(RepositoryFailures.text(failure)) }
            return attempt
        } catch {
            guard error.code != .interrupted else { throw error }
            context.log.warn(RepositoryFailures.text(error))
            return nil
        }
    }

    /// A repository, opened later; with a spool it counts as away while its secret is read, which may hang.
    private static func source(
        of repository: RepositoryConfiguration, _ spool: Spool?, _ context: CommandContext
    ) -> RepositorySource {
        let now = context.surroundings.time.now()
        let wasAway = spool?.isAway(repository.name, at: now) ?? true
        spool?.noteAway(repository.name, at: now)
        switch context.sourceOrFailure(of: repository, retries: .brief) {
        case .success(let source):
            if !wasAway { spool?.noteAnswer(of: repository.name) }
            return source
        case .failure(let error): return .unusable(repository.name, error)
        }
    }

    /// How many bytes wait where these are more than may: then what is looked at first must need no repository.
    private static func excess(_ limit: QueueLimit?, _ path: RawPath, _ dataDirectory: RawPath) -> UInt64? {
        do throws(KedgeError) {
            return try limit?.excess(beside: path, dataDirectory: dataDirectory)
        } catch {
            return nil
        }
    }

    /// Nil where there is no limit.
    private static func queueLimit(
        of cluster: ClusterConfiguration, _ spool: Spool, _ context: CommandContext
    ) -> QueueLimit? {
        guard let limit = cluster.archiveQueueLimit.flatMap(UInt64.init(exactly:)) else { return nil }
        return QueueLimit(
            limitBytes: limit, spool: spool, hostName: context.surroundings.host.name, time: context.surroundings.time)
    }

    private static func watch(
        _ limit: QueueLimit, _ path: RawPath, dataDirectory: RawPath, _ context: CommandContext
    ) -> QueueWatch? {
        let log = context.log
        do throws(KedgeError) {
            return try QueueWatch(limit, path: path, dataDirectory: dataDirectory, context.surroundings.queueWatch) {
                log.warn(
                    "gave up waiting for the repositories with \"\(path)\": \(HumanText.size($0)) wait, which is more "
                        + "than archive-queue-limit allows; find out what hangs")
            }
        } catch {
            log.warn("archive-queue-limit is not looked at while this push goes on: \(error.message)")
            return nil
        }
    }

    private static func result(_ given: GivenUpSegment, _ context: CommandContext) -> CommandResult {
        let lack =
            given.storedIn.isEmpty
            ? "it is NOT archived, and nothing from there to the next backup can be recovered"
            : "it is archived in \(given.storedIn.joined(separator: ", ")) alone, and from no other repository can "
                + "anything from there to the next backup be recovered"
        context.log.warn(
            "GAVE UP WAL file \"\(given.file)\": \(lack); \(HumanText.size(given.waitingBytes)) wait, and "
                + "archive-queue-limit allows \(HumanText.size(given.limitBytes)); find out why WAL is not archived, "
                + "and take a new backup")
        return CommandResult(
            lines: [],
            json: [
                "file": .string(given.file),
                "repositories": .array(
                    given.storedIn.map { ["repository": .string($0), "outcome": "stored"] }),
                "fromSpool": .bool(false), "givenUp": .bool(true), "waitingBytes": .int(given.waitingBytes),
            ])
    }

    private static func result(_ put: QueueLimit.PutOffFile, _ context: CommandContext) -> CommandResult {
        context.log.warn(
            "put off WAL file \"\(put.file)\": it is NOT archived yet, and a later archive-push stores it from the "
                + "work directory; \(HumanText.size(put.waitingBytes)) wait, and archive-queue-limit allows "
                + "\(HumanText.size(put.limitBytes)); find out why WAL is not archived")
        return CommandResult(
            lines: [],
            json: [
                "file": .string(put.file), "repositories": .array([]), "fromSpool": .bool(false), "putOff": .bool(true),
                "waitingBytes": .int(put.waitingBytes),
            ])
    }

    private static func result(_ outcome: ArchivePush.Outcome, _ context: CommandContext) -> CommandResult {
        if let suspect = outcome.suspect {
            context.log.warn(
                "archived WAL file \"\(outcome.file.text)\" as suspect: at \(suspect.lsn): \(suspect.reason)"
                    + "; take a new backup as soon as you can")
        }
        let stored = outcome.stored.map { stored -> JSONValue in
            [
                "repository": .string(stored.repository),
                "outcome": stored.outcome == .created ? "stored" : "already-there",
            ]
        }
        for stored in outcome.stored {
            let how = outcome.isFromNote ? "acknowledged" : stored.outcome == .created ? "stored" : "found again"
            context.log.info("\(how) WAL file \"\(outcome.file.text)\" in repository \"\(stored.repository)\"")
        }
        for left in outcome.leftBehind {
            context.log.warn("\(left.message): \(left.cause.map { RepositoryFailures.text($0) } ?? "")")
        }
        let ahead = outcome.ahead
        if ahead.stored > 0 { context.log.info("stored \(ahead.stored) more WAL file(s) that wait") }
        for suspect in ahead.suspects { context.log.warn("archived WAL file as suspect: \(suspect)") }
        if let failure = ahead.failure {
            context.log.warn("stored no more WAL files ahead: \(failure.message): \(failure.cause?.message ?? "")")
        }
        return CommandResult(
            lines: [],
            json: [
                "file": .string(outcome.file.text), "repositories": .array(stored),
                "fromSpool": .bool(outcome.isFromNote), "storedAhead": .int(ahead.stored),
                "suspect": outcome.suspect.map { ["lsn": .string($0.lsn.description), "reason": .string($0.reason)] }
                    ?? .null,
            ])
    }
}

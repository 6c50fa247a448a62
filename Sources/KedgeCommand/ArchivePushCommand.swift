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
        // Before any secret is read: PostgreSQL asks for one segment after the other that is stored already.
        if let spool,
            let outcome = AcknowledgedPush(
                path: path, dataDirectory: dataDirectory, spool: spool,
                destination: isAbove(limit, path, dataDirectory) ? destination.unasked : destination,
                time: context.surroundings.time
            ).run()
        {
            return result(outcome, context)
        }
        if let limit {
            do throws(KedgeError) {
                if let given = try limit.giveUp(path, dataDirectory: dataDirectory) { return result(given, context) }
                if let put = try limit.putOff(path, dataDirectory: dataDirectory) { return result(put, context) }
            } catch {
                // Another content of that name was acknowledged: no repository may get this one first.
                if error.code == .archiveConflict { throw error }
                context.log.warn(
                    "more WAL waits than archive-queue-limit allows, and it could not be noted what would be given up: "
                        + "\(error.message)")
            }
        }
        var options = ArchivePush.Options(
            path: path, clusterName: cluster.name, dataDirectory: dataDirectory,
            repositories: context.sources(of: cluster, in: configuration, retries: .brief),
            threads: cluster.processMax, refusesDamagedWAL: cluster.refusesDamagedWAL,
            hostName: context.surroundings.host.name)
        options.spool = spool
        options.destination = destination
        options.ahead = context.pushAhead(of: cluster, in: configuration)
        let push = ArchivePush(
            options, random: context.surroundings.random, time: context.surroundings.time,
            interruption: context.surroundings.interruption)
        return result(try push.run(), context)
    }

    /// Whether more waits than may: then what is looked at first must need no repository.
    private static func isAbove(_ limit: QueueLimit?, _ path: RawPath, _ dataDirectory: RawPath) -> Bool {
        do throws(KedgeError) {
            return try limit?.excess(beside: path, dataDirectory: dataDirectory) != nil
        } catch {
            return false
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
        context.log.warn(
            "GAVE UP WAL file \"\(given.file)\": it is NOT archived, and nothing from there to the next backup can be "
                + "recovered; \(HumanText.size(given.waitingBytes)) wait, and archive-queue-limit allows "
                + "\(HumanText.size(given.limitBytes)); find out why WAL is not archived, and take a new backup")
        return CommandResult(
            lines: [],
            json: [
                "file": .string(given.file), "repositories": .array([]), "fromSpool": .bool(false),
                "givenUp": .bool(true), "waitingBytes": .int(given.waitingBytes),
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

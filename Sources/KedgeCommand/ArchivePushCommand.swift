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
                    repositories: try context.sources(of: cluster, in: configuration), threads: cluster.processMax,
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
        let options = ArchivePush.Options(
            path: RawPath(context.arguments.positionals[0]), clusterName: cluster.name,
            dataDirectory: context.dataDirectory(of: cluster),
            repositories: try context.sources(of: cluster, in: configuration), threads: cluster.processMax,
            refusesDamagedWAL: cluster.refusesDamagedWAL, hostName: context.surroundings.host.name)
        let push = ArchivePush(options, random: context.surroundings.random, time: context.surroundings.time)
        let outcome = try push.run()
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
            let how = stored.outcome == .created ? "stored" : "found again"
            context.log.info("\(how) WAL file \"\(outcome.file.text)\" in repository \"\(stored.repository)\"")
        }
        return CommandResult(
            lines: [],
            json: [
                "file": .string(outcome.file.text), "repositories": .array(stored),
                "suspect": outcome.suspect.map { ["lsn": .string($0.lsn.description), "reason": .string($0.reason)] }
                    ?? .null,
            ])
    }
}

// `kedge init`.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeSetup

/// The command line of `init`.
enum InitCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "init", summary: "create the repository and register the cluster",
        description: [
            "Creates each repository of the cluster, registers the cluster there and prints the lines for "
                + "postgresql.conf. Safe to repeat: what exists already is checked and left alone.",
            "Where another database system is registered under the cluster's name it refuses, unless this one has a "
                + "newer major version, as after pg_upgrade: two servers that share a name would expire and restore "
                + "each other's backups. After initdb, --replace-system names the old system.",
        ],
        options: [
            .value(
                "generate-key", "FILE",
                "Make a new key file first. One that exists is left alone. Keep a copy elsewhere."),
            .value(
                "replace-system", "IDENTIFIER",
                "The database system of this identifier, which is registered under the cluster's name, is no more: "
                    + "this one takes its place."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let replaced = try context.arguments.value("replace-system").map {
            (text) throws(KedgeError) -> SystemIdentifier in
            guard let system = SystemIdentifier(text) else {
                throw KedgeError(
                    .usage, "cannot read \"--replace-system \(text)\"",
                    hint: "Give the system identifier that is registered, as \"kedge init\" prints it.")
            }
            return system
        }
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        var lines: [String] = []
        if let path = context.arguments.value("generate-key") {
            try refuseUnusedKey(path, of: configuration.repositories(of: cluster))
            let outcome = try NewKeyFile.create(at: RawPath(path), random: context.surroundings.random)
            lines.append(
                outcome == .created
                    ? "created key file \"\(path)\": without a copy of it in another place, losing this host loses the "
                        + "backups"
                    : "left key file \"\(path)\" as it is")
        }
        // A secret that can't be read ends it before anything is made.
        var sources: [RepositorySource] = []
        for repository in configuration.repositories(of: cluster) {
            sources.append(try context.source(of: repository))
        }
        var options = Init.Options(clusterName: cluster.name, pgdata: RawPath(cluster.pgdata), repositories: sources)
        options.keptPaths = context.keptPaths(configuration)
        options.replacedSystem = replaced
        let initialization = Init(
            options, random: context.surroundings.random, time: context.surroundings.time)
        // A note about an earlier repository in the same place would acknowledge what the new one does not hold.
        try context.spool(of: cluster)?.removeAll()
        let outcome = try initialization.run()
        for repository in outcome.repositories {
            lines.append(
                "\(repository.created ? "created" : "found") repository \"\(repository.name)\" (\(repository.id))")
            lines.append(
                "\(repository.registered ? "registered" : "found") cluster \"\(cluster.name)\" there: PostgreSQL "
                    + "\(outcome.control.version.major), system identifier \(outcome.control.systemIdentifier)")
        }
        let settings = postgresSettings(context, configuration, cluster, of: outcome.repositories.count)
        lines += ["", "Lines for postgresql.conf (archive_mode needs a restart of the server):", ""]
        lines += settings.map { "    " + $0 }
        lines += ["", "Then run \"kedge check\"."]
        return CommandResult(lines: lines, json: json(outcome, settings))
    }

    /// A new key that no repository uses would look like protection and be none.
    private static func refuseUnusedKey(
        _ path: String, of repositories: [RepositoryConfiguration]
    ) throws(KedgeError) {
        guard !repositories.contains(where: { $0.keySource == .keyFile(path) }) else { return }
        throw KedgeError(
            .usage, "cannot generate key file \"\(path)\": no repository of the cluster uses it",
            hint: "Set key-file = \(path) in the repository's section, or give the path that is set there.")
    }

    /// What PostgreSQL needs to archive with this very program and configuration.
    private static func postgresSettings(
        _ context: CommandContext, _ configuration: Configuration, _ cluster: ClusterConfiguration, of count: Int
    ) -> [String] {
        var words = [context.surroundings.host.executable]
        if configuration.path != Configuration.defaultPath {
            words += ["--config", context.absolute(configuration.path)]
        }
        if configuration.clusters.count > 1 { words += ["--cluster", cluster.name] }
        let command = RestoreCommandLine(words: words).text(running: ["archive-push", "%p"])
        let quoted = command.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''")
        return ["wal_level = replica", "archive_mode = on", "archive_command = '\(quoted)'"]
    }

    private static func json(_ outcome: Init.Outcome, _ settings: [String]) -> JSONValue {
        let repositories = outcome.repositories.map { repository -> JSONValue in
            [
                "name": .string(repository.name), "id": .string(repository.id.hex),
                "created": .bool(repository.created), "registered": .bool(repository.registered),
            ]
        }
        return [
            "repositories": .array(repositories),
            "systemIdentifier": .string(outcome.control.systemIdentifier.description),
            "postgresVersion": .int(outcome.control.version.major),
            "settings": .array(settings.map(JSONValue.string)),
        ]
    }
}

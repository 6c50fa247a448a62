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
            "Where this host has seen another repository in the place it refuses too: its file system may just not be "
                + "mounted. --replace-repository names the one that is no more.",
        ],
        options: [
            .value(
                "generate-key", "FILE",
                "Make a new key file along with the repository. One that exists is used and left as it is. Keep a copy "
                    + "elsewhere."),
            .value(
                "replace-repository", "IDENTIFIER",
                "The repository of this identifier, which this host has seen in the place, is no more: the one that is "
                    + "there now, or a new one, takes its place."),
            .value(
                "replace-system", "IDENTIFIER",
                "The database system of this identifier, which is registered under the cluster's name, is no more: "
                    + "this one takes its place."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let replacedSystem = try identifier(
            "replace-system", context, hint: "Give the one that is registered, as \"kedge init\" prints it."
        ) { SystemIdentifier($0) }
        let replacedRepository = try identifier(
            "replace-repository", context, hint: "Give the one that the error of \"kedge init\" without it names."
        ) { RandomID(hex: $0) }
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let repositories = configuration.repositories(of: cluster)
        var lines: [String] = []
        var newKey: NewKeyFile?
        let keyPath = context.arguments.value("generate-key")
        if let keyPath {
            try refuseUnusedKey(keyPath, of: repositories)
            newKey = try NewKeyFile(at: RawPath(keyPath), random: context.surroundings.random)
            lines.append(
                newKey == nil
                    ? "left key file \"\(keyPath)\" as it is"
                    : "created key file \"\(keyPath)\": without a copy of it in another place, losing this host loses "
                        + "the backups")
        }
        // A secret that can't be read ends it before anything is made.
        var sources: [RepositorySource] = []
        for repository in repositories {
            let usesNewKey = repository.keySource != nil && repository.keySource == keyPath.map(KeySource.keyFile)
            var source = try context.source(of: repository, newSecret: usesNewKey ? newKey?.secret : nil)
            source.settings.replacedRepository = replacedRepository
            sources.append(source)
        }
        var options = Init.Options(clusterName: cluster.name, pgdata: RawPath(cluster.pgdata), repositories: sources)
        options.keptPaths = context.keptPaths(configuration)
        options.replacedSystem = replacedSystem
        options.newKey = newKey
        // A note about an earlier repository in the same place would acknowledge what the new one does not hold.
        let spool = context.spool(of: cluster)
        options.forgetNotes = { () throws(KedgeError) in try spool?.removeAll() }
        let outcome = try Init(
            options, random: context.surroundings.random, time: context.surroundings.time
        ).run()
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

    /// What an option names; nil where it is not given. Throws `usage`.
    private static func identifier<Value>(
        _ option: String, _ context: CommandContext, hint: String, _ parse: (String) -> Value?
    ) throws(KedgeError) -> Value? {
        guard let text = context.arguments.value(option) else { return nil }
        guard let value = parse(text) else {
            throw KedgeError(.usage, "cannot read \"--\(option) \(text)\"", hint: hint)
        }
        return value
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

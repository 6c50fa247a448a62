// The configuration of one run: file, environment and options as one immutable value, read once.
//
// 1. A key's value comes from the option, else from the environment, else from the file, else from the table's default.
//    KEDGE_CLUSTER_MAIN_PGDATA wins over KEDGE_PGDATA.
// 2. An option or variable that names no section is for the selected section: the one named by --cluster or
//    --repository, or the only one of its kind. Where that is not clear it is refused, never applied to several.
// 3. Everything in the file is checked, whatever part of it this run needs; an unknown KEDGE_ variable is only a
//    warning, since variables are inherited from places that know nothing of this version (lesson 52).
// 4. archive-push loads this thousands of times a day: one pass over the file, no regular expressions.
package import KedgeCatalog
package import KedgeCodec
package import KedgeCore

/// What the host looks like, as far as defaults depend on it.
package struct HostFacts: Sendable {
    /// The number of processors that this process may use.
    package let processors: Int
    package let userID: UInt32
    /// The host's name, as records name it.
    package let name: String
    /// The absolute path of this program, for command lines that others are to run.
    package let executable: String
    package let workingDirectory: String

    package init(
        processors: Int, userID: UInt32, name: String = "localhost", executable: String = "kedge",
        workingDirectory: String = "/"
    ) {
        self.processors = processors
        self.userID = userID
        self.name = name
        self.executable = executable
        self.workingDirectory = workingDirectory
    }
}

/// One environment variable.
package struct EnvironmentVariable: Hashable, Sendable {
    package let name: String
    package let value: String

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }
}

/// One `[cluster NAME]` with its defaults filled in.
package struct ClusterConfiguration: Sendable {
    package let name: String
    /// The data directory.
    package let pgdata: String
    /// Nil where libpq's default holds; the same for port, user and dbname.
    package let host: String?
    package let port: Int?
    package let user: String?
    package let dbname: String?
    /// Of a standby's primary.
    package let primaryHost: String?
    package let primaryPort: Int?
    package let binDirectory: String?
    /// The names of its repositories; at least one.
    package let repositories: [String]
    /// The name that it was registered with.
    package let registeredName: String
    package let processMax: Int
    package let workDirectory: String
    package let archiveTimeout: Duration
    package let archiveGetTimeout: Duration
    /// Bytes of WAL that may wait to be archived; nil: no limit.
    package let archiveQueueLimit: Int64?
    /// How many segments are fetched ahead of a recovering server; 0 for none.
    package let archiveGetPrefetch: Int
    /// How many segments one archive-push stores besides its own.
    package let archivePushAhead: Int
    package let refusesDamagedWAL: Bool
    /// Nil where the recovery signal file decides.
    package let onUnavailable: UnavailableAnswer?
    /// Bytes in a second; nil: no limit.
    package let readRate: Int64?
    /// Bytes as stored.
    package let packSize: Int64
    /// How long what verify has read need not be read again.
    package let verifyEvery: Duration
    /// Bytes in a second; nil: no limit.
    package let verifyRate: Int64?
    package let drill: DrillConfiguration
    /// The age of the last full backup from which on `--type auto` takes a full one.
    package let fullEvery: Duration
    package let retention: RetentionRules
}

/// What `archive-get` answers when it could not find out whether there is such a file.
package enum UnavailableAnswer: String, Sendable {
    case abort, absent
}

/// One `[repository NAME]` with its defaults filled in.
package struct RepositoryConfiguration: Sendable {
    package let name: String
    package let place: RepositoryPlace
    package let compression: CompressionChoice
    /// Nil: `encryption = none`.
    package let keySource: KeySource?
    /// The work-directories of the clusters that use it, each once.
    package fileprivate(set) var workDirectories: [String] = []
    /// What clusters were registered as, where that is not their present name.
    package fileprivate(set) var registeredNames: [String: String] = [:]
}

/// Where a repository lies.
package enum RepositoryPlace: Sendable {
    /// A directory.
    case local(path: String)
    case s3(S3Configuration)

    /// The directory of a local repository; nil for any other.
    package var directory: String? { if case .local(let path) = self { path } else { nil } }

    /// What no other repository may have.
    package var description: String {
        switch self {
        case .local(let path): "path \"\(path)\""
        case .s3(let s3): "place \(s3.location)"
        }
    }
}

/// Where the secret that unwraps a repository's data keys comes from.
package enum KeySource: Hashable, Sendable {
    case keyFile(String)
    case passphraseFile(String)
    case passphraseCommand(String)

    /// How messages call it: never by the words of a command, which may hold what must not be shown.
    package var described: String {
        switch self {
        case .keyFile(let path): "key file \"\(path)\""
        case .passphraseFile(let path): "passphrase in \"\(path)\""
        case .passphraseCommand: "passphrase of passphrase-command"
        }
    }
}

/// The whole configuration of one run.
package struct Configuration: Sendable {
    /// Where the file is unless `--config` or `KEDGE_CONFIG` names another.
    package static let defaultPath = "/etc/kedge/kedge.conf"

    package let path: String
    package let clusters: [ClusterConfiguration]
    package let repositories: [RepositoryConfiguration]
    /// One line each; for the log.
    package let warnings: [String]
    /// What the environment or options have set.
    package let overridden: [OverriddenKey]
    private let selection: Selection

    /// Loads the configuration. Throws `usage`, `configuration` or `not-supported`.
    package init(
        arguments: ParsedArguments, environment: [EnvironmentVariable], host: HostFacts, readFile: FileReader
    ) throws(KedgeError) {
        let variables = environment.filter { $0.name.hasPrefix("KEDGE_") && !$0.value.isEmpty }
        func global(_ option: String) -> String? {
            let variable = "KEDGE_" + ConfigurationKey.environmentName(option)
            return arguments.value(option) ?? variables.first { $0.name == variable }?.value
        }
        path = global("config") ?? Configuration.defaultPath
        let file = try ConfigurationFile(path: path, reading: readFile)
        var layers = try ConfigurationLayers(file: file)
        selection = Selection(cluster: global("cluster"), repository: global("repository"))
        try selection.check(layers, path: path)
        warnings = try layers.apply(variables: variables, selection: selection)
        try layers.apply(overrides: arguments.overrides, selection: selection)
        overridden = layers.sections.flatMap(\.overridden)
        var repositories: [RepositoryConfiguration] = []
        for section in layers.sections where section.kind == .repository {
            repositories.append(try RepositoryConfiguration(section, path: path))
        }
        let names = repositories.map(\.name)
        var clusters: [ClusterConfiguration] = []
        for section in layers.sections where section.kind == .cluster {
            clusters.append(try ClusterConfiguration(section, repositories: names, host: host, path: path))
        }
        for index in repositories.indices {
            for cluster in clusters where cluster.repositories.contains(repositories[index].name) {
                guard !repositories[index].workDirectories.contains(cluster.workDirectory) else { continue }
                repositories[index].workDirectories.append(cluster.workDirectory)
            }
        }
        let renamed = clusters.filter { $0.registeredName != $0.name }
        for index in repositories.indices {
            repositories[index].registeredNames = Dictionary(
                renamed.map { ($0.name, $0.registeredName) }, uniquingKeysWith: { first, _ in first })
        }
        self.repositories = repositories
        self.clusters = clusters
        try checkPathsDiffer()
    }

    /// The selected cluster, or the only one. Throws `configuration` where that is not clear.
    package func cluster() throws(KedgeError) -> ClusterConfiguration {
        if let name = selection.cluster, let cluster = clusters.first(where: { $0.name == name }) { return cluster }
        if clusters.count == 1 { return clusters[0] }
        throw Configuration.unclear(.cluster, clusters.map(\.name), path: path)
    }

    /// The selected cluster, or all of them; for commands that show what there is. Throws `configuration` where there
    /// is none.
    package func selectedClusters() throws(KedgeError) -> [ClusterConfiguration] {
        if selection.cluster == nil, clusters.count > 1 { return clusters }
        return [try cluster()]
    }

    /// The selected repository of a cluster, or all of them, in its order. Throws `configuration` where the cluster
    /// does not use it.
    package func selectedRepositories(
        of cluster: ClusterConfiguration
    ) throws(KedgeError) -> [RepositoryConfiguration] {
        selectsRepository ? [try repository(of: cluster)] : repositories(of: cluster)
    }

    /// All repositories of a cluster, in its order, whatever `--repository` says.
    package func repositories(of cluster: ClusterConfiguration) -> [RepositoryConfiguration] {
        cluster.repositories.compactMap { name in repositories.first { $0.name == name } }
    }

    /// The selected repository of a cluster, or its only one. Throws `configuration` where that is not clear.
    package func repository(of cluster: ClusterConfiguration) throws(KedgeError) -> RepositoryConfiguration {
        let candidates = repositories(of: cluster)
        if let name = selection.repository {
            if let repository = candidates.first(where: { $0.name == name }) { return repository }
            throw KedgeError(
                .configuration, "cannot use repository \"\(name)\" for cluster \"\(cluster.name)\"",
                detail: "The cluster does not use it.",
                hint: "Its repositories are: \(cluster.repositories.joined(separator: ", ")).")
        }
        if candidates.count == 1 { return candidates[0] }
        throw Configuration.unclear(.repository, candidates.map(\.name), path: path)
    }

    /// The selected repository of a cluster, or its first; `note` is told its name and how many there are where that
    /// was not the user's own choice. Throws as `repository(of:)`.
    package func repositoryOrFirst(
        of cluster: ClusterConfiguration, note: (String, Int) -> Void
    ) throws(KedgeError) -> RepositoryConfiguration {
        let all = repositories(of: cluster)
        guard !selectsRepository, all.count > 1 else { return try repository(of: cluster) }
        note(all[0].name, all.count)
        return all[0]
    }

    /// The selected repository, or the only one of the file; for commands that need no cluster.
    package func repository() throws(KedgeError) -> RepositoryConfiguration {
        if selection.cluster != nil { return try repository(of: cluster()) }
        if let name = selection.repository, let found = repositories.first(where: { $0.name == name }) { return found }
        if repositories.count == 1 { return repositories[0] }
        throw Configuration.unclear(.repository, repositories.map(\.name), path: path)
    }

    /// Refuses a selected repository for `command`, which always works with all repositories of a cluster; one that is
    /// all of them does no harm, and `repositories` that was set for this run has said it already. Throws `usage`.
    package func refuseSelectedRepository(
        of cluster: ClusterConfiguration, for command: String
    ) throws(KedgeError) {
        guard let name = selection.repository, cluster.repositories != [name],
            !overridden.contains(where: {
                $0.section == .cluster && $0.name == cluster.name && $0.key == "repositories"
            })
        else { return }
        throw KedgeError(
            .usage, "cannot run \"\(command)\" with repository \"\(name)\" alone",
            detail: "It works with all repositories of cluster \"\(cluster.name)\" "
                + "(\(cluster.repositories.joined(separator: ", "))), and --repository or KEDGE_REPOSITORY names one.",
            hint: "Leave that out, or name those that are meant with \"--repositories \(name)\".")
    }

    /// Whether `--repository` or `KEDGE_REPOSITORY` names one.
    package var selectsRepository: Bool { selection.repository != nil }

    private static func unclear(_ kind: SectionKind, _ names: [String], path: String) -> KedgeError {
        guard !names.isEmpty else {
            return KedgeError(
                .configuration, "cannot tell which \(kind.rawValue) to work on",
                detail: "The configuration file \"\(path)\" has no [\(kind.rawValue) NAME] section.",
                hint: "Add one; \"man kedge\" shows an example.")
        }
        return KedgeError(
            .configuration, "cannot tell which \(kind.rawValue) to work on",
            detail: "Several are configured: \(names.joined(separator: ", ")).",
            hint: "Choose one with \"--\(kind.rawValue) \(names[0])\".")
    }

    private func checkPathsDiffer() throws(KedgeError) {
        for (index, repository) in repositories.enumerated() {
            if let twin = repositories[..<index].first(where: { $0.place.description == repository.place.description })
            {
                throw KedgeError(
                    .configuration, "cannot use configuration file \"\(path)\"",
                    detail: "Repositories \"\(twin.name)\" and \"\(repository.name)\" have the same "
                        + "\(repository.place.description).",
                    hint: "Give each a place of its own, or remove one.")
            }
        }
    }
}

extension RepositoryConfiguration {
    /// The section's values as they are needed. Throws `configuration`.
    fileprivate init(_ section: LayeredSection, path file: String) throws(KedgeError) {
        name = section.name
        place = try RepositoryConfiguration.place(section, path: file)
        compression = section.compression("compression")
        let encryption = try section.requiredText(
            "encryption", why: "backups hold all data, so whether they are encrypted is never left to a default",
            example: "aes-256-gcm", file)
        let sources: [KeySource] = [
            section.text("key-file").map(KeySource.keyFile),
            section.text("passphrase-file").map(KeySource.passphraseFile),
            section.text("passphrase-command").map(KeySource.passphraseCommand),
        ].compactMap { $0 }
        let problem: String
        switch (encryption, sources.count) {
        case ("none", 0), ("aes-256-gcm", 1):
            keySource = sources.first
            return
        case ("none", _): problem = "It has encryption = none and a key as well, which contradict each other."
        case (_, 0): problem = "It has encryption = aes-256-gcm but no key."
        default: problem = "It has several of key-file, passphrase-file and passphrase-command."
        }
        throw KedgeError(
            .configuration, "cannot use configuration file \"\(file)\", line \(section.line): [repository \(name)]",
            detail: problem,
            hint: encryption == "none"
                ? "Remove key-file, passphrase-file and passphrase-command, or write encryption = aes-256-gcm."
                : "Set exactly one of key-file, passphrase-file and passphrase-command; "
                    + "\"kedge init --generate-key FILE\" makes a key file.")
    }
}

extension RepositoryConfiguration {
    /// Where the repository is. Throws `configuration`, also for keys that belong to another type: whoever wrote them
    /// expects them to do something.
    fileprivate static func place(
        _ section: LayeredSection, path file: String
    ) throws(KedgeError) -> RepositoryPlace {
        let isLocal = section.text("type") == "local"
        for key in isLocal ? S3Configuration.ownKeys : ["path"] where section.text(key) != nil {
            throw section.error(
                key, "key \"\(key)\" is for repositories of type \(isLocal ? "s3" : "local")",
                hint: isLocal ? "Remove it, or write type = s3." : "Remove it; bucket and prefix say where it is.", file
            )
        }
        guard isLocal else { return .s3(try S3Configuration(section, path: file)) }
        return .local(
            path: try section.requiredText(
                "path", why: "kedge must know where the repository is", example: "/var/lib/kedge", file))
    }
}

extension LayeredSection {
    /// What the keep keys say.
    fileprivate var retention: RetentionRules {
        var tiers: [RetentionPeriod: Int] = [:]
        for period in RetentionPeriod.allCases {
            tiers[period] = integer("keep-\(period.rawValue)").map { Int($0) }
        }
        return RetentionRules(
            keepFull: integer("keep-full").map { Int($0) }, keepDays: integer("keep-days").map { Int($0) },
            keepTiers: tiers, graceSeconds: duration("expire-grace").components.seconds,
            keepProofsSeconds: duration("keep-proofs").components.seconds)
    }
}

extension ClusterConfiguration {
    /// Where what kedge notes lies unless `work-directory` is set. A restart of the host may empty it.
    static func defaultWorkDirectory(of user: UInt32) -> String { "/tmp/kedge-\(user)" }

    /// The section's values as they are needed. Throws `configuration`.
    fileprivate init(
        _ section: LayeredSection, repositories known: [String], host facts: HostFacts, path file: String
    ) throws(KedgeError) {
        name = section.name
        // The first level of a repository has entries of its own beside the clusters (docs/design.md section 4).
        guard name != "key", name != "feature", name != "kedge.json" else {
            throw ConfigurationFile.error(
                file, section.line, "a cluster cannot be called \"\(name)\"",
                hint: "Choose another name: the repository keeps something else under this one.")
        }
        pgdata = try section.requiredText(
            "pgdata", why: "kedge must know which cluster this is", example: "/var/lib/postgresql/15/main", file)
        host = section.text("host")
        port = section.integer("port").map { Int($0) }
        user = section.text("user")
        dbname = section.text("dbname")
        primaryHost = section.text("primary-host")
        primaryPort = section.integer("primary-port").map { Int($0) }
        binDirectory = section.text("bin-dir")
        processMax = section.integer("process-max").map { Int($0) } ?? min(8, max(1, facts.processors))
        workDirectory = section.text("work-directory") ?? ClusterConfiguration.defaultWorkDirectory(of: facts.userID)
        archiveTimeout = section.duration("archive-timeout")
        archiveGetTimeout = section.duration("archive-get-timeout")
        archiveQueueLimit = section.integer("archive-queue-limit")
        archiveGetPrefetch = Int(section.integer("archive-get-prefetch") ?? 0)
        archivePushAhead = Int(section.integer("archive-push-ahead") ?? 0)
        refusesDamagedWAL = section.text("wal-damage") == "refuse"
        onUnavailable = section.text("on-unavailable").flatMap(UnavailableAnswer.init)
        readRate = section.integer("read-rate")
        packSize = section.integer("pack-size") ?? 256 << 20
        fullEvery = section.duration("full-every")
        retention = section.retention
        registeredName = section.text("registered-as") ?? section.name
        verifyEvery = section.duration("verify-every")
        verifyRate = section.integer("verify-rate")
        drill = DrillConfiguration(section)
        if archiveQueueLimit != nil, section.text("work-directory") == nil {
            throw section.error(
                "archive-queue-limit",
                "work-directory is not set: what was given up is noted there, and /tmp does not "
                    + "last",
                hint: "Set work-directory to a directory that survives a restart of the host.", file)
        }
        repositories = section.list("repositories") ?? known
        guard !repositories.isEmpty else {
            throw KedgeError(
                .configuration, "cannot use configuration file \"\(file)\"",
                detail: "It has no [repository NAME] section.", hint: "Add one; \"man kedge\" shows an example.")
        }
        for repository in repositories where !known.contains(repository) {
            throw section.error(
                "repositories", "there is no repository \"\(repository)\"",
                hint: NearestName.question(repository, among: known)
                    + (known.isEmpty
                        ? "Add a [repository \(repository)] section."
                        : "The repositories are: \(known.joined(separator: ", "))."),
                file)
        }
    }
}

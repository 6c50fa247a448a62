// The configuration of one run: file, environment and options as one immutable value, read once. What a section says is
// in ClusterConfiguration.swift and RepositoryConfiguration.swift.
//
// 1. A key's value comes from the option, else from the environment, else from the file, else from the table's default.
//    KEDGE_CLUSTER_MAIN_PGDATA wins over KEDGE_PGDATA.
// 2. An option or variable that names no section is for the selected section: the one named by --cluster or
//    --repository, or the only one of its kind. Where that is not clear it is refused, never applied to several.
// 3. Everything in the file is checked, whatever part of it this run needs; an unknown KEDGE_ variable is only a
//    warning, since variables are inherited from places that know nothing of this version (lesson 52).
// 4. archive-push loads this thousands of times a day: one pass over the file, no regular expressions.
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

// What the environment and the options of this run say of the repositories, for a command line that others will run:
// they have neither. Values that may be secret are named, never told.

/// A key that the environment or an option has set.
package struct OverriddenKey: Hashable, Sendable {
    package let section: SectionKind
    package let name: String
    package let key: String
    package let text: String
}

extension Configuration {
    /// Of a cluster, what says where its WAL is; all else is for this run.
    private static let clusterKeys: Set<String> = ["repositories", "registered-as"]
    /// A command may hold what nobody else must read, and a configuration file of the server is no place for it.
    private static let secretKeys: Set<String> = ["passphrase-command"]

    /// The overrides that reading this cluster's WAL needs, as environment variables `NAME=value`, which unlike options
    /// can be for each of several repositories; and the keys whose values are left out.
    package func overridesForOthers(_ cluster: ClusterConfiguration) -> (variables: [String], leftOut: [String]) {
        var variables: [String] = []
        var leftOut: [String] = []
        for override in overridden {
            switch override.section {
            case .cluster:
                guard override.name == cluster.name, Self.clusterKeys.contains(override.key) else { continue }
            case .repository:
                guard cluster.repositories.contains(override.name) else { continue }
            }
            if Self.secretKeys.contains(override.key) {
                leftOut.append("\"\(override.key)\"")
                continue
            }
            let name = ConfigurationKey.environmentName(
                "KEDGE-\(override.section.rawValue)-\(override.name)-\(override.key)")
            variables.append("\(name)=\(override.text)")
        }
        return (variables.sorted(), leftOut)
    }
}

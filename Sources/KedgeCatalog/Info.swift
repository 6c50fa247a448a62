// `kedge info`: what the repositories hold of each cluster, which moments can be reached, and what is wrong.
//
// It must be quick with a million archived segments: names are listed once, and facts are read of a few hundred
// segments at most. A repository that can't be read is told as such and hides no other.

package import KedgeCore
package import KedgeRepository

/// Surveys clusters.
package struct Info: Sendable {
    /// A configured cluster and its repositories.
    package struct Cluster: Sendable {
        package let name: String
        package let repositories: [ConfiguredRepository]

        package init(name: String, repositories: [ConfiguredRepository]) {
            self.name = name
            self.repositories = repositories
        }
    }

    /// What is known of one cluster.
    package struct ClusterInfo: Sendable {
        package let name: String
        /// In the configured order; an error stands for a repository that could not be read.
        package let repositories: [(name: String, info: Result<RepositoryInfo, KedgeError>)]
        package let messages: [InfoMessage]
        /// When this was so.
        package let now: Timestamp

        /// The worst of the messages.
        package var status: InfoMessage.Severity? { messages.map(\.severity).max() }

        /// Whether every repository could be read.
        package var isComplete: Bool {
            repositories.allSatisfy { if case .success = $0.info { true } else { false } }
        }
    }

    private let clusters: [Cluster]
    private let listsProofs: Bool
    private let time: any TimeSource
    private let random: any RandomSource
    private let interruption: Interruption

    /// With `listsProofs` every proof is opened. `time` tells how old proofs are.
    package init(
        _ clusters: [Cluster], listsProofs: Bool = false, time: any TimeSource, random: any RandomSource,
        interruption: Interruption
    ) {
        self.clusters = clusters
        self.listsProofs = listsProofs
        self.time = time
        self.random = random
        self.interruption = interruption
    }

    /// Throws `interrupted` alone: a repository that can't be read is part of the outcome.
    package func run() throws(KedgeError) -> [ClusterInfo] {
        var infos: [ClusterInfo] = []
        for cluster in clusters { infos.append(try survey(cluster)) }
        return infos
    }

    private func survey(_ cluster: Cluster) throws(KedgeError) -> ClusterInfo {
        var repositories: [(name: String, info: Result<RepositoryInfo, KedgeError>)] = []
        var messages: [InfoMessage] = []
        for repository in cluster.repositories {
            do throws(KedgeError) {
                try interruption.checkpoint()
                let opened = try repository.source.get().openCluster(cluster.name, for: .read, random: random)
                if let outdated = opened.repository.outdated {
                    messages.append(InfoMessage(severity: .error, repository: repository.name, error: outdated))
                }
                let survey = RepositorySurvey(
                    cluster: opened, interruption: interruption, listsProofs: listsProofs)
                repositories.append((repository.name, .success(try survey.run())))
            } catch {
                guard error.code != .interrupted else { throw error }
                repositories.append((repository.name, .failure(error)))
            }
        }
        let now = time.now()
        messages += repositories.flatMap { name, info in
            switch info {
            case .success(let info): InfoMessage.about(info) + InfoMessage.aboutProofs(info, now: now)
            case .failure(let error): [InfoMessage(severity: .error, repository: name, error: error)]
            }
        }
        return ClusterInfo(name: cluster.name, repositories: repositories, messages: messages, now: now)
    }
}

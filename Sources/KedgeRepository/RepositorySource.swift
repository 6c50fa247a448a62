// Where a repository is and how it is read: what the configuration gives to the use cases, which open it themselves.

import KedgeCodec
package import KedgeCore

/// A configured repository that was not opened yet.
package struct RepositorySource: Sendable {
    package var settings: RepositorySettings
    /// Opens the store. Throws `repository-unavailable` and its like.
    package let openStore: @Sendable () throws(KedgeError) -> any ObjectStore
    /// Makes the place for a new repository (a directory); does nothing where it exists.
    package let createStore: @Sendable () throws(KedgeError) -> any ObjectStore
    /// Opens a store that gives up after a few seconds: for those who have another repository to turn to. Nil: nothing
    /// is gained by it, as with a directory.
    package var openHastyStore: (@Sendable () throws(KedgeError) -> any ObjectStore)?
    /// Finds out what the store can do, for `check`; nil for a directory.
    package var examineStore: (@Sendable () throws(KedgeError) -> [StoreFinding])?

    package init(
        settings: RepositorySettings, openStore: @escaping @Sendable () throws(KedgeError) -> any ObjectStore,
        createStore: @escaping @Sendable () throws(KedgeError) -> any ObjectStore
    ) {
        self.settings = settings
        self.openStore = openStore
        self.createStore = createStore
    }

    /// A repository that can't be opened, for the reason `error`: it must not keep others from being used, and must not
    /// be forgotten either.
    package static func unusable(_ name: String, _ error: KedgeError) -> RepositorySource {
        RepositorySource(
            settings: RepositorySettings(name: name, cipher: .none, compression: .standard, secret: nil),
            openStore: { () throws(KedgeError) in throw error }, createStore: { () throws(KedgeError) in throw error })
    }

    /// The same repository with a store that gives up soon, where there is such a store.
    package var hasty: RepositorySource {
        guard let openHastyStore else { return self }
        return RepositorySource(settings: settings, openStore: openHastyStore, createStore: createStore)
    }

    /// Opens the repository for `use`. Throws as `Repository.open`.
    package func open(
        for use: RepositoryUse, random: any RandomSource = SystemRandomSource()
    ) throws(KedgeError) -> Repository {
        try Repository.open(openStore(), settings, for: use, random: random)
    }

    /// Opens the repository and one cluster in it.
    package func openCluster(
        _ name: String, for use: RepositoryUse, random: any RandomSource = SystemRandomSource()
    ) throws(KedgeError) -> ClusterRepository {
        try ClusterRepository.open(open(for: use, random: random), clusterName: name)
    }
}

/// A repository as it is configured, for commands that tell what is wrong with one and go on with the next.
package struct ConfiguredRepository: Sendable {
    package let name: String
    /// A failure where its secret could not be read.
    package let source: Result<RepositorySource, KedgeError>

    package init(name: String, source: Result<RepositorySource, KedgeError>) {
        self.name = name
        self.source = source
    }
}

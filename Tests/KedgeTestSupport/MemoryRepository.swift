// A repository in memory with one registered cluster, for tests of what works on a whole repository.
package import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// An initialised repository in a `MemoryStore`, with the cluster "main".
package struct MemoryRepository: Sendable {
    package let store: MemoryStore
    package let settings: RepositorySettings
    package let identity: RepositoryIdentity
    package let registration: Registration
    private let random: any RandomSource

    /// The secret that opens it; nil where it is not encrypted.
    package var secret: KeyEncryptionSecret? { settings.secret }

    /// Makes the repository, its key and the registration of system 7, PostgreSQL 15. The ids of repository and cluster
    /// are the first that `random` gives, encrypted or not.
    package init(
        name: String = "main", encrypted: Bool = true, walSegmentSize: UInt64 = 16 << 20,
        store: MemoryStore = MemoryStore(), random: any RandomSource = SystemRandomSource()
    ) throws(KedgeError) {
        let created = Timestamp(secondsSince1970: 1_795_000_000)
        self.random = random
        identity = RepositoryIdentity(id: RandomID(from: random), createdAt: created, createdBy: Version.writer)
        let clusterID = RandomID(from: random)
        let secret = encrypted ? KeyEncryptionSecret.newKeyFile(random: random) : nil
        self.store = store
        settings = RepositorySettings(
            name: name, cipher: encrypted ? .aes256GCM : .none, compression: .standard, secret: secret)
        registration = Registration(
            clusterID: clusterID, name: "main", systemIdentifier: SystemIdentifier(7),
            postgresVersion: 15, catalogVersion: 202_209_061, walSegmentSize: walSegmentSize, blockSize: 8192,
            walBlockSize: 8192, relationSegmentBlocks: 131_072, createdAt: created, createdBy: Version.writer)
        if let secret {
            try Repository.putKeySlot(
                KeySlot.wrap(
                    DataKey(sequence: 1, random: random), with: secret, repositoryID: identity.id, label: name,
                    createdAt: created, random: random), in: store)
        }
        _ = try store.put(
            RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.prettyText.utf8)), .createOnly)
        _ = try ClusterRepository.register(registration, in: open())
    }

    /// How use cases are given it.
    package var source: RepositorySource { source(with: settings.secret) }

    /// The same with another secret.
    package func source(with secret: KeyEncryptionSecret?) -> RepositorySource {
        let store = store
        let settings = RepositorySettings(
            name: settings.name, cipher: settings.cipher, compression: settings.compression, secret: secret)
        return RepositorySource(settings: settings, openStore: { store }, createStore: { store })
    }

    /// Opens it with its own secret.
    package func open() throws(KedgeError) -> Repository { try source.open(for: .write, random: random) }

    /// Opens the cluster.
    package func cluster() throws(KedgeError) -> ClusterRepository {
        try source.openCluster("main", for: .write, random: random)
    }
}

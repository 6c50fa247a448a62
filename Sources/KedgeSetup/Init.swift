// `kedge init`: makes the repositories of a cluster and registers the cluster in each. Safe to repeat.
//
// Order, for each repository: key slot → kedge.json → registration. kedge.json is what makes it a repository, and it is
// created only if absent: of two hosts that run init at once, one makes the repository and both end up using it.

import KedgeCodec
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// Creates repositories and registers a cluster.
package struct Init: Sendable {
    package struct Options: Sendable {
        package let clusterName: String
        /// The cluster's data directory: its `pg_control` says what is registered.
        package let pgdata: RawPath
        package let repositories: [RepositorySource]
        /// What must not lie in the directories of the database; the repositories among it not in either direction.
        package var keptPaths: [KeptPath] = []
        /// The database system that is registered and that this one replaces, where that is not plain.
        package var replacedSystem: SystemIdentifier?

        package init(clusterName: String, pgdata: RawPath, repositories: [RepositorySource]) {
            self.clusterName = clusterName
            self.pgdata = pgdata
            self.repositories = repositories
        }
    }

    package struct Outcome: Sendable {
        package struct RepositoryOutcome: Sendable {
            package let name: String
            package let id: RandomID
            /// False where the repository was there before.
            package let created: Bool
            /// False where this database system was registered before.
            package let registered: Bool
        }

        package let repositories: [RepositoryOutcome]
        package let control: ControlFile
    }

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource

    package init(_ options: Options, random: any RandomSource, time: any TimeSource) {
        self.options = options
        self.random = random
        self.time = time
    }

    /// Throws what reading `pg_control`, opening and writing throw; `not-empty` where a new repository would be made
    /// among other things; `configuration` where a repository shares a directory with the database or is configured
    /// twice; `wal-foreign` where another living database may be registered under the cluster's name.
    package func run() throws(KedgeError) -> Outcome {
        let control = try ControlFile.read(dataDirectory: options.pgdata, time: time)
        let places = PlaceCheck(dataDirectory: options.pgdata, control: control, kept: options.keptPaths)
        if let refusal = try places.run().refusal { throw refusal }
        // Before anything is registered anywhere.
        var opened: [(repository: Repository, created: Bool)] = []
        for source in options.repositories {
            let created = try create(source)
            let repository = try source.open(for: .write, random: random)
            let twins = opened.map { $0.repository.twin } + [repository.twin]
            if let twin = RepositoryTwin.find(twins) { throw twin.error }
            try SystemSuccession.require(
                control, named: options.clusterName, in: repository, replacing: options.replacedSystem)
            opened.append((repository, created))
        }
        var outcomes: [Outcome.RepositoryOutcome] = []
        for (repository, created) in opened {
            let registered = try register(control, in: repository)
            outcomes.append(
                Outcome.RepositoryOutcome(
                    name: repository.name, id: repository.identity.id, created: created, registered: registered))
        }
        return Outcome(repositories: outcomes, control: control)
    }

    /// Makes the repository unless it is there. Returns whether this call made it.
    private func create(_ source: RepositorySource) throws(KedgeError) -> Bool {
        let store = try source.createStore()
        let name = source.settings.name
        guard try Repository.findIdentity(store, name: name) == nil else { return false }
        try refuseStrangers(store, name: name)
        let identity = RepositoryIdentity(
            id: RandomID(from: random), createdAt: time.now(), createdBy: Version.writer)
        if let secret = source.settings.secret {
            let key = DataKey(sequence: 1, random: random)
            let slot = try KeySlot.wrap(
                key, with: secret, repositoryID: identity.id, label: name, createdAt: time.now(), random: random)
            try Repository.putKeySlot(slot, in: store)
        }
        let json = Array(identity.jsonValue.prettyText.utf8)
        return try store.put(RepositoryLayout.marker, ObjectBody(json), .createOnly) == .created
    }

    /// A repository begins in an empty place; key slots may be there, left by an init that was interrupted.
    private func refuseStrangers(_ store: any ObjectStore, name: String) throws(KedgeError) {
        for entry in try store.list(below: nil, after: nil, limit: 10).entries
        where !entry.name.isBelow(RepositoryLayout.keys) {
            throw KedgeError(
                .notEmpty, "cannot create repository \"\(name)\" among other things",
                detail: "\(store.location) holds \"\(entry.name)\" but no kedge.json.",
                hint: "Choose an empty place.  If this was a repository, restore its kedge.json from a copy.")
        }
    }

    /// Returns whether this call registered the database system.
    private func register(_ control: ControlFile, in repository: Repository) throws(KedgeError) -> Bool {
        let registration = Registration(
            clusterID: RandomID(from: random), name: options.clusterName,
            systemIdentifier: control.systemIdentifier, postgresVersion: control.version.major,
            catalogVersion: control.version.catalogVersion, walSegmentSize: UInt64(control.walSegmentSize),
            blockSize: control.blockSize, walBlockSize: control.walBlockSize,
            relationSegmentBlocks: control.relationSegmentBlocks, createdAt: time.now(), createdBy: Version.writer)
        let (cluster, isNew) = try ClusterRepository.register(registration, in: repository)
        let found = try cluster.registration(of: control.systemIdentifier)
        guard found.walSegmentSize == registration.walSegmentSize, found.blockSize == registration.blockSize else {
            throw KedgeError(
                .walForeign, "cannot use cluster \"\(options.clusterName)\" in repository \"\(repository.name)\"",
                detail: "It is registered with WAL segments of \(found.walSegmentSize) bytes and blocks of "
                    + "\(found.blockSize) bytes; \(options.pgdata) has \(registration.walSegmentSize) and "
                    + "\(registration.blockSize).",
                hint: "Check pgdata.  A cluster that was changed by pg_resetwal needs a new name.")
        }
        return isNew
    }
}

// `kedge init`: makes the repositories of a cluster and registers the cluster in each. Safe to repeat.
//
// Order, for each repository: key slot → kedge.json → registration. kedge.json is what makes it a repository, and it is
// created only if absent: of two hosts that run init at once, one makes the repository and both end up using it.
//
// What lies in the places is looked at before anything is made, even a directory: an empty mount point may be the place
// of a repository whose disk is away.

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
        /// The key of those sources that have its secret, which is not in its file yet: it is written when the first
        /// repository is made with it.
        package var newKey: NewKeyFile?
        /// Forgets what is noted of the repositories in these places, which may be others now. Called when
        /// what lies there was looked at, and before anything is made.
        package var forgetNotes: @Sendable () throws(KedgeError) -> Void = {}

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
    /// twice; `wal-foreign` where another living database may be registered under the cluster's name;
    /// `repository-unavailable` where this host knows another repository in a place, which is not to be replaced;
    /// `key-missing` where a repository that exists is to be opened with a new key.
    package func run() throws(KedgeError) -> Outcome {
        let control = try ControlFile.read(dataDirectory: options.pgdata, time: time)
        let places = PlaceCheck(dataDirectory: options.pgdata, control: control, kept: options.keptPaths)
        if let refusal = try places.run().refusal { throw refusal }
        for source in options.repositories where try exists(source) { _ = try open(source, control) }
        try options.forgetNotes()
        // Before anything is registered anywhere.
        var opened: [(repository: Repository, created: Bool)] = []
        var newKey = options.newKey
        for source in options.repositories {
            let created = try create(source, &newKey)
            let repository = try open(source, control)
            let twins = opened.map { $0.repository.twin } + [repository.twin]
            if let twin = RepositoryTwin.find(twins) { throw twin.error }
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

    /// Whether the repository is there; false where one is to be made. Makes nothing.
    ///
    /// Throws `repository-unavailable` where this host knows another one there, or one where there is none: its file
    /// system may just not be mounted. Throws `key-missing` where one is there and its key is yet to be made.
    private func exists(_ source: RepositorySource) throws(KedgeError) -> Bool {
        let name = source.settings.name
        var found: RepositoryIdentity?
        if let store = try openedStore(source) { found = try Repository.findIdentity(store, name: name) }
        let what = "cannot \(found == nil ? "create" : "use") repository \"\(name)\""
        if let stranger = source.settings.stranger(to: found?.id, what) { throw stranger }
        guard let found else { return false }
        if let newKey = options.newKey, newKey.isKey(of: source) {
            throw KedgeError(
                .keyMissing, "cannot generate key file \"\(newKey.path)\": repository \"\(name)\" exists",
                detail: "It is the repository \(found.id), of \(found.createdAt), and no new key opens it.",
                hint: "Put the key file back from its copy.  If the repository has a second secret, configure that, "
                    + "and run \"kedge key add\" with a new key file.")
        }
        return true
    }

    /// Nil where there is no such directory yet.
    private func openedStore(_ source: RepositorySource) throws(KedgeError) -> (any ObjectStore)? {
        do throws(KedgeError) {
            return try source.openStore()
        } catch  where error.code == .repositoryUnavailable {
            return nil
        }
    }

    /// Opens a repository, unless this database may not have the cluster's name there.
    private func open(_ source: RepositorySource, _ control: ControlFile) throws(KedgeError) -> Repository {
        let repository = try source.open(for: .write, random: random)
        try SystemSuccession.require(
            control, named: options.clusterName, in: repository, replacing: options.replacedSystem)
        return repository
    }

    /// Makes the repository unless it is there, and writes its key before it if that is new; `newKey` is nil from then
    /// on. Returns whether this call made it.
    private func create(_ source: RepositorySource, _ newKey: inout NewKeyFile?) throws(KedgeError) -> Bool {
        let store = try source.createStore()
        let name = source.settings.name
        guard try Repository.findIdentity(store, name: name) == nil else { return false }
        try refuseStrangers(store, name: name)
        let identity = RepositoryIdentity(
            id: RandomID(from: random), createdAt: time.now(), createdBy: Version.writer)
        let ownKey = newKey?.isKey(of: source) == true ? newKey : nil
        if let ownKey {
            try ownKey.write(random: random)
            newKey = nil
        }
        if let secret = source.settings.secret {
            let key = DataKey(sequence: 1, random: random)
            let slot = try KeySlot.wrap(
                key, with: secret, repositoryID: identity.id, label: name, createdAt: time.now(), random: random)
            do throws(KedgeError) {
                try Repository.putKeySlot(slot, in: store)
            } catch {
                try ownKey?.remove()
                throw error
            }
        }
        let json = Array(identity.jsonValue.prettyText.utf8)
        // Where this fails it may have been stored all the same, so the key stays: a repetition uses it.
        guard try store.put(RepositoryLayout.marker, ObjectBody(json), .createOnly) == .created else {
            try ownKey?.remove()
            return false
        }
        return true
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

extension NewKeyFile {
    /// Whether a repository is to be made with this key.
    fileprivate func isKey(of source: RepositorySource) -> Bool {
        source.settings.secret.map { $0.isSame(as: secret) } ?? false
    }
}

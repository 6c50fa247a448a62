// One cluster's objects in one repository: names, seals and records put together.
//
// Every object but the registration is bound to (cluster id, relative name); a registration to (repository id, relative
// name), because the cluster id is read from it. All registrations of a cluster must agree on the cluster id. The
// cluster's name is not bound, so that a repository can be moved; that the directory is the one of the cluster that is
// meant follows from the newest registration, which says the name that it was registered with.

package import KedgeCodec
package import KedgeCore

/// A cluster's part of an opened repository.
package final class ClusterRepository: Sendable {
    package let repository: Repository
    /// The name of the cluster's directory.
    package let clusterName: String
    package let clusterID: RandomID
    /// Every database system that this cluster is or was, in the order in which they were registered.
    package let registrations: [Registration]
    private let directory: ObjectName

    /// The most bytes that a record may have, sealed and opened: a manifest root of a huge cluster is the largest.
    package static let recordLimit = 64 << 20

    private init(
        repository: Repository, clusterName: String, directory: ObjectName, registrations: [Registration],
        clusterID: RandomID
    ) {
        self.repository = repository
        self.clusterName = clusterName
        self.directory = directory
        self.registrations = registrations
        self.clusterID = clusterID
    }

    // MARK: - Opening and registering

    /// Opens the cluster called `clusterName`.
    ///
    /// Throws `not-found` if no database system is registered under that name, `configuration` for a name that no
    /// cluster can have and where the cluster was registered with another name than the configuration accepts,
    /// `damaged` where registrations contradict each other.
    package static func open(
        _ repository: Repository, clusterName: String
    ) throws(KedgeError) -> ClusterRepository {
        let directory = try clusterDirectory(clusterName)
        let registrations = try readRegistrations(repository, directory)
        guard let newest = registrations.last else {
            throw KedgeError(
                .notFound, "could not open cluster \"\(clusterName)\" in repository \"\(repository.name)\"",
                detail: "No database system is registered under this name.",
                hint: "Check the cluster's name.  If the cluster is new, run \"kedge init\".")
        }
        try requireName(newest, clusterName, repository)
        return ClusterRepository(
            repository: repository, clusterName: clusterName, directory: directory, registrations: registrations,
            clusterID: newest.clusterID)
    }

    /// The name that the cluster must have been registered with: the local configuration decides.
    private static func acceptedName(_ clusterName: String, _ repository: Repository) -> String {
        repository.settings.registeredNames[clusterName] ?? clusterName
    }

    /// Throws `configuration` where the directory holds another cluster than the configuration means: somebody may have
    /// exchanged the directories of two clusters, each of which is whole and genuine.
    private static func requireName(
        _ newest: Registration, _ clusterName: String, _ repository: Repository
    ) throws(KedgeError) {
        let accepted = acceptedName(clusterName, repository)
        guard newest.name != accepted else { return }
        throw KedgeError(
            .configuration, "cannot use cluster \"\(clusterName)\" in repository \"\(repository.name)\"",
            detail: "What lies there was registered as \"\(newest.name)\", and \"\(accepted)\" is expected: either the "
                + "directory was renamed, or it is that of another cluster.",
            hint:
                "If you renamed it, set registered-as = \(newest.name) in [cluster \(clusterName)].  If not, find out "
                + "who can write to the repository.")
    }

    /// Registers a database system. `registration.clusterID` is replaced by that of the cluster, if it has one already.
    ///
    /// Repeating it changes nothing. Returns the cluster, and whether this call registered the system. Throws as
    /// `open`.
    package static func register(
        _ registration: Registration, in repository: Repository
    ) throws(KedgeError) -> (cluster: ClusterRepository, isNew: Bool) {
        var isNew = false
        let directory = try clusterDirectory(registration.name)
        let existing = try readRegistrations(repository, directory)
        if !existing.contains(where: { $0.systemIdentifier == registration.systemIdentifier }) {
            let clusterName = registration.name
            var registration = registration
            registration.name = acceptedName(clusterName, repository)
            if let newest = existing.last {
                try requireName(newest, clusterName, repository)
                registration.clusterID = newest.clusterID
                // Their order is that of their times, and the hosts that register may have clocks of their own.
                let next = Timestamp(microseconds: newest.createdAt.microseconds + 1)
                registration.createdAt = max(registration.createdAt, next)
            }
            let relative = ClusterLayout.registration(registration.systemIdentifier)
            let sealed = try SealedObject.seal(
                .registration, name: ScopedName(scope: repository.identity.id, name: relative.text),
                contents: Array(registration.jsonValue.compactText.utf8), compression: repository.settings.compression,
                keyRing: repository.keyRing, random: repository.random)
            // Another host that registered it first has won: what it wrote is read below.
            let name = try absolute(relative, in: directory)
            isNew = try repository.store.put(name, ObjectBody(sealed), .createOnly) == .created
            if isNew { try requireOneCluster(name, directory, repository) }
            if !isNew { try repository.store.makeDurable(name) }
        }
        return (try open(repository, clusterName: registration.name), isNew)
    }

    /// Takes the registration that was stored just now as `name` back where another host was the first to register
    /// another system under the cluster's name at the same moment: each chose an id for the cluster, and with two of
    /// them nobody could use it. Nothing was stored with ours yet. Throws `wal-foreign` then.
    private static func requireOneCluster(
        _ name: ObjectName, _ directory: ObjectName, _ repository: Repository
    ) throws(KedgeError) {
        do throws(KedgeError) {
            _ = try readRegistrations(repository, directory)
        } catch {
            guard error.code == .damaged else { throw error }
            if let failure = try repository.store.remove([name]).first { throw failure.error }
            throw KedgeError(
                .walForeign,
                "could not register cluster \"\(directory)\" in repository \"\(repository.name)\": another database "
                    + "system was registered under that name just now",
                detail: "This one is not registered. \(error.detail ?? "")",
                hint: "If two servers share this configuration by mistake, give each cluster a name of its own; then "
                    + "run the command again.")
        }
    }

    /// The newest registration of `system`. Throws `wal-foreign` if that system is not registered here.
    package func registration(of system: SystemIdentifier) throws(KedgeError) -> Registration {
        if let found = registrations.last(where: { $0.systemIdentifier == system }) { return found }
        let known = registrations.map(\.systemIdentifier.description).joined(separator: ", ")
        throw KedgeError(
            .walForeign, "cannot use database system \(system) with cluster \"\(clusterName)\"",
            detail: "Repository \"\(repository.name)\" holds this cluster for the system identifier(s) \(known).",
            hint: "Check pgdata and the cluster's name in the configuration.  After pg_upgrade, run \"kedge init\" to "
                + "register the new system.")
    }

    /// The database system registered last: the one that a restore takes by default.
    package var newestRegistration: Registration {
        // `open` made sure that there is one.
        registrations[registrations.count - 1]
    }

    // MARK: - Names and seals

    /// The full name of a relative one.
    package func name(_ relative: ObjectName) -> ObjectName {
        guard let name = directory.appending(relative.text) else {
            preconditionFailure("\"\(relative)\" is too long below \"\(directory)\"")
        }
        return name
    }

    /// What the seal of the object with this relative name is bound to.
    package func scoped(_ relative: ObjectName) -> ScopedName { ScopedName(scope: clusterID, name: relative.text) }

    /// A new seal, with a salt of its own: for one attempt to write one object.
    package func newSeal(
        _ kind: ObjectKind, _ relative: ObjectName, frameSize: Int = 1 << 20, backupLabel: String? = nil
    ) throws(KedgeError) -> ObjectSeal {
        try ObjectSeal(
            writing: kind, name: scoped(relative), compression: repository.settings.compression, frameSize: frameSize,
            keyRing: repository.keyRing, random: repository.random, backupLabel: backupLabel)
    }

    // MARK: - Records

    /// Stores a record as a sealed object. Returns what the put found, and the sealed bytes that were offered.
    ///
    /// Only a lease may be replaced.
    @discardableResult
    package func putRecord(
        _ record: JSONValue, _ kind: ObjectKind, _ relative: ObjectName, _ condition: PutCondition = .createOnly
    ) throws(KedgeError) -> (outcome: PutOutcome, sealed: [UInt8]) {
        let contents = Array(record.compactText.utf8)
        guard contents.count <= Self.recordLimit else {
            throw KedgeError(
                .notSupported, "cannot store object \"\(relative)\"",
                detail: "It would have \(contents.count) bytes, and no reader accepts more than \(Self.recordLimit).",
                hint: "Please report this, with the size of the cluster.")
        }
        let sealed = try SealedObject.seal(
            kind, name: scoped(relative), contents: contents,
            compression: repository.settings.compression, keyRing: repository.keyRing, random: repository.random)
        return (try repository.store.put(name(relative), ObjectBody(sealed), condition), sealed)
    }

    /// Reads a record, checked from the envelope to the last byte of its JSON. `what` names it in errors.
    package func readRecord(
        _ kind: ObjectKind, _ relative: ObjectName, what: String, limit: Int = recordLimit
    ) throws(KedgeError) -> (record: JSONRecord, sealed: [UInt8]) {
        let sealed = try repository.store.readAll(name(relative), limit: limit)
        let contents = try SealedObject.open(
            sealed, kind: kind, name: scoped(relative), keyRing: repository.keyRing, limit: Self.recordLimit)
        return (try JSONRecord(parsing: contents.data, what: what), sealed)
    }

    /// Hands the relative name and status of every object below `directory` to `body`, in byte order.
    package func forEachObject(
        below relative: ObjectName, after: ObjectName? = nil,
        _ body: (ObjectName, ObjectStatus) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        try repository.store.forEachObject(below: name(relative), after: after.map(name)) {
            (entry) throws(KedgeError) in
            guard let found = self.relative(entry.name) else { return }
            try body(found, entry.status)
        }
    }

    /// Relative names of the directories directly below `relative`, in byte order.
    package func directories(below relative: ObjectName) throws(KedgeError) -> [ObjectName] {
        try repository.store.directories(below: name(relative)).compactMap(self.relative)
    }

    private func relative(_ name: ObjectName) -> ObjectName? {
        name.isBelow(directory) ? ObjectName(name.text.dropFirst(directory.text.count + 1)) : nil
    }

    // MARK: - Reading registrations

    private static func clusterDirectory(_ name: String) throws(KedgeError) -> ObjectName {
        if let directory = RepositoryLayout.cluster(name) { return directory }
        throw KedgeError(
            .configuration, "cannot use \"\(name)\" as the name of a cluster",
            detail: "It names a directory of the repository: letters, digits, \".\", \"_\" and \"-\" are allowed, a "
                + "leading \".\" and the words kedge.json, feature and key are not.",
            hint: "Rename the cluster's section in the configuration.")
    }

    private static func absolute(
        _ relative: ObjectName, in directory: ObjectName
    ) throws(KedgeError) -> ObjectName {
        guard let name = directory.appending(relative.text) else {
            throw KedgeError(
                .configuration, "cannot use \"\(directory)\" as the name of a cluster",
                detail: "Names of objects below it would be too long.", hint: "Use a shorter name.")
        }
        return name
    }

    private static func readRegistrations(
        _ repository: Repository, _ directory: ObjectName
    ) throws(KedgeError) -> [Registration] {
        var registrations: [Registration] = []
        let below = try absolute(ClusterLayout.registrations, in: directory)
        try repository.store.forEachObject(below: below) { (entry) throws(KedgeError) in
            guard let system = SystemIdentifier(entry.name.lastComponent) else { return }
            let relative = ClusterLayout.registration(system)
            // "007", or one in a directory below, would be the same registration a second time.
            guard try absolute(relative, in: directory) == entry.name else { return }
            let what = "registration \"\(entry.name)\" in repository \"\(repository.name)\""
            let contents = try SealedObject.open(
                try repository.store.readAll(entry.name, limit: recordLimit), kind: .registration,
                name: ScopedName(scope: repository.identity.id, name: relative.text), keyRing: repository.keyRing,
                limit: recordLimit)
            let registration = try Registration(JSONRecord(parsing: contents.data, what: what))
            guard registration.systemIdentifier == system else {
                throw KedgeError(
                    .damaged, "cannot use \(what)",
                    detail: "It is about the system \(registration.systemIdentifier).",
                    hint: "Somebody may have tampered with the repository.")
            }
            registrations.append(registration)
        }
        guard Set(registrations.map(\.clusterID)).count <= 1 else {
            throw KedgeError(
                .damaged, "cannot use cluster \"\(directory)\" in repository \"\(repository.name)\"",
                detail: "Its registrations name different cluster ids.",
                hint: "Objects of two clusters were mixed below one name.  Move them apart.")
        }
        return registrations.sorted {
            ($0.createdAt, $0.systemIdentifier.number) < ($1.createdAt, $1.systemIdentifier.number)
        }
    }
}

// The proofs of one cluster in one repository: written once each, kept longer than the backups they are about.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// What a listing of proofs found.
package struct ProofListing: Sendable {
    /// Oldest first.
    package let proofs: [ProofRecord]
    /// Objects among the proofs that can't be read, by their relative names. They prove nothing.
    package let unreadable: [UnreadableRecord]

    package init(proofs: [ProofRecord], unreadable: [UnreadableRecord]) {
        self.proofs = proofs
        self.unreadable = unreadable
    }
}

/// The proofs of one cluster in one repository.
package struct ProofCatalog: Sendable {
    package let cluster: ClusterRepository

    package init(_ cluster: ClusterRepository) { self.cluster = cluster }

    /// How many seconds a proof is put forward where others of its second are there already.
    private static let maximumShift = 60

    /// Stores a proof. Returns it as stored: where another proof has its name, its end is put forward by a second.
    ///
    /// `latest` is `latestEnd` as it was when the proof was made: a proof never ends before one that was there already,
    /// or a host whose clock is wrong would tell of damage that an earlier proof seems to have answered.
    /// Throws `already-exists` where a minute of seconds is taken, and what storing throws.
    @discardableResult
    package func put(_ proof: ProofRecord, after latest: Timestamp?) throws(KedgeError) -> ProofRecord {
        var proof = proof
        if let latest, latest > proof.name.time { proof.finished = latest.adding(seconds: 1) }
        for _ in 0..<Self.maximumShift {
            if try cluster.putRecord(proof.jsonValue, .proof, ClusterLayout.proof(proof.name)).outcome == .created {
                return proof
            }
            proof.finished = proof.finished.adding(seconds: 1)
        }
        throw KedgeError(
            .alreadyExists, "cannot store a proof of backup \"\(proof.label)\": there are others of that time",
            detail: "\(Self.maximumShift) names from \"\(proof.name.text)\" back are taken.",
            hint: "Check the clock of this host, and try again.")
    }

    /// The latest end, in whole seconds, of all proofs of all backups that can be opened: anybody who can write to the
    /// repository can make a name, and one of the year 9999 would leave none for those after it. Nil where there is
    /// none.
    package func latestEnd() throws(KedgeError) -> Timestamp? {
        for name in try names().proofs.values.joined().sorted(by: { $0.time > $1.time }) {
            if try !open([name]).proofs.isEmpty { return name.time }
        }
        return nil
    }

    /// The names of all proofs, by label, each oldest first; and objects among them whose name is none.
    package func names() throws(KedgeError) -> (proofs: [Label: [ProofName]], strangers: [ObjectName]) {
        var proofs: [Label: [ProofName]] = [:]
        var strangers: [ObjectName] = []
        try cluster.forEachObject(below: ClusterLayout.proofs) { (name, _) throws(KedgeError) in
            if let proof = Self.parse(name) {
                proofs[proof.label, default: []].append(proof)
            } else {
                strangers.append(name)
            }
        }
        return (proofs, strangers)
    }

    /// The names of one backup's proofs, oldest first.
    package func names(_ label: Label) throws(KedgeError) -> [ProofName] {
        var names: [ProofName] = []
        try cluster.forEachObject(below: ClusterLayout.proofs(of: label)) { (name, _) throws(KedgeError) in
            if let proof = Self.parse(name) { names.append(proof) }
        }
        return names
    }

    /// Every proof of one backup, opened. Throws only if they could not be listed, or one not be fetched.
    package func list(_ label: Label) throws(KedgeError) -> ProofListing { try open(names(label)) }

    /// These proofs, opened. One that is gone meanwhile is left out.
    package func open(_ names: [ProofName]) throws(KedgeError) -> ProofListing {
        var proofs: [ProofRecord] = []
        var unreadable: [UnreadableRecord] = []
        for name in names {
            do throws(KedgeError) {
                proofs.append(try proof(name))
            } catch  where error.code == .notFound {
                continue
            } catch {
                guard error.code.isAboutTheObject else { throw error }
                unreadable.append(UnreadableRecord(name: ClusterLayout.proof(name).text, error: error))
            }
        }
        proofs.sort { $0.finished < $1.finished }
        return ProofListing(proofs: proofs, unreadable: unreadable)
    }

    /// One proof. Throws `not-found`, `damaged` where the record is not what its name says, and what reading throws.
    package func proof(_ name: ProofName) throws(KedgeError) -> ProofRecord {
        let what = "proof \"\(name.label)/\(name.text)\""
        let proof = try ProofRecord(cluster.readRecord(.proof, ClusterLayout.proof(name), what: what).record)
        guard proof.name == name else {
            throw KedgeError(
                .damaged, "cannot use \(what)",
                detail: "It is \"\(proof.label)/\(proof.name.text)\".",
                hint: "Somebody may have tampered with the repository.")
        }
        return proof
    }

    /// The newest proof of a backup that can be read, of any result and of `level` alone where that is given.
    package func newest(_ label: Label, level: ProofLevel? = nil) throws(KedgeError) -> ProofRecord? {
        for name in try names(label).sorted(by: { $0.time > $1.time }) where level == nil || level == name.level {
            if let found = try open([name]).proofs.first { return found }
        }
        return nil
    }

    /// What is proven of a committed backup. `names` are its proofs, as listed. Opens no more than decides.
    package func standing(
        of record: CommitRecord, _ names: [ProofName]
    ) throws(KedgeError) -> (standing: ProofStanding, unreadable: [UnreadableRecord]) {
        var opened: [ProofRecord] = []
        var unreadable: [UnreadableRecord] = []
        // The newest pass of a level is all that older ones of that level could say; failures are always opened.
        var answered: Set<ProofLevel> = []
        for name in names.sorted(by: { ($0.time, $0.result.order) > ($1.time, $1.result.order) }) {
            guard answered.count < ProofLevel.allCases.count else { break }
            guard !answered.contains(name.level) else {
                if name.result == .failed { try add(name) }
                continue
            }
            if let proof = try add(name), proof.result == .passed, !proof.isSample, proof.manifest == record.manifest,
                proof.repositoryID == cluster.repository.identity.id
            {
                answered.insert(name.level)
            }
        }
        let standing = ProofStanding(
            of: record.label, manifest: record.manifest, repositoryID: cluster.repository.identity.id, proofs: opened)
        return (standing, unreadable)

        @discardableResult
        func add(_ name: ProofName) throws(KedgeError) -> ProofRecord? {
            let listing = try open([name])
            opened += listing.proofs
            unreadable += listing.unreadable
            return listing.proofs.first
        }
    }

    private static func parse(_ name: ObjectName) -> ProofName? {
        let parts = name.components
        guard parts.count == 4, let label = Label(String(parts[2])) else { return nil }
        return ProofName(label: label, parts[3])
    }
}

extension ProofResult {
    /// A failure counts as later than a pass of the same second.
    fileprivate var order: Int { self == .failed ? 1 : 0 }
}

extension ClusterLayout {
    /// A proof.
    package static func proof(_ name: ProofName) -> ObjectName { proofs(of: name.label).appending(known: name.text) }

    /// The directory of one backup's proofs.
    package static func proofs(of label: Label) -> ObjectName { proofs.appending(known: label.text) }
}

extension ObjectName {
    /// Labels and names of proofs are valid components by their types.
    fileprivate func appending(known component: String) -> ObjectName {
        guard let name = appending(component) else { preconditionFailure("\"\(component)\" is no component") }
        return name
    }
}

// The small objects: key slots, intents, marks, proofs. Each is opened; what the proofs tell is remembered.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository

/// Opens the records of a repository.
struct RecordCheck {
    private let cluster: ClusterRepository
    private let findings: Findings
    private let errors: ReadErrors
    private let interruption: Interruption

    init(
        _ cluster: ClusterRepository, _ findings: Findings, _ errors: ReadErrors, _ interruption: Interruption
    ) {
        self.cluster = cluster
        self.errors = errors
        self.findings = findings
        self.interruption = interruption
    }

    /// Returns what the proofs tell at `now`. `backups` hold copies of the slots that they need. Proofs from before
    /// `since` are left alone where that is given. Throws what reading throws where no record is to blame.
    func check(
        _ listing: RepositoryListing, _ backups: [CommitRecord], now: Timestamp, since: Timestamp?
    ) throws(KedgeError) -> VerifyMemory {
        try checkKeySlots(backups)
        let catalog = BackupCatalog(cluster)
        for label in listing.intents {
            guard let name = ClusterLayout.intent(label: label.text) else { continue }
            try open(name) { () throws(KedgeError) in _ = try catalog.intent(label) }
        }
        for (kind, name) in listing.otherRecords {
            try open(name) { () throws(KedgeError) in
                _ = try cluster.readRecord(kind, name, what: "\(kind.noun) \"\(name)\"")
            }
        }
        for name in listing.strangers { addStranger(name) }
        var sizes: [SystemIdentifier: UInt64] = [:]
        for registration in cluster.registrations {
            sizes[registration.systemIdentifier] = registration.walSegmentSize
        }
        var memory = VerifyMemory(segmentSizes: sizes, stored: listing.walSizes, backups: backups)
        let proofs = ProofCatalog(cluster)
        for name in listing.proofs where since.map({ name.time >= $0 }) ?? true {
            let isWhole = try open(ClusterLayout.proof(name), cost: "It proves nothing any more.") {
                () throws(KedgeError) in
                memory.add(try proofs.proof(name), repositoryID: cluster.repository.identity.id, now: now)
            }
            // Nobody can tell what it said was wrong.
            if !isWhole && (name.level == .verified || name.result == .failed) { memory.doubtAll(before: name.time) }
        }
        return memory
    }

    /// Opens one record, and returns whether that went well. One that is gone meanwhile is none: intents, marks and
    /// leases come and go.
    @discardableResult
    private func open(
        _ name: ObjectName, cost: String? = nil, _ body: () throws(KedgeError) -> Void
    ) throws(KedgeError) -> Bool {
        try interruption.checkpoint()
        do throws(KedgeError) {
            try body()
            return true
        } catch  where error.code == .notFound {
            return true
        } catch {
            let error = try errors.tolerate(error)
            findings.add(
                VerifyFinding(
                    kind: .init(of: error), object: cluster.name(name).text, error: error,
                    costs: cost.map { [$0] } ?? []))
            return false
        }
    }

    private func addStranger(_ name: ObjectName) {
        findings.add(
            VerifyFinding(
                kind: .foreign, object: name.text,
                error: KedgeError(
                    .walForeign, "object \"\(name)\" is not one of kedge's",
                    hint: "Find out who put it there; kedge does not remove it.")))
    }

    // MARK: - Key slots

    /// The copies of slots that commit records hold, by the slots' names. One that is none is a finding.
    private func slotCopies(_ backups: [CommitRecord]) throws(KedgeError) -> [ObjectName: KeySlot] {
        var known: [ObjectName: KeySlot] = [:]
        // Most records hold the same ones.
        var seen: Set<JSONValue> = []
        for backup in backups {
            for copy in backup.keySlots where !seen.contains(copy) {
                do throws(KedgeError) {
                    let slot = try KeySlot(JSONRecord(copy, what: "a key slot in the commit record of \(backup.label)"))
                    if let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) { known[name] = slot }
                    seen.insert(copy)
                } catch {
                    let error = try errors.tolerate(error)
                    guard let name = ClusterLayout.commitRecord(label: backup.label.text) else { continue }
                    findings.add(
                        VerifyFinding(
                            kind: .init(of: error), object: cluster.name(name).text, error: error,
                            costs: ["Should that slot be lost, there is no copy of it in this record."]))
                }
            }
        }
        return known
    }

    private func checkKeySlots(_ backups: [CommitRecord]) throws(KedgeError) {
        let repository = cluster.repository
        guard repository.settings.secret != nil else { return }
        let known = try slotCopies(backups)
        try repository.store.forEachObject(below: RepositoryLayout.keys) { (entry) throws(KedgeError) in
            do throws(KedgeError) {
                try check(entry.name, repository, copy: known[entry.name])
            } catch {
                let error = try errors.tolerate(error)
                findings.add(
                    VerifyFinding(
                        kind: .init(of: error), object: entry.name.text, error: error,
                        costs: ["The secret of this slot opens nothing any more."]))
            }
        }
    }

    private func check(_ name: ObjectName, _ repository: Repository, copy: KeySlot?) throws(KedgeError) {
        let bytes = try repository.store.readAll(name, limit: 64 << 10)
        let slot = try KeySlot(parsing: bytes, what: "key slot \"\(name)\" of repository \"\(repository.name)\"")
        // Whether a slot opens with a secret that is not ours, nobody can tell; but backups hold copies of slots.
        guard RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) == name,
            slot.repositoryID == repository.identity.id, copy == nil || copy == slot
        else {
            throw KedgeError(
                .damaged, "cannot use key slot \"\(name)\" of repository \"\(repository.name)\"",
                detail: "It is not the slot that was stored there.",
                hint: "Restore the slot from a copy of the repository; commit records hold copies too.")
        }
    }
}

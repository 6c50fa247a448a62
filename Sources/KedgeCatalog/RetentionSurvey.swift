// Reads what a retention plan is made from.
//
// Order: intents, then pins and marks, then commit records. A backup that ends meanwhile is so seen at least once: its
// intent goes only after its commit record is there.

package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Surveys one cluster in one repository, as often as it is asked to. Used by one thread at a time.
package final class RetentionSurvey {
    private let cluster: ClusterRepository
    private let interruption: Interruption
    private let clock: @Sendable (ClusterRepository) throws(KedgeError) -> Timestamp
    /// What does not change in a way that matters while one command runs is read once.
    private var systems: [RetentionFacts.System]?
    private var standings: [Label: (seal: CommitRecord.ManifestSeal, standing: ProofStanding)] = [:]

    /// `clock` tells the store's time.
    package init(
        _ cluster: ClusterRepository, interruption: Interruption,
        clock: @escaping @Sendable (ClusterRepository) throws(KedgeError) -> Timestamp = {
            (cluster) throws(KedgeError) in try StoreClock.now(in: cluster)
        }
    ) {
        self.cluster = cluster
        self.interruption = interruption
        self.clock = clock
    }

    /// What there is now. Throws where something could not be looked at: a short list would remove too much.
    package func facts() throws(KedgeError) -> RetentionFacts {
        let now = try clock(cluster)
        let running = try running(now)
        let marks = RetentionCatalog(cluster)
        let pins = try marks.pins()
        let condemned = try marks.marks(.pending)
        let removing = try marks.labels(.removing)
        let listing = try BackupCatalog(cluster).list()
        try interruption.checkpoint()
        let systems = try archived().map { system in
            var system = system
            system.archive = system.archive.knowing(
                listing.backups.filter { $0.server.systemIdentifier == system.identifier })
            return system
        }
        let proofs = listing.backups.isEmpty ? [:] : try ProofCatalog(cluster).names().proofs
        var backups: [RetentionFacts.Backup] = []
        let damage = damage(listing.backups)
        for record in listing.backups {
            let system = systems.first { $0.identifier == record.server.systemIdentifier }
            let isConsistent = system.map {
                RecoverableWindows.canBecomeConsistent(
                    record, archive: $0.archive, damage: damage[record.server.systemIdentifier] ?? [:])
            }
            backups.append(
                RetentionFacts.Backup(
                    record: record, canBecomeConsistent: isConsistent ?? false,
                    proof: try standing(of: record, proofs[record.label] ?? []), isPinned: pins.contains(record.label),
                    mark: condemned[record.label], removalHasBegun: removing.contains(record.label)))
        }
        return RetentionFacts(
            now: now, systems: systems, backups: backups, running: running, unreadable: listing.unreadable)
    }

    /// Suspect segments that commit records tell of.
    private func damage(_ backups: [CommitRecord]) -> [SystemIdentifier: [WALSegment: LSN]] {
        var damage: [SystemIdentifier: [WALSegment: LSN]] = [:]
        for backup in backups {
            for suspect in backup.health.walSuspect {
                let size = backup.server.walSegmentSize
                guard let segment = WALSegment(fileName: suspect.file, segmentSize: size) else { continue }
                damage[backup.server.systemIdentifier, default: [:]][segment] = suspect.lsn
            }
        }
        return damage
    }

    private func running(_ now: Timestamp) throws(KedgeError) -> [RetentionFacts.Running] {
        var found: [(name: ObjectName, storedAt: Timestamp)] = []
        try cluster.forEachObject(below: ClusterLayout.intents) { (name, status) throws(KedgeError) in
            found.append((name, status.modified))
        }
        let leased = try leasedLabels(now)
        var running: [RetentionFacts.Running] = []
        for (name, storedAt) in found {
            // What is not named as an intent is not one, and nobody's work depends on it.
            guard let label = Label(String(name.lastComponent)) else { continue }
            var intent: Intent?
            do throws(KedgeError) {
                let read = try BackupCatalog(cluster).intent(label)
                intent = read.label == label ? read : nil
            } catch  where error.code == .notFound {
                continue
            } catch {
                guard error.code.isAboutTheObject else { throw error }
            }
            running.append(
                RetentionFacts.Running(
                    label: label, intent: intent, storedAt: storedAt, hasLease: leased.contains(label.text)))
        }
        return running
    }

    /// What somebody works on, and said so within the hour.
    func leasedLabels(_ now: Timestamp) throws(KedgeError) -> Set<String> {
        let oldest = now.microseconds - Int64(LeaseVerdict.longestExpirySeconds) * 1_000_000
        return Set(
            try Lease.all(in: cluster).filter { $0.renewedAt.microseconds >= oldest }.compactMap { $0.record?.label })
    }

    private func archived() throws(KedgeError) -> [RetentionFacts.System] {
        if let systems { return systems }
        var found: [RetentionFacts.System] = []
        for registration in cluster.registrations {
            guard !found.contains(where: { $0.identifier == registration.systemIdentifier }) else { continue }
            let archive = WALArchive(cluster, registration)
            var inventory = WALInventory(segmentSize: registration.walSegmentSize)
            var lastStored: [TimelineID: Timestamp] = [:]
            try archive.forEachFile { (file, status) throws(KedgeError) in
                inventory.add(objectNamed: file.name.lastComponent, storedBytes: status.sizeBytes)
                let timeline = file.file.timeline
                lastStored[timeline] = max(lastStored[timeline] ?? status.modified, status.modified)
            }
            try archive.settleConflicts(of: &inventory)
            let histories = try archive.histories().read
            found.append(
                RetentionFacts.System(
                    identifier: registration.systemIdentifier,
                    archive: ArchivedWAL(inventory: inventory, histories: histories), lastStored: lastStored))
        }
        systems = found
        return found
    }

    private func standing(of record: CommitRecord, _ names: [ProofName]) throws(KedgeError) -> ProofStanding {
        if let known = standings[record.label], known.seal == record.manifest { return known.standing }
        let standing = try ProofCatalog(cluster).standing(of: record, names).standing
        standings[record.label] = (record.manifest, standing)
        return standing
    }
}

/// What time it is for a store.
package enum StoreClock {
    /// The time that the store gives to an object which is written now.
    package static func now(in cluster: ClusterRepository) throws(KedgeError) -> Timestamp {
        let store = cluster.repository.store
        let probe = cluster.name(ClusterLayout.clockProbe(RandomID(from: cluster.repository.random)))
        _ = try store.put(probe, ObjectBody([UInt8]()), .createOnly)
        let status = try store.status(of: probe)
        _ = try store.remove([probe])
        if let status { return status.modified }
        throw KedgeError(
            .repositoryUnavailable, "could not find out what time it is for \(store.location)",
            detail: "Object \"\(probe)\" was stored and is not there.",
            hint: "Run \"kedge check\": the store does not keep its promises.")
    }
}

extension WALArchive {
    /// Every archived file that lies where it belongs, with its status, in the order of a listing.
    package func forEachFile(_ body: (ArchivedFile, ObjectStatus) throws(KedgeError) -> Void) throws(KedgeError) {
        let directory = ClusterLayout.walDirectory(registration.systemIdentifier)
        try cluster.forEachObject(below: directory) { (name, status) throws(KedgeError) in
            if let file = archived(name) { try body(file, status) }
        }
    }
}

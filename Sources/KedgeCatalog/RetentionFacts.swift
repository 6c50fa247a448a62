// What a retention plan is made from: everything that was seen of a catalogue, as values.

package import KedgeCore
import KedgePostgres

/// What was seen of one cluster in one repository.
package struct RetentionFacts: Sendable {
    /// A committed backup.
    package struct Backup: Sendable {
        package var record: CommitRecord
        /// Whether all WAL is there that it needs to become consistent.
        package var canBecomeConsistent: Bool
        package var proof: ProofStanding
        package var isPinned: Bool
        /// Nil where it is not condemned.
        package var mark: MarkSeen?
        /// Whether an expire has begun to remove it, and may be at it.
        package var removalHasBegun: Bool

        package init(
            record: CommitRecord, canBecomeConsistent: Bool = true, proof: ProofStanding = ProofStanding(),
            isPinned: Bool = false, mark: MarkSeen? = nil, removalHasBegun: Bool = false
        ) {
            self.record = record
            self.canBecomeConsistent = canBecomeConsistent
            self.proof = proof
            self.isPinned = isPinned
            self.mark = mark
            self.removalHasBegun = removalHasBegun
        }
    }

    /// A backup under way, or one that died.
    package struct Running: Sendable {
        package var label: Label
        /// Nil where the intent can't be read: then nobody knows what the backup refers to.
        package var intent: Intent?
        /// When the intent was stored, by the store's clock.
        package var storedAt: Timestamp
        /// Whether a lease that is being renewed names it.
        package var hasLease: Bool

        package init(label: Label, intent: Intent?, storedAt: Timestamp, hasLease: Bool) {
            self.label = label
            self.intent = intent
            self.storedAt = storedAt
            self.hasLease = hasLease
        }
    }

    /// What is archived of one database system.
    package struct System: Sendable {
        package var identifier: SystemIdentifier
        package var archive: ArchivedWAL
        /// When the last file of each timeline was stored, by the store's clock.
        package var lastStored: [TimelineID: Timestamp]

        package init(identifier: SystemIdentifier, archive: ArchivedWAL, lastStored: [TimelineID: Timestamp]) {
            self.identifier = identifier
            self.archive = archive
            self.lastStored = lastStored
        }
    }

    /// By the store's clock.
    package var now: Timestamp
    /// In the order in which they were registered.
    package var systems: [System]
    package var backups: [Backup]
    package var running: [Running]
    /// Commit records that can't be read.
    package var unreadable: [UnreadableRecord]

    package init(
        now: Timestamp, systems: [System], backups: [Backup], running: [Running] = [],
        unreadable: [UnreadableRecord] = []
    ) {
        self.now = now
        self.systems = systems
        self.backups = backups
        self.running = running
        self.unreadable = unreadable
    }
}

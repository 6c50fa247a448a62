// What backups have to do with each other and with retention, as `info` shows it.

import KedgeCore
import KedgeRepository

/// What is known of all backups together.
struct BackupRelations {
    private let pins: Set<Label>
    private let marks: [Label: MarkSeen]
    private let removing: Set<Label>
    private let gain: RemovalGain

    /// Lists pins, marks and packs.
    init(_ backups: [CommitRecord], in cluster: ClusterRepository) throws(KedgeError) {
        let catalog = RetentionCatalog(cluster)
        pins = try catalog.pins()
        marks = try catalog.marks(.pending)
        removing = try catalog.labels(.removing)
        gain = try RemovalGain(backups, in: cluster)
    }

    func info(_ record: CommitRecord, hasItsWAL: Bool?, _ standing: ProofStanding) -> RepositoryInfo.BackupInfo {
        RepositoryInfo.BackupInfo(
            record: record, hasItsWAL: hasItsWAL, standing: standing, isPinned: pins.contains(record.label),
            condemnedAt: marks[record.label]?.storedAt, removalHasBegun: removing.contains(record.label),
            bases: gain.children(of: record.label), share: gain.share(of: record.label))
    }
}

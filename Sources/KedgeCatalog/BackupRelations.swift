// What backups have to do with each other and with retention, as `info` shows it.

import KedgeCore
import KedgeRepository

/// What is known of all backups together.
struct BackupRelations {
    private let pins: Set<Label>
    private let marks: [Label: MarkSeen]
    private var deltas: [Label: [Label]] = [:]
    private var ownBytes: [Label: UInt64] = [:]

    /// Lists pins, marks and packs.
    init(_ backups: [CommitRecord], in cluster: ClusterRepository) throws(KedgeError) {
        let catalog = RetentionCatalog(cluster)
        pins = try catalog.pins()
        marks = try catalog.marks(.pending)
        for backup in backups {
            if let parent = backup.parent { deltas[parent, default: []].append(backup.label) }
        }
        var owners: [ObjectName: Label] = [:]
        var shared: Set<ObjectName> = []
        for backup in backups {
            for pack in backup.packs {
                let name = ClusterLayout.pack(pack.id)
                if owners.updateValue(backup.label, forKey: name) != nil { shared.insert(name) }
            }
        }
        guard !owners.isEmpty else { return }
        var sizes: [Label: UInt64] = [:]
        try cluster.forEachObject(below: ClusterLayout.packs) { (name, status) throws(KedgeError) in
            guard let owner = owners[name], !shared.contains(name) else { return }
            sizes[owner] = (sizes[owner] ?? 0) &+ status.sizeBytes
        }
        ownBytes = sizes
    }

    func info(_ record: CommitRecord, hasItsWAL: Bool?, _ standing: ProofStanding) -> RepositoryInfo.BackupInfo {
        RepositoryInfo.BackupInfo(
            record: record, hasItsWAL: hasItsWAL, standing: standing, isPinned: pins.contains(record.label),
            condemnedAt: marks[record.label]?.storedAt, bases: deltas[record.label] ?? [],
            ownBytes: ownBytes[record.label] ?? 0)
    }
}

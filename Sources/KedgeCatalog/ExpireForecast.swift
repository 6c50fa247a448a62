// What a dry run of `expire` says would be freed.

import KedgeCore
import KedgePostgres
import KedgeRepository

/// What would be freed by what a plan removes, once its grace period is over.
package struct ExpireForecast: Sendable {
    /// Of each backup, kept ones too.
    package let shares: [Label: RemovalGain.Share]
    /// Of all that the plan removes.
    package let freed: RemovalGain.Freed
    /// WAL that the kept backups do not need.
    package internal(set) var walFiles = 0
    package internal(set) var walBytes: UInt64 = 0

    /// Lists packs and, where some may go, WAL.
    init(
        _ facts: RetentionFacts, _ plan: RetentionPlan, in cluster: ClusterRepository, _ interruption: Interruption
    ) throws(KedgeError) {
        let records = facts.backups.map(\.record)
        let gain = try RemovalGain(records, in: cluster)
        shares = Dictionary(
            records.map { ($0.label, gain.share(of: $0.label)) }, uniquingKeysWith: { first, _ in first })
        freed = gain.freed(removing: Set(plan.removed.map(\.label)))
        guard !plan.removed.isEmpty else { return }
        for system in facts.systems {
            try interruption.checkpoint()
            guard let wal = plan.wal(of: system.identifier, facts, isRemoved: { !$0.isKept }) else { continue }
            let archive = WALArchive(cluster, try cluster.registration(of: system.identifier))
            var found: (files: Int, bytes: UInt64) = (0, 0)
            try archive.forEachFile { (file, status) throws(KedgeError) in
                let size = archive.registration.walSegmentSize
                guard let segment = ExpireSweep.segment(file.file, size), !wal.keeps(segment) else { return }
                found.files += 1
                found.bytes &+= status.sizeBytes
            }
            walFiles += found.files
            walBytes &+= found.bytes
        }
    }
}

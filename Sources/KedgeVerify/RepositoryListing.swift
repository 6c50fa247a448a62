// What a cluster's part of a repository holds, by name. One pass over all names; memory follows packs and records, and
// is 8 bytes for each WAL segment.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository

/// The names of a cluster's objects, sorted by what they are. Names are relative to the cluster.
struct RepositoryListing {
    /// With their sizes as stored.
    private(set) var packs: [RandomID: UInt64] = [:]
    /// Labels with a manifest.
    private(set) var manifests: [Label] = []
    private(set) var proofs: [ProofName] = []
    private(set) var intents: [Label] = []
    /// Sealed records that only their own commands understand.
    private(set) var otherRecords: [(kind: ObjectKind, name: ObjectName)] = []
    /// Of whole segments.
    private(set) var walSizes: [SystemIdentifier: WALSizes] = [:]
    /// `.history` and `.backup` files.
    private(set) var historyFiles: [(system: SystemIdentifier, file: ArchivedFile)] = []
    /// What no kind of object is called; at most 1000 are kept.
    private(set) var strangers: [ObjectName] = []
    private(set) var strangerCount = 0

    /// Throws what listing throws.
    init(_ cluster: ClusterRepository, interruption: Interruption) throws(KedgeError) {
        let store = cluster.repository.store
        guard let directory = ObjectName(cluster.clusterName) else { return }
        var count = 0
        try store.forEachObject(below: directory) { (entry) throws(KedgeError) in
            count += 1
            if count % 1000 == 0 { try interruption.checkpoint() }
            guard let name = ObjectName(entry.name.text.dropFirst(directory.text.utf8.count + 1)),
                note(name, entry.status, cluster)
            else {
                strangerCount += 1
                if strangers.count < VerifyFinding.limit { strangers.append(entry.name) }
                return
            }
        }
    }

    /// Returns whether the name means something.
    private mutating func note(_ name: ObjectName, _ status: ObjectStatus, _ cluster: ClusterRepository) -> Bool {
        let parts = name.components.map { String($0) }
        switch (parts[0], parts.count) {
        case ("pack", 3):
            guard let id = RandomID(hex: parts[2]), ClusterLayout.pack(id) == name else { return false }
            packs[id] = status.sizeBytes
        case ("backup", 3):
            guard let label = Label(parts[1]), parts[2] == "manifest" else { return false }
            manifests.append(label)
        case ("catalog", 3...): return noteRecord(name, parts)
        case ("wal", 4...): return noteWAL(name, parts, status, cluster)
        case ("system", 2): return SystemIdentifier(parts[1]).map(ClusterLayout.registration) == name
        case ("lease", 2): otherRecords.append((.lease, name))
        case ("probe", 3...), ("digest", 2...): break
        default: return false
        }
        return true
    }

    private mutating func noteRecord(_ name: ObjectName, _ parts: [String]) -> Bool {
        if parts[1] == "gap", parts.count == 4 {
            guard SystemIdentifier(parts[2]) != nil else { return false }
            otherRecords.append((.gap, name))
            return true
        }
        guard let label = Label(parts[2]) else { return false }
        switch (parts[1], parts.count) {
        case ("backup", 3): break
        case ("intent", 3): intents.append(label)
        case ("condemned", 3), ("removing", 3): otherRecords.append((.condemned, name))
        case ("pin", 3): otherRecords.append((.pin, name))
        case ("proof", 4):
            guard let proof = ProofName(label: label, parts[3]) else { return false }
            proofs.append(proof)
        default: return false
        }
        return true
    }

    private mutating func noteWAL(
        _ name: ObjectName, _ parts: [String], _ status: ObjectStatus, _ cluster: ClusterRepository
    ) -> Bool {
        if parts[2] == "index" { return true }
        guard let system = SystemIdentifier(parts[1]), let (file, tag) = ClusterLayout.parseWALFile(name.lastComponent),
            ClusterLayout.walFile(file, of: system, tag: tag) == name
        else { return false }
        switch file {
        case .history, .backup: historyFiles.append((system, ArchivedFile(file: file, name: name, tag: tag)))
        case .segment(let text):
            let size = cluster.registrations.first { $0.systemIdentifier == system }?.walSegmentSize
            if let segment = size.flatMap({ WALSegment(fileName: text, segmentSize: $0) }) {
                walSizes[system, default: WALSizes()].add(segment, bytes: status.sizeBytes)
            }
        case .partial: break
        }
        return true
    }
}

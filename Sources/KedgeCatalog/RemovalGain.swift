// What removing backups would free: their manifests, and the packs that no other backup refers to. Pure.
//
// A delta refers to packs of the backups before it and cannot be without them, so a backup goes together with all
// deltas that build on it. What that frees is more than what each of them has for itself: packs that only they share.

import KedgeCore
package import KedgeRepository

/// What there is to free.
package struct RemovalGain: Sendable {
    /// What the removal of one backup frees, without WAL.
    package struct Share: Hashable, Sendable {
        /// The deltas that go with it: those that were taken from it, from these, and so on, in the order of labels.
        package let dependents: [Label]
        /// Its own manifest, and the packs that no other backup refers to, a dependent neither.
        package let ownBytes: UInt64
        /// With its dependents.
        package let bytes: UInt64
    }

    /// What a removal frees, without WAL.
    package struct Freed: Hashable, Sendable {
        package var packs = 0
        /// Of packs and manifests, as stored.
        package var bytes: UInt64 = 0
    }

    private let backups: [Label: CommitRecord]
    private let deltas: [Label: [Label]]
    private let referrers: [ObjectName: [Label]]
    private let packBytes: [ObjectName: UInt64]

    /// `packBytes`: what each pack occupies; one that is missing counts nothing.
    package init(_ backups: [CommitRecord], packBytes: [ObjectName: UInt64]) {
        var deltas: [Label: [Label]] = [:]
        var referrers: [ObjectName: [Label]] = [:]
        for backup in backups {
            if let parent = backup.parent { deltas[parent, default: []].append(backup.label) }
            for name in Set(backup.packs.map { ClusterLayout.pack($0.id) }) {
                referrers[name, default: []].append(backup.label)
            }
        }
        self.backups = Dictionary(backups.map { ($0.label, $0) }, uniquingKeysWith: { first, _ in first })
        self.deltas = deltas
        self.referrers = referrers
        self.packBytes = packBytes
    }

    /// The deltas that were taken from this backup itself.
    package func children(of label: Label) -> [Label] { deltas[label] ?? [] }

    /// What the removal of this backup frees.
    package func share(of label: Label) -> Share {
        var all: Set<Label> = [label]
        var left = children(of: label)
        while let next = left.popLast() {
            // Records come from the repository: one that is its own ancestor must not keep us here.
            if all.insert(next).inserted { left += children(of: next) }
        }
        let own = freed(removing: [label]).bytes
        return Share(
            dependents: all.subtracting([label]).sorted(), ownBytes: own,
            bytes: all.count == 1 ? own : freed(removing: all).bytes)
    }

    /// What the removal of exactly these backups frees.
    package func freed(removing labels: Set<Label>) -> Freed {
        var freed = Freed()
        var seen: Set<ObjectName> = []
        for label in labels {
            guard let backup = backups[label] else { continue }
            freed.bytes &+= backup.manifest.length
            for pack in backup.packs {
                let name = ClusterLayout.pack(pack.id)
                guard seen.insert(name).inserted, let bytes = packBytes[name],
                    referrers[name]?.allSatisfy(labels.contains) == true
                else { continue }
                freed.packs += 1
                freed.bytes &+= bytes
            }
        }
        return freed
    }
}

extension RemovalGain {
    /// Lists the packs of a cluster, if any backup refers to one.
    init(_ backups: [CommitRecord], in cluster: ClusterRepository) throws(KedgeError) {
        var sizes: [ObjectName: UInt64] = [:]
        if backups.contains(where: { !$0.packs.isEmpty }) {
            let referred = Set(backups.flatMap { $0.packs.map { ClusterLayout.pack($0.id) } })
            try cluster.forEachObject(below: ClusterLayout.packs) { (name, status) throws(KedgeError) in
                if referred.contains(name) { sizes[name] = status.sizeBytes }
            }
        }
        self.init(backups, packBytes: sizes)
    }
}

// Where everything is: the only code that builds or parses the names of objects (Catalog/FORMAT.md section 1).
//
// Names of a cluster's objects come in two forms. The *relative* name lies below the cluster's directory; it is what an
// object's seal is bound to. The full name has the cluster's name in front. This file makes relative names;
// `ClusterRepository` adds the rest.

package import KedgeCore

/// Names of the objects that belong to no cluster.
package enum RepositoryLayout {
    /// What makes a directory or a bucket a repository.
    package static let marker: ObjectName = "kedge.json"
    /// The directory of features.
    package static let features: ObjectName = "feature"
    /// The directory of key slots, by key.
    package static let keys: ObjectName = "key"

    /// Whether an object is written once and stays as long as a backup or WAL does. The others come and go: leases,
    /// intents, marks, pins, probes.
    package static func isPermanent(_ name: ObjectName) -> Bool {
        let parts = name.components
        if name == marker || name.isBelow(keys) || name.isBelow(features) { return true }
        guard parts.count > 2 else { return false }
        switch parts[1] {
        case "system", "wal", "pack", "backup": return true
        case "catalog": return parts[2] == "backup" || parts[2] == "proof"
        default: return false
        }
    }

    /// One key slot. `slot` is 16 lower-case hexadecimal digits.
    package static func keySlot(key: RandomID, slot: String) -> ObjectName? {
        ObjectName("\(keys)/\(key.hex)/\(slot)")
    }

    /// The cluster's directory. Nil where the name can't be that of a cluster.
    package static func cluster(_ name: String) -> ObjectName? {
        guard let directory = ObjectName(name), directory.components.count == 1,
            ![marker, features, keys].contains(directory), !name.hasPrefix(".")
        else { return nil }
        return directory
    }
}

/// Relative names of a cluster's objects.
package enum ClusterLayout {
    /// The directory of registrations.
    package static let registrations: ObjectName = "system"
    /// The directory of archived WAL, by system identifier.
    package static let wal: ObjectName = "wal"
    /// The directory of packs.
    package static let packs: ObjectName = "pack"
    /// The directory of commit records.
    package static let commitRecords: ObjectName = "catalog/backup"
    /// The directory of intents.
    package static let intents: ObjectName = "catalog/intent"
    /// The directory of marks on backups that are about to be removed.
    package static let condemned: ObjectName = "catalog/condemned"
    /// The directory of marks on backups whose removal has begun.
    package static let removing: ObjectName = "catalog/removing"
    /// The directory of pins.
    package static let pins: ObjectName = "catalog/pin"
    /// The directory of gaps in the WAL that somebody knows of, by system identifier.
    package static let gaps: ObjectName = "catalog/gap"
    /// The directory of manifests, by the label of the backup.
    package static let manifests: ObjectName = "backup"
    /// The directory of proofs, by the label of the backup.
    package static let proofs: ObjectName = "catalog/proof"
    /// The directory of what is written to try a store or to ask its clock, and removed again.
    package static let probes: ObjectName = "probe"

    /// The directory of leases.
    package static let leases: ObjectName = "lease"

    /// The lease for one kind of work. Nil where that is no component of a name.
    package static func lease(_ operation: String) -> ObjectName? {
        guard let name = leases.appending(operation), name.components.count == 2 else { return nil }
        return name
    }

    /// A throwaway object that tells the store's time.
    package static func clockProbe(_ id: RandomID) -> ObjectName { known("probe/\(id.hex)/clock") }

    /// The registration of one database system.
    package static func registration(_ system: SystemIdentifier) -> ObjectName { known("system/\(system)") }

    /// The archived WAL of one database system.
    package static func walDirectory(_ system: SystemIdentifier) -> ObjectName { known("wal/\(system)") }

    /// The archived segments of one timeline.
    package static func walDirectory(_ system: SystemIdentifier, timeline: TimelineID) -> ObjectName {
        known("wal/\(system)/\(timeline.hex)")
    }

    /// The archived timeline history and backup history files.
    package static func historyDirectory(_ system: SystemIdentifier) -> ObjectName { known("wal/\(system)/history") }

    /// An archived WAL file. Partial segments always carry their content tag in the name; segments do where the store
    /// can't decide who came first.
    package static func walFile(_ file: WALFileName, of system: SystemIdentifier, tag: ContentHash?) -> ObjectName {
        let suffix = tag.map { "-" + $0.hex } ?? ""
        switch file {
        case .history, .backup: return known("wal/\(system)/history/\(file.text)")
        case .segment(let name), .partial(let name):
            let log = name.dropFirst(8).prefix(8)
            return known("wal/\(system)/\(file.timeline.hex)/\(log)/\(name)\(suffix)")
        }
    }

    /// The directory that holds the object of this segment or partial segment.
    package static func logDirectory(of file: WALFileName, _ system: SystemIdentifier) -> ObjectName {
        known("wal/\(system)/\(file.timeline.hex)/\(file.text.dropFirst(8).prefix(8))")
    }

    /// Where a listing of the log directory has to begin, so that the objects of this segment or partial segment come
    /// first, whatever their names carry: behind those of the one before it. No object has this name.
    package static func position(before file: WALFileName, of system: SystemIdentifier) -> ObjectName {
        var bytes = Array(file.text.utf8)
        let last = bytes.removeLast()
        // The next lower character that a name may have; "z" is behind what follows the name in objects of the other.
        bytes.append(last == 0x30 ? 0x2E : last == 0x41 ? 0x39 : last - 1)
        return known("\(logDirectory(of: file, system))/\(String(decoding: bytes, as: UTF8.self))zz")
    }

    /// The WAL file and content tag that the last component of an object's name stands for. Nil for a stranger.
    package static func parseWALFile(_ lastComponent: some StringProtocol) -> (file: WALFileName, tag: ContentHash?)? {
        let text = String(lastComponent)
        if let dash = text.lastIndex(of: "-") {
            guard let tag = ContentHash(hex: text[text.index(after: dash)...]),
                let file = WALFileName(String(text[..<dash]))
            else { return nil }
            return (file, tag)
        }
        return WALFileName(text).map { ($0, nil) }
    }

    /// A pack.
    package static func pack(_ id: RandomID) -> ObjectName { known("pack/\(id.hex.prefix(2))/\(id.hex)") }

    /// The root of a backup's manifest.
    package static func manifest(label: String) -> ObjectName? { ObjectName("backup/\(label)/manifest") }

    /// A backup's commit record.
    package static func commitRecord(label: String) -> ObjectName? { commitRecords.appending(label) }

    /// The intent of a backup under way.
    package static func intent(label: String) -> ObjectName? { intents.appending(label) }
}

/// A name that is made of parts that are valid by their types.
private func known(_ text: String) -> ObjectName {
    guard let name = ObjectName(text) else { preconditionFailure("\"\(text)\" is no object name") }
    return name
}

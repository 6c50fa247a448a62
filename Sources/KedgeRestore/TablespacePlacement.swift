// Where each tablespace goes. Pure: paths are compared as bytes, never looked up.
//
// 1. A tablespace goes where it was mapped, else to its recorded path.
// 2. No two directories of a restore may be the same or lie in each other; "/data2" does not lie in "/data" (lesson
//    31).
// 3. What WAL replay will create is made at its recorded path by the server itself: it can't be mapped.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// A tablespace of the backup and its directory in the restored cluster.
package struct TablespacePlacement: Hashable, Sendable {
    package let oid: UInt32
    package let recorded: RawPath
    package let target: RawPath

    package init(oid: UInt32, recorded: RawPath, target: RawPath) {
        self.oid = oid
        self.recorded = recorded
        self.target = target
    }

    package var isMapped: Bool { recorded != target }

    /// Decides for each tablespace of `backup` that is not in place. Throws `usage` for a mapping that cannot be
    /// followed.
    package static func decide(
        _ tablespaces: [CommitRecord.Tablespace], created: [CreatedTablespace], mapping: [UInt32: RawPath],
        pgdata: RawPath
    ) throws(KedgeError) -> [TablespacePlacement] {
        let linked = tablespaces.filter { !$0.inPlace }
        for oid in mapping.keys.sorted() where !linked.contains(where: { $0.oid == oid }) {
            throw unknown(oid, linked, created)
        }
        var placements: [TablespacePlacement] = []
        for tablespace in linked.sorted(by: { $0.oid < $1.oid }) {
            let recorded = RawPath(tablespace.path)
            let target = mapping[tablespace.oid] ?? recorded
            guard target.isAbsolute else {
                throw KedgeError(
                    .usage, "cannot restore tablespace \(tablespace.oid) into \"\(target)\"",
                    detail: "The path of a tablespace is absolute.", hint: "Give the whole path, beginning with \"/\".")
            }
            placements.append(TablespacePlacement(oid: tablespace.oid, recorded: recorded, target: target))
        }
        try refuseOverlaps(placements, pgdata)
        return placements
    }

    private static func unknown(
        _ oid: UInt32, _ linked: [CommitRecord.Tablespace], _ created: [CreatedTablespace]
    ) -> KedgeError {
        if let tablespace = created.first(where: { $0.oid == oid }) {
            return KedgeError(
                .usage, "cannot map tablespace \(oid): it was created after the backup",
                detail: "Recovery will create it at \"\(tablespace.path)\", the path that is in the WAL.",
                hint: "Leave out its mapping; for a mapped restore make a new backup, or recover to a point before LSN "
                    + "\(tablespace.lsn).")
        }
        let known = linked.map { "\($0.oid) (\($0.path))" }.joined(separator: ", ")
        return KedgeError(
            .usage, "cannot map tablespace \(oid): the backup has no such tablespace",
            detail: known.isEmpty ? "It has none outside the data directory." : "It has: \(known).",
            hint: "Give the number that pg_tablespace shows as oid.")
    }

    private static func refuseOverlaps(_ placements: [TablespacePlacement], _ pgdata: RawPath) throws(KedgeError) {
        let places = [("the data directory", pgdata)] + placements.map { ("tablespace \($0.oid)", $0.target) }
        for (index, (name, path)) in places.enumerated() {
            for (otherName, other) in places[..<index] where path.isAtOrBelow(other) || other.isAtOrBelow(path) {
                throw KedgeError(
                    .usage, "cannot restore \(name) into \"\(path)\"",
                    detail: "That overlaps with \"\(other)\", where \(otherName) goes.",
                    hint: "Map it to a directory of its own with \"--tablespace OID=DIR\".")
            }
        }
    }
}

extension RawPath {
    /// Whether this is `directory` or lies below it, by its name.
    fileprivate func isAtOrBelow(_ directory: RawPath) -> Bool {
        let own = bytes.split(separator: 0x2F)
        let other = directory.bytes.split(separator: 0x2F)
        return own.starts(with: other, by: ==)
    }
}

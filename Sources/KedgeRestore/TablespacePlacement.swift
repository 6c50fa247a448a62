// Where each tablespace goes. Pure: what paths lead to comes in as an argument.
//
// 1. A tablespace goes where it was mapped, else to its recorded path.
// 2. What is mapped has a directory of its own: not the same as another, nor one in the other. What goes to its
//    recorded path may lie as the original had it: a tablespace in the directory of another, but never among the
//    other's files. "/data2" does not lie in "/data" (lesson 31). Nothing goes into the data directory.
// 3. What WAL replay will create is made at its recorded path by the server itself, which also leads its link there: it
//    can't be mapped, even if the backup holds it, because it was created while the backup was taken
//    (src/backend/commands/tablespace.c, create_tablespace_directories).

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
}

/// Decides for all tablespaces of one restore.
package struct TablespacePlacer {
    package let pgdata: RawPath
    /// Whether that is the directory that the configuration names.
    package let isConfigured: Bool
    /// `PG_15_202209061`: the directory of this version in each tablespace (GetTablespaceVersionDirectory).
    package let versionDirectory: String
    /// The path that a path leads to, without links as far as it exists.
    package let resolve: (RawPath) throws(KedgeError) -> RawPath

    package init(
        pgdata: RawPath, isConfigured: Bool, versionDirectory: String,
        resolve: @escaping (RawPath) throws(KedgeError) -> RawPath
    ) {
        self.pgdata = pgdata
        self.isConfigured = isConfigured
        self.versionDirectory = versionDirectory
        self.resolve = resolve
    }

    /// Decides for each of `tablespaces` that is not in place. `created` is what replay will create. Throws `usage` for
    /// a mapping that cannot be followed, and what looking throws.
    package func decide(
        _ tablespaces: [CommitRecord.Tablespace], created: [CreatedTablespace], mapping: [UInt32: RawPath]
    ) throws(KedgeError) -> [TablespacePlacement] {
        let linked = tablespaces.filter { !$0.inPlace }
        for oid in mapping.keys.sorted() where !linked.contains(where: { $0.oid == oid }) {
            throw unknown(oid, linked, created)
        }
        var placements: [TablespacePlacement] = []
        for tablespace in linked.sorted(by: { $0.oid < $1.oid }) {
            let target = mapping[tablespace.oid] ?? tablespace.path
            guard mapping[tablespace.oid] != nil || tablespace.path.isSafeAbsolute else {
                throw KedgeError(
                    .unsafePath, "cannot restore tablespace \(tablespace.oid) into \"\(tablespace.path)\"",
                    detail: "That is its path in the commit record, and it is not one that leads where it seems to.",
                    hint: "Give a directory for it with \"--tablespace \(tablespace.oid)=DIR\".")
            }
            guard target.isAbsolute else {
                throw KedgeError(
                    .usage, "cannot restore tablespace \(tablespace.oid) into \"\(target)\"",
                    detail: "The path of a tablespace is absolute.", hint: "Give the whole path, beginning with \"/\".")
            }
            if let again = created.first(where: { $0.oid == tablespace.oid }), again.path != target {
                throw createdAgain(again)
            }
            placements.append(TablespacePlacement(oid: tablespace.oid, recorded: tablespace.path, target: target))
        }
        try refuseOverlaps(placements, created)
        return placements
    }

    private func unknown(
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

    private func createdAgain(_ tablespace: CreatedTablespace) -> KedgeError {
        KedgeError(
            .usage, "cannot map tablespace \(tablespace.oid): it was created while the backup was taken",
            detail: "Recovery creates it again at \"\(tablespace.path)\", the path that is in the WAL, and would write "
                + "there.",
            hint: "Restore another backup, or leave out its mapping where that path is not in use.")
    }

    // MARK: - Overlaps

    private func refuseOverlaps(
        _ placements: [TablespacePlacement], _ created: [CreatedTablespace]
    ) throws(KedgeError) {
        let data = try resolve(pgdata)
        var before: [(placement: TablespacePlacement, path: RawPath)] = []
        for placement in placements {
            let path = try resolve(placement.target)
            // The configured directory may lie in that of a tablespace, as it did.
            let mayHold = isConfigured && !placement.isMapped
            if path.isAtOrBelow(data) || overlap(data, path, mayNest: mayHold) {
                throw refusal("tablespace \(placement.oid)", placement.target, pgdata, "the data directory")
            }
            for (other, otherPath) in before
            where overlap(path, otherPath, mayNest: !placement.isMapped && !other.isMapped) {
                throw refusal(
                    "tablespace \(placement.oid)", placement.target, other.target, "tablespace \(other.oid)")
            }
            before.append((placement, path))
        }
        for tablespace in created where tablespace.path.isAbsolute {
            let path = try resolve(tablespace.path)
            if path.isAtOrBelow(data) { throw replayWould(write: tablespace, into: "the data directory") }
            // Where it follows one that was dropped the paths are the same; a mapped one has nothing to do with it.
            for (other, otherPath) in before where other.isMapped && overlap(path, otherPath, mayNest: true) {
                throw replayWould(write: tablespace, into: "the directory of tablespace \(other.oid)")
            }
        }
    }

    /// Whether two directories get into each other's way. `mayNest`: one may lie in the other, beside its files.
    private func overlap(_ one: RawPath, _ two: RawPath, mayNest: Bool) -> Bool {
        guard one.overlaps(two) else { return false }
        guard mayNest, one != two else { return true }
        return one.isAtOrBelow(two.appending(versionDirectory)) || two.isAtOrBelow(one.appending(versionDirectory))
    }

    private func refusal(_ name: String, _ path: RawPath, _ other: RawPath, _ otherName: String) -> KedgeError {
        KedgeError(
            .usage, "cannot restore \(name) into \"\(path)\"",
            detail: "That overlaps with \"\(other)\", where \(otherName) goes.",
            hint: "Map it to a directory of its own with \"--tablespace OID=DIR\".")
    }

    private func replayWould(write tablespace: CreatedTablespace, into place: String) -> KedgeError {
        KedgeError(
            .usage, "cannot restore: recovery would create tablespace \(tablespace.oid) in \(place)",
            detail: "It was created after the backup, at LSN \(tablespace.lsn), in \"\(tablespace.path)\".",
            hint: "Restore into another place, or recover to a point before the tablespace was created.")
    }
}

extension RawPath {
    /// Whether one of the two is the other or lies below it, by their names.
    func overlaps(_ other: RawPath) -> Bool { isAtOrBelow(other) || other.isAtOrBelow(self) }

    /// Whether this path, which comes out of a repository, leads where it seems to: absolute, without `.`, `..` and
    /// zero bytes.
    var isSafeAbsolute: Bool {
        isAbsolute && !bytes.contains(0)
            && !bytes.split(separator: 0x2F).contains { $0.elementsEqual([0x2E]) || $0.elementsEqual([0x2E, 0x2E]) }
    }

    /// Whether this is `directory` or lies below it, by its name.
    fileprivate func isAtOrBelow(_ directory: RawPath) -> Bool {
        let own = bytes.split(separator: 0x2F)
        let other = directory.bytes.split(separator: 0x2F)
        return own.starts(with: other, by: ==)
    }
}

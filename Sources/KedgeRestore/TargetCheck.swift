// May we write there? Everything that can be found out about the target before the first byte.
//
// Nothing is ever written over: a directory is absent or empty. With --delta it may also be what DeltaTarget accepts.
// What belongs to a living cluster is never touched.

import Glibc
package import KedgeCore
package import KedgePostgres

/// The checks of a restore's directories.
package struct TargetCheck {
    package let pgdata: RawPath
    /// Whether that is the directory that the configuration names.
    package let isConfigured: Bool
    /// Where `pg_wal` will lead, if it is not to be a plain directory.
    package let walDirectory: RawPath?
    package let placements: [TablespacePlacement]
    /// What recovery will create.
    package let created: [CreatedTablespace]
    /// `PG_15_202209061`: the directory of this version in each tablespace (GetTablespaceVersionDirectory).
    package let versionDirectory: String
    /// With --delta: what may be changed.
    package let delta: DeltaPermission?
    /// Where the pg_wal of the backed-up server led.
    package let originalWALDirectory: RawPath?

    package init(
        pgdata: RawPath, isConfigured: Bool, walDirectory: RawPath? = nil, placements: [TablespacePlacement],
        created: [CreatedTablespace], versionDirectory: String, delta: DeltaPermission? = nil,
        originalWALDirectory: RawPath? = nil
    ) {
        self.pgdata = pgdata
        self.isConfigured = isConfigured
        self.walDirectory = walDirectory
        self.placements = placements
        self.created = created
        self.versionDirectory = versionDirectory
        self.delta = delta
        self.originalWALDirectory = originalWALDirectory
    }

    /// Throws `usage` for directories that lie where they must not, `server-running`, `not-empty`, `permission` or what
    /// looking throws. Returns what a restore with --delta may change; nil where there is nothing yet.
    @discardableResult
    package func run() throws(KedgeError) -> DeltaGrant? {
        for path in [pgdata] + placements.map(\.target) + [walDirectory].compactMap(\.self) + created.map(\.path) {
            try refuseDanglingLink(path)
        }
        try refuseOtherClusters()
        let target = try checkDataDirectory()
        try checkWALDirectory(target)
        for placement in placements { try check(placement, target) }
        var grant = DeltaGrant()
        for tablespace in created where !tablespace.path.bytes.isEmpty {
            try requireSafe(tablespace)
            if try check(tablespace, target) { grant.obsolete.append(tablespace.path) }
        }
        guard let target else { return nil }
        let kept = Set(try (placements.map(\.target) + grant.obsolete).map(FileSystem.resolved))
        grant.abandoned = Set(target.tablespaceLinks.values).subtracting(kept).sorted()
        return grant
    }

    /// The path comes out of the WAL. The server accepts none that is not absolute, and makes it canonical
    /// (src/backend/commands/tablespace.c, CreateTableSpace).
    private func requireSafe(_ tablespace: CreatedTablespace) throws(KedgeError) {
        guard !tablespace.path.isSafeAbsolute else { return }
        throw KedgeError(
            .unsafePath, "cannot restore: recovery would create tablespace \(tablespace.oid) at \"\(tablespace.path)\"",
            detail: "That is not an absolute path without \"..\": no server has written it into its WAL.",
            hint: "Somebody may have tampered with the repository.  Restore from another repository or backup.")
    }

    /// The entries of a directory; nil where nothing is there.
    private func entries(_ path: RawPath) throws(KedgeError) -> [DirectoryEntry]? {
        do throws(KedgeError) {
            return try Directory.entries(at: path)
        } catch  where error.code == .notFound {
            return nil
        }
    }

    /// Throws `not-found` where the path, or one on the way to it, is a link to what is not there: no directory can be
    /// made by that name.
    private func refuseDanglingLink(_ path: RawPath) throws(KedgeError) {
        var present = path
        while present.isAbsolute, try !exists(present, followLinks: true) {
            guard try !exists(present, followLinks: false) else {
                throw KedgeError(
                    .notFound, "cannot restore into directory \"\(path)\"",
                    detail: "\"\(present)\" is a link that leads nowhere.",
                    hint: "Mount or make what it leads to, or restore into another directory with \"--pgdata\" or "
                        + "\"--tablespace\".")
            }
            present = present.parent
        }
    }

    /// Throws `usage` where a directory lies in a cluster that is there already.
    ///
    /// The data directory and that of the WAL may be such themselves: of them the checks below tell whose they are.
    private func refuseOtherClusters() throws(KedgeError) {
        var places = [(what: "the data directory", path: pgdata, orIs: false, option: "--pgdata DIR")]
        if let walDirectory { places.append(("pg_wal", walDirectory, false, "--waldir DIR")) }
        for placement in placements {
            places.append(
                ("tablespace \(placement.oid)", placement.target, true, "--tablespace \(placement.oid)=DIR"))
        }
        for tablespace in created where tablespace.path.isSafeAbsolute {
            places.append(("tablespace \(tablespace.oid), which recovery creates,", tablespace.path, true, ""))
        }
        for place in places {
            let path = try FileSystem.resolved(place.path)
            let found = try EnclosingCluster.find(around: path, orIs: place.orIs) { (path) throws(KedgeError) in
                try exists(path, followLinks: false)
            }
            guard let found else { continue }
            throw KedgeError(
                .usage, "cannot restore: \(place.what) would go to \"\(place.path)\", into another cluster",
                detail: (path == place.path ? "" : "It leads to \"\(path)\".  ") + found.sentence,
                hint: place.option.isEmpty
                    ? "Restore on another host, or recover to a point before the tablespace was created."
                    : "Name a directory outside of every cluster with \"\(place.option)\".")
        }
    }

    private func exists(_ path: RawPath, followLinks: Bool) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            _ = try FileStatus(at: path, followLinks: followLinks)
            return true
        } catch  where error.code == .notFound {
            return false
        }
    }

    /// Returns what a restore with --delta finds; nil where there is nothing.
    private func checkDataDirectory() throws(KedgeError) -> DeltaTarget? {
        guard let entries = try entries(pgdata), !entries.isEmpty else { return nil }
        if let delta {
            try DeltaTarget.requireStopped(pgdata)
            let target = try DeltaTarget(pgdata)
            try delta.require(target.facts)
            try DeltaOwner.requireRights(pgdata)
            return target
        }
        if entries.contains(where: { $0.name == "postmaster.pid" }), let process = try runningServer() {
            throw KedgeError(
                .serverRunning, "cannot restore into directory \"\(pgdata)\": a server runs there",
                detail: "Its postmaster.pid names process \(process), which is alive.",
                hint: "Stop that server and move its directory away, or restore into another with \"--pgdata\".")
        }
        throw KedgeError(
            .notEmpty, "cannot restore into directory \"\(pgdata)\": it is not empty",
            detail: "It holds \"\(entries[0].name)\"" + (entries.count > 1 ? " and \(entries.count - 1) more." : "."),
            hint: "Move what is there away, or restore into another directory with \"--pgdata\"."
                + (entries.contains { $0.name == RestoreMarker.name }
                    ? "  A restore that was interrupted goes on with \"--delta\"." : ""))
    }

    /// The WAL of another cluster must never be found there.
    private func checkWALDirectory(_ target: DeltaTarget?) throws(KedgeError) {
        guard let directory = walDirectory else {
            guard let link = target?.walLink else { return }
            throw KedgeError(
                .usage, "cannot restore into directory \"\(pgdata)\": its pg_wal is a link to \"\(link)\"",
                detail: "Nobody has said whether it is to stay one.",
                hint: isConfigured || link != originalWALDirectory
                    ? "Keep it with \"--waldir \(link)\", or remove the link for a plain pg_wal."
                    : "That is where the original keeps its WAL.  Remove the link, or name another directory with "
                        + "\"--waldir\".")
        }
        let places =
            [(pgdata, "the data directory")] + placements.map { ($0.target, "tablespace \($0.oid)") }
            + created.filter(\.path.isSafeAbsolute).map { ($0.path, "tablespace \($0.oid), which recovery creates,") }
        let own = try FileSystem.resolved(directory)
        for (other, name) in places where try own.overlaps(FileSystem.resolved(other)) {
            throw KedgeError(
                .usage, "cannot let pg_wal lead to \"\(directory)\"",
                detail: "That overlaps with \"\(other)\", where \(name) goes.",
                hint: "Name a directory of its own with \"--waldir\", or leave that out for a plain pg_wal.")
        }
        guard let entries = try entries(directory), !entries.isEmpty else { return }
        if let target, try target.owns(walDirectory: directory, isConfigured, original: originalWALDirectory),
            entries.allSatisfy(DeltaTarget.isOfWAL)
        {
            return
        }
        throw KedgeError(
            .notEmpty, "cannot let pg_wal lead to directory \"\(directory)\": it is not empty",
            detail: "It holds \"\(entries[0].name)\"" + (entries.count > 1 ? " and \(entries.count - 1) more." : "."),
            hint: "Move what is there away, or name another directory with \"--waldir\".")
    }

    /// The process that postmaster.pid names, if it lives (src/backend/utils/init/miscinit.c, CreateLockFile).
    private func runningServer() throws(KedgeError) -> Int32? {
        let file = try FileDescriptor.open(pgdata.appending("postmaster.pid"), [.read])
        let text = String(decoding: try file.read(count: 64, at: 0), as: UTF8.self)
        guard let line = text.split(separator: "\n").first, let process = Int32(line), process > 0 else { return nil }
        return kill(process, 0) == 0 || errno == EPERM ? process : nil
    }

    private func check(_ placement: TablespacePlacement, _ target: DeltaTarget?) throws(KedgeError) {
        guard let entries = try entries(placement.target), !entries.isEmpty else { return }
        if let target, try target.owns(placement, isConfigured) { return }
        let isOwn = isConfigured && !placement.isMapped
        // The tablespace's own directory may hold those of other versions (lesson 32).
        if isOwn && !entries.contains(where: { $0.name == RawPath(versionDirectory) }) { return }
        let hint =
            isOwn
            ? "Move \"\(placement.target.appending(versionDirectory))\" away, or map the tablespace to an empty "
                + "directory with \"--tablespace \(placement.oid)=DIR\"."
            : "Map it to an empty directory with \"--tablespace \(placement.oid)=DIR\"."
        throw KedgeError(
            .notEmpty,
            "cannot restore tablespace \(placement.oid) into directory \"\(placement.target)\": it is not empty",
            detail: "It holds \"\(entries[0].name)\", which may belong to a living cluster."
                + (target == nil ? "" : "  No link pg_tblspc/\(placement.oid) shows that it is this cluster's own."),
            hint: hint)
    }

    /// Replay would take over the directory that is there, a living one too (src/backend/commands/tablespace.c,
    /// create_tablespace_directories).
    ///
    /// Returns whether it is there and this data directory's own, so that it has to go.
    private func check(_ tablespace: CreatedTablespace, _ target: DeltaTarget?) throws(KedgeError) -> Bool {
        guard let entries = try entries(tablespace.path) else { return false }
        guard entries.contains(where: { $0.name == RawPath(versionDirectory) }) else { return false }
        // Where the backup holds it as well, the restore puts it right.
        if let target, let own = placements.first(where: { $0.oid == tablespace.oid && $0.target == tablespace.path }),
            try target.owns(own, isConfigured)
        {
            return false
        }
        if let target, try target.owns(created: tablespace, isConfigured) { return true }
        throw KedgeError(
            .notEmpty, "cannot restore: recovery would write into tablespace directory \"\(tablespace.path)\"",
            detail: "Tablespace \(tablespace.oid) was created after the backup, at LSN \(tablespace.lsn), so recovery "
                + "creates it at that path; it holds \"\(versionDirectory)\", which may belong to a living cluster.",
            hint: isConfigured
                ? "Move that directory away, or recover to a point before the tablespace was created."
                : "Restore on another host, recover to a point before the tablespace was created, or make a new backup "
                    + "and restore that one with \"--tablespace\".")
    }
}

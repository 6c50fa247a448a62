// Makes the tree of files what the backup has, but for the content of files: what does not belong goes, directories and
// links become right. Carries out the steps of TreeMerge.
//
// No link is followed but those of tablespaces and pg_wal, and those only once they are right. A file with another name
// elsewhere (a hard link) is never written to: it goes here and is made anew later.

import KedgeCatalog
import KedgeCore

/// Aligns one data directory.
struct TreeAlignment {
    let pgdata: RawPath
    let placements: [TablespacePlacement]
    let walDirectory: RawPath?
    /// `PG_15_202209061`: the only directory in a tablespace's that is looked into.
    let versionDirectory: RawPath
    let owner: DeltaOwner?
    private(set) var removed = RemovedFiles()

    init(
        pgdata: RawPath, placements: [TablespacePlacement], walDirectory: RawPath?, versionDirectory: RawPath,
        owner: DeltaOwner?
    ) {
        self.pgdata = pgdata
        self.placements = placements
        self.walDirectory = walDirectory
        self.versionDirectory = versionDirectory
        self.owner = owner
    }

    private static let wal: ManifestPath = "pg_wal"

    /// The merge for this directory.
    func merge() throws(KedgeError) -> TreeMerge {
        let hasWALDirectory = walDirectory != nil
        return try TreeMerge(
            kind: { entry in
                switch entry.kind {
                case .file, .extraFile: .regular
                case .symbolicLink: .symbolicLink
                case .directory: hasWALDirectory && entry.path == TreeAlignment.wal ? .symbolicLink : .directory
                }
            }, list: { (path) throws(KedgeError) in try list(path) })
    }

    /// Where an entry really lies, whether or not the link on the way is right.
    func place(of path: ManifestPath) -> RawPath {
        func below(_ directory: RawPath, _ components: Int) -> RawPath {
            var place = directory
            for part in path.bytes.split(separator: 0x2F).dropFirst(components) {
                place = place.appending(RawPath(bytes: part))
            }
            return place
        }
        if let walDirectory, path.isBelow(TreeAlignment.wal) { return below(walDirectory, 1) }
        if let oid = path.tablespace, let placement = placements.first(where: { $0.oid == oid }),
            path.isBelow(ManifestPath("pg_tblspc/\(oid)"))
        {
            return below(placement.target, 2)
        }
        return pgdata.appending(RawPath(bytes: path.bytes))
    }

    /// What of a directory is looked at.
    private func list(_ path: ManifestPath?) throws(KedgeError) -> [DirectoryEntry] {
        guard let path else {
            // All but the mark that we are at work.
            return try entries(pgdata).filter { !TreeAlignment.isOfFileSystem($0) && $0.name != RestoreMarker.name }
        }
        if let oid = path.tablespaceLink, let placement = placements.first(where: { $0.oid == oid }) {
            return try entries(placement.target).filter { $0.name == versionDirectory }
        }
        if path == TreeAlignment.wal, let walDirectory {
            return try entries(walDirectory).filter { !TreeAlignment.isOfFileSystem($0) }
        }
        let found = try Directory.entries(of: FileDescriptor.open(place(of: path), [.read, .directory, .noFollow]))
        return path == TreeAlignment.wal ? found.filter { !TreeAlignment.isOfFileSystem($0) } : found
    }

    /// Whether an entry is a file system's own, as where the data directory or pg_wal is a mount point. It is root's.
    private static func isOfFileSystem(_ entry: DirectoryEntry) -> Bool {
        entry.name == FileSystem.ownDirectory && entry.kind == .directory
    }

    private func entries(_ path: RawPath) throws(KedgeError) -> [DirectoryEntry] {
        do throws(KedgeError) {
            return try Directory.entries(at: path)
        } catch  where error.code == .notFound {
            return []
        }
    }

    // MARK: - Steps

    /// Carries a step out. Files that are to be made are left to whoever writes their content.
    mutating func apply(_ step: TreeStep) throws(KedgeError) {
        switch step {
        case .remove(let path, let kind): try remove(path, kind)
        case .make(let entry): try make(entry)
        case .replace(let entry, let kind):
            try remove(entry.path, kind)
            try make(entry)
        case .keep(let entry): try keep(entry)
        }
    }

    private mutating func remove(_ path: ManifestPath, _ kind: FileKind) throws(KedgeError) {
        if path == "postmaster.pid" { try DeltaTarget.requireStopped(pgdata) }
        let place = place(of: path)
        let directory = try FileDescriptor.open(place.parent, [.read, .directory])
        var gone = RemovedFiles()
        if kind == .directory {
            try Directory.clear(place.lastComponent, in: directory, counting: &gone)
        } else {
            try Directory.removeFile(place.lastComponent, in: directory, counting: &gone)
        }
        if TreeAlignment.isMadeAnew(path) { return }
        removed.files += gone.files
        removed.bytes += gone.bytes
    }

    /// Whether a file goes only to come back, as every restore writes it, or is the server's own note of its last
    /// start: nobody misses it.
    static func isMadeAnew(_ path: ManifestPath) -> Bool {
        [
            "global/pg_control", "global/pg_control.kedge-restore", "postgresql.auto.conf", "backup_manifest",
            "tablespace_map", "recovery.signal", "standby.signal", "postmaster.opts",
        ].contains(path)
    }

    /// Removes the catalogue-version directory of a tablespace that recovery will create again.
    mutating func clearTablespace(_ path: RawPath) throws(KedgeError) {
        let directory = try FileDescriptor.open(path, [.read, .directory])
        switch try DeltaTarget.kind(of: versionDirectory, in: directory) {
        case nil: return
        case .directory: try Directory.clear(versionDirectory, in: directory, counting: &removed)
        default: try Directory.removeFile(versionDirectory, in: directory, counting: &removed)
        }
    }

    private func make(_ entry: ManifestEntry) throws(KedgeError) {
        try requireInVersionDirectory(entry.path)
        let place = place(of: entry.path)
        switch entry.kind {
        case .file, .extraFile: return
        case .directory where entry.path == TreeAlignment.wal && walDirectory != nil:
            try FileSystem.createSymbolicLink(at: place, target: linkTarget(of: entry))
        case .symbolicLink:
            try FileSystem.createSymbolicLink(at: place, target: linkTarget(of: entry))
        case .directory:
            guard try Directory.createPlain(at: place, mode: TreeAlignment.mode(of: entry)) else {
                throw KedgeError(
                    .alreadyExists, "cannot create directory \"\(place)\"", detail: "It has appeared just now.",
                    hint: "Check whether somebody else writes there.")
            }
        }
        if let owner { try FileSystem.setOwner(of: place, user: owner.user, group: owner.group) }
    }

    private mutating func keep(_ entry: ManifestEntry) throws(KedgeError) {
        try requireInVersionDirectory(entry.path)
        let place = place(of: entry.path)
        switch entry.kind {
        case .extraFile: return
        case .file:
            if try !isUsable(FileStatus(at: place)) { try remove(entry.path, .regular) }
        case .directory where entry.path == TreeAlignment.wal && walDirectory != nil: try keepLink(entry)
        case .symbolicLink: try keepLink(entry)
        case .directory:
            let directory = try FileDescriptor.open(place, [.read, .directory, .noFollow])
            let status = try directory.status()
            if let owner { try owner.apply(to: directory, status) }
            if status.mode != TreeAlignment.mode(of: entry) { try directory.setMode(TreeAlignment.mode(of: entry)) }
        }
    }

    /// Whether a file can be put right in place: no other name leads to it, and it is ours to open.
    func isUsable(_ status: FileStatus) -> Bool {
        let own = FileSystem.ownUser
        return status.linkCount == 1 && (own == 0 || status.user == own && status.mode & 0o600 == 0o600)
    }

    private mutating func keepLink(_ entry: ManifestEntry) throws(KedgeError) {
        let place = place(of: entry.path)
        guard try FileSystem.symbolicLinkTarget(at: place) != linkTarget(of: entry) else {
            if let owner { try FileSystem.setOwner(of: place, user: owner.user, group: owner.group) }
            return
        }
        try FileSystem.removeFile(at: place)
        try make(entry)
    }

    /// Where the link that this entry becomes has to lead.
    private func linkTarget(of entry: ManifestEntry) -> RawPath {
        if entry.path == TreeAlignment.wal, let walDirectory { return walDirectory }
        guard let oid = entry.path.tablespaceLink, let placement = placements.first(where: { $0.oid == oid }) else {
            preconditionFailure("the survey accepts no other links")
        }
        return placement.target
    }

    /// In a tablespace's directory there may be anything besides: it is not ours, whatever a manifest says.
    private func requireInVersionDirectory(_ path: ManifestPath) throws(KedgeError) {
        guard let oid = path.tablespace, placements.contains(where: { $0.oid == oid }), path.tablespaceLink == nil
        else { return }
        let allowed = ManifestPath(bytes: Array("pg_tblspc/\(oid)/".utf8) + versionDirectory.bytes)
        guard path != allowed, !path.isBelow(allowed) else { return }
        throw KedgeError(
            .unsafePath, "cannot restore \"\(path)\"",
            detail: "A backup holds only directory \"\(versionDirectory)\" of a tablespace.",
            hint: "Somebody may have tampered with the repository.  Restore another backup, or this one from another "
                + "repository.")
    }

    /// What the server does not own by mode it could not use: the owner's rights are always there.
    static func mode(of entry: ManifestEntry) -> UInt32 { (entry.mode & 0o777) | 0o700 }
}

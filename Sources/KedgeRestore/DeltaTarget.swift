// Whose directory is this? What a restore with --delta has to know before it changes what is there.
//
// 1. Only a data directory of the very database system that is restored is changed unasked; another one only where its
//    system identifier is named with --replace-system, one that cannot be read only with "unknown".
// 2. No server may run there: neither a postmaster.pid nor a process of PostgreSQL that works in the directory.
// 3. A directory outside (a tablespace, pg_wal behind a link) is this data directory's only if its own link leads
//    there, or if the marker of an interrupted restore names it. Even then it is the original's, and not touched, where
//    a copy is restored beside the original and the place is the one that the original uses.

import KedgeCatalog
package import KedgeCore
import KedgePostgres

/// The system whose data directory may be overwritten besides that of the backup.
package enum ReplacedSystem: Hashable, Sendable {
    case system(SystemIdentifier)
    /// A data directory whose pg_control is missing or cannot be read.
    case unknown
}

/// What a data directory says of itself.
package struct DataDirectoryFacts: Hashable, Sendable {
    package enum Control: Hashable, Sendable {
        case absent
        case unreadable
        case system(SystemIdentifier)
    }

    package var hasVersionFile: Bool
    package var control: Control
    /// All that is there are temporary files of ours: a restore was killed while it wrote its marker.
    package var isBarelyBegun = false
    /// The system of the restore that a marker says has begun here.
    package var marked: SystemIdentifier?

    package init(hasVersionFile: Bool, control: Control, marked: SystemIdentifier? = nil) {
        self.hasVersionFile = hasVersionFile
        self.control = control
        self.marked = marked
    }
}

/// Whether a data directory may be changed.
package struct DeltaPermission {
    package let pgdata: RawPath
    package let system: SystemIdentifier
    package let replaced: ReplacedSystem?

    package init(pgdata: RawPath, system: SystemIdentifier, replaced: ReplacedSystem?) {
        self.pgdata = pgdata
        self.system = system
        self.replaced = replaced
    }

    /// Throws `not-empty` for a directory that may not be changed.
    package func require(_ facts: DataDirectoryFacts) throws(KedgeError) {
        if facts.isBarelyBegun { return }
        let found: SystemIdentifier? =
            switch facts.control {
            case .system(let system): system
            case .absent: facts.marked
            case .unreadable: nil
            }
        if let found {
            guard found != system, replaced != .system(found) else { return }
            throw KedgeError(
                .notEmpty, "cannot restore into directory \"\(pgdata)\": it belongs to another database system",
                detail: "It is of system \(found), and the backup is of system \(system).",
                hint: "Restore into another directory with \"--pgdata\".  Only if what is there may be lost: add "
                    + "\"--replace-system \(found)\".")
        }
        guard facts.hasVersionFile else {
            throw KedgeError(
                .notEmpty, "cannot restore into directory \"\(pgdata)\": it is not a PostgreSQL data directory",
                detail: "It is not empty, and holds neither PG_VERSION nor a control file that can be read.",
                hint: "Move what is there away, or restore into another directory with \"--pgdata\".")
        }
        guard replaced != .unknown else { return }
        let what = facts.control == .absent ? "It has no global/pg_control" : "Its global/pg_control cannot be read"
        throw KedgeError(
            .notEmpty, "cannot restore into directory \"\(pgdata)\": it may belong to another database system",
            detail: "\(what), so nobody can tell whose it is.",
            hint: "If it is that of this cluster, or may be lost, add \"--replace-system unknown\".  Else restore into "
                + "another directory with \"--pgdata\".")
    }
}

/// The data directory that a restore with --delta finds, and what belongs to it.
struct DeltaTarget {
    let pgdata: RawPath
    let facts: DataDirectoryFacts
    /// Where the links of pg_tblspc lead, without links.
    let tablespaceLinks: [UInt32: RawPath]
    /// Where pg_wal leads if it is a link.
    let walLink: RawPath?
    /// What the marker of an interrupted restore names.
    let claimed: Set<RawPath>

    /// Looks at a directory that is there and is not empty. Reads only.
    init(_ pgdata: RawPath) throws(KedgeError) {
        self.pgdata = pgdata
        let directory = try FileDescriptor.open(pgdata, [.read, .directory])
        let control = try DeltaTarget.control(directory)
        let marker = try RestoreMarker.read(in: pgdata)
        var facts = DataDirectoryFacts(
            hasVersionFile: try DeltaTarget.kind(of: "PG_VERSION", in: directory) == .regular, control: control,
            marked: marker?.system)
        facts.isBarelyBegun = try Directory.entries(of: directory).allSatisfy { DurableFile.isTemporary($0.name) }
        self.facts = facts
        // Next to a control file the marker is a leftover, and a copy's speaks of another directory.
        claimed = control == .absent && marker?.pgdata == pgdata ? Set(marker?.directories ?? []) : []
        tablespaceLinks = try DeltaTarget.links(pgdata, directory)
        walLink =
            try DeltaTarget.kind(of: "pg_wal", in: directory) == .symbolicLink
            ? FileSystem.resolved(DeltaTarget.target(of: pgdata.appending("pg_wal"))) : nil
    }

    /// The kind of an entry; nil where there is none.
    static func kind(
        of name: RawPath, in directory: borrowing FileDescriptor
    ) throws(KedgeError) -> FileKind? {
        do throws(KedgeError) {
            return try FileStatus(of: name, in: directory).kind
        } catch  where error.code == .notFound {
            return nil
        }
    }

    /// A link is never followed: what lies behind it may be a living cluster's.
    private static func control(
        _ directory: borrowing FileDescriptor
    ) throws(KedgeError) -> DataDirectoryFacts.Control {
        guard try kind(of: "global", in: directory) == .directory else { return .absent }
        let global = try FileDescriptor.open("global", in: directory, [.read, .directory, .noFollow])
        switch try kind(of: "pg_control", in: global) {
        case nil: return .absent
        case .regular: break
        default: return .unreadable
        }
        do throws(KedgeError) {
            let file = try FileDescriptor.open("pg_control", in: global, [.read, .noFollow, .nonBlocking])
            return .system(try ControlFile(parsing: file.readAll(limit: 1 << 20)).systemIdentifier)
        } catch  where error.code == .damaged || error.code == .formatUnknown || error.code == .notSupported {
            return .unreadable
        }
    }

    private static func links(
        _ pgdata: RawPath, _ directory: borrowing FileDescriptor
    ) throws(KedgeError) -> [UInt32: RawPath] {
        guard try kind(of: "pg_tblspc", in: directory) == .directory else { return [:] }
        var links: [UInt32: RawPath] = [:]
        let path = pgdata.appending("pg_tblspc")
        for entry in try Directory.entries(at: path) where entry.kind == .symbolicLink {
            let name = ManifestPath(bytes: Array("pg_tblspc/".utf8) + entry.name.bytes)
            guard let oid = name.tablespaceLink else { continue }
            links[oid] = try FileSystem.resolved(target(of: path.appending(entry.name)))
        }
        return links
    }

    /// Where a link leads, absolute.
    private static func target(of link: RawPath) throws(KedgeError) -> RawPath {
        let target = try FileSystem.symbolicLinkTarget(at: link)
        return target.isAbsolute ? target : link.parent.appending(target)
    }

    // MARK: - What belongs to it

    /// Whether the catalogue-version directory in a tablespace's directory may be changed.
    func owns(_ placement: TablespacePlacement, _ isConfigured: Bool) throws(KedgeError) -> Bool {
        let place = try FileSystem.resolved(placement.target)
        if claimed.contains(place) { return true }
        return tablespaceLinks[placement.oid] == place && (isConfigured || placement.isMapped)
    }

    /// Whether what is at the place where recovery will create a tablespace is a later state of that same tablespace.
    func owns(created tablespace: CreatedTablespace, _ isConfigured: Bool) throws(KedgeError) -> Bool {
        let place = try FileSystem.resolved(tablespace.path)
        return claimed.contains(place) || isConfigured && tablespaceLinks[tablespace.oid] == place
    }

    /// Whether the WAL in a directory outside may go.
    func owns(
        walDirectory: RawPath, _ isConfigured: Bool, original: RawPath?
    ) throws(KedgeError) -> Bool {
        let place = try FileSystem.resolved(walDirectory)
        if claimed.contains(place) { return true }
        let originalPlace = try original.map(FileSystem.resolved)
        return walLink == place && (isConfigured || place != originalPlace)
    }

    /// Whether an entry of a directory can be one of a pg_wal.
    static func isOfWAL(_ entry: DirectoryEntry) -> Bool {
        guard let name = entry.name.text else { return false }
        if DurableFile.isTemporary(entry.name) { return entry.kind == .regular }
        switch entry.kind {
        case .directory, .symbolicLink: return ["archive_status", "summaries", "lost+found"].contains(name)
        case .regular: return WALFileName(name) != nil || name.hasPrefix("xlogtemp.") || name.hasPrefix("RECOVERY")
        case .other: return false
        }
    }

    // MARK: - Running servers

    /// Throws `server-running` unless it is certain that no server works in `pgdata`.
    ///
    /// A postmaster.pid is never judged: the process that it names may live in another container or on another host.
    static func requireStopped(_ pgdata: RawPath) throws(KedgeError) {
        if try FileSystem.exists(pgdata.appending("postmaster.pid")) {
            throw KedgeError(
                .serverRunning, "cannot restore into directory \"\(pgdata)\": a server may be running there",
                detail: "It holds postmaster.pid.",
                hint: "Stop the server.  If none runs there, on this host, on another or in a container, remove that "
                    + "file.")
        }
        let place = try FileSystem.resolved(pgdata)
        let servers: Set<RawPath> = ["postgres", "postmaster"]
        let found = try ProcessTable.entries().first { process in
            process.workingDirectory?.liesAtOrBelow(place) == true && process.program.map(servers.contains) == true
        }
        if let found {
            throw KedgeError(
                .serverRunning, "cannot restore into directory \"\(pgdata)\": a server runs there",
                detail: "Process \(found.id) is PostgreSQL and works in \"\(found.workingDirectory ?? place)\".",
                hint: "Stop the server.")
        }
    }
}

/// What a restore with --delta may do outside the data directory, and what it leaves.
package struct DeltaGrant: Hashable, Sendable {
    /// Directories of tablespaces that recovery will create again: their catalogue-version directories go.
    package var obsolete: [RawPath] = []
    /// Where links of pg_tblspc led that will not lead there any more. What is there stays.
    package var abandoned: [RawPath] = []
}

/// Whom everything in the data directory belongs to: whoever owns the directory itself, as the server demands
/// (src/backend/utils/init/miscinit.c, checkDataDir).
struct DeltaOwner: Hashable, Sendable {
    let user: UInt32
    let group: UInt32

    /// Nil where we are that user, so that what we make is right by itself.
    init?(of pgdata: RawPath) throws(KedgeError) {
        let own = FileSystem.ownUser
        guard own == 0, try FileSystem.exists(pgdata) else { return nil }
        let status = try FileStatus(at: pgdata, followLinks: true)
        guard status.user != own else { return nil }
        (user, group) = (status.user, status.group)
    }

    /// Throws `permission` where neither we nor root own the data directory.
    static func requireRights(_ pgdata: RawPath) throws(KedgeError) {
        let (own, status) = (FileSystem.ownUser, try FileStatus(at: pgdata, followLinks: true))
        guard own != 0, own != status.user else { return }
        throw KedgeError(
            .permission, "cannot restore into directory \"\(pgdata)\": it belongs to another user",
            detail: "It is owned by user \(status.user), and this is user \(own).",
            hint: "Run the command as the user that the server runs as.")
    }

    func apply(to file: borrowing FileDescriptor, _ status: FileStatus) throws(KedgeError) {
        guard status.user != user || status.group != group else { return }
        try file.setOwner(user: user, group: group)
    }
}

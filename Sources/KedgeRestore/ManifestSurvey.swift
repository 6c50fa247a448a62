// One pass over a backup's manifest before anything is written: is every entry one that may be restored, and how much
// room does each part of the cluster need.
//
// A manifest may be hostile. The decoder refuses paths that leave the directory; here every entry is held against the
// directories before it, so that nothing is ever written through a link that the manifest brought along.

package import KedgeCatalog
package import KedgeCore

/// What a restore of a manifest will write.
package struct ManifestSurvey: Sendable {
    /// Bytes of all files, by tablespace; nil stands for the data directory.
    package private(set) var bytes: [UInt32?: UInt64] = [:]
    /// What they and the directories take up on a file system, by tablespace as in `bytes`.
    package private(set) var room: [UInt32?: Room] = [:]
    package private(set) var totalBytes: UInt64 = 0
    package private(set) var files: UInt64 = 0
    /// Configuration files from outside the data directory.
    package private(set) var extraFiles: [RawPath] = []
    /// The permission bits for the data directory. The server starts only on one that the group cannot write and others
    /// cannot use, and makes everything in it alike (src/common/file_perm.c, PG_MODE_MASK_GROUP).
    package private(set) var directoryMode: UInt32 = 0o700

    /// Room on a file system: bytes in whole blocks, and inodes.
    package struct Room: Hashable, Sendable {
        package fileprivate(set) var bytes: UInt64 = 0
        package fileprivate(set) var inodes: UInt64 = 0

        fileprivate mutating func add(fileOf size: UInt64) {
            // Sizes come from the repository; a sum that no file system has room for may stop growing.
            let blocks = size.addingReportingOverflow(4095)
            let rounded = blocks.overflow ? UInt64.max : blocks.partialValue & ~4095
            let sum = bytes.addingReportingOverflow(rounded)
            bytes = sum.overflow ? .max : sum.partialValue
            inodes += 1
        }
    }

    private let label: Label
    private let isModeKnown: Bool
    private let linked: Set<UInt32>
    /// `PG_15_202209061`; nil where it is not known.
    private let versionDirectory: String?
    /// The directories that the present path lies in, outermost first.
    private var open: [ManifestPath] = []
    private var hasControlFile = false
    private var hasBackupLabel = false

    /// The most bytes of a whole cluster; no file system holds more.
    package static let totalLimit: UInt64 = 1 << 60

    /// Reads all entries of a manifest. Throws `damaged` or `unsafe-path`.
    package init(
        _ reader: consuming ManifestReader, of backup: CommitRecord, versionDirectory: String
    ) throws(KedgeError) {
        self.init(of: backup, versionDirectory: versionDirectory)
        var reader = reader
        while let entry = try reader.next() { try add(entry) }
        try finish()
    }

    /// A survey that has seen nothing yet. `versionDirectory` is the one directory of a tablespace that a backup holds;
    /// nil where it is not known, so that every name in a tablespace is accepted.
    package init(of backup: CommitRecord, versionDirectory: String?) {
        label = backup.label
        self.versionDirectory = versionDirectory
        isModeKnown = backup.dataDirectoryMode != nil
        directoryMode = (backup.dataDirectoryMode ?? 0) & 0o750 | 0o700
        linked = Set(backup.tablespaces.filter { !$0.inPlace }.map(\.oid))
    }

    /// Looks for what a backup never lacks. To be called after the last entry. Throws `damaged`.
    package func finish() throws(KedgeError) {
        guard hasControlFile, hasBackupLabel else {
            throw refusal("It lacks \(hasControlFile ? "backup_label" : "global/pg_control").", .damaged)
        }
    }

    /// Takes the next entry, in path order. Throws `damaged` or `unsafe-path` for one that must not be restored.
    package mutating func add(_ entry: ManifestEntry) throws(KedgeError) {
        if case .extraFile(let content) = entry.kind {
            try requireSmall(entry.path, content)
            guard extraFiles.count < ManifestEntry.extraFileLimit else {
                throw refusal("It has more than \(ManifestEntry.extraFileLimit) extra files.", .damaged)
            }
            extraFiles.append(RawPath(bytes: entry.path.bytes))
            return
        }
        try enter(entry.path)
        try checkKind(entry)
        try checkTablespace(entry)
        switch entry.kind {
        case .directory:
            room[linkedTablespace(of: entry.path), default: Room()].inodes += 1
            if entry.path == "base", !isModeKnown { directoryMode = entry.mode & 0o050 == 0o050 ? 0o750 : 0o700 }
            open.append(entry.path)
        case .symbolicLink:
            guard let oid = entry.path.tablespaceLink, linked.contains(oid) else {
                throw refusal("\"\(entry.path)\" is a link, but not that of a tablespace of the backup.", .unsafePath)
            }
            room[nil, default: Room()].inodes += 1
            open.append(entry.path)
        case .file(let content):
            files += 1
            // A file has at most 2^40 bytes, so neither sum overflows.
            totalBytes += content.size
            guard totalBytes <= ManifestSurvey.totalLimit else {
                throw refusal("Its files have too many bytes.", .damaged)
            }
            let tablespace = linkedTablespace(of: entry.path)
            bytes[tablespace, default: 0] += content.size
            room[tablespace, default: Room()].add(fileOf: content.size)
            try note(entry.path, content)
        case .extraFile: break
        }
    }

    /// The tablespace that `path` lies in, unless that is in the data directory itself.
    private func linkedTablespace(of path: ManifestPath) -> UInt32? {
        path.tablespace.flatMap { linked.contains($0) ? $0 : nil }
    }

    /// Checks that the directory of `path` came before it.
    private mutating func enter(_ path: ManifestPath) throws(KedgeError) {
        while let last = open.last, !path.isBelow(last) { open.removeLast() }
        guard path.parent == open.last else {
            throw refusal("\"\(path)\" lies in a directory that is not in the manifest.", .unsafePath)
        }
    }

    /// What the server needs to be one thing, or what the restore itself writes, cannot be another.
    private func checkKind(_ entry: ManifestEntry) throws(KedgeError) {
        let isRight: Bool
        switch (entry.path, entry.kind) {
        // A restore writes its own.
        case ("tablespace_map", _): isRight = false
        case ("pg_wal", .directory): isRight = true
        case ("pg_wal", _): isRight = false
        case ("backup_label", .file), ("global/pg_control", .file), ("postgresql.auto.conf", .file),
            ("backup_manifest", .file), ("recovery.signal", .file), ("standby.signal", .file):
            isRight = true
        case ("backup_label", _), ("global/pg_control", _), ("postgresql.auto.conf", _), ("backup_manifest", _),
            ("recovery.signal", _), ("standby.signal", _):
            isRight = false
        default: isRight = true
        }
        guard isRight else { throw refusal("\"\(entry.path)\" cannot be what it is.", .unsafePath) }
    }

    /// A tablespace that lies elsewhere is a link, and its directory may hold anything besides the one directory that
    /// is this system's, also where nobody mapped it: nothing else in it is written to, whatever a manifest says.
    private func checkTablespace(_ entry: ManifestEntry) throws(KedgeError) {
        guard let oid = linkedTablespace(of: entry.path) else { return }
        if entry.path.tablespaceLink == oid, case .symbolicLink = entry.kind { return }
        guard let versionDirectory else { return }
        let own = ManifestPath("pg_tblspc/\(oid)/\(versionDirectory)")
        guard entry.path != own, !entry.path.isBelow(own) else { return }
        throw refusal(
            "\"\(entry.path)\" is not in \"\(versionDirectory)\", the only directory of a tablespace that a backup "
                + "holds.", .unsafePath)
    }

    private mutating func note(_ path: ManifestPath, _ content: FileContent) throws(KedgeError) {
        switch path {
        case "global/pg_control": hasControlFile = true
        case "backup_label": hasBackupLabel = true
        case "tablespace_map":
            // Recovery would make the links that it names, wherever they lead
            // (src/backend/access/transam/xlogrecovery.c).
            throw refusal("It holds tablespace_map, which a restore writes itself.", .damaged)
        case "postgresql.auto.conf": break
        default: return
        }
        try requireSmall(path, content)
    }

    /// For what is held in memory as a whole.
    private func requireSmall(_ path: ManifestPath, _ content: FileContent) throws(KedgeError) {
        guard content.size <= FileContent.smallFileLimit else {
            throw refusal("\"\(path)\" has \(content.size) bytes, which cannot be right.", .damaged)
        }
    }

    private func refusal(_ detail: String, _ code: ErrorCode) -> KedgeError {
        KedgeError(
            code, "cannot restore from the manifest of backup \"\(label)\"", detail: detail,
            hint: "Somebody may have tampered with the repository.  Restore another backup, or this one from another "
                + "repository.")
    }
}

extension ManifestPath: ExpressibleByStringLiteral {
    package init(stringLiteral text: String) { self.init(text) }

    /// Whether this lies below `directory`, by its name.
    func isBelow(_ directory: ManifestPath) -> Bool {
        bytes.count > directory.bytes.count && bytes[directory.bytes.count] == 0x2F
            && bytes.starts(with: directory.bytes)
    }

    /// The oid in `pg_tblspc/OID` and what lies below it.
    var tablespace: UInt32? {
        let parts = bytes.split(separator: 0x2F, maxSplits: 2)
        guard parts.count >= 2, parts[0].elementsEqual("pg_tblspc".utf8),
            parts[1].allSatisfy({ (0x30...0x39).contains($0) })
        else { return nil }
        return UInt32(String(decoding: parts[1], as: UTF8.self))
    }

    /// The oid, if this is exactly `pg_tblspc/OID` as the server writes it.
    var tablespaceLink: UInt32? {
        tablespace.flatMap { self == ManifestPath("pg_tblspc/\($0)") ? $0 : nil }
    }
}

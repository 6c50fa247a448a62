// What a backup does with each file of a data directory: pure decisions by name and place.
//
// The lists are those of src/backend/backup/basebackup.c (excludeDirContents, excludeFiles, sendDir), and the shapes of
// names those of src/common/relpath.c and src/backend/storage/file/reinit.c. What we leave out besides:
// backup_label.old and tablespace_map.old, leftovers of Kedge's own, and lost+found where the data directory is a mount
// point: it is root's, and no server's. What nobody knows is copied.

package import KedgeCore

/// Where in a data directory a name lies, as far as it changes what the name means.
package enum Place: Hashable, Sendable {
    /// The data directory itself.
    case dataDirectory
    case global
    /// `base`, or the version directory of a tablespace: what holds databases.
    case databases
    /// The directory of one database in one tablespace.
    case database
    /// `pg_tblspc`
    case tablespaces
    /// What `pg_tblspc/<oid>` leads to.
    case tablespace
    /// `pg_wal`
    case wal
    /// `pg_xact`, `pg_multixact` and others that a restored cluster cannot start without.
    case essential
    /// All else.
    case other
}

/// What to do with one name.
package enum FileDecision: Hashable, Sendable {
    /// Leave it out, silently.
    case skip
    /// Leave it out and say so: a socket, a pipe, a device or a symbolic link, as pg_basebackup does.
    case skipSpecial
    /// A link where the server itself never makes one, to data that a restored cluster needs.
    case refuseLink
    /// Keep the directory, and nothing in it.
    case emptyDirectory
    /// Keep the directory and what the policy keeps of its content.
    case directory(Place)
    /// Keep the symbolic link of a tablespace, and what it leads to.
    case tablespaceLink(oid: UInt32)
    /// Copy it.
    case copy(FileContentKind)
}

/// What a file's content means to the one who copies it.
package enum FileContentKind: Hashable, Sendable {
    /// Made of pages, changed in place, and brought up to date by replay: copied up to the size that it had when
    /// listed.
    case relation(RelationFileName)
    /// `global/pg_control`: read last.
    case controlFile
    /// Anything else: copied to its end, wherever that is by then (lesson 38).
    case whole
}

/// The rules for one server.
package struct FilePolicy: Hashable, Sendable {
    package let majorVersion: Int
    /// The only directory of a tablespace that is ours: `PG_15_202209061` (lesson 32).
    package let tablespaceVersionDirectory: String

    package init(majorVersion: Int, catalogVersion: UInt32) {
        self.majorVersion = majorVersion
        tablespaceVersionDirectory = "PG_\(majorVersion)_\(catalogVersion)"
    }

    /// What to do with `name` of the given kind in `place`.
    ///
    /// `hasInitFork` tells whether the same directory holds `<number>_init` for a relation's number: that is what makes
    /// a relation unlogged (lesson 33).
    package func decide(
        _ name: RawPath, kind: FileKind, in place: Place, hasInitFork: (UInt32) -> Bool
    ) -> FileDecision {
        if isExcludedEverywhere(name) { return .skip }
        switch kind {
        case .regular: return decideFile(name, in: place, hasInitFork: hasInitFork)
        case .directory: return decideDirectory(name, in: place)
        case .symbolicLink: return decideLink(name, in: place)
        case .other: return .skipSpecial
        }
    }

    private func decideFile(_ name: RawPath, in place: Place, hasInitFork: (UInt32) -> Bool) -> FileDecision {
        switch place {
        case .wal:
            // WAL comes from the archive; what else lies there is the server's scratch.
            return .skip
        case .tablespace:
            return .skip
        case .global where name == "pg_control":
            return .copy(.controlFile)
        case .global:
            return .copy(RelationFileName(name.bytes).map(FileContentKind.relation) ?? .whole)
        case .database:
            if RelationFileName.isTemporary(name.bytes) { return .skip }
            guard let relation = RelationFileName(name.bytes) else { return .copy(.whole) }
            if relation.fork != .initialization && hasInitFork(relation.number) { return .skip }
            return .copy(.relation(relation))
        case .dataDirectory, .databases, .tablespaces, .essential, .other:
            return .copy(.whole)
        }
    }

    private func decideDirectory(_ name: RawPath, in place: Place) -> FileDecision {
        switch place {
        case .dataDirectory:
            guard let text = name.text else { return .directory(.other) }
            if name == FileSystem.ownDirectory { return .skip }
            if FilePolicy.emptiedDirectories.contains(text) { return .emptyDirectory }
            return .directory(FilePolicy.places[text] ?? .other)
        case .wal:
            if name == "archive_status" { return .emptyDirectory }
            // The WAL summaries of 17 and later are made anew (basebackup.c sends the directory only).
            return name == "summaries" && majorVersion >= 17 ? .emptyDirectory : .skip
        case .tablespaces:
            // A directory instead of a link: allow_in_place_tablespaces.
            return .directory(decimal(name.bytes[...]) == nil ? .other : .tablespace)
        case .tablespace:
            return name == RawPath(tablespaceVersionDirectory) ? .directory(.databases) : .skip
        case .databases:
            return .directory(decimal(name.bytes[...]) == nil ? .other : .database)
        case .essential:
            return .directory(.essential)
        case .global, .database, .other:
            return .directory(.other)
        }
    }

    private func decideLink(_ name: RawPath, in place: Place) -> FileDecision {
        switch place {
        case .dataDirectory:
            guard let text = name.text else { return .skipSpecial }
            // What is left empty is kept as a directory even if it is a link (basebackup.c, convert_link_to_directory).
            if FilePolicy.emptiedDirectories.contains(text) { return .emptyDirectory }
            switch FilePolicy.places[text] {
            case .wal: return .directory(.wal)
            case nil: return .skipSpecial
            default: return .refuseLink
            }
        case .wal:
            // archive_status may itself be a link (lesson 30).
            return decideDirectory(name, in: place)
        case .tablespaces:
            return decimal(name.bytes[...]).map { .tablespaceLink(oid: $0) } ?? .skipSpecial
        case .tablespace:
            return name == RawPath(tablespaceVersionDirectory) ? .refuseLink : .skip
        case .global, .databases, .database, .essential:
            return .refuseLink
        case .other:
            return .skipSpecial
        }
    }

    /// Names that are left out wherever they are, as basebackup.c compares them in every directory.
    private func isExcludedEverywhere(_ name: RawPath) -> Bool {
        if DurableFile.isTemporary(name) { return true }
        if FilePolicy.excludedPrefixes.contains(where: { name.bytes.starts(with: $0.utf8) }) { return true }
        return name.text.map(FilePolicy.excludedNames.contains) ?? false
    }

    /// Their content is of no use to a restored cluster, and the server refills them.
    private static let emptiedDirectories: Set<String> = [
        "pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans",
    ]

    /// Directories directly below the data directory that are not `.other`.
    private static let places: [String: Place] = [
        "base": .databases, "global": .global, "pg_tblspc": .tablespaces, "pg_wal": .wal, "pg_xact": .essential,
        "pg_multixact": .essential, "pg_twophase": .essential, "pg_commit_ts": .essential, "pg_logical": .essential,
    ]

    private static let excludedNames: Set<String> = [
        "backup_label", "backup_label.old", "tablespace_map", "tablespace_map.old", "backup_manifest",
        "postmaster.pid", "postmaster.opts", "postgresql.auto.conf.tmp", "current_logfiles.tmp",
        // What a restore leaves when it is killed in its last moment (KedgeRestore, RestoreMarker).
        "kedge_restore.json",
    ]

    /// Temporary files and directories of queries, and relation cache files (lesson 34).
    private static let excludedPrefixes = ["pgsql_tmp", "pg_internal.init"]
}

/// A fork of a relation, by the suffix of its files.
package enum RelationFork: String, Hashable, Sendable, CaseIterable {
    case main = ""
    case freeSpaceMap = "_fsm"
    case visibilityMap = "_vm"
    case initialization = "_init"
}

/// The name of a relation's file: `16384`, `16384_vm`, `16384_init.2`, …
package struct RelationFileName: Hashable, Sendable {
    /// The relfilenumber.
    package let number: UInt32
    package let fork: RelationFork
    /// Which piece of the fork: 0 for the one without a suffix.
    package let segment: UInt32

    /// Nil for what is not the name of a relation's file (parse_filename_for_nontemp_relation).
    package init?(_ name: [UInt8]) {
        guard let parsed = RelationFileName.parse(name[...]) else { return nil }
        self = parsed
    }

    private init(number: UInt32, fork: RelationFork, segment: UInt32) {
        self.number = number
        self.fork = fork
        self.segment = segment
    }

    /// Whether this is a file of a temporary relation: `t3_16390`, with a fork and a segment as others have them.
    package static func isTemporary(_ name: [UInt8]) -> Bool {
        guard name.first == UInt8(ascii: "t"), let underscore = name.firstIndex(of: UInt8(ascii: "_")),
            underscore > 1, name[1..<underscore].allSatisfy(\.isDecimalDigit)
        else { return false }
        return parse(name[(underscore + 1)...]) != nil
    }

    /// The number of the file's first block within the fork, for a cluster with that many blocks a file. Nil beyond the
    /// 2^32 blocks that a relation can have.
    package func firstBlock(relationSegmentBlocks: UInt32) -> UInt32? {
        let (product, overflow) = segment.multipliedReportingOverflow(by: relationSegmentBlocks)
        return overflow ? nil : product
    }

    private static func parse(_ name: ArraySlice<UInt8>) -> RelationFileName? {
        let digits = name.prefix(while: \.isDecimalDigit)
        guard let number = decimal(digits) else { return nil }
        var rest = name[digits.endIndex...]
        var fork = RelationFork.main
        if let suffix = RelationFork.allCases.first(where: { $0 != .main && rest.starts(with: $0.rawValue.utf8) }) {
            fork = suffix
            rest = rest.dropFirst(suffix.rawValue.utf8.count)
        }
        if rest.isEmpty { return RelationFileName(number: number, fork: fork, segment: 0) }
        guard rest.first == UInt8(ascii: "."), let segment = decimal(rest.dropFirst()) else { return nil }
        return RelationFileName(number: number, fork: fork, segment: segment)
    }
}

/// A positive 32-bit number without leading zeros, as PostgreSQL writes an OID or a segment number. Nil for all else.
private func decimal(_ digits: ArraySlice<UInt8>) -> UInt32? {
    guard let first = digits.first, first != UInt8(ascii: "0"), digits.allSatisfy(\.isDecimalDigit) else { return nil }
    return UInt32(String(decoding: digits, as: UTF8.self))
}

extension UInt8 {
    fileprivate var isDecimalDigit: Bool { (0x30...0x39).contains(self) }
}

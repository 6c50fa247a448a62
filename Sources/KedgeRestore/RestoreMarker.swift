// `kedge_restore.json`: the file that says of a data directory that a restore has begun there and has not ended.
//
// It is durable before anything else is written, and removed after `global/pg_control` is back. So as long as it is
// there and pg_control is not, everything in the directory is what a restore has made or is about to replace, and so
// are the directories outside of it that the file names: a restore with --delta may go on with them.

import KedgeCatalog
import KedgeCore

/// What the file holds.
struct RestoreMarker: Hashable, Sendable {
    static let name: RawPath = "kedge_restore.json"

    var system: SystemIdentifier
    var backup: Label
    /// Where the file lay when it was written: in a copy of the directory it proves nothing.
    var pgdata: RawPath
    /// The directories of tablespaces, and that of pg_wal where it lies elsewhere: absolute, without links.
    var directories: [RawPath]

    private static let limit = 1 << 20

    private var jsonValue: JSONValue {
        [
            "kedge": "restore", "system": .string(system.description), "backup": .string(backup.text),
            "pgdata": pgdata.jsonValue, "directories": .array(directories.map(\.jsonValue)),
            "createdBy": .string(Version.writer),
            "note": "A restore into this directory has not ended: run it again with --delta, or remove the directory.",
        ]
    }

    private init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("restore")
        system = try record.parsed("system") { SystemIdentifier($0) }
        backup = try record.parsed("backup") { Label($0) }
        pgdata = try record.path("pgdata")
        directories = try record.paths("directories")
    }

    init(system: SystemIdentifier, backup: Label, pgdata: RawPath, directories: [RawPath]) {
        self.system = system
        self.backup = backup
        self.pgdata = pgdata
        self.directories = directories
    }

    /// The marker of a directory; nil where there is none, or what has its name is none.
    static func read(in pgdata: RawPath) throws(KedgeError) -> RestoreMarker? {
        do throws(KedgeError) {
            let file = try FileDescriptor.open(pgdata.appending(name), [.read, .noFollow, .nonBlocking])
            guard try file.status().kind == .regular else { return nil }
            return try RestoreMarker(JSONRecord(parsing: file.readAll(limit: limit), what: "file \"\(file.path)\""))
        } catch  where error.code == .notFound || error.code == .damaged {
            return nil
        }
    }

    /// Writes it, durably, in place of one that may be there.
    func write(in pgdata: RawPath, random: any RandomSource) throws(KedgeError) {
        let bytes = Array((jsonValue.prettyText + "\n").utf8)
        _ = try DurableFile.write(
            bytes, to: pgdata.appending(RestoreMarker.name), mode: 0o600, replacing: true, random: random)
    }

    /// Removes it, durably.
    static func remove(in pgdata: RawPath) throws(KedgeError) {
        let directory = try FileDescriptor.open(pgdata, [.read, .directory])
        try FileSystem.removeFile(name, in: directory)
        try directory.sync()
    }
}

// Does a directory that a restore writes to lie in a cluster that is there already?
//
// Such a directory may be empty or absent and still not be free: what is written into another cluster's data directory
// is in its backups, a server that uses its pg_wal may remove it, and `restore --delta` of that cluster would clear it.
// So the way up from each target is looked at. Pure: what is there comes in as an argument.

package import KedgeCore

/// A directory of a cluster, above a target or the target itself.
package struct EnclosingCluster: Hashable, Sendable {
    package enum Part: String, Sendable {
        case dataDirectory = "a PostgreSQL data directory"
        case walDirectory = "the directory of a cluster's WAL"
        case tablespace = "the directory of a tablespace"
    }

    package let part: Part
    package let directory: RawPath
    /// The entry of `directory` that shows it; nil where its own name does.
    package let mark: RawPath?

    package init(_ part: Part, _ directory: RawPath, mark: RawPath?) {
        self.part = part
        self.directory = directory
        self.mark = mark
    }

    /// What only a data directory has, also one that a restore has begun. PG_VERSION lies in each database's directory
    /// as well.
    private static let dataMarks: [RawPath] = ["postmaster.pid", "PG_VERSION", RestoreMarker.name]
    /// The server makes it in every pg_wal (src/backend/access/transam/xlog.c, ValidateXLOGDirectoryStructure).
    private static let walMark: RawPath = "archive_status"

    /// The innermost directory of a cluster that `path`, absolute and without links, lies in; with `orIs` also `path`
    /// itself. `exists` says whether something is at a path. Throws what that throws.
    package static func find(
        around path: RawPath, orIs: Bool, exists: (RawPath) throws(KedgeError) -> Bool
    ) throws(KedgeError) -> EnclosingCluster? {
        guard path.isAbsolute else { return nil }
        var directory = orIs ? path : path.parent
        while true {
            if isVersionDirectory(directory.lastComponent) {
                return EnclosingCluster(.tablespace, directory, mark: nil)
            }
            for mark in dataMarks where try exists(directory.appending(mark)) {
                return EnclosingCluster(.dataDirectory, directory, mark: mark)
            }
            if try exists(directory.appending(walMark)) {
                return EnclosingCluster(.walDirectory, directory, mark: walMark)
            }
            guard directory.parent != directory else { return nil }
            directory = directory.parent
        }
    }

    /// Whether a name is such as `PG_15_202209061`: a major version and a catalogue version, which is a date and a
    /// digit (src/include/catalog/catversion.h; src/include/common/relpath.h, TABLESPACE_VERSION_DIRECTORY).
    private static func isVersionDirectory(_ name: RawPath) -> Bool {
        let parts = name.bytes.split(separator: UInt8(ascii: "_"), omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].elementsEqual("PG".utf8), !parts[1].isEmpty, parts[2].count == 9 else {
            return false
        }
        return (parts[1] + parts[2]).allSatisfy { (0x30...0x39).contains($0) }
    }

    /// One sentence.
    package var sentence: String {
        let reason = mark.map { "it holds \"\($0)\"" } ?? "its name is that of a version of the server"
        return "That lies in \"\(directory)\", which is \(part.rawValue): \(reason)."
    }
}

// Reading one WAL file from one repository, whole and checked: for archive-get and for whoever fetches ahead of it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

extension WALArchive {
    /// The whole file, as it was archived; nil where this repository has none of that name. Throws `archive-conflict`,
    /// `damaged`, and what reading throws.
    func fetch(_ file: WALFileName, threads: Int) throws(KedgeError) -> [UInt8]? {
        guard let archived = try one(file)?.archived else { return nil }
        let bytes = try read(archived, threads: threads).bytes
        if case .segment = file { try SegmentDelivery.check(bytes, file, segmentFormat()) }
        return bytes
    }

    /// The one object that has the file, and its size; nil where there is none. Throws `archive-conflict`.
    func one(_ file: WALFileName) throws(KedgeError) -> StoredFile? {
        let found = try lookUp(file)
        guard found.count > 1 else { return found.first }
        throw KedgeError(
            .archiveConflict,
            "cannot fetch WAL file \"\(file.text)\": it was archived \(found.count) times with different content",
            detail: "The objects are \(found.map { "\"\($0.archived.name)\"" }.joined(separator: ", ")).",
            hint:
                "Two servers wrote the same timeline.  Run \"kedge cat\" on each to see who stored it, and remove "
                + "the one that does not belong.")
    }
}

// The `.partial` file that a plan needs, from whichever repository has a good one: the plan looked at all of them.

import KedgeCatalog
import KedgeCore
import KedgeRepository

/// Reads a partial segment, as `archive-get` reads whole ones: each repository in turn, until one has a single good
/// copy.
struct PartialSegment {
    let segment: WALSegment
    private let archives: [WALArchive]
    private let threads: Int

    /// Nil where the plan needs none. `archives`, at least one, are in the order in which `archive-get` reads them.
    ///
    /// Reads the file: it is written last, and that it cannot be had must not come out then.
    init?(of plan: RestorePlan, in archives: [WALArchive], threads: Int) throws(KedgeError) {
        guard let segment = plan.partial else { return nil }
        self.segment = segment
        self.archives = archives
        self.threads = threads
        _ = try read()
    }

    /// The name that it gets in `pg_wal`: that of the whole segment.
    var fileName: String { segment.fileName(segmentSize: archives[0].registration.walSegmentSize) }

    /// The whole file. Throws what is wrong in the first repository that has it.
    func read() throws(KedgeError) -> [UInt8] {
        var failure: KedgeError?
        for archive in archives {
            do throws(KedgeError) {
                if let bytes = try read(archive) { return bytes }
            } catch {
                guard error.code != .interrupted else { throw error }
                failure = failure ?? error
            }
        }
        throw failure
            ?? KedgeError(
                .notFound, "cannot use WAL file \"\(fileName).partial\"",
                detail: "It was listed a moment ago and is gone now.",
                hint: "Check that nothing else removes files from the repository.")
    }

    /// Nil where this repository has none.
    private func read(_ archive: WALArchive) throws(KedgeError) -> [UInt8]? {
        let found = try archive.find(.partial(fileName + ".partial"))
        guard let file = found.first else { return nil }
        guard found.count == 1 else {
            throw KedgeError(
                .archiveConflict, "cannot use WAL file \"\(fileName).partial\"",
                detail: "\(found.count) files of that name are archived.",
                hint: "Run \"kedge info\" to see what is archived.")
        }
        return try archive.read(file, threads: threads).bytes
    }
}

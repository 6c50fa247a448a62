// Whether the WAL in the repository is that of the server which is backed up.
//
// A name proves nothing: where two servers write one timeline (a copy that was promoted into it, a data directory or a
// machine that was put back to an earlier state) the other one's segments lie under the names that this backup waits
// for, while every push of our own is refused. A restore would replay that WAL over our files.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// Holds archived segments against those in pg_wal.
struct OwnWAL {
    let archive: WALArchive
    let dataDirectory: RawPath

    /// Throws `archive-conflict` where pg_wal has another content than the one that is archived under this name.
    ///
    /// What the server has recycled or removed meanwhile can't be looked at any more: it does that with segments that
    /// its archive command has stored, and that compares (src/backend/access/transam/xlog.c, RemoveOldXlogFiles).
    func check(_ segment: WALSegment, against archived: ArchivedFile, _ stored: WALFileFacts) throws(KedgeError) {
        guard let bytes = try localBytes(archived.file) else { return }
        let tag = bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: archive.cluster.clusterID) }
        guard tag != stored.tag else { return }
        let local = WALFileFacts(
            file: archived.file, length: UInt64(bytes.count), tag: tag, archivedAt: stored.archivedAt, hostName: "",
            segment: try facts(segment, of: bytes))
        let conflict = WALConflict(
            archived.file, WALConflict.Copy(stored, storedAt: nil), try archive.read(archived, threads: 1).bytes,
            WALConflict.Copy(local, storedAt: nil), bytes,
            segmentStart: segment.startLSN(segmentSize: archive.registration.walSegmentSize))
        guard let conflict else { return }
        let name = archived.file.text
        let sentences = [
            conflict.place, WALConflict.sentence("The stored one", conflict.first),
            conflict.explanation("the stored one", "this server's"),
        ]
        throw KedgeError(
            .archiveConflict,
            "cannot back up a server whose WAL is not the archived one: repository "
                + "\"\(archive.cluster.repository.name)\" holds other content for segment \(name) than pg_wal",
            detail: sentences.compactMap { $0 }.joined(separator: "  "), hint: conflict.hint)
    }

    private func facts(_ segment: WALSegment, of bytes: [UInt8]) throws(KedgeError) -> WALFacts {
        let format = try archive.segmentFormat()
        return try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts(of: bytes, segment: segment, isPartial: false, format: format)
        }
    }

    /// The file in pg_wal; nil where there is none, or the server took it for something else while it was read.
    private func localBytes(_ file: WALFileName) throws(KedgeError) -> [UInt8]? {
        let path = dataDirectory.appending("pg_wal").appending(file.text)
        do throws(KedgeError) {
            let descriptor = try FileDescriptor.open(path, [.read, .nonBlocking])
            let opened = try descriptor.status()
            let bytes = try descriptor.read(count: Int(archive.registration.walSegmentSize), at: 0)
            let now = try FileStatus(at: path, followLinks: true)
            return now.inode == opened.inode && now.device == opened.device ? bytes : nil
        } catch  where error.code == .notFound {
            return nil
        }
    }
}

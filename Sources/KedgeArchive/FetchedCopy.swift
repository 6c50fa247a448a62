// One segment in the spool, on its way to the server.
//
// Where the spool and the server's directory are on one file system the file itself goes there: every byte of it is
// read and checked, the record behind the segment is cut off, and it is renamed. Else, and where the server may see
// only a part of it, its bytes are written anew. Both ways end in the same file.

import KedgeCatalog
import KedgeCodec
import KedgeCore

/// A copy whose record fits. Its content is checked when it is used.
final class FetchedCopy {
    /// The record's page behind the segment.
    static let recordBytes = 4096

    let name: String
    let repository: String
    private let file: FileDescriptor
    private let directory: FileDescriptor
    private let segmentSize: Int
    private let tag: ContentHash
    private let clusterID: RandomID

    /// Nil where the file is not what its name and its record promise, or is too old.
    init?(_ name: String, in copies: FetchedCopies, at now: Timestamp) throws(KedgeError) {
        let directory = try FileDescriptor.open(copies.directory, [.read, .directory, .noFollow])
        let file = try FileDescriptor.open(RawPath(name), in: directory, [.read, .write, .noFollow])
        let size = copies.server.segmentSize
        guard try file.status().sizeBytes == size + UInt64(FetchedCopy.recordBytes),
            let text = Spool.checked(Array(try file.read(count: FetchedCopy.recordBytes, at: size).prefix { $0 != 0 }))
        else { return nil }
        let record = try JSONRecord(parsing: text, what: "copy \"\(name)\"")
        try record.expectType("fetched")
        let fetchedAt = try record.parsed("fetchedAt") { Timestamp(record: $0) }
        guard try record.string("file") == name, try record.string("server") == copies.server.id,
            fetchedAt <= now, now < fetchedAt.adding(seconds: FetchedCopies.validSeconds)
        else { return nil }
        tag = try record.parsed("tag") { ContentHash(hex: $0) }
        clusterID = try record.parsed("clusterId") { RandomID(hex: $0) }
        repository = try record.string("repository")
        self.name = name
        self.file = file
        self.directory = directory
        segmentSize = Int(size)
    }

    /// The whole segment, every byte as it was fetched. Throws `damaged` where it is not.
    func bytes() throws(KedgeError) -> [UInt8] {
        let bytes = try file.read(count: segmentSize, at: 0)
        guard bytes.count == segmentSize,
            bytes.withBytes({ WALFileFacts.tag(of: $0, clusterID: clusterID) }) == tag
        else { throw damaged }
        return bytes
    }

    /// Makes the file itself the server's, as `newName` in `target`, in place of what may be there. Returns false where
    /// it cannot be moved there: then something else may have that name, which its bytes have to replace.
    ///
    /// `check` gets the segment's first page. Throws what it throws, and `damaged`.
    func move(
        to newName: RawPath, in target: borrowing FileDescriptor,
        check: (UnsafeRawBufferPointer) throws(KedgeError) -> Void
    ) throws(KedgeError) -> Bool {
        guard try file.status().device == target.status().device else { return false }
        let hasher = WALFileFacts.tagHasher(clusterID: clusterID)
        var piece = [UInt8](repeating: 0, count: 256 << 10)
        var offset = 0
        while offset < segmentSize {
            let wanted = min(piece.count, segmentSize - offset)
            try piece.withMutableBytes { (piece) throws(KedgeError) in
                let piece = UnsafeMutableRawBufferPointer(rebasing: piece[..<wanted])
                guard try file.read(into: piece, at: UInt64(offset)) == wanted else { throw damaged }
                if offset == 0 { try check(UnsafeRawBufferPointer(piece)) }
                hasher.update(UnsafeRawBufferPointer(piece))
            }
            offset += wanted
        }
        guard hasher.hash() == tag else { throw damaged }
        try file.truncate(to: UInt64(segmentSize))
        do throws(KedgeError) {
            try FileSystem.rename(RawPath(name), in: directory, to: newName, in: target)
        } catch {
            // A bind mount of the same file system is another one for rename(2).
            return false
        }
        // Another file may have taken the name since it was opened. The server looks only when we have ended.
        let (own, moved) = (try file.status(), try FileStatus(of: newName, in: target))
        return moved.inode == own.inode && moved.sizeBytes == own.sizeBytes
    }

    private var damaged: KedgeError {
        KedgeError(.damaged, "cannot use the copy of WAL file \"\(name)\" in the spool: it was changed")
    }
}

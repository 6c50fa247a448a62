// How the copy reads files: a protocol, so that tests can let files shrink, grow and vanish at any moment.

package import KedgeCore

/// Opens the files of a backup.
package protocol FileSource: Sendable {
    /// Opens a file for reading. `range` tells which bytes will be read: what of them was not
    /// in the page cache before need not stay there. Throws `not-found` where it has vanished.
    func open(_ path: RawPath, reading range: Range<UInt64>) throws(KedgeError) -> any OpenSourceFile
}

/// A file being read. Used by one thread at a time.
package protocol OpenSourceFile: AnyObject {
    func status() throws(KedgeError) -> FileStatus

    /// Fills `buffer` from `offset` on as far as the file goes, and returns how many bytes there were.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int

    /// Says that the region that begins at `offset` will not be read again.
    func release(regionAt offset: UInt64)
}

/// The files as they are.
///
/// The database's page cache is left as it was: pages that the copy brought in are dropped again, pages that were there
/// before stay, region by region. Small files are let be: to ask about them costs more than they take up.
package struct SystemFileSource: FileSource {
    package init() {}

    package func open(_ path: RawPath, reading range: Range<UInt64>) throws(KedgeError) -> any OpenSourceFile {
        SystemFile(try FileDescriptor.open(path, .read), range)
    }
}

private final class SystemFile: OpenSourceFile {
    private let file: FileDescriptor
    private let residency: PageCacheResidency?

    init(_ file: consuming FileDescriptor, _ range: Range<UInt64>) {
        if UInt64(range.count) > CopyLimits.smallFileBytes {
            residency = PageCacheResidency(
                of: file, offset: range.lowerBound, length: UInt64(range.count), partBytes: CopyLimits.regionBytes)
            file.advise(.sequential)
        } else {
            residency = nil
        }
        self.file = file
    }

    func status() throws(KedgeError) -> FileStatus { try file.status() }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int {
        try file.read(into: buffer, at: offset)
    }

    func release(regionAt offset: UInt64) { residency?.restore(partAt: offset, of: file) }
}

/// Sizes that decide how files are cut for the copy.
package enum CopyLimits {
    /// The unit of identification, and of a frame of its own.
    package static let regionBytes: UInt64 = 1 << 20
    /// Files up to this size share frames.
    package static let smallFileBytes: UInt64 = 256 << 10
    /// The most that one work item reads of a relation file.
    package static let rangeBytes: UInt64 = 16 << 20
    /// The most files in one work item.
    package static let batchFiles = 64
    /// A file that grows faster than it can be read is cut here beyond its size when it was opened. Only a log grows
    /// so.
    package static let growthBytes: UInt64 = 64 << 20
}

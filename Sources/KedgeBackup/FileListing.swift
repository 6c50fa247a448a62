// What the walk found, in path order, in a file without a name: memory does not grow with the cluster.

package import KedgeCatalog
package import KedgeCore

/// One file, directory or link as the walk found it.
package struct ListedEntry: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case directory
        /// The target as the link held it.
        case symbolicLink([UInt8])
        /// The size when it was listed.
        case file(FileNature, sizeBytes: UInt64)
        /// A configuration file outside the data directory; its path is absolute.
        case extraFile(sizeBytes: UInt64)
    }

    package var path: ManifestPath
    package var mode: UInt32
    /// Nanoseconds since 1970.
    package var modificationTime: Int64
    package var kind: Kind

    package init(path: ManifestPath, mode: UInt32, modificationTime: Int64, kind: Kind) {
        self.path = path
        self.mode = mode
        self.modificationTime = modificationTime
        self.kind = kind
    }

    /// The size when it was listed; nil for a directory or link.
    package var sizeBytes: UInt64? {
        switch kind {
        case .file(_, let size), .extraFile(let size): size
        case .directory, .symbolicLink: nil
        }
    }
}

/// How a file of the data directory is copied.
package enum FileNature: Hashable, Sendable {
    /// Pages, of which the first has this number within its fork: checked, and copied up to the listed size.
    case relation(firstBlock: UInt32)
    /// `global/pg_control`: read last.
    case controlFile
    /// Copied to its end.
    case whole
}

/// Sums over a listing.
package struct ListingTotals: Hashable, Sendable {
    package fileprivate(set) var entries: UInt64 = 0
    package fileprivate(set) var files: UInt64 = 0
    package fileprivate(set) var directories: UInt64 = 0
    package fileprivate(set) var links: UInt64 = 0
    /// Listed sizes of all files.
    package fileprivate(set) var bytes: UInt64 = 0
}

/// A list of entries on disk. Written once in path order, then read any number of times. Used by one thread at a time.
package final class FileListing {
    private let file: ScratchFile
    package private(set) var totals = ListingTotals()

    /// An empty listing in a file of its own in `directory`.
    package init(in directory: RawPath, random: any RandomSource) throws(KedgeError) {
        file = try ScratchFile(in: directory, random: random)
    }

    /// Adds an entry; its index is the number of those before it.
    package func append(_ entry: ListedEntry) throws(KedgeError) {
        totals.entries += 1
        switch entry.kind {
        case .directory: totals.directories += 1
        case .symbolicLink: totals.links += 1
        case .file(_, let size), .extraFile(let size):
            totals.files += 1
            totals.bytes += size
        }
        let body = FileListing.encoded(entry)
        var record: [UInt8] = []
        record.reserveCapacity(body.count + 4)
        record.append(littleEndian: UInt32(body.count))
        record += body
        try file.append(record)
    }

    /// Calls `body` for each entry with its index, in order.
    package func forEach(
        _ body: (UInt64, ListedEntry) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        var index: UInt64 = 0
        var offset: UInt64 = 0
        while offset < file.sizeBytes {
            let count = Int(min(file.sizeBytes - offset, FileListing.readBytes))
            let block = try file.read(count: count, at: offset)
            var used = 0
            try block.withBytes { bytes throws(KedgeError) in
                while let record = FileListing.record(in: bytes, at: used) {
                    try body(index, try FileListing.decoded(record))
                    used += 4 + record.count
                    index += 1
                }
            }
            guard used > 0 else {
                throw KedgeError(.defect, "cannot read the list of files", hint: "Please report this.")
            }
            offset += UInt64(used)
        }
    }

    /// A record is at most two paths of 4096 bytes and some numbers.
    private static let readBytes: UInt64 = 256 << 10

    /// The record that begins at `offset`, nil unless all of it is there.
    private static func record(in bytes: UnsafeRawBufferPointer, at offset: Int) -> UnsafeRawBufferPointer? {
        guard offset + 4 <= bytes.count else { return nil }
        let length = Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        guard length <= bytes.count - offset - 4 else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[offset + 4..<offset + 4 + length])
    }

    private static func encoded(_ entry: ListedEntry) -> [UInt8] {
        var bytes: [UInt8] = []
        switch entry.kind {
        case .directory: bytes.append(0)
        case .symbolicLink: bytes.append(1)
        case .extraFile: bytes.append(2)
        case .file(.controlFile, _): bytes.append(3)
        case .file(.whole, _): bytes.append(4)
        case .file(.relation, _): bytes.append(5)
        }
        bytes.append(varint: UInt64(entry.mode))
        bytes.append(littleEndian: entry.modificationTime)
        bytes.append(varint: UInt64(entry.path.bytes.count))
        bytes += entry.path.bytes
        switch entry.kind {
        case .directory: break
        case .symbolicLink(let target): bytes += target
        case .extraFile(let size), .file(.controlFile, let size), .file(.whole, let size): bytes.append(varint: size)
        case .file(.relation(let firstBlock), let size):
            bytes.append(varint: size)
            bytes.append(varint: UInt64(firstBlock))
        }
        return bytes
    }

    private static func decoded(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) -> ListedEntry {
        var reader = BinaryReader(bytes, what: "the list of files")
        let code = try reader.u8()
        let mode = UInt32(truncatingIfNeeded: try reader.varint())
        let modified = Int64(bitPattern: try reader.u64())
        let path = ManifestPath(bytes: Array(try reader.bytes(try reader.count())))
        let kind: ListedEntry.Kind
        switch code {
        case 0: kind = .directory
        case 1: kind = .symbolicLink(Array(try reader.bytes(reader.remaining)))
        case 2: kind = .extraFile(sizeBytes: try reader.varint())
        case 3: kind = .file(.controlFile, sizeBytes: try reader.varint())
        case 4: kind = .file(.whole, sizeBytes: try reader.varint())
        case 5:
            let size = try reader.varint()
            let firstBlock = UInt32(truncatingIfNeeded: try reader.varint())
            kind = .file(.relation(firstBlock: firstBlock), sizeBytes: size)
        default: throw reader.malformed("the kind \(code) is unknown")
        }
        return ListedEntry(path: path, mode: mode, modificationTime: modified, kind: kind)
    }
}

// The bytes of one file out of its extents, region by region, each checked against the checksum in the manifest.

package import KedgeCatalog
import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// A place in a file between two of its regions, as a place in its extents.
package struct ContentCursor {
    fileprivate let content: FileContent
    /// Named in errors.
    fileprivate let path: ManifestPath
    /// The region that begins here.
    fileprivate var region = 0
    fileprivate var index = 0
    /// How much of the extent lies before the place.
    fileprivate var done: UInt64 = 0
    /// The place in the pack, once something of the extent was read or skipped.
    fileprivate var place: (frame: UInt64, offset: UInt64)?

    /// The file's beginning.
    package init(_ content: FileContent, path: ManifestPath) {
        self.content = content
        self.path = path
    }

    fileprivate mutating func advance(_ length: UInt64) {
        done += length
        if done == content.extents[index].length { (index, done, place) = (index + 1, 0, nil) }
    }
}

/// Reads regions of files. One for each worker; used by one thread at a time.
package final class ContentReader {
    private let directories: PackDirectories
    private let packs: PackReader
    /// Pages of 60 deltas and more that lie in one region.
    private static let keptBytes = 8 << 20
    /// One region, aligned for direct writes. Freed with the reader.
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(regionSize), alignment: 4096)

    package init(_ directories: PackDirectories) {
        self.directories = directories
        packs = PackReader(directories, keptBytes: ContentReader.keptBytes)
        // A kernel or a repository that fails must not show old memory.
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { buffer.deallocate() }

    /// Hands the content of `regions` to `body`, a region at a time with its offset in the file.
    ///
    /// Nothing is handed out whose checksum does not fit. `path` is named in errors. Throws `damaged` and what reading
    /// and `body` throw.
    package func read(
        _ content: FileContent, regions: Range<Int>, path: ManifestPath,
        _ body: (UnsafeRawBufferPointer, UInt64) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        var cursor = ContentCursor(content, path: path)
        for region in regions {
            try body(read(region, at: &cursor), UInt64(region) * regionSize)
        }
    }

    /// The content of one region, at the cursor or behind it. It is lent until the next read; nothing is lent whose
    /// checksum does not fit. Throws `damaged` and what reading throws.
    package func read(_ region: Int, at cursor: inout ContentCursor) throws(KedgeError) -> UnsafeRawBufferPointer {
        precondition(region >= cursor.region, "a cursor goes forward")
        let offset = UInt64(region) * regionSize
        try skip(offset - UInt64(cursor.region) * regionSize, &cursor)
        let count = Int(min(regionSize, cursor.content.size - offset))
        try fill(count, &cursor)
        cursor.region = region + 1
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        if let expected = cursor.content.regions[region] {
            let found = ContentHash(of: bytes)
            guard found == expected else { throw mismatch(cursor.path, offset, expected, found) }
        }
        return bytes
    }

    /// The whole content of a file that is known to be small.
    func readAll(_ content: FileContent, path: ManifestPath) throws(KedgeError) -> [UInt8] {
        var all: [UInt8] = []
        all.reserveCapacity(Int(content.size))
        try read(content, regions: 0..<content.regions.count, path: path) { (bytes, _) throws(KedgeError) in
            all.append(contentsOf: bytes)
        }
        return all
    }

    private func mismatch(
        _ path: ManifestPath, _ offset: UInt64, _ expected: ContentHash, _ found: ContentHash
    ) -> KedgeError {
        KedgeError(
            .damaged, "cannot restore file \"\(path)\": its content is not what was backed up",
            detail: "The region at byte \(offset) has checksum \(found); the manifest says \(expected).",
            hint: "Restore another backup, or this one from another repository.")
    }

    // MARK: - Extents

    /// Fills the buffer's first `count` bytes from the cursor on.
    private func fill(_ count: Int, _ cursor: inout ContentCursor) throws(KedgeError) {
        var filled = 0
        while filled < count {
            let extent = cursor.content.extents[cursor.index]
            let length = min(extent.length - cursor.done, UInt64(count - filled))
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<filled + Int(length)])
            switch extent.source {
            case .zeros: part.initializeMemory(as: UInt8.self, repeating: 0)
            case .pack(let pack, let frame, let offset):
                let place = cursor.place ?? (UInt64(frame), UInt64(offset))
                guard let first = UInt32(exactly: place.frame), let start = UInt32(exactly: place.offset) else {
                    throw misplaced(pack)
                }
                try packs.read(pack, frame: first, offset: start, into: part)
                cursor.place = try move(place, by: length, in: pack)
            }
            filled += Int(length)
            cursor.advance(length)
        }
    }

    private func skip(_ length: UInt64, _ cursor: inout ContentCursor) throws(KedgeError) {
        var rest = length
        while rest > 0 {
            let extent = cursor.content.extents[cursor.index]
            let step = min(extent.length - cursor.done, rest)
            if case .pack(let pack, let frame, let offset) = extent.source, step < extent.length {
                cursor.place = try move(cursor.place ?? (UInt64(frame), UInt64(offset)), by: step, in: pack)
            }
            cursor.advance(step)
            rest -= step
        }
    }

    /// The place in a pack's stream `length` bytes further on.
    private func move(
        _ place: (frame: UInt64, offset: UInt64), by length: UInt64, in pack: RandomID
    ) throws(KedgeError) -> (frame: UInt64, offset: UInt64) {
        let directory = try directories.directory(of: pack)
        var (frame, offset) = (place.frame, place.offset + length)
        // At the end of the last frame the place stays in it: nothing more is read from there.
        while frame + 1 < UInt64(directory.frameCount) {
            let size = UInt64(try directory.rawLength(ofFrame: frame))
            guard offset >= size else { break }
            (frame, offset) = (frame + 1, offset - size)
        }
        return (frame, offset)
    }

    private func misplaced(_ pack: RandomID) -> KedgeError {
        KedgeError(
            .damaged, "cannot read pack \"\(pack)\"", detail: "A manifest refers to a place beyond its end.",
            hint: "Restore another backup, or this one from another repository.")
    }
}

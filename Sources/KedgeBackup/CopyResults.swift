// What became of each file, as the workers found it: on disk by the entry's index, so that memory does not grow with
// the cluster and workers may finish in any order.
//
//   slots:    16 bytes an entry: where its newest result lies and how long it is; zero: none
//   results:  each with the place of the entry's result before it, so that the ranges of a large file form a chain

package import KedgeCatalog
package import KedgeCore
import Synchronization

/// What copying one range of one file gave.
package struct CopyResult: Hashable, Sendable {
    /// Which entry of the listing.
    package var index: UInt64
    /// Where the range begins; 0 for a whole file.
    package var start: UInt64
    /// How many bytes there were.
    package var length: UInt64
    /// Whether the file ended within the range or at its end, before what was expected.
    package var isCut: Bool
    /// False where the file had vanished: then all else is empty.
    package var exists: Bool
    package var mode: UInt32
    package var modificationTime: Int64
    package var identity: FileIdentity?
    /// The checksum of each region of the range.
    package var regions: [ContentHash]
    /// Tiles the range.
    package var extents: [Extent]

    /// A file that was not there any more.
    package static func vanished(index: UInt64, start: UInt64) -> CopyResult {
        CopyResult(
            index: index, start: start, length: 0, isCut: true, exists: false, mode: 0, modificationTime: 0,
            identity: nil, regions: [], extents: [])
    }
}

/// The results of all workers. Any number of threads may record; reading begins when all have ended.
package final class CopyResults: Sendable {
    /// ScratchFile is for one thread at a time: the mutex sees to that.
    private struct Files: ~Copyable {
        var slots: ScratchFile
        var results: ScratchFile
    }

    private let files: Mutex<Files>
    private static let slotBytes: UInt64 = 16
    private let entries: UInt64

    /// Room for `entries` entries, in files of its own in `directory`.
    package init(entries: UInt64, in directory: RawPath, random: any RandomSource) throws(KedgeError) {
        let slots = try ScratchFile(in: directory, random: random)
        let results = try ScratchFile(in: directory, random: random)
        var missing = entries * CopyResults.slotBytes
        while missing > 0 {
            let count = min(missing, 64 << 10)
            try slots.append([UInt8](repeating: 0, count: Int(count)))
            missing -= count
        }
        files = Mutex(Files(slots: slots, results: results))
        self.entries = entries
    }

    /// Forgets all results: the copy starts over.
    package func removeAll() throws(KedgeError) {
        try files.withLock { (files) throws(KedgeError) in
            let none = [UInt8](repeating: 0, count: Int(CopyResults.slotBytes))
            for index in 0..<entries { try files.slots.overwrite(none, at: index * CopyResults.slotBytes) }
        }
    }

    /// Adds results of one worker.
    package func record(_ results: [CopyResult]) throws(KedgeError) {
        try files.withLock { (files) throws(KedgeError) in
            for result in results {
                let slot = result.index * CopyResults.slotBytes
                // Only the ranges of a large file begin elsewhere or find another result there.
                let previous = try files.slots.read(count: Int(CopyResults.slotBytes), at: slot)
                let bytes = previous + CopyResults.encoded(result)
                let offset = try files.results.append(bytes)
                var place: [UInt8] = []
                place.append(littleEndian: offset)
                place.append(littleEndian: UInt64(bytes.count))
                try files.slots.overwrite(place, at: slot)
            }
        }
    }

    /// All results of the entry, by where they begin.
    package func results(of index: UInt64) throws(KedgeError) -> [CopyResult] {
        try files.withLock { (files) throws(KedgeError) in
            var found: [CopyResult] = []
            var slot = try files.slots.read(
                count: Int(CopyResults.slotBytes), at: index * CopyResults.slotBytes)
            while true {
                let (offset, length) = CopyResults.place(slot)
                guard length > 0 else { break }
                let bytes = try files.results.read(count: Int(length), at: offset)
                slot = Array(bytes[..<Int(CopyResults.slotBytes)])
                found.append(try CopyResults.decoded(bytes, index: index))
            }
            return found.sorted { $0.start < $1.start }
        }
    }

    private static func place(_ slot: [UInt8]) -> (offset: UInt64, length: UInt64) {
        slot.withUnsafeBytes {
            (
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }

    // MARK: Bytes

    private static func encoded(_ result: CopyResult) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append((result.isCut ? 1 : 0) | (result.exists ? 2 : 0) | (result.identity == nil ? 0 : 4))
        bytes.append(varint: result.start)
        bytes.append(varint: result.length)
        bytes.append(varint: UInt64(result.mode))
        bytes.append(littleEndian: result.modificationTime)
        if let identity = result.identity {
            bytes.append(littleEndian: identity.inode)
            bytes.append(littleEndian: identity.birthTime)
        }
        bytes.append(varint: UInt64(result.regions.count))
        for region in result.regions { region.append(to: &bytes) }
        bytes.append(varint: UInt64(result.extents.count))
        for extent in result.extents {
            bytes.append(varint: extent.length)
            switch extent.source {
            case .zeros: bytes.append(0)
            case .pack(let pack, let frame, let offset):
                bytes.append(1)
                bytes += pack.bytes
                bytes.append(varint: UInt64(frame))
                bytes.append(varint: UInt64(offset))
            }
        }
        return bytes
    }

    private static func decoded(_ bytes: [UInt8], index: UInt64) throws(KedgeError) -> CopyResult {
        try bytes.withBytes { bytes throws(KedgeError) in
            var reader = BinaryReader(bytes, what: "the results of the copy")
            _ = try reader.bytes(Int(slotBytes))
            let flags = try reader.u8()
            let (start, length) = (try reader.varint(), try reader.varint())
            let mode = UInt32(truncatingIfNeeded: try reader.varint())
            let modified = Int64(bitPattern: try reader.u64())
            var identity: FileIdentity?
            if flags & 4 != 0 {
                identity = FileIdentity(inode: try reader.u64(), birthTime: Int64(bitPattern: try reader.u64()))
            }
            var regions: [ContentHash] = []
            for _ in 0..<(try reader.count(itemBytes: 16)) {
                guard let hash = ContentHash(bytes: try reader.bytes(16)) else {
                    throw reader.malformed("a hash is cut")
                }
                regions.append(hash)
            }
            var extents: [Extent] = []
            for _ in 0..<(try reader.count(itemBytes: 2)) { extents.append(try decodedExtent(&reader)) }
            return CopyResult(
                index: index, start: start, length: length, isCut: flags & 1 != 0, exists: flags & 2 != 0, mode: mode,
                modificationTime: modified, identity: identity, regions: regions, extents: extents)
        }
    }

    private static func decodedExtent(_ reader: inout BinaryReader) throws(KedgeError) -> Extent {
        let length = try reader.varint()
        guard try reader.u8() == 1 else { return Extent(length: length, source: .zeros) }
        guard let pack = RandomID(bytes: try reader.bytes(16)) else { throw reader.malformed("a pack id is cut") }
        let frame = UInt32(truncatingIfNeeded: try reader.varint())
        let offset = UInt32(truncatingIfNeeded: try reader.varint())
        return Extent(length: length, source: .pack(pack, frame: frame, offset: offset))
    }
}

extension CopyResult {
    /// What the manifest says of a file that was copied as `results`, in order of their starts. Nil for a file that had
    /// vanished before its first byte was read.
    ///
    /// The file ends where the first range that was cut ends: what another worker read beyond that was read before a
    /// truncation, and replay truncates it again (or extends it, with the content).
    package static func assemble(_ results: [CopyResult]) -> (content: FileContent, mode: UInt32, time: Int64)? {
        guard let first = results.first, first.start == 0, first.exists else { return nil }
        var size: UInt64 = 0
        var regions: [ContentHash?] = []
        var extents: [Extent] = []
        var identity = first.identity
        for result in results {
            precondition(result.start == size, "the ranges of a file leave a gap")
            // Made anew between two ranges: never to be taken for either.
            if result.exists && result.identity != identity { identity = nil }
            size += result.length
            regions += result.regions.map(Optional.some)
            extents += result.extents
            if result.isCut { break }
        }
        let content = FileContent(size: size, identity: identity, regions: regions, extents: extents)
        return (content, first.mode, first.modificationTime)
    }
}

// What a pack's table says of its stream: where frames and pieces of files begin, and the pieces' checksums. Without
// paths, so that the tables of many packs fit into little memory.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import Synchronization

/// The places in one pack's stream.
final class PackContents: Sendable {
    /// Where each frame begins in the stream, and where the last one ends.
    private let frames: [UInt64]
    /// Where each piece of a file begins, ascending.
    private let starts: [UInt64]
    private let lengths: [UInt32]
    private let checksums: [ContentHash]

    /// About how many bytes it takes.
    var memoryBytes: Int { frames.count * 8 + starts.count * 28 }

    fileprivate init(_ table: PackTable) {
        var (frames, starts, lengths, checksums): ([UInt64], [UInt64], [UInt32], [ContentHash]) = ([0], [], [], [])
        frames.reserveCapacity(table.frames.count + 1)
        starts.reserveCapacity(table.sources.count)
        lengths.reserveCapacity(table.sources.count)
        checksums.reserveCapacity(table.sources.count)
        var position: UInt64 = 0
        for frame in table.frames {
            var start = position
            for source in table.sources[frame.sources] {
                starts.append(start)
                lengths.append(UInt32(truncatingIfNeeded: source.length))
                checksums.append(source.checksum)
                start += source.length
            }
            position += UInt64(frame.rawLength)
            frames.append(position)
        }
        (self.frames, self.starts, self.lengths, self.checksums) = (frames, starts, lengths, checksums)
    }

    /// The place in the stream of a run of `length` bytes. Nil where the pack has no such run.
    func range(frame: UInt32, offset: UInt32, length: UInt64) -> Range<UInt64>? {
        let frame = Int(frame)
        guard frame + 1 < frames.count, frames[frame] + UInt64(offset) < frames[frame + 1] else { return nil }
        let start = frames[frame] + UInt64(offset)
        guard let end = frames.last, length <= end - start else { return nil }
        return start..<start + length
    }

    /// The checksum of the piece that is exactly this run; nil where it is no whole piece, or several.
    func checksum(of range: Range<UInt64>) -> ContentHash? {
        var (low, high) = (0, starts.count)
        while low < high {
            let middle = (low + high) / 2
            if starts[middle] < range.lowerBound { low = middle + 1 } else { high = middle }
        }
        guard low < starts.count, starts[low] == range.lowerBound,
            UInt64(lengths[low]) == range.upperBound - range.lowerBound
        else { return nil }
        return checksums[low]
    }
}

/// Reads tables, and keeps those used last. Any number of threads may ask.
final class PackContentsCache: Sendable {
    private let cluster: ClusterRepository
    private let limit: Int
    private let state = Mutex(State())

    private struct State {
        var packs: [RandomID: (contents: PackContents, lastUse: UInt64)] = [:]
        var bytes = 0
        var clock: UInt64 = 0
    }

    /// Keeps about `memoryBytes` of tables, and at least the one used last.
    init(_ cluster: ClusterRepository, memoryBytes: Int = 16 << 20) {
        self.cluster = cluster
        limit = memoryBytes
    }

    /// The table of one pack. Throws `damaged`, `not-found` where there is no such pack, and what reading throws.
    func contents(of id: RandomID) throws(KedgeError) -> PackContents {
        let known = state.withLock { state in
            state.clock += 1
            state.packs[id]?.lastUse = state.clock
            return state.packs[id]?.contents
        }
        if let known { return known }
        let contents = try read(id)
        state.withLock { state in
            if state.packs.updateValue((contents, state.clock), forKey: id) == nil {
                state.bytes += contents.memoryBytes
            }
            while state.bytes > limit, state.packs.count > 1,
                let oldest = state.packs.filter({ $0.key != id }).min(by: { $0.value.lastUse < $1.value.lastUse })
            {
                state.packs[oldest.key] = nil
                state.bytes -= oldest.value.contents.memoryBytes
            }
        }
        return contents
    }

    private func read(_ id: RandomID) throws(KedgeError) -> PackContents {
        let relative = ClusterLayout.pack(id)
        let name = cluster.name(relative)
        let store = cluster.repository.store
        guard let status = try store.status(of: name) else { throw missingPack(id, cluster) }
        let reader = try ObjectReader(
            kind: .pack, name: cluster.scoped(relative), keyRing: cluster.repository.keyRing, length: status.sizeBytes
        ) { (range) throws(KedgeError) in try store.read(name, range: range) }
        return PackContents(try reader.packDirectory().table)
    }
}

/// The error of a pack that a backup refers to and that is not there.
func missingPack(_ id: RandomID, _ cluster: ClusterRepository) -> KedgeError {
    KedgeError(
        .notFound, "pack \"\(id)\" is missing from repository \"\(cluster.repository.name)\"",
        detail: "The store answered that there is no object \"\(cluster.name(ClusterLayout.pack(id)))\".",
        hint: "Restore the backups that need it from another repository, and take a new full backup.")
}

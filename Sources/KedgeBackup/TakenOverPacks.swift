// What packs of interrupted backups hold, by content, for a new backup that finds the same content again.
//
//   region that would be stored ──same checksum and length in a table?──▶ that frame is read back ──same bytes?──▶ used
//        └──────────no, or anything is wrong with it──▶ stored
//
// Invariants:
// 1. A checksum only says where to look. What is used was opened (authenticated, decompressed) and equals the bytes of
//    the file as they are now, one by one: neither a collision nor damage nor a stale table makes a wrong backup.
// 2. Memory does not grow with the packs: the table lies in a file without a name.
//
//   slots, a power of two of them: checksum 16 bytes, length 4, pack's index plus 1 (0: empty) 4, frame 4, offset 4

import Glibc
package import KedgeCatalog
import KedgeCodec
package import KedgeCore
package import KedgeRepository
import Synchronization

/// The table of what can be taken over, and what was. Shared by the workers of one backup.
package final class TakenOverPacks: Sendable {
    /// Where some content lies.
    package struct Place: Hashable, Sendable {
        package let pack: RandomID
        package let frame: UInt32
        /// In the frame's raw bytes.
        package let offset: UInt32
        /// Whether it is all of the frame.
        package let isWholeFrame: Bool
        fileprivate let packIndex: Int
    }

    private struct State: ~Copyable {
        var slots: ScratchFile
        /// Raw bytes by the index of the pack.
        var bytes: [UInt64]
        var unusable: Set<Int> = []
        var reasons: [String] = []
    }

    let directories: PackDirectories
    private let packs: [(id: RandomID, label: Label)]
    private let slotCount: UInt64
    private let state: Mutex<State>

    private static let slotBytes: UInt64 = 32
    /// A slot further away than this from where its checksum belongs is not looked for: that content is stored anew.
    private static let maximumProbes: UInt64 = 256

    /// Reads the tables of the packs of `interrupted`; nil if there is nothing in them. `log` gets sentences about
    /// packs that are left alone.
    package convenience init?(
        _ interrupted: InterruptedBackups, in cluster: ClusterRepository, workDirectory: RawPath,
        unless interruption: Interruption, log: (String) -> Void
    ) throws(KedgeError) {
        let random = cluster.repository.random
        let entries = try ScratchFile(in: workDirectory, random: random)
        var packs: [(id: RandomID, label: Label)] = []
        let left = try interrupted.forEachPack(unless: interruption) { pack throws(KedgeError) in
            packs.append((pack.id, pack.label))
            for entry in TakenOverPacks.entries(of: pack.directory.table, packIndex: packs.count - 1) {
                try entries.append(entry)
            }
        }
        left.forEach(log)
        let count = entries.sizeBytes / TakenOverPacks.slotBytes
        guard count > 0 else { return nil }
        try self.init(packs, entries, count: count, PackDirectories(cluster), workDirectory, random)
    }

    private init(
        _ packs: [(id: RandomID, label: Label)], _ entries: ScratchFile, count: UInt64, _ directories: PackDirectories,
        _ workDirectory: RawPath, _ random: any RandomSource
    ) throws(KedgeError) {
        self.packs = packs
        self.directories = directories
        let slots = try ScratchFile(in: workDirectory, random: random)
        var slotCount: UInt64 = 64
        while slotCount < 2 * count { slotCount *= 2 }
        self.slotCount = slotCount
        for _ in 0..<slotCount / 64 { try slots.append([UInt8](repeating: 0, count: 64 * Int(Self.slotBytes))) }
        for index in 0..<count {
            let entry = try entries.read(count: Int(Self.slotBytes), at: index * Self.slotBytes)
            try Self.insert(entry, into: slots, slotCount)
        }
        state = Mutex(State(slots: slots, bytes: [UInt64](repeating: 0, count: packs.count)))
    }

    // MARK: - Taking over

    /// Where exactly these bytes lie, after they were read back and compared; nil if they have to be stored.
    ///
    /// Throws where the repository could not be read; what is wrong with a pack makes that pack unusable and no more.
    func place(
        of bytes: UnsafeRawBufferPointer, _ checksum: ContentHash, with reader: PackReader
    ) throws(KedgeError) -> Place? {
        guard let place = try find(checksum, length: bytes.count) else { return nil }
        do throws(KedgeError) {
            var position = 0
            var isSame = true
            try reader.read(
                place.pack, frame: place.frame, offset: place.offset, length: UInt64(bytes.count)
            ) { piece throws(KedgeError) in
                if let start = piece.baseAddress, let present = bytes.baseAddress,
                    position + piece.count <= bytes.count
                {
                    isSame = isSame && memcmp(start, present + position, piece.count) == 0
                }
                position += piece.count
            }
            guard isSame, position == bytes.count else { return nil }
        } catch {
            guard error.code == .notFound || error.code.isAboutTheObject else { throw error }
            giveUp(place.packIndex, error)
            return nil
        }
        state.withLock { $0.bytes[place.packIndex] += UInt64(bytes.count) }
        return place
    }

    /// Forgets what was taken over: the copy starts over.
    func startOver() {
        state.withLock { state in state.bytes = [UInt64](repeating: 0, count: packs.count) }
    }

    /// What was taken over, by the backup that had stored it. Raw bytes.
    package var takenOver: [CommitRecord.TakenOver] {
        var sums: [Label: UInt64] = [:]
        state.withLock { state in
            for (pack, bytes) in zip(packs, state.bytes) where bytes > 0 { sums[pack.label, default: 0] += bytes }
        }
        return sums.sorted { $0.key < $1.key }.map { CommitRecord.TakenOver(label: $0.key, bytes: $0.value) }
    }

    /// Sentences about packs that turned out to be of no use.
    package var fallbacks: [String] { state.withLock { $0.reasons } }

    private func giveUp(_ packIndex: Int, _ error: KedgeError) {
        let pack = packs[packIndex]
        state.withLock { state in
            guard state.unusable.insert(packIndex).inserted else { return }
            state.reasons.append(
                "Pack \(pack.id) of interrupted backup \(pack.label) was not used any more: \(error.message)"
                    + "\(error.detail.map { " (\($0))" } ?? "").")
        }
    }

    private func find(_ checksum: ContentHash, length: Int) throws(KedgeError) -> Place? {
        let found = try state.withLock { (state) throws(KedgeError) -> (pack: Int, frame: UInt32, offset: UInt32)? in
            for probe in 0..<Self.maximumProbes {
                let slot = try state.slots.read(
                    count: Int(Self.slotBytes), at: Self.slot(checksum.low, probe, slotCount))
                let entry = Self.decoded(slot)
                guard entry.pack > 0 else { return nil }
                guard entry.checksum == checksum, Int(entry.length) == length else { continue }
                let pack = Int(entry.pack) - 1
                return state.unusable.contains(pack) ? nil : (pack, entry.frame, entry.offset)
            }
            return nil
        }
        guard let found else { return nil }
        let id = packs[found.pack].id
        var isWholeFrame = false
        do throws(KedgeError) {
            let rawLength = try directories.directory(of: id).rawLength(ofFrame: UInt64(found.frame))
            isWholeFrame = found.offset == 0 && rawLength == length
        } catch {
            guard error.code == .notFound || error.code.isAboutTheObject else { throw error }
            giveUp(found.pack, error)
            return nil
        }
        return Place(
            pack: id, frame: found.frame, offset: found.offset, isWholeFrame: isWholeFrame, packIndex: found.pack)
    }

    // MARK: - The table

    private static func entries(of table: PackTable, packIndex: Int) -> [[UInt8]] {
        var entries: [[UInt8]] = []
        for (number, frame) in table.frames.enumerated() {
            var offset: UInt64 = 0
            for source in table.sources[frame.sources] {
                var bytes: [UInt8] = []
                bytes.reserveCapacity(Int(slotBytes))
                bytes.append(littleEndian: source.checksum.high)
                bytes.append(littleEndian: source.checksum.low)
                // A frame has at most 16 MiB, a pack at most 2^20 frames.
                bytes.append(littleEndian: UInt32(truncatingIfNeeded: source.length))
                bytes.append(littleEndian: UInt32(truncatingIfNeeded: packIndex + 1))
                bytes.append(littleEndian: UInt32(truncatingIfNeeded: number))
                bytes.append(littleEndian: UInt32(truncatingIfNeeded: offset))
                entries.append(bytes)
                offset += source.length
            }
        }
        return entries
    }

    private typealias Entry = (checksum: ContentHash, length: UInt32, pack: UInt32, frame: UInt32, offset: UInt32)

    private static func decoded(_ slot: [UInt8]) -> Entry {
        slot.withUnsafeBytes { bytes in
            func word(_ offset: Int) -> UInt32 {
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
            }
            func long(_ offset: Int) -> UInt64 {
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            }
            return (ContentHash(high: long(0), low: long(8)), word(16), word(20), word(24), word(28))
        }
    }

    private static func slot(_ hash: UInt64, _ probe: UInt64, _ slotCount: UInt64) -> UInt64 {
        ((hash &+ probe) & (slotCount - 1)) * slotBytes
    }

    /// Content that is there already, or has no room near its place, is left out.
    private static func insert(
        _ bytes: [UInt8], into slots: ScratchFile, _ slotCount: UInt64
    ) throws(KedgeError) {
        let entry = decoded(bytes)
        for probe in 0..<maximumProbes {
            let place = slot(entry.checksum.low, probe, slotCount)
            let present = decoded(try slots.read(count: Int(slotBytes), at: place))
            if present.pack == 0 { return try slots.overwrite(bytes, at: place) }
            if present.checksum == entry.checksum, present.length == entry.length { return }
        }
    }
}

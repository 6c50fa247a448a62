// What a full backup costs at the least: every file of a data directory is read, its pages are checked, its regions are
// identified, compressed and sealed. Nothing is listed, named or kept.
import KedgeCodec
import KedgeCore
import KedgePostgres
import Synchronization

/// The work of a full backup without the backup.
struct Tree {
    let directory: RawPath
    let threads: Int
    let compression: CompressionChoice
    let keyRing: KeyRing

    private static let regionBytes = 1 << 20
    private static let rangeBytes: UInt64 = 16 << 20
    private static let pageBytes = 8192
    private static let relationSegmentBlocks: UInt32 = 131_072

    /// A part of a file that one thread works on.
    private struct Item {
        let path: RawPath
        let range: Range<UInt64>
        /// The number of the file's first page in its relation; nil for what is no relation.
        let firstBlock: UInt32?
    }

    /// What came of it.
    struct Totals {
        var rawBytes: UInt64 = 0
        var storedBytes: UInt64 = 0
        var badPages: UInt64 = 0
    }

    /// Does the work. Throws what reading and sealing throw.
    func run() throws(KedgeError) -> Totals {
        var items: [Item] = []
        try Tree.list(directory, isRoot: true, isBase: false, into: &items)
        let random = SystemRandomSource()
        let seal = try ObjectSeal(
            writing: .pack, name: ScopedName(scope: RandomID(from: random), name: "codec-only"),
            compression: compression, keyRing: keyRing, random: random)
        let totals = Mutex(Totals())
        let all = items
        try parallelFor(
            count: all.count, threads: threads, name: "codec",
            makeState: { () throws(KedgeError) in try TreeWorker(seal) },
            body: { (worker, number) throws(KedgeError) in
                let done = try Tree.seal(all[number], frame: UInt32(number) << 8, with: worker)
                totals.withLock { totals in
                    totals.rawBytes += done.rawBytes
                    totals.storedBytes += done.storedBytes
                    totals.badPages += done.badPages
                }
            })
        return totals.withLock { $0 }
    }

    private static func list(
        _ directory: RawPath, isRoot: Bool, isBase: Bool, into items: inout [Item]
    ) throws(KedgeError) {
        for entry in try Directory.entries(at: directory) {
            let path = directory.appending(entry.name)
            let name = String(decoding: entry.name.bytes, as: UTF8.self)
            if entry.kind == .directory {
                if isRoot && name == "pg_wal" { continue }
                try list(path, isRoot: false, isBase: isBase || isRoot && name == "base", into: &items)
            } else if entry.kind == .regular {
                let size = try FileStatus(at: path).sizeBytes
                let first = isBase ? firstBlock(name) : nil
                for start in stride(from: 0, to: size, by: Int(rangeBytes)) {
                    items.append(Item(path: path, range: start..<min(start + rangeBytes, size), firstBlock: first))
                }
            }
        }
    }

    /// Of `16384`, `16384.1`, `16384_fsm`; nil for other names.
    private static func firstBlock(_ name: String) -> UInt32? {
        guard name.first?.isNumber == true else { return nil }
        let parts = name.split(separator: ".")
        guard parts.count == 2 else { return 0 }
        return UInt32(parts[1]).map { $0 &* relationSegmentBlocks }
    }

    private static func seal(_ item: Item, frame: UInt32, with worker: TreeWorker) throws(KedgeError) -> Totals {
        var totals = Totals()
        let file = try FileDescriptor.open(item.path, .read)
        var (offset, number) = (item.range.lowerBound, frame)
        while offset < item.range.upperBound {
            let wanted = min(regionBytes, Int(item.range.upperBound - offset))
            let room = UnsafeMutableRawBufferPointer(rebasing: worker.region[..<wanted])
            let count = try file.read(into: room, at: offset)
            guard count > 0 else { break }
            let bytes = UnsafeRawBufferPointer(rebasing: worker.region[..<count])
            if let first = item.firstBlock {
                let block = first &+ UInt32(truncatingIfNeeded: offset / UInt64(pageBytes))
                for index in 0..<count / pageBytes {
                    let page = DataPage(
                        UnsafeRawBufferPointer(rebasing: bytes[index * pageBytes..<(index + 1) * pageBytes]))
                    if page.verdict(block: block &+ UInt32(index)) != .valid { totals.badPages += 1 }
                }
            }
            worker.fold(ContentHash(of: bytes))
            totals.storedBytes += UInt64(try worker.seal(bytes, number: number))
            totals.rawBytes += UInt64(count)
            offset += UInt64(count)
            number += 1
        }
        return totals
    }
}

/// One thread's buffers and contexts.
private final class TreeWorker {
    let region = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    private let sealer: FrameSealer
    private var buffer = FrameBuffer()
    private var hash: UInt64 = 0

    init(_ seal: ObjectSeal) throws(KedgeError) { sealer = try FrameSealer(seal) }

    deinit { region.deallocate() }

    /// So that no compiler leaves the hash out.
    func fold(_ other: ContentHash) { hash ^= other.low }

    func seal(_ bytes: UnsafeRawBufferPointer, number: UInt32) throws(KedgeError) -> Int {
        buffer.removeAll()
        try sealer.append(.data, number: number, raw: bytes, to: &buffer)
        return buffer.count
    }
}

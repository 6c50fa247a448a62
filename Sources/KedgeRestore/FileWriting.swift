// Writes the files of a restore, by several workers.
//
// 1. Every file is made anew (O_EXCL, O_NOFOLLOW): nothing that exists is ever written to. With --delta files that are
//    there are put right in place, see ContentAlignment.swift.
// 2. Small files go in batches of neighbours, which share frames; a large file is cut into ranges that several workers
//    write in place. Memory: one region and one frame a worker, whatever the sizes are.
// 3. The CRC32C of each file is computed from the very bytes that are written, and kept by the file's number.
// 4. A file gets its mode when its content is complete: one that its owner may not write has to be opened again by
//    every worker that writes a range of it.
// 5. Nothing here is durable: the caller syncs the file systems before it writes the file that lets a server start.

import KedgeCatalog
import KedgeCore
import KedgeRepository

/// One file to be written.
struct FileTask: Sendable {
    /// Its number among the files of the manifest, from 0.
    let number: UInt64
    let path: ManifestPath
    /// Where it is written.
    let place: RawPath
    let mode: UInt32
    let modificationTime: Int64
    let content: FileContent
}

/// What a worker takes from the queue.
enum WriteItem: Sendable {
    case wholeFiles([FileTask])
    case range(LargeFile, regions: Range<Int>)
}

/// The CRC32C of every file by its number; on disk, since a cluster may have a million files.
final class ChecksumList: Sendable {
    private let file: Monitor<ScratchFile>

    /// Room for `count` files, in `directory`.
    init(count: UInt64, in directory: RawPath, random: any RandomSource) throws(KedgeError) {
        let scratch = try ScratchFile(in: directory, random: random)
        var rest = count * 4
        while rest > 0 {
            let piece = min(rest, 64 << 10)
            try scratch.append([UInt8](repeating: 0, count: Int(piece)))
            rest -= piece
        }
        file = Monitor(scratch)
    }

    func set(_ checksum: UInt32, of number: UInt64) throws(KedgeError) {
        let bytes = withUnsafeBytes(of: checksum.littleEndian) { Array($0) }
        try access { (scratch) throws(KedgeError) in try scratch.overwrite(bytes, at: number * 4) }
    }

    func checksum(of number: UInt64) throws(KedgeError) -> UInt32 {
        let bytes = try access { (scratch) throws(KedgeError) in try scratch.read(count: 4, at: number * 4) }
        return bytes.withBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    }

    private func access<Value>(_ body: (ScratchFile) throws(KedgeError) -> Value) throws(KedgeError) -> Value {
        let result = file.update { scratch in
            Result { () throws(KedgeError) in try body(scratch) }
        }
        return try result.get()
    }
}

/// A file that several workers write, and how far they are.
final class LargeFile: Sendable {
    let task: FileTask
    /// How many bytes the file had before anything was written; 0 for a new one.
    let presentBytes: UInt64
    private let state: Monitor<State>

    private struct State {
        var remaining: Int
        /// The CRC and the length of each range that is done, by its first region.
        var ranges: [Int: (crc: UInt32, length: UInt64)] = [:]
    }

    init(_ task: FileTask, presentBytes: UInt64, ranges: Int) {
        self.task = task
        self.presentBytes = presentBytes
        state = Monitor(State(remaining: ranges))
    }

    /// Notes a range that is written. Returns the CRC of the whole file after the last one.
    func finish(from region: Int, crc: UInt32, length: UInt64) -> UInt32? {
        state.update { state in
            state.ranges[region] = (crc, length)
            state.remaining -= 1
            guard state.remaining == 0 else { return nil }
            var whole: UInt32 = 0
            for (_, range) in state.ranges.sorted(by: { $0.key < $1.key }) {
                whole = CRC32C.combine(whole, range.crc, secondLength: range.length)
            }
            return whole
        }
    }
}

/// One worker's hands.
final class FileWorker {
    let alignment: ContentAlignment?
    let reader: ContentReader
    let progress: WorkProgress
    let interruption: Interruption
    private let checksums: ChecksumList
    /// One region of a file that is there.
    var buffer: [UInt8]

    init(
        alignment: ContentAlignment?, directories: PackDirectories, checksums: ChecksumList, progress: WorkProgress,
        interruption: Interruption
    ) {
        self.alignment = alignment
        buffer = [UInt8](repeating: 0, count: alignment == nil ? 0 : Int(regionSize))
        reader = ContentReader(directories)
        self.checksums = checksums
        self.progress = progress
        self.interruption = interruption
    }

    func write(_ item: WriteItem) throws(KedgeError) {
        switch item {
        case .wholeFiles(let tasks):
            for task in tasks { try write(task) }
        case .range(let file, let regions): try write(regions, of: file)
        }
    }

    private func write(_ task: FileTask) throws(KedgeError) {
        let regions = 0..<task.content.regions.count
        guard let alignment else {
            let file = try FileWorker.create(task)
            let crc = try copy(regions, of: task, to: file)
            try FileWorker.finish(file, of: task)
            return try checksums.set(crc, of: task.number)
        }
        guard let file = try alignment.open(task) else {
            return alignment.count(fetched: task.content.size, progress)
        }
        let present = try file.status()
        let crc = try align(regions, of: task, presentBytes: present.sizeBytes, in: file)
        guard !alignment.isDryRun else { return }
        try FileWorker.finish(file, of: task)
        try checksums.set(crc, of: task.number)
    }

    private func write(_ regions: Range<Int>, of large: LargeFile) throws(KedgeError) {
        let task = large.task
        let isDryRun = alignment?.isDryRun == true
        let options: OpenOptions = isDryRun ? [.read] : [.read, .write]
        let file = try FileDescriptor.open(task.place, options.union(.noFollow))
        let crc =
            alignment == nil
            ? try copy(regions, of: task, to: file)
            : try align(regions, of: task, presentBytes: large.presentBytes, in: file)
        guard !isDryRun else { return }
        let start = UInt64(regions.lowerBound) * regionSize
        let length = min(UInt64(regions.upperBound) * regionSize, task.content.size) - start
        // The kernel begins to write now, so that the sync at the end does not find everything left to do.
        file.startWriteback(offset: start, length: length, wait: false)
        guard let whole = large.finish(from: regions.lowerBound, crc: crc, length: length) else { return }
        try FileWorker.finish(file, of: task)
        try checksums.set(whole, of: task.number)
    }

    /// Writes regions of a file and returns their CRC.
    private func copy(
        _ regions: Range<Int>, of task: FileTask, to file: borrowing FileDescriptor
    ) throws(KedgeError) -> UInt32 {
        var crc: UInt32 = 0
        // Small files go through the page cache, which writes many of them at once.
        let isLarge = task.content.regions.count > 1
        try reader.read(task.content, regions: regions, path: task.path) { (bytes, offset) throws(KedgeError) in
            try interruption.checkpoint()
            if isLarge { try file.writeDirect(bytes, at: offset) } else { try file.write(bytes, at: offset) }
            crc = CRC32C.checksum(bytes, continuing: crc)
            progress.advance(bytes.count)
        }
        return crc
    }

    /// Makes the file, empty and ours to write. Throws `already-exists` where anything has its name.
    static func create(_ task: FileTask) throws(KedgeError) -> FileDescriptor {
        try FileDescriptor.open(task.place, [.read, .write, .create, .exclusive, .noFollow], mode: 0o600)
    }

    /// Gives a file whose content is complete the mode and the time that the manifest has.
    private static func finish(_ file: borrowing FileDescriptor, of task: FileTask) throws(KedgeError) {
        let status = try file.status()
        if status.mode != task.mode & 0o777 { try file.setMode(task.mode & 0o777) }
        if status.modifiedNanoseconds != task.modificationTime {
            try file.setTimes(nanoseconds: task.modificationTime)
        }
    }
}

/// Turns the files of a manifest into items for the workers.
struct WriteQueue {
    private let pool: WorkerPool<WriteItem>
    private let alignment: ContentAlignment?
    private let progress: WorkProgress
    private var batch: [FileTask] = []
    private var batchBytes: UInt64 = 0

    /// Regions of a large file that one worker writes at a time.
    private static let rangeRegions = 16
    private static let batchFiles = 64
    private static let batchLimit: UInt64 = 4 << 20

    init(
        workers: Int, alignment: ContentAlignment?, progress: WorkProgress,
        makeWorker: @escaping @Sendable () -> FileWorker
    ) throws(KedgeError) {
        self.alignment = alignment
        self.progress = progress
        pool = try WorkerPool(
            name: "restore", workers: workers, queueLimit: 2 * workers,
            makeState: { (_) throws(KedgeError) in makeWorker() },
            body: { (worker, item) throws(KedgeError) in try worker.write(item) },
            finishState: { (_) throws(KedgeError) in })
    }

    /// Queues a file; waits while the queue is full.
    mutating func add(_ task: FileTask) throws(KedgeError) {
        guard task.content.regions.count > 1 else {
            batch.append(task)
            batchBytes += task.content.size
            if batch.count == WriteQueue.batchFiles || batchBytes >= WriteQueue.batchLimit { try submitBatch() }
            return
        }
        var presentBytes: UInt64 = 0
        if let alignment {
            guard let file = try alignment.open(task) else {
                return alignment.count(fetched: task.content.size, progress)
            }
            presentBytes = try file.status().sizeBytes
        } else {
            let file = try FileWorker.create(task)
            try file.allocate(task.content.size)
            try file.close()
        }
        let count = task.content.regions.count
        let starts = stride(from: 0, to: count, by: WriteQueue.rangeRegions)
        let large = LargeFile(task, presentBytes: presentBytes, ranges: starts.underestimatedCount)
        for start in starts {
            try pool.submit(.range(large, regions: start..<min(start + WriteQueue.rangeRegions, count)))
        }
    }

    /// Waits until everything is written.
    mutating func finish() throws(KedgeError) {
        try submitBatch()
        try pool.finish()
    }

    private mutating func submitBatch() throws(KedgeError) {
        guard !batch.isEmpty else { return }
        try pool.submit(.wholeFiles(batch))
        batch = []
        batchBytes = 0
    }
}

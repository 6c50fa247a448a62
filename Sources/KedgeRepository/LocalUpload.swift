// An object of a local store that is written piece by piece: packs, above all.
//
// It goes past the page cache in whole windows, and whoever writes so waits for the disk (docs/decisions/0020). So a
// thread of the upload's own writes one window while the other is filled:
//
//   filled ──it is full──▶ the writer is done with the other ──▶ the writer's, and the other is filled
//                                    └──it failed──▶ this call throws that error and so does every later one
//
// The file is the writer's until that has ended, which is before it is made durable, published or given up.

import KedgeCore

/// A file that grows by appends and is published at the end.
final class LocalUpload: ObjectUpload {
    private let written: WrittenFile
    private let name: ObjectName
    private let store: LocalStore
    /// Two windows, each on one huge page where there are any: one piece for the disk. Freed with the upload.
    private let memory: UnsafeMutableRawBufferPointer
    /// What was appended and is not given to the writer yet is in this window.
    private var isSecond = false
    private var filledCount = 0
    /// Nil before the first window is full: what is smaller takes no thread.
    private var writer: Thread?
    private let turn = Monitor(Turn())

    /// What the writer has to do.
    private struct Turn {
        /// A full window, by its place in the memory; it is the writer's until this is nil again.
        var window: Range<Int>?
        /// Of the write that failed; none is tried after it.
        var failure: KedgeError?
        var isOver = false
    }

    init(_ file: DurableFile, name: ObjectName, store: LocalStore) {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: 2 * LocalUpload.windowBytes, alignment: LocalUpload.windowBytes)
        preferHugePages(memory)
        self.memory = memory
        written = WrittenFile(file, UnsafeRawBufferPointer(memory), name: name, store: store)
        self.name = name
        self.store = store
    }

    deinit {
        endWriter()
        memory.deallocate()
    }

    private var window: Range<Int> {
        isSecond ? LocalUpload.windowBytes..<2 * LocalUpload.windowBytes : 0..<LocalUpload.windowBytes
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        var rest = bytes
        while !rest.isEmpty {
            if filledCount == LocalUpload.windowBytes { try handOver() }
            let count = min(rest.count, LocalUpload.windowBytes - filledCount)
            let start = window.lowerBound + filledCount
            UnsafeMutableRawBufferPointer(rebasing: memory[start..<start + count])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            filledCount += count
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }

    /// Gives the full window to the writer once that is done with the other one, which is filled from now on.
    private func handOver() throws(KedgeError) {
        if writer == nil { writer = try startWriter() }
        let full = window
        let failure: KedgeError?? = turn.wait { turn in
            if let failure = turn.failure { return .some(failure) }
            guard turn.window == nil else { return nil }
            turn.window = full
            return .some(nil)
        }
        if case .some(.some(let error)) = failure { throw error }
        isSecond.toggle()
        filledCount = 0
    }

    private func startWriter() throws(KedgeError) -> Thread {
        let (turn, written) = (turn, written)
        return try Thread(name: "pack-writer") {
            while true {
                let next: Range<Int>?? = turn.wait { turn in
                    if let window = turn.window { return .some(window) }
                    return turn.isOver ? .some(nil) : nil
                }
                guard case .some(.some(let window)) = next else { return }
                do throws(KedgeError) {
                    try written.append(window)
                    turn.update { $0.window = nil }
                } catch {
                    turn.update { ($0.window, $0.failure) = (nil, error) }
                }
            }
        }
    }

    /// Ends the writer when it has written what it was given.
    private func endWriter() {
        turn.update { $0.isOver = true }
        writer?.join()
        writer = nil
    }

    func finish() throws(KedgeError) -> PutOutcome {
        endWriter()
        if let failure = turn.update({ $0.failure }) { throw failure }
        let start = window.lowerBound
        try written.append(start..<start + filledCount)
        filledCount = 0
        return try store.publish(written.file, as: name, replacing: false, sizeBytes: written.sizeBytes)
    }

    func abort() {
        endWriter()
        written.file.discard()
    }

    /// One huge page. Of 1 MiB or 4 MiB a backup is no faster.
    private static let windowBytes = 2 << 20
}

/// The file, the memory that it is written from, and how far it is written.
///
/// `@unchecked Sendable`: it is the writer's until that has ended, and its owner's before and after; of the memory the
/// writer touches only the window that is its own.
private final class WrittenFile: @unchecked Sendable {
    let file: DurableFile
    private let memory: UnsafeRawBufferPointer
    private let name: ObjectName
    private let store: LocalStore
    private(set) var sizeBytes: UInt64 = 0
    /// Up to here the disk has been asked to write.
    private var startedBytes: UInt64 = 0
    /// Up to here it has written, and the page cache is free.
    private var settledBytes: UInt64 = 0

    init(_ file: DurableFile, _ memory: UnsafeRawBufferPointer, name: ObjectName, store: LocalStore) {
        self.file = file
        self.memory = memory
        self.name = name
        self.store = store
    }

    /// Writes this part of the memory at the end.
    func append(_ part: Range<Int>) throws(KedgeError) {
        do throws(KedgeError) {
            try file.file.writeDirect(UnsafeRawBufferPointer(rebasing: memory[part]), at: sizeBytes)
        } catch {
            throw store.told(error, name, written: sizeBytes, needing: UInt64(part.count))
        }
        sizeBytes += UInt64(part.count)
        if sizeBytes - startedBytes >= WrittenFile.writeBackBytes { writeBack() }
    }

    /// Starts writing what of the newest bytes is in the page cache and lets go of those before: where direct writes
    /// are refused a pack never fills it with dirty pages, and the fsync at the end has little left to do.
    private func writeBack() {
        file.file.startWriteback(offset: startedBytes, length: sizeBytes - startedBytes, wait: false)
        if startedBytes > settledBytes {
            file.file.startWriteback(offset: settledBytes, length: startedBytes - settledBytes, wait: true)
            file.file.advise(.dontNeed, offset: settledBytes, length: startedBytes - settledBytes)
            settledBytes = startedBytes
        }
        startedBytes = sizeBytes
    }

    private static let writeBackBytes: UInt64 = 8 << 20
}

// An object of a local store that is written piece by piece: packs, above all.
//
// It goes past the page cache in whole windows, and what has to go through it is handed to the disk early, so that
// the fsync at the end has little left to do (docs/decisions/0020).

import KedgeCore

/// A file that grows by appends and is published at the end.
final class LocalUpload: ObjectUpload {
    private let file: DurableFile
    private let name: ObjectName
    private let store: LocalStore
    private var sizeBytes: UInt64 = 0
    /// What was appended and is not in the file yet; whole windows go past the page cache. Freed with the upload.
    private let window = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    private var windowCount = 0
    /// Up to here the disk has been asked to write.
    private var startedBytes: UInt64 = 0
    /// Up to here it has written, and the page cache is free.
    private var settledBytes: UInt64 = 0

    init(_ file: DurableFile, name: ObjectName, store: LocalStore) {
        self.file = file
        self.name = name
        self.store = store
    }

    deinit { window.deallocate() }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = min(rest.count, window.count - windowCount)
            UnsafeMutableRawBufferPointer(rebasing: window[windowCount..<windowCount + count])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            windowCount += count
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            if windowCount == window.count { try flush() }
        }
    }

    /// Writes what is in the window.
    private func flush() throws(KedgeError) {
        do throws(KedgeError) {
            try file.file.writeDirect(UnsafeRawBufferPointer(rebasing: window[..<windowCount]), at: sizeBytes)
        } catch {
            throw store.told(error, name, written: sizeBytes, needing: UInt64(windowCount))
        }
        sizeBytes += UInt64(windowCount)
        windowCount = 0
        if sizeBytes - startedBytes >= LocalUpload.windowBytes { writeBack() }
    }

    /// Starts writing the newest window and lets go of the one before: a pack never fills the cache with dirty pages,
    /// and the fsync at the end has little left to do.
    private func writeBack() {
        file.file.startWriteback(offset: startedBytes, length: sizeBytes - startedBytes, wait: false)
        if startedBytes > settledBytes {
            file.file.startWriteback(offset: settledBytes, length: startedBytes - settledBytes, wait: true)
            file.file.advise(.dontNeed, offset: settledBytes, length: startedBytes - settledBytes)
            settledBytes = startedBytes
        }
        startedBytes = sizeBytes
    }

    func finish() throws(KedgeError) -> PutOutcome {
        try flush()
        return try store.publish(file, as: name, replacing: false, sizeBytes: sizeBytes)
    }

    func abort() { file.discard() }

    private static let windowBytes: UInt64 = 8 << 20
}

// Frames that a reader has opened and may need again.

import KedgeCore

/// How frames are filled.
package enum PackLayout {
    /// How many raw bytes a frame of small files or of single pages has, unless one of them is longer.
    ///
    /// A page costs its whole frame to read, and a restore after n deltas needs n frames at a time: short ones fit into
    /// memory. What a codec finds in more than that is little (LZ4 looks 64 KiB back).
    package static let sharedFrameBytes = 128 << 10
}

/// The raw bytes of one frame.
final class OpenedFrame {
    private let buffer: UnsafeMutableRawBufferPointer
    private var count = 0
    /// Nil until the frame was opened as a whole.
    var source: (pack: RandomID, frame: UInt64)?
    fileprivate var lastUse: UInt64 = 0

    fileprivate init(capacity: Int) { buffer = .allocate(byteCount: max(1, capacity), alignment: 16) }

    deinit { buffer.deallocate() }

    var capacity: Int { buffer.count }
    /// Valid while the frame is in use; only what was opened is ever in it.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[..<count]) }

    /// Where to open `count` bytes, at most the capacity. Until that was done the frame is nobody's.
    func place(of count: Int) -> UnsafeMutableRawBufferPointer {
        source = nil
        self.count = count
        return UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
    }
}

/// The frames that one reader keeps: shared ones up to a limit, those used last; of longer ones the last.
struct OpenedFrames {
    private struct Key: Hashable {
        let pack: RandomID
        let frame: UInt64
    }

    private let limit: Int
    private var shared: [Key: OpenedFrame] = [:]
    private var sharedBytes = 0
    private var long: OpenedFrame?
    private var clock: UInt64 = 0

    init(limit: Int) { self.limit = limit }

    /// The frame, if it is kept.
    mutating func use(_ pack: RandomID, _ frame: UInt64) -> OpenedFrame? {
        if let long, let source = long.source, source == (pack, frame) { return long }
        guard let found = shared[Key(pack: pack, frame: frame)] else { return nil }
        clock += 1
        found.lastUse = clock
        return found
    }

    /// A frame with room for `count` bytes: one that is no longer kept, or a new one.
    mutating func makeRoom(for count: Int) -> OpenedFrame {
        var free: OpenedFrame?
        if isShared(count) {
            while sharedBytes + PackLayout.sharedFrameBytes > limit,
                let oldest = shared.min(by: { $0.value.lastUse < $1.value.lastUse })
            {
                shared[oldest.key] = nil
                sharedBytes -= oldest.value.capacity
                free = oldest.value
            }
            return free ?? OpenedFrame(capacity: PackLayout.sharedFrameBytes)
        }
        free = long
        long = nil
        guard let free, free.capacity >= count else { return OpenedFrame(capacity: count) }
        return free
    }

    /// Keeps a frame that came from `makeRoom` and was opened.
    mutating func insert(_ frame: OpenedFrame) {
        guard isShared(frame.bytes.count), let source = frame.source else { return long = frame }
        clock += 1
        frame.lastUse = clock
        sharedBytes += frame.capacity
        // A read of several frames may have opened one that is kept already.
        let old = shared.updateValue(frame, forKey: Key(pack: source.pack, frame: source.frame))
        sharedBytes -= old?.capacity ?? 0
    }

    private func isShared(_ count: Int) -> Bool {
        count <= PackLayout.sharedFrameBytes && limit >= PackLayout.sharedFrameBytes
    }
}

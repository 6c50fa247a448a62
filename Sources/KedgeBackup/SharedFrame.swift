// The common frame of one worker: small files and single pages have shares of it, and their results wait until it is
// stored and they have a place.

import KedgeCatalog
import KedgeCodec
import KedgeRepository

/// The result of a range while it is copied.
struct CopyInProgress {
    var result: CopyResult
    var extents: ExtentBuilder

    /// The result with its extents.
    var finished: CopyResult {
        var result = result
        result.extents = extents.extents
        return result
    }
}

/// The frame that small files and single pages share: its bytes, and the results that wait for its place.
struct SharedFrame: ~Copyable {
    private var buffer = FrameBuffer(capacity: Int(CopyLimits.regionBytes))
    private var waiting: [CopyInProgress] = []
    private(set) var sources: [PackSource] = []
    /// Bounds what is kept for tiny files.
    private static let maximumSources = 4096

    var isEmpty: Bool { sources.isEmpty }

    /// Whether `count` bytes go in: at most a region, which an empty frame always has room for.
    func hasRoom(for count: Int) -> Bool {
        isEmpty || buffer.count + count <= PackLayout.sharedFrameBytes && sources.count < SharedFrame.maximumSources
    }

    /// Valid until the frame changes.
    var bytes: UnsafeRawBufferPointer { buffer.bytes }

    /// Adds bytes, and returns where in the frame they begin.
    mutating func append(_ bytes: UnsafeRawBufferPointer, _ source: PackSource) -> Int {
        defer {
            buffer.append(bytes)
            sources.append(source)
        }
        return buffer.count
    }

    /// Adds a result that has a share in this frame.
    mutating func add(_ result: CopyInProgress) { waiting.append(result) }

    /// Empties the frame, which was stored, and returns the results that waited for that.
    mutating func finish(at place: FramePlace) -> [CopyResult] {
        let results = waiting.map { waiting in
            var waiting = waiting
            waiting.extents.place(at: place)
            return waiting.finished
        }
        buffer.removeAll()
        waiting.removeAll(keepingCapacity: true)
        sources.removeAll(keepingCapacity: true)
        return results
    }
}

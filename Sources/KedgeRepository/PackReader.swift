// Reading from packs: where frames lie, and runs of a pack's stream.
//
// What is handed out was opened: a frame's bytes are authenticated (or their checksum verified) before anybody sees
// them. Memory is bounded: `PackDirectories` keeps the directories of as many packs as their frames fit a limit, a
// `PackReader` one frame's raw bytes, one read's stored bytes, and the shared frames that it was asked to keep.

package import KedgeCodec
package import KedgeCore
import Synchronization

/// Where the frames of a cluster's packs lie. Shared by all threads.
package final class PackDirectories: Sendable {
    package let cluster: ClusterRepository
    private let maximumFrames: Int
    private let cache = Mutex(Cache())

    fileprivate struct Cache {
        var directories: [RandomID: (directory: PackDirectory, lastUse: UInt64)] = [:]
        var frames = 0
        var clock: UInt64 = 0
    }

    /// Keeps directories until they have `maximumFrames` frames together (a frame costs about 24 bytes), and at least
    /// the one used last.
    package init(_ cluster: ClusterRepository, maximumFrames: Int = 200_000) {
        self.cluster = cluster
        self.maximumFrames = maximumFrames
    }

    /// The directory of one pack. Throws `damaged` (also where the pack is gone: a committed backup refers to it) and
    /// what reading throws.
    package func directory(of pack: RandomID) throws(KedgeError) -> PackDirectory {
        if let found = cache.withLock({ $0.use(pack) }) { return found }
        // Two threads may read the same table at once; that costs time and nothing else.
        let directory = try read(pack)
        cache.withLock { $0.insert(directory, of: pack, maximumFrames: maximumFrames) }
        return directory
    }

    /// The directory of one pack with the sources of its frames. It is read each time, since sources take much memory.
    /// Throws as `directory(of:)`.
    package func directoryWithSources(of pack: RandomID) throws(KedgeError) -> PackDirectory {
        try read(pack, keepingSources: true)
    }

    private func read(_ pack: RandomID, keepingSources: Bool = false) throws(KedgeError) -> PackDirectory {
        let relative = ClusterLayout.pack(pack)
        let name = cluster.name(relative)
        let store = cluster.repository.store
        guard let status = try store.status(of: name) else {
            throw KedgeError(
                .damaged, "cannot read pack \"\(pack)\": it is missing from repository \"\(cluster.repository.name)\"",
                detail: "The store answered that there is no object \"\(name)\".",
                hint: "Restore another backup, or this one from another repository.")
        }
        let reader = try ObjectReader(
            kind: .pack, name: cluster.scoped(relative), keyRing: cluster.repository.keyRing, length: status.sizeBytes
        ) { (range) throws(KedgeError) in try store.read(name, range: range) }
        return try reader.packDirectory(keepingSources: keepingSources)
    }
}

extension PackDirectory {
    /// The place in a pack's stream `length` bytes further on than byte `offset` of the raw data of frame `frame`.
    ///
    /// At the stream's very end the place stays in the last frame. Throws `damaged` for a place that the pack does not
    /// have.
    package func place(
        after length: UInt64, frame: UInt32, offset: UInt32
    ) throws(KedgeError) -> (frame: UInt32, offset: UInt32) {
        var (place, rest) = (UInt64(frame), UInt64(offset).addingReportingOverflow(length).partialValue)
        while place + 1 < UInt64(frameCount) {
            let size = UInt64(try rawLength(ofFrame: place))
            guard rest >= size else { break }
            (place, rest) = (place + 1, rest - size)
        }
        guard rest <= UInt64(try rawLength(ofFrame: place)) else {
            var error = seal.damaged("A manifest refers to a place beyond its end.")
            error.hint = "Restore another backup, or this one from another repository."
            throw error
        }
        // A pack has at most 2^20 frames of at most 16 MiB.
        return (UInt32(place), UInt32(rest))
    }
}

extension PackDirectories.Cache {
    fileprivate mutating func use(_ pack: RandomID) -> PackDirectory? {
        clock += 1
        directories[pack]?.lastUse = clock
        return directories[pack]?.directory
    }

    fileprivate mutating func insert(_ directory: PackDirectory, of pack: RandomID, maximumFrames: Int) {
        clock += 1
        if let old = directories.updateValue((directory, clock), forKey: pack) { frames -= old.directory.frameCount }
        frames += directory.frameCount
        while frames > maximumFrames, directories.count > 1,
            let oldest = directories.min(by: { $0.value.lastUse < $1.value.lastUse })
        {
            directories[oldest.key] = nil
            frames -= oldest.value.directory.frameCount
        }
    }
}

/// Reads runs of packs' streams. One for each worker; used by one thread at a time.
package final class PackReader {
    private let directories: PackDirectories
    private var opener: FrameOpener?
    private var openerPack: RandomID?
    private var stored: [UInt8] = []
    private var frames: OpenedFrames

    /// How many stored bytes are asked for in one read, unless one frame has more.
    private static let readBytes: UInt64 = 4 << 20

    /// Keeps opened frames of at most `PackLayout.sharedFrameBytes` until they have `keptBytes` together: after some
    /// deltas a region is made of pages that lie one by one in such frames, and so are its neighbours. Of longer ones,
    /// which hold nothing but one region, the last alone is kept.
    package init(_ directories: PackDirectories, keptBytes: Int = 0) {
        self.directories = directories
        frames = OpenedFrames(limit: keptBytes)
    }

    /// Hands the raw bytes of a run of a pack's stream to `body`, in order, a frame's worth at a time.
    ///
    /// The run begins at `offset` in the raw data of frame `frame`. The bytes are lent for the call. Throws `damaged`
    /// where the pack has no such run, and what reading and `body` throw.
    package func read(
        _ pack: RandomID, frame: UInt32, offset: UInt32, length: UInt64,
        _ body: (UnsafeRawBufferPointer) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        var position = (frame: UInt64(frame), offset: Int(offset))
        var remaining = length
        while remaining > 0 {
            if let frame = frames.use(pack, position.frame) {
                let count = try lend(from: position.offset, of: frame, atMost: remaining, pack, body)
                remaining -= UInt64(count)
                position = (position.frame + 1, 0)
            } else {
                let fetched = try fetch(pack, from: position.frame, bytes: remaining + UInt64(position.offset))
                for frame in fetched where remaining > 0 {
                    let opened = try open(frame, of: pack)
                    let count = try lend(from: position.offset, of: opened, atMost: remaining, pack, body)
                    remaining -= UInt64(count)
                    position = (frame.number + 1, 0)
                }
            }
        }
    }

    /// Fills `out` with the raw bytes of a run of a pack's stream. Frames that lie in it as a whole are opened in
    /// place.
    ///
    /// As above. What `out` holds after an error is of no use.
    package func read(
        _ pack: RandomID, frame: UInt32, offset: UInt32, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        var position = (frame: UInt64(frame), offset: Int(offset))
        var filled = 0
        func copy(_ piece: UnsafeRawBufferPointer) {
            UnsafeMutableRawBufferPointer(rebasing: out[filled..<filled + piece.count]).copyMemory(from: piece)
        }
        while filled < out.count {
            if let frame = frames.use(pack, position.frame) {
                let limit = UInt64(out.count - filled)
                filled += try lend(from: position.offset, of: frame, atMost: limit, pack, copy)
                position = (position.frame + 1, 0)
                continue
            }
            let fetched = try fetch(
                pack, from: position.frame, bytes: UInt64(out.count - filled) + UInt64(position.offset))
            for frame in fetched where filled < out.count {
                let rest = UnsafeMutableRawBufferPointer(rebasing: out[filled...])
                if position.offset == 0 && frame.rawLength <= rest.count && frame.rawLength > 0 {
                    try open(frame, into: UnsafeMutableRawBufferPointer(rebasing: rest[..<frame.rawLength]))
                    filled += frame.rawLength
                } else {
                    let opened = try open(frame, of: pack)
                    filled += try lend(from: position.offset, of: opened, atMost: UInt64(rest.count), pack, copy)
                }
                position = (frame.number + 1, 0)
            }
        }
    }

    /// Lends bytes of an opened frame. Returns how many.
    private func lend(
        from offset: Int, of frame: OpenedFrame, atMost limit: UInt64, _ pack: RandomID,
        _ body: (UnsafeRawBufferPointer) throws(KedgeError) -> Void
    ) throws(KedgeError) -> Int {
        let bytes = frame.bytes
        guard offset < bytes.count else {
            throw KedgeError(
                .damaged, "cannot read pack \"\(pack)\"",
                detail: "A manifest refers to byte \(offset) of a frame that has \(bytes.count).",
                hint: "Restore another backup, or this one from another repository.")
        }
        let end = offset + Int(min(UInt64(bytes.count - offset), limit))
        try body(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
        return end - offset
    }

    /// A frame whose stored bytes were read.
    private struct FetchedFrame {
        let number: UInt64
        /// Where it lies in `stored`.
        let place: Range<Int>
        let rawLength: Int
    }

    /// Reads frame `first` and as many of the next as one read takes and as `bytes` raw bytes need.
    private func fetch(
        _ pack: RandomID, from first: UInt64, bytes: UInt64
    ) throws(KedgeError) -> [FetchedFrame] {
        let directory = try directories.directory(of: pack)
        try prepareOpener(for: pack, directory)
        let begin = try directory.range(ofFrame: first).lowerBound
        var frames: [FetchedFrame] = []
        var (end, rawBytes) = (begin, UInt64(0))
        for number in first..<max(first + 1, UInt64(directory.frameCount)) {
            let range = try directory.range(ofFrame: number)
            guard number == first || range.upperBound - begin <= Self.readBytes else { break }
            let rawLength = try directory.rawLength(ofFrame: number)
            frames.append(
                FetchedFrame(
                    number: number, place: Int(range.lowerBound - begin)..<Int(range.upperBound - begin),
                    rawLength: rawLength))
            end = range.upperBound
            rawBytes += UInt64(rawLength)
            if rawBytes >= bytes { break }
        }
        try fetch(pack, begin..<end)
        return frames
    }

    private func prepareOpener(for pack: RandomID, _ directory: PackDirectory) throws(KedgeError) {
        guard openerPack != pack else { return }
        openerPack = nil
        if let opener {
            try opener.start(directory.seal)
        } else {
            opener = try FrameOpener(directory.seal)
        }
        openerPack = pack
    }

    private func fetch(_ pack: RandomID, _ range: Range<UInt64>) throws(KedgeError) {
        let count = Int(range.upperBound - range.lowerBound)
        if stored.count < count { stored = [UInt8](repeating: 0, count: max(count, Int(Self.readBytes))) }
        let name = directories.cluster.name(ClusterLayout.pack(pack))
        let store = directories.cluster.repository.store
        try stored.withMutableBytes { (buffer) throws(KedgeError) in
            try store.read(
                name, at: range.lowerBound, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    /// Opens a frame, and keeps it as the rule of `init` says.
    private func open(_ frame: FetchedFrame, of pack: RandomID) throws(KedgeError) -> OpenedFrame {
        let opened = frames.makeRoom(for: frame.rawLength)
        try open(frame, into: opened.place(of: frame.rawLength))
        opened.source = (pack, frame.number)
        frames.insert(opened)
        return opened
    }

    /// Opens a frame into `out`, which is as long as the frame should be.
    private func open(_ frame: FetchedFrame, into out: UnsafeMutableRawBufferPointer) throws(KedgeError) {
        guard let opener else { preconditionFailure("frames are fetched with an opener") }
        let count = try stored.withBytes { (bytes) throws(KedgeError) in
            try opener.open(
                UnsafeRawBufferPointer(rebasing: bytes[frame.place]), expecting: .data, number: UInt32(frame.number),
                into: out)
        }
        guard count == out.count else {
            throw opener.seal.damaged("Frame \(frame.number) holds \(count) bytes; its table says \(out.count).")
        }
    }
}

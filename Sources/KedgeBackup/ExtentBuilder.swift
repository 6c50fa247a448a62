// Puts the extents of one range of a file together, in file order: frames of its own, shares of the common frame, zero
// bytes, and runs of the parent's extents.
//
// Invariants:
// 1. What comes from the parent is taken over as the parent has it, extents and their borders included, so that a file
//    that did not change has the very entry that it had, and its part of the manifest can be referred to.
// 2. A share of the common frame has no place until that frame is stored: `place(at:)` gives it one.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository

/// Extents under construction.
struct ExtentBuilder {
    private(set) var extents: [Extent] = []
    /// Where the frame went that the last extent ends with; nil where that is none of its own.
    private var lastPlace: FramePlace?
    /// Extents that wait for the common frame, by index.
    private var waiting: [Int] = []

    private let parent: FileContent?
    private let directories: PackDirectories?
    /// The directory that was needed last: whoever looks one up waits for the other workers.
    private var parentPack: (id: RandomID, directory: PackDirectory)?
    /// A run of the file that comes from the parent and is not among the extents yet.
    private var reused: Range<UInt64>?
    /// The parent's extent at which the last run ended, and where it begins in the file. Runs come in file order.
    private var cursor: (index: Int, start: UInt64) = (0, 0)

    /// `directories` are needed where there is a parent.
    init(parent: FileContent? = nil, directories: PackDirectories? = nil) {
        self.parent = parent
        self.directories = directories
    }

    /// Whether some extents have no place yet.
    var isWaiting: Bool { !waiting.isEmpty }

    /// Adds zero bytes.
    mutating func appendZeros(_ length: Int) throws(KedgeError) {
        try endReuse()
        addZeros(UInt64(length))
    }

    /// Adds a frame of its own.
    mutating func append(frame place: FramePlace, length: Int) throws(KedgeError) {
        try endReuse()
        // Frames of one pack that follow each other are one run of its stream.
        if let lastPlace, place == FramePlace(pack: lastPlace.pack, frame: lastPlace.frame &+ 1) {
            extents[extents.count - 1].length += UInt64(length)
        } else {
            extents.append(
                Extent(length: UInt64(length), source: .pack(place.pack, frame: place.frame, offset: 0)))
        }
        lastPlace = place
    }

    /// Adds a share of the common frame, at `offset` in it.
    mutating func append(sharedAt offset: Int, length: Int) throws(KedgeError) {
        try endReuse()
        waiting.append(extents.count)
        extents.append(
            Extent(length: UInt64(length), source: .pack(.zero, frame: 0, offset: UInt32(offset))))
        lastPlace = nil
    }

    /// Adds content that lies in a pack already.
    mutating func append(takenOver place: TakenOverPacks.Place, length: Int) throws(KedgeError) {
        let frame = FramePlace(pack: place.pack, frame: place.frame)
        if place.isWholeFrame { return try append(frame: frame, length: length) }
        try endReuse()
        lastPlace = nil
        extents.append(
            Extent(length: UInt64(length), source: .pack(place.pack, frame: place.frame, offset: place.offset)))
    }

    /// Adds a run of the parent's content.
    mutating func append(parent range: Range<UInt64>) throws(KedgeError) {
        if let reused, reused.upperBound == range.lowerBound {
            self.reused = reused.lowerBound..<range.upperBound
        } else {
            try endReuse()
            reused = range
        }
    }

    /// Ends the range: all extents are there, though some may wait.
    mutating func finish() throws(KedgeError) { try endReuse() }

    /// The common frame was stored.
    mutating func place(at place: FramePlace) {
        for index in waiting {
            guard case .pack(_, _, let offset) = extents[index].source else { continue }
            extents[index].source = .pack(place.pack, frame: place.frame, offset: offset)
        }
        waiting.removeAll()
    }

    // MARK: -

    private mutating func addZeros(_ length: UInt64) {
        lastPlace = nil
        if case .zeros? = extents.last?.source {
            extents[extents.count - 1].length += length
        } else {
            extents.append(Extent(length: length, source: .zeros))
        }
    }

    private mutating func endReuse() throws(KedgeError) {
        guard let range = reused, let parent, let directories else { return }
        reused = nil
        lastPlace = nil
        var position = range.lowerBound
        while position < range.upperBound {
            // The decoder has found that the extents tile the file, and nothing beyond its size is reused.
            let extent = parent.extents[cursor.index]
            let end = cursor.start + extent.length
            guard position < end else {
                cursor = (cursor.index + 1, end)
                continue
            }
            let length = min(end, range.upperBound) - position
            switch extent.source {
            case .zeros: addZeros(length)
            case .pack(let pack, let frame, let offset):
                var place = (frame: frame, offset: offset)
                if position > cursor.start {
                    place = try directory(of: pack, in: directories).place(
                        after: position - cursor.start, frame: frame, offset: offset)
                }
                extents.append(
                    Extent(length: length, source: .pack(pack, frame: place.frame, offset: place.offset)))
            }
            position += length
        }
    }

    private mutating func directory(
        of pack: RandomID, in directories: PackDirectories
    ) throws(KedgeError) -> PackDirectory {
        if let parentPack, parentPack.id == pack { return parentPack.directory }
        let directory = try directories.directory(of: pack)
        parentPack = (pack, directory)
        return directory
    }
}

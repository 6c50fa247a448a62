// Where the frames of a whole object lie that is in memory: the plain frame headers are walked and held against the
// authenticated end frame, so that nothing is missing, nothing is doubled and nothing follows. The frames themselves
// are opened afterwards, one by one or by several threads.
package import KedgeCore

/// The frames of one object in memory.
package struct ObjectIndex: Sendable {
    package let seal: ObjectSeal
    package let end: EndFrame
    /// All frames but the end frame, in order; their numbers are their indices.
    package let frames: [Place]

    /// Where a frame lies, and where its raw bytes belong.
    package struct Place: Hashable, Sendable {
        package let header: FrameHeader
        /// The whole frame in the object's bytes.
        package let range: Range<Int>
        /// For a data frame: how many raw bytes the data frames before it hold.
        package let rawOffset: Int
    }

    /// The object's data frames.
    package var dataFrames: ArraySlice<Place> {
        let first = frames.first?.header.type == .facts ? 1 : 0
        return frames[first..<first + Int(end.dataFrames)]
    }

    /// Raw bytes of all data frames.
    package var rawCount: Int { Int(end.rawBytes) }

    /// Walks the frames of a whole object that holds at most `limit` raw bytes.
    ///
    /// Throws what `ObjectSeal(reading:…)` throws, and `damaged` for whatever does not fit.
    package init(
        _ bytes: UnsafeRawBufferPointer, kind: ObjectKind, name: ScopedName, keyRing: KeyRing, limit: Int
    ) throws(KedgeError) {
        seal = try ObjectSeal(reading: bytes, kind: kind, name: name, keyRing: keyRing)
        let endStart = bytes.count - EndFrame.frameBytes
        guard endStart >= seal.headerLength else { throw seal.damaged("It ends after \(bytes.count) bytes.") }
        end = try EndFrame(
            opening: UnsafeRawBufferPointer(rebasing: bytes[endStart...]), length: UInt64(bytes.count),
            with: FrameOpener(seal))
        guard end.rawBytes <= UInt64(limit) else {
            throw seal.damaged("It holds \(end.rawBytes) bytes, and \(limit) is the most that is accepted.")
        }
        frames = try ObjectIndex.walk(bytes, until: endStart, seal: seal)
        try check()
    }

    private static func walk(
        _ bytes: UnsafeRawBufferPointer, until end: Int, seal: ObjectSeal
    ) throws(KedgeError) -> [Place] {
        var frames: [Place] = []
        var offset = seal.headerLength
        var rawOffset = 0
        while offset < end {
            let header = try FrameHeader(parsing: UnsafeRawBufferPointer(rebasing: bytes[offset..<end]), seal: seal)
            guard header.frameLength <= end - offset else {
                throw seal.damaged("Frame \(frames.count) does not end before the object does.")
            }
            guard Int(header.number) == frames.count else {
                throw seal.damaged("Frame \(header.number) lies where frame \(frames.count) belongs.")
            }
            frames.append(Place(header: header, range: offset..<offset + header.frameLength, rawOffset: rawOffset))
            offset += header.frameLength
            if header.type == .data { rawOffset += header.rawLength }
        }
        return frames
    }

    /// Holds the frames against the order of section 3 and the end frame's numbers.
    private func check() throws(KedgeError) {
        var types = frames.map(\.header.type)[...]
        if seal.kind == .walFile {
            guard types.popFirst() == .facts else { throw seal.damaged("Its facts frame is missing.") }
        }
        let data = types.prefix { $0 == .data }.count
        types = types.dropFirst(data)
        guard types.allSatisfy({ $0 == .table }), types.isEmpty || seal.kind == .pack else {
            throw seal.damaged("Its frames are not in order.")
        }
        let rawBytes = frames.reduce(0) { $0 + ($1.header.type == .data ? UInt64($1.header.rawLength) : 0) }
        let tableOffset = types.isEmpty ? 0 : frames[frames.count - types.count].range.lowerBound
        guard frames.count == Int(end.frames), data == Int(end.dataFrames), rawBytes == end.rawBytes,
            UInt64(tableOffset) == end.tableOffset
        else { throw seal.damaged("Its frames are not those that its end frame counts.") }
    }

    /// Opens one data frame into its place in `out`, which is to hold the raw bytes of all data frames. Several threads
    /// may do this at once for different frames, each with an opener of its own. Throws `damaged`.
    package func open(
        _ place: Place, of bytes: UnsafeRawBufferPointer, with opener: FrameOpener,
        into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        precondition(place.header.type == .data)
        let raw = place.rawOffset..<place.rawOffset + place.header.rawLength
        _ = try opener.open(
            UnsafeRawBufferPointer(rebasing: bytes[place.range]), expecting: .data, number: place.header.number,
            into: UnsafeMutableRawBufferPointer(rebasing: out[raw]))
    }

    /// The raw bytes of the facts frame; nil where the object has none. Throws `damaged`.
    package func openFacts(of bytes: UnsafeRawBufferPointer, with opener: FrameOpener) throws(KedgeError) -> [UInt8]? {
        guard let place = frames.first, place.header.type == .facts else { return nil }
        return try opener.open(
            UnsafeRawBufferPointer(rebasing: bytes[place.range]), expecting: .facts, number: place.header.number)
    }
}

// Parts of an object that is too large to be held in memory: its end frame, its table, and then single frames.
//
// Order: header → end frame (the last 64 bytes, authenticated) → table (at the place that the end frame names) → frames
// (at the places that the table gives). The end and most tables come with one read.
package import KedgeCore

/// Random access to one stored object.
package struct ObjectReader {
    /// Returns exactly that range of the object.
    package typealias Read = (Range<UInt64>) throws(KedgeError) -> [UInt8]

    package let seal: ObjectSeal
    package let end: EndFrame
    package let length: UInt64
    private let read: Read
    /// The object's last bytes, the end frame among them.
    private let tail: [UInt8]

    private static let headBytes: UInt64 = 4096
    private static let tailBytes: UInt64 = 64 << 10

    /// Reads header and end frame of an object of `length` bytes.
    ///
    /// Throws what `read` and `ObjectSeal(reading:…)` throw, and `damaged`.
    package init(
        kind: ObjectKind, name: ScopedName, keyRing: KeyRing, length: UInt64, read: @escaping Read
    ) throws(KedgeError) {
        let what = ObjectSeal.what(kind, name)
        var head = try ObjectReader.range(0..<min(length, ObjectReader.headBytes), what, read)
        let headerLength = try head.withBytes { head throws(KedgeError) in
            try ObjectHeader.length(of: head, what: what)
        }
        if let headerLength, headerLength > head.count, headerLength <= length {
            head = try ObjectReader.range(0..<UInt64(headerLength), what, read)
        }
        let seal = try head.withBytes { head throws(KedgeError) in
            try ObjectSeal(reading: head, kind: kind, name: name, keyRing: keyRing)
        }
        guard length >= UInt64(seal.headerLength + EndFrame.frameBytes) else {
            throw seal.damaged("It ends after \(length) bytes.")
        }
        let tail = try ObjectReader.range(length - min(length, ObjectReader.tailBytes)..<length, what, read)
        end = try tail.withBytes { tail throws(KedgeError) in
            let frame = UnsafeRawBufferPointer(rebasing: tail[(tail.count - EndFrame.frameBytes)...])
            return try EndFrame(opening: frame, length: length, with: FrameOpener(seal))
        }
        self.seal = seal
        self.length = length
        self.read = read
        self.tail = tail
    }

    /// Reads and checks a pack's table. Without `keepingSources` the table's sources are left out.
    ///
    /// Throws what `read` throws, `damaged`, `format-unknown`.
    package func packDirectory(keepingSources: Bool = true) throws(KedgeError) -> PackDirectory {
        let tableEnd = length - UInt64(EndFrame.frameBytes)
        guard seal.kind == .pack, end.tableOffset > 0 else { throw seal.damaged("It has no table.") }
        // What the frames of a table take besides is little: they are as large as the pack's other frames.
        guard tableEnd - end.tableOffset <= UInt64(PackTable.maximumBytes + PackTable.maximumBytes / 64) else {
            throw seal.damaged("Its table is stored in \(tableEnd - end.tableOffset) bytes.")
        }
        let tailStart = length - UInt64(tail.count)
        let stored =
            end.tableOffset >= tailStart
            ? Array(tail[Int(end.tableOffset - tailStart)..<tail.count - EndFrame.frameBytes])
            : try ObjectReader.range(end.tableOffset..<tableEnd, seal.what, read)
        let bytes = try stored.withBytes { stored throws(KedgeError) in try openTable(stored) }
        let table = try PackTable(decoding: bytes, what: seal.what, keepingSources: keepingSources)
        return try PackDirectory(seal: seal, table: table, end: end)
    }

    /// Opens the table frames, which are all that lies between the last data frame and the end frame.
    private func openTable(_ stored: UnsafeRawBufferPointer) throws(KedgeError) -> [UInt8] {
        let opener = try FrameOpener(seal)
        var table: [UInt8] = []
        table.reserveCapacity(min(PackTable.maximumBytes, 2 * stored.count))
        var number = end.dataFrames
        var rest = stored
        while !rest.isEmpty {
            let header = try FrameHeader(parsing: rest, seal: seal)
            guard header.frameLength <= rest.count, number < end.frames else {
                throw seal.damaged("Its table does not end where it should.")
            }
            guard header.rawLength <= PackTable.maximumBytes - table.count else {
                throw seal.damaged("Its table has more than \(PackTable.maximumBytes) bytes.")
            }
            let frame = UnsafeRawBufferPointer(rebasing: rest[..<header.frameLength])
            table += try opener.open(frame, expecting: .table, number: number)
            rest = UnsafeRawBufferPointer(rebasing: rest[header.frameLength...])
            number += 1
        }
        guard number == end.frames else { throw seal.damaged("Its table does not have all its frames.") }
        return table
    }

    private static func range(_ range: Range<UInt64>, _ what: String, _ read: Read) throws(KedgeError) -> [UInt8] {
        let bytes = try read(range)
        guard bytes.count == range.count else {
            throw KedgeError(
                .damaged, "cannot read \(what)",
                detail: "It ends within the bytes from \(range.lowerBound) to \(range.upperBound).")
        }
        return bytes
    }
}

/// Where the data frames of a pack lie.
package struct PackDirectory: Sendable {
    package let seal: ObjectSeal
    package let table: PackTable
    /// Where each data frame begins in the pack, and where the last one ends.
    private let offsets: [UInt64]

    /// Throws `damaged` where the table and the end frame contradict each other.
    init(seal: ObjectSeal, table: PackTable, end: EndFrame) throws(KedgeError) {
        var offsets = [UInt64(seal.headerLength)]
        offsets.reserveCapacity(table.frames.count + 1)
        var (offset, rawBytes) = (UInt64(seal.headerLength), UInt64(0))
        for frame in table.frames {
            guard frame.rawLength <= seal.frameSize else {
                throw seal.damaged("Its table has a frame of \(frame.rawLength) bytes.")
            }
            // Frames are at most 16 MiB and fewer than 2^32, so neither sum overflows.
            offset += UInt64(FrameHeader.overhead) + UInt64(frame.storedLength)
            rawBytes += UInt64(frame.rawLength)
            offsets.append(offset)
        }
        guard table.frames.count == Int(end.dataFrames), offset == end.tableOffset, rawBytes == end.rawBytes else {
            throw seal.damaged("Its table does not describe the frames that its end frame counts.")
        }
        self.seal = seal
        self.table = table
        self.offsets = offsets
    }

    /// The pack's data frames.
    package var frameCount: Int { table.frames.count }

    /// Where data frame `number` lies in the pack. Throws `damaged` where there is none: a manifest refers to it.
    package func range(ofFrame number: UInt64) throws(KedgeError) -> Range<UInt64> {
        try range(ofFrames: number...number)
    }

    /// Where a run of data frames lies in the pack, without a gap. Throws `damaged` where one of them does not exist.
    package func range(ofFrames numbers: ClosedRange<UInt64>) throws(KedgeError) -> Range<UInt64> {
        guard numbers.upperBound < UInt64(frameCount) else {
            throw seal.damaged("It has \(frameCount) data frames, and frame \(numbers.upperBound) is asked for.")
        }
        return offsets[Int(numbers.lowerBound)]..<offsets[Int(numbers.upperBound) + 1]
    }

    /// How many raw bytes data frame `number` holds. Throws `damaged` where there is none.
    package func rawLength(ofFrame number: UInt64) throws(KedgeError) -> Int {
        _ = try range(ofFrame: number)
        return Int(table.frames[Int(number)].rawLength)
    }
}

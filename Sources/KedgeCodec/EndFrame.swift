// The last 64 bytes of an object: how much there is of it, so that a cut is seen (Catalog/FORMAT.md section 3).
package import KedgeCore

/// What the end frame says about the object.
package struct EndFrame: Hashable, Sendable {
    /// Frames before the end frame, of all types; so also its number.
    package let frames: UInt32
    package let dataFrames: UInt32
    /// Raw bytes of all data frames.
    package let rawBytes: UInt64
    /// Where the first table frame begins, from the start of the object; 0 where there is none.
    package let tableOffset: UInt64
    /// Bytes of the whole object, the end frame included.
    package let objectLength: UInt64

    /// Its raw length.
    package static let encodedBytes = 32
    /// The length of the whole frame, which is the end of the object.
    package static let frameBytes = FrameHeader.overhead + encodedBytes

    package init(frames: UInt32, dataFrames: UInt32, rawBytes: UInt64, tableOffset: UInt64, objectLength: UInt64) {
        self.frames = frames
        self.dataFrames = dataFrames
        self.rawBytes = rawBytes
        self.tableOffset = tableOffset
        self.objectLength = objectLength
    }

    package func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: frames)
        bytes.append(littleEndian: dataFrames)
        bytes.append(littleEndian: rawBytes)
        bytes.append(littleEndian: tableOffset)
        bytes.append(littleEndian: objectLength)
        return bytes
    }

    /// Opens the end frame of an object of `length` bytes from its last 64, and checks what can be checked without the
    /// rest. Throws `damaged`.
    package init(opening frame: UnsafeRawBufferPointer, length: UInt64, with opener: FrameOpener) throws(KedgeError) {
        let seal = opener.seal
        // The number is authenticated by opening the frame, and must then be what the frame says itself.
        let number = try FrameHeader(parsing: frame, seal: seal).number
        let raw = try opener.open(frame, expecting: .end, number: number)
        self = try raw.withBytes { raw throws(KedgeError) in
            var reader = BinaryReader(raw, what: seal.what)
            return EndFrame(
                frames: try reader.u32(), dataFrames: try reader.u32(), rawBytes: try reader.u64(),
                tableOffset: try reader.u64(), objectLength: try reader.u64())
        }
        guard length >= UInt64(seal.headerLength + EndFrame.frameBytes), objectLength == length else {
            throw seal.damaged("It is \(length) bytes long and was written with \(objectLength).")
        }
        let place = UInt64(seal.headerLength)...(length - UInt64(EndFrame.frameBytes))
        guard frames == number, dataFrames <= frames, tableOffset == 0 || place.contains(tableOffset) else {
            throw seal.damaged("The numbers in its end frame contradict each other.")
        }
    }
}

/// Counts what an object's end frame will say, while the object is written front to back.
package struct ObjectTally: Sendable {
    /// Frames so far: the number of the next one.
    package private(set) var frames: UInt32 = 0
    package private(set) var dataFrames: UInt32 = 0
    package private(set) var rawBytes: UInt64 = 0
    /// The object's length so far, its header included.
    package private(set) var length: UInt64
    private var tableOffset: UInt64 = 0
    private let what: String

    /// Nothing but the header of `seal`'s object.
    package init(_ seal: ObjectSeal) {
        length = UInt64(seal.headerLength)
        what = seal.what
    }

    /// Counts one frame. Throws `defect` where an object would get too many of them.
    package mutating func add(_ type: FrameType, rawCount: Int, frameLength: Int) throws(KedgeError) {
        guard frames < UInt32.max else {
            throw KedgeError(.defect, "cannot write \(what)", detail: "It would have more than 2^32 - 1 frames.")
        }
        if type == .table && tableOffset == 0 { tableOffset = length }
        frames += 1
        if type == .data {
            dataFrames += 1
            rawBytes += UInt64(rawCount)
        }
        length += UInt64(frameLength)
    }

    /// The end frame of an object that ends here.
    package var endFrame: EndFrame {
        EndFrame(
            frames: frames, dataFrames: dataFrames, rawBytes: rawBytes, tableOffset: tableOffset,
            objectLength: length + UInt64(EndFrame.frameBytes))
    }
}

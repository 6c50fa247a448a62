// One frame: a header of 16 bytes, the payload, a tag of 16 bytes (Catalog/FORMAT.md section 3, "Frames").
package import KedgeCore

/// What a frame holds; the raw value is its number in the frame's header.
package enum FrameType: UInt8, Sendable, CaseIterable {
    case data = 1
    case table = 2
    case end = 3
    case facts = 4

    /// What errors call it.
    var noun: String {
        switch self {
        case .data: "data frame"
        case .table: "table frame"
        case .end: "end frame"
        case .facts: "facts frame"
        }
    }
}

/// The plain header of a frame. Type, number and raw length are authenticated with the payload; the stored length is by
/// what it leads to.
package struct FrameHeader: Hashable, Sendable {
    package let type: FrameType
    /// Counts the object's frames of all types from 0.
    package let number: UInt32
    /// Bytes of the payload.
    package let storedLength: Int
    package let rawLength: Int

    package static let headerBytes = 16
    package static let tagBytes = 16
    /// What a frame has besides its payload.
    package static let overhead = headerBytes + tagBytes
    /// No reader accepts more, stored or raw.
    package static let maximumBytes = 16 << 20

    init(type: FrameType, number: UInt32, storedLength: Int, rawLength: Int) {
        self.type = type
        self.number = number
        self.storedLength = storedLength
        self.rawLength = rawLength
    }

    /// The whole frame's length.
    package var frameLength: Int { FrameHeader.overhead + storedLength }

    /// Whether the payload is the raw bytes (perhaps encrypted).
    var isRaw: Bool { storedLength == rawLength }

    /// The header that `bytes` begins with, believed only as far as `seal`'s limits go: nothing in it is authenticated
    /// until the frame was opened. Throws `damaged`.
    package init(parsing bytes: UnsafeRawBufferPointer, seal: ObjectSeal) throws(KedgeError) {
        var reader = BinaryReader(bytes, what: seal.what)
        let (stored, raw, number) = (try reader.u32(), try reader.u32(), try reader.u32())
        let typeNumber = try reader.u8()
        guard let type = FrameType(rawValue: typeNumber), try reader.bytes(3).allSatisfy({ $0 == 0 }) else {
            throw seal.damaged("The header of one of its frames is malformed.")
        }
        let fits =
            type == .end
            ? stored == EndFrame.encodedBytes && raw == EndFrame.encodedBytes
            : stored <= raw && raw <= seal.frameSize && (stored == raw || seal.header.codec != .none)
        guard fits else {
            throw seal.damaged("The header of frame \(number) says \(stored) bytes stored and \(raw) raw.")
        }
        self.init(type: type, number: number, storedLength: Int(stored), rawLength: Int(raw))
    }

    /// Writes the 16 bytes of the header.
    func write(to out: UnsafeMutableRawBufferPointer) {
        out.storeBytes(of: UInt32(storedLength).littleEndian, toByteOffset: 0, as: UInt32.self)
        out.storeBytes(of: UInt32(rawLength).littleEndian, toByteOffset: 4, as: UInt32.self)
        out.storeBytes(of: number.littleEndian, toByteOffset: 8, as: UInt32.self)
        out.storeBytes(of: UInt32(type.rawValue).littleEndian, toByteOffset: 12, as: UInt32.self)
    }

    /// What is authenticated besides the payload: type, number and raw length.
    var additionalData: [UInt8] {
        var bytes = [type.rawValue]
        bytes.append(littleEndian: number)
        bytes.append(littleEndian: UInt32(rawLength))
        return bytes
    }

    /// The AES-GCM nonce: the number, big-endian, after eight zero bytes.
    var nonce: [UInt8] {
        [0, 0, 0, 0, 0, 0, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
    }
}

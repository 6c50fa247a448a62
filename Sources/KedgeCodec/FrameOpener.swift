// Sealed frames in, raw bytes out. Nothing is decompressed that was not authenticated, and nothing is handed out that
// did not decompress to exactly the promised length.
package import KedgeCore
import OpenSSL
import XXHash

/// Opens frames. Keeps its contexts and scratch memory (at most one frame) from object to object; one for each worker,
/// used by one thread at a time.
package final class FrameOpener {
    package private(set) var seal: ObjectSeal
    private let decompressor = Decompressor()
    private var cipher: AES256GCM?
    private let checksum = XXH3State()
    private var scratch = FrameBuffer()

    /// An opener of frames of `seal`'s object. Throws `defect`.
    package init(_ seal: ObjectSeal) throws(KedgeError) {
        self.seal = seal
        try useKey()
    }

    /// Opens frames of another object from now on. Throws `defect`.
    package func start(_ seal: ObjectSeal) throws(KedgeError) {
        self.seal = seal
        try useKey()
    }

    private func useKey() throws(KedgeError) {
        guard case .subkey(let key) = seal.protection else { return }
        if cipher == nil { cipher = try AES256GCM(.open) }
        try cipher?.setKey(key.bytes)
    }

    /// Opens `frame` (a whole frame and nothing else), which must be frame `number` and of that type, into the start of
    /// `out`, and returns the count of raw bytes.
    ///
    /// Throws `damaged` where anything does not fit, also where `out` is too small; what `out` then holds is of no use.
    package func open(
        _ frame: UnsafeRawBufferPointer, expecting type: FrameType, number: UInt32,
        into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Int {
        let header = try FrameHeader(parsing: frame, seal: seal)
        guard header.frameLength == frame.count, header.type == type, header.number == number else {
            throw seal.damaged(
                "Where \(type.noun) \(number) of \(frame.count) bytes is expected, there is \(header.type.noun)"
                    + " \(header.number) of \(header.frameLength) bytes.")
        }
        guard header.rawLength <= out.count else {
            throw seal.damaged("\(type.noun) \(number) holds \(header.rawLength) bytes instead of \(out.count).")
        }
        let raw = UnsafeMutableRawBufferPointer(rebasing: out[..<header.rawLength])
        let end = FrameHeader.headerBytes + header.storedLength
        let payload = UnsafeRawBufferPointer(rebasing: frame[FrameHeader.headerBytes..<end])
        let tag = UnsafeRawBufferPointer(rebasing: frame[end...])
        switch seal.protection {
        case .checksum(let binding):
            guard frameChecksum(checksum, binding, header, payload).elementsEqual(tag) else {
                throw seal.damaged("The checksum of \(type.noun) \(number) is wrong.")
            }
            if header.isRaw { raw.copyMemory(from: payload) } else { try decompress(payload, into: raw, number) }
        case .subkey where header.isRaw:
            try decrypt(payload, header, tag: tag, to: raw)
        case .subkey:
            scratch.removeAll()
            try scratch.append(upTo: header.storedLength) { room throws(KedgeError) in
                try decrypt(payload, header, tag: tag, to: room)
                return header.storedLength
            }
            try decompress(scratch.bytes, into: raw, number)
        }
        return header.rawLength
    }

    /// Opens `frame` into memory of its own; for small frames. Throws as above.
    package func open(
        _ frame: UnsafeRawBufferPointer, expecting type: FrameType, number: UInt32
    ) throws(KedgeError) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: try FrameHeader(parsing: frame, seal: seal).rawLength)
        _ = try out.withMutableBytes { out throws(KedgeError) in
            try open(frame, expecting: type, number: number, into: out)
        }
        return out
    }

    private func decrypt(
        _ payload: UnsafeRawBufferPointer, _ header: FrameHeader, tag: UnsafeRawBufferPointer,
        to out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        let isAuthentic = try cipher?.open(
            payload, nonce: header.nonce, additional: header.additionalData, tag: tag, to: out)
        guard isAuthentic == true else {
            throw seal.damaged("\(header.type.noun) \(header.number) is not what was written here.")
        }
    }

    private func decompress(
        _ stored: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer, _ number: UInt32
    ) throws(KedgeError) {
        do throws(KedgeError) {
            try decompressor.decompress(stored, codec: seal.header.codec, into: out)
        } catch {
            throw seal.damaged("Frame \(number) does not decompress.", cause: error)
        }
    }
}

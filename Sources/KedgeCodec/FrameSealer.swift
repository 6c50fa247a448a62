// Raw bytes in, sealed frames out: compressed straight into the output and encrypted there in place.
//
// Order for one frame: compress (or, where that saves nothing, take the raw bytes) → encrypt → tag. A frame's number
// must not be sealed twice under one seal.
package import KedgeCore
import OpenSSL
import XXHash

/// Seals frames. Keeps its contexts from object to object; one for each worker, used by one thread at a time. Several
/// of them may seal different frames of one object with the same seal.
package final class FrameSealer {
    package private(set) var seal: ObjectSeal
    private var compressor: Compressor
    private var cipher: AES256GCM?
    private let checksum = XXH3State()

    /// A sealer of frames of `seal`'s object. Throws `defect`.
    package init(_ seal: ObjectSeal) throws(KedgeError) {
        self.seal = seal
        compressor = try Compressor(seal.compression)
        try useKey()
    }

    /// Seals frames of another object from now on. Throws `defect`.
    package func start(_ seal: ObjectSeal) throws(KedgeError) {
        self.seal = seal
        if compressor.choice != seal.compression { compressor = try Compressor(seal.compression) }
        try useKey()
    }

    private func useKey() throws(KedgeError) {
        guard case .subkey(let key) = seal.protection else { return }
        if cipher == nil { cipher = try AES256GCM(.seal) }
        try cipher?.setKey(key.bytes)
    }

    /// Room that is enough for a sealed frame of `rawCount` bytes, and with which compressing is fastest.
    package func bound(_ rawCount: Int) -> Int { FrameHeader.overhead + max(rawCount, compressor.bound(rawCount)) }

    /// Seals `raw` (at most the frame size) as frame `number` at the start of `out` and returns the frame's length.
    ///
    /// `out` has at least `bound(raw.count)` bytes and does not overlap `raw`. Throws `defect`.
    package func sealFrame(
        _ type: FrameType, number: UInt32, raw: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Int {
        precondition(raw.count <= (type == .end ? EndFrame.encodedBytes : seal.frameSize))
        let payload = UnsafeMutableRawBufferPointer(
            rebasing: out[FrameHeader.headerBytes..<out.count - FrameHeader.tagBytes])
        let compressed = type == .end ? nil : try compressor.compress(raw, into: payload)
        let header = FrameHeader(
            type: type, number: number, storedLength: compressed ?? raw.count, rawLength: raw.count)
        header.write(to: out)
        let stored = UnsafeMutableRawBufferPointer(rebasing: payload[..<header.storedLength])
        let end = FrameHeader.headerBytes + header.storedLength
        let tag = UnsafeMutableRawBufferPointer(rebasing: out[end..<end + FrameHeader.tagBytes])
        let text = compressed == nil ? raw : UnsafeRawBufferPointer(stored)
        switch seal.protection {
        case .subkey:
            let done: Void? = try cipher?.seal(
                text, nonce: header.nonce, additional: header.additionalData, to: stored, tag: tag)
            precondition(done != nil, "useKey made the cipher")
        case .checksum(let binding):
            if compressed == nil { stored.copyMemory(from: raw) }
            tag.copyBytes(from: frameChecksum(checksum, binding, header, UnsafeRawBufferPointer(stored)))
        }
        return header.frameLength
    }

    /// Adds `raw` (at most the frame size) as frame `number` at the end of `buffer`. Throws `defect`.
    package func append(
        _ type: FrameType, number: UInt32, raw: UnsafeRawBufferPointer, to buffer: inout FrameBuffer
    ) throws(KedgeError) {
        try buffer.append(upTo: bound(raw.count)) { room throws(KedgeError) in
            try sealFrame(type, number: number, raw: raw, into: room)
        }
    }

    /// Adds `raw` as the object's next frame at the end of `buffer`, for an object that is written frame by frame.
    /// Throws `defect`.
    package func append(
        _ type: FrameType, raw: UnsafeRawBufferPointer, counting tally: inout ObjectTally, to buffer: inout FrameBuffer
    ) throws(KedgeError) {
        let before = buffer.count
        try append(type, number: tally.frames, raw: raw, to: &buffer)
        try tally.add(type, rawCount: raw.count, frameLength: buffer.count - before)
    }

    /// Adds `raw` as the object's next frames, as many as the frame size makes of it. Throws `defect`.
    package func appendPieces(
        _ type: FrameType, raw: UnsafeRawBufferPointer, counting tally: inout ObjectTally, to buffer: inout FrameBuffer
    ) throws(KedgeError) {
        for start in stride(from: 0, to: raw.count, by: seal.frameSize) {
            let piece = UnsafeRawBufferPointer(rebasing: raw[start..<min(start + seal.frameSize, raw.count)])
            try append(type, raw: piece, counting: &tally, to: &buffer)
        }
    }

    /// Adds the end frame, which completes the object. Throws `defect`.
    package func appendEnd(_ tally: ObjectTally, to buffer: inout FrameBuffer) throws(KedgeError) {
        try tally.endFrame.encoded().withBytes { raw throws(KedgeError) in
            try append(.end, number: tally.frames, raw: raw, to: &buffer)
        }
    }
}

/// The tag of a frame under cipher none.
func frameChecksum(
    _ state: borrowing XXH3State, _ binding: [UInt8], _ header: FrameHeader, _ payload: UnsafeRawBufferPointer
) -> [UInt8] {
    state.reset()
    binding.withBytes { state.update($0) }
    header.additionalData.withBytes { state.update($0) }
    state.update(payload)
    var tag: [UInt8] = []
    state.hash().append(to: &tag)
    return tag
}

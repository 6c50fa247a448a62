// Sealing a whole WAL file on several threads.
//
// Frame 0 holds the facts, the data frames follow. Each frame is sealed on its own into a buffer of its own, so that
// threads share nothing but the file's bytes and the seal; the object is the buffers in order.

import KedgeCodec
import KedgeCore
import KedgeRepository
import Synchronization

/// Makes the object of one WAL file.
struct WALObjectWriter: Sendable {
    private let seal: ObjectSeal
    private let threads: Int

    /// A writer with a seal that nothing was sealed with.
    init(_ seal: ObjectSeal, threads: Int) {
        self.seal = seal
        self.threads = threads
    }

    /// The object of a file with these bytes and facts. Throws `defect`.
    func seal(_ bytes: [UInt8], facts: WALFileFacts) throws(KedgeError) -> ObjectBody {
        let frameSize = seal.frameSize
        let count = (bytes.count + frameSize - 1) / frameSize
        let frames = Mutex([[UInt8]](repeating: [], count: count))
        try parallelFor(
            count: count, threads: threads, name: "seal-wal",
            makeState: { () throws(KedgeError) in Sealer(try FrameSealer(seal)) },
            body: { (sealer, number) throws(KedgeError) in
                let range = number * frameSize..<min((number + 1) * frameSize, bytes.count)
                let frame = try bytes.withBytes { (bytes) throws(KedgeError) in
                    try sealer.seal(UnsafeRawBufferPointer(rebasing: bytes[range]), number: UInt32(number + 1))
                }
                frames.withLock { $0[number] = frame }
            })
        return try assemble(frames.withLock { $0 }, rawCount: bytes.count, facts: facts)
    }

    private func assemble(
        _ frames: [[UInt8]], rawCount: Int, facts: WALFileFacts
    ) throws(KedgeError) -> ObjectBody {
        let sealer = try FrameSealer(seal)
        var tally = ObjectTally(seal)
        var head = FrameBuffer()
        head.append(seal.headerBytes)
        try Array(facts.jsonValue.compactText.utf8).withBytes { (raw) throws(KedgeError) in
            try sealer.append(.facts, raw: raw, counting: &tally, to: &head)
        }
        for (number, frame) in frames.enumerated() {
            let rawBytes = min(seal.frameSize, rawCount - number * seal.frameSize)
            try tally.add(.data, rawCount: rawBytes, frameLength: frame.count)
        }
        var end = FrameBuffer()
        try sealer.appendEnd(tally, to: &end)
        return ObjectBody([Array(head.bytes)] + frames + [Array(end.bytes)])
    }

    /// One thread's contexts and its buffer, used again for each frame.
    private struct Sealer: ~Copyable {
        let sealer: FrameSealer
        var buffer = FrameBuffer()

        init(_ sealer: FrameSealer) { self.sealer = sealer }

        mutating func seal(_ raw: UnsafeRawBufferPointer, number: UInt32) throws(KedgeError) -> [UInt8] {
            buffer.removeAll()
            try sealer.append(.data, number: number, raw: raw, to: &buffer)
            return Array(buffer.bytes)
        }
    }
}

// What archiving one WAL file costs at the least: read it, compress and seal its frames, write them, two fsyncs.
// Nothing is looked up, checked or named; `scripts/bench.sh` holds `kedge archive-push` against this.
//
//   codec-only FILE DIRECTORY THREADS
//   codec-only FILE                      what the checks of archive-push cost on one core: content tag, CRC
//
// Writes DIRECTORY/codec-only.out, which stays. Prints one line of JSON: microseconds of each part.
import Glibc
import KedgeCodec
import KedgeCore
import Synchronization

/// The parts of one run, in the order in which they were done.
private struct Parts {
    private var names: [String] = []
    private var microseconds: [UInt64] = []
    private var last: UInt64
    private let time = SystemTimeSource()

    init() { last = time.monotonicNanoseconds() }

    /// Ends a part: what was done since the one before is called `name`.
    mutating func end(_ name: String) {
        let now = time.monotonicNanoseconds()
        names.append(name)
        microseconds.append((now - last) / 1000)
        last = now
    }

    func printLine(writtenBytes: Int? = nil) {
        var fields = zip(names, microseconds).map { "\"\($0)\": \($1)" }
        if let writtenBytes { fields.append("\"written_bytes\": \(writtenBytes)") }
        print("{\(fields.joined(separator: ", "))}")
    }
}

/// A thread's sealer and the buffer that it seals into.
private struct Worker: ~Copyable {
    let sealer: FrameSealer
    var buffer: FrameBuffer
}

@main
struct Main {
    static func main() {
        let words = CommandLine.arguments
        do throws(KedgeError) {
            if words.count == 2 {
                try checkOnly(file: RawPath(words[1]))
            } else if words.count == 4, let threads = Int(words[3]), threads > 0 {
                try seal(file: RawPath(words[1]), directory: RawPath(words[2]), threads: threads)
            } else {
                print("usage: codec-only FILE [DIRECTORY THREADS]")
                exit(2)
            }
        } catch {
            print("codec-only: \(error)")
            exit(1)
        }
    }

    private static func read(_ path: RawPath) throws(KedgeError) -> [UInt8] {
        let input = try FileDescriptor.open(path, .read)
        return try input.read(count: Int(try input.status().sizeBytes), at: 0)
    }

    private static func checkOnly(file: RawPath) throws(KedgeError) {
        let bytes = try read(file)
        var parts = Parts()
        _ = bytes.withBytes { ContentHash(of: $0) }
        parts.end("tag")
        _ = CRC32C.checksum(bytes)
        parts.end("crc")
        parts.printLine()
    }

    private static func seal(file: RawPath, directory: RawPath, threads: Int) throws(KedgeError) {
        var parts = Parts()
        let bytes = try read(file)
        parts.end("read")
        let random = SystemRandomSource()
        let keyRing = KeyRing(cipher: .aes256GCM, keys: [DataKey(sequence: 1, random: random)])
        let seal = try ObjectSeal(
            writing: .walFile, name: ScopedName(scope: RandomID(from: random), name: "codec-only"),
            compression: .standard, keyRing: keyRing, random: random)
        parts.end("set_up")
        let frames = try sealedFrames(of: bytes, seal, threads: threads)
        parts.end("codec")
        let folder = try FileDescriptor.open(directory, [.read, .directory])
        let output = try FileDescriptor.open("codec-only.out", in: folder, [.write, .create, .truncate])
        var offset: UInt64 = 0
        for frame in frames {
            try output.write(frame, at: offset)
            offset += UInt64(frame.count)
        }
        parts.end("write")
        try output.sync()
        parts.end("sync_file")
        try folder.sync()
        parts.end("sync_directory")
        parts.printLine(writtenBytes: Int(offset))
    }

    private static func sealedFrames(
        of bytes: [UInt8], _ seal: ObjectSeal, threads: Int
    ) throws(KedgeError) -> [[UInt8]] {
        let count = (bytes.count + seal.frameSize - 1) / seal.frameSize
        let frames = Mutex([[UInt8]](repeating: [], count: count))
        try parallelFor(
            count: count, threads: threads, name: "codec",
            makeState: { () throws(KedgeError) in Worker(sealer: try FrameSealer(seal), buffer: FrameBuffer()) },
            body: { (worker, number) throws(KedgeError) in
                let range = number * seal.frameSize..<min((number + 1) * seal.frameSize, bytes.count)
                worker.buffer.removeAll()
                try bytes.withBytes { (bytes) throws(KedgeError) in
                    try worker.sealer.append(
                        .data, number: UInt32(number), raw: UnsafeRawBufferPointer(rebasing: bytes[range]),
                        to: &worker.buffer)
                }
                let frame = Array(worker.buffer.bytes)
                frames.withLock { $0[number] = frame }
            })
        return frames.withLock { $0 }
    }
}

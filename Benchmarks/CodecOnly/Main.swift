// What archiving one WAL file costs at the least: read it, compress and seal its frames, write them, two fsyncs.
// Nothing is looked up, checked or named; `scripts/bench.sh` holds `kedge archive-push` against this.
//
//   codec-only file FILE DIRECTORY THREADS CODEC CIPHER
//   codec-only tree DIRECTORY THREADS CODEC CIPHER       what a full backup costs at the least (Tree.swift)
//   codec-only checks FILE          what the checks of archive-push cost on one core: content tag, CRC
//
// `file` writes DIRECTORY/codec-only.out, which stays. Prints one line of JSON: microseconds of each part.
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

    func printLine(_ more: [(name: String, value: UInt64)] = []) {
        let fields = zip(names, microseconds).map { "\"\($0)\": \($1)" } + more.map { "\"\($0)\": \($1)" }
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
        let words = CommandLine.arguments.dropFirst()
        do throws(KedgeError) {
            switch (words.first, words.count) {
            case ("checks", 2): try checkOnly(file: RawPath(words[2]))
            case ("file", 6):
                try seal(
                    file: RawPath(words[2]), directory: RawPath(words[3]), threads: try threads(words[4]),
                    try CompressionChoice(parsing: words[5]), keyRing(words[6]))
            case ("tree", 5):
                var parts = Parts()
                let tree = Tree(
                    directory: RawPath(words[2]), threads: try threads(words[3]),
                    compression: try CompressionChoice(parsing: words[4]), keyRing: keyRing(words[5]))
                let totals = try tree.run()
                parts.end("all")
                parts.printLine([
                    ("raw_bytes", totals.rawBytes), ("written_bytes", totals.storedBytes),
                    ("bad_pages", totals.badPages),
                ])
            default:
                print("usage: see Benchmarks/CodecOnly/Main.swift")
                exit(2)
            }
        } catch {
            print("codec-only: \(error)")
            exit(1)
        }
    }

    private static func threads(_ word: String) throws(KedgeError) -> Int {
        if let threads = Int(word), threads > 0 { return threads }
        throw KedgeError(.usage, "cannot run on \"\(word)\" threads", hint: "Give a number.")
    }

    private static func keyRing(_ cipher: String) -> KeyRing {
        if cipher == "none" { return KeyRing(cipher: .none, keys: []) }
        return KeyRing(cipher: .aes256GCM, keys: [DataKey(sequence: 1, random: SystemRandomSource())])
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

    private static func seal(
        file: RawPath, directory: RawPath, threads: Int, _ compression: CompressionChoice, _ keyRing: KeyRing
    ) throws(KedgeError) {
        var parts = Parts()
        let bytes = try read(file)
        parts.end("read")
        let random = SystemRandomSource()
        let seal = try ObjectSeal(
            writing: .walFile, name: ScopedName(scope: RandomID(from: random), name: "codec-only"),
            compression: compression, keyRing: keyRing, random: random)
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
        parts.printLine([("written_bytes", offset)])
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

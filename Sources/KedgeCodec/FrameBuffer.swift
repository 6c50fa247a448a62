/// A growable buffer of bytes that is used again and again without giving up its memory. One thread at a time.
///
/// Owns its memory, which begins at a multiple of 4096 (as direct I/O asks), and frees it.
package struct FrameBuffer: ~Copyable {
    private var memory: UnsafeMutableRawBufferPointer
    /// How many bytes it holds.
    package private(set) var count = 0

    private static let alignment = 4096

    /// An empty buffer with room for `capacity` bytes.
    package init(capacity: Int = 0) {
        memory = .allocate(byteCount: capacity, alignment: FrameBuffer.alignment)
    }

    deinit { memory.deallocate() }

    package var capacity: Int { memory.count }

    /// The bytes it holds; valid until the buffer changes or goes away.
    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }

    /// Forgets its bytes and keeps its memory.
    package mutating func removeAll() { count = 0 }

    /// Forgets all but the first `count` bytes.
    package mutating func truncate(to count: Int) {
        precondition(count >= 0 && count <= self.count)
        self.count = count
    }

    /// Makes room for `additional` more bytes.
    package mutating func reserve(_ additional: Int) {
        precondition(additional >= 0)
        guard additional > memory.count - count else { return }
        let larger = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(count + additional, memory.count + memory.count / 2), alignment: FrameBuffer.alignment)
        larger.copyMemory(from: bytes)
        memory.deallocate()
        memory = larger
    }

    /// Adds `bytes` at the end.
    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        append(upTo: bytes.count) { room in
            room.copyMemory(from: bytes)
            return bytes.count
        }
    }

    /// Adds `bytes` at the end.
    package mutating func append(_ bytes: [UInt8]) { bytes.withUnsafeBytes { append($0) } }

    /// Lets `write` fill room for `limit` bytes at the end, and keeps as many as it says that it wrote.
    package mutating func append<Failure>(
        upTo limit: Int, _ write: (UnsafeMutableRawBufferPointer) throws(Failure) -> Int
    ) throws(Failure) {
        reserve(limit)
        let written = try write(UnsafeMutableRawBufferPointer(rebasing: memory[count..<count + limit]))
        precondition(written >= 0 && written <= limit)
        count += written
    }
}

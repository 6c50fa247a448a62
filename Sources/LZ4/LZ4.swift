// Owner of LZ4's work space, and LZ4 blocks. A block does not know its own raw size: the reader must know it.
import CLZ4
package import KedgeCore

/// The work space of the LZ4 compressor, with a level: 1 and 2 are the fast compressor, 3 to 12 the high-compression
/// one.
package struct LZ4Compressor: ~Copyable {
    private let state: UnsafeMutableRawPointer
    private let level: Int32

    /// The levels that a configuration may ask for.
    package static let levels: ClosedRange<Int32> = 1...12
    /// The most bytes that one block can take.
    package static let maximumBytes = Int(LZ4_MAX_INPUT_SIZE)

    /// Work space for `level`, which must lie in `levels`.
    package init(level: Int32) {
        precondition(LZ4Compressor.levels.contains(level))
        self.level = level
        // malloc's alignment, which both states ask for.
        state = UnsafeMutableRawPointer.allocate(
            byteCount: Int(level < 3 ? LZ4_sizeofState() : LZ4_sizeofStateHC()), alignment: 16)
    }

    deinit { state.deallocate() }

    /// The most bytes that compressing `count` bytes can give.
    package static func bound(_ count: Int) -> Int {
        precondition(count <= maximumBytes)
        return Int(LZ4_compressBound(Int32(count)))
    }

    /// Writes `raw` (at most `maximumBytes`) as one LZ4 block and returns its length; nil where `out` is too small.
    package borrowing func compress(_ raw: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer) -> Int? {
        precondition(raw.count <= LZ4Compressor.maximumBytes)
        let source = raw.assumingMemoryBound(to: CChar.self).baseAddress
        let target = out.assumingMemoryBound(to: CChar.self).baseAddress
        let (size, capacity) = (Int32(raw.count), Int32(clamping: out.count))
        let written =
            level < 3
            ? LZ4_compress_fast_extState(state, source, target, size, capacity, 1)
            : LZ4_compress_HC_extStateHC(state, source, target, size, capacity, level)
        return written > 0 ? Int(written) : nil
    }
}

/// Reading LZ4 blocks; needs no work space.
package enum LZ4Decompressor {
    /// Fills `out` from `stored`, which must be exactly one LZ4 block of exactly that many raw bytes. Throws `damaged`.
    package static func decompress(
        _ stored: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        let result = LZ4_decompress_safe(
            stored.assumingMemoryBound(to: CChar.self).baseAddress, out.assumingMemoryBound(to: CChar.self).baseAddress,
            Int32(clamping: stored.count), Int32(clamping: out.count))
        guard Int(result) == out.count else {
            throw KedgeError(
                .damaged, "cannot decompress an LZ4 block",
                detail: result < 0
                    ? "Its data is malformed." : "It holds \(result) bytes instead of \(out.count).")
        }
    }
}

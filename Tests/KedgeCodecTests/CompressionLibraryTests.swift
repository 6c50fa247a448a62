// Proves of the owners of zstd, LZ4 and zlib what the layers above rely on: a context can be used again and again, and
// only data of exactly the promised size is accepted.
import KedgeCore
import LZ4
import Testing
import Zlib
import Zstd

@Suite struct CompressionLibraryTests {
    /// One library behind one shape.
    struct Library: Sendable, CustomTestStringConvertible {
        let name: String
        let bound: @Sendable (Int) -> Int
        /// Compresses each input with one and the same context; nil where the output does not fit the capacity.
        let compress: @Sendable ([[UInt8]], Int) throws(KedgeError) -> [[UInt8]?]
        let decompress: @Sendable ([UInt8], Int) throws(KedgeError) -> [UInt8]
        var testDescription: String { name }
    }

    static func collect(
        _ inputs: [[UInt8]], _ capacity: Int,
        _ compress: (UnsafeRawBufferPointer, UnsafeMutableRawBufferPointer) throws(KedgeError) -> Int?
    ) throws(KedgeError) -> [[UInt8]?] {
        var results: [[UInt8]?] = []
        for input in inputs {
            var out = [UInt8](repeating: 0, count: capacity)
            let count = try input.withBytes { input throws(KedgeError) in
                try out.withMutableBytes { out throws(KedgeError) in try compress(input, out) }
            }
            results.append(count.map { Array(out.prefix($0)) })
        }
        return results
    }

    static func filled(
        _ stored: [UInt8], _ count: Int,
        _ decompress: (UnsafeRawBufferPointer, UnsafeMutableRawBufferPointer) throws(KedgeError) -> Void
    ) throws(KedgeError) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: count)
        try stored.withBytes { stored throws(KedgeError) in
            try out.withMutableBytes { out throws(KedgeError) in try decompress(stored, out) }
        }
        return out
    }

    static func zstd(_ level: Int32) -> Library {
        Library(
            name: "zstd:\(level)", bound: ZstdCompressor.bound,
            compress: { inputs, capacity throws(KedgeError) in
                let compressor = try ZstdCompressor(level: level)
                return try collect(inputs, capacity) { raw, out throws(KedgeError) in
                    try compressor.compress(raw, into: out)
                }
            },
            decompress: { stored, count throws(KedgeError) in
                let decompressor = try ZstdDecompressor()
                return try filled(stored, count) { stored, out throws(KedgeError) in
                    try decompressor.decompress(stored, into: out)
                }
            })
    }

    static func lz4(_ level: Int32) -> Library {
        Library(
            name: "lz4:\(level)", bound: LZ4Compressor.bound,
            compress: { inputs, capacity throws(KedgeError) in
                let compressor = LZ4Compressor(level: level)
                return try collect(inputs, capacity) { raw, out throws(KedgeError) in
                    compressor.compress(raw, into: out)
                }
            },
            decompress: { stored, count throws(KedgeError) in
                try filled(stored, count, LZ4Decompressor.decompress)
            })
    }

    static func zlib(_ level: Int32) -> Library {
        Library(
            name: "zlib:\(level)", bound: ZlibCompressor.bound,
            compress: { inputs, capacity throws(KedgeError) in
                let compressor = try ZlibCompressor(level: level)
                return try collect(inputs, capacity) { raw, out throws(KedgeError) in
                    try compressor.compress(raw, into: out)
                }
            },
            decompress: { stored, count throws(KedgeError) in
                let decompressor = try ZlibDecompressor()
                return try filled(stored, count) { stored, out throws(KedgeError) in
                    try decompressor.decompress(stored, into: out)
                }
            })
    }

    static let libraries = [zstd(-7), zstd(1), zstd(22), lz4(1), lz4(3), lz4(12), zlib(1), zlib(9)]

    static let text = (0..<20_000).map { UInt8(truncatingIfNeeded: ($0 / 7) ^ ($0 / 300)) }

    @Test("what was compressed comes back, one context used many times", arguments: libraries)
    func roundTrip(_ library: Library) throws {
        let inputs = [Self.text, [7], Array(Self.text.reversed()), Array(Self.text.prefix(100)), Self.text]
        let results = try library.compress(inputs, library.bound(Self.text.count))
        for (input, result) in zip(inputs, results) {
            #expect(try library.decompress(#require(result), input.count) == input)
        }
        #expect(results[0] == results[4], "a used context compresses as a new one does")
    }

    @Test("output that does not fit is said, not an error", arguments: libraries)
    func tooSmall(_ library: Library) throws {
        #expect(try library.compress([Self.text], 10) == [nil])
    }

    @Test("a wrong size, a cut and anything that follows are damage", arguments: libraries)
    func inexact(_ library: Library) throws {
        let stored = try #require(try library.compress([Self.text], library.bound(Self.text.count))[0])
        let count = Self.text.count
        var cases = [(stored, count - 1), (stored, count + 1), (Array(stored.dropLast()), count), ([], count)]
        // An LZ4 block has no end of its own: a final zero byte is an empty sequence to it.
        if !library.name.hasPrefix("lz4") {
            cases += [(stored + [0], count), (stored + stored, count), (stored + stored, count * 2)]
        }
        for (stored, count) in cases {
            let error = #expect(throws: KedgeError.self) { _ = try library.decompress(stored, count) }
            #expect(error?.code == .damaged)
        }
    }
}

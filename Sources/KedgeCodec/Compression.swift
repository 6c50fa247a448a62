// Frames are compressed each on its own: which codecs there are, how a configuration asks for one, and the contexts.
package import KedgeCore
import LZ4
import Zlib
import Zstd

/// How a frame's payload is compressed; the raw value is the codec's number in an object's header.
package enum Codec: UInt8, Sendable, CaseIterable {
    case none = 0
    case zstd = 1
    case lz4 = 2
    case zlib = 3

    /// The word that a configuration uses.
    package var name: String {
        switch self {
        case .none: "none"
        case .zstd: "zstd"
        case .lz4: "lz4"
        case .zlib: "zlib"
        }
    }

    /// The levels that may be asked for; nil where there are none.
    package var levels: ClosedRange<Int32>? {
        switch self {
        case .none: nil
        case .zstd: ZstdCompressor.levels
        case .lz4: LZ4Compressor.levels
        case .zlib: ZlibCompressor.levels
        }
    }
}

/// A codec and its level, as configured: `zstd`, `zstd:3`, `none`.
package struct CompressionChoice: Hashable, Sendable {
    package let codec: Codec
    /// Within the codec's levels; 0 for `none`.
    package let level: Int32

    /// zstd at level 1: the best ratio among what keeps up with a disk.
    package static let standard = CompressionChoice(codec: .zstd, level: 1)
    package static let none = CompressionChoice(codec: .none, level: 0)

    /// Level 1 of `codec`: kedge favours speed unless told otherwise.
    package init(_ codec: Codec) {
        self.init(codec: codec, level: codec == .none ? 0 : 1)
    }

    private init(codec: Codec, level: Int32) {
        self.codec = codec
        self.level = level
    }

    /// Parses a codec's name, optionally with `:` and a level. Throws `configuration`.
    package init(parsing text: String) throws(KedgeError) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let codec = Codec.allCases.first(where: { $0.name == parts[0] }) else {
            throw KedgeError(
                .configuration, "compression \"\(text)\" is unknown",
                hint: "Use \(Codec.allCases.map(\.name).joined(separator: ", ")), optionally with a level as in zstd:3."
            )
        }
        self.init(codec)
        guard parts.count == 2 else { return }
        guard let levels = codec.levels else {
            throw KedgeError(
                .configuration, "compression \"\(text)\" cannot have a level", hint: "Write just \"\(codec.name)\".")
        }
        guard let level = Int32(parts[1]), levels.contains(level) else {
            throw KedgeError(
                .configuration, "compression \"\(text)\" has no such level",
                hint: "The levels of \(codec.name) are the whole numbers from \(levels.lowerBound) to"
                    + " \(levels.upperBound).")
        }
        self.init(codec: codec, level: level)
    }
}

extension CompressionChoice: CustomStringConvertible {
    /// As in a configuration, always with the level where there is one.
    package var description: String { codec == .none ? codec.name : "\(codec.name):\(level)" }
}

/// Compresses frames by one choice. Keeps its context; belongs to one thread at a time.
package final class Compressor {
    package let choice: CompressionChoice
    private let engine: Engine

    private enum Engine: ~Copyable {
        case none
        case zstd(ZstdCompressor)
        case lz4(LZ4Compressor)
        case zlib(ZlibCompressor)
    }

    /// Throws `defect` where a library has no memory.
    package init(_ choice: CompressionChoice) throws(KedgeError) {
        self.choice = choice
        switch choice.codec {
        case .none: engine = .none
        case .zstd: engine = .zstd(try ZstdCompressor(level: choice.level))
        case .lz4: engine = .lz4(LZ4Compressor(level: choice.level))
        case .zlib: engine = .zlib(try ZlibCompressor(level: choice.level))
        }
    }

    /// Room for the output of `rawCount` bytes with which compressing is fastest.
    package func bound(_ rawCount: Int) -> Int {
        switch choice.codec {
        case .none: rawCount
        case .zstd: ZstdCompressor.bound(rawCount)
        case .lz4: LZ4Compressor.bound(rawCount)
        case .zlib: ZlibCompressor.bound(rawCount)
        }
    }

    /// Compresses `raw` and returns the length; nil where the result would not be shorter than `raw`, or `out` is too
    /// small for it. Throws `defect`.
    package func compress(
        _ raw: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Int? {
        guard !raw.isEmpty else { return nil }
        let count: Int?
        switch engine {
        case .none: count = nil
        case .zstd(let compressor): count = try compressor.compress(raw, into: out)
        case .lz4(let compressor): count = compressor.compress(raw, into: out)
        case .zlib(let compressor): count = try compressor.compress(raw, into: out)
        }
        guard let count, count < raw.count else { return nil }
        return count
    }
}

/// Decompresses frames of any codec. Makes a context at its first use and keeps it; belongs to one thread at a time.
package final class Decompressor {
    private var zstd: ZstdDecompressor?
    private var zlib: ZlibDecompressor?

    package init() {}

    /// Fills `out` from `stored`, which must decompress to exactly that many bytes. Throws `damaged`.
    package func decompress(
        _ stored: UnsafeRawBufferPointer, codec: Codec, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        switch codec {
        case .none:
            guard stored.count == out.count else {
                throw KedgeError(
                    .damaged, "cannot read a frame",
                    detail: "It holds \(stored.count) bytes instead of \(out.count).")
            }
            out.copyMemory(from: stored)
        case .zstd:
            if zstd == nil { zstd = try ZstdDecompressor() }
            try zstd?.decompress(stored, into: out)
        case .lz4:
            try LZ4Decompressor.decompress(stored, into: out)
        case .zlib:
            if zlib == nil { zlib = try ZlibDecompressor() }
            try zlib?.decompress(stored, into: out)
        }
    }
}

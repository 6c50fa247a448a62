// Proves what a configuration may ask for, and that each choice compresses as it says.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct CompressionTests {
    @Test(
        "a choice is parsed with or without a level",
        arguments: [
            ("zstd", "zstd:1"), ("zstd:3", "zstd:3"), ("zstd:-7", "zstd:-7"), ("zstd:22", "zstd:22"), ("lz4", "lz4:1"),
            ("lz4:12", "lz4:12"), ("zlib", "zlib:1"), ("zlib:9", "zlib:9"), ("none", "none"),
        ])
    func parse(_ text: String, _ expected: String) throws {
        let choice = try CompressionChoice(parsing: text)
        #expect(choice.description == expected)
        let compressor = try Compressor(choice)
        let raw = Fixture.text(20000)
        var out = [UInt8](repeating: 0, count: compressor.bound(raw.count))
        let count = try raw.withBytes { raw throws(KedgeError) in
            try out.withMutableBytes { out throws(KedgeError) in try compressor.compress(raw, into: out) }
        }
        #expect((count == nil) == (choice.codec == .none))
    }

    @Test("what is incompressible stays raw", arguments: Codec.allCases)
    func incompressible(_ codec: Codec) throws {
        let compressor = try Compressor(CompressionChoice(codec))
        for raw in [[], [1], Fixture.noise(5000)] {
            var out = [UInt8](repeating: 0, count: compressor.bound(raw.count))
            let count = try raw.withBytes { raw throws(KedgeError) in
                try out.withMutableBytes { out throws(KedgeError) in try compressor.compress(raw, into: out) }
            }
            #expect(count == nil)
        }
    }

    @Test(
        "anything else is refused with the way out",
        arguments: [
            ("", "Use none, zstd, lz4, zlib, optionally with a level as in zstd:3."),
            ("gzip", "Use none, zstd, lz4, zlib, optionally with a level as in zstd:3."),
            ("ZSTD", "Use none, zstd, lz4, zlib, optionally with a level as in zstd:3."),
            ("zstd:", "The levels of zstd are the whole numbers from -7 to 22."),
            ("zstd:23", "The levels of zstd are the whole numbers from -7 to 22."),
            ("zstd:1.5", "The levels of zstd are the whole numbers from -7 to 22."),
            ("zstd:99999999999", "The levels of zstd are the whole numbers from -7 to 22."),
            ("zlib:0", "The levels of zlib are the whole numbers from 1 to 9."),
            ("lz4:1:2", "The levels of lz4 are the whole numbers from 1 to 12."), ("none:1", "Write just \"none\"."),
        ])
    func refused(_ text: String, _ hint: String) {
        let error = errorOf { () throws(KedgeError) in try CompressionChoice(parsing: text) }
        #expect(error?.code == .configuration)
        #expect(error?.hint == hint)
    }
}

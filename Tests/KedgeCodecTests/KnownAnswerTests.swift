// Proves that the crypto and checksum owners compute what the standards print, so that other software can read what we
// write.
import CArithmetic
import KedgeCore
import OpenSSL
import Testing
import XXHash

@Suite struct KnownAnswerTests {
    @Test("SHA-256 agrees with FIPS 180-4")
    func sha256() throws {
        let hash = try SHA256.hash(Array("abc".utf8))
        #expect(hash.hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    @Test("HKDF agrees with RFC 5869, test cases 1 and 3")
    func hkdf() throws {
        let key = [UInt8](repeating: 0x0B, count: 22)
        let first = try HKDF.derive(key: key, salt: Array(0...0x0C), info: Array(0xF0...0xF9), count: 42)
        #expect(
            first.hex
                == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
        let third = try HKDF.derive(key: key, salt: [], info: [], count: 42)
        #expect(
            third.hex
                == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
    }

    @Test("scrypt agrees with RFC 7914")
    func scrypt() throws {
        let empty = try Scrypt.derive(passphrase: [], salt: [], n: 16, r: 1, p: 1, count: 64)
        #expect(
            empty.hex
                == "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
                + "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906")
        let sodium = try Scrypt.derive(
            passphrase: Array("pleaseletmein".utf8), salt: Array("SodiumChloride".utf8), n: 16384, r: 8, p: 1,
            count: 64)
        #expect(
            sodium.hex
                == "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
                + "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887")
    }

    /// Test cases 13, 14 and 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", which NIST refers to.
    struct GCMCase: Sendable, CustomTestStringConvertible {
        let number: Int
        let key, nonce, plain, additional, sealed, tag: String
        var testDescription: String { "case \(number)" }
    }

    static let gcmCases = [
        GCMCase(
            number: 13, key: String(repeating: "0", count: 64), nonce: String(repeating: "0", count: 24), plain: "",
            additional: "", sealed: "", tag: "530f8afbc74536b9a963b4f1c4cb738b"),
        GCMCase(
            number: 14, key: String(repeating: "0", count: 64), nonce: String(repeating: "0", count: 24),
            plain: String(repeating: "0", count: 32), additional: "", sealed: "cea7403d4d606b6e074ec5d3baf39d18",
            tag: "d0d1c8a799996bf0265b98b5d48ab919"),
        GCMCase(
            number: 16, key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            nonce: "cafebabefacedbaddecaf888",
            plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            additional: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
    ]

    @Test("AES-256-GCM agrees with its published test cases, both ways", arguments: gcmCases)
    func gcm(_ row: GCMCase) throws {
        let key = try #require([UInt8](hex: row.key))
        let nonce = try #require([UInt8](hex: row.nonce))
        let additional = try #require([UInt8](hex: row.additional))
        let sealer = try AES256GCM(.seal)
        try sealer.setKey(key)
        var text = try #require([UInt8](hex: row.plain))
        var tag = [UInt8](repeating: 0, count: 16)
        try text.withMutableBytes { text throws(KedgeError) in
            try tag.withMutableBytes { tag throws(KedgeError) in
                try sealer.seal(UnsafeRawBufferPointer(text), nonce: nonce, additional: additional, to: text, tag: tag)
            }
        }
        #expect(text.hex == row.sealed)
        #expect(tag.hex == row.tag)

        let opener = try AES256GCM(.open)
        try opener.setKey(key)
        func open() throws(KedgeError) -> Bool {
            try text.withMutableBytes { text throws(KedgeError) in
                try tag.withBytes { tag throws(KedgeError) in
                    try opener.open(
                        UnsafeRawBufferPointer(text), nonce: nonce, additional: additional, tag: tag, to: text)
                }
            }
        }
        #expect(try open())
        #expect(text.hex == row.plain)
        tag[0] ^= 1
        #expect(try !open())
        #expect(text.allSatisfy { $0 == 0 }, "what could not be authenticated is wiped")
    }

    @Test(
        "XXH3-128 agrees with xxhsum, in one piece and in many",
        arguments: [
            ("", "99aa06d3014798d86001c324468d497f"), ("a", "a96faf705af16834e6c632b61e964e1f"),
        ])
    func xxh3(_ text: String, _ expected: String) {
        let bytes = Array(text.utf8)
        #expect(bytes.withBytes { XXH3.hash($0) }.hex == expected)
        let state = XXH3State()
        for byte in bytes { [byte].withBytes { state.update($0) } }
        #expect(state.hash().hex == expected)
    }

    @Test("both variants of XXH3 give what libxxhash gives, for every length, alignment and seed")
    func xxh3Variants() {
        let bytes = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 5 ^ $0 >> 11) }
        typealias Variant = (UnsafeRawPointer?, Int, UInt64) -> carithmetic_hash128
        var variants: [Variant] = [carithmetic_xxh3, carithmetic_xxh3_portable]
        if carithmetic_xxh3_has_avx2() { variants.append(carithmetic_xxh3_avx2) }
        // Up to 16, 128 and 240 bytes have code of their own; then come stripes of 64 bytes and blocks of 1024.
        let lengths = Array(0...1300) + [2047, 2048, 2049, 4096, 8192, 16_383, 65_536, 65_537, 69_900]
        for seed: UInt64 in [0, 0x1234_5678_9ABC_DEF0] {
            let state = XXH3State(seed: seed)
            bytes.withUnsafeBytes { all in
                for (number, length) in lengths.enumerated() {
                    let start = number % 65
                    let piece = UnsafeRawBufferPointer(rebasing: all[start..<start + length])
                    state.reset()
                    state.update(piece)
                    for variant in variants {
                        let hash = variant(piece.baseAddress, length, seed)
                        #expect(ContentHash(high: hash.high, low: hash.low) == state.hash(), "\(length) bytes")
                    }
                }
            }
        }
    }

    @Test("an XXH3 state fed in pieces gives what one piece gives, also with a seed and after a reset")
    func xxh3Pieces() {
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 3) }
        let portable = bytes.withBytes { carithmetic_xxh3_portable($0.baseAddress, $0.count, 42) }
        let whole = ContentHash(high: portable.high, low: portable.low)
        let state = XXH3State(seed: 42)
        // Libxxhash gathers 256 bytes; then come stripes of 64 bytes and blocks of 1024.
        for size in [777, 1, 63, 64, 255, 256, 257, 1024, 1025, 65_537, 100_000] {
            for start in stride(from: 0, to: bytes.count, by: size) {
                Array(bytes[start..<min(start + size, bytes.count)]).withBytes { state.update($0) }
            }
            #expect(state.hash() == whole, "pieces of \(size)")
            state.reset()
        }
        #expect(whole != bytes.withBytes { XXH3.hash($0) })
    }
}

// Proves that no parser of this module traps or hangs on bytes that nobody wrote. Seeded: a failure names its seed.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct ParserFuzzTests {
    /// Bytes that get past the first checks now and then: a valid start, random bytes, and headers made right.
    static func mutated(_ bytes: [UInt8], _ random: SeededRandom) -> [UInt8] {
        var bytes = bytes
        for _ in 0...random.below(6) where !bytes.isEmpty {
            let index = random.below(bytes.count)
            switch random.below(5) {
            case 0: bytes[index] = UInt8(truncatingIfNeeded: random.next())
            case 1: bytes[index] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)]
            case 2: bytes.removeLast(min(bytes.count, random.below(40)))
            case 3: bytes.insert(contentsOf: random.bytes(random.below(8)), at: index)
            default: bytes.removeSubrange(index..<min(bytes.count, index + random.below(8)))
            }
        }
        return bytes
    }

    /// The header's checksum made right, so that what lies behind it is reached.
    static func rechecked(_ object: [UInt8], headerLength: Int) -> [UInt8] {
        guard object.count >= headerLength else { return object }
        var bytes = Array(object[..<(headerLength - 4)])
        bytes.append(littleEndian: CRC32C.checksum(bytes))
        return bytes + object[headerLength...]
    }

    @Test("objects", arguments: [UInt64](1...4))
    func objects(_ seed: UInt64) throws {
        let random = SeededRandom(seed)
        let name = ScopedName(scope: Fixture.clusterID, name: "wal/7/history/00000002.history")
        let original = try SealedObject.seal(
            .walFile, name: name, contents: Fixture.text(300), facts: Array("{}".utf8), frameSize: 100,
            keyRing: .plain, random: random)
        var refused = 0
        for _ in 0..<2000 {
            let bytes = Self.rechecked(Self.mutated(original, random), headerLength: 111)
            let error = errorOf { () throws(KedgeError) in
                try SealedObject.open(bytes, kind: .walFile, name: name, keyRing: .plain, limit: 1 << 20)
            }
            if bytes != original { #expect(error != nil, "seed \(seed)") }
            refused += error == nil ? 0 : 1
            _ = errorOf { () throws(KedgeError) in
                try SealedObject.openFacts(prefix: bytes, name: name, keyRing: .plain)
            }
            _ = errorOf { () throws(KedgeError) in
                try ObjectReader(kind: .walFile, name: name, keyRing: .plain, length: UInt64(bytes.count)) {
                    range throws(KedgeError) in Array(bytes[Int(range.lowerBound)..<Int(range.upperBound)])
                }.packDirectory()
            }
        }
        #expect(refused > 1500)
    }

    @Test("pure noise of every length", arguments: [UInt64](1...4))
    func noise(_ seed: UInt64) {
        let random = SeededRandom(seed)
        for _ in 0..<500 {
            let noise = random.bytes(random.below(300))
            for bytes in [noise, ObjectHeader.magic + noise] {
                let error = errorOf { () throws(KedgeError) in
                    try SealedObject.open(bytes, kind: .pack, name: PackTests.name, keyRing: Fixture.sealed)
                }
                #expect(error?.code == .damaged, "seed \(seed)")
            }
            _ = errorOf { () throws(KedgeError) in try KeySlot(parsing: noise, what: "key slot") }
        }
    }

    @Test("tables of packs", arguments: [UInt64](1...4))
    func tables(_ seed: UInt64) throws {
        let random = SeededRandom(seed)
        var builder = PackTableBuilder()
        for frame in PackTests.frames(6) {
            builder.append(storedLength: frame.raw.count, rawLength: frame.raw.count, sources: Array(frame.sources))
        }
        let original = builder.encoded()
        _ = try PackTable(decoding: original, what: "pack")
        for _ in 0..<2000 {
            let bytes = Self.mutated(original, random)
            _ = errorOf { () throws(KedgeError) in try PackTable(decoding: bytes, what: "pack") }
            let noise = [1] + random.bytes(random.below(100))
            _ = errorOf { () throws(KedgeError) in try PackTable(decoding: noise, what: "pack") }
        }
    }

    @Test("key slots", arguments: [UInt64](1...4))
    func slots(_ seed: UInt64) {
        let random = SeededRandom(seed)
        let original = Array(GoldenEnvelopeTests.keyFileSlot.utf8)
        let secret = KeyEncryptionSecret.keyFile(Secret(Array(100..<132)))
        for _ in 0..<1000 {
            let bytes = Self.mutated(original, random)
            _ = errorOf { () throws(KedgeError) in
                try KeySlot(parsing: bytes, what: "key slot").unwrap(with: secret)
            }
        }
    }
}

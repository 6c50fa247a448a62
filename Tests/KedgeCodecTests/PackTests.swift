// Proves that a pack's table leads to every frame by range reads alone, and that a table which lies is refused.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct PackTests {
    static let name = ScopedName(scope: Fixture.clusterID, name: "pack/ab/abcdef")
    static let frameSize = 4096

    /// A pack of these frames with their sources, written front to back as a backup does.
    static func pack(
        _ frames: [(raw: [UInt8], sources: [PackSource])], cipher: Cipher, table: [UInt8]? = nil
    ) throws(KedgeError) -> [UInt8] {
        let seal = try ObjectSeal(
            writing: .pack, name: name, compression: .standard, frameSize: frameSize,
            keyRing: Fixture.keyRing(cipher), random: SeededRandom(7))
        let sealer = try FrameSealer(seal)
        var tally = ObjectTally(seal)
        var builder = PackTableBuilder()
        var buffer = FrameBuffer()
        buffer.append(seal.headerBytes)
        for frame in frames {
            let before = buffer.count
            try frame.raw.withBytes { raw throws(KedgeError) in
                try sealer.append(.data, raw: raw, counting: &tally, to: &buffer)
            }
            builder.append(
                storedLength: buffer.count - before - FrameHeader.overhead, rawLength: frame.raw.count,
                sources: frame.sources)
        }
        try (table ?? builder.encoded()).withBytes { table throws(KedgeError) in
            try sealer.appendPieces(.table, raw: table, counting: &tally, to: &buffer)
        }
        try sealer.appendEnd(tally, to: &buffer)
        return Array(buffer.bytes)
    }

    static func source(_ path: String, _ offset: UInt64, _ length: Int) -> PackSource {
        PackSource(
            path: Array(path.utf8), offset: offset, length: UInt64(length), checksum: ContentHash(of: Array(path.utf8)))
    }

    /// `count` frames, some with many small sources, some with none.
    static func frames(_ count: Int) -> [(raw: [UInt8], sources: [PackSource])] {
        (0..<count).map { number in
            let raw = number % 2 == 0 ? Fixture.text(frameSize - number) : Fixture.noise(1 + number)
            switch number % 3 {
            case 0: return (raw, [source("base/5/\(number)", 8192, raw.count)])
            case 1: return (raw, [])
            default: return (raw, pieces(raw.count))
            }
        }
    }

    /// Sources of 1 to 100 bytes that tile `count` bytes; three in a row are of the same file.
    static func pieces(_ count: Int) -> [PackSource] {
        stride(from: 0, to: count, by: 100).enumerated().map { index, start in
            source("base/5/\(index / 3)", UInt64(start), min(100, count - start))
        }
    }

    static func reader(_ pack: [UInt8], _ cipher: Cipher) throws(KedgeError) -> ObjectReader {
        try ObjectReader(
            kind: .pack, name: name, keyRing: Fixture.keyRing(cipher), length: UInt64(pack.count)
        ) { range throws(KedgeError) in Array(pack[Int(range.lowerBound)..<Int(range.upperBound)]) }
    }

    @Test(
        "every frame of a pack is found through its table and opened alone", arguments: Cipher.allCases, [0, 1, 2, 40])
    func roundTrip(_ cipher: Cipher, _ count: Int) throws {
        let frames = Self.frames(count)
        let pack = try Self.pack(frames, cipher: cipher)
        let reader = try Self.reader(pack, cipher)
        let directory = try reader.packDirectory()
        #expect(directory.frameCount == count)
        let opener = try FrameOpener(reader.seal)
        for (number, frame) in frames.enumerated() {
            let range = try directory.range(ofFrame: UInt64(number))
            let raw = try Array(pack[Int(range.lowerBound)..<Int(range.upperBound)]).withBytes {
                bytes throws(KedgeError) in
                try opener.open(bytes, expecting: .data, number: UInt32(number))
            }
            #expect(raw == frame.raw)
            #expect(Array(directory.table.sources[directory.table.frames[number].sources]) == frame.sources)
        }
        if count > 0 {
            let all = try directory.range(ofFrames: 0...UInt64(count - 1))
            #expect(all == UInt64(reader.seal.headerLength)..<reader.end.tableOffset)
        }
        #expect(errorOf { () throws(KedgeError) in try directory.range(ofFrame: UInt64(count)) }?.code == .damaged)
        #expect(errorOf { () throws(KedgeError) in try directory.range(ofFrame: .max) }?.code == .damaged)
        let lean = try reader.packDirectory(keepingSources: false)
        #expect(lean.table.sources.isEmpty && lean.table.frames.count == count)
    }

    @Test("a table larger than one read is read whole", arguments: Cipher.allCases)
    func largeTable(_ cipher: Cipher) throws {
        let random = SeededRandom(4)
        let sources = (0..<Self.frameSize).map { offset in
            PackSource(
                path: Array("base/\(random.next())".utf8), offset: 0, length: 1,
                checksum: ContentHash(high: random.next(), low: random.next()))
        }
        let pack = try Self.pack([(Fixture.text(Self.frameSize), sources)], cipher: cipher)
        let reader = try Self.reader(pack, cipher)
        #expect(UInt64(pack.count) - reader.end.tableOffset > 64 << 10)
        #expect(try reader.packDirectory().table.sources == sources)
    }

    @Test("flipped bits and cuts of header, table and end are damage", arguments: Cipher.allCases)
    func damage(_ cipher: Cipher) throws {
        var pack = try Self.pack(
            [(Fixture.text(250), Self.pieces(250)), (Fixture.noise(50), [])], cipher: cipher)
        let dataEnd = Int(try Self.reader(pack, cipher).end.tableOffset)
        func code(_ pack: [UInt8]) -> ErrorCode? {
            errorOf { () throws(KedgeError) in try Self.reader(pack, cipher).packDirectory() }?.code
        }
        try #require(code(pack) == nil)
        for bit in Array(0..<111 * 8) + Array(dataEnd * 8..<pack.count * 8) {
            pack[bit / 8] ^= 1 << (bit % 8)
            #expect(code(pack) == .damaged, "bit \(bit)")
            pack[bit / 8] ^= 1 << (bit % 8)
        }
        for length in stride(from: 0, to: pack.count, by: 13) {
            #expect(code(Array(pack.prefix(length))) == .damaged, "\(length) bytes")
        }
    }

    @Test("a table that lies is damage, though it is sealed", arguments: lyingTables.indices)
    func lies(_ index: Int) throws {
        let (name, table) = lyingTables[index]
        let pack = try Self.pack([(Fixture.noise(100), [])], cipher: .aes256GCM, table: table)
        let error = errorOf { () throws(KedgeError) in try Self.reader(pack, .aes256GCM).packDirectory() }
        #expect(error?.code == .damaged, "\(name)")
    }

    @Test("a table of a format to come is an unknown format")
    func unknownFormat() throws {
        let pack = try Self.pack([(Fixture.noise(100), [])], cipher: .none, table: [2, 1, 100, 100, 0])
        #expect(
            errorOf { () throws(KedgeError) in try Self.reader(pack, .none).packDirectory() }?.code == .formatUnknown)
    }
}

/// Tables that are well sealed but say what cannot be, as whoever holds a data key could write them.
private let lyingTables: [(String, [UInt8])] = {
    func table(_ frames: [[UInt8]]) -> [UInt8] { [1, UInt8(frames.count)] + frames.flatMap { $0 } }
    func source(path: [UInt8], offset: UInt64, length: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(varint: UInt(path.count))
        bytes += path
        bytes.append(varint: offset)
        bytes.append(varint: length)
        return bytes + [UInt8](repeating: 0, count: 16)
    }
    let good: [UInt8] = [100, 100, 0]
    return [
        ("empty", []), ("no frame", table([])), ("one frame too many", table([good, good])),
        ("stored longer than raw", table([[101, 100, 0]])), ("another stored length", table([[99, 100, 0]])),
        ("another raw length", table([[100, 101, 0]])), ("something after the end", table([good]) + [0]),
        ("a cut", [1, 1, 100, 100]), ("a count that memory cannot hold", [1, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("a number of more than 64 bits", [1] + [UInt8](repeating: 0xFF, count: 10)),
        ("lengths above 16 MiB", table([[0x81, 0x80, 0x80, 0x08, 0x81, 0x80, 0x80, 0x08, 0]])),
        ("no path at first", table([[100, 100, 1] + source(path: [], offset: 0, length: 100)])),
        ("sources that end early", table([[100, 100, 1] + source(path: [65], offset: 0, length: 99)])),
        ("sources that end late", table([[100, 100, 1] + source(path: [65], offset: 0, length: 101)])),
        ("a huge source", table([[100, 100, 1] + source(path: [65], offset: 0, length: .max)])),
        (
            "a source without bytes",
            table([
                [100, 100, 2] + source(path: [65], offset: 0, length: 0) + source(path: [], offset: 0, length: 100)
            ])
        ),
        ("an offset beyond any file", table([[100, 100, 1] + source(path: [65], offset: .max, length: 100)])),
        (
            "a path that is too long",
            table([[100, 100, 1] + source(path: [UInt8](repeating: 65, count: 4097), offset: 0, length: 100)])
        ),
    ]
}()

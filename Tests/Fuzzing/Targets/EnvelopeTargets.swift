// Envelopes: header, frames, end frame, whole objects, packs and their tables.
import KedgeCodec
import KedgeCore
import KedgeTestSupport

private let recordName = ScopedName(scope: Mending.scope, name: "catalog/intent/20261121T020000Z-full-7k3q")
private let walName = ScopedName(scope: Mending.scope, name: "wal/7/history/00000002.history")
private let packName = ScopedName(scope: Mending.scope, name: "pack/00/00000000000000000000000000000000")

extension FuzzTarget {
    static let envelopeTargets: [FuzzTarget] = [
        FuzzTarget("object-header", maximumLength: 512, seeds: recordSeeds.map { Array($0.prefix(200)) }) {
            (bytes) throws(KedgeError) in
            let mended = try Mending.mended(bytes, name: recordName)
            let (header, length) = try mended.withBytes { (mended) throws(KedgeError) in
                try ObjectHeader.decode(mended, what: "object")
            }
            let again = header.encoded()
            let (second, secondLength) = try again.withBytes { (again) throws(KedgeError) in
                try ObjectHeader.decode(again, what: "object")
            }
            require(second == header && secondLength == length, "a header is written as it was read")
        },
        FuzzTarget("object", maximumLength: 2048, seeds: recordSeeds) { (bytes) throws(KedgeError) in
            let mended = try Mending.mended(bytes, name: recordName)
            let contents = try SealedObject.open(
                mended, kind: .intent, name: recordName, keyRing: .plain, limit: 1 << 20)
            require(contents.data.count <= 1 << 20, "no more is handed out than is accepted")
        },
        FuzzTarget("object-facts", maximumLength: 2048, seeds: walSeeds) { (bytes) throws(KedgeError) in
            let mended = try Mending.mended(bytes, name: walName)
            _ = try SealedObject.openFacts(prefix: mended, name: walName, keyRing: .plain)
            _ = try SealedObject.open(mended, kind: .walFile, name: walName, keyRing: .plain, limit: 1 << 20)
        },
        FuzzTarget("object-encrypted", maximumLength: 1024, seeds: sealedSeeds) { (bytes) throws(KedgeError) in
            let contents = try SealedObject.open(bytes, kind: .intent, name: recordName, keyRing: keyRing)
            require(sealedSeeds.contains(bytes), "nothing opens but what was sealed: \(contents.data.count) bytes")
        },
        FuzzTarget("pack", maximumLength: 4096, seeds: packSeeds, readPack),
        FuzzTarget("pack-table", maximumLength: 2048, seeds: [tableSeed]) { (bytes) throws(KedgeError) in
            let table = try PackTable(decoding: bytes, what: "pack")
            let bare = try PackTable(decoding: bytes, what: "pack", keepingSources: false)
            require(bare.frames.count == table.frames.count && bare.sources.isEmpty, "sources change no frame")
            var builder = PackTableBuilder()
            for frame in table.frames {
                builder.append(
                    storedLength: Int(frame.storedLength), rawLength: Int(frame.rawLength),
                    sources: Array(table.sources[frame.sources]))
            }
            let again = try PackTable(decoding: builder.encoded(), what: "pack")
            require(again.frames == table.frames && again.sources == table.sources, "a table is written as it was read")
        },
        FuzzTarget("decompression", maximumLength: 4096, seeds: compressedSeeds) { (bytes) throws(KedgeError) in
            // The codec and the promised length, then what is said to decompress to that.
            var input = Instructions(bytes)
            guard let codec = Codec(rawValue: input.byte() & 3) else { return }
            var out = [UInt8](repeating: 0xEE, count: Int(input.number(bytes: 2)) + 16)
            let room = out.count - 16
            let stored = input.bytes(.max)
            defer { require(out[room...].allSatisfy { $0 == 0xEE }, "nothing is written behind the promised length") }
            try out.withMutableBytes { (out) throws(KedgeError) in
                try stored.withBytes { (stored) throws(KedgeError) in
                    try Decompressor().decompress(
                        stored, codec: codec, into: UnsafeMutableRawBufferPointer(rebasing: out[..<room]))
                }
            }
        },
    ]

    private static let readPack: @Sendable ([UInt8]) throws(KedgeError) -> Void = { (bytes) throws(KedgeError) in
        let mended = try Mending.mended(bytes, name: packName)
        let reader = try ObjectReader(
            kind: .pack, name: packName, keyRing: .plain, length: UInt64(mended.count)
        ) { (range) throws(KedgeError) in
            require(range.upperBound <= UInt64(mended.count), "nothing is read beyond the object's end")
            return Array(mended[Int(range.lowerBound)..<Int(range.upperBound)])
        }
        let directory = try reader.packDirectory()
        let opener = try FrameOpener(directory.seal)
        for number in 0..<UInt64(directory.frameCount) {
            let range = try directory.range(ofFrame: number)
            let frame = Array(mended[Int(range.lowerBound)..<Int(range.upperBound)])
            let raw = try frame.withBytes { (frame) throws(KedgeError) in
                try opener.open(frame, expecting: .data, number: UInt32(number))
            }
            require(raw.count <= FrameHeader.maximumBytes, "no frame is larger than a reader accepts")
        }
    }

    // MARK: - Seeds

    private static let keyRing = KeyRing(
        cipher: .aes256GCM,
        keys: [DataKey(id: Mending.scope, sequence: 1, secret: Secret([UInt8](repeating: 7, count: 32)))])

    private static let text = Array(String(repeating: "All that is in a record of the catalogue. ", count: 4).utf8)

    private static func sealed(
        _ kind: ObjectKind, _ name: ScopedName, _ codec: Codec, facts: [UInt8]? = nil, keyRing: KeyRing = .plain
    ) -> [UInt8] {
        seed { () throws(KedgeError) in
            try SealedObject.seal(
                kind, name: name, contents: text, facts: facts, compression: CompressionChoice(codec), frameSize: 100,
                keyRing: keyRing, random: SeededRandom(seed: 1))
        }
    }

    static let recordSeeds = Codec.allCases.map { sealed(.intent, recordName, $0) }
    private static let walSeeds = Codec.allCases.map { sealed(.walFile, walName, $0, facts: Array("{}".utf8)) }
    private static let sealedSeeds = Codec.allCases.map { sealed(.intent, recordName, $0, keyRing: keyRing) }

    private static let sources = [
        PackSource(path: Array("base/1/1249".utf8), offset: 0, length: 60, checksum: ContentHash(high: 1, low: 2)),
        PackSource(path: Array("base/1/1259".utf8), offset: 8192, length: 40, checksum: ContentHash(high: 3, low: 4)),
    ]

    private static let tableSeed: [UInt8] = {
        var builder = PackTableBuilder()
        builder.append(storedLength: 50, rawLength: 100, sources: sources)
        builder.append(storedLength: 68, rawLength: 68, sources: [])
        return builder.encoded()
    }()

    private static let packSeeds: [[UInt8]] = Codec.allCases.map { codec in
        seed { () throws(KedgeError) in
            let seal = try ObjectSeal(
                writing: .pack, name: packName, compression: CompressionChoice(codec), frameSize: 100, keyRing: .plain,
                random: SeededRandom(seed: 2))
            let sealer = try FrameSealer(seal)
            var tally = ObjectTally(seal)
            var buffer = FrameBuffer()
            var table = PackTableBuilder()
            buffer.append(seal.headerBytes)
            for piece in [text.prefix(100), text[100...]] {
                let before = buffer.count
                try Array(piece).withBytes { (piece) throws(KedgeError) in
                    try sealer.append(.data, raw: piece, counting: &tally, to: &buffer)
                }
                table.append(
                    storedLength: buffer.count - before - FrameHeader.overhead, rawLength: piece.count,
                    sources: piece.count == 100 ? sources : [])
            }
            try table.encoded().withBytes { (table) throws(KedgeError) in
                try sealer.appendPieces(.table, raw: table, counting: &tally, to: &buffer)
            }
            try sealer.appendEnd(tally, to: &buffer)
            return Array(buffer.bytes)
        }
    }

    private static let compressedSeeds: [[UInt8]] = Codec.allCases.map { codec in
        seed { () throws(KedgeError) in
            let compressor = try Compressor(CompressionChoice(codec))
            var out = [UInt8](repeating: 0, count: 4096)
            let count = try out.withMutableBytes { (out) throws(KedgeError) in
                try text.withBytes { (raw) throws(KedgeError) in try compressor.compress(raw, into: out) }
            }
            return [codec.rawValue, 0, UInt8(text.count)] + (count.map { Array(out[..<$0]) } ?? text)
        }
    }
}

/// A seed that is made here, so that failing is a mistake of ours.
func seed(_ make: () throws(KedgeError) -> [UInt8]) -> [UInt8] {
    do throws(KedgeError) { return try make() } catch { fatalError("cannot make a seed: \(error)") }
}

// Proves that what is sealed comes back, for every codec, cipher and awkward size, in one piece, from a prefix, and by
// several threads.
import Glibc
import KedgeCodec
import KedgeCore
import Synchronization
import Testing

@Suite struct SealedObjectTests {
    static let combinations = Codec.allCases.flatMap { codec in Cipher.allCases.map { (codec, $0) } }

    @Test("contents of every size come back under every codec and cipher (lesson 50)", arguments: combinations)
    func roundTrip(_ codec: Codec, _ cipher: Cipher) throws {
        let frameSize = 4096
        let keyRing = Fixture.keyRing(cipher)
        for count in [0, 1, 2, 31, 33, frameSize - 1, frameSize, frameSize + 1, 3 * frameSize, 3 * frameSize + 17] {
            for contents in [Fixture.text(count), Fixture.noise(count), [UInt8](repeating: 0, count: count)] {
                let object = try SealedObject.seal(
                    .intent, name: Fixture.recordName, contents: contents, compression: CompressionChoice(codec),
                    frameSize: frameSize, keyRing: keyRing, random: SeededRandom(7))
                let opened = try SealedObject.open(object, kind: .intent, name: Fixture.recordName, keyRing: keyRing)
                #expect(opened.data == contents && opened.facts == nil, "\(count) bytes")
                let frames = (count + frameSize - 1) / frameSize
                #expect(object.count <= 111 + count + 32 * frames + 64, "incompressible frames are stored as they are")
            }
        }
    }

    @Test("frame sizes from 1 byte to 16 MiB work", arguments: [1, 2, 100, 16 << 20])
    func frameSizes(_ frameSize: Int) throws {
        let contents = Fixture.text(1000)
        let object = try SealedObject.seal(
            .intent, name: Fixture.recordName, contents: contents, frameSize: frameSize, keyRing: Fixture.sealed,
            random: SeededRandom(7))
        let opened = try SealedObject.open(object, kind: .intent, name: Fixture.recordName, keyRing: Fixture.sealed)
        #expect(opened.data == contents)
    }

    @Test("an object's name may have 1024 bytes, and no more")
    func longName() throws {
        for (count, works) in [(1024, true), (1025, false)] {
            let name = ScopedName(scope: Fixture.clusterID, name: String(repeating: "n", count: count))
            let object = { () throws(KedgeError) in
                try SealedObject.seal(
                    .intent, name: name, contents: [1], keyRing: Fixture.sealed, random: SeededRandom(7))
            }
            guard works else {
                #expect(errorOf(object)?.code == .defect)
                continue
            }
            #expect(
                try SealedObject.open(object(), kind: .intent, name: name, keyRing: Fixture.sealed).data == [1])
        }
    }

    @Test("two objects of the same contents share only the plain start of their headers")
    func saltsDiffer() throws {
        let random = SeededRandom(7)
        let objects = try (0..<2).map { _ in
            try SealedObject.seal(
                .intent, name: Fixture.recordName, contents: Fixture.noise(100), keyRing: Fixture.sealed,
                random: random)
        }
        #expect(objects[0].prefix(40) == objects[1].prefix(40))
        #expect(objects[0][40..<88] != objects[1][40..<88])
        #expect(objects[0].suffix(64 + 132) != objects[1].suffix(64 + 132))
    }

    @Test(
        "a WAL object's facts are read from its first bytes, however few there are at first", arguments: Cipher.allCases
    )
    func facts(_ cipher: Cipher) throws {
        let keyRing = Fixture.keyRing(cipher)
        let name = ScopedName(scope: Fixture.clusterID, name: "wal/7/00000001/00000000/000000010000000000000001")
        for factsCount in [0, 1, 300, 4096, 9000] {
            let facts = Fixture.noise(factsCount)
            let object = try SealedObject.seal(
                .walFile, name: name, contents: Fixture.text(50000), facts: facts, keyRing: keyRing,
                random: SeededRandom(7))
            let whole = try SealedObject.open(object, kind: .walFile, name: name, keyRing: keyRing)
            #expect(whole.facts == facts && whole.data == Fixture.text(50000))

            var length = 0
            var steps = 0
            while true {
                let prefix = Array(object.prefix(length))
                let result = try SealedObject.openFacts(prefix: prefix, name: name, keyRing: keyRing)
                if case .needs(let more) = result {
                    try #require(more > length && steps < 5)
                    (length, steps) = (more, steps + 1)
                } else {
                    #expect(result == .facts(facts))
                    break
                }
            }
            var bytesRead = 0
            let read = try SealedObject.readFacts(name: name, keyRing: keyRing) { range throws(KedgeError) in
                bytesRead += range.count
                return Array(object[Int(range.lowerBound)..<min(Int(range.upperBound), object.count)])
            }
            #expect(read == facts)
            #expect(bytesRead < 3 * 4096 + 2 * factsCount)
        }
    }

    @Test("a WAL object that ends before its facts do is damaged (lesson 17)")
    func cutFacts() throws {
        let name = ScopedName(scope: Fixture.clusterID, name: "wal/7/history/00000002.history")
        let object = try SealedObject.seal(
            .walFile, name: name, contents: [], facts: Fixture.noise(8000), keyRing: .plain, random: SeededRandom(7))
        for length in [0, 7, 19, 20, 91, 111, 120, 4096, 8100] {
            let cut = Array(object.prefix(length))
            let error = errorOf { () throws(KedgeError) in
                try SealedObject.readFacts(name: name, keyRing: .plain) { range throws(KedgeError) in
                    Array(cut[..<min(Int(range.upperBound), cut.count)])
                }
            }
            #expect(error?.code == .damaged, "\(length) bytes")
        }
    }

    @Test("frames of one object are sealed and opened by several threads at once", arguments: combinations)
    func threads(_ codec: Codec, _ cipher: Cipher) throws {
        let (frameSize, frameCount) = (8192, 16)
        let contents = Fixture.text(frameSize * frameCount - 5)
        let seal = try ObjectSeal(
            writing: .intent, name: Fixture.recordName, compression: CompressionChoice(codec), frameSize: frameSize,
            keyRing: Fixture.keyRing(cipher), random: SeededRandom(7))
        let frames = Mutex([Int: [UInt8]]())
        try onThreads(2) { thread throws(KedgeError) in
            let sealer = try FrameSealer(seal)
            for number in stride(from: thread, to: frameCount, by: 2) {
                var buffer = FrameBuffer()
                let piece = Array(contents[number * frameSize..<min((number + 1) * frameSize, contents.count)])
                try piece.withBytes { piece throws(KedgeError) in
                    try sealer.append(.data, number: UInt32(number), raw: piece, to: &buffer)
                }
                let sealed = Array(buffer.bytes)
                frames.withLock { $0[number] = sealed }
            }
        }
        let expected = try SealedObject.seal(contents, with: seal)
        let joined = seal.headerBytes + frames.withLock { all in (0..<frameCount).flatMap { all[$0] ?? [] } }
        #expect(Array(expected.prefix(joined.count)) == joined, "threads write what one thread writes")

        let index = try expected.withBytes { bytes throws(KedgeError) in
            try ObjectIndex(
                bytes, kind: .intent, name: Fixture.recordName, keyRing: Fixture.keyRing(cipher), limit: 1 << 20)
        }
        #expect(index.rawCount == contents.count && index.dataFrames.count == frameCount)
        let pieces = Mutex([Int: [UInt8]]())
        try onThreads(2) { thread throws(KedgeError) in
            let opener = try FrameOpener(index.seal)
            for (position, place) in index.dataFrames.enumerated() where position % 2 == thread {
                let raw = try Array(expected[place.range]).withBytes { frame throws(KedgeError) in
                    try opener.open(frame, expecting: .data, number: place.header.number)
                }
                pieces.withLock { $0[position] = raw }
            }
        }
        #expect(pieces.withLock { all in (0..<frameCount).flatMap { all[$0] ?? [] } } == contents)
    }

    @Test("one sealer and one opener serve object after object, whatever their cipher and codec")
    func reuse() throws {
        var seals: [ObjectSeal] = []
        for (codec, cipher) in Self.combinations + Self.combinations.reversed() {
            seals.append(
                try ObjectSeal(
                    writing: .intent, name: Fixture.recordName, compression: CompressionChoice(codec),
                    keyRing: Fixture.keyRing(cipher), random: SeededRandom(UInt64(seals.count))))
        }
        let contents = Fixture.text(5000)
        let sealer = try FrameSealer(seals[0])
        let opener = try FrameOpener(seals[0])
        for seal in seals {
            try sealer.start(seal)
            try opener.start(seal)
            var buffer = FrameBuffer()
            try contents.withBytes { raw throws(KedgeError) in
                try sealer.append(.data, number: 3, raw: raw, to: &buffer)
            }
            #expect(try opener.open(buffer.bytes, expecting: .data, number: 3) == contents)
        }
    }
}

/// Runs `work` on `count` threads of their own, waits for all and throws what one of them threw.
func onThreads(_ count: Int, _ work: @escaping @Sendable (Int) throws(KedgeError) -> Void) throws {
    final class Start: Sendable {
        let run: @Sendable () -> Void
        init(run: @escaping @Sendable () -> Void) { self.run = run }
    }
    let failure = Mutex<KedgeError?>(nil)
    var threads: [pthread_t] = []
    for index in 0..<count {
        let start = Start {
            if let error = errorOf({ () throws(KedgeError) in try work(index) }) { failure.withLock { $0 = error } }
        }
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, Unmanaged.passRetained(start).toOpaque())
        try #require(status == 0)
        threads.append(thread)
    }
    for thread in threads { pthread_join(thread, nil) }
    if let error = failure.withLock({ $0 }) { throw error }
}

// Proves that no damaged, cut, swapped, renamed or forged object is ever served: each is an error with the right code.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct DamageTests {
    static let contents = Fixture.text(150)

    /// Three data frames, compressed where that saves something.
    static func object(_ cipher: Cipher, name: ScopedName = Fixture.recordName, seed: UInt64 = 7) throws -> [UInt8] {
        try SealedObject.seal(
            .intent, name: name, contents: contents, frameSize: 60, keyRing: Fixture.keyRing(cipher),
            random: SeededRandom(seed))
    }

    static func code(_ bytes: [UInt8], _ cipher: Cipher, name: ScopedName = Fixture.recordName) -> ErrorCode? {
        errorOf { () throws(KedgeError) in
            try SealedObject.open(bytes, kind: .intent, name: name, keyRing: Fixture.keyRing(cipher))
        }?.code
    }

    @Test("the undamaged object opens", arguments: Cipher.allCases)
    func undamaged(_ cipher: Cipher) throws {
        let object = try Self.object(cipher)
        #expect(Self.code(object, cipher) == nil)
        #expect(object.count > 300 && object.count < 600)
    }

    @Test("every single flipped bit is damage", arguments: Cipher.allCases)
    func flippedBits(_ cipher: Cipher) throws {
        var object = try Self.object(cipher)
        for bit in 0..<object.count * 8 {
            object[bit / 8] ^= 1 << (bit % 8)
            #expect(Self.code(object, cipher) == .damaged, "bit \(bit)")
            object[bit / 8] ^= 1 << (bit % 8)
        }
    }

    @Test("flipped bits of a large object are damage, wherever they are", arguments: Cipher.allCases)
    func sampledBits(_ cipher: Cipher) throws {
        var object = try SealedObject.seal(
            .intent, name: Fixture.recordName, contents: Fixture.text(200_000) + Fixture.noise(200_000),
            frameSize: 65536, keyRing: Fixture.keyRing(cipher), random: SeededRandom(7))
        let random = SeededRandom(8)
        for _ in 0..<100 {
            let bit = random.below(object.count * 8)
            object[bit / 8] ^= 1 << (bit % 8)
            #expect(Self.code(object, cipher) == .damaged, "bit \(bit)")
            object[bit / 8] ^= 1 << (bit % 8)
        }
    }

    @Test("a cut at every length and whatever follows the end are damage (lesson 17)", arguments: Cipher.allCases)
    func cuts(_ cipher: Cipher) throws {
        let object = try Self.object(cipher)
        for length in 0..<object.count {
            #expect(Self.code(Array(object.prefix(length)), cipher) == .damaged, "\(length) bytes")
        }
        #expect(Self.code(object + [0], cipher) == .damaged)
        #expect(Self.code(object + object, cipher) == .damaged)
        #expect(Self.code(object + object.suffix(64), cipher) == .damaged)
    }

    @Test(
        "frames that are swapped, doubled, left out or taken from another object are damage", arguments: Cipher.allCases
    )
    func movedFrames(_ cipher: Cipher) throws {
        let object = try Self.object(cipher)
        let other = try Self.object(cipher, seed: 9)
        let (header, frames) = try Self.split(object, cipher)
        let (_, otherFrames) = try Self.split(other, cipher)
        try #require(frames.count == 4)
        #expect(Self.code(header + frames.joined(), cipher) == nil)
        for order in [
            [1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3], [0, 1, 3], [1, 2, 3], [3], [0, 1, 2], [3, 0, 1, 2],
        ] {
            #expect(Self.code(header + order.flatMap { frames[$0] }, cipher) == .damaged, "\(order)")
        }
        for index in 0..<4 {
            var mixed = frames
            mixed[index] = otherFrames[index]
            #expect(Self.code(header + mixed.joined(), cipher) == .damaged, "frame \(index) of another object")
        }
        // Renumbered, so that only authentication can tell.
        var swapped = frames
        swapped[0] = Self.renumbered(frames[1], 0)
        swapped[1] = Self.renumbered(frames[0], 1)
        #expect(Self.code(header + swapped.joined(), cipher) == .damaged)
        var retyped = frames
        retyped[0][12] = 4
        #expect(Self.code(header + retyped.joined(), cipher) == .damaged)
    }

    static func split(_ object: [UInt8], _ cipher: Cipher) throws -> (header: [UInt8], frames: [[UInt8]]) {
        let index = try object.withBytes { bytes throws(KedgeError) in
            try ObjectIndex(
                bytes, kind: .intent, name: Fixture.recordName, keyRing: Fixture.keyRing(cipher), limit: 1 << 20)
        }
        let frames = index.frames.map { Array(object[$0.range]) } + [Array(object.suffix(64))]
        return (index.seal.headerBytes, frames)
    }

    static func renumbered(_ frame: [UInt8], _ number: UInt8) -> [UInt8] {
        var frame = frame
        frame[8] = number
        return frame
    }

    @Test("an object under another name, of another cluster or of another kind is damage", arguments: Cipher.allCases)
    func renamed(_ cipher: Cipher) throws {
        let object = try Self.object(cipher)
        for name in [
            ScopedName(scope: Fixture.clusterID, name: "catalog/intent/20261121T020000Z-full-7k3r"),
            ScopedName(scope: Fixture.clusterID, name: ""),
            ScopedName(scope: .zero, name: Fixture.recordName.name),
        ] {
            #expect(Self.code(object, cipher, name: name) == .damaged, "\(name)")
        }
        let asPin = errorOf { () throws(KedgeError) in
            try SealedObject.open(
                object, kind: .pin, name: Fixture.recordName, keyRing: Fixture.keyRing(cipher))
        }
        #expect(asPin?.code == .damaged)
        #expect(asPin?.detail == "Its header says that its kind is intent.")
    }

    @Test("an unencrypted object is damage where encryption is configured, however well it is made")
    func forged() throws {
        let forged = try Self.object(.none)
        let error = errorOf { () throws(KedgeError) in
            try SealedObject.open(forged, kind: .intent, name: Fixture.recordName, keyRing: Fixture.sealed)
        }
        #expect(error?.code == .damaged)
        #expect(error?.detail == "It is not encrypted, and only encrypted objects are accepted here.")
    }

    @Test("wrong key, missing key, missing encryption and damage are told apart")
    func keys() throws {
        let object = try Self.object(.aes256GCM)
        func code(_ keyRing: KeyRing) -> ErrorCode? {
            errorOf { () throws(KedgeError) in
                try SealedObject.open(object, kind: .intent, name: Fixture.recordName, keyRing: keyRing)
            }?.code
        }
        let stranger = DataKey(sequence: 1, random: SeededRandom(3))
        let impostor = DataKey(id: Fixture.key.id, sequence: 1, secret: stranger.secret)
        #expect(code(.plain) == .keyMissing)
        #expect(code(KeyRing(cipher: .aes256GCM, keys: [])) == .keyMissing)
        #expect(code(KeyRing(cipher: .aes256GCM, keys: [stranger])) == .keyMissing)
        #expect(code(KeyRing(cipher: .aes256GCM, keys: [impostor])) == .keyWrong)
        #expect(code(KeyRing(cipher: .aes256GCM, keys: [stranger, Fixture.key])) == nil)
    }

    @Test("nothing is sealed without a key where encryption is configured")
    func noKey() {
        let error = errorOf { () throws(KedgeError) in
            try SealedObject.seal(
                .intent, name: Fixture.recordName, contents: [], keyRing: KeyRing(cipher: .aes256GCM, keys: []),
                random: SeededRandom(7))
        }
        #expect(error?.code == .keyMissing)
    }

    @Test("an object that says to hold more than the reader accepts is refused before memory is taken for it")
    func limit() throws {
        let object = try SealedObject.seal(
            .intent, name: Fixture.recordName, contents: [UInt8](repeating: 0, count: 1 << 20), keyRing: .plain,
            random: SeededRandom(7))
        let error = errorOf { () throws(KedgeError) in
            try SealedObject.open(
                object, kind: .intent, name: Fixture.recordName, keyRing: .plain, limit: (1 << 20) - 1)
        }
        #expect(error?.code == .damaged)
        #expect(error?.detail?.contains("1048576") == true)
    }
}

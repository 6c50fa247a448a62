// Proves that the bytes of the envelope and of key slots do not drift: they are compared with bytes that a program of
// its own computed, with other libraries, from Catalog/FORMAT.md.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct GoldenEnvelopeTests {
    /// `{"kedge":"intent"}` in two frames of at most 16 bytes, not compressed; salt from seed 7.
    static let uncompressed: [Cipher: String] = [
        .aes256GCM:
            "894b454447450d0a00000600010000007000000010000000a0a1a2a3a4a5a6a7a8a9aaabacadaeafd70d3259e4e1cb63"
            + "1c663cf4d73c4c04022ab1ba804098e6cb293e6770eb3a955fe774f67b4e65c758751b18eab53bdc010000000c000000"
            + "6b6564676520676f6c64656e1b267c86100000001000000000000000010000002c4e2f4eca97d23bd760a9ab34efd1b2"
            + "590f02aa572a6d76859d0d1106700b9502000000020000000100000001000000e00cd0e171354accdc04c68f8cc4af72"
            + "16c82000000020000000020000000300000095da318a4047c20e8cc45eccd9aa7e498424d20e7d1fe48e7911b659fae8"
            + "f4e12bc0339c48d13f6a54c561885c3c7e9c",
        .none:
            "894b454447450d0a0000060000000000700000001000000000000000000000000000000000000000d70d3259e4e1cb63"
            + "1c663cf4d73c4c04022ab1ba804098e6cb293e6770eb3a9500000000000000000000000000000000010000000c000000"
            + "6b6564676520676f6c64656e19b578d3100000001000000000000000010000007b226b65646765223a22696e74656e74"
            + "91e22918eafdc62ec021a4b7f6b3d11e02000000020000000100000001000000227d9a7314d6e4e98263e33d359a860b"
            + "66a020000000200000000200000003000000020000000200000012000000000000000000000000000000020100000000"
            + "00000dca97dfca2f37a5ef972bb533d78a4c",
    ]

    /// 300 zero bytes in one frame, as zstd 1.5 compresses them. Only read: another zstd may write other bytes.
    static let compressed: [Cipher: String] = [
        .aes256GCM:
            "894b454447450d0a00000601010000007000000000001000a0a1a2a3a4a5a6a7a8a9aaabacadaeafd70d3259e4e1cb63"
            + "1c663cf4d73c4c04022ab1ba804098e6cb293e6770eb3a955fe774f67b4e65c758751b18eab53bdc010000000c000000"
            + "6b6564676520676f6c64656efa5f7667130000002c0100000000000001000000a99e84379b082f78bbdfdcb159c01a98"
            + "f280e9737a3a4ae6553e28db578f8a721853f2200000002000000001000000030000003a304b8bfbe9780b5fb1041269"
            + "f8402af1293b6ea7d0ed6c9d8e6139c590c28e3881688c13f9012f4dc459b5da7e0522",
        .none:
            "894b454447450d0a0000060100000000700000000000100000000000000000000000000000000000d70d3259e4e1cb63"
            + "1c663cf4d73c4c04022ab1ba804098e6cb293e6770eb3a9500000000000000000000000000000000010000000c000000"
            + "6b6564676520676f6c64656ef8cc7232130000002c010000000000000100000028b52ffd602c004d0000100000010027"
            + "2ac002a423a233eaeda93da16c8c513d0a4e512000000020000000010000000300000001000000010000002c01000000"
            + "0000000000000000000000e3000000000000008589f0858a459b5423b39a88c39dd7ae",
    ]

    @Test("an object is written and read byte for byte as ever", arguments: Cipher.allCases)
    func uncompressed(_ cipher: Cipher) throws {
        let golden = try #require(Self.uncompressed[cipher].flatMap { [UInt8](hex: $0) })
        let contents = Array(#"{"kedge":"intent"}"#.utf8)
        let object = try SealedObject.seal(
            .intent, name: Fixture.recordName, contents: contents, compression: .none, frameSize: 16,
            keyRing: Fixture.keyRing(cipher), random: SeededRandom(7), writer: "kedge golden")
        #expect(object.hex == golden.hex)
        let opened = try SealedObject.open(
            golden, kind: .intent, name: Fixture.recordName, keyRing: Fixture.keyRing(cipher))
        #expect(opened.data == contents)
    }

    @Test("a compressed object is read as ever", arguments: Cipher.allCases)
    func compressed(_ cipher: Cipher) throws {
        let golden = try #require(Self.compressed[cipher].flatMap { [UInt8](hex: $0) })
        let opened = try SealedObject.open(
            golden, kind: .intent, name: Fixture.recordName, keyRing: Fixture.keyRing(cipher))
        #expect(opened.data == [UInt8](repeating: 0, count: 300))
    }

    static let keyFileSlot = """
        {"kedge":"key-slot","format":"0-draft","repository":"0123456789abcdef0123456789abcdef",\
        "key":"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",\
        "sequence":1,"slot":"c45904751a0f4a2a","label":"main","createdAt":"2026-11-21T02:00:00Z",\
        "derivation":{"name":"hkdf-sha-256","salt":"9d3080237d64f550a1136b7ad25c2a436d129b6e30be56a3f06d2e2799622e81"},\
        "cipher":"aes-256-gcm","nonce":"0e58b07ae1c94b8d649ff052",\
        "wrapped":"5d9755f7f90a7f341ebccb56cfce7d6dcd386c538dbfaf7fb1f757e130839963bc8a2d351d7e7ecc05dc902effcd3ae3"}
        """

    static let passphraseSlot = """
        {"kedge":"key-slot","format":"0-draft","repository":"0123456789abcdef0123456789abcdef",\
        "key":"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",\
        "sequence":1,"slot":"6effb8f2e78727da","label":"main","createdAt":"2026-11-21T02:00:00Z",\
        "derivation":{"name":"scrypt","salt":"038fde99fcf93f9457a4a89d26aa80f0ee767f2fd7d7173cc969e6900288a3e7",\
        "n":32768,"r":8,"p":1},\
        "cipher":"aes-256-gcm","nonce":"9c7d55e2fcb54b4b313ee361",\
        "wrapped":"6f47468c49758399710039e1ef25aeb3867d9bcff72e23c174d0cb5b16aa1805a6ff20e0ed59e3c7abcca195d93a1441"}
        """

    static let slots: [(String, KeyEncryptionSecret, seed: UInt64)] = [
        (keyFileSlot, .keyFile(Secret(Array(100..<132))), 11),
        (passphraseSlot, .passphrase(Secret(Array("correct horse".utf8))), 12),
    ]

    @Test("key slots are written and read character for character as ever", arguments: [0, 1])
    func slot(_ index: Int) throws {
        let (golden, secret, seed) = Self.slots[index]
        let slot = try KeySlot.wrap(
            Fixture.key, with: secret, repositoryID: #require(RandomID(hex: "0123456789abcdef0123456789abcdef")),
            label: "main", createdAt: #require(Timestamp(record: "2026-11-21T02:00:00Z")), random: SeededRandom(seed))
        #expect(slot.json.compactText == golden)
        let read = try KeySlot(parsing: Array(golden.utf8), what: "key slot")
        #expect(read == slot)
        let key = try read.unwrap(with: secret)
        #expect(key.id == Fixture.key.id && key.sequence == 1 && key.secret.bytes == Fixture.key.secret.bytes)
    }
}

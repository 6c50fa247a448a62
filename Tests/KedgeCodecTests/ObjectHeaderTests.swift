// Proves what a reader does with headers that a newer kedge, or nobody, may have written.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct ObjectHeaderTests {
    static let header = ObjectHeader(
        kind: .pack, codec: .lz4, cipher: .aes256GCM, frameSize: 1 << 20, keyID: Fixture.key.id,
        salt: Fixture.noise(32), checkValue: Fixture.noise(16, seed: 2), fields: [])

    static func decode(_ bytes: [UInt8]) throws(KedgeError) -> (header: ObjectHeader, length: Int) {
        try bytes.withBytes { bytes throws(KedgeError) in try ObjectHeader.decode(bytes, what: "pack \"x\"") }
    }

    /// `bytes` with the byte at `offset` set and the checksum made right again.
    static func patched(_ bytes: [UInt8], _ offset: Int, _ value: UInt8) -> [UInt8] {
        var body = Array(bytes.dropLast(4))
        body[offset] = value
        body.append(littleEndian: CRC32C.checksum(body))
        return body
    }

    @Test("a header comes back, and what follows it does not matter")
    func roundTrip() throws {
        var header = Self.header
        for fields in [
            [], [ObjectHeader.Field(tag: 1, isRequired: false, bytes: Array("kedge 0.1.0".utf8))],
            [
                ObjectHeader.Field(tag: 1, isRequired: true, bytes: []),
                ObjectHeader.Field(tag: 900, isRequired: false, bytes: Fixture.noise(60000)),
            ],
        ] {
            header.fields = fields
            let bytes = header.encoded()
            let decoded = try Self.decode(bytes + [1, 2, 3])
            #expect(decoded.header == header && decoded.length == bytes.count)
        }
    }

    @Test("an unknown required field is refused, an unknown optional one is kept and ignored")
    func fields() throws {
        var header = Self.header
        header.fields = [ObjectHeader.Field(tag: 3, isRequired: false, bytes: [9])]
        #expect(try Self.decode(header.encoded()).header.fields == header.fields)
        header.fields[0].isRequired = true
        let error = errorOf { () throws(KedgeError) in try Self.decode(header.encoded()) }
        #expect(error?.code == .formatUnknown)
        #expect(error?.detail == "It uses required header field 3, which this kedge does not know.")
    }

    @Test(
        "what only a newer kedge can have written is an unknown format, not damage",
        arguments: [(8, 1), (10, 0), (10, 12), (11, 4), (12, 2), (13, 1), (15, 1)] as [(Int, UInt8)])
    func unknown(_ offset: Int, _ value: UInt8) {
        let bytes = Self.header.encoded()
        #expect(
            errorOf { () throws(KedgeError) in try Self.decode(Self.patched(bytes, offset, value)) }?.code
                == .formatUnknown)
        var broken = bytes
        broken[offset] = value
        #expect(
            errorOf { () throws(KedgeError) in try Self.decode(broken) }?.code == .damaged, "without a right checksum")
    }

    @Test("a length, frame size or field that cannot be right is damage even under a right checksum")
    func impossible() {
        let plain = Self.header.encoded()
        var cases = [Self.patched(plain, 23, 2), Self.patched(Self.patched(plain, 22, 0), 21, 0)]
        var header = Self.header
        header.fields = [ObjectHeader.Field(tag: 1, isRequired: false, bytes: [1, 2, 3])]
        let bytes = header.encoded()
        cases += [Self.patched(bytes, 92, 2), Self.patched(bytes, 92, 4), Self.patched(bytes, 95, 255)]
        cases += (0..<92).map { Array(plain.prefix($0)) }
        cases.append(Self.patched(plain, 16, 91))
        cases.append(Self.patched(plain, 19, 1))
        for bytes in cases {
            #expect(errorOf { () throws(KedgeError) in try Self.decode(bytes) }?.code == .damaged)
        }
    }

    @Test("the length is known from 20 bytes, and a stranger from the first")
    func length() throws {
        let bytes = Self.header.encoded()
        func length(_ bytes: [UInt8]) throws(KedgeError) -> Int? {
            try bytes.withBytes { bytes throws(KedgeError) in try ObjectHeader.length(of: bytes, what: "pack \"x\"") }
        }
        for count in 0..<20 { #expect(try length(Array(bytes.prefix(count))) == nil) }
        #expect(try length(Array(bytes.prefix(20))) == 92)
        #expect(errorOf { () throws(KedgeError) in try length([0x7B]) }?.code == .damaged)
    }
}

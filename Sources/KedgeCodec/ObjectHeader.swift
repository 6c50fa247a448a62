// The header of a sealed object (Catalog/FORMAT.md section 3): plain, checksummed by itself, and bound to the object's
// subkey as a whole, so that nothing in it can be changed.
package import KedgeCore

/// What an object's first bytes say about the rest.
package struct ObjectHeader: Sendable, Equatable {
    package var kind: ObjectKind
    package var codec: Codec
    package var cipher: Cipher
    /// The most raw bytes that a frame holds (the end frame apart).
    package var frameSize: Int
    /// `RandomID.zero` for cipher none.
    package var keyID: RandomID
    /// 32 bytes.
    package var salt: [UInt8]
    /// 16 bytes; zero for cipher none.
    package var checkValue: [UInt8]
    package var fields: [Field]

    /// A field beyond the fixed ones.
    package struct Field: Sendable, Equatable {
        package var tag: UInt16
        /// Whether a reader that does not know the tag must refuse the object.
        package var isRequired: Bool
        package var bytes: [UInt8]

        package init(tag: UInt16, isRequired: Bool, bytes: [UInt8]) {
            self.tag = tag
            self.isRequired = isRequired
            self.bytes = bytes
        }

        /// Which kedge wrote the object, such as `kedge 0.1.0`.
        package static let writerTag: UInt16 = 1
        /// Of a pack: the label of the backup that made it.
        package static let backupTag: UInt16 = 2
    }

    package static let magic: [UInt8] = [0x89, 0x4B, 0x45, 0x44, 0x47, 0x45, 0x0D, 0x0A]
    package static let version: UInt16 = 0
    /// Lengths of a whole header in bytes, its checksum included.
    package static let lengths = 92...65536
    /// How many bytes are enough to learn a header's length.
    package static let lengthPrefix = 20
    package static let frameSizes = 1...(16 << 20)
    package static let saltBytes = 32
    package static let checkValueBytes = 16
    private static let fixedBytes = 88
    private static let checksumBytes = 4

    package init(
        kind: ObjectKind, codec: Codec, cipher: Cipher, frameSize: Int, keyID: RandomID, salt: [UInt8],
        checkValue: [UInt8], fields: [Field]
    ) {
        self.kind = kind
        self.codec = codec
        self.cipher = cipher
        self.frameSize = frameSize
        self.keyID = keyID
        self.salt = salt
        self.checkValue = checkValue
        self.fields = fields
    }

    /// The label of the backup that made a pack, as text; nil where the header names none.
    package var backupLabel: String? {
        fields.first { $0.tag == Field.backupTag }.map { String(decoding: $0.bytes, as: UTF8.self) }
    }

    /// The header's bytes. The values must be within their limits.
    package func encoded() -> [UInt8] {
        precondition(ObjectHeader.frameSizes.contains(frameSize))
        precondition(salt.count == ObjectHeader.saltBytes && checkValue.count == ObjectHeader.checkValueBytes)
        let length = fields.reduce(ObjectHeader.fixedBytes + ObjectHeader.checksumBytes) { $0 + 8 + $1.bytes.count }
        precondition(ObjectHeader.lengths.contains(length))
        var bytes = ObjectHeader.magic
        bytes.reserveCapacity(length)
        bytes.append(littleEndian: ObjectHeader.version)
        bytes += [kind.rawValue, codec.rawValue, cipher.rawValue, 0, 0, 0]
        bytes.append(littleEndian: UInt32(length))
        bytes.append(littleEndian: UInt32(frameSize))
        bytes += keyID.bytes
        bytes += salt
        bytes += checkValue
        for field in fields {
            bytes.append(littleEndian: field.tag)
            bytes.append(littleEndian: UInt16(field.isRequired ? 1 : 0))
            bytes.append(littleEndian: UInt32(field.bytes.count))
            bytes += field.bytes
        }
        bytes.append(littleEndian: CRC32C.checksum(bytes))
        return bytes
    }

    /// The length of the header that `prefix` begins with; nil where `prefix` has less than `lengthPrefix` bytes.
    ///
    /// The length is within its limits, but not yet proven right. Throws `damaged`; `what` names the object.
    package static func length(of prefix: UnsafeRawBufferPointer, what: String) throws(KedgeError) -> Int? {
        guard prefix.prefix(magic.count).elementsEqual(magic.prefix(prefix.count)) else {
            throw damage(what, "It does not begin as a sealed object does.")
        }
        guard prefix.count >= lengthPrefix else { return nil }
        let length = Int(UInt32(littleEndian: prefix.loadUnaligned(fromByteOffset: 16, as: UInt32.self)))
        guard lengths.contains(length) else { throw damage(what, "Its header says to be \(length) bytes long.") }
        return length
    }

    /// The header that `prefix` begins with, and its length in bytes.
    ///
    /// Magic, version, length and checksum have the same places in every version of the format, so damage and a format
    /// of the future can be told apart. Throws `damaged`, or `format-unknown` where the header is whole but says
    /// something that this kedge does not know. `what` names the object.
    package static func decode(
        _ prefix: UnsafeRawBufferPointer, what: String
    ) throws(KedgeError) -> (header: ObjectHeader, length: Int) {
        guard let length = try length(of: prefix, what: what), prefix.count >= length else {
            throw damage(what, "It ends within its header, after \(prefix.count) bytes.")
        }
        let body = UnsafeRawBufferPointer(rebasing: prefix[..<(length - checksumBytes)])
        let checksum = prefix.loadUnaligned(fromByteOffset: body.count, as: UInt32.self)
        guard CRC32C.checksum(body) == UInt32(littleEndian: checksum) else {
            throw damage(what, "The checksum of its header is wrong.")
        }
        var reader = BinaryReader(body, what: what)
        _ = try reader.bytes(magic.count)
        let version = try reader.u16()
        guard version == ObjectHeader.version else { throw unknown(what, "format version \(version)") }
        let (kindNumber, codecNumber, cipherNumber) = (try reader.u8(), try reader.u8(), try reader.u8())
        guard try reader.bytes(3).allSatisfy({ $0 == 0 }) else { throw unknown(what, "a reserved byte") }
        guard let kind = ObjectKind(rawValue: kindNumber) else { throw unknown(what, "object kind \(kindNumber)") }
        guard let codec = Codec(rawValue: codecNumber) else { throw unknown(what, "codec \(codecNumber)") }
        guard let cipher = Cipher(rawValue: cipherNumber) else { throw unknown(what, "cipher \(cipherNumber)") }
        _ = try reader.u32()
        let frameSize = Int(try reader.u32())
        guard frameSizes.contains(frameSize) else { throw damage(what, "Its header says frame size \(frameSize).") }
        guard let keyID = RandomID(bytes: try reader.bytes(16)) else { throw reader.malformed("the key id is cut") }
        let salt = Array(try reader.bytes(saltBytes))
        let checkValue = Array(try reader.bytes(checkValueBytes))
        let header = ObjectHeader(
            kind: kind, codec: codec, cipher: cipher, frameSize: frameSize, keyID: keyID, salt: salt,
            checkValue: checkValue, fields: try decodeFields(&reader, what: what))
        return (header, length)
    }

    private static func decodeFields(
        _ reader: inout BinaryReader, what: String
    ) throws(KedgeError) -> [Field] {
        var fields: [Field] = []
        while reader.remaining > 0 {
            let tag = try reader.u16()
            let isRequired = try reader.u16() & 1 == 1
            let bytes = Array(try reader.bytes(Int(try reader.u32())))
            guard !isRequired || tag == Field.writerTag || tag == Field.backupTag else {
                throw unknown(what, "required header field \(tag)")
            }
            fields.append(Field(tag: tag, isRequired: isRequired, bytes: bytes))
        }
        return fields
    }

    private static func damage(_ what: String, _ detail: String) -> KedgeError {
        KedgeError(.damaged, "cannot read \(what)", detail: detail)
    }

    private static func unknown(_ what: String, _ thing: String) -> KedgeError {
        KedgeError(
            .formatUnknown, "cannot read \(what)", detail: "It uses \(thing), which this kedge does not know.",
            hint: "A newer kedge wrote it: use that version or a later one.")
    }
}

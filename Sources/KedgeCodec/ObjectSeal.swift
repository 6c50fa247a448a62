// What seals the frames of one object: its header, and the subkey that is bound to header, scope and name
// (Catalog/FORMAT.md section 3, "Keys").
//
// A seal for writing has a random salt and serves one attempt to write one object: a retry sends the same bytes or
// makes a new seal. Under one seal each frame number is sealed at most once, since it is the nonce.
package import KedgeCore
import OpenSSL

/// One object's header and subkey. Never changes, so several threads may seal or open frames of the object with it.
package struct ObjectSeal: Sendable {
    package let header: ObjectHeader
    /// The object begins with these.
    package let headerBytes: [UInt8]
    package let name: ScopedName
    /// For writing: codec and level. When reading only its codec counts.
    package let compression: CompressionChoice
    let protection: Protection

    /// What frames are protected by.
    enum Protection: Sendable {
        /// Cipher none: checksums that begin with SHA-256 of the binding.
        case checksum(binding: [UInt8])
        /// AES-256-GCM with this subkey.
        case subkey(Secret)
    }

    /// How many raw bytes a frame holds at most, unless there is a reason for another size.
    package static let standardFrameSize = 1 << 20
    /// The most bytes that an object's name may have.
    package static let maximumNameBytes = 1024

    package var headerLength: Int { headerBytes.count }
    package var kind: ObjectKind { header.kind }
    /// The most raw bytes of a frame.
    package var frameSize: Int { header.frameSize }

    /// Kind and name, as errors call the object.
    package var what: String { ObjectSeal.what(header.kind, name) }

    /// A seal for writing one new object: under `keyRing`'s cipher, with its newest key and a new salt.
    ///
    /// `frameSize` is 1 to 16 MiB; `backupLabel` names the backup that a pack is of. Throws `key-missing`, `defect`.
    package init(
        writing kind: ObjectKind, name: ScopedName, compression: CompressionChoice,
        frameSize: Int = ObjectSeal.standardFrameSize, keyRing: KeyRing, random: any RandomSource,
        writer: String = Version.writer, backupLabel: String? = nil
    ) throws(KedgeError) {
        guard name.name.utf8.count <= ObjectSeal.maximumNameBytes else {
            throw KedgeError(
                .defect, "cannot seal \(ObjectSeal.what(kind, name))",
                detail: "Its name has more than \(ObjectSeal.maximumNameBytes) bytes.")
        }
        let key = keyRing.cipher == .none ? nil : try keyRing.writingKey()
        let salt = random.bytes(ObjectHeader.saltBytes)
        header = ObjectHeader(
            kind: kind, codec: compression.codec, cipher: keyRing.cipher, frameSize: frameSize,
            keyID: key?.id ?? .zero, salt: salt,
            checkValue: try key.map { key throws(KedgeError) in try ObjectSeal.checkValue(of: key, salt: salt) }
                ?? [UInt8](repeating: 0, count: ObjectHeader.checkValueBytes),
            fields: [
                (ObjectHeader.Field.writerTag, writer), (ObjectHeader.Field.backupTag, backupLabel),
            ].compactMap { tag, text in
                text.map { ObjectHeader.Field(tag: tag, isRequired: false, bytes: Array($0.utf8)) }
            })
        headerBytes = header.encoded()
        self.name = name
        self.compression = compression
        protection = try ObjectSeal.protection(header: headerBytes, salt: salt, name: name, key: key)
    }

    /// The seal of an object that begins with `prefix`, which must hold the whole header (`ObjectHeader.length`).
    ///
    /// The ring's cipher decides what is accepted, never the header: a repository may be hostile. Throws
    /// * `damaged`: the header is not what was written, is of another object, or has no protection where there must be;
    /// * `key-missing`: it is sealed with a key that no configured secret opens, or encrypted without `encryption`;
    /// * `key-wrong`: the key of that id is not the one it was sealed with;
    /// * `format-unknown`: a newer kedge wrote it.
    package init(
        reading prefix: UnsafeRawBufferPointer, kind: ObjectKind, name: ScopedName, keyRing: KeyRing
    ) throws(KedgeError) {
        let what = ObjectSeal.what(kind, name)
        let (header, length) = try ObjectHeader.decode(prefix, what: what)
        func damage(_ detail: String, hint: String? = nil) -> KedgeError {
            KedgeError(.damaged, "cannot read \(what)", detail: detail, hint: hint)
        }
        guard header.kind == kind else { throw damage("Its header says that its kind is \(header.kind.noun).") }
        var key: DataKey?
        switch (keyRing.cipher, header.cipher) {
        case (.none, .none):
            guard header.keyID == .zero, header.checkValue.allSatisfy({ $0 == 0 }) else {
                throw damage("It names a key although it is not encrypted.")
            }
        case (.none, .aes256GCM):
            throw KedgeError(
                .keyMissing, "cannot read \(what)", detail: "It is encrypted, and encryption is \"none\" here.",
                hint: "Set encryption = aes-256-gcm and the key file or passphrase of this repository.")
        case (.aes256GCM, .none):
            throw damage(
                "It is not encrypted, and only encrypted objects are accepted here.",
                hint: "Somebody without a key wrote it: find out who can write to the repository. If the repository is"
                    + " not meant to be encrypted, set encryption = none.")
        case (.aes256GCM, .aes256GCM):
            let found: DataKey
            do throws(KedgeError) { found = try keyRing.key(header.keyID) } catch {
                throw error.wrapped("cannot read \(what)")
            }
            guard try ObjectSeal.checkValue(of: found, salt: header.salt) == header.checkValue else {
                throw KedgeError(
                    .keyWrong, "cannot read \(what)",
                    detail: "Its header is whole, but it was not sealed with the key \"\(found.id)\" known here.",
                    hint: "Check that key and object come from the same repository.")
            }
            key = found
        }
        self.header = header
        headerBytes = Array(prefix[..<length])
        self.name = name
        compression = CompressionChoice(header.codec)
        protection = try ObjectSeal.protection(header: headerBytes, salt: header.salt, name: name, key: key)
    }

    /// A `damaged` error about this object.
    package func damaged(_ detail: String, cause: KedgeError? = nil) -> KedgeError {
        KedgeError(.damaged, "cannot read \(what)", detail: detail, cause: cause)
    }

    static func what(_ kind: ObjectKind, _ name: ScopedName) -> String { "\(kind.noun) \"\(name.name)\"" }

    private static func checkValue(of key: DataKey, salt: [UInt8]) throws(KedgeError) -> [UInt8] {
        let info = Array("kedge-check".utf8) + key.id.bytes
        return Array(
            try HKDF.derive(key: key.secret.bytes, salt: salt, info: info).prefix(ObjectHeader.checkValueBytes))
    }

    private static func protection(
        header: [UInt8], salt: [UInt8], name: ScopedName, key: DataKey?
    ) throws(KedgeError) -> Protection {
        let binding =
            Array("kedge-object".utf8) + (try SHA256.hash(header)) + name.scope.bytes + Array(name.name.utf8)
        guard let key else { return .checksum(binding: try SHA256.hash(binding)) }
        return .subkey(Secret(try HKDF.derive(key: key.secret.bytes, salt: salt, info: binding)))
    }
}

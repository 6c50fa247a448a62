// A data key in the repository, wrapped by one key-encryption key (Catalog/FORMAT.md section 2).
//
// Slots are plain JSON that anybody may have written. What they say is authenticated by unwrapping: every member is
// part of the additional data, exactly as it stands in the JSON.
package import KedgeCore
import OpenSSL

/// One slot.
package struct KeySlot: Hashable, Sendable {
    package let repositoryID: RandomID
    package let keyID: RandomID
    package let sequence: UInt64
    /// 16 lower-case hexadecimal digits.
    package let slotID: String
    /// What the user calls the secret: 1 to 255 of `A-Z a-z 0-9 . _ -`.
    package let label: String
    /// As text, since it is authenticated as it stands.
    package let createdAt: String
    package let derivation: Derivation
    /// The slots of the same key whose place this one takes (`kedge key rewrap`), so that an interrupted replacement
    /// can be finished by whoever holds the new secret alone. Not authenticated: whoever could change it could remove
    /// those slots as well.
    package let replaces: [String]
    let nonce: [UInt8]
    let wrapped: [UInt8]

    /// How the key-encryption key comes from the secret.
    package enum Derivation: Hashable, Sendable {
        case hkdf(salt: [UInt8])
        case scrypt(salt: [UInt8], n: UInt64, r: UInt64, p: UInt64)

        var name: String {
            switch self {
            case .hkdf: "hkdf-sha-256"
            case .scrypt: "scrypt"
            }
        }

        var salt: [UInt8] {
            switch self {
            case .hkdf(let salt), .scrypt(let salt, _, _, _): salt
            }
        }
    }

    /// scrypt's n that a reader accepts: a power of two in this range.
    package static let scryptCosts: ClosedRange<UInt64> = 1 << 15...1 << 20
    /// scrypt's n unless there is a reason for another.
    package static let standardScryptCost: UInt64 = 1 << 15
    static let format = "0-draft"
    private static let saltBytes = 32

    /// Wraps `key` in a new slot, which `replaces` the slots of these ids.
    ///
    /// `scryptCost` is scrypt's n for a passphrase: 128 · n · 8 bytes of memory. Throws `configuration` for a label
    /// that is not 1 to 255 of `A-Z a-z 0-9 . _ -`, and `defect`.
    package static func wrap(
        _ key: DataKey, with secret: KeyEncryptionSecret, repositoryID: RandomID, label: String, createdAt: Timestamp,
        replaces: [String] = [], random: any RandomSource, scryptCost: UInt64 = standardScryptCost
    ) throws(KedgeError) -> KeySlot {
        guard isLabel(label) else {
            throw KedgeError(
                .configuration, "cannot make a key slot with the label \"\(label)\"",
                hint: "Use 1 to 255 letters, digits, dots, underscores and hyphens.")
        }
        precondition(scryptCosts.contains(scryptCost) && scryptCost.nonzeroBitCount == 1)
        let salt = random.bytes(saltBytes)
        let derivation: Derivation
        switch secret {
        case .keyFile: derivation = .hkdf(salt: salt)
        case .passphrase: derivation = .scrypt(salt: salt, n: scryptCost, r: 8, p: 1)
        }
        let draft = KeySlot(
            repositoryID: repositoryID, keyID: key.id, sequence: key.sequence, slotID: random.bytes(8).hex,
            label: label, createdAt: createdAt.description, derivation: derivation, replaces: replaces,
            nonce: random.bytes(AES256GCM.nonceBytes), wrapped: [])
        let cipher = try AES256GCM(.seal)
        try cipher.setKey(try draft.keyEncryptionKey(secret))
        var text = key.secret.bytes
        var tag = [UInt8](repeating: 0, count: AES256GCM.tagBytes)
        try text.withMutableBytes { text throws(KedgeError) in
            try tag.withMutableBytes { tag throws(KedgeError) in
                try cipher.seal(
                    UnsafeRawBufferPointer(text), nonce: draft.nonce, additional: draft.additionalData, to: text,
                    tag: tag)
            }
        }
        return KeySlot(draft, wrapped: text + tag)
    }

    /// Whether a secret of this sort may open the slot.
    package func accepts(_ secret: KeyEncryptionSecret) -> Bool {
        switch (secret, derivation) {
        case (.keyFile, .hkdf), (.passphrase, .scrypt): true
        default: false
        }
    }

    /// The data key.
    ///
    /// Throws `key-wrong` where the secret is not the one the slot was made with (or the slot was tampered with, which
    /// looks the same), `damaged` where its scrypt parameters are out of range, `defect`.
    package func unwrap(with secret: KeyEncryptionSecret) throws(KedgeError) -> DataKey {
        guard accepts(secret) else {
            throw KedgeError(
                .keyWrong, "cannot open key slot \"\(label)\"",
                detail: "It was made with a \(isForPassphrase ? "passphrase" : "key file").",
                hint: "Configure that for this repository.")
        }
        let cipher = try AES256GCM(.open)
        try cipher.setKey(try keyEncryptionKey(secret))
        var text = Array(wrapped.dropLast(AES256GCM.tagBytes))
        let tag = Array(wrapped.suffix(AES256GCM.tagBytes))
        let isAuthentic = try text.withMutableBytes { text throws(KedgeError) in
            try tag.withBytes { tag throws(KedgeError) in
                try cipher.open(
                    UnsafeRawBufferPointer(text), nonce: nonce, additional: additionalData, tag: tag, to: text)
            }
        }
        guard isAuthentic else {
            throw KedgeError(
                .keyWrong, "cannot open key slot \"\(label)\"",
                detail:
                    "The \(isForPassphrase ? "passphrase" : "key file") is not the one that it was made with, or the"
                    + " slot was changed since.",
                hint: "Check that the configured secret belongs to this repository.")
        }
        return DataKey(id: keyID, sequence: sequence, secret: Secret(text))
    }

    private var isForPassphrase: Bool { if case .scrypt = derivation { true } else { false } }

    private func keyEncryptionKey(_ secret: KeyEncryptionSecret) throws(KedgeError) -> [UInt8] {
        switch (secret, derivation) {
        case (.keyFile(let secret), .hkdf(let salt)):
            return try HKDF.derive(key: secret.bytes, salt: salt, info: Array("kedge-key-slot".utf8))
        case (.passphrase(let secret), .scrypt(let salt, let n, let r, let p)):
            guard KeySlot.scryptCosts.contains(n), n.nonzeroBitCount == 1, r == 8, p == 1 else {
                let memory = Scrypt.memory(n: n, r: r, p: p).map { "\($0 >> 20) MiB" } ?? "any amount"
                throw KedgeError(
                    .damaged, "cannot open key slot \"\(label)\"",
                    detail: "Its scrypt parameters n = \(n), r = \(r), p = \(p) are not accepted: n must be a power of"
                        + " two from 2^15 to 2^20, r = 8 and p = 1. They would need \(memory) of memory.",
                    hint: "No kedge makes such slots: find out who can write to the repository.")
            }
            return try Scrypt.derive(passphrase: secret.bytes, salt: salt, n: n, r: r, p: p)
        default:
            preconditionFailure("accepts() was asked before")
        }
    }

    private var additionalData: [UInt8] {
        var lines = [
            "kedge-key-slot", repositoryID.hex, keyID.hex, String(sequence), slotID, label, createdAt,
            derivation.name, derivation.salt.hex,
        ]
        if case .scrypt(_, let n, let r, let p) = derivation { lines += [String(n), String(r), String(p)] }
        return Array(lines.joined(separator: "\n").utf8)
    }

    private init(
        repositoryID: RandomID, keyID: RandomID, sequence: UInt64, slotID: String, label: String, createdAt: String,
        derivation: Derivation, replaces: [String], nonce: [UInt8], wrapped: [UInt8]
    ) {
        self.repositoryID = repositoryID
        self.keyID = keyID
        self.sequence = sequence
        self.slotID = slotID
        self.label = label
        self.createdAt = createdAt
        self.derivation = derivation
        self.replaces = replaces
        self.nonce = nonce
        self.wrapped = wrapped
    }

    private init(_ draft: KeySlot, wrapped: [UInt8]) {
        self.init(
            repositoryID: draft.repositoryID, keyID: draft.keyID, sequence: draft.sequence, slotID: draft.slotID,
            label: draft.label, createdAt: draft.createdAt, derivation: draft.derivation, replaces: draft.replaces,
            nonce: draft.nonce, wrapped: wrapped)
    }

    /// A newline in a label could make two different slots authenticate the same text, so labels are names.
    private static func isLabel(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
                    || [0x2D, 0x2E, 0x5F].contains($0)
            }
    }
}

// MARK: - JSON

extension KeySlot {
    /// The slot as it is stored, and as commit records embed it.
    package var json: JSONValue {
        var derivationMembers: [JSONMember] = [
            JSONMember("name", .string(derivation.name)), JSONMember("salt", .string(derivation.salt.hex)),
        ]
        if case .scrypt(_, let n, let r, let p) = derivation {
            derivationMembers += [
                JSONMember("n", .int(n)), JSONMember("r", .int(r)), JSONMember("p", .int(p)),
            ]
        }
        var members: [JSONMember] = [
            JSONMember("kedge", "key-slot"), JSONMember("format", .string(KeySlot.format)),
            JSONMember("repository", .string(repositoryID.hex)), JSONMember("key", .string(keyID.hex)),
            JSONMember("sequence", .int(sequence)), JSONMember("slot", .string(slotID)),
            JSONMember("label", .string(label)), JSONMember("createdAt", .string(createdAt)),
            JSONMember("derivation", .object(derivationMembers)), JSONMember("cipher", "aes-256-gcm"),
            JSONMember("nonce", .string(nonce.hex)), JSONMember("wrapped", .string(wrapped.hex)),
        ]
        if !replaces.isEmpty { members.append(JSONMember("replaces", .array(replaces.map(JSONValue.string)))) }
        return .object(members)
    }

    /// Reads a slot. `what` names it in errors. Throws `damaged`, or `format-unknown`.
    package init(parsing bytes: some Collection<UInt8>, what: String) throws(KedgeError) {
        try self.init(JSONRecord(parsing: bytes, what: what))
    }

    /// Reads a slot from a JSON object. Throws `damaged`, or `format-unknown`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        guard try record.string("kedge") == "key-slot" else { throw record.invalid("kedge", "is not \"key-slot\"") }
        try KeySlot.require(record, "format", in: [KeySlot.format])
        try KeySlot.require(record, "cipher", in: ["aes-256-gcm"])
        let sequence: UInt64 = try record.integer("sequence")
        guard sequence > 0 else { throw record.invalid("sequence", "is 0") }
        self.init(
            repositoryID: try record.parsed("repository") { RandomID(hex: $0) },
            keyID: try record.parsed("key") { RandomID(hex: $0) },
            sequence: sequence,
            slotID: try record.parsed("slot") { KeySlot.lowerHex($0, bytes: 8) == nil ? nil : $0 },
            label: try record.parsed("label") { KeySlot.isLabel($0) ? $0 : nil },
            createdAt: try record.parsed("createdAt") { Timestamp(record: $0) == nil ? nil : $0 },
            derivation: try KeySlot.derivation(record.record("derivation")),
            replaces: record.value("replaces") == nil ? [] : try record.strings("replaces"),
            nonce: try record.parsed("nonce") { KeySlot.lowerHex($0, bytes: AES256GCM.nonceBytes) },
            wrapped: try record.parsed("wrapped") {
                KeySlot.lowerHex($0, bytes: DataKey.secretBytes + AES256GCM.tagBytes)
            })
    }

    private static func derivation(_ record: JSONRecord) throws(KedgeError) -> Derivation {
        try require(record, "name", in: ["hkdf-sha-256", "scrypt"])
        let salt = try record.parsed("salt") { lowerHex($0, bytes: saltBytes) }
        guard try record.string("name") == "scrypt" else { return .hkdf(salt: salt) }
        return .scrypt(
            salt: salt, n: try record.integer("n"), r: try record.integer("r"), p: try record.integer("p"))
    }

    /// Throws `format-unknown` unless the member has one of these values.
    private static func require(_ record: JSONRecord, _ key: String, in known: [String]) throws(KedgeError) {
        let value = try record.string(key)
        guard known.contains(value) else {
            throw KedgeError(
                .formatUnknown, "cannot read \(record.what)",
                detail: "This kedge does not know its \(key) \"\(value)\".",
                hint: "A newer kedge wrote it: use that version or a later one.")
        }
    }

    private static func lowerHex(_ text: String, bytes count: Int) -> [UInt8]? {
        guard text.utf8.count == 2 * count, text.utf8.allSatisfy({ !(0x41...0x46).contains($0) }) else { return nil }
        return [UInt8](hex: text)
    }
}

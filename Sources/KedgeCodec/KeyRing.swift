// The data keys that this process may use, and what the configuration demands.
package import KedgeCore

/// What protects frames; the raw value is its number in an object's header.
package enum Cipher: UInt8, Sendable, CaseIterable {
    /// A checksum: damage is found, but whoever can write can forge.
    case none = 0
    case aes256GCM = 1

    /// The word that `encryption` takes in a configuration.
    package var name: String {
        switch self {
        case .none: "none"
        case .aes256GCM: "aes-256-gcm"
        }
    }

    /// The cipher of that name. Nil for anything else.
    package init?(name: String) {
        guard let cipher = Cipher.allCases.first(where: { $0.name == name }) else { return nil }
        self = cipher
    }
}

/// 32 random bytes from which the subkey of each object is derived.
package struct DataKey: Sendable {
    package let id: RandomID
    /// Counts the repository's data keys from 1.
    package let sequence: UInt64
    package let secret: Secret

    /// How many bytes `secret` has.
    package static let secretBytes = 32

    /// `secret` must have 32 bytes.
    package init(id: RandomID, sequence: UInt64, secret: Secret) {
        precondition(secret.bytes.count == DataKey.secretBytes)
        self.id = id
        self.sequence = sequence
        self.secret = secret
    }

    /// A new data key.
    package init(sequence: UInt64, random: any RandomSource) {
        self.init(
            id: RandomID(from: random), sequence: sequence, secret: Secret(random.bytes(DataKey.secretBytes)))
    }
}

/// What one repository's configuration demands (`encryption`), and the data keys that its secrets open.
package struct KeyRing: Sendable {
    /// What objects are sealed with, and the only thing that is accepted when they are read.
    package let cipher: Cipher
    private let keys: [RandomID: DataKey]
    private let newest: DataKey?

    /// For `encryption = none`: no keys, checksums only.
    package static let plain = KeyRing(cipher: .none, keys: [])

    /// A ring of `keys`. Where an id occurs twice, the first counts.
    package init(cipher: Cipher, keys: [DataKey]) {
        self.cipher = cipher
        self.keys = Dictionary(keys.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        // By id where sequences are equal (two hosts added a key at once), so that all hosts choose the same.
        newest = self.keys.values.max { ($0.sequence, $0.id) < ($1.sequence, $1.id) }
    }

    /// The key that new objects are sealed with: the one of the highest sequence. Throws `key-missing`.
    package func writingKey() throws(KedgeError) -> DataKey {
        guard let newest else {
            throw KedgeError(
                .keyMissing, "cannot encrypt without a key",
                detail: "No configured secret opens a key of the repository.",
                hint: "Check key-file, passphrase-file or passphrase-command of the repository.")
        }
        return newest
    }

    /// The key with that id. Throws `key-missing`.
    package func key(_ id: RandomID) throws(KedgeError) -> DataKey {
        guard let key = keys[id] else {
            throw KedgeError(
                .keyMissing, "cannot decrypt without key \"\(id)\"",
                detail: "No configured secret opens this key, and nothing sealed with any other key is accepted.",
                hint: "Configure the key file or passphrase of a slot below key/\(id)/ in the repository.")
        }
        return key
    }
}

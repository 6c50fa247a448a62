// The data keys that this process may use, and what the configuration demands.
package import KedgeCore
import Synchronization

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

/// Which data key is meant, and its place among those of its repository. Ordered by sequence; by id where two hosts
/// made one at once, so that all hosts choose the same.
package struct KeyVersion: Hashable, Comparable, Sendable {
    /// Counts the repository's data keys from 1.
    package let sequence: UInt64
    package let id: RandomID

    package init(sequence: UInt64, id: RandomID) {
        self.sequence = sequence
        self.id = id
    }

    package static func < (left: KeyVersion, right: KeyVersion) -> Bool {
        (left.sequence, left.id) < (right.sequence, right.id)
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

    package var version: KeyVersion { KeyVersion(sequence: sequence, id: id) }

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

/// Finds data keys that were made after a ring was: long work outlives a rotation.
///
/// Each key is looked for once, since whoever seals with one has made its slot durable before.
package final class LateKeys: Sendable {
    private let find: @Sendable (RandomID) throws(KedgeError) -> DataKey?
    private let found = Mutex<[RandomID: DataKey?]>([:])

    /// `find` says which key has that id; nil where no configured secret opens it. It throws where that can't be told.
    package init(_ find: @escaping @Sendable (RandomID) throws(KedgeError) -> DataKey?) { self.find = find }

    fileprivate func key(_ id: RandomID) throws(KedgeError) -> DataKey? {
        if let known = found.withLock({ $0[id] }) { return known }
        let key = try find(id)
        found.withLock { $0[id] = .some(key) }
        return key
    }
}

/// What one repository's configuration demands (`encryption`), and the data keys that its secrets open.
package struct KeyRing: Sendable {
    /// A data key of the repository that no configured secret opens. What it says was not authenticated: anybody who
    /// can write to the repository can put such a slot there.
    package struct ClosedKey: Hashable, Sendable {
        package let version: KeyVersion
        /// The labels of its slots, sorted.
        package let labels: [String]

        package init(_ version: KeyVersion, labels: [String]) {
            self.version = version
            self.labels = labels
        }
    }

    /// What objects are sealed with, and the only thing that is accepted when they are read.
    package let cipher: Cipher
    /// The open key of the highest sequence; nil where there is none.
    package let newest: DataKey?
    /// Keys that stay closed, oldest first.
    package let closed: [ClosedKey]
    private let keys: [RandomID: DataKey]
    private let late: LateKeys?

    /// For `encryption = none`: no keys, checksums only.
    package static let plain = KeyRing(cipher: .none, keys: [])

    /// A ring of `keys`. Where an id occurs twice, the first counts. `closed` serves messages only; `late` finds what
    /// objects were sealed with since, and nothing is written with that.
    package init(cipher: Cipher, keys: [DataKey], closed: [ClosedKey] = [], late: LateKeys? = nil) {
        self.cipher = cipher
        self.late = late
        self.keys = Dictionary(keys.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        self.closed = closed.sorted { $0.version < $1.version }
        newest = self.keys.values.max { $0.version < $1.version }
    }

    /// Whether the key with that id is open.
    package func opens(_ id: RandomID) -> Bool { keys[id] != nil }

    /// The open keys, oldest first.
    package var openKeys: [DataKey] { keys.values.sorted { $0.version < $1.version } }

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

    /// The key with that id. Throws `key-missing`, and what looking for a key that is newer than the ring throws.
    package func key(_ id: RandomID) throws(KedgeError) -> DataKey {
        if let key = keys[id] { return key }
        if let key = try late?.key(id) { return key }
        if let key = closed.first(where: { $0.version.id == id }) {
            throw KedgeError(
                .keyMissing, "cannot decrypt without key \"\(id)\"",
                detail:
                    "It is data key \(key.version.sequence) of the repository, which the configured secret does not "
                    + "open; its slots are: \(key.labels.map { "\"\($0)\"" }.joined(separator: ", ")).",
                hint: "Configure the key file or passphrase of one of these slots; or run \"kedge key add\" where such "
                    + "a one is configured, so that this secret opens the key too.")
        }
        throw KedgeError(
            .keyMissing, "cannot decrypt without key \"\(id)\"",
            detail: "The repository has no usable slot of this key: its slots were lost or removed, or somebody else "
                + "wrote the object. Nothing is accepted that was sealed with a key that no configured secret opens.",
            hint: "Put key/\(id)/ back from a copy of the repository; \"kedge key list\" shows the keys that are "
                + "there.")
    }
}

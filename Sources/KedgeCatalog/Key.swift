// `kedge key list` and `kedge key add`: the repository's key slots.
//
// Slots are objects of their own and never change, so adding one can't harm another: a crash leaves either the new slot
// or none. A new slot counts only after it was read back and opened.

package import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Lists a repository's key slots.
package struct KeyList: Sendable {
    package struct Slot: Hashable, Sendable {
        package let key: RandomID
        /// Counts the repository's data keys from 1; new objects are sealed with the highest.
        package let sequence: UInt64
        package let slot: String
        package let label: String
        /// `key file` or `passphrase`.
        package let secret: String
        package let createdAt: String
        /// Whether the configured secret opens this key, by this slot or another.
        package let keyIsOpen: Bool
    }

    private let repository: RepositorySource

    package init(_ repository: RepositorySource) { self.repository = repository }

    /// The slots, ordered by key sequence, then by creation. Throws as `Repository.open`.
    package func run() throws(KedgeError) -> [Slot] {
        let repository = try repository.open(for: .read)
        var slots: [Slot] = []
        for slot in repository.slots {
            slots.append(
                Slot(
                    key: slot.keyID, sequence: slot.sequence, slot: slot.slotID, label: slot.label,
                    secret: slot.secretKind, createdAt: slot.createdAt,
                    keyIsOpen: try repository.opens(slot.keyID)))
        }
        return slots.sorted { ($0.sequence, $0.createdAt, $0.slot) < ($1.sequence, $1.createdAt, $1.slot) }
    }
}

/// Lets one more secret open a repository.
package struct KeyAdd: Sendable {
    package struct Outcome: Hashable, Sendable {
        /// Names of the slots that were added.
        package let added: [String]
        /// Data keys that the new secret opened already.
        package let alreadyOpen: Int
    }

    private let repository: RepositorySource
    private let secret: KeyEncryptionSecret
    private let label: String
    private let random: any RandomSource
    private let time: any TimeSource

    /// `secret` is the new one; `label` names it in listings: 1 to 255 of `A-Z a-z 0-9 . _ -`.
    package init(
        _ repository: RepositorySource, secret: KeyEncryptionSecret, label: String, random: any RandomSource,
        time: any TimeSource
    ) {
        self.repository = repository
        self.secret = secret
        self.label = label
        self.random = random
        self.time = time
    }

    /// Adds a slot for every data key that the configured secret opens and the new one does not yet. Repeating it
    /// changes nothing. Throws `key-missing` where a data key stays closed to the configured secret, `configuration`,
    /// and what opening and storing throw.
    package func run() throws(KedgeError) -> Outcome {
        let repository = try repository.open(for: .write, random: random)
        guard !repository.slots.isEmpty else {
            throw KedgeError(
                .configuration, "cannot add a key to repository \"\(repository.name)\": it is not encrypted",
                hint: "A repository is encrypted from its creation on: make a new one with encryption = aes-256-gcm.")
        }
        let keys = Set(repository.slots.map(\.keyID)).sorted()
        // All are looked at before the first slot is written: a half-done job would look like a whole one.
        var closed: [RandomID] = []
        for key in keys where try !repository.opens(key) { closed.append(key) }
        guard closed.isEmpty else { throw closedKeys(closed, repository) }
        var added: [String] = []
        for id in keys where try !opens(id, repository) {
            let slot = try KeySlot.wrap(
                repository.keyRing.key(id), with: secret, repositoryID: repository.identity.id, label: label,
                createdAt: time.now(), random: random)
            try Repository.putKeySlot(slot, in: repository.store)
            try verify(slot, repository)
            added.append(slot.slotID)
        }
        return Outcome(added: added, alreadyOpen: keys.count - added.count)
    }

    /// Whether some slot of the key opens with the new secret.
    private func opens(_ key: RandomID, _ repository: Repository) throws(KedgeError) -> Bool {
        for slot in repository.slots where slot.keyID == key && slot.accepts(secret) {
            do throws(KedgeError) {
                _ = try slot.unwrap(with: secret)
                return true
            } catch {
                guard error.code == .keyWrong else { throw error }
            }
        }
        return false
    }

    /// Reads the slot back from the store and opens it, as a later command would.
    private func verify(_ slot: KeySlot, _ repository: Repository) throws(KedgeError) {
        guard let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) else { return }
        let bytes = try repository.store.readAll(name, limit: 64 << 10)
        _ = try KeySlot(parsing: bytes, what: "key slot \"\(name)\"").unwrap(with: secret)
    }

    private func closedKeys(_ keys: [RandomID], _ repository: Repository) -> KedgeError {
        KedgeError(
            .keyMissing, "cannot add a key to repository \"\(repository.name)\"",
            detail:
                "The configured secret does not open the data key(s) \(keys.map(\.hex).joined(separator: ", ")), so "
                + "they can't be wrapped for another secret.",
            hint: "Run it on a host whose configured secret opens all keys; \"kedge key list\" shows which do.")
    }
}

extension KeySlot {
    /// What kind of secret opens the slot.
    fileprivate var secretKind: String {
        switch derivation {
        case .hkdf: "key file"
        case .scrypt: "passphrase"
        }
    }
}

extension Repository {
    /// Whether the configured secret opened this data key.
    fileprivate func opens(_ key: RandomID) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            _ = try keyRing.key(key)
            return true
        } catch {
            guard error.code == .keyMissing else { throw error }
            return false
        }
    }
}

// `kedge key list` and `kedge key add`: the repository's key slots. KeyRotate, KeyRewrap and KeyRemove have their own
// files.
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
        /// Counts the repository's data keys from 1.
        package let sequence: UInt64
        package let slot: String
        package let label: String
        /// `key file` or `passphrase`.
        package let secret: String
        package let createdAt: String
        /// Whether the configured secret opens this key, by this slot or another.
        package let keyIsOpen: Bool
    }

    package struct Outcome: Sendable {
        /// Ordered by key sequence, then by creation.
        package let slots: [Slot]
        /// What lies below `key/` and is no usable slot.
        package let unusable: [UnusableSlot]
        /// The key that this secret seals new objects with; nil for a repository that is not encrypted.
        package let newest: RandomID?
        /// What the keys are used for, as far as was asked for.
        package let usage: KeyUsage
    }

    private let repository: RepositorySource
    private let looksAtAll: Bool

    /// `looksAtAll`: counts every object by the key in its header instead of just the backups.
    package init(_ repository: RepositorySource, looksAtAll: Bool = false) {
        self.repository = repository
        self.looksAtAll = looksAtAll
    }

    /// Throws as `Repository.open`, and what listing throws.
    package func run() throws(KedgeError) -> Outcome {
        let repository = try repository.open(for: .read)
        var slots: [Slot] = []
        for slot in repository.slots {
            slots.append(
                Slot(
                    key: slot.keyID, sequence: slot.sequence, slot: slot.slotID, label: slot.label,
                    secret: slot.secretKind, createdAt: slot.createdAt,
                    keyIsOpen: repository.keyRing.opens(slot.keyID)))
        }
        return Outcome(
            slots: slots.sorted { ($0.sequence, $0.createdAt, $0.slot) < ($1.sequence, $1.createdAt, $1.slot) },
            unusable: repository.unusableSlots, newest: repository.keyRing.newest?.id,
            usage: slots.isEmpty
                ? KeyUsage() : try KeyUsage.count(in: repository.store, looksAtAll ? .allObjects : .backups))
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
        try repository.requireKeys(to: "add a key to")
        let keys = repository.keyRing.openKeys
        let slots = KeySlots(repository, random: random, time: time)
        var added: [String] = []
        for key in keys {
            if let slot = try slots.ensure(key, secret, label: label) { added.append(slot.slotID) }
        }
        return Outcome(added: added, alreadyOpen: keys.count - added.count)
    }
}

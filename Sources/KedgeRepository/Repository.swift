// One repository, opened: its store, its keys, and how new objects are written.
//
// Order of opening: kedge.json → features → key slots. What the local configuration says decides what is accepted:
// under `encryption = aes-256-gcm` a repository without a slot that the configured secret opens can't be used at all.

package import KedgeCodec
package import KedgeCore

/// How the configuration describes a repository, apart from where it is.
package struct RepositorySettings: Sendable {
    /// The name of the configuration section.
    package let name: String
    package let cipher: Cipher
    package let compression: CompressionChoice
    /// Opens the key slots; nil exactly if nothing is encrypted.
    package let secret: KeyEncryptionSecret?

    package init(name: String, cipher: Cipher, compression: CompressionChoice, secret: KeyEncryptionSecret?) {
        self.name = name
        self.cipher = cipher
        self.compression = compression
        self.secret = secret
    }
}

/// An opened repository.
package final class Repository: Sendable {
    package let settings: RepositorySettings
    package let identity: RepositoryIdentity
    package let store: any ObjectStore
    package let keyRing: KeyRing
    /// Every slot found, whether or not the secret opens it.
    package let slots: [KeySlot]
    package let random: any RandomSource

    /// The name of the configuration section.
    package var name: String { settings.name }

    private init(
        settings: RepositorySettings, identity: RepositoryIdentity, store: any ObjectStore, keyRing: KeyRing,
        slots: [KeySlot], random: any RandomSource
    ) {
        self.settings = settings
        self.identity = identity
        self.store = store
        self.keyRing = keyRing
        self.slots = slots
        self.random = random
    }

    /// Opens the repository in `store` for `use`.
    ///
    /// Throws `not-found` if there is none yet, `format-unknown`, `feature-unknown`, `key-missing`, `key-wrong`,
    /// `damaged`, or what the store throws.
    package static func open(
        _ store: any ObjectStore, _ settings: RepositorySettings, for use: RepositoryUse,
        random: any RandomSource = SystemRandomSource()
    ) throws(KedgeError) -> Repository {
        let identity = try readIdentity(store, settings)
        try store.forEachObject(below: RepositoryLayout.features) { (feature) throws(KedgeError) in
            let what = "feature \"\(feature.name.lastComponent)\" of repository \"\(settings.name)\""
            let bytes = try store.readAll(feature.name, limit: plainLimit)
            try FeatureGate.check(JSONRecord(parsing: bytes, what: what), for: use)
        }
        guard let secret = settings.secret else {
            return Repository(
                settings: settings, identity: identity, store: store, keyRing: .plain, slots: [], random: random)
        }
        let (slots, unusable) = try readSlots(store, settings)
        let keyRing = try unlock(slots, unusable, with: secret, identity: identity, settings)
        return Repository(
            settings: settings, identity: identity, store: store, keyRing: keyRing, slots: slots, random: random)
    }

    /// Stores a key slot; slots are never replaced.
    package static func putKeySlot(_ slot: KeySlot, in store: any ObjectStore) throws(KedgeError) {
        guard let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID),
            try store.put(name, ObjectBody(Array(slot.json.prettyText.utf8)), .createOnly) == .created
        else {
            throw KedgeError(
                .alreadyExists, "could not store key slot \"\(slot.slotID)\"",
                detail: "The repository has a slot of that name.", hint: "Try again: the names are random.")
        }
    }

    /// What `kedge.json` says, or nil where the store holds no repository yet.
    package static func findIdentity(
        _ store: any ObjectStore, name: String
    ) throws(KedgeError) -> RepositoryIdentity? {
        let bytes: [UInt8]
        do throws(KedgeError) {
            bytes = try store.readAll(RepositoryLayout.marker, limit: plainLimit)
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
        return try RepositoryIdentity(JSONRecord(parsing: bytes, what: "repository \"\(name)\""))
    }

    /// Plain objects are small: anything longer than this many bytes is not one of ours.
    private static let plainLimit = 64 << 10

    private static func readIdentity(
        _ store: any ObjectStore, _ settings: RepositorySettings
    ) throws(KedgeError) -> RepositoryIdentity {
        if let identity = try findIdentity(store, name: settings.name) { return identity }
        throw KedgeError(
            .notFound, "could not open repository \"\(settings.name)\": there is no kedge.json",
            detail: "\(store.location) is reachable, but it is not a Kedge repository.",
            hint: "Check the repository's location in the configuration.  If it is new, run \"kedge init\".")
    }

    /// The slots, and why the first unusable one is: one bad slot must not hide a good one of the same key.
    private static func readSlots(
        _ store: any ObjectStore, _ settings: RepositorySettings
    ) throws(KedgeError) -> (slots: [KeySlot], unusable: KedgeError?) {
        var slots: [KeySlot] = []
        var unusable: KedgeError?
        try store.forEachObject(below: RepositoryLayout.keys) { (entry) throws(KedgeError) in
            let what = "key slot \"\(entry.name)\" of repository \"\(settings.name)\""
            do throws(KedgeError) {
                let slot = try KeySlot(parsing: store.readAll(entry.name, limit: plainLimit), what: what)
                guard RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) == entry.name else {
                    throw KedgeError(
                        .damaged, "cannot use \(what)", detail: "It is slot \"\(slot.slotID)\" of key \(slot.keyID).",
                        hint: "Restore the slot from a copy of the repository.")
                }
                slots.append(slot)
            } catch {
                guard error.code == .damaged || error.code == .formatUnknown else { throw error }
                unusable = unusable ?? error
            }
        }
        return (slots, unusable)
    }

    /// Opens one slot of each key. A key that the secret does not open is left out: what it sealed is then refused as
    /// `key-missing`. That no key at all opens is an error at once, since every command would fail in its own way.
    private static func unlock(
        _ slots: [KeySlot], _ unusable: KedgeError?, with secret: KeyEncryptionSecret, identity: RepositoryIdentity,
        _ settings: RepositorySettings
    ) throws(KedgeError) -> KeyRing {
        var keys: [RandomID: DataKey] = [:]
        var refusal = unusable
        for slot in slots where keys[slot.keyID] == nil && slot.accepts(secret) {
            do throws(KedgeError) {
                guard slot.repositoryID == identity.id else { throw foreignSlot(slot, settings) }
                keys[slot.keyID] = try slot.unwrap(with: secret)
            } catch {
                refusal = error
            }
        }
        guard !keys.isEmpty else {
            throw refusal
                ?? KedgeError(
                    .keyMissing, "could not open repository \"\(settings.name)\": it has no key slot for this secret",
                    detail:
                        "It has \(slots.count) key slot(s), none of them made from "
                        + (secret.keyFileText == nil ? "a passphrase." : "a key file."),
                    hint: "Configure the key file or the passphrase that the repository was created with.")
        }
        return KeyRing(cipher: settings.cipher, keys: Array(keys.values))
    }

    private static func foreignSlot(_ slot: KeySlot, _ settings: RepositorySettings) -> KedgeError {
        KedgeError(
            .damaged, "cannot use key slot \"\(slot.slotID)\" of repository \"\(settings.name)\"",
            detail: "It belongs to the repository \(slot.repositoryID).",
            hint: "Restore kedge.json or the slot from a copy; they must come from the same repository.")
    }
}

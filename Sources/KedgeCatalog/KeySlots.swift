// What adding, rotating, replacing and removing keys have in common.

import KedgeCodec
import KedgeCore
import KedgeRepository

/// Looks at the key slots of an opened repository, and adds new ones.
struct KeySlots {
    private let repository: Repository
    private let random: any RandomSource
    private let time: any TimeSource

    init(_ repository: Repository, random: any RandomSource, time: any TimeSource) {
        self.repository = repository
        self.random = random
        self.time = time
    }

    /// The slots that open with `secret`. Each passphrase slot costs a tenth of a second. Throws `defect`.
    func opened(by secret: KeyEncryptionSecret) throws(KedgeError) -> [KeySlot] {
        var opened: [KeySlot] = []
        for slot in repository.slots where try KeySlots.opens(slot, secret) { opened.append(slot) }
        return opened
    }

    /// Makes sure that `key` has a slot that opens with `secret`. Returns the slot if one was added; one that is there
    /// is made durable, since an attempt that died may have left it visible alone. Throws as `add`.
    func ensure(
        _ key: DataKey, _ secret: KeyEncryptionSecret, label: String, replaces: [String] = []
    ) throws(KedgeError) -> KeySlot? {
        for slot in repository.slots where slot.keyID == key.id {
            guard try KeySlots.opens(slot, secret) else { continue }
            try repository.store.makeDurable(KeySlots.name(slot))
            return nil
        }
        return try add(key, secret, label: label, replaces: replaces)
    }

    /// Stores a slot for `key`, reads it back and opens it, as a later command would. Throws what storing throws, and
    /// `damaged`.
    @discardableResult
    func add(
        _ key: DataKey, _ secret: KeyEncryptionSecret, label: String, replaces: [String] = []
    ) throws(KedgeError) -> KeySlot {
        let slot = try KeySlot.wrap(
            key, with: secret, repositoryID: repository.identity.id, label: label, createdAt: time.now(),
            replaces: replaces, random: random)
        try Repository.putKeySlot(slot, in: repository.store)
        let name = try KeySlots.name(slot)
        let what = "key slot \"\(name)\" of repository \"\(repository.name)\""
        let found = try KeySlot(parsing: repository.store.readAll(name, limit: 64 << 10), what: what)
        guard try found.unwrap(with: secret).secret.bytes == key.secret.bytes else {
            throw KedgeError(
                .damaged, "cannot use \(what)", detail: "It was stored just now, and read back it holds another key.",
                hint: "Check the store: what it returns is not what it was given.")
        }
        return slot
    }

    /// The object that holds a slot.
    static func name(_ slot: KeySlot) throws(KedgeError) -> ObjectName {
        if let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) { return name }
        throw KedgeError(.defect, "cannot name key slot \"\(slot.slotID)\"", hint: "Please report this.")
    }

    /// Whether a slot opens with a secret. One that is damaged does not.
    private static func opens(_ slot: KeySlot, _ secret: KeyEncryptionSecret) throws(KedgeError) -> Bool {
        guard slot.accepts(secret) else { return false }
        do throws(KedgeError) {
            _ = try slot.unwrap(with: secret)
            return true
        } catch {
            guard error.code == .keyWrong || error.code == .damaged else { throw error }
            return false
        }
    }
}

extension KeySlot {
    /// What kind of secret opens the slot.
    var secretKind: String {
        switch derivation {
        case .hkdf: "key file"
        case .scrypt: "passphrase"
        }
    }

    /// How messages name it: `"main" (key file)`.
    var described: String { "\"\(label)\" (\(secretKind))" }
}

extension Repository {
    /// Throws `configuration` where the repository is not encrypted.
    func requireEncryption(to verb: String) throws(KedgeError) {
        guard keyRing.newest == nil else { return }
        throw KedgeError(
            .configuration, "cannot \(verb) repository \"\(name)\": it is not encrypted",
            hint: "A repository is encrypted from its creation on: make a new one with encryption = aes-256-gcm.")
    }

    /// Throws `configuration` where the repository is not encrypted, and `key-missing` where a data key stays closed:
    /// all are looked at before anything is written, since a half-done job would look like a whole one.
    func requireKeys(to verb: String) throws(KedgeError) {
        try requireEncryption(to: verb)
        guard !keyRing.closed.isEmpty else { return }
        let keys = keyRing.closed.map { closed in
            "\(closed.version.sequence) (\(closed.version.id); slots: "
                + closed.labels.map { "\"\($0)\"" }.joined(separator: ", ") + ")"
        }
        throw KedgeError(
            .keyMissing, "cannot \(verb) repository \"\(name)\": the configured secret does not open all data keys",
            detail: "It does not open data key \(keys.joined(separator: ", nor data key ")).",
            hint: "Run it where the configured secret opens all keys; \"kedge key list\" shows which do.")
    }
}

// From the slots below key/ to the data keys that this process may use.
//
// 1. One bad slot hides no good one. That none opens at all is one error that tells of each slot why.
// 2. A slot may be seen before it is durable (its writer may have crashed, or be at it). So before anything is sealed
//    with a data key that this host has not used before, the slot that opened it is made durable: an acknowledged
//    object is never sealed with a key whose only slot a power failure takes away.
// 3. Slots come and go while they are read: one that vanished is no error, but the others are listed again, since a
//    replacement writes the new slot before it removes the old one.
// 4. Whoever can write to the repository can plant slots. How many are read, and how much scrypt is spent on slots that
//    do not open, is bounded; beyond that opening fails: to go on without the slots that were not tried could mean to
//    write with an older key.
// 5. A key that somebody made after this process opened the repository is looked for when an object needs it: a backup
//    of a day must not end because the key was rotated.

import KedgeCodec
package import KedgeCore

/// What lies below `key/` and can't be used.
package struct UnusableSlot: Sendable {
    package let name: ObjectName
    /// `damaged` or `format-unknown`.
    package let error: KedgeError
}

/// What one opening may spend on slots that do not open.
struct SlotBudget {
    /// How many objects below `key/` are read: one for a key and a secret, so no repository comes to this many.
    static let slots = 1000

    private var spent: UInt64 = 0

    /// Counts a slot that did not open. Throws `damaged` when that was too much.
    mutating func spend(on slot: KeySlot, of settings: RepositorySettings) throws(KedgeError) {
        // Others are refused without any work.
        guard case .scrypt(_, let n, _, _) = slot.derivation, KeySlot.scryptCosts.contains(n) else { return }
        spent += n
        guard spent > settings.slotWork else { return }
        throw KedgeError(
            .damaged, "cannot open repository \"\(settings.name)\": too many of its key slots do not open",
            detail: "Trying a passphrase takes time and memory on purpose, and as much as "
                + "\(settings.slotWork / KeySlot.standardScryptCost) of the usual slots take was spent in vain. The "
                + "last tried was key/\(slot.keyID)/\(slot.slotID), \"\(slot.label)\".",
            hint: SlotBudget.hint)
    }

    static func tooMany(_ repository: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot open repository \"\(repository)\": it has more than \(slots) key slots",
            detail: "No repository needs so many.", hint: hint)
    }

    private static let hint =
        "Find out who can write to the repository.  Keep a copy of key/, and remove from it what \"kedge key\" did not "
        + "make."
}

/// The slots of a repository.
struct FoundSlots: Sendable {
    var slots: [KeySlot] = []
    var unusable: [UnusableSlot] = []
}

/// The data keys that a secret opens, and by which slots.
struct OpenedKeys {
    let ring: KeyRing
    /// For each open key, the slot that opened it.
    let slots: [RandomID: KeySlot]
}

extension Repository {
    // MARK: - Slots

    /// Reads all slots. Throws what the store throws.
    private static func readSlots(
        _ store: any ObjectStore, _ settings: RepositorySettings, _ identity: RepositoryIdentity
    ) throws(KedgeError) -> FoundSlots {
        var attempts = 0
        while true {
            var found = FoundSlots()
            var hasVanished = false
            var count = 0
            try store.forEachObject(below: RepositoryLayout.keys) { (entry) throws(KedgeError) in
                count += 1
                guard count <= SlotBudget.slots else { throw SlotBudget.tooMany(settings.name) }
                do throws(KedgeError) {
                    found.slots.append(try readSlot(entry.name, store, settings, identity))
                } catch {
                    switch error.code {
                    case .damaged, .formatUnknown:
                        found.unusable.append(UnusableSlot(name: entry.name, error: error))
                    case .notFound: hasVanished = true
                    default: throw error
                    }
                }
            }
            attempts += 1
            if !hasVanished || attempts == 5 { return found }
        }
    }

    private static func readSlot(
        _ name: ObjectName, _ store: any ObjectStore, _ settings: RepositorySettings, _ identity: RepositoryIdentity
    ) throws(KedgeError) -> KeySlot {
        let what = "key slot \"\(name)\" of repository \"\(settings.name)\""
        let slot: KeySlot
        do throws(KedgeError) {
            slot = try KeySlot(parsing: store.readAll(name, limit: plainLimit), what: what)
        } catch  where error.code == .damaged && error.hint == nil {
            throw error.wrapped(
                "cannot use \(what)", detail: error.detail,
                hint: "Put the slot back from a copy of the repository; any other slot of the same key does as well.")
        }
        guard RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID) == name else {
            throw KedgeError(
                .damaged, "cannot use \(what)", detail: "It is slot \"\(slot.slotID)\" of key \(slot.keyID).",
                hint: "Move it to its own name, or put the slot back from a copy of the repository.")
        }
        guard slot.repositoryID == identity.id else {
            throw KedgeError(
                .damaged, "cannot use \(what)", detail: "It belongs to the repository \(slot.repositoryID).",
                hint: "Restore kedge.json or the slot from a copy; they must come from the same repository.")
        }
        return slot
    }

    // MARK: - Opening

    /// Opens one slot of each key. A key that the secret does not open is left out: what it sealed is then refused as
    /// `key-missing`. That no key at all opens is an error at once, since every command would fail in its own way.
    static func unlock(
        _ store: any ObjectStore, _ settings: RepositorySettings, _ secret: KeyEncryptionSecret,
        _ identity: RepositoryIdentity
    ) throws(KedgeError) -> (found: FoundSlots, opened: OpenedKeys) {
        let found = try readSlots(store, settings, identity)
        var keys: [RandomID: DataKey] = [:]
        var openSlots: [RandomID: KeySlot] = [:]
        var refusals: [(slot: KeySlot, error: KedgeError)] = []
        var budget = SlotBudget()
        for slot in found.slots where keys[slot.keyID] == nil && slot.accepts(secret) {
            do throws(KedgeError) {
                keys[slot.keyID] = try slot.unwrap(with: secret)
                openSlots[slot.keyID] = slot
            } catch {
                guard error.code == .keyWrong || error.code == .damaged else { throw error }
                refusals.append((slot, error))
                try budget.spend(on: slot, of: settings)
            }
        }
        guard !keys.isEmpty else { throw try nothingOpens(found, refusals, store, settings, secret) }
        var closed: [KeyVersion: [String]] = [:]
        for slot in found.slots where keys[slot.keyID] == nil {
            closed[KeyVersion(sequence: slot.sequence, id: slot.keyID), default: []].append(slot.label)
        }
        let ring = KeyRing(
            cipher: settings.cipher, keys: Array(keys.values),
            closed: closed.map { KeyRing.ClosedKey($0.key, labels: $0.value.sorted()) },
            late: LateKeys { (id) throws(KedgeError) in try key(id, store, settings, secret, identity) })
        return (found, OpenedKeys(ring: ring, slots: openSlots))
    }

    /// The key with that id, from the slots that there are now; nil where the secret opens none of that key.
    private static func key(
        _ id: RandomID, _ store: any ObjectStore, _ settings: RepositorySettings, _ secret: KeyEncryptionSecret,
        _ identity: RepositoryIdentity
    ) throws(KedgeError) -> DataKey? {
        var budget = SlotBudget()
        for slot in try readSlots(store, settings, identity).slots where slot.keyID == id && slot.accepts(secret) {
            do throws(KedgeError) {
                return try slot.unwrap(with: secret)
            } catch {
                guard error.code == .keyWrong || error.code == .damaged else { throw error }
                try budget.spend(on: slot, of: settings)
            }
        }
        return nil
    }

    /// Holds the newest open key against what this host remembers, and makes sure that it may be written with. Returns
    /// why absence proves nothing, where the repository may be read all the same.
    static func checkNewest(
        _ opened: OpenedKeys, _ found: FoundSlots, known: KeyVersion?, _ store: any ObjectStore,
        _ settings: RepositorySettings, _ identity: RepositoryIdentity, for use: RepositoryUse
    ) throws(KedgeError) -> KedgeError? {
        guard let newest = opened.ring.newest?.version else { return nil }
        if let known, newest < known {
            guard use == .read else {
                throw rolledBack("cannot write to repository", to: newest, from: known, settings, identity)
            }
            return rolledBack(
                "cannot rely on what is missing in repository", to: newest, from: known, settings, identity)
        }
        if use != .read { warnOfClosed(opened.ring, newest, settings) }
        guard known != newest, let slot = opened.slots[newest.id],
            let name = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID)
        else { return nil }
        if use != .read {
            try store.makeDurable(name)
        } else {
            guard settings.keyMemory != nil else { return nil }
            do throws(KedgeError) {
                try store.makeDurable(name)
            } catch {
                // Reading asks for no more than it needs; whoever writes next makes note of the key.
                return nil
            }
        }
        settings.keyMemory?.remember(newest, of: identity.id)
        return nil
    }

    private static func warnOfClosed(_ ring: KeyRing, _ newest: KeyVersion, _ settings: RepositorySettings) {
        guard let closed = ring.closed.last, closed.version > newest else { return }
        settings.warn?(
            "repository \"\(settings.name)\" has the newer data key \(closed.version.sequence), which the "
                + "\(settings.secretName) does not open (its slots: \(quoted(closed.labels))); new objects are sealed "
                + "with data key \(newest.sequence).  Run \"kedge key add\" where the newer one is open")
    }

    // MARK: - Refusals

    /// Refuses a repository that has keys where nothing is to be encrypted: every command would fail in its own way,
    /// and a new cluster would be stored in the open.
    static func refuseKeys(
        _ store: any ObjectStore, _ settings: RepositorySettings, _ identity: RepositoryIdentity
    ) throws(KedgeError) {
        let slots = try readSlots(store, settings, identity).slots
        guard !slots.isEmpty else { return }
        throw KedgeError(
            .configuration,
            "cannot open repository \"\(settings.name)\": it is encrypted, and the configuration says encryption = "
                + "none",
            detail: "It has \(slots.count) key slot(s): \(quoted(slots.map(\.label).sorted())).",
            hint: "Set encryption = aes-256-gcm and the key file or passphrase of one of them.")
    }

    private static func rolledBack(
        _ what: String, to newest: KeyVersion, from known: KeyVersion, _ settings: RepositorySettings,
        _ identity: RepositoryIdentity
    ) -> KedgeError {
        let place = settings.keyMemory?.location(of: identity.id) ?? ""
        return KedgeError(
            .keyOutdated,
            "\(what) \"\(settings.name)\": this host has seen a newer data key than there is",
            detail: "The newest that opens is data key \(newest.sequence) (\(newest.id)); data key \(known.sequence) "
                + "(\(known.id)) has been seen before. Somebody put an older state of key/ back or removed its slots. "
                + "Reading is still possible.",
            hint: "Find out who changed the repository, and put key/\(known.id)/ back from a copy. If the older state "
                + "is the one to go on with, remove \(place) on each host.")
    }

    /// Why no key opens at all, with what is wrong with each slot.
    private static func nothingOpens(
        _ found: FoundSlots, _ refusals: [(slot: KeySlot, error: KedgeError)], _ store: any ObjectStore,
        _ settings: RepositorySettings, _ secret: KeyEncryptionSecret
    ) throws(KedgeError) -> KedgeError {
        let name = settings.name
        if found.slots.isEmpty && found.unusable.isEmpty {
            guard try isPlain(store) else {
                return KedgeError(
                    .keyMissing, "cannot open repository \"\(name)\": it has no key slots",
                    detail: "Nothing lies below key/, and its objects are encrypted.",
                    hint: "Put key/ back from a copy of the repository: without a slot nothing can be decrypted.")
            }
            return KedgeError(
                .configuration,
                "cannot open repository \"\(name)\": it is not encrypted, and the configuration says encryption = "
                    + "aes-256-gcm",
                detail: "It has no key slots, and no encrypted object was found.",
                hint: "If it was made with encryption = none, say so in the configuration. If it was encrypted before, "
                    + "somebody has replaced it.")
        }
        // A slot that can't be used may be just the one that would open: then the secret is not to blame.
        let damage = refusals.first { $0.error.code == .damaged }?.error ?? found.unusable.first?.error
        if let damage {
            return KedgeError(
                damage.code, "cannot open repository \"\(name)\" with the \(settings.secretName)",
                detail:
                    "None of its \(found.slots.count + found.unusable.count) key slot(s) opens, and not all of them "
                    + "could be tried.", hint: damage.hint, cause: damage)
        }
        guard !refusals.isEmpty else {
            let (has, wanted) =
                secret.keyFileText == nil ? ("a key file", "a passphrase") : ("a passphrase", "a key file")
            return KedgeError(
                .keyMissing, "cannot open repository \"\(name)\" with \(wanted): it has no key slot for one",
                detail: "All of its key slots were made with \(has): \(quoted(found.slots.map(\.label).sorted())).",
                hint: "Configure \(has) of this repository.")
        }
        return KedgeError(
            .keyWrong, "cannot open repository \"\(name)\": the \(settings.secretName) opens none of its key slots",
            detail: "It was tried on \(refusals.count) slot(s): "
                + "\(quoted(refusals.map(\.slot.label).sorted())). Either it is not the one that they were made "
                + "with, or "
                + "they were changed.",
            hint: secret.keyFileText == nil
                ? "Check the passphrase, and that it is the one of this repository."
                : "Check that it is the key file of this repository, or put the saved copy back.")
    }

    /// Whether the first object of a cluster says that it is not encrypted, or there is none.
    private static func isPlain(_ store: any ObjectStore) throws(KedgeError) -> Bool {
        for directory in try store.directories(below: nil)
        where directory != RepositoryLayout.keys && directory != RepositoryLayout.features {
            guard let system = directory.appending(ClusterLayout.registrations.text),
                let entry = try store.list(below: system, after: nil, limit: 1).entries.first
            else { continue }
            let prefix = try store.readPrefix(entry.name, limit: ObjectHeader.lengths.upperBound)
            let header = try prefix.withBytes { (prefix) throws(KedgeError) in
                try ObjectHeader.decode(prefix, what: "object \"\(entry.name)\"").header
            }
            return header.cipher == .none
        }
        return true
    }
}

/// Names in quotes, each once.
private func quoted(_ labels: [String]) -> String {
    var seen: Set<String> = []
    return labels.filter { seen.insert($0).inserted }.map { "\"\($0)\"" }.joined(separator: ", ")
}

// `kedge key rewrap`: another secret takes the place of the configured one.
//
// Order: a slot of the new secret for every data key that the old one opens, each read back and opened → all slots that
// are relied on are made durable → the repository is read again and opened with the new secret alone → the slots of the
// old secret are removed. So after a crash at any point the old secret, the new one, or both open every key that the
// old one opened.
//
// A new slot names the slots that it replaces. By that a repetition finishes the job with either secret configured:
// also with the new one, where the old one is no longer at hand.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Replaces a secret.
package struct KeyRewrap: Sendable {
    package struct Outcome: Hashable, Sendable {
        /// Names of the slots that were added.
        package let added: [String]
        /// Names of the slots that were removed.
        package let removed: [String]
        /// Labels of other secrets that open the repository still.
        package let others: [String]
        /// Data keys that neither secret opens.
        package let closed: Int
    }

    private let repository: RepositorySource
    private let secret: NamedSecret
    private let label: String?
    private let random: any RandomSource
    private let time: any TimeSource

    /// `secret` is the new one. `label` is what its slots are called; nil: as those that they replace.
    package init(
        _ repository: RepositorySource, secret: NamedSecret, label: String? = nil, random: any RandomSource,
        time: any TimeSource
    ) {
        self.repository = repository
        self.secret = secret
        self.label = label
        self.random = random
        self.time = time
    }

    /// Repeating it changes nothing. Throws `configuration` and what opening, storing and removing throw.
    package func run() throws(KedgeError) -> Outcome {
        let (old, configured) = try openWithEither()
        try old.requireEncryption(to: "replace a key of")
        var added: [String] = []
        if let configured { added = try addSlots(old, configured) }
        // From here on only what the new secret opens counts.
        let settings = self.repository.settings.with(secret.secret, called: secret.what)
        let new = try Repository.open(old.store, settings, for: .write, random: random)
        for key in old.keyRing.openKeys where !new.keyRing.opens(key.id) {
            throw KedgeError(
                .defect, "cannot replace a key of repository \"\(old.name)\"",
                detail: "Data key \(key.sequence) does not open with \(secret.what) although its slot was just added.",
                hint: "Nothing was removed.  Please report this.")
        }
        let slots = KeySlots(new, random: random, time: time)
        let own = try slots.opened(by: secret.secret)
        let replaced = Set(own.flatMap(\.replaces))
        var obsolete = new.slots.filter { replaced.contains($0.slotID) }
        if let configured { obsolete += try slots.opened(by: configured) }
        let names = try removable(obsolete, own: own)
        for slot in own { try new.store.makeDurable(KeySlots.name(slot)) }
        if let failure = try new.store.remove(names).first {
            throw failure.error.wrapped(
                "could not remove key slot \"\(failure.name)\" of repository \"\(old.name)\"",
                detail: "The new slots are in place, and the old secret still opens the repository.",
                hint: "Run the command again when this is mended.")
        }
        let others = new.slots.filter { slot in !own.contains(slot) && !obsolete.contains(slot) }
        return Outcome(
            added: added, removed: names.map { String($0.lastComponent) }.sorted(),
            others: Set(others.map(\.described)).sorted(), closed: new.keyRing.closed.count)
    }

    /// The repository opened with the configured secret, and that secret if it is not the new one. After an attempt
    /// that removed all old slots and died before it could say so, the new secret opens it alone.
    private func openWithEither() throws(KedgeError) -> (Repository, KeyEncryptionSecret?) {
        do throws(KedgeError) {
            let opened = try repository.open(for: .write, random: random)
            guard let configured = opened.settings.secret, !configured.isSame(as: secret.secret) else {
                return (opened, nil)
            }
            return (opened, configured)
        } catch {
            guard error.code == .keyWrong || error.code == .keyMissing else { throw error }
            let settings = repository.settings.with(secret.secret, called: secret.what)
            do throws(KedgeError) {
                return (try Repository.open(repository.openStore(), settings, for: .write, random: random), nil)
            } catch let second {
                // The configured secret is the one that the user knows of.
                throw second.code == .keyWrong || second.code == .keyMissing ? error : second
            }
        }
    }

    /// Gives the new secret a slot for each open key that it lacks. Returns their names.
    private func addSlots(
        _ repository: Repository, _ configured: KeyEncryptionSecret
    ) throws(KedgeError) -> [String] {
        let slots = KeySlots(repository, random: random, time: time)
        let old = try slots.opened(by: configured)
        var added: [String] = []
        for key in repository.keyRing.openKeys {
            let replaced = old.filter { $0.keyID == key.id }
            let slot = try slots.ensure(
                key, secret.secret, label: label ?? replaced.first?.label ?? "main", replaces: replaced.map(\.slotID))
            if let slot { added.append(slot.slotID) }
        }
        return added
    }

    /// Slots whose key the new secret opens by another slot, each once.
    private func removable(_ slots: [KeySlot], own: [KeySlot]) throws(KedgeError) -> [ObjectName] {
        var names: Set<ObjectName> = []
        for slot in slots where !own.contains(slot) && own.contains(where: { $0.keyID == slot.keyID }) {
            names.insert(try KeySlots.name(slot))
        }
        return names.sorted()
    }
}

extension RepositorySettings {
    /// The same repository opened with another secret.
    fileprivate func with(_ secret: KeyEncryptionSecret, called name: String) -> RepositorySettings {
        var settings = RepositorySettings(
            name: self.name, cipher: .aes256GCM, compression: compression, secret: secret)
        settings.secretName = name
        settings.keyMemory = keyMemory
        return settings
    }
}

// `kedge key remove`: takes key slots away. `KeyRemovalPlan` decides.
//
// Order: the slots that are left and relied on are made durable → the slots are removed. Where a data key was dropped
// as unused, all headers are read once more: an object that came in between brings the slots back.
//
// A slot that is gone from key/ may live on: in a copy of the repository, and inside the commit records of the backups
// that need its key. Whoever has the old secret and such a copy opens that data key.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Removes key slots.
package struct KeyRemove: Sendable {
    package struct Outcome: Hashable, Sendable {
        package let removed: [KeyRemovalPlan.Slot]
        /// Sequences of the data keys that no slot is left of.
        package let dropped: [UInt64]
    }

    private let repository: RepositorySource
    private let selection: KeyRemovalPlan.Selection
    private let mayLockOut: Bool
    private let time: any TimeSource

    /// `mayLockOut`: the configured secret may lose keys, as long as other slots of them are left.
    package init(
        _ repository: RepositorySource, _ selection: KeyRemovalPlan.Selection, mayLockOut: Bool = false,
        time: any TimeSource
    ) {
        self.repository = repository
        self.selection = selection
        self.mayLockOut = mayLockOut
        self.time = time
    }

    /// Throws `not-found` where nothing is so called, `key-missing` where the plan refuses, `configuration`, and what
    /// opening, reading and removing throw.
    package func run() throws(KedgeError) -> Outcome {
        let repository = try repository.open(for: .write)
        try repository.requireEncryption(to: "remove a key slot from")
        let slots = try KeyRemove.slots(of: repository)
        let toProve = KeyRemovalPlan.keysToProve(slots, selection)
        let usage = toProve.isEmpty ? nil : try KeyUsage.count(in: repository.store, .allObjects)
        let age = try newestAge(repository)
        let plan: KeyRemovalPlan
        do throws(KeyRemovalPlan.Refusal) {
            plan = try KeyRemovalPlan(slots, selection, usage: usage, newestAge: age, mayLockOut: mayLockOut)
        } catch {
            throw refused(error, repository)
        }
        for slot in slots where slot.isUsable && !plan.removed.contains(slot) {
            guard plan.removed.contains(where: { $0.key.id == slot.key.id }) else { continue }
            try repository.store.makeDurable(slot.name)
        }
        try remove(plan, repository)
        return Outcome(removed: plan.removed, dropped: plan.dropped.map(\.sequence))
    }

    private func remove(_ plan: KeyRemovalPlan, _ repository: Repository) throws(KedgeError) {
        var saved: [(ObjectName, [UInt8])] = []
        for slot in plan.removed where plan.dropped.contains(slot.key) {
            saved.append((slot.name, try repository.store.readAll(slot.name, limit: 64 << 10)))
        }
        if let failure = try repository.store.remove(plan.removed.map(\.name)).first {
            throw failure.error.wrapped(
                "could not remove key slot \"\(failure.name)\" of repository \"\(repository.name)\"",
                hint: "Run the command again when this is mended; what it named may be gone in part.")
        }
        guard !saved.isEmpty else { return }
        let usage = try KeyUsage.count(in: repository.store, .allObjects)
        guard let key = plan.dropped.first(where: { !usage.provesUnused($0.id) }) else { return }
        for (name, bytes) in saved { _ = try repository.store.put(name, ObjectBody(bytes), .createOnly) }
        throw KedgeError(
            .keyMissing, "cannot remove data key \(key.sequence) of repository \"\(repository.name)\"",
            detail: "An object that needs it was stored meanwhile. Its slots were put back.",
            hint: "Find out which host still writes with the old key, and run the command again later.")
    }

    /// For how many seconds the newest open key has been there, by the clocks of who made it and of the store: the
    /// shorter of the two.
    private func newestAge(_ repository: Repository) throws(KedgeError) -> Int64 {
        guard let newest = repository.keyRing.newest else { return 0 }
        let now = time.now()
        var age: Int64 = 0
        func seconds(since moment: Timestamp) -> Int64 { (now.microseconds &- moment.microseconds) / 1_000_000 }
        for slot in repository.slots where slot.keyID == newest.id {
            guard let made = Timestamp(record: slot.createdAt),
                let stored = try repository.store.status(of: KeySlots.name(slot))?.modified
            else { continue }
            age = max(age, min(seconds(since: made), seconds(since: stored)))
        }
        return age
    }

    /// All slots as the plan sees them.
    private static func slots(of repository: Repository) throws(KedgeError) -> [KeyRemovalPlan.Slot] {
        guard let secret = repository.settings.secret else { return [] }
        let open = Set(
            try KeySlots(repository, random: repository.random, time: SystemTimeSource()).opened(by: secret))
        var slots: [KeyRemovalPlan.Slot] = []
        for slot in repository.slots {
            slots.append(
                KeyRemovalPlan.Slot(
                    name: try KeySlots.name(slot), key: KeyVersion(sequence: slot.sequence, id: slot.keyID),
                    id: slot.slotID, label: slot.label, isUsable: true, opens: open.contains(slot)))
        }
        for unusable in repository.unusableSlots {
            // key/<key id>/<slot id>; whatever has another form is a stranger, and none of ours.
            let parts = unusable.name.components
            guard parts.count == 3, let id = RandomID(hex: parts[1]) else { continue }
            let sequence = slots.first { $0.key.id == id }?.key.sequence ?? 0
            slots.append(
                KeyRemovalPlan.Slot(
                    name: unusable.name, key: KeyVersion(sequence: sequence, id: id), id: String(parts[2]), label: "",
                    isUsable: false, opens: false))
        }
        return slots
    }

    private func refused(
        _ refusal: KeyRemovalPlan.Refusal, _ repository: Repository
    ) -> KedgeError {
        let what =
            switch selection {
            case .slot(let id): "key slot \"\(id)\""
            case .label(let label): "the key slots \"\(label)\""
            }
        func error(_ why: String, _ detail: String?, _ hint: String) -> KedgeError {
            KedgeError(
                .keyMissing, "cannot remove \(what) of repository \"\(repository.name)\": \(why)", detail: detail,
                hint: hint)
        }
        switch refusal {
        case .nothingSelected:
            return KedgeError(
                .notFound, "cannot remove \(what) of repository \"\(repository.name)\": there is none",
                hint: "\"kedge key list\" shows slots and labels.")
        case .locksOut(let key):
            return error(
                "the configured secret would not open data key \(key.sequence) any more",
                "Other slots of the key are left, but nothing here proves that somebody can open them.",
                "Run it where another secret is configured, or give --allow-lockout.")
        case .newestKey(let key):
            return error(
                "nothing else opens data key \(key.sequence), which new objects are sealed with", nil,
                "Give another secret a slot first, with \"kedge key add\" or \"kedge key rewrap\".")
        case .neededKey(let key, let objects, let unreadable):
            return error(
                "nothing else opens data key \(key.sequence), and it is needed",
                objects > 0
                    ? "\(objects) object(s) are sealed with it."
                    : "The headers of \(unreadable) object(s) can't be read, so nobody knows which key they need.",
                objects > 0
                    ? "Expire what it sealed first, or give another secret a slot with \"kedge key add\"."
                    : "\"kedge key list --all-objects\" names them: mend them or take them away first.")
        case .closedKey(let key):
            return error(
                "nothing else opens data key \(key.sequence), and somebody else may be using it",
                "No object needs it now, but the configured secret does not open all of its slots.",
                "If no host uses those secrets any more, give --allow-lockout.")
        case .tooEarly(let key):
            return error(
                "nothing else opens data key \(key.sequence), and it was in use until a short while ago",
                "No object needs it now, but a process that began before the newest data key was made would still seal "
                    + "with it.", "Run it again a day after the rotation.")
        }
    }
}

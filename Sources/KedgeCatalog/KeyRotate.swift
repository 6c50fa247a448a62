// `kedge key rotate`: a new data key, which new objects are sealed with from then on.
//
// 1. Everything is looked at before anything is written: all data keys are open, every secret that has a slot is at
//    hand or was left out by name.
// 2. The secrets that were given get the slots that they lack of older keys (an interrupted rotation leaves such).
// 3. The new key's slots, each read back and opened: first the configured secret's, so that the key is open here from
//    the first moment on, then the others'.
// 4. A slot that was stored is never taken back, whatever fails afterwards: another process may have sealed with the
//    key already.

package import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// A secret that was given on the command line, and what messages call it.
package struct NamedSecret: Sendable {
    package let secret: KeyEncryptionSecret
    package let what: String

    package init(_ secret: KeyEncryptionSecret, what: String) {
        self.secret = secret
        self.what = what
    }
}

/// Makes a new data key.
package struct KeyRotate: Sendable {
    package struct Outcome: Hashable, Sendable {
        package let key: RandomID
        package let sequence: UInt64
        /// Labels of the secrets that open the new key.
        package let labels: [String]
        /// Labels of the secrets that were left out.
        package let leftOut: [String]
        /// How many data keys there were before.
        package let olderKeys: Int
    }

    private let repository: RepositorySource
    private let secrets: [NamedSecret]
    private let leaveOut: Set<String>
    private let random: any RandomSource
    private let time: any TimeSource

    /// `secrets`: those that shall open the new key besides the configured one. `leaveOut`: labels of slots whose
    /// secrets shall not.
    package init(
        _ repository: RepositorySource, secrets: [NamedSecret] = [], leaveOut: Set<String> = [],
        random: any RandomSource, time: any TimeSource
    ) {
        self.repository = repository
        self.secrets = secrets
        self.leaveOut = leaveOut
        self.random = random
        self.time = time
    }

    /// Throws `key-missing` where a data key stays closed, `usage` where a secret is neither at hand nor left out,
    /// `key-wrong` for a secret that opens no slot, `configuration`, and what opening and storing throw.
    package func run() throws(KedgeError) -> Outcome {
        let repository = try repository.open(for: .write, random: random)
        try repository.requireKeys(to: "rotate the data key of")
        guard let configured = repository.settings.secret, let newest = repository.keyRing.newest,
            newest.sequence < UInt64(Int64.max)
        else {
            throw KedgeError(.defect, "cannot rotate the data key of repository \"\(repository.name)\"")
        }
        let slots = KeySlots(repository, random: random, time: time)
        var holders: [(secret: KeyEncryptionSecret, slots: [KeySlot])] = [
            (configured, try slots.opened(by: configured))
        ]
        for secret in secrets {
            let opened = try slots.opened(by: secret.secret)
            guard !opened.isEmpty else { throw stranger(secret, repository) }
            // The configured secret may be given once more.
            if !holders.contains(where: { $0.slots.map(\.slotID) == opened.map(\.slotID) }) {
                holders.append((secret.secret, opened))
            }
        }
        let covered = Set(holders.flatMap { $0.slots.map(\.slotID) })
        let uncovered = repository.slots.filter { !covered.contains($0.slotID) }
        try checkLeaveOut(uncovered, repository)

        var labels: [String] = []
        for holder in holders {
            let label = KeyRotate.label(of: holder.slots)
            for key in repository.keyRing.openKeys { _ = try slots.ensure(key, holder.secret, label: label) }
            labels.append(label)
        }
        let key = DataKey(sequence: newest.sequence + 1, random: random)
        for (holder, label) in zip(holders, labels) { try slots.add(key, holder.secret, label: label) }
        repository.settings.keyMemory?.remember(key.version, of: repository.identity.id)
        return Outcome(
            key: key.id, sequence: key.sequence, labels: labels,
            leftOut: Set(uncovered.map(\.label)).sorted(), olderKeys: repository.keyRing.openKeys.count)
    }

    /// What the newest slot of a secret is called.
    private static func label(of slots: [KeySlot]) -> String {
        slots.max { ($0.sequence, $0.createdAt) < ($1.sequence, $1.createdAt) }?.label ?? "main"
    }

    private func checkLeaveOut(_ uncovered: [KeySlot], _ repository: Repository) throws(KedgeError) {
        let verb = "cannot rotate the data key of repository \"\(repository.name)\""
        if let unknown = leaveOut.sorted().first(where: { label in !repository.slots.contains { $0.label == label } }) {
            throw KedgeError(
                .usage, "\(verb): no secret is called \"\(unknown)\"",
                hint: "The labels are: \(Set(repository.slots.map(\.label)).sorted().joined(separator: ", ")).")
        }
        let forgotten = uncovered.filter { !leaveOut.contains($0.label) }
        guard !forgotten.isEmpty else { return }
        throw KedgeError(
            .usage, "\(verb): the new one would stay closed to secrets that open the present ones",
            detail: "They are: \(Set(forgotten.map(\.described)).sorted().joined(separator: ", ")). A key can only be "
                + "wrapped for a secret that is at hand.",
            hint: "Give each with --add-key-file, --add-passphrase-file or --add-passphrase-command.  Or leave it out "
                + "with --leave-out LABEL: whoever has only that secret can't read what is stored from then on, until "
                + "\"kedge key add\" is run with it.")
    }

    private func stranger(_ secret: NamedSecret, _ repository: Repository) -> KedgeError {
        KedgeError(
            .keyWrong,
            "cannot rotate the data key of repository \"\(repository.name)\": \(secret.what) opens no key slot of it",
            detail: "Nothing was changed.",
            hint: "Check that it is the right one.  To let a new secret in, run \"kedge key add\" with it, before or "
                + "afterwards.")
    }
}

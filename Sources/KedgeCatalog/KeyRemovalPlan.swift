// Which key slots may be removed. Pure: from what is there to what goes, or why nothing goes.
//
// For every data key of which a slot shall go:
//
//   a slot is left that the configured secret opens ──▶ it goes
//   usable slots are left, none of them opens here  ──▶ it goes if the user said so: nobody has proven that they open
//   no usable slot is left: the key would be lost   ──▶ it goes if the key is not the newest, no object needs it (every
//                                                       header was read), the newest has been in use for a day, and
//                                                       every slot of it opens here, or the user said so
//
// One refusal refuses all.

package import KedgeCodec
package import KedgeRepository

/// What `kedge key remove` does.
package struct KeyRemovalPlan: Hashable, Sendable {
    /// One object below `key/`.
    package struct Slot: Hashable, Sendable {
        package let name: ObjectName
        package let key: KeyVersion
        package let id: String
        /// Empty for one that can't be used.
        package let label: String
        /// False for one that is damaged, unknown or of another repository.
        package let isUsable: Bool
        /// Whether the configured secret opens it.
        package let opens: Bool

        package init(name: ObjectName, key: KeyVersion, id: String, label: String, isUsable: Bool, opens: Bool) {
            self.name = name
            self.key = key
            self.id = id
            self.label = label
            self.isUsable = isUsable
            self.opens = opens
        }
    }

    /// What the user named.
    package enum Selection: Hashable, Sendable {
        case slot(String)
        case label(String)

        func includes(_ slot: Slot) -> Bool {
            switch self {
            case .slot(let id): slot.id == id
            case .label(let label): slot.isUsable && slot.label == label
            }
        }
    }

    package enum Refusal: Error, Hashable, Sendable {
        case nothingSelected
        /// The configured secret would not open the key any more, although others may.
        case locksOut(KeyVersion)
        /// It is the last usable slot of the key that new objects are sealed with.
        case newestKey(KeyVersion)
        /// It is the last usable slot of a key that objects need, or may need.
        case neededKey(KeyVersion, objects: Int, unreadable: Int)
        /// It is the last usable slot of a key that the configured secret does not open: others may be using it.
        case closedKey(KeyVersion)
        /// No object needs the key, but a process that began to work with it may still run.
        case tooEarly(KeyVersion)
    }

    /// What is removed, by name.
    package let removed: [Slot]
    /// Keys that no slot is left of, oldest first.
    package let dropped: [KeyVersion]

    /// How long the newest key must have been there before an older one is dropped: a process that opened the
    /// repository before seals with the older one until it ends.
    package static let grace: Int64 = 24 * 3600

    /// Keys that no usable slot would be left of, so that `KeyUsage` is needed to decide.
    package static func keysToProve(_ slots: [Slot], _ selection: Selection) -> [KeyVersion] {
        let selected = slots.filter(selection.includes)
        return Set(selected.map(\.key)).filter { key in
            !slots.contains { $0.key.id == key.id && $0.isUsable && !selection.includes($0) }
        }.sorted()
    }

    /// Decides. `usage` is that of all objects, nil where it was not looked at; `newestAge` is for how many seconds the
    /// newest open key has been there; `mayLockOut` is the user's word that the configured secret may lose keys.
    package init(
        _ slots: [Slot], _ selection: Selection, usage: KeyUsage?, newestAge: Int64, mayLockOut: Bool
    ) throws(Refusal) {
        let selected = slots.filter(selection.includes)
        guard !selected.isEmpty else { throw .nothingSelected }
        let newest = slots.filter(\.opens).map(\.key).max()
        var dropped: [KeyVersion] = []
        for key in Set(selected.map(\.key)).sorted() {
            let all = slots.filter { $0.key.id == key.id }
            let left = all.filter { !selection.includes($0) }
            if left.contains(where: \.opens) { continue }
            if left.contains(where: \.isUsable) {
                guard mayLockOut else { throw .locksOut(key) }
                continue
            }
            guard key.id != newest?.id else { throw .newestKey(key) }
            guard let usage, usage.provesUnused(key.id) else {
                throw .neededKey(
                    key, objects: usage?.objects[key.id] ?? 0, unreadable: usage?.unreadable.count ?? 0)
            }
            guard mayLockOut || all.allSatisfy(\.opens) else { throw .closedKey(key) }
            guard newestAge >= KeyRemovalPlan.grace else { throw .tooEarly(key) }
            dropped.append(key)
        }
        removed = selected.sorted { $0.name < $1.name }
        self.dropped = dropped
    }
}

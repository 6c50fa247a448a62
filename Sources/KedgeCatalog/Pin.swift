// Pins: backups that retention leaves alone. `kedge pin` and `kedge unpin`.
//
// Order (docs/design.md section 4): the pin is written, then everything is looked at. An expire that marked the backup
// before sees the pin when it looks again; one that has begun to remove it is seen by us. That one may have had its
// last look and go on, or be dead: nobody can tell. So what was written stays, since every later expire sees it, and we
// do not say that the backup is safe. `unexpire` does likewise: it takes the mark away without which no expire removes.

package import KedgeCore
package import KedgeRepository

/// A backup that retention leaves alone.
package struct Pin: Hashable, Sendable {
    package var label: Label
    /// By the clock of the host that set it.
    package var pinnedAt: Timestamp
    package var hostName: String
    package var createdBy: String

    package init(label: Label, pinnedAt: Timestamp, hostName: String, createdBy: String = Version.writer) {
        self.label = label
        self.pinnedAt = pinnedAt
        self.hostName = hostName
        self.createdBy = createdBy
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "pin", "label": .string(label.text), "pinnedAt": .string(pinnedAt.description),
            "hostName": .string(hostName), "createdBy": .string(createdBy),
        ]
    }

    /// The pin that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("pin")
        label = try record.parsed("label") { Label($0) }
        pinnedAt = try record.parsed("pinnedAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        createdBy = try record.string("createdBy")
    }
}

/// Sets pins, takes them away, and takes pending removals back.
package struct Pinning: Sendable {
    package enum Outcome: Sendable, Hashable {
        /// It was done. For a pin: whether a pending removal ended with it.
        case done(endedRemoval: Bool)
        /// It was so before.
        case nothingToDo
        /// It was done, but the removal had begun before: an expire that is at work now may still remove the backup,
        /// any later one sees what was done.
        case removalHasBegun
    }

    private let cluster: ClusterRepository
    private let marks: RetentionCatalog
    private let hostName: String
    private let time: any TimeSource

    package init(_ cluster: ClusterRepository, hostName: String, time: any TimeSource) {
        self.cluster = cluster
        self.hostName = hostName
        self.time = time
        marks = RetentionCatalog(cluster)
    }

    /// Pins a backup. Throws `not-found` where there is none of that label, or it was removed meanwhile; then there is
    /// no pin.
    package func pin(_ label: Label) throws(KedgeError) -> Outcome {
        try requireBackup(label)
        let isNew = try marks.put(Pin(label: label, pinnedAt: time.now(), hostName: hostName))
        // In this order: a removal that is not there now has not begun, and will see the pin, or is over, and then the
        // commit record is gone.
        let hasBegun = try marks.hasMark(label, .removing)
        do throws(KedgeError) {
            try requireBackup(label)
        } catch {
            if isNew, error.code == .notFound { try marks.removePin(label) }
            throw error
        }
        if hasBegun { return .removalHasBegun }
        // From here on every last look of an expire sees the pin.
        let wasPending = try marks.hasMark(label, .pending)
        if wasPending { try marks.removeMark(label, .pending) }
        return isNew || wasPending ? .done(endedRemoval: wasPending) : .nothingToDo
    }

    /// Takes a pin away. Throws `not-found` where there is none.
    package func unpin(_ label: Label) throws(KedgeError) {
        guard try marks.hasPin(label) else {
            throw KedgeError(
                .notFound, "could not unpin backup \"\(label)\": it is not pinned",
                detail: "Repository \"\(cluster.repository.name)\" holds no pin of that label.",
                hint: "Run \"kedge info\" to see the backups and which are pinned.")
        }
        try marks.removePin(label)
    }

    /// Takes a pending removal back. Throws `not-found` where there is no such backup, or it was removed meanwhile.
    package func unexpire(_ label: Label) throws(KedgeError) -> Outcome {
        try requireBackup(label)
        // The mark that lasts goes first: an expire whose mark appears after this has seen that the other is gone.
        let wasPending = try marks.hasMark(label, .pending)
        if wasPending { try marks.removeMark(label, .pending) }
        // An expire that began before has its own mark there, or is over and the commit record is gone.
        let hasBegun = try marks.hasMark(label, .removing)
        try requireBackup(label)
        if hasBegun { return .removalHasBegun }
        return wasPending ? .done(endedRemoval: true) : .nothingToDo
    }

    private func requireBackup(_ label: Label) throws(KedgeError) {
        guard let name = ClusterLayout.commitRecord(label: label.text),
            try cluster.repository.store.contains(cluster.name(name))
        else {
            throw KedgeError(
                .notFound, "could not find backup \"\(label)\"",
                detail: "Repository \"\(cluster.repository.name)\" holds no commit record of that label.",
                hint: "Run \"kedge info\" to see the backups that there are.")
        }
    }
}

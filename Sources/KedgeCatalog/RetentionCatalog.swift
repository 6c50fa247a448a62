// Pins and marks of one cluster in one repository: stored, listed, removed.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// A mark as a listing found it.
package struct MarkSeen: Hashable, Sendable {
    /// Nil where it can't be read. Then nothing is removed for its sake.
    package let mark: CondemnedMark?
    /// By the store's clock.
    package let storedAt: Timestamp

    package init(mark: CondemnedMark?, storedAt: Timestamp) {
        self.mark = mark
        self.storedAt = storedAt
    }
}

/// What retention keeps in the catalogue.
package struct RetentionCatalog: Sendable {
    package let cluster: ClusterRepository

    package init(_ cluster: ClusterRepository) { self.cluster = cluster }

    private var store: any ObjectStore { cluster.repository.store }

    // MARK: - Pins

    /// Stores a pin. Returns whether there was none.
    package func put(_ pin: Pin) throws(KedgeError) -> Bool {
        let name = try name(ClusterLayout.pins, pin.label)
        if try cluster.putRecord(pin.jsonValue, .pin, name).outcome == .created { return true }
        try store.makeDurable(cluster.name(name))
        return false
    }

    /// Whether there is a pin.
    package func hasPin(_ label: Label) throws(KedgeError) -> Bool {
        try store.contains(cluster.name(name(ClusterLayout.pins, label)))
    }

    /// The labels of all pins. Their names count, so that a damaged pin still pins.
    package func pins() throws(KedgeError) -> Set<Label> {
        var labels: Set<Label> = []
        try cluster.forEachObject(below: ClusterLayout.pins) { (name, _) throws(KedgeError) in
            if let label = Label(String(name.lastComponent)) { labels.insert(label) }
        }
        return labels
    }

    package func removePin(_ label: Label) throws(KedgeError) { try remove([name(ClusterLayout.pins, label)]) }

    // MARK: - Marks

    /// Stores a mark; one that is there already is left.
    package func put(_ mark: CondemnedMark) throws(KedgeError) {
        let name = try name(mark.stage.directory, mark.label)
        guard try cluster.putRecord(mark.jsonValue, .condemned, name).outcome == .alreadyExists else { return }
        do throws(KedgeError) {
            try store.makeDurable(cluster.name(name))
        } catch  where error.code == .notFound {
            // Somebody took it away meanwhile, which is seen in the look that follows.
        }
    }

    /// Whether there is such a mark, readable or not.
    package func hasMark(_ label: Label, _ stage: CondemnedMark.Stage) throws(KedgeError) -> Bool {
        try store.contains(cluster.name(name(stage.directory, label)))
    }

    /// The labels of all marks of one stage, readable or not.
    package func labels(_ stage: CondemnedMark.Stage) throws(KedgeError) -> Set<Label> {
        var labels: Set<Label> = []
        try cluster.forEachObject(below: stage.directory) { (name, _) throws(KedgeError) in
            if let label = Label(String(name.lastComponent)), name.components.count == 3 { labels.insert(label) }
        }
        return labels
    }

    /// All marks of one stage.
    package func marks(_ stage: CondemnedMark.Stage) throws(KedgeError) -> [Label: MarkSeen] {
        var found: [(label: Label, name: ObjectName, storedAt: Timestamp)] = []
        try cluster.forEachObject(below: stage.directory) { (name, status) throws(KedgeError) in
            if let label = Label(String(name.lastComponent)), name.components.count == 3 {
                found.append((label, name, status.modified))
            }
        }
        var marks: [Label: MarkSeen] = [:]
        for (label, name, storedAt) in found {
            do throws(KedgeError) {
                let what = "condemned mark \"\(label)\""
                let mark = try CondemnedMark(cluster.readRecord(.condemned, name, what: what).record)
                let isRight = mark.label == label && mark.stage == stage
                marks[label] = MarkSeen(mark: isRight ? mark : nil, storedAt: storedAt)
            } catch  where error.code == .notFound {
                continue
            } catch {
                guard error.code.isAboutTheObject else { throw error }
                marks[label] = MarkSeen(mark: nil, storedAt: storedAt)
            }
        }
        return marks
    }

    package func removeMark(_ label: Label, _ stage: CondemnedMark.Stage) throws(KedgeError) {
        try remove([name(stage.directory, label)])
    }

    // MARK: - Backups

    /// Removes the commit record: from here on the backup does not exist.
    package func removeCommitRecord(_ label: Label) throws(KedgeError) {
        try remove([name(ClusterLayout.commitRecords, label)])
    }

    package func removeManifest(_ label: Label) throws(KedgeError) {
        guard let name = ClusterLayout.manifest(label: label.text) else { return }
        try remove([name])
    }

    /// Removes objects by their relative names. Throws the first failure.
    package func remove(_ names: [ObjectName]) throws(KedgeError) {
        guard !names.isEmpty else { return }
        if let failure = try store.remove(names.map(cluster.name)).first { throw failure.error }
    }

    private func name(_ directory: ObjectName, _ label: Label) throws(KedgeError) -> ObjectName {
        if let name = directory.appending(label.text) { return name }
        throw KedgeError(
            .defect, "cannot name the objects of backup \"\(label)\"", hint: "Please report this.")
    }
}

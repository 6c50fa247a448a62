// The facts of the catalogue in one repository: commit records, intents and manifest roots.
//
// A backup exists if and only if its commit record does. A record that can't be read is reported beside those that
// can: one damaged object must not hide the other backups.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// What a listing of the catalogue found.
package struct CatalogListing: Sendable {
    /// Committed backups, ordered by the stop LSN along with the timeline, oldest first.
    package let backups: [CommitRecord]
    /// Commit records that could not be read, by the last part of their names.
    package let unreadable: [UnreadableRecord]

    package init(backups: [CommitRecord], unreadable: [UnreadableRecord]) {
        self.backups = backups
        self.unreadable = unreadable
    }

    /// The backup with this label. Throws the reason where its commit record is unreadable, `not-found` where there is
    /// none.
    package func backup(_ label: Label) throws(KedgeError) -> CommitRecord {
        if let found = backups.first(where: { $0.label == label }) { return found }
        if let damaged = unreadable.first(where: { $0.name == label.text }) { throw damaged.error }
        throw KedgeError(
            .notFound, "could not find backup \"\(label)\"",
            detail: "The repository holds no commit record of that label.",
            hint: "Run \"kedge info\" to see the backups that there are.")
    }
}

/// A record of the catalogue that could not be read.
package struct UnreadableRecord: Sendable {
    package let name: String
    package let error: KedgeError

    package init(name: String, error: KedgeError) {
        self.name = name
        self.error = error
    }
}

/// The catalogue of one cluster in one repository.
package struct BackupCatalog: Sendable {
    package let cluster: ClusterRepository

    package init(_ cluster: ClusterRepository) { self.cluster = cluster }

    // MARK: - Commit records

    /// Every committed backup. Throws only if the catalogue could not be listed, or a record not be fetched; the latter
    /// is told with the unreadable ones where `isBearable` says so of its error.
    package func list(
        isBearable: (KedgeError) throws(KedgeError) -> Bool = { (_) throws(KedgeError) in false }
    ) throws(KedgeError) -> CatalogListing {
        var backups: [CommitRecord] = []
        var unreadable: [UnreadableRecord] = []
        try cluster.forEachObject(below: ClusterLayout.commitRecords) { (name, _) throws(KedgeError) in
            do throws(KedgeError) {
                guard let label = Label(String(name.lastComponent)) else {
                    throw KedgeError(
                        .damaged, "cannot use commit record \"\(name)\"", detail: "Its name is not a backup's label.",
                        hint: "Find out who put it there; kedge will not remove it.")
                }
                backups.append(try commitRecord(label))
            } catch  where error.code == .notFound {
                // It was removed since it was listed.
                return
            } catch {
                // What is there but wrong is reported; what could not be looked at must not pass for a short list.
                let isAboutTheRecord =
                    error.code.exitStatus == 3 || error.code == .keyMissing || error.code == .keyWrong
                    || error.code == .formatUnknown
                if !isAboutTheRecord, try !isBearable(error) { throw error }
                unreadable.append(UnreadableRecord(name: String(name.lastComponent), error: error))
            }
        }
        backups.sort { ($0.span.timeline, $0.span.stopLSN, $0.label) < ($1.span.timeline, $1.span.stopLSN, $1.label) }
        return CatalogListing(backups: backups, unreadable: unreadable)
    }

    /// The commit record of one backup. Throws `not-found`, `damaged` and what reading throws.
    package func commitRecord(_ label: Label) throws(KedgeError) -> CommitRecord {
        let what = "commit record \"\(label)\""
        let relative = try name(label, ClusterLayout.commitRecord)
        let record = try CommitRecord(cluster.readRecord(.commitRecord, relative, what: what).record)
        guard record.label == label else { throw mismatch(what, found: record.label) }
        return record
    }

    /// Stores the commit record: from here on the backup exists. Throws `already-exists` if the label is taken.
    package func commit(_ record: CommitRecord) throws(KedgeError) {
        let relative = try name(record.label, ClusterLayout.commitRecord)
        try create(record.jsonValue, .commitRecord, relative, what: "commit record \"\(record.label)\"")
    }

    /// Whether the commit record of this backup is there.
    package func isCommitted(_ label: Label) throws(KedgeError) -> Bool {
        try cluster.repository.store.status(of: cluster.name(name(label, ClusterLayout.commitRecord))) != nil
    }

    /// The labels of all backups that are about to be removed, or are being removed.
    package func condemnedLabels() throws(KedgeError) -> Set<Label> {
        var labels: Set<Label> = []
        for directory in [ClusterLayout.condemned, ClusterLayout.removing] {
            try cluster.forEachObject(below: directory) { (name, _) throws(KedgeError) in
                if let label = Label(String(name.lastComponent)) { labels.insert(label) }
            }
        }
        return labels
    }

    // MARK: - Intents

    /// Stores the intent of a backup that begins. Throws `already-exists` if the label is taken.
    package func begin(_ intent: Intent) throws(KedgeError) {
        let relative = try name(intent.label, ClusterLayout.intent)
        try create(intent.jsonValue, .intent, relative, what: "intent \"\(intent.label)\"")
    }

    /// The intent of a backup under way. Throws `not-found`.
    package func intent(_ label: Label) throws(KedgeError) -> Intent {
        let relative = try name(label, ClusterLayout.intent)
        return try Intent(cluster.readRecord(.intent, relative, what: "intent \"\(label)\"").record)
    }

    /// The labels of all intents that are there.
    package func intents() throws(KedgeError) -> [Label] {
        var labels: [Label] = []
        try cluster.forEachObject(below: ClusterLayout.intents) { (name, _) throws(KedgeError) in
            if let label = Label(String(name.lastComponent)) { labels.append(label) }
        }
        return labels
    }

    /// Removes the intent of a backup that was committed or given up.
    package func end(_ label: Label) throws(KedgeError) {
        let relative = try name(label, ClusterLayout.intent)
        if let failure = try cluster.repository.store.remove([cluster.name(relative)]).first { throw failure.error }
    }

    // MARK: - Manifest roots

    /// Stores a manifest's root. Returns what ties it to the commit record.
    package func putManifest(_ root: ManifestRoot) throws(KedgeError) -> CommitRecord.ManifestSeal {
        let relative = try name(root.label, ClusterLayout.manifest)
        let sealed = try create(root.jsonValue, .manifest, relative, what: "manifest of backup \"\(root.label)\"")
        return CommitRecord.ManifestSeal(length: UInt64(sealed.count), checksum: ContentHash(of: sealed))
    }

    /// The root of a committed backup's manifest. Throws `damaged` where it is not the one that was committed, or is
    /// missing while the backup is committed; the hint names what else could be restored.
    package func manifest(of record: CommitRecord) throws(KedgeError) -> ManifestRoot {
        do throws(KedgeError) {
            return try committedManifest(of: record)
        } catch {
            throw try explaining(error, record)
        }
    }

    /// The same, with the errors as they come: `not-found` where there is no such object.
    package func committedManifest(of record: CommitRecord) throws(KedgeError) -> ManifestRoot {
        let what = "manifest of backup \"\(record.label)\""
        let relative = try name(record.label, ClusterLayout.manifest)
        let (json, sealed) = try cluster.readRecord(.manifest, relative, what: what)
        let seal = CommitRecord.ManifestSeal(length: UInt64(sealed.count), checksum: ContentHash(of: sealed))
        guard seal == record.manifest else {
            throw KedgeError(
                .damaged, "cannot use the \(what)",
                detail: "It has \(seal.length) bytes and checksum \(seal.checksum); committed were "
                    + "\(record.manifest.length) bytes and \(record.manifest.checksum).",
                hint: LostManifest.generalHint)
        }
        let root = try ManifestRoot(json)
        guard root.label == record.label else { throw mismatch(what, found: root.label) }
        guard root.packs == record.packs else {
            throw KedgeError(
                .damaged, "cannot use the \(what)", detail: "It lists other packs than the commit record.",
                hint: LostManifest.generalHint)
        }
        return root
    }

    // MARK: -

    @discardableResult
    private func create(
        _ json: JSONValue, _ kind: ObjectKind, _ relative: ObjectName, what: String
    ) throws(KedgeError) -> [UInt8] {
        let (outcome, sealed) = try cluster.putRecord(json, kind, relative)
        guard outcome == .created else {
            throw KedgeError(
                .alreadyExists, "cannot store \(what): it exists already",
                detail: "Repository \"\(cluster.repository.name)\" holds another object of that name.",
                hint: "Labels are random: if this happens twice, look for a second kedge with the same seed.")
        }
        return sealed
    }

    private func name(_ label: Label, _ make: (String) -> ObjectName?) throws(KedgeError) -> ObjectName {
        // Every label is a valid component.
        guard let name = make(label.text) else {
            throw KedgeError(
                .defect, "cannot name the objects of backup \"\(label)\"",
                hint: "Please report this.")
        }
        return name
    }

    private func mismatch(_ what: String, found: Label) -> KedgeError {
        KedgeError(
            .damaged, "cannot use \(what)", detail: "It is about backup \"\(found)\".",
            hint: "Somebody may have tampered with the repository.")
    }
}

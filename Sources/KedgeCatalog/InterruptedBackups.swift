// Backups that were begun and never committed, and the packs that they stored: what a new backup may take over.
//
// Why no expire removes such a pack under the new backup: an expire lists packs before intents, and sweeps none where
// it sees an intent. The intent of the interrupted backup was there before its packs, and is seen here after the new
// backup's own intent was put. So whoever lists such a pack sees one of the two intents, or reads commit records after
// the new backup's is there. A pack whose backup has no intent any more is never taken: an expire may be about to
// remove it (docs/decisions/0017).

package import KedgeCodec
package import KedgeCore
import KedgeRepository

/// Interrupted backups of one database system.
package struct InterruptedBackups: Sendable {
    /// A pack of one of them.
    package struct Pack: Sendable {
        package let id: RandomID
        /// Whose it is, as its header says.
        package let label: Label
        /// With the sources of its frames.
        package let directory: PackDirectory
    }

    package let labels: Set<Label>
    private let catalog: BackupCatalog

    /// Looks for them. The intent of the backup `own` must be there. Throws what looking throws.
    ///
    /// What a lease names is under way. A backup that runs without one passes for interrupted; its packs may be shared
    /// all the same, since they never change.
    package init(
        in catalog: BackupCatalog, besides own: Label, of system: SystemIdentifier
    ) throws(KedgeError) {
        self.catalog = catalog
        var labels: Set<Label> = []
        let leased = Set(try Lease.all(in: catalog.cluster).compactMap { $0.record?.label })
        for label in try catalog.intents() where label != own && !leased.contains(label.text) {
            do throws(KedgeError) {
                let intent = try catalog.intent(label)
                guard intent.label == label, intent.systemIdentifier == system, try !catalog.isCommitted(label) else {
                    continue
                }
                labels.insert(label)
            } catch {
                // What is gone or cannot be read is not there to be resumed.
                guard error.code == .notFound || error.code.isAboutTheObject else { throw error }
            }
        }
        self.labels = labels
    }

    /// Hands each of their packs to `body` that is sealed as new ones are and that no commit record refers to. Returns
    /// sentences about packs that are left alone. Throws what looking and `body` throw.
    package func forEachPack(
        unless interruption: Interruption, _ body: (Pack) throws(KedgeError) -> Void
    ) throws(KedgeError) -> [String] {
        guard !labels.isEmpty else { return [] }
        let cluster = catalog.cluster
        let referred = Set(try catalog.list().backups.flatMap { $0.packs.map(\.id) })
        var candidates: [RandomID] = []
        try cluster.forEachObject(below: ClusterLayout.packs) { (name, _) throws(KedgeError) in
            guard let id = RandomID(hex: String(name.lastComponent)), ClusterLayout.pack(id) == name,
                !referred.contains(id)
            else { return }
            candidates.append(id)
        }
        let repository = cluster.repository
        let key = repository.settings.secret == nil ? RandomID.zero : try repository.keyRing.writingKey().id
        let directories = PackDirectories(cluster)
        var left: [String] = []
        for id in candidates {
            try interruption.checkpoint()
            let directory: PackDirectory
            do throws(KedgeError) {
                directory = try directories.directoryWithSources(of: id)
            } catch {
                guard error.code == .notFound || error.code.isAboutTheObject else { throw error }
                left.append("Pack \(id) of an interrupted backup was not used: \(error.message).")
                continue
            }
            guard let label = directory.seal.header.backupLabel.flatMap({ Label($0) }), labels.contains(label) else {
                continue
            }
            guard directory.seal.header.keyID == key else {
                left.append("Pack \(id) of interrupted backup \(label) was not used: another data key seals it.")
                continue
            }
            try body(Pack(id: id, label: label, directory: directory))
        }
        return left
    }
}

// The step that makes a backup exist: its commit record is put when nothing of it is gone, and then looked at again.
//
//   look ──▶ put commit record ──▶ look again ──nothing is gone──▶ committed
//                                      └──something is gone──▶ the record is taken back; the backup failed
//
// Why the second look is enough: an expire sweeps packs only after it saw no intent, and reads commit records after
// intents. Where the intent still stands once the commit record is there, every expire that could sweep has seen or
// will see one of the two. Where the intent is gone, an expire may have read everything before the record came and may
// still be about to remove packs, so that packs which are there prove nothing: the record goes.
//
// A parent that is condemned is no reason as long as the intent stands: whoever marked it reads intents and commit
// records again, sees this backup, and takes the mark away. Only a parent whose commit record is gone is one.

package import KedgeCore
import KedgeRepository

/// Commits one backup, whose intent is there.
package struct BackupCommit: Sendable {
    private let catalog: BackupCatalog
    private let label: Label
    private let parent: Label?
    /// More packs than this are looked for in a listing, a thousand with one request, and not one by one.
    private static let fewPacks = 64

    package init(_ catalog: BackupCatalog, label: Label, parent: Label?) {
        self.catalog = catalog
        self.label = label
        self.parent = parent
    }

    /// Why the parent cannot be used now that the intent, which protects it from then on, is there; nil if it can.
    package func whyParentIsLost() throws(KedgeError) -> String? {
        guard let parent else { return nil }
        if try catalog.condemnedLabels().contains(parent) { return "It is about to be removed." }
        return try catalog.isCommitted(parent) ? nil : "Its commit record is gone."
    }

    /// Puts `record`, looking before and after. Returns an error that leaves the backup as it is: it is committed, and
    /// could not be looked at again.
    ///
    /// Throws `not-found` where something that the backup needs is gone; there is no commit record then, unless the
    /// error says so. Throws what storing throws.
    package func put(_ record: CommitRecord) throws(KedgeError) -> KedgeError? {
        if let gone = try findGone(record.packs) {
            throw KedgeError(
                .notFound, "cannot commit backup \"\(label)\": \(gone.what)", detail: gone.detail,
                hint: Self.hint, cause: gone.cause)
        }
        try catalog.commit(record)
        let gone: Gone?
        do throws(KedgeError) {
            gone = try findGone(record.packs)
        } catch {
            var error = error.wrapped("could not look at backup \"\(label)\" again, which is committed")
            error.hint = "Run \"kedge verify --backup \(label)\": it tells whether all of the backup is there."
            return error
        }
        if let gone { throw withdrawn(because: gone) }
        return nil
    }

    // MARK: -

    private static let hint = "Find out who removed objects of the repository, and run the backup again."

    /// What is not there any more.
    private struct Gone {
        let what: String
        let detail: String
        var cause: KedgeError?
    }

    private func findGone(_ packs: [PackUse]) throws(KedgeError) -> Gone? {
        do throws(KedgeError) {
            _ = try catalog.intent(label)
        } catch  where error.code == .notFound {
            return Gone(
                what: "its intent was removed",
                detail: "Something that the backup refers to may have been removed since: \"kedge expire\" removes the "
                    + "intent of a backup that seems to have died more than a day ago.", cause: error)
        }
        if let parent, try !catalog.isCommitted(parent) {
            return Gone(
                what: "its parent \"\(parent)\" is gone", detail: "The commit record of the parent was removed.")
        }
        guard let pack = try firstMissing(of: packs.map(\.id)) else { return nil }
        return Gone(
            what: "pack \"\(pack)\" is gone",
            detail: "It was stored a while ago and the repository says that it is not there.")
    }

    private func firstMissing(of packs: [RandomID]) throws(KedgeError) -> RandomID? {
        let cluster = catalog.cluster
        var candidates = packs
        if packs.count > Self.fewPacks {
            var missing = Set(packs)
            try cluster.forEachObject(below: ClusterLayout.packs) { (name, _) throws(KedgeError) in
                if let id = RandomID(hex: String(name.lastComponent)), ClusterLayout.pack(id) == name {
                    missing.remove(id)
                }
            }
            // A listing may lag behind; the object itself decides.
            candidates = missing.sorted()
        }
        for pack in candidates
        where try !cluster.repository.store.contains(cluster.name(ClusterLayout.pack(pack))) {
            return pack
        }
        return nil
    }

    /// Takes the commit record back. Returns why the backup failed.
    private func withdrawn(because gone: Gone) -> KedgeError {
        do throws(KedgeError) {
            try RetentionCatalog(catalog.cluster).removeCommitRecord(label)
            return KedgeError(
                .notFound, "backup \"\(label)\" was taken back right after its commit: \(gone.what)",
                detail: gone.detail, hint: Self.hint, cause: gone.cause)
        } catch {
            return KedgeError(
                .notFound, "backup \"\(label)\" is of no use: \(gone.what)",
                detail: "\(gone.detail) Its commit record could not be taken back: \(error.message).",
                hint: "Restore nothing from it. Remove object \"catalog/backup/\(label)\" of the cluster once the "
                    + "repository can be written to, and run the backup again.", cause: error)
        }
    }
}

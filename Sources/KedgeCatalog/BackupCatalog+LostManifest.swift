// A manifest that is gone or wrong: what that means, and which backups there are besides.

import KedgeCore
import KedgeRepository

extension BackupCatalog {
    /// The error of reading the manifest of `record`, for whoever wanted the backup: a manifest that is missing is
    /// damage as long as the backup is committed, and the hint names what may restore instead.
    ///
    /// Throws what looking for the commit record throws.
    func explaining(_ error: KedgeError, _ record: CommitRecord) throws(KedgeError) -> KedgeError {
        var error = error
        if error.code == .notFound {
            // Removed together, and not lost.
            guard try isCommitted(record.label) else { return error }
            error = KedgeError(
                .damaged, "cannot find the manifest of backup \"\(record.label)\"",
                detail: "The backup is committed, and repository \"\(cluster.repository.name)\" has no manifest of it.")
        }
        guard error.code == .damaged else { return error }
        let hint = LostManifest.hint(record, others: otherBackups())
        if let told = error.hint, told != LostManifest.generalHint {
            error.hint = "\(told)  \(hint)"
        } else {
            error.hint = hint
        }
        return error
    }

    /// Those that can be listed: this is only for a hint.
    private func otherBackups() -> [CommitRecord] {
        do throws(KedgeError) {
            return try list(isBearable: { (_) throws(KedgeError) in true }).backups
        } catch {
            return []
        }
    }
}

/// What to do without a manifest. Pure.
package enum LostManifest {
    static let generalHint = "Restore another backup, or this one from another repository."

    /// The newest older backup of the same system that recovery from can go on along the same path is the next best.
    package static func hint(_ record: CommitRecord, others: [CommitRecord]) -> String {
        let older = others.filter {
            $0.label != record.label && $0.server.systemIdentifier == record.server.systemIdentifier
                && $0.span.timeline <= record.span.timeline && $0.span.stopLSN <= record.span.stopLSN
        }.max { ($0.span.stopLSN, $0.label) < ($1.span.stopLSN, $1.label) }
        guard let older else { return generalHint }
        return "Restore an older backup, from which recovery goes on with the archived WAL: the next is \"--backup "
            + "\(older.label)\".  Or restore this one from another repository, and take a new backup."
    }
}

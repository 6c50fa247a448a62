// Which database system of a cluster to restore: pg_upgrade and initdb make a new one under the old name (lesson 44).
//
// 1. The backup that was asked for decides.
// 2. Without one it is the system that was registered last, and never silently an older one.
// 3. Where an older one has newer backups, pg_upgrade was undone: nobody can tell which one is meant, so nothing is
//    chosen.

package import KedgeCatalog
package import KedgeCore
package import KedgeRepository

/// The choice among the systems of one cluster.
package struct SystemChoice {
    private let newest: Registration
    private let backups: [CommitRecord]

    /// `newest` is what was registered last, `backups` are those of all systems.
    package init(_ newest: Registration, _ backups: [CommitRecord]) {
        self.newest = newest
        self.backups = backups
    }

    /// The system to restore; `wanted` is the backup that was asked for. Throws `not-found` where the present system
    /// has no backup but another has, `target-ambiguous` where an older system has the newer backup.
    package func system(of wanted: CommitRecord?) throws(KedgeError) -> SystemIdentifier {
        if let wanted { return wanted.server.systemIdentifier }
        let system = newest.systemIdentifier
        let last = backups.max { $0.span.stopTime < $1.span.stopTime }
        guard let last, last.server.systemIdentifier != system else { return system }
        let own = backups.filter { $0.server.systemIdentifier == system }.max { $0.span.stopTime < $1.span.stopTime }
        throw own.map { ambiguous($0, last) } ?? onlyOthers(last)
    }

    private func onlyOthers(_ last: CommitRecord) -> KedgeError {
        KedgeError(
            .notFound, "cannot restore: the repository holds no backup of the present database system",
            detail:
                "The system registered last is \(newest.systemIdentifier), PostgreSQL \(newest.postgresVersion); the "
                + "newest backup, \(last.label), is of system \(SystemChoice.name(of: last)).",
            hint: "Run \"kedge backup\" first, or give \"--backup \(last.label)\" for the older system.")
    }

    private func ambiguous(_ own: CommitRecord, _ last: CommitRecord) -> KedgeError {
        KedgeError(
            .targetAmbiguous, "cannot tell which database system to restore: an older one has the newest backup",
            detail: "The system registered last is \(SystemChoice.name(of: own)), whose newest backup is of "
                + "\(own.span.stopTime). A backup of system \(SystemChoice.name(of: last)) is of "
                + "\(last.span.stopTime), as if pg_upgrade had been undone.",
            hint: "Give \"--backup \(last.label)\" or \"--backup \(own.label)\".")
    }

    /// `error`, which says that the target cannot be reached, with the backups of other systems named in it.
    package static func naming(_ others: [CommitRecord], in error: KedgeError) -> KedgeError {
        guard error.code == .targetUnreachable, let last = others.max(by: { $0.span.stopTime < $1.span.stopTime })
        else { return error }
        var error = error
        let note =
            "The repository also holds backups of an earlier database system, \(name(of: last)); the newest, "
            + "\(last.label), is of \(last.span.stopTime) and can be asked for with \"--backup\"."
        error.detail = error.detail.map { "\($0) \(note)" } ?? note
        return error
    }

    private static func name(of backup: CommitRecord) -> String {
        "\(backup.server.systemIdentifier), PostgreSQL \(backup.server.postgresVersion)"
    }
}

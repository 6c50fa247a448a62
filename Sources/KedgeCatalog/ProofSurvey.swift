// What `info` learns from proofs: for each backup what counts, and all of them where they are asked for.

import KedgeCore
import KedgeRepository

/// Reads a repository's proofs.
struct ProofSurvey {
    struct Result {
        fileprivate var standings: [Label: ProofStanding] = [:]
        /// Oldest first; nil where they were not asked for.
        fileprivate(set) var proofs: [ProofRecord]?
        fileprivate(set) var unreadable: [UnreadableRecord] = []

        func standing(of record: CommitRecord) -> ProofStanding { standings[record.label] ?? ProofStanding() }
    }

    private let catalog: ProofCatalog
    private let listsAll: Bool

    init(_ cluster: ClusterRepository, listsAll: Bool) {
        catalog = ProofCatalog(cluster)
        self.listsAll = listsAll
    }

    /// Opens the proofs that decide, or all of them. Throws what reading throws where no proof is to blame.
    func run(_ backups: [CommitRecord]) throws(KedgeError) -> Result {
        var result = Result()
        let (names, strangers) = try catalog.names()
        for stranger in strangers {
            result.unreadable.append(
                UnreadableRecord(
                    name: stranger.text,
                    error: KedgeError(
                        .damaged, "object \"\(stranger)\" lies among the proofs and is none",
                        hint: "Find out who put it there; kedge does not remove it.")))
        }
        if listsAll {
            let listing = try catalog.open(names.values.flatMap { $0 })
            result.unreadable += listing.unreadable
            result.proofs = listing.proofs
            for backup in backups {
                result.standings[backup.label] = ProofStanding(
                    of: backup.label, manifest: backup.manifest,
                    repositoryID: catalog.cluster.repository.identity.id, proofs: listing.proofs)
            }
        } else {
            for backup in backups {
                let (standing, unreadable) = try catalog.standing(of: backup, names[backup.label] ?? [])
                result.standings[backup.label] = standing
                result.unreadable += unreadable
            }
        }
        return result
    }
}

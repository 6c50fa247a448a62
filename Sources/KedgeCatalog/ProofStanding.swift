// What counts as proven for a backup. Pure.
//
//  1. A proof counts only if it was opened, and is about this very backup: its label, its repository and its manifest.
//  2. Of each level the newest full proof counts. One that read only a sample can fail, but never proves anything.
//  3. A later failure of either level withdraws what was proven before it; at the same second the failure is later.
//  4. A failure stays open until a full proof of its own level passes after it.
//  5. A drill may fail on what a verification called sound. While its failure is open, a verification counts only if
//     all that it relies on was read after it.
//
// What is later is told by the ends of proofs, which `ProofCatalog.put` keeps in the order in which they were stored:
// the hosts that verify and drill may have clocks of their own.

package import KedgeCore

/// What the proofs say of one backup.
package struct ProofStanding: Hashable, Sendable {
    /// The newest drill, if it passed and nothing failed since.
    package let drilled: ProofRecord?
    /// The newest full verification, if it passed and nothing failed since.
    package let verified: ProofRecord?
    /// The failures that no later pass of their level has answered, the newest first; of two at one second the drill's.
    package let failures: [ProofRecord]
    /// The newest full proof of each level that passed, also where something failed since: then it is history, no
    /// evidence.
    package let lastDrilled: ProofRecord?
    package let lastVerified: ProofRecord?

    package init(
        drilled: ProofRecord? = nil, verified: ProofRecord? = nil, failures: [ProofRecord] = [],
        lastDrilled: ProofRecord? = nil, lastVerified: ProofRecord? = nil
    ) {
        self.drilled = drilled
        self.verified = verified
        self.failures = failures
        self.lastDrilled = lastDrilled ?? drilled
        self.lastVerified = lastVerified ?? verified
    }

    /// The newest failure.
    package var failure: ProofRecord? { failures.first }

    /// The proof that counts: a drill proves more than a verification, however old.
    package var proof: ProofRecord? { drilled ?? verified }

    /// What `proofs`, in any order, say of the backup with this label and manifest in this repository.
    package init(
        of label: Label, manifest: CommitRecord.ManifestSeal, repositoryID: RandomID,
        proofs: some Sequence<ProofRecord>
    ) {
        let counting = proofs.filter {
            $0.label == label && $0.manifest == manifest && $0.repositoryID == repositoryID
                && !($0.isSample && $0.result == .passed)
        }
        let failures = counting.filter { $0.result == .failed }
        let lastFailure = failures.map(\.name.time).max()
        func newestPass(_ level: ProofLevel) -> ProofRecord? {
            counting.filter { $0.level == level && $0.result == .passed }.max { $0.finished < $1.finished }
        }
        func standing(_ level: ProofLevel) -> ProofRecord? {
            guard let pass = newestPass(level) else { return nil }
            if let lastFailure, lastFailure >= pass.name.time { return nil }
            return pass
        }
        let drill = newestPass(.drilled)
        let verification = newestPass(.verified)
        let open = failures.filter { failure in
            let answer = failure.level == .drilled ? drill : verification
            return answer.map { $0.name.time <= failure.name.time } ?? true
        }
        let lastFailedDrill = open.filter { $0.level == .drilled }.map(\.finished).max()
        drilled = standing(.drilled)
        verified = standing(.verified).flatMap { pass in
            let since = pass.readSince ?? pass.started
            return since >= lastFailedDrill ?? since ? pass : nil
        }
        lastDrilled = drill
        lastVerified = verification
        self.failures = open.sorted {
            ($0.finished, $0.level == .drilled ? 1 : 0) > ($1.finished, $1.level == .drilled ? 1 : 0)
        }
    }
}

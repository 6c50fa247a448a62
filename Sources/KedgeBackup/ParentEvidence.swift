// What proofs say against building on a backup: a delta takes what did not change from its parent, so that it is as
// broken as its parent is. Deciding is pure.
//
// 1. A failure that nothing has answered counts, of the parent and of every backup that it shares packs with or builds
//    on: what they failed over may lie in those packs.
// 2. A failure says nothing against the stored data where only the user's own checks failed in a drill, or where a
//    verification read everything but WAL soundly. Any other counts: a full backup is the safe side.

import KedgeCatalog
import KedgeCore

/// The objections of proofs to a parent.
enum ParentEvidence {
    /// The parent, and the backups whose failures are failures of what it consists of, in the order of `backups`.
    static func related(to parent: CommitRecord, among backups: [CommitRecord]) -> [CommitRecord] {
        var ancestors: Set<Label> = [parent.label]
        var next = parent.parent
        while let label = next, ancestors.insert(label).inserted {
            next = backups.first { $0.label == label }?.parent
        }
        let packs = Set(parent.packs.map(\.id))
        return backups.filter { ancestors.contains($0.label) || $0.packs.contains { packs.contains($0.id) } }
    }

    /// Why the backup with these open failures is nothing to build on, as a clause; nil where nothing says so.
    static func objection(_ failures: [ProofRecord]) -> String? {
        guard let failure = failures.first(where: concernsData) else { return nil }
        let failed = failure.checks.filter { $0.result == .failed }.prefix(3).map { check in
            [check.name, check.subject].compactMap { $0 }.joined(separator: ": ")
        }
        let what = failed.isEmpty ? "" : " (\(failed.joined(separator: "; ")))"
        let run = failure.level == .drilled ? "drill" : "verification"
        return "backup \(failure.label) failed its \(run) at \(failure.name.time)\(what)"
    }

    private static func concernsData(_ failure: ProofRecord) -> Bool {
        let failed = Set(failure.checks.filter { $0.result == .failed }.map(\.name))
        let harmless =
            switch failure.level {
            case .drilled: "assertion"
            // Damaged files of WAL are findings of their own besides the verdict "wal".
            case .verified: "wal"
            }
        return failed != [harmless]
    }
}

// All packs that the backups refer to, several at a time, each once.

import KedgeCatalog
import KedgeCore
import KedgeRepository
import Synchronization

/// Reads packs.
struct PackPass {
    /// What is known of the packs.
    struct Result: Sendable {
        /// Those that something is wrong with, or that hold pages that are.
        var remarkable: [RandomID: PackVerdict] = [:]
        /// Those read whole in this run, with their sizes.
        var sound: [RandomID: UInt64] = [:]
        /// Those that were read before, and when.
        var remembered: [RandomID: Timestamp] = [:]
    }

    private let verifier: RepositoryVerifier

    init(_ verifier: RepositoryVerifier) { self.verifier = verifier }

    private struct Job: Sendable {
        let id: RandomID
        let bytes: UInt64
        let rule: PageRule?
        let users: [CommitRecord]
    }

    /// Reads what the plan says. Throws what reading throws where no pack is to blame.
    func run(
        _ backups: [CommitRecord], _ listing: RepositoryListing, _ plan: VerifyPlan, _ totals: inout VerifyTotals
    ) throws(KedgeError) -> Result {
        let cluster = verifier.cluster
        var result = Result()
        var jobs: [Job] = []
        let users = users(of: backups)
        for (id, rule) in referred(backups).sorted(by: { $0.key < $1.key }) {
            guard let bytes = listing.packs[id] else {
                let error = missingPack(id, cluster)
                add(id, error, users)
                result.remarkable[id] = PackVerdict(error: error)
                continue
            }
            let decision = plan.decision(pack: id, bytes: bytes)
            totals.packs.add(decision, bytes: bytes)
            if case .remembered(let since) = decision { result.remembered[id] = since }
            guard case .read = decision else { continue }
            let own = Set(users[id] ?? [])
            jobs.append(Job(id: id, bytes: bytes, rule: rule, users: backups.filter { own.contains($0.label) }))
        }
        verifier.tools.progress.begin("reading packs", totalBytes: jobs.reduce(0) { $0 + $1.bytes })
        for (job, verdict) in zip(jobs, try read(jobs)) {
            if verdict.isRemarkable { result.remarkable[job.id] = verdict }
            // Whoever remembers a pack asks no more which of its pages fail: those have to be read each time.
            if verdict.isSound && !verdict.hasFailingPages { result.sound[job.id] = job.bytes }
            if let error = verdict.error ?? verdict.frameError {
                add(job.id, error, users, lost: verdict.lostFrames.count)
            }
        }
        return result
    }

    /// The packs of these backups, and how to check the pages in each.
    private func referred(_ backups: [CommitRecord]) -> [RandomID: PageRule?] {
        var packs: [RandomID: PageRule?] = [:]
        for backup in backups {
            let rule = PageRule(backup.server)
            for pack in backup.packs where (packs[pack.id] ?? nil) == nil { packs[pack.id] = .some(rule) }
        }
        return packs
    }

    /// The backups that refer to each pack. What is wrong with it is told in the proofs of all of them.
    private func users(of backups: [CommitRecord]) -> [RandomID: [Label]] {
        var users: [RandomID: [Label]] = [:]
        for backup in backups {
            for pack in backup.packs { users[pack.id, default: []].append(backup.label) }
        }
        return users
    }

    private func read(_ jobs: [Job]) throws(KedgeError) -> [PackVerdict] {
        let verdicts = Mutex([PackVerdict](repeating: PackVerdict(), count: jobs.count))
        let (cluster, errors, rate, tools) = (verifier.cluster, verifier.errors, verifier.rate, verifier.tools)
        let budget = PageBudget(verifier.options.pageLimit)
        try parallelFor(
            count: jobs.count, threads: verifier.options.workers, name: "verify-pack",
            makeState: { () throws(KedgeError) in
                PackCheck(
                    cluster, errors, budget, rate: rate, progress: tools.progress, interruption: tools.interruption)
            },
            body: { (check, index) throws(KedgeError) in
                let job = jobs[index]
                let verdict = try check.check(job.id, bytes: job.bytes, pages: job.rule, of: job.users)
                verdicts.withLock { $0[index] = verdict }
            })
        return verdicts.withLock { $0 }
    }

    private func add(_ id: RandomID, _ error: KedgeError, _ users: [RandomID: [Label]], lost frames: Int = 0) {
        var error = error
        if frames > 1 {
            error.detail = (error.detail.map { $0 + " " } ?? "") + "\(frames) of its frames are lost."
        }
        verifier.findings.add(
            VerifyFinding(
                kind: .init(of: error), object: verifier.fullName(ClusterLayout.pack(id)), error: error,
                backups: (users[id] ?? []).sorted()))
    }
}

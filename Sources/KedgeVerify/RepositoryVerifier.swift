// One repository, verified step by step.
//
// Order: commit records before the names of packs and WAL, so that a backup that is committed meanwhile is either seen
// with all that it needs or not at all. At the end the commit records are looked up again: what belonged to backups
// that expire removed meanwhile is no damage.

import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import Synchronization

/// Verifies one repository.
struct RepositoryVerifier {
    let cluster: ClusterRepository
    let options: Verify.Options
    let tools: Verify.Tools
    let rate: ReadRate?
    let findings = Findings()
    let errors: ReadErrors

    init(_ cluster: ClusterRepository, _ options: Verify.Options, _ tools: Verify.Tools, _ rate: ReadRate?) {
        self.cluster = cluster
        self.options = options
        self.tools = tools
        self.rate = rate
        errors = ReadErrors(cluster.repository.store)
    }

    private var progress: WorkProgress { tools.progress }
    private var interruption: Interruption { tools.interruption }

    /// Throws `interrupted`, `not-found` for a backup that there is none of in the only repository, and what reading
    /// throws where no object is to blame. No proof was stored then, unless storing one is what failed.
    func run() throws(KedgeError) -> RepositoryVerification {
        let started = tools.time.now()
        let clock = tools.time.monotonicNanoseconds()
        progress.begin("listing")
        let (backups, absent) = try selectBackups()
        // Of what was asked for nothing is here, and what else is here nobody wants to know.
        guard !backups.isEmpty || absent.isEmpty else {
            return verification(scope(started), started, absent: absent)
        }
        let listing = try RepositoryListing(cluster, interruption: interruption)
        let scope = scope(started)
        var since: Timestamp?
        if case .due(let time) = scope { since = time }
        let memory = try RecordCheck(cluster, findings, errors, interruption).check(
            listing, backups, now: started, since: since)
        let plan = VerifyPlan(scope, memory: memory, packs: Set(backups.flatMap { $0.packs.map(\.id) }))
        var totals = VerifyTotals()
        let packs = try PackPass(self).run(backups, listing, plan, &totals)
        let manifests = try checkManifests(backups, packs, plan)
        let wal = try WALPass(self).run(backups, listing, plan, &totals)
        let removed = try removedMeanwhile(backups)
        findings.forget(removed)
        try reportSurplus(listing, removed)
        totals.milliseconds = (tools.time.monotonicNanoseconds() - clock) / 1_000_000
        let judge = BackupJudge(self, plan: plan, started: started, totals: totals, packs: packs, wal: wal)
        var verified: [BackupVerification] = []
        let remaining = zip(backups, manifests).filter { !removed.contains($0.0.label) }
        for (record, manifest) in remaining { verified.append(try judge.judge(record, manifest)) }
        if !removed.isEmpty { findings.forgetUnneededWAL() }
        try interruption.checkpoint()
        let proofError: KedgeError?
        (verified, proofError) = try store(verified)
        return verification(
            plan.scope, started, verified, totals, removed: removed.sorted(), absent: absent, proofError)
    }

    private func verification(
        _ scope: VerifyScope, _ started: Timestamp, _ backups: [BackupVerification] = [],
        _ totals: VerifyTotals = VerifyTotals(), removed: [Label] = [], absent: [Label], _ proofError: KedgeError? = nil
    ) -> RepositoryVerification {
        let (found, dropped) = findings.all
        return RepositoryVerification(
            name: cluster.repository.name, location: cluster.repository.store.location, scope: scope,
            started: started, backups: backups, findings: found, unlistedFindings: dropped, totals: totals,
            hasUnread: findings.hasUnread, removed: removed, absent: absent, proofError: proofError)
    }

    /// The full name of an object, as findings give it.
    func fullName(_ relative: ObjectName) -> String { cluster.name(relative).text }

    // MARK: - Choosing

    /// The backups to verify, and the labels of those that were asked for and that another repository may have.
    private func selectBackups() throws(KedgeError) -> (backups: [CommitRecord], absent: [Label]) {
        let listing = try listBackups()
        for record in listing.unreadable {
            let object = ClusterLayout.commitRecord(label: record.name).map(fullName) ?? record.name
            guard let label = Label(record.name) else {
                findings.add(VerifyFinding(kind: .foreign, object: object, error: record.error))
                continue
            }
            let kind = VerifyFinding.Kind(of: record.error)
            findings.add(
                VerifyFinding(
                    kind: kind, object: object, error: record.error, backups: [label],
                    costs: [kind.isDamage ? "Backup \(label) is lost." : Self.unknown(label)]))
        }
        guard !options.labels.isEmpty else { return (listing.backups, []) }
        var chosen: [CommitRecord] = []
        var absent: [Label] = []
        for label in options.labels
        where !chosen.contains(where: { $0.label == label }) && !absent.contains(label) {
            do throws(KedgeError) {
                chosen.append(try listing.backup(label))
            } catch  where error.code == .notFound && options.repositories.count > 1 {
                absent.append(label)
            }
        }
        return (chosen, absent)
    }

    private func listBackups() throws(KedgeError) -> CatalogListing {
        try BackupCatalog(cluster).list { (error) throws(KedgeError) in
            _ = try errors.tolerate(error)
            return true
        }
    }

    private static func unknown(_ label: Label) -> String { "Nobody can tell whether backup \(label) restores." }

    private func scope(_ now: Timestamp) -> VerifyScope {
        switch options.reading {
        case .full: .full
        case .notWithin(let duration): .due(since: now.adding(seconds: -duration.components.seconds))
        case .sample(let parts): .sample(partsPerMillion: parts, seed: tools.random.next())
        }
    }

    // MARK: - Manifests

    /// How many manifests are read side by side: each takes the memory of one of its parts.
    private static let manifestsTogether = 16

    private func checkManifests(
        _ backups: [CommitRecord], _ packs: PackPass.Result, _ plan: VerifyPlan
    ) throws(KedgeError) -> [ManifestVerdict] {
        progress.begin("comparing files")
        let contents = PackContentsCache(cluster)
        let verdicts = Mutex([ManifestVerdict](repeating: ManifestVerdict(), count: backups.count))
        let (cluster, errors) = (cluster, errors)
        let (rate, progress, interruption) = (rate, progress, interruption)
        // Neighbours share most of their frames.
        let together = max(1, min(Self.manifestsTogether, (backups.count + options.workers - 1) / options.workers))
        try parallelFor(
            count: (backups.count + together - 1) / together, threads: options.workers, name: "verify-manifest",
            makeState: { () throws(KedgeError) in
                ManifestCheck(
                    cluster, errors, contents: contents, verdicts: packs.remarkable, rate: rate, progress: progress,
                    interruption: interruption)
            },
            body: { (check, group) throws(KedgeError) in
                let range = group * together..<min((group + 1) * together, backups.count)
                let found = try check.check(
                    backups[range].map { record in
                        var reads = false
                        if case .read = plan.decision(backup: record) { reads = true }
                        return (record, reads)
                    })
                verdicts.withLock { $0.replaceSubrange(range, with: found) }
            })
        let result = verdicts.withLock { $0 }
        for (record, verdict) in zip(backups, result) { report(record, verdict) }
        return result
    }

    private func report(_ record: CommitRecord, _ verdict: ManifestVerdict) {
        let label = record.label
        if let error = verdict.error {
            let object = verdict.errorObject.map(fullName) ?? "\(label)"
            let cost = "Backup \(label) does not restore: its manifest is lost."
            add(object, error, label, error.code.isDamageOfTheObject ? cost : Self.unknown(label))
        }
        for file in verdict.unread { add(fullName(file.object), file.error, label, Self.unknown(label)) }
        for file in verdict.files {
            add(fullName(file.object), file.error, label, "Backup \(label) lacks \(file.path).")
        }
        let manifest = ClusterLayout.manifest(label: label.text).map(fullName) ?? "\(label)"
        if verdict.omitsPages, verdict.pageCount == 0 {
            let error = KedgeError(
                .pageDamaged, "backup \"\(label)\" may hold damaged pages",
                detail:
                    "Its packs hold more pages with a wrong checksum than the \(options.pageLimit) that are looked at.",
                hint: "Name this backup alone with \"--backup\", and take a new full backup.")
            findings.add(
                VerifyFinding(
                    kind: .damaged, object: manifest, error: error, backups: [label], costs: [Self.unknown(label)]))
        }
        if verdict.pageCount > 0, let page = verdict.pages.first {
            findings.add(
                VerifyFinding(
                    kind: .damaged, object: manifest,
                    error: KedgeError(
                        .pageDamaged,
                        "backup \"\(label)\" holds \(verdict.pageCount) "
                            + (verdict.omitsPages ? "or more " : "") + "damaged page(s)",
                        detail: "The first is \(page.path), block \(page.block): its checksum does not fit, and the "
                            + "backup does not record it.",
                        hint: "Restore an older backup, and report this."), backups: [label],
                    costs: ["Backup \(label) restores these pages as they are."]))
        }
        if record.health.damagedPageCount > 0 {
            let pages = record.health.damagedPages.prefix(3).map { "\($0.path), block \($0.block)" }
            let commit = ClusterLayout.commitRecord(label: label.text).map(fullName) ?? "\(label)"
            findings.add(
                VerifyFinding(
                    kind: .recorded, object: commit,
                    error: KedgeError(
                        .pageDamaged,
                        "backup \"\(label)\" recorded \(record.health.damagedPageCount) damaged page(s) of the server",
                        detail: "The checksum did not fit in \(pages.joined(separator: "; ")).",
                        hint: "Check the server's disk, and keep an older backup without them."), backups: [label],
                    costs: ["Backup \(label) restores these pages as they were."]))
        }
    }

    private func add(_ object: String, _ error: KedgeError, _ label: Label, _ cost: String) {
        findings.add(
            VerifyFinding(
                kind: .init(of: error), object: object, error: error, backups: [label], costs: [cost]))
    }

    // MARK: - The end

    private func removedMeanwhile(_ backups: [CommitRecord]) throws(KedgeError) -> Set<Label> {
        var removed: Set<Label> = []
        for backup in backups {
            guard let name = ClusterLayout.commitRecord(label: backup.label.text) else { continue }
            do throws(KedgeError) {
                if try !cluster.repository.store.contains(cluster.name(name)) { removed.insert(backup.label) }
            } catch {
                let error = try errors.tolerate(error)
                add(fullName(name), error, backup.label, Self.unknown(backup.label))
            }
        }
        return removed
    }

    /// What nobody refers to. Only told where all backups are known, those committed or removed meanwhile included.
    private func reportSurplus(_ listing: RepositoryListing, _ removed: Set<Label>) throws(KedgeError) {
        let present = try listBackups()
        for record in present.unreadable {
            let object = ClusterLayout.commitRecord(label: record.name).map(fullName) ?? record.name
            findings.add(
                VerifyFinding(
                    kind: .init(of: record.error), object: object, error: record.error,
                    costs: ["Nobody can tell which objects no backup refers to."]))
        }
        guard present.unreadable.isEmpty, removed.isEmpty else { return }
        let labels = Set(present.backups.map(\.label))
        var referred: Set<RandomID> = []
        for backup in present.backups { referred.formUnion(backup.packs.map(\.id)) }
        let hint =
            present.backups.isEmpty
            ? "Backups that were interrupted, or are under way, leave such objects.  If there were backups, their "
                + "commit records are lost: put them back from a mirror of the repository or an older version in its "
                + "store."
            : "Backups that were interrupted, or are under way, leave such objects; kedge removes them in time."
        for (id, bytes) in listing.packs.sorted(by: { $0.key < $1.key }) where !referred.contains(id) {
            surplus(
                ClusterLayout.pack(id),
                KedgeError(.notFound, "no backup refers to pack \"\(id)\" of \(bytes) bytes", hint: hint))
        }
        for label in listing.manifests where !labels.contains(label) {
            guard let name = ClusterLayout.manifest(label: label.text) else { continue }
            surplus(name, KedgeError(.notFound, "there is a manifest of \"\(label)\", but no such backup", hint: hint))
        }
        for label in listing.intents {
            guard let name = ClusterLayout.intent(label: label.text) else { continue }
            surplus(
                name,
                KedgeError(
                    .notFound,
                    labels.contains(label)
                        ? "backup \"\(label)\" is committed, and its intent is still there"
                        : "backup \"\(label)\" is under way, or was interrupted", hint: hint))
        }
    }

    private func surplus(_ name: ObjectName, _ error: KedgeError) {
        // What is damaged besides was told before.
        guard !findings.contains(fullName(name)) else { return }
        findings.add(VerifyFinding(kind: .surplus, object: fullName(name), error: error))
    }

    /// Stores the proofs. What was found is told also where that fails.
    private func store(
        _ verified: [BackupVerification]
    ) throws(KedgeError) -> (stored: [BackupVerification], error: KedgeError?) {
        let catalog = ProofCatalog(cluster)
        var stored = verified
        for index in stored.indices { stored[index].proof = nil }
        do throws(KedgeError) {
            // Of all backups: they share packs and WAL.
            let latest = try catalog.latestEnd()
            for index in verified.indices {
                guard let proof = verified[index].proof else { continue }
                stored[index].proof = try catalog.put(proof, after: latest)
            }
        } catch {
            guard error.code != .interrupted else { throw error }
            return (stored, error)
        }
        return (stored, nil)
    }
}

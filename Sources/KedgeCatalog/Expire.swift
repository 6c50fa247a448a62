// `kedge expire`: applies retention to one cluster in one repository. `RetentionPlan` and `WALRetention` decide.
//
// Order of writes (docs/design.md section 4, "Removal"):
//   1. condemned marks → everything is looked at again; what something needs loses its mark
//   2. of marks older than the grace period: removing marks → everything is looked at again → commit record → manifest
//      → condemned mark → removing mark
//   3. what nothing refers to any more and nobody writes now: packs, manifests, WAL (ExpireSweep.swift)
// Whatever this process dies of, a backup that has a commit record has all that it needs; the next run goes on.

package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Applies retention.
package struct Expire: Sendable {
    /// What to do, and how.
    package struct Options: Sendable {
        package var clusterName: String
        package var repository: RepositorySource
        package var rules: RetentionRules
        /// A backup to remove whatever the rules say.
        package var byHand: Label?
        /// Nothing is written.
        package var isDryRun: Bool
        package var process: ProcessIdentity

        package init(
            clusterName: String, repository: RepositorySource, rules: RetentionRules, byHand: Label? = nil,
            isDryRun: Bool = false, process: ProcessIdentity
        ) {
            self.clusterName = clusterName
            self.repository = repository
            self.rules = rules
            self.byHand = byHand
            self.isDryRun = isDryRun
            self.process = process
        }
    }

    /// What was decided and what was done.
    package struct Outcome: Sendable {
        /// The plan that was carried out, or would be.
        package internal(set) var plan: RetentionPlan
        package internal(set) var windows: RetentionWindows
        /// Newly marked.
        package internal(set) var condemned: [Label] = []
        /// Marks that were taken away again, with the reason.
        package internal(set) var withdrawn: [(label: Label, why: String)] = []
        /// Gone for good.
        package internal(set) var removed: [Label] = []
        /// Still to be removed, in so many seconds; those that were newly marked among them.
        package internal(set) var pending: [(label: Label, seconds: Int64)] = []
        /// Those among them that an expire before has begun to remove: whether it goes on nobody knows.
        package internal(set) var begun: Set<Label> = []
        package internal(set) var swept = ExpireSweep.Result()
        /// What the plan would free; nil where it was carried out.
        package internal(set) var forecast: ExpireForecast?
        /// Sentences about what somebody should know.
        package internal(set) var warnings: [String] = []
        /// Objects that could not be removed; the next run tries again.
        package internal(set) var failures: [RemoveFailure] = []
        package let isDryRun: Bool
    }

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource
    private let interruption: Interruption

    package init(_ options: Options, random: any RandomSource, time: any TimeSource, interruption: Interruption) {
        self.options = options
        self.random = random
        self.time = time
        self.interruption = interruption
    }

    /// Throws `locked` where another expire of this cluster runs, `not-found` and `not-supported` for a backup that
    /// was named and can't go, and what looking and removing throw. What was marked or removed by then stays so.
    package func run() throws(KedgeError) -> Outcome {
        let use: RepositoryUse = options.isDryRun ? .read : .expire
        let cluster = try options.repository.openCluster(options.clusterName, for: use, random: random)
        guard !options.isDryRun else {
            let now = time.now()
            let survey = RetentionSurvey(cluster, interruption: interruption) { _ in now }
            let facts = try survey.facts()
            let plan = try plan(facts)
            var outcome = try forecast(facts, plan, survey, cluster)
            outcome.forecast = try ExpireForecast(facts, plan, in: cluster, interruption)
            return outcome
        }
        let (lease, warning) = try takeLease(cluster)
        do throws(KedgeError) {
            var outcome = try carryOut(cluster, lease)
            if let warning { outcome.warnings.append(warning) }
            outcome.warnings += release(lease)
            return outcome
        } catch {
            // Whatever there is to say about the lease, the error says more.
            _ = release(lease)
            throw error
        }
    }

    // MARK: - Deciding

    private func plan(_ facts: RetentionFacts) throws(KedgeError) -> RetentionPlan {
        let plan = RetentionPlan(facts, options.rules, byHand: Set([options.byHand].compactMap { $0 }))
        guard let label = options.byHand else { return plan }
        guard let item = plan.item(label) else {
            throw KedgeError(
                .notFound, "could not find backup \"\(label)\"",
                detail: "The repository holds no commit record of that label that can be read.",
                hint: "Run \"kedge info\" to see the backups that there are.")
        }
        guard item.isKept else { return plan }
        throw KedgeError(
            .notSupported, "cannot remove backup \"\(label)\": it is needed",
            detail: "It is \(item.reasons.map(\.text).joined(separator: ", ")).",
            hint: "Run \"kedge unpin\" if it is pinned; take a new backup, or prove one, if it is the newest.")
    }

    /// What carrying the plan out would come to.
    private func forecast(
        _ facts: RetentionFacts, _ plan: RetentionPlan, _ survey: RetentionSurvey, _ cluster: ClusterRepository
    ) throws(KedgeError) -> Outcome {
        var outcome = Outcome(plan: plan, windows: RetentionWindows(facts, plan), isDryRun: true)
        guard plan.blocks.isEmpty else { return outcome }
        outcome.condemned = plan.removed.filter(needsMark).map(\.label)
        for item in plan.items where item.isKept && item.backup.mark?.mark != nil {
            outcome.withdrawn.append((item.label, item.text))
        }
        outcome.removed = try due(plan.removed, facts.now, survey, &outcome).map(\.label)
        outcome.removed += try unfinished(cluster)
        let sweep = ExpireSweep(
            cluster, rules: options.rules, hostName: options.process.hostName, isDryRun: true,
            interruption: interruption)
        (outcome.swept, _) = try sweep.run(survey, without: Set(outcome.removed))
        return outcome
    }

    /// Whether a mark has yet to be written: there is none, or one of a rule's that later rules would take away, while
    /// somebody asks for the removal now. The grace period then begins anew.
    private func needsMark(_ item: RetentionPlan.Item) -> Bool {
        item.backup.mark.map { item.isByHand && $0.mark?.isByHand == false } ?? true
    }

    /// Of a mark that is yet to be written: the whole grace period.
    private func secondsLeft(_ mark: MarkSeen?, _ now: Timestamp) -> Int64 {
        guard let mark else { return options.rules.graceSeconds }
        return options.rules.graceSeconds - (now.microseconds - mark.storedAt.microseconds) / 1_000_000
    }

    // MARK: - Doing

    private func carryOut(_ cluster: ClusterRepository, _ lease: Lease?) throws(KedgeError) -> Outcome {
        let survey = RetentionSurvey(cluster, interruption: interruption)
        let marks = RetentionCatalog(cluster)
        var facts = try survey.facts()
        var plan = try plan(facts)
        var outcome = Outcome(plan: plan, windows: RetentionWindows(facts, plan), isDryRun: false)
        guard plan.blocks.isEmpty else { return outcome }

        let unmarked = plan.removed.filter(needsMark)
        for item in unmarked {
            if item.backup.mark != nil {
                try marks.removeMark(item.label, .pending)
            } else if item.backup.removalHasBegun {
                // Of a removal that was taken back: this is a new one.
                try marks.removeMark(item.label, .removing)
            }
            try marks.put(mark(item, .pending))
        }
        if !unmarked.isEmpty {
            facts = try survey.facts()
            plan = RetentionPlan(facts, options.rules)
        }
        for item in plan.items where item.isKept && item.backup.mark?.mark != nil {
            try marks.removeMark(item.label, .pending)
            outcome.withdrawn.append((item.label, item.text))
        }
        outcome.condemned = unmarked.map(\.label).filter { label in plan.item(label)?.backup.mark != nil }
            .filter { label in !outcome.withdrawn.contains { $0.label == label } }

        try removeDue(facts, plan, cluster, survey, lease, &outcome)
        guard try isStillOurs(lease, &outcome) else { return outcome }
        try finishRemovals(cluster, &outcome)
        try interruption.checkpoint()
        let sweep = ExpireSweep(
            cluster, rules: options.rules, hostName: options.process.hostName, interruption: interruption)
        (outcome.swept, outcome.failures) = try sweep.run(survey)
        return outcome
    }

    private func mark(_ item: RetentionPlan.Item, _ stage: CondemnedMark.Stage) -> CondemnedMark {
        CondemnedMark(
            label: item.label, stage: stage, isByHand: item.isByHand, reason: item.text, condemnedAt: time.now(),
            hostName: options.process.hostName)
    }

    /// Removes the backups whose grace period is over.
    private func removeDue(
        _ facts: RetentionFacts, _ plan: RetentionPlan, _ cluster: ClusterRepository, _ survey: RetentionSurvey,
        _ lease: Lease?, _ outcome: inout Outcome
    ) throws(KedgeError) {
        // One whose mark is away by now was taken back.
        let due = try due(plan.removed.filter { $0.backup.mark != nil }, facts.now, survey, &outcome)
        let marks = RetentionCatalog(cluster)
        guard !due.isEmpty else { return }
        for item in due { try marks.put(mark(item, .removing)) }
        let last = try survey.facts()
        let verdict = RetentionPlan(last, options.rules)
        for item in due {
            try interruption.checkpoint()
            guard let now = verdict.item(item.label) else { continue }
            if now.isKept || now.backup.mark == nil {
                try marks.removeMark(item.label, .pending)
                try marks.removeMark(item.label, .removing)
                outcome.withdrawn.append((item.label, now.isKept ? now.text : "taken back"))
                continue
            }
            guard try isStillOurs(lease, &outcome) else { return }
            try marks.removeCommitRecord(item.label)
            outcome.removed.append(item.label)
        }
    }

    /// Those whose grace period is over; of the others it is noted how long they stay.
    private func due(
        _ items: [RetentionPlan.Item], _ now: Timestamp, _ survey: RetentionSurvey, _ outcome: inout Outcome
    ) throws(KedgeError) -> [RetentionPlan.Item] {
        let leased = try survey.leasedLabels(now)
        var due: [RetentionPlan.Item] = []
        for item in items {
            let left = secondsLeft(needsMark(item) ? nil : item.backup.mark, now)
            if item.backup.removalHasBegun, item.backup.mark != nil { outcome.begun.insert(item.label) }
            if left > 0 {
                outcome.pending.append((item.label, left))
            } else if leased.contains(item.label.text) {
                outcome.pending.append((item.label, 0))
                outcome.warnings.append("Backup \(item.label) stays for now: somebody works on it.")
            } else {
                due.append(item)
            }
        }
        return due
    }

    /// The backups whose commit record was removed by an expire that came no further.
    private func unfinished(_ cluster: ClusterRepository) throws(KedgeError) -> [Label] {
        let marks = RetentionCatalog(cluster)
        var labels: [Label] = []
        for label in Set(try marks.marks(.pending).keys).union(try marks.marks(.removing).keys).sorted()
        where try !BackupCatalog(cluster).isCommitted(label) {
            labels.append(label)
        }
        return labels
    }

    /// Takes away what is left of backups whose commit record is gone, and the marks of removals that were taken back.
    private func finishRemovals(_ cluster: ClusterRepository, _ outcome: inout Outcome) throws(KedgeError) {
        let marks = RetentionCatalog(cluster)
        // Marks first: a backup has its commit record before it can be marked.
        let pending = Set(try marks.marks(.pending).keys)
        let removing = Set(try marks.marks(.removing).keys)
        let pins = try marks.pins()
        for label in pending.union(removing).sorted() {
            guard let name = ClusterLayout.commitRecord(label: label.text) else { continue }
            if try cluster.repository.store.contains(cluster.name(name)) {
                if !pending.contains(label) { try marks.removeMark(label, .removing) }
                continue
            }
            try marks.removeManifest(label)
            // One that came too late.
            if pins.contains(label) { try marks.removePin(label) }
            try marks.removeMark(label, .pending)
            try marks.removeMark(label, .removing)
            if !outcome.removed.contains(label) { outcome.removed.append(label) }
        }
    }

    // MARK: - The lease

    /// Keeps a second host from doing the same; without it nothing is less safe (docs/decisions/0009-leases.md).
    private func takeLease(_ cluster: ClusterRepository) throws(KedgeError) -> (Lease?, String?) {
        do throws(KedgeError) {
            let request = LeaseRequest(operation: "expire", process: options.process, label: nil)
            return (
                try Lease.take(request, in: cluster, progress: WorkProgress().snapshot, time: time), nil
            )
        } catch {
            guard error.code != .locked, error.code != .interrupted else { throw error }
            return (nil, "Retention was applied without a lease: \(error.message).")
        }
    }

    /// Whether no other expire has taken over meanwhile. It may have told somebody that a backup is safe which this one
    /// is about to remove: its look is newer, and the rest is left to it (docs/decisions/0015-removal.md).
    private func isStillOurs(_ lease: Lease?, _ outcome: inout Outcome) throws(KedgeError) -> Bool {
        guard let lease, try !lease.isHeld() else { return true }
        let warning = "Another expire took over from this one, which was silent for too long: the rest is left to it."
        if !outcome.warnings.contains(warning) { outcome.warnings.append(warning) }
        return false
    }

    private func release(_ lease: Lease?) -> [String] {
        do throws(KedgeError) {
            try lease?.release()
            return []
        } catch {
            return ["The lease \"expire\" was not given back, and expires by itself: \(error.message)."]
        }
    }
}

/// The windows in which a cluster can be restored, now and when all that a plan removes is gone.
package struct RetentionWindows: Sendable {
    package struct Window: Hashable, Sendable {
        package let system: SystemIdentifier
        package let timeline: TimelineID
        package let from: LSN
        /// When the oldest backup in it ended, by the server's clock.
        package let fromTime: Timestamp
        /// No record that ends after this can be replayed.
        package let to: LSN
        /// Whether there is, or was, WAL behind that: it is missing, and this is not the end of what was archived.
        package let endsInHole: Bool
        package let backups: Int
    }

    package let before: [Window]
    package let after: [Window]

    package init(_ facts: RetentionFacts, _ plan: RetentionPlan) {
        var before: [Window] = []
        var after: [Window] = []
        for system in facts.systems {
            let own = plan.items.filter { $0.backup.record.server.systemIdentifier == system.identifier }
            before += Self.find(own, system.identifier, system.archive)
            guard let wal = plan.wal(of: system.identifier, facts, isRemoved: { !$0.isKept }) else { continue }
            let left = system.archive.holding(system.archive.inventory.keeping(wal.keeps))
            after += Self.find(own.filter(\.isKept), system.identifier, left)
        }
        self.before = before
        self.after = after
    }

    private static func find(
        _ items: [RetentionPlan.Item], _ system: SystemIdentifier, _ archive: ArchivedWAL
    ) -> [Window] {
        RecoverableWindows.find(
            backups: items.map(\.backup.record), archive: archive,
            damage: ProvenEnds.find(items.map(\.backup.proof), segmentSize: archive.segmentSize)
        ).map { window in
            Window(
                system: system, timeline: window.timeline, from: window.oldest.span.stopLSN,
                fromTime: window.oldest.span.stopTime, to: window.limit, endsInHole: window.endsInHole,
                backups: window.backups.count)
        }
    }
}

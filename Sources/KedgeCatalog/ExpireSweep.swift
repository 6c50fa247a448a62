// Removes what nothing refers to: packs, manifests and WAL of removed backups, what crashes left behind, proofs that
// are too old. Only objects of kinds that are known, under the very names that they have; the rest is never touched.
//
//  1. Packs and manifests are listed first, then intents, then commit records: a backup that is committed meanwhile is
//     seen as one or the other.
//  2. While any intent stands no pack goes: the backup may refer to any of them.
//  3. An intent goes when it is older than the grace period and a day, no lease that is being renewed names it, and it
//     can be read. Its packs stay until the next run, and a backup that was alive all the same looks for its intent
//     right before it commits and again right after, and takes its commit record back (BackupCommit.swift).
//  4. Nothing goes that was stored within the grace period, by the store's clock.
//  5. Without any backup nothing of a backup goes, as no WAL does: the newest one always stays, so that there never was
//     one, or all commit records are lost. Who puts them back finds what they need.

import KedgeCore
import KedgePostgres
import KedgeRepository

/// The sweep of one run.
package struct ExpireSweep {
    /// What was removed.
    package struct Result: Hashable, Sendable {
        package var packs = 0
        package var packBytes: UInt64 = 0
        package var walFiles = 0
        package var walBytes: UInt64 = 0
        /// Of backups that died.
        package var intents: [Label] = []
        package var manifests = 0
        package var proofs = 0
        package var probes = 0
        /// Pieces of writes that were never finished; a dry run does not look for them.
        package var writes = 0

        package init() {}

        package var isEmpty: Bool { self == Result() }
    }

    private let cluster: ClusterRepository
    private let rules: RetentionRules
    private let hostName: String
    /// Nothing is removed or written, and everything that would be is told.
    private let isDryRun: Bool
    private let interruption: Interruption
    private static let day: Int64 = 86_400
    /// How many objects are removed with one call.
    private static let batch = 1000

    init(
        _ cluster: ClusterRepository, rules: RetentionRules, hostName: String, isDryRun: Bool = false,
        interruption: Interruption
    ) {
        self.cluster = cluster
        self.isDryRun = isDryRun
        self.hostName = hostName
        self.rules = rules
        self.interruption = interruption
    }

    private typealias Found = (name: ObjectName, status: ObjectStatus)

    /// Throws what looking throws. What could not be removed is returned. `gone`: backups that a dry run takes for
    /// removed with their manifests.
    func run(_ survey: RetentionSurvey, without gone: Set<Label> = []) throws(KedgeError) -> (Result, [RemoveFailure]) {
        var result = Result()
        var failures: [RemoveFailure] = []
        let packs = try list(ClusterLayout.packs)
        let manifests = try list(ClusterLayout.manifests)
        var facts = try survey.facts()
        facts.backups.removeAll { gone.contains($0.record.label) }
        let plan = RetentionPlan(facts, rules)
        guard plan.blocks.isEmpty else { return (result, failures) }
        let committed = Set(facts.backups.map(\.record.label))
        let hasBackups = !committed.isEmpty

        let dead = facts.running.filter { isDead($0, facts.now) }
        let alive = try remove(dead.compactMap { ClusterLayout.intent(label: $0.label.text) })
        failures += alive
        let left = Set(alive.map(\.name))
        result.intents = dead.map(\.label).filter { label in
            ClusterLayout.intent(label: label.text).map { !left.contains(cluster.name($0)) } ?? false
        }

        if facts.running.isEmpty && hasBackups {
            let referred = Set(facts.backups.flatMap { $0.record.packs.map { ClusterLayout.pack($0.id) } })
            let unused = packs.filter { pack in
                !referred.contains(pack.name) && Self.isPack(pack.name) && isOld(pack.status, facts.now)
            }
            let gone = try remove(unused, &failures)
            result.packs = gone.count
            result.packBytes = gone.reduce(0) { $0 &+ $1.status.sizeBytes }
        }
        let underWay = Set(facts.running.map(\.label))
        let orphans = manifests.filter { manifest in
            guard let label = Self.manifestLabel(manifest.name) else { return false }
            return hasBackups && !committed.contains(label) && !underWay.contains(label) && !gone.contains(label)
                && isOld(manifest.status, facts.now)
        }
        result.manifests = try remove(orphans, &failures).count
        try sweepWAL(plan, facts, &result, &failures)
        try sweepProofs(committed, facts.now, &result, &failures)
        try sweepRemains(facts.now, &result, &failures)
        return (result, failures)
    }

    // MARK: - What may go

    private func isOld(_ status: ObjectStatus, _ now: Timestamp, atLeast seconds: Int64 = 0) -> Bool {
        now.microseconds - status.modified.microseconds >= max(rules.graceSeconds, seconds) * 1_000_000
    }

    private func isDead(_ running: RetentionFacts.Running, _ now: Timestamp) -> Bool {
        let age = (now.microseconds - running.storedAt.microseconds) / 1_000_000
        guard running.intent != nil, !running.hasLease else { return false }
        return age >= max(rules.graceSeconds, Self.day)
    }

    private static func isPack(_ name: ObjectName) -> Bool {
        RandomID(hex: String(name.lastComponent)).map { ClusterLayout.pack($0) == name } ?? false
    }

    private static func manifestLabel(_ name: ObjectName) -> Label? {
        let parts = name.components
        guard parts.count == 3, let label = Label(String(parts[1])),
            ClusterLayout.manifest(label: label.text) == name
        else { return nil }
        return label
    }

    // MARK: - Each kind

    private func sweepWAL(
        _ plan: RetentionPlan, _ facts: RetentionFacts, _ result: inout Result, _ failures: inout [RemoveFailure]
    ) throws(KedgeError) {
        for system in facts.systems {
            let registration = try cluster.registration(of: system.identifier)
            guard let wal = plan.wal(of: system.identifier, facts, isRemoved: { _ in false }) else { continue }
            let archive = WALArchive(cluster, registration)
            var unused: [Found] = []
            var segments: Set<WALSegment> = []
            try archive.forEachFile { (file, status) throws(KedgeError) in
                guard let segment = Self.segment(file.file, registration.walSegmentSize), !wal.keeps(segment),
                    isOld(status, facts.now)
                else { return }
                unused.append((file.name, status))
                segments.insert(segment)
            }
            if !isDryRun {
                try note(segments, in: system.archive.inventory.keeping(wal.keeps), wal, archive, facts.now)
            }
            let gone = try remove(unused, &failures)
            result.walFiles += gone.count
            result.walBytes = gone.reduce(result.walBytes) { $0 &+ $1.status.sizeBytes }
        }
    }

    /// Says which gaps are ours before they come about, and forgets those that nothing lies before any more.
    private func note(
        _ unused: Set<WALSegment>, in left: WALInventory, _ wal: WALRetention, _ archive: WALArchive, _ now: Timestamp
    ) throws(KedgeError) {
        let size = archive.registration.walSegmentSize
        for timeline in left.timelines {
            for gap in timeline.gaps
            where unused.contains(where: { $0.timeline == timeline.id && gap.contains($0.number) }) {
                try archive.put(
                    KnownGap(
                        systemIdentifier: archive.registration.systemIdentifier, timeline: timeline.id, numbers: gap,
                        reason: .expired, createdAt: now, hostName: hostName))
            }
        }
        var old: [ObjectName] = []
        let known = try archive.knownGaps()
        func first(of gap: KnownGap) -> UInt64? { left.timeline(gap.timeline)?.runs.first?.lowerBound }
        // The first of a timeline that were given up: nothing lies before them there, but a backup needs them, or
        // nothing else says that there was such a timeline. Only who acknowledges that ends the warning, and so long as
        // the one record stays the other does (docs/decisions/0021).
        let givenUp = known.filter { gap in
            gap.reason == .givenUp
                && (first(of: gap) == nil
                    || wal.keeps(WALSegment(timeline: gap.timeline, number: gap.numbers.upperBound)))
        }
        for gap in known {
            if let first = first(of: gap), first < gap.numbers.lowerBound { continue }
            if givenUp.contains(where: { $0.timeline == gap.timeline && $0.numbers.overlaps(gap.numbers) }) { continue }
            if let name = gap.name(segmentSize: size) { old.append(name) }
        }
        // What is left of them is of no use and no harm, and goes the next time.
        _ = try remove(old)
    }

    /// The segment that a file holds, whole or not; nil for other files, of which histories are never removed.
    static func segment(_ file: WALFileName, _ segmentSize: UInt64) -> WALSegment? {
        switch file {
        case .segment(let name): WALSegment(fileName: name, segmentSize: segmentSize)
        case .partial(let name): WALSegment(fileName: name.prefix(24), segmentSize: segmentSize)
        case .history, .backup: nil
        }
    }

    private func sweepProofs(
        _ committed: Set<Label>, _ now: Timestamp, _ result: inout Result, _ failures: inout [RemoveFailure]
    ) throws(KedgeError) {
        var old: [Found] = []
        let limit = rules.keepProofsSeconds
        for proof in try list(ClusterLayout.proofs) {
            let parts = proof.name.components
            guard parts.count == 4, let label = Label(String(parts[2])), !committed.contains(label),
                let name = ProofName(label: label, parts[3]), isOld(proof.status, now, atLeast: limit),
                now.microseconds - name.time.microseconds >= limit * 1_000_000
            else { continue }
            old.append(proof)
        }
        result.proofs = try remove(old, &failures).count
    }

    /// Throwaway objects and writes whose writers died.
    private func sweepRemains(
        _ now: Timestamp, _ result: inout Result, _ failures: inout [RemoveFailure]
    ) throws(KedgeError) {
        let probes = try list(ClusterLayout.probes).filter { isOld($0.status, now, atLeast: Self.day) }
        result.probes = try remove(probes, &failures).count
        guard !isDryRun else { return }
        let before = now.adding(seconds: -max(rules.graceSeconds, Self.day))
        result.writes = try cluster.repository.store.removeAbandonedWrites(before: before)
    }

    // MARK: -

    private func list(_ directory: ObjectName) throws(KedgeError) -> [Found] {
        try interruption.checkpoint()
        var found: [Found] = []
        try cluster.forEachObject(below: directory) { (name, status) throws(KedgeError) in
            found.append((name, status))
        }
        return found
    }

    /// Returns those that are gone.
    private func remove(_ found: [Found], _ failures: inout [RemoveFailure]) throws(KedgeError) -> [Found] {
        let failed = try remove(found.map(\.name))
        failures += failed
        let left = Set(failed.map(\.name))
        return found.filter { !left.contains(cluster.name($0.name)) }
    }

    private func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        guard !isDryRun else { return [] }
        var failures: [RemoveFailure] = []
        for start in stride(from: 0, to: names.count, by: Self.batch) {
            try interruption.checkpoint()
            let some = names[start..<min(start + Self.batch, names.count)]
            failures += try cluster.repository.store.remove(some.map(cluster.name))
        }
        return failures
    }
}

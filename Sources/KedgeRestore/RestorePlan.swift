// Which backup, along which timeline, through which WAL, to which stop: decided before the first byte is written.
//
// Pure but for the knowledge of WAL that comes in as an argument. The plan is either proven or refused; what cannot be
// proven needs `--backup`, and is then said.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// How a restore will go.
package struct RestorePlan: Sendable {
    package let backup: CommitRecord
    /// Why this backup, as a sentence without the full stop.
    package let reason: String
    package let timeline: TimelineID
    /// What `recovery_target_timeline` has to be; nil: latest, for a standby.
    package let followed: TimelineID?
    package let chain: WALChain
    /// What recovery is told; differs from what was asked for where PostgreSQL could not express that.
    package let target: PlannedTarget
    /// Nil where replay goes on to the end.
    package let stop: ReplayStop?
    /// The last archived record that can be replayed, where recovery goes that far.
    package let lastRecord: LSN?
    /// Tablespaces that replay will create at their recorded paths.
    package let tablespaces: [CreatedTablespace]
    /// What was found to be true, one sentence each.
    package let proofs: [String]
    /// What is not as it should be, or could not be proven, one sentence each.
    package fileprivate(set) var warnings: [String]

    /// Whether the server may ask for WAL before it needs it. From 15 on it does so, `recovery_prefetch` being `try`
    /// (src/backend/access/transam/xlogprefetcher.c), and `archive-get` rightly refuses a file that is missing in the
    /// middle: recovery would end with that error before it reaches a target in the segment before.
    package var mayReadAhead: Bool {
        backup.server.postgresVersion < 15 || target == .none || !(chain.endsInHole || chain.hasConflict)
    }

    /// The `.partial` file that has to lie in `pg_wal` under the segment's own name.
    package var partial: WALSegment? { chain.partial.flatMap { needs($0) ? $0 : nil } }

    /// Whether replay reads `segment` before it stops.
    private func needs(_ segment: WALSegment) -> Bool {
        guard let stop else { return true }
        return stop.segment.number >= segment.number
    }
}

/// The end of recovery as it is written into the configuration.
package enum PlannedTarget: Hashable, Sendable {
    /// A standby, or all that can be fetched: no target at all.
    case none
    case immediate
    case time(Timestamp, exclusive: Bool)
    case transaction(UInt64, exclusive: Bool)
    case lsn(LSN, exclusive: Bool)
    case name(String)
}

/// Makes the plan for one request.
package struct RestorePlanner {
    package let request: RestoreRequest
    /// The committed backups of one database system.
    package let backups: [CommitRecord]
    package let archive: ArchivedWAL
    package let knowledge: any WALKnowledge
    /// In how many segments a second restore point of the target's name is looked for, behind the stop and before the
    /// backup each: these are one short read each, which a restore in the middle of the night has no hours for.
    package var namesakeLimit = 2_000
    /// Where a server may still have WAL that is not archived; empty where nobody has looked.
    package var serverWAL: [ServerWAL] = []

    package init(
        _ request: RestoreRequest, backups: [CommitRecord], archive: ArchivedWAL, knowledge: any WALKnowledge
    ) {
        self.request = request
        self.backups = backups
        self.archive = archive.knowing(backups)
        self.knowledge = knowledge
    }

    /// The plan. Throws `target-unreachable`, `target-ambiguous`, or `not-found` where there is no such backup.
    package func plan() throws(KedgeError) -> RestorePlan {
        let chosen = try requestedBackup()
        let history = try targetHistory(for: chosen)
        let candidates = candidates(along: history, chosen: chosen)
        guard !candidates.isEmpty else { throw try withAlternatives(noCandidate(along: history), to: history) }
        var failure: KedgeError?
        var bound = LSN(.max)
        for backup in candidates {
            let attempt = try RestoreAttempt(self, backup, history, before: bound)
            switch attempt.result() {
            case .success(let plan):
                try refuseIfAmbiguous(plan)
                var known = plan
                if let why = try refuseNamesakes(plan, along: history, older: candidates) {
                    known.warnings.append(
                        "It is not known whether an earlier restore point has the same name: \(why).")
                }
                return known
            case .failure(let refusal):
                failure = failure ?? refusal.error
                guard refusal.olderMayServe else { throw try withAlternatives(failure ?? refusal.error, to: history) }
            }
            // What lies after this backup's stop it has searched itself.
            if case .name = request.target { bound = backup.span.stopLSN }
        }
        throw try withAlternatives(failure ?? noCandidate(along: history), to: history)
    }

    // MARK: - Timeline

    private func requestedBackup() throws(KedgeError) -> CommitRecord? {
        guard let label = request.backup else {
            guard !backups.isEmpty else { throw noBackup() }
            return nil
        }
        guard let backup = backups.first(where: { $0.label == label }) else { throw unknownBackup(label) }
        return backup
    }

    /// The path of timelines that recovery will follow.
    private func targetHistory(for chosen: CommitRecord?) throws(KedgeError) -> TimelineHistory {
        switch request.timeline {
        case .number(let timeline):
            guard let history = archive.history(of: timeline) else { throw missingHistory(timeline) }
            return history
        case .latest where request.target != .immediate:
            // A newer timeline without its history may be what is wanted, and cannot be followed: never passed over.
            if let newest = archive.timelines.last, archive.history(of: newest) == nil { throw missingHistory(newest) }
            let usable = archive.timelines.reversed().lazy.compactMap { archive.history(of: $0) }
            let wanted = chosen.map { [$0] } ?? backups
            guard let history = usable.first(where: { history in wanted.contains { $0.lies(on: history) } }) else {
                throw missingHistory(wanted.map(\.span.timeline).max() ?? TimelineID(1))
            }
            return history
        case .current, .latest:
            // A backup is consistent on its own timeline, whatever came after it (lesson 43).
            let newest =
                chosen ?? backups.max { ($0.span.timeline, $0.span.stopLSN) < ($1.span.timeline, $1.span.stopLSN) }
            guard let newest else { throw noBackup() }
            guard let history = archive.history(of: newest.span.timeline) else {
                throw missingHistory(newest.span.timeline)
            }
            return history
        }
    }

    /// The backups that may serve, newest first.
    private func candidates(along history: TimelineHistory, chosen: CommitRecord?) -> [CommitRecord] {
        if let chosen { return chosen.lies(on: history) ? [chosen] : [] }
        return backups.filter { $0.lies(on: history) && mayPrecedeTarget($0) }.sorted {
            ($0.span.stopLSN, $0.label) > ($1.span.stopLSN, $1.label)
        }
    }

    /// Whether the target can lie at or after the backup's stop. The search then proves it.
    private func mayPrecedeTarget(_ backup: CommitRecord) -> Bool {
        switch request.target {
        case .latest, .immediate, .name: true
        case .time(let time, _): backup.span.stopTime <= time
        case .lsn(let lsn, _): backup.span.stopLSN <= lsn
        case .transaction(let number, _):
            BackupSnapshot(backup.span.snapshot).map { !$0.hasEnded(transaction: number) } ?? true
        }
    }

    /// What a standby has to be told, so that it follows `history`: nil where "latest" means that. The server counts
    /// upwards from its backup's timeline as long as there are histories (timeline.c, findNewestTimeLine), and refuses
    /// to start where the last of them does not come from the backup.
    func standbyTimeline(_ backup: CommitRecord, along history: TimelineHistory) -> TimelineID? {
        guard request.timeline == .latest else { return history.timeline }
        var newest = backup.span.timeline
        while archive.histories[TimelineID(newest.number &+ 1)] != nil { newest = TimelineID(newest.number &+ 1) }
        return newest == history.timeline ? nil : history.timeline
    }

    // MARK: - Branches

    /// Refuses a time that means different states on two branches, unless a timeline was asked for.
    private func refuseIfAmbiguous(_ plan: RestorePlan) throws(KedgeError) {
        guard case .time(let time, let exclusive) = request.target, request.timeline == .latest else { return }
        func isReplayed(_ end: TransactionEnd?) -> Bool {
            end.map { exclusive ? $0.time < time : $0.time <= time } ?? false
        }
        for other in archive.timelines where other != plan.timeline {
            guard let branch = archive.history(of: other), let fork = plan.chain.history.fork(from: branch),
                fork >= plan.backup.span.stopLSN, (plan.stop?.record ?? LSN(.max)) >= fork
            else { continue }
            let own = try ReplaySearch.firstTransactionEnd(plan.chain, from: fork, knowledge: knowledge)
            guard !isReplayed(own) else { continue }
            let first = fork.position / archive.segmentSize
            let chain = WALChain(archive, along: branch, from: first)
            let others = try ReplaySearch.firstTransactionEnd(chain, from: fork, knowledge: knowledge)
            if let others, isReplayed(others) { throw ambiguous(time, plan, own, other, others, fork) }
        }
    }

    /// Refuses a name that restore points on both sides of the chosen backup's stop have: recovery stops at the first
    /// that it meets, so which backup it begins with would decide which state is restored. Returns why it is not known
    /// whether there are any, nil where it is.
    private func refuseNamesakes(
        _ plan: RestorePlan, along history: TimelineHistory, older candidates: [CommitRecord]
    ) throws(KedgeError) -> String? {
        guard case .name = request.target, request.backup == nil,
            case .restorePoint(let chosen)? = plan.stop?.event
        else { return nil }
        var bound = plan.backup.span.stopLSN
        var left = namesakeLimit
        for backup in candidates.drop(while: { $0.label != plan.backup.label }).dropFirst() {
            do throws(KedgeError) {
                let attempt = try RestoreAttempt(self, backup, history, before: bound, segmentLimit: left)
                if attempt.search.isCutShort { return namesakeLimitText }
                left -= attempt.search.segmentCount
                // The bound lies within a segment, of which all is looked at: it may be the very same.
                if case .success(let other) = attempt.result(), case .restorePoint(let point)? = other.stop?.event,
                    point.lsn < chosen.lsn
                {
                    throw ambiguous(chosen, plan.backup, point, backup)
                }
            } catch {
                // WAL before the chosen backup that cannot be read is no reason against it.
                guard error.code != .targetAmbiguous, error.code != .interrupted else { throw error }
                return error.message
            }
            bound = min(bound, backup.span.stopLSN)
        }
        return nil
    }

    var namesakeLimitText: String { "only \(namesakeLimit) WAL segments were searched for one" }

    /// `error`, with the timelines added to its hint on which the target can be reached.
    private func withAlternatives(_ error: KedgeError, to history: TimelineHistory) throws(KedgeError) -> KedgeError {
        guard error.code == .targetUnreachable, request.timeline == .latest else { return error }
        switch request.target {
        case .latest, .immediate: return error
        case .time, .transaction, .lsn, .name: break
        }
        var reaching: [TimelineID] = []
        for other in archive.timelines where other != history.timeline {
            var alternative = request
            alternative.timeline = .number(other)
            let planner = RestorePlanner(alternative, backups: backups, archive: archive, knowledge: knowledge)
            do throws(KedgeError) {
                _ = try planner.plan()
                reaching.append(other)
            } catch  where error.code == .targetAmbiguous {
                reaching.append(other)
            } catch  where error.code == .targetUnreachable || error.code == .notFound {
                continue
            }
        }
        guard let newest = reaching.last else { return error }
        var hinted = error
        hinted.hint = "It can be reached on timeline \(newest): add \"--target-timeline \(newest)\"."
        return hinted
    }
}

extension TimelineHistory {
    /// Where the two paths part; nil if one is the other, or they have nothing in common.
    package func fork(from other: TimelineHistory) -> LSN? {
        for (index, (mine, theirs)) in zip(entries, other.entries).enumerated() {
            guard mine.timeline == theirs.timeline else { return index > 0 ? entries[index - 1].limit : nil }
            if mine.limit == theirs.limit { continue }
            return min(mine.limit ?? LSN(.max), theirs.limit ?? LSN(.max))
        }
        return nil
    }
}

// One backup and one history: whether recovery from there reaches the target, and the plan if it does.

import KedgeCatalog
import KedgeCore
import KedgePostgres

/// A backup that was tried for a target.
struct RestoreAttempt {
    /// Why it does not serve.
    struct Refusal: Error {
        let error: KedgeError
        /// Whether an older backup may do better.
        let olderMayServe: Bool
    }

    private let planner: RestorePlanner
    private let backup: CommitRecord
    private let history: TimelineHistory
    let search: ReplaySearch
    /// For a name: the next restore point of that name behind the stop, or why it is not known whether there is one.
    private let namesake: Namesake?

    private enum Namesake {
        case known(RestorePoint)
        case unknown(String)
    }

    private var request: RestoreRequest { planner.request }
    private var chain: WALChain { search.chain }

    /// Looks for the target in the WAL from the backup's start on, before `bound`. With a `segmentLimit` in no more
    /// segments than that, and not for a namesake behind the stop.
    init(
        _ planner: RestorePlanner, _ backup: CommitRecord, _ history: TimelineHistory, before bound: LSN,
        segmentLimit: Int? = nil
    ) throws(KedgeError) {
        self.planner = planner
        self.backup = backup
        self.history = history
        let start = backup.span.startLSN
        let chain = WALChain(planner.archive, along: history, from: start.position / planner.archive.segmentSize)
        let end = planner.request.target == .immediate ? min(bound, backup.span.stopLSN) : bound
        search = try ReplaySearch(
            chain, from: start, to: planner.request.target, before: end, segmentLimit: segmentLimit ?? .max,
            knowledge: planner.knowledge)
        namesake = segmentLimit == nil ? try RestoreAttempt.namesake(search, before: end, planner) : nil
    }

    /// What lies behind the stop decides nothing: failing to read it refuses no plan. Throws `interrupted`.
    private static func namesake(
        _ search: ReplaySearch, before end: LSN, _ planner: RestorePlanner
    ) throws(KedgeError) -> Namesake? {
        guard case .name = planner.request.target, let stop = search.stop else { return nil }
        do throws(KedgeError) {
            let later = try ReplaySearch(
                search.chain, from: stop.record + 1, to: planner.request.target, before: end,
                segmentLimit: planner.namesakeLimit, knowledge: planner.knowledge)
            if case .restorePoint(let point)? = later.stop?.event { return .known(point) }
            return later.isCutShort ? .unknown(planner.namesakeLimitText) : nil
        } catch {
            guard error.code != .interrupted else { throw error }
            return .unknown(error.message)
        }
    }

    func result() -> Result<RestorePlan, Refusal> {
        guard search.end >= backup.span.stopLSN else {
            return .failure(
                Refusal(error: planner.backupWithoutWAL(backup, search), olderMayServe: request.backup == nil))
        }
        if let stop = search.stop {
            guard stop.record >= backup.span.stopLSN else {
                return .failure(
                    Refusal(
                        error: planner.stopsTooEarly(backup, stop, search), olderMayServe: request.backup == nil))
            }
            if let other = otherEpoch(stop) { return .failure(Refusal(error: other, olderMayServe: false)) }
            return .success(plan(asRequested, stop: stop))
        }
        if request.standby { return .success(plan(.none, stop: nil)) }
        switch request.target {
        case .immediate: return .success(plan(.immediate, stop: nil))
        case .latest:
            if chain.endsInHole || search.damage != nil {
                return .failure(Refusal(error: planner.latestHasHole(search), olderMayServe: false))
            }
            guard search.lastRecord != nil || request.backup != nil else { return .failure(unprovable) }
            return .success(plan(endOfArchive, stop: nil))
        case .time(let time, _):
            if let evidence = planner.evidence(of: time, search), search.lastRecord != nil {
                return .success(plan(endOfArchive, stop: nil, evidence: evidence))
            }
            return withoutStop
        case .transaction, .name: return withoutStop
        case .lsn: return .failure(notReached)
        }
    }

    /// Nothing that is known of the WAL stops recovery. That is a proof only if all of it is known.
    private var withoutStop: Result<RestorePlan, Refusal> {
        if search.unproven.isEmpty { return .failure(notReached) }
        return request.backup == nil ? .failure(unprovable) : .success(plan(asRequested, stop: nil))
    }

    private var unprovable: Refusal {
        Refusal(error: planner.unprovable(backup, search), olderMayServe: false)
    }

    private var notReached: Refusal {
        let olderMayServe: Bool =
            switch request.target {
            case .name: true
            case .transaction: BackupSnapshot(backup.span.snapshot) == nil
            default: false
            }
        return Refusal(
            error: planner.notReached(backup, search), olderMayServe: olderMayServe && request.backup == nil)
    }

    /// The server keeps the low 32 bits of a transaction, so that it would stop at one of another epoch.
    private func otherEpoch(_ stop: ReplayStop) -> KedgeError? {
        guard case .transaction(let number, _) = request.target, number > UInt64(UInt32.max),
            case .transactionEnd(let end)? = stop.event, let snapshot = BackupSnapshot(backup.span.snapshot)
        else { return nil }
        let full = snapshot.full(end.xid, endsAfter: end.lsn >= backup.span.afterStopLSN)
        return full == number ? nil : planner.otherEpoch(backup, full, end, number)
    }

    /// The target in PostgreSQL's own terms.
    private var asRequested: PlannedTarget {
        switch request.target {
        case .latest: .none
        case .immediate: .immediate
        case .time(let time, let exclusive): .time(time, exclusive: exclusive)
        case .transaction(let number, let exclusive): .transaction(number, exclusive: exclusive)
        case .lsn(let lsn, let exclusive): .lsn(lsn, exclusive: exclusive)
        case .name(let name): .name(name)
        }
    }

    /// All that is archived. As a number, so that recovery cannot end early and call it success: a target that is not
    /// reached is a fatal error of the server, the end of a WAL that stops too soon is not.
    private var endOfArchive: PlannedTarget {
        search.lastRecord.map { .lsn($0, exclusive: false) } ?? .none
    }

    private func plan(_ target: PlannedTarget, stop: ReplayStop?, evidence: String? = nil) -> RestorePlan {
        RestorePlan(
            backup: backup, reason: reason, timeline: history.timeline, followed: followed, chain: chain,
            target: target, stop: stop,
            lastRecord: stop == nil && request.target != .immediate ? search.lastRecord : nil,
            tablespaces: search.tablespaces, proofs: proofs(stop, evidence), warnings: warnings(target))
    }

    private var reason: String {
        if request.backup != nil { return "it was asked for" }
        switch request.target {
        case .latest, .immediate: return "it is the newest backup on the way to timeline \(history.timeline)"
        default: return "it is the newest backup that ended before the target"
        }
    }

    private func proofs(_ stop: ReplayStop?, _ evidence: String?) -> [String] {
        var proofs: [String] = []
        if let last = chain.last, let first = chain.runs.first {
            let size = chain.segmentSize
            let from = WALSegment(timeline: first.timeline, number: first.numbers.lowerBound).fileName(
                segmentSize: size)
            let until = (stop?.segment ?? last).fileName(segmentSize: size)
            proofs.append("WAL files \(from) to \(until) are archived without a gap.")
        }
        if let stop {
            proofs.append(describe(stop))
        } else if request.target == .immediate {
            proofs.append("Recovery ends when the backup is consistent, at LSN \(backup.span.stopLSN).")
        } else if let last = search.lastRecord {
            let latest = search.times.map { "; the latest transaction in it ended at \($0.upperBound)" } ?? ""
            proofs.append("The last archived record begins at LSN \(last)\(latest).")
        }
        if let evidence { proofs.append(evidence) }
        return proofs
    }

    private func describe(_ stop: ReplayStop) -> String {
        let side = stop.isBefore ? "before" : "after"
        let file = stop.segment.fileName(segmentSize: chain.segmentSize)
        switch stop.event {
        case .transactionEnd(let end):
            return "Recovery stops \(side) the end of transaction \(end.xid) at \(end.time), LSN \(end.lsn), in "
                + "\(file)."
        case .restorePoint(let point):
            return "Recovery stops \(side) restore point \"\(point.name)\" of \(point.time), LSN \(point.lsn), in "
                + "\(file)."
        case nil:
            return "Recovery stops \(side) the first record at or after LSN \(stop.record), in \(file)."
        }
    }

    private var followed: TimelineID? {
        request.standby ? planner.standbyTimeline(backup, along: history) : history.timeline
    }

    private func warnings(_ target: PlannedTarget) -> [String] {
        var warnings: [String] = []
        if request.standby, request.timeline == .latest, let followed {
            warnings.append(
                "The newest archived timeline does not come from the backup: the standby follows timeline "
                    + "\(followed) and no later promotion, until recovery_target_timeline is changed.")
        }
        switch namesake {
        case .known(let point)?:
            warnings.append(
                "Restore point \"\(point.name)\" was made more than once: recovery stops at the first that it meets, "
                    + "and another was made at \(point.time), LSN \(point.lsn).  For that one give \"--target-lsn "
                    + "\(point.lsn)\" instead.")
        case .unknown(let why)?:
            warnings.append("It is not known whether a later restore point has the same name: \(why).")
        case nil: break
        }
        if backup.health.damagedPageCount > 0 {
            warnings.append(
                "The backup holds \(backup.health.damagedPageCount) data pages that failed their checksum.")
        }
        for suspect in backup.health.walSuspect.prefix(3) {
            warnings.append("WAL file \(suspect.file) is suspect at LSN \(suspect.lsn): \(suspect.reason).")
        }
        for (segment, reason) in search.unproven.prefix(3) {
            let file = segment.fileName(segmentSize: chain.segmentSize)
            warnings.append("It is not proven what WAL file \(file) holds: \(reason).")
        }
        for tablespace in backup.tablespaces where tablespace.inPlace {
            warnings.append(
                "Tablespace \(tablespace.oid) is in place: the server recovers only with "
                    + "allow_in_place_tablespaces = on."
            )
        }
        if target == .none && !request.standby {
            warnings.append("It is not known where the archived WAL ends, so recovery gets no target.")
        }
        return warnings
    }
}

/// `pg_current_snapshot()` as text: `xmin:xmax:xip,xip…` (src/backend/utils/adt/xid8funcs.c).
struct BackupSnapshot {
    private let oldestRunning: UInt64
    private let next: UInt64
    private let running: Set<UInt64>

    /// Parses the text. Nil for anything that the server would not print.
    init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let oldest = UInt64(parts[0]), let next = UInt64(parts[1]), oldest <= next else {
            return nil
        }
        var running: Set<UInt64> = []
        for item in parts[2].split(separator: ",") {
            guard let number = UInt64(item) else { return nil }
            running.insert(number)
        }
        oldestRunning = oldest
        self.next = next
        self.running = running
    }

    /// The number with its epoch of a transaction whose low 32 bits are `xid`: the one nearest to the snapshot, or,
    /// where it is known to end after the snapshot (`endsAfter`) and that one had ended, the next of these bits.
    func full(_ xid: UInt32, endsAfter: Bool) -> UInt64 {
        let distance = Int32(bitPattern: xid &- UInt32(truncatingIfNeeded: next))
        let nearest = UInt64(bitPattern: Int64(bitPattern: next) &+ Int64(distance))
        // Before the first epoch there is none.
        if distance < 0, nearest > next { return UInt64(xid) }
        return endsAfter && hasEnded(nearest) ? nearest &+ (1 << 32) : nearest
    }

    private func hasEnded(_ full: UInt64) -> Bool { full < next && !(full >= oldestRunning && running.contains(full)) }

    /// Whether the transaction had ended when the snapshot was taken. A number below 2^32 is taken for the transaction
    /// that is nearest to the snapshot, as the server compares them (TransactionIdPrecedes).
    func hasEnded(transaction number: UInt64) -> Bool {
        var full = number
        if number <= UInt64(UInt32.max) {
            let distance = Int32(truncatingIfNeeded: Int64(bitPattern: number &- (next & 0xFFFF_FFFF)))
            full = UInt64(bitPattern: Int64(bitPattern: next) &+ Int64(distance))
        }
        return hasEnded(full)
    }
}

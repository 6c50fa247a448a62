// Why a target cannot be reached, and what can be: every refusal of the planner.

import KedgeCatalog
import KedgeCore
import KedgePostgres

extension RestorePlanner {
    private var attempt: String { "cannot restore to \(request.target)" }

    private func fileName(_ segment: WALSegment) -> String { segment.fileName(segmentSize: archive.segmentSize) }

    // MARK: - Backups and timelines

    func noBackup() -> KedgeError {
        KedgeError(
            .notFound, "cannot restore: the repository holds no committed backup of this cluster",
            hint: "Run \"kedge backup\" first, or choose another repository with \"--repository\".")
    }

    func unknownBackup(_ label: Label) -> KedgeError {
        let known = backups.map(\.label.text).sorted().suffix(5).joined(separator: ", ")
        return KedgeError(
            .notFound, "cannot restore backup \"\(label)\": the repository holds no such backup",
            detail: known.isEmpty ? "It holds none of this cluster." : "The newest that it holds are: \(known).",
            hint: "Run \"kedge info\" for the list of backups.")
    }

    func missingHistory(_ timeline: TimelineID) -> KedgeError {
        let known = archive.timelines.filter { archive.history(of: $0) != nil }.map(\.description)
        return KedgeError(
            .targetUnreachable, "\(attempt): the history of timeline \(timeline) is not archived",
            detail: "Without file \(timeline.hex).history PostgreSQL follows no timeline but 1. The archive can serve "
                + "timeline \(known.joined(separator: ", ")).",
            hint: "Archive that file from pg_wal of a server on that timeline, or choose another with "
                + "\"--target-timeline\".")
    }

    /// No backup lies before the target on this history.
    func noCandidate(along history: TimelineHistory) -> KedgeError {
        if let label = request.backup {
            return KedgeError(
                .targetUnreachable, "\(attempt): timeline \(history.timeline) does not come from backup \"\(label)\"",
                detail: "That timeline branched off before the backup ended.",
                hint: "Leave out \"--target-timeline\" or \"--backup\".")
        }
        let usable = backups.filter { $0.lies(on: history) }.sorted { $0.span.stopLSN < $1.span.stopLSN }
        guard let oldest = usable.first else {
            return KedgeError(
                .targetUnreachable, "\(attempt): no backup lies on the way to timeline \(history.timeline)",
                hint: "Choose another timeline with \"--target-timeline\"; \"kedge info\" lists them.")
        }
        let when = "ended at \(oldest.span.stopTime), LSN \(oldest.span.stopLSN)"
        return KedgeError(
            .targetUnreachable, "\(attempt): it lies before the end of the oldest backup",
            detail: "The oldest backup on the way to timeline \(history.timeline), \(oldest.label), \(when).",
            hint: "The nearest moment that can be reached is the end of that backup: give \"--backup \(oldest.label) "
                + "--target-immediate\" instead of the target.")
    }

    // MARK: - What one backup cannot do

    /// The WAL that a backup needs to become consistent is not there.
    func backupWithoutWAL(_ backup: CommitRecord, _ search: ReplaySearch) -> KedgeError {
        let remedy = self.remedy(search)
        return KedgeError(
            .targetUnreachable, "\(attempt): backup \"\(backup.label)\" cannot become consistent",
            detail: "It needs the WAL up to LSN \(backup.span.stopLSN), and \(why(search, for: backup))."
                + remedy.detail,
            hint: remedy.hint.map { $0 + "Or choose another backup." }
                ?? "Look for the missing file in pg_wal of the server or in another repository and archive it with "
                + "\"kedge archive-push\", or choose another backup.")
    }

    /// What is archived cannot be told, so nothing is proven.
    func unprovable(_ backup: CommitRecord, _ search: ReplaySearch) -> KedgeError {
        let list = search.unproven.prefix(3).map { "\(fileName($0.segment)) (\($0.reason))" }
        return KedgeError(
            .targetUnreachable, "\(attempt): it cannot be proven that recovery gets there",
            detail: "It is not known what lies in WAL file \(list.joined(separator: ", ")).",
            hint: "Give \"--backup \(backup.label)\" to restore all the same.")
    }

    /// The server would refuse with "requested recovery stop point is before consistent recovery point".
    func stopsTooEarly(_ backup: CommitRecord, _ stop: ReplayStop, _ search: ReplaySearch) -> KedgeError {
        KedgeError(
            .targetUnreachable, "\(attempt): it lies before the end of backup \"\(backup.label)\"",
            detail: "Recovery would stop at LSN \(stop.record), but the backup is consistent only from LSN "
                + "\(backup.span.stopLSN) on.",
            hint: request.backup == nil
                ? "The nearest moment that can be reached is the end of that backup: give \"--backup "
                    + "\(backup.label) --target-immediate\" instead of the target."
                : "Leave out \"--backup\" to have an older one chosen, or give \"--target-immediate\" for the end of "
                    + "this one.")
    }

    /// All that is archived was searched, and nothing in it stops recovery.
    func notReached(_ backup: CommitRecord, _ search: ReplaySearch) -> KedgeError {
        let latest = search.times.map { " The latest transaction in it ended at \($0.upperBound)." } ?? ""
        let points = search.restorePoints.map { "\"\($0.name)\"" }.joined(separator: ", ")
        var detail = "It is not in the WAL from backup \(backup.label) on: \(why(search)).\(latest)"
        if case .time = request.target {
            detail = "No transaction in the WAL from backup \(backup.label) on ended later: \(why(search)).\(latest)"
        }
        if case .name = request.target {
            detail += points.isEmpty ? " It holds no restore point." : " The latest restore points in it: \(points)."
        }
        var hint = "The nearest moment that can be reached is the end of what is archived: leave out the target."
        if let last = search.lastRecord, search.chain.endsInHole || search.damage != nil {
            hint = "The nearest moment that can be reached is \"--target-lsn \(last)\"."
        }
        switch request.target {
        // Whoever mistypes what he wants to stop at must not be told to recover beyond it.
        case .name:
            hint =
                "Check how the name is written: it has to be the same, letter by letter.  Or give the moment that "
                + "you want with \"--target-time\"."
        case .transaction:
            hint = "Check the number.  Or give the moment that you want with \"--target-time\"."
        case .latest, .immediate, .time, .lsn: break
        }
        let remedy = self.remedy(search)
        detail += remedy.detail
        hint = (remedy.hint ?? "") + hint
        if let ended = endedBefore(backup) { (detail, hint) = ended }
        return KedgeError(.targetUnreachable, "\(attempt): recovery would not get there", detail: detail, hint: hint)
    }

    /// What would stop recovery is a transaction of another epoch.
    func otherEpoch(
        _ backup: CommitRecord, _ full: UInt64, _ end: TransactionEnd, _ wanted: UInt64
    ) -> KedgeError {
        KedgeError(
            .targetUnreachable, "\(attempt): no transaction of that number is in the WAL",
            detail:
                "The server looks at the low 32 bits alone, \(end.xid), and would stop at transaction \(full), which "
                + "ended at \(end.time), LSN \(end.lsn): its epoch is \(full >> 32), not \(wanted >> 32).",
            hint: "If that is the one that you mean, give \"--target-xid \(full)\": the number as "
                + "pg_current_xact_id() returns it.")
    }

    /// Texts for a transaction that the backup's snapshot already shows as ended.
    private func endedBefore(_ backup: CommitRecord) -> (detail: String, hint: String)? {
        guard case .transaction(let number, _) = request.target, request.backup != nil,
            BackupSnapshot(backup.span.snapshot)?.hasEnded(transaction: number) == true
        else { return nil }
        return (
            "Transaction \(number) had ended when backup \(backup.label) was taken.",
            "Leave out \"--backup\" to have an older one chosen."
        )
    }

    /// "Latest" across a hole would silently leave out what lies behind it.
    func latestHasHole(_ search: ReplaySearch) -> KedgeError {
        let nearest = search.lastRecord.map { "To recover up to there, give \"--target-lsn \($0)\"." } ?? ""
        let remedy = self.remedy(search)
        if search.damage?.reason != nil {
            return KedgeError(
                .targetUnreachable, "\(attempt): recovery would end before it",
                detail: "There is no backup behind it: \(why(search)).",
                hint: nearest.isEmpty ? "Restore a backup that began later." : nearest)
        }
        return KedgeError(
            .targetUnreachable, "\(attempt): the archived WAL has a hole",
            detail: "Recovery would end before it: \(why(search))." + remedy.detail,
            hint: (remedy.hint
                ?? "Look for the missing file in pg_wal of the server or in another repository and archive it with "
                + "\"kedge archive-push\". ") + nearest)
    }

    /// Why replay cannot go on, as a clause. `backup`: the one that is told to end behind it already.
    private func why(_ search: ReplaySearch, for backup: CommitRecord? = nil) -> String {
        if let (lsn, segment, reason) = search.damage {
            if let reason { return "recovery ends in WAL file \(fileName(segment)) at LSN \(lsn).  \(reason)" }
            return "WAL file \(fileName(segment)) has a record at LSN \(lsn) that cannot be read"
        }
        let file = fileName(search.chain.missing)
        if search.chain.hasConflict { return "two different files \(file) are archived, and neither can be trusted" }
        if let next = search.chain.resumesAt {
            return "WAL file \(file) is missing, while \(fileName(next)) is archived"
        }
        switch search.chain.evidence {
        case .branch(let branch)?: return "WAL file \(file) is missing, while timeline \(branch) branched off behind it"
        case .backup(let later)? where later != backup?.label:
            return "WAL file \(file) is missing, while backup \(later) ended behind it"
        case .backupHistory(let name)?:
            return "WAL file \(file) is missing, while \(name) says that a base backup began there or behind it"
        case .backup, nil: break
        }
        return "the archive ends before WAL file \(file)"
    }

    // MARK: - Times

    /// What proves that the archive reaches beyond `time`, although no transaction in it ended later.
    func evidence(of time: Timestamp, _ search: ReplaySearch) -> String? {
        let tail = "Nothing later is archived, so recovery goes to the last record."
        if let latest = search.times?.upperBound, latest >= time {
            return "The latest archived transaction ended at \(latest). \(tail)"
        }
        if let point = search.restorePoints.last(where: { $0.time >= time }) {
            return
                "Restore point \"\(point.name)\" was made at \(point.time), and no transaction ended between. \(tail)"
        }
        let witness = backups.first { backup in
            // What a standby had replayed by then may lie far behind what its primary had committed.
            !backup.server.fromStandby && backup.lies(on: search.chain.history) && backup.span.afterStopTime >= time
                && backup.span.afterStopLSN <= search.end
        }
        return witness.map {
            "Backup \($0.label) saw the WAL position \($0.span.afterStopLSN) at \($0.span.afterStopTime), and no "
                + "transaction ended between. \(tail)"
        }
    }

    func ambiguous(
        _ chosen: RestorePoint, _ backup: CommitRecord, _ other: RestorePoint, _ older: CommitRecord
    ) -> KedgeError {
        KedgeError(
            .targetAmbiguous, "cannot tell which restore point \"\(chosen.name)\" is meant: it was made more than once",
            detail: "One was made at \(other.time), LSN \(other.lsn), after backup \(older.label); another at "
                + "\(chosen.time), LSN \(chosen.lsn), after backup \(backup.label).  Recovery stops at the first that "
                + "it meets.",
            hint: "For the newer one add \"--backup \(backup.label)\"; for the older one add \"--backup "
                + "\(older.label)\".")
    }

    func ambiguous(
        _ time: Timestamp, _ plan: RestorePlan, _ own: TransactionEnd?, _ other: TimelineID,
        _ others: TransactionEnd, _ fork: LSN
    ) -> KedgeError {
        let first = own.map { "its first transaction ended at \($0.time)" } ?? "no transaction of its own is archived"
        return KedgeError(
            .targetAmbiguous, "cannot tell which state of \(request.target) is meant: the timelines part before it",
            detail:
                "Timeline \(plan.timeline) branched off at LSN \(fork) and \(first). Timeline \(other) went on there "
                + "with a transaction that ended at \(others.time).",
            hint: "For the state on the branch add \"--target-timeline \(plan.timeline)\"; for what timeline \(other) "
                + "held then add \"--target-timeline \(other)\".")
    }
}

// Was the target reached, no less and no more? Pure: what was planned from the archived WAL, against what the server
// shows at the end of its recovery.

import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRestore

/// Where a server stands when it has stopped to replay.
package struct RecoveryEnd: Hashable, Sendable {
    /// The end of the last record that was replayed (pg_last_wal_replay_lsn).
    package var replayLSN: LSN
    /// The end of the last transaction that was replayed (pg_last_xact_replay_timestamp); nil where none was.
    package var lastTransactionTime: Timestamp?
    /// What pg_xact_status says of the transaction at which recovery was to stop; nil where it has no answer.
    package var stopTransactionStatus: String?
    /// Whether replay paused at the target; otherwise the server went on as a primary.
    package var isPaused: Bool

    package init(
        replayLSN: LSN, lastTransactionTime: Timestamp? = nil, stopTransactionStatus: String? = nil,
        isPaused: Bool = true
    ) {
        self.replayLSN = replayLSN
        self.lastTransactionTime = lastTransactionTime
        self.stopTransactionStatus = stopTransactionStatus
        self.isPaused = isPaused
    }
}

/// What a drill expects of its target.
package struct ExpectedEnd: Hashable, Sendable {
    package let target: PlannedTarget
    package let stop: ReplayStop?
    /// The last record that is to be replayed where there is no stop.
    package let lastRecord: LSN?
    /// Recovery never ends before it.
    package let consistency: LSN

    package init(target: PlannedTarget, stop: ReplayStop?, lastRecord: LSN?, consistency: LSN) {
        self.target = target
        self.stop = stop
        self.lastRecord = lastRecord
        self.consistency = consistency
    }

    package init(_ plan: RestorePlan) {
        self.init(
            target: plan.target, stop: plan.stop, lastRecord: plan.lastRecord,
            consistency: plan.backup.span.stopLSN)
    }

    /// The transaction at whose end recovery stops, if it stops at one that has a number.
    package var stopTransaction: UInt32? {
        guard case .transactionEnd(let end)? = stop?.event, end.xid > 0 else { return nil }
        return end.xid
    }

    /// The reasons why `end` is not where recovery should have ended, a sentence each; empty if it is.
    package func problems(with end: RecoveryEnd) -> [String] {
        var problems: [String] = []
        if end.replayLSN < consistency {
            problems.append("Replay ended at LSN \(end.replayLSN), before the backup is consistent at \(consistency).")
        }
        if let stop { problems += self.problems(with: end, at: stop) }
        if stop == nil, let lastRecord, end.replayLSN <= lastRecord {
            problems.append("Replay ended at LSN \(end.replayLSN), before the last archived record at \(lastRecord).")
        }
        if case .time(let time, let exclusive) = target, let last = end.lastTransactionTime,
            exclusive ? last >= time : last > time
        {
            problems.append("The last transaction that was replayed ended at \(last), later than the target.")
        }
        return problems
    }

    private func problems(with end: RecoveryEnd, at stop: ReplayStop) -> [String] {
        var problems: [String] = []
        if stop.isBefore {
            if end.replayLSN > stop.record {
                problems.append("Replay went on to LSN \(end.replayLSN), beyond the record at \(stop.record).")
            } else if isTransaction(stop), !ExpectedEnd.adjoins(end.replayLSN, stop.record) {
                problems.append("Replay ended at LSN \(end.replayLSN), before the record ahead of \(stop.record).")
            }
        } else if end.replayLSN <= stop.record {
            problems.append("Replay ended at LSN \(end.replayLSN), before the end of the record at \(stop.record).")
        }
        guard let transaction = stopTransaction, let status = end.stopTransactionStatus else { return problems }
        let hasEnded = status == "committed" || status == "aborted"
        if hasEnded == stop.isBefore {
            problems.append(
                "Transaction \(transaction) is \(status), although recovery was to stop "
                    + (stop.isBefore ? "before its end." : "after its end."))
        }
        return problems
    }

    /// For an LSN the stop names the target itself, which need not be where a record begins.
    private func isTransaction(_ stop: ReplayStop) -> Bool { stop.event != nil }

    /// Whether a record at `next` can be the one right after a record that ends at `end`: only a page's header lies
    /// between them, 24 bytes or, at the start of a segment, 40 (src/include/access/xlog_internal.h).
    package static func adjoins(_ end: LSN, _ next: LSN) -> Bool {
        guard next >= end else { return false }
        let gap = next - end
        return gap == 0 || (gap <= 40 && end.position % 1024 == 0)
    }
}

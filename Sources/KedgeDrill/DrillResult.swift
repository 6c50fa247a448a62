// What a drill came to, and how much of the log that proves. Pure.

package import KedgeCatalog
package import KedgeCore
package import KedgeRestore

/// Where a drill was to go, and where it got to.
package struct DrillResult: Sendable {
    package let backup: CommitRecord
    package let target: RecoveryTarget
    /// On which the target was planned; nil where nothing could be planned.
    package let timeline: TimelineID?
    /// Where replay ended; nil where it did not get that far.
    package let end: RecoveryEnd?
    /// Whether that is where it should have ended (`ExpectedEnd`).
    package let isReached: Bool

    package init(
        backup: CommitRecord, target: RecoveryTarget, timeline: TimelineID?, end: RecoveryEnd?, isReached: Bool
    ) {
        self.backup = backup
        self.target = target
        self.timeline = timeline
        self.end = end
        self.isReached = isReached
    }

    /// The target as a proof has it.
    package var provenTarget: ProofRecord.Target {
        let (kind, value): (String, String?) =
            switch target {
            case .latest: ("latest", nil)
            case .immediate: ("immediate", nil)
            case .time(let time, _): ("time", time.description)
            case .transaction(let number, _): ("xid", String(number))
            case .lsn(let lsn, _): ("lsn", lsn.description)
            case .name(let name): ("name", name)
            }
        return ProofRecord.Target(
            kind: kind, value: value, reachedTimeline: end == nil ? nil : timeline, reachedLSN: end?.replayLSN,
            reachedTime: end?.lastTransactionTime)
    }

    /// The WAL behind the backup that is proven to replay: none where the target was not reached.
    package var coverage: ProofRecord.Coverage? {
        guard isReached, let end, let timeline, end.replayLSN >= backup.span.stopLSN else { return nil }
        return ProofRecord.Coverage(
            timeline: timeline, fromLSN: backup.span.stopLSN, toLSN: end.replayLSN, toTime: end.lastTransactionTime)
    }
}

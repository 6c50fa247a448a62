// What somebody asks of a restore: which backup, which moment, which timeline.

package import KedgeCatalog
package import KedgeCore

/// The moment that recovery is to end at. `exclusive` is PostgreSQL's `recovery_target_inclusive = off`.
package enum RecoveryTarget: Hashable, Sendable {
    /// Everything that is archived.
    case latest
    /// As soon as the backup is consistent.
    case immediate
    /// Before the first transaction that ended later; exclusive: at this time or later.
    case time(Timestamp, exclusive: Bool)
    /// After (exclusive: before) the end of this transaction. The number may carry the epoch, as `pg_current_xact_id()`
    /// prints it.
    case transaction(UInt64, exclusive: Bool)
    /// After (exclusive: before) the first record that begins at or after this position.
    case lsn(LSN, exclusive: Bool)
    /// After the first restore point of this name.
    case name(String)
}

extension RecoveryTarget: CustomStringConvertible {
    /// How messages name it, such as `time 2026-11-21T02:00:00Z (exclusive)`.
    package var description: String {
        switch self {
        case .latest: "the end of the archived WAL"
        case .immediate: "the end of the backup"
        case .time(let time, let exclusive): "time \(time)" + RecoveryTarget.suffix(exclusive)
        case .transaction(let xid, let exclusive): "transaction \(xid)" + RecoveryTarget.suffix(exclusive)
        case .lsn(let lsn, let exclusive): "LSN \(lsn)" + RecoveryTarget.suffix(exclusive)
        case .name(let name): "restore point \"\(name)\""
        }
    }

    private static func suffix(_ exclusive: Bool) -> String { exclusive ? " (exclusive)" : "" }
}

/// Which branch of the cluster's history to follow.
package enum TargetTimeline: Hashable, Sendable {
    /// The newest timeline whose ancestry contains the backup. The default.
    case latest
    /// The timeline that the backup was taken on.
    case current
    case number(TimelineID)
}

/// What a restore is asked for, before anything is looked up.
package struct RestoreRequest: Hashable, Sendable {
    /// Nil: the newest backup that can reach the target.
    package var backup: Label?
    package var target: RecoveryTarget
    package var timeline: TargetTimeline
    /// Follow the cluster as a standby instead of recovering to an end.
    package var standby: Bool

    package init(
        backup: Label? = nil, target: RecoveryTarget = .latest, timeline: TargetTimeline = .latest,
        standby: Bool = false
    ) {
        self.backup = backup
        self.target = target
        self.timeline = timeline
        self.standby = standby
    }
}

// Which backups a timeline goes on from.

import KedgeCore
import KedgePostgres

/// The way to a timeline.
struct TimelineWay {
    let system: SystemIdentifier
    let timeline: TimelineID
    /// Where the timelines before it were left, oldest first.
    let switches: [CommitRecord.TimelineSwitch]
    /// When something was archived (by the store's clock) or backed up on the timeline itself for the last time.
    var lastUse: Timestamp

    /// Whether the backup ended on this way.
    func isReached(from backup: CommitRecord) -> Bool {
        guard backup.server.systemIdentifier == system else { return false }
        let span = backup.span
        if span.timeline == timeline { return true }
        let left = switches.drop { $0.timeline != span.timeline }
        return !left.isEmpty && left.allSatisfy { span.stopLSN <= $0.switchLSN }
    }
}

extension CommitRecord {
    /// Whether this backup ended on the way to the timeline of `other`, as the record of that one tells it.
    func leads(to other: CommitRecord) -> Bool {
        let (system, span) = (other.server.systemIdentifier, other.span)
        return TimelineWay(system: system, timeline: span.timeline, switches: span.history, lastUse: span.stopTime)
            .isReached(from: self)
    }

    /// Whether both lie on one timeline of one database system.
    func isOfTheSameTimeline(as other: CommitRecord) -> Bool {
        (server.systemIdentifier, span.timeline) == (other.server.systemIdentifier, other.span.timeline)
    }
}

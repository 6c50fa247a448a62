// Which archived WAL of one database system stays. Pure: backups and names of WAL in, an answer for each file out.
//
//  1. From the start of each backup that is kept for recovery to any later moment on: everything on its timeline and on
//     every timeline that descends from it, across gaps, since what is missing may still arrive.
//  2. For a backup that is kept for itself alone: what makes it consistent.
//  3. From the start of a running backup on: everything, likewise.
//  4. What a timeline descends from is known from its history file. Where that is missing or can't be read, the
//     timeline may descend from any.
//  5. Files of older timelines count too: recovery reads them where the newer timeline has none (WALChain.swift).
//  6. Without any backup nothing goes.

package import KedgeCore
import KedgePostgres

/// What stays of one system's WAL.
package struct WALRetention: Sendable {
    /// A backup, or the start of one that is being taken.
    package struct Need: Hashable, Sendable {
        package let timeline: TimelineID
        package let first: UInt64
        /// The last segment that it needs; nil: everything from `first` on.
        package let last: UInt64?
        /// Where the ancestors of its timeline were left.
        package let ancestors: [TimelineID: LSN]

        package init(timeline: TimelineID, first: UInt64, last: UInt64?, ancestors: [TimelineID: LSN] = [:]) {
            self.timeline = timeline
            self.first = first
            self.last = last
            self.ancestors = ancestors
        }
    }

    private let segmentSize: UInt64
    /// Nil: everything stays.
    private let needs: [Need]?
    /// The timelines that a timeline descends from, itself included; nil where nobody can tell.
    private let paths: [TimelineID: Set<TimelineID>?]

    /// `needs` of the system that `archive` is of; `keepsAll`: nothing goes whatever they are.
    package init(_ archive: ArchivedWAL, needs: [Need], keepsAll: Bool) {
        segmentSize = archive.segmentSize
        self.needs = keepsAll ? nil : needs
        var paths: [TimelineID: Set<TimelineID>?] = [:]
        for timeline in archive.inventory.timelines.map(\.id) {
            paths[timeline] = .some(archive.history(of: timeline).map { Set($0.entries.map(\.timeline)) })
        }
        self.paths = paths
    }

    /// Whether this segment, or its partial one, stays.
    package func keeps(_ segment: WALSegment) -> Bool {
        guard let needs else { return true }
        guard let path = paths[segment.timeline] ?? nil else {
            // It came after the listing, or its history is unknown.
            return needs.contains { $0.first <= segment.number && $0.last.map { segment.number <= $0 } ?? true }
        }
        return needs.contains { need in
            guard need.first <= segment.number else { return false }
            if path.contains(need.timeline) { return need.last.map { segment.number <= $0 } ?? true }
            // An older timeline of the same ancestry, up to where it was left.
            guard let left = need.ancestors[segment.timeline] else { return false }
            return segment.number <= min(need.last ?? .max, max(left.position / segmentSize, need.first))
        }
    }
}

extension WALRetention.Need {
    /// What a backup needs. `isAnchor`: everything after it as well.
    package init(_ record: CommitRecord, isAnchor: Bool, _ archive: ArchivedWAL) {
        let size = archive.segmentSize
        let span = record.span
        var first = span.startLSN.position / size
        var last = max(span.stopLSN.position, 1) - 1
        last /= size
        // What the record itself names; it may have been written with another idea of the borders.
        for name in [span.walFrom, span.walTo] {
            guard let segment = WALSegment(fileName: name, segmentSize: size) else { continue }
            first = min(first, segment.number)
            last = max(last, segment.number)
        }
        var ancestors: [TimelineID: LSN] = [:]
        for left in span.history { ancestors[left.timeline] = left.switchLSN }
        for entry in archive.history(of: span.timeline)?.entries ?? [] {
            guard let end = entry.end else { continue }
            ancestors[entry.timeline] = max(end, ancestors[entry.timeline] ?? end)
        }
        self.init(timeline: span.timeline, first: first, last: isAnchor ? nil : last, ancestors: ancestors)
    }

    /// What a running backup may need.
    package init(_ intent: Intent, _ archive: ArchivedWAL) {
        var ancestors: [TimelineID: LSN] = [:]
        for entry in archive.history(of: intent.timeline)?.entries ?? [] { ancestors[entry.timeline] = entry.end }
        self.init(
            timeline: intent.timeline, first: intent.startLSN.position / archive.segmentSize, last: nil,
            ancestors: ancestors)
    }
}

extension RetentionPlan {
    /// What stays of a system's WAL; nil where the facts say nothing of it.
    ///
    /// `isRemoved`: backups that do not count any more; others that may go count until then, so that their removal can
    /// be taken back.
    package func wal(
        of system: SystemIdentifier, _ facts: RetentionFacts, isRemoved: (Item) -> Bool
    ) -> WALRetention? {
        guard let known = facts.systems.first(where: { $0.identifier == system }) else { return nil }
        let own = items.filter { $0.backup.record.server.systemIdentifier == system && !isRemoved($0) }
        let running = facts.running.compactMap(\.intent).filter { $0.systemIdentifier == system }
        let needs =
            own.map { WALRetention.Need($0.backup.record, isAnchor: $0.keepsWALAfterIt, known.archive) }
            + running.map { WALRetention.Need($0, known.archive) }
        // The WAL of a system that pg_upgrade replaced is of no use without its backups; but only a backup of its
        // successor says that the upgrade stays (lesson 26).
        let isReplaced = facts.systems.last.map { newest in
            newest.identifier != system
                && items.contains { item in
                    item.backup.record.server.systemIdentifier == newest.identifier && !isRemoved(item)
                }
        }
        let keepsAll = !blocks.isEmpty || (own.isEmpty && isReplaced != true)
        return WALRetention(known.archive, needs: needs, keepsAll: keepsAll)
    }
}

// What backups and archived WAL say about a segment that no repository has: whether anybody still needs it.
//
// Pure. It is needed unless it is proven that all of it is in a backup and that nothing older could be recovered
// through it. Two servers may have written one timeline (docs/decisions/0016), so that timeline and number prove
// nothing: the proof is that the directory's own WAL goes on to the backup, archived with the same content.

package import KedgeCatalog
package import KedgeCore
import KedgePostgres

/// The archived WAL of one database system in all repositories that can be read, and its committed backups.
package struct WALCoverage: Sendable {
    private let archive: ArchivedWAL
    private let backups: [CommitRecord]

    package init(_ archive: ArchivedWAL, backups: [CommitRecord]) {
        self.archive = archive
        self.backups = backups
    }

    private var segmentSize: UInt64 { archive.segmentSize }

    /// Whether a backup holds all that the segment's WAL has done, and nothing older is there that needs it on its way.
    ///
    /// `archived`: the segments that lie beside it, of each of which a repository has the very content. One of them has
    /// to lie between it and the backup's end. A server removes its oldest segments first, so that they are there.
    package func isInBackup(_ segment: WALSegment, archived: [WALSegment]) -> Bool {
        let known = archive.inventory.timeline(segment.timeline)
        guard !hasOlder(segment), known?.contains(segment.number) != true,
            known?.partials.contains(segment.number) != true
        else { return false }
        let end = segment.next.startLSN(segmentSize: segmentSize)
        return backups.contains { backup in
            backup.span.startLSN >= end && isReached(backup.span.timeline, through: segment)
                && archived.contains { later in
                    let begin = later.startLSN(segmentSize: segmentSize)
                    return later.number > segment.number && begin < backup.span.stopLSN
                        && (later.timeline == backup.span.timeline
                            || archive.histories[backup.span.timeline]?.contains(later.timeline, upTo: begin + 1)
                                == true)
                }
        }
    }

    /// Whether the segment is missing in the middle of what is archived: recovery from before it ends there.
    package func isHole(_ segment: WALSegment) -> Bool {
        archive.inventory.timeline(segment.timeline)?.contains(segment.number) != true && hasOlder(segment)
            && hasNewer(segment)
    }

    /// Whether recovery may begin before the segment's end. What a timeline comes from need not be known.
    private func hasOlder(_ segment: WALSegment) -> Bool {
        let end = segment.next.startLSN(segmentSize: segmentSize)
        return backups.contains { $0.span.timeline <= segment.timeline && $0.span.startLSN < end }
            || archive.inventory.timelines.contains { timeline in
                guard timeline.id <= segment.timeline else { return false }
                let first = [timeline.runs.first?.lowerBound, timeline.partials.min()].compactMap(\.self).min()
                return first.map { $0 < segment.number } ?? false
            }
    }

    /// Whether there is something behind the segment that recovery could come to.
    private func hasNewer(_ segment: WALSegment) -> Bool {
        let begin = segment.startLSN(segmentSize: segmentSize)
        return backups.contains { $0.span.stopLSN > begin && isReached($0.span.timeline, through: segment) }
            || archive.inventory.timelines.contains { timeline in
                let last = [timeline.runs.last?.upperBound, timeline.partials.max()].compactMap(\.self).max()
                return last.map { $0 > segment.number } ?? false && isReached(timeline.id, through: segment)
            }
    }

    /// Whether all of the segment is on the way to the timeline.
    private func isReached(_ timeline: TimelineID, through segment: WALSegment) -> Bool {
        let end = segment.next.startLSN(segmentSize: segmentSize)
        return timeline == segment.timeline
            || archive.histories[timeline]?.contains(segment.timeline, upTo: end) == true
    }
}

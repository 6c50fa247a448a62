// Between which moments a cluster can be restored, for each timeline. Pure: backups and names of WAL in, windows out.
//
// A window is what one run of WAL makes reachable: from the end of the oldest backup that recovery can begin with, to
// where that WAL ends. A gap ends a window; the next backup after it begins another. Which files recovery reads is the
// chain's business (WALChain.swift).

package import KedgeCore
import KedgePostgres

/// The moments that recovery can reach along one timeline and its ancestors without a gap.
package struct RecoverableWindow: Sendable {
    package let timeline: TimelineID
    /// The backups in it, in the order of their stop LSNs; not empty.
    package fileprivate(set) var backups: [CommitRecord]
    /// The files from the first backup's start on.
    package let chain: WALChain
    /// No record that ends after this can be replayed.
    package let limit: LSN
    /// The damaged file that ends the window; nil where it ends because there are no more files.
    package let damage: WALSegment?

    /// Whether there is, or was, WAL behind the window that recovery does not get to, because some is missing.
    package var endsInHole: Bool { damage == nil && chain.endsInHole }

    /// The backup whose stop is the first moment.
    package var oldest: CommitRecord { backups[0] }
    package var newest: CommitRecord { backups[backups.count - 1] }

    /// The files that hold the window's end, last one first. The first may hold more than the window.
    package func forEachLinkBackwards<Failure: Error>(
        _ body: (WALLink) throws(Failure) -> Bool
    ) throws(Failure) {
        let segmentSize = chain.segmentSize
        for (index, run) in chain.runs.enumerated().reversed() {
            // The file in which a record that ends at the limit lies.
            let end = min(run.numbers.upperBound, (limit.position + segmentSize - 1) / segmentSize)
            guard end > run.numbers.lowerBound else { continue }
            for number in (run.numbers.lowerBound..<end).reversed() {
                let before: WALSegment?
                if number > run.numbers.lowerBound {
                    before = WALSegment(timeline: run.timeline, number: number - 1)
                } else {
                    before =
                        index > 0
                        ? WALSegment(
                            timeline: chain.runs[index - 1].timeline,
                            number: chain.runs[index - 1].numbers.upperBound - 1)
                        : nil
                }
                let link = WALLink(
                    segment: WALSegment(timeline: run.timeline, number: number), isPartial: run.isPartial,
                    previous: before)
                guard try body(link) else { return }
            }
        }
    }
}

/// Finds the windows.
package enum RecoverableWindows {
    /// The windows along every timeline of which WAL is archived, by timeline and then by position.
    ///
    /// `damage` says for segments with damaged records where the first of these lies: recovery ends there. `backups`
    /// are of one database system, that of `archive`.
    package static func find(
        backups: [CommitRecord], archive: ArchivedWAL, damage: [WALSegment: LSN] = [:]
    ) -> [RecoverableWindow] {
        var windows: [RecoverableWindow] = []
        let ordered = backups.sorted { ($0.span.stopLSN, $0.label) < ($1.span.stopLSN, $1.label) }
        for timeline in archive.inventory.timelines.map(\.id) {
            guard let history = archive.history(of: timeline) else { continue }
            var own: [RecoverableWindow] = []
            for backup in ordered where backup.lies(on: history) {
                guard let window = window(backup, along: history, archive, damage) else { continue }
                // What ends at the same place is the same run of WAL.
                if let last = own.indices.last, own[last].limit == window.limit {
                    own[last].backups.append(backup)
                } else {
                    own.append(window)
                }
            }
            windows += own
        }
        return windows
    }

    /// Whether the WAL that a backup needs to become consistent is there, on its own timeline.
    package static func canBecomeConsistent(
        _ backup: CommitRecord, archive: ArchivedWAL, damage: [WALSegment: LSN] = [:]
    ) -> Bool {
        guard let history = archive.history(of: backup.span.timeline) else { return false }
        return window(backup, along: history, archive, damage) != nil
    }

    /// What this one backup reaches; nil where it cannot become consistent.
    private static func window(
        _ backup: CommitRecord, along history: TimelineHistory, _ archive: ArchivedWAL, _ damage: [WALSegment: LSN]
    ) -> RecoverableWindow? {
        let first = backup.span.startLSN.position / archive.segmentSize
        let chain = WALChain(archive, along: history, from: first)
        var (limit, damaged): (LSN, WALSegment?) = (chain.limit, nil)
        for (segment, lsn) in damage where lsn < limit && lsn >= backup.span.startLSN && chain.reads(segment) {
            (limit, damaged) = (lsn, segment)
        }
        guard limit >= backup.span.stopLSN else { return nil }
        return RecoverableWindow(
            timeline: history.timeline, backups: [backup], chain: chain, limit: limit, damage: damaged)
    }
}

extension WALChain {
    /// Whether this segment is one of the files: whole, or as a partial one.
    package func reads(_ segment: WALSegment, isPartial: Bool = false) -> Bool {
        runs.contains {
            $0.timeline == segment.timeline && $0.isPartial == isPartial && $0.numbers.contains(segment.number)
        }
    }
}

// The moments at which a recoverable window begins and ends, learned from the facts of the few segments at its end.

package import KedgeCore
import KedgePostgres
import KedgeRepository

/// Tells windows' moments. Used by one thread at a time.
package struct WindowSurvey {
    private let survey: SegmentSurvey

    init(_ survey: SegmentSurvey) { self.survey = survey }

    /// Reads the facts of at most `segmentLimit` segments of `archive` in all.
    package init(_ archive: WALArchive, segmentLimit: Int, interruption: Interruption) {
        survey = SegmentSurvey(archive, limit: segmentLimit, interruption: interruption)
    }

    /// The first and the last moment of a window. Throws `interrupted` and what reading throws.
    package func describe(_ window: RecoverableWindow) throws(KedgeError) -> RepositoryInfo.WindowInfo {
        let stop = window.newest.span
        let segmentSize = window.chain.segmentSize
        var end = window.limit
        var time: Timestamp?
        var isFirst = true
        var isKnown = true
        try window.forEachLinkBackwards { (link) throws(KedgeError) in
            guard (link.segment.number + 1) * segmentSize > stop.stopLSN.position else { return false }
            guard let excerpt = try survey.excerpt(of: link), excerpt.isUnderstood else {
                isKnown = false
                return false
            }
            // A file that goes on beyond the window says nothing about what lies before its end.
            let isWhole = excerpt.lastRecord.map { $0 < window.limit } ?? true
            if isFirst, let last = excerpt.lastRecord, isWhole { end = last }
            isFirst = isFirst && excerpt.lastRecord == nil
            guard isWhole else { return true }
            time = excerpt.latestEnd
            return time == nil
        }
        // Without a commit after it, the last state is that of the backup itself. That of a standby's is older than its
        // stop time, nobody knows by how much: it had not replayed all that its primary had committed.
        if isKnown && !window.newest.server.fromStandby { time = max(time ?? stop.stopTime, stop.stopTime) }
        let start = window.oldest.span
        return RepositoryInfo.WindowInfo(
            timeline: window.timeline, from: RepositoryInfo.Moment(lsn: start.stopLSN, time: start.stopTime),
            to: RepositoryInfo.Moment(lsn: max(end, start.stopLSN), time: time), newestBackup: window.newest.label,
            backupCount: window.backups.count, backups: window.backups)
    }
}

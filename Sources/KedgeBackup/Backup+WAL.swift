// The WAL of a backup. That it is archived at all is found out when the backup begins; before the commit, all that a
// restore needs is waited for and looked at.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

extension Backup {
    /// Finds out now, and not when all is copied, whether WAL reaches this repository (lesson 42): the first segment
    /// that the backup needs is ended and waited for.
    func checkArchiving(_ session: Session) throws(KedgeError) {
        tools.progress.begin("checking that WAL is archived")
        if let primary = session.primary {
            let segment = try primary.endSegment(segmentSize: session.server.registration.walSegmentSize)
            return try watch(session).wait(for: segment...segment)
        }
        // Of a standby's WAL nobody knows when it comes.
        guard !session.server.isStandby else { return }
        _ = try session.connection.switchWAL()
        let first = firstSegment(session)
        let watch = watch(session)
        try watch.wait(for: first...first)
        _ = try watch.examine(first...first)
        do throws(KedgeError) {
            try checkHistories(session, session.online.start.timeline, watch)
        } catch  where error.code == .archivingBroken {
            // It may come while files are copied.
            tools.warn("The backup will fail in the end: \(error.message).  \(error.hint ?? "")")
        }
    }

    /// The WAL that the backup needs, once all of it is in this repository.
    struct NeededWAL {
        let segments: ClosedRange<WALSegment>
        let history: TimelineHistory
        let suspects: [CommitRecord.SuspectWAL]
    }

    /// Waits for the WAL up to the stop, and looks at it. Throws as `ArchiveWatch`.
    func waitForWAL(_ session: Session, _ stop: OnlineBackup.Stop) throws(KedgeError) -> NeededWAL {
        let size = session.server.registration.walSegmentSize
        let timeline = session.online.start.timeline
        // The stop is the end of a record: at a segment's border it belongs to the segment before (XLByteToPrevSeg).
        let last = WALSegment(timeline: timeline, containing: LSN(stop.lsn.position - 1), segmentSize: size)
        let segments = firstSegment(session)...last
        let watch = watch(session)
        try session.primary?.end(last, segmentSize: size)
        if session.server.isStandby, session.primary == nil,
            let missing = try session.archive.firstMissing(from: segments.lowerBound, through: last)
        {
            tools.warn(
                "The backup waits until WAL segments \(missing.fileName(segmentSize: size)) to "
                    + "\(last.fileName(segmentSize: size)) are archived; \"SELECT pg_switch_wal()\" on the primary "
                    + "ends the last one.")
        }
        try watch.wait(for: segments)
        let history = try checkHistories(session, timeline, watch)
        return NeededWAL(segments: segments, history: history, suspects: try watch.examine(segments))
    }

    /// The ancestry of the backup's timeline, of which the repository has every file that a restore needs.
    @discardableResult
    private func checkHistories(
        _ session: Session, _ timeline: TimelineID, _ watch: ArchiveWatch
    ) throws(KedgeError) -> TimelineHistory {
        let history = try history(session, timeline)
        try watch.checkHistories(history, pgWAL: options.dataDirectory.appending("pg_wal"))
        return history
    }

    /// The ancestry of the backup's timeline. A standby may follow a timeline whose history it never kept, and the
    /// file of a primary may have been removed.
    private func history(_ session: Session, _ timeline: TimelineID) throws(KedgeError) -> TimelineHistory {
        let known = try TimelineHistory(ofServerIn: options.dataDirectory, timeline: timeline)
        guard timeline.number > 1, known.entries.count < 2 else { return known }
        return try session.archive.histories().read[timeline] ?? known
    }

    private func watch(_ session: Session) -> ArchiveWatch {
        ArchiveWatch(
            archive: session.archive, connection: session.primary?.connection ?? session.connection,
            dataDirectory: options.dataDirectory, isOfStandby: session.server.isStandby,
            timeout: options.archiveTimeout, explainPush: options.explainPush, time: tools.time,
            interruption: tools.interruption)
    }

    private func firstSegment(_ session: Session) -> WALSegment {
        WALSegment(
            timeline: session.online.start.timeline, containing: session.online.start.lsn,
            segmentSize: session.server.registration.walSegmentSize)
    }
}

// Waits until WAL files are in the repository, and says why they are not there when it gives up.
//
// The repository alone is believed: that the server counts a file as archived says nothing about this repository. The
// bound is on time without any progress, so that a long backlog is waited for as long as it shrinks.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// Waits for the WAL of one backup.
struct ArchiveWatch {
    let archive: WALArchive
    let connection: DatabaseConnection
    let dataDirectory: RawPath
    /// The server whose archiver is waited for is another one than that of the data directory, or unknown.
    let isOfStandby: Bool
    let timeout: Duration
    /// What kedge itself would say about a file that the archiver could not store; nil where nobody can tell.
    let explainPush: (@Sendable (String) -> String?)?
    let time: any TimeSource
    let interruption: Interruption

    /// A segment is mostly there within some hundredths of a second. What takes longer is looked for less often.
    private static let pollNanoseconds: (first: UInt64, last: UInt64) = (10_000_000, 250_000_000)

    /// Waits until every segment of `segments`, which are of one timeline, is in the repository.
    ///
    /// The server is asked all the while how archiving goes: when it can't be asked, the wait fails. Throws
    /// `archiving-broken`, `interrupted` and what reading and asking throw.
    func wait(for segments: ClosedRange<WALSegment>) throws(KedgeError) {
        var missing = segments.lowerBound
        let limit = UInt64(max(0, timeout.components.seconds)) * 1_000_000_000
        var lastProgress = time.monotonicNanoseconds()
        let start = try facts(about: missing)
        var before = start.statistics
        var pause = ArchiveWatch.pollNanoseconds.first
        while true {
            let next = try archive.firstMissing(from: missing, through: segments.upperBound)
            guard let next else { return }
            let now = try connection.archiverStatistics()
            if next != missing || isCatchingUp(to: next, before, now) { lastProgress = time.monotonicNanoseconds() }
            (missing, before) = (next, now)
            guard time.monotonicNanoseconds() - lastProgress < limit else { throw try failure(missing, since: start) }
            try time.sleep(nanoseconds: pause, unless: interruption)
            pause = min(pause + pause / 2, ArchiveWatch.pollNanoseconds.last)
        }
    }

    /// Whether the archiver works through segments before the missing one. Once it is past that and the repository
    /// lacks it, it archives to somewhere else, and goes on doing so.
    private func isCatchingUp(
        to missing: WALSegment, _ before: ArchiverStatistics, _ now: ArchiverStatistics
    ) -> Bool {
        guard now.archivedCount != before.archivedCount, let name = now.lastArchivedFile,
            let last = WALSegment(fileName: name, segmentSize: archive.registration.walSegmentSize)
        else { return false }
        return last < missing
    }

    private func facts(about segment: WALSegment) throws(KedgeError) -> ArchivingFacts {
        try ArchivingFacts.ask(
            connection, about: segment.fileName(segmentSize: archive.registration.walSegmentSize),
            dataDirectory: dataDirectory)
    }

    private func failure(_ missing: WALSegment, since start: ArchivingFacts) throws(KedgeError) -> KedgeError {
        guard !isOfStandby else { return try standbyFailure(missing) }
        let diagnosis = ArchivingDiagnosis(
            segment: missing, segmentSize: archive.registration.walSegmentSize, before: start,
            now: try facts(about: missing), waitedSeconds: UInt64(max(0, timeout.components.seconds)),
            dataDirectory: dataDirectory)
        return diagnosis.error(
            archive.cluster.repository.name, explanation: diagnosis.failedPush.flatMap { explainPush?($0) })
    }

    /// Little is known of the archiver of another host.
    private func standbyFailure(_ missing: WALSegment) throws(KedgeError) -> KedgeError {
        let last = try connection.archiverStatistics().lastArchivedFile
        let name = missing.fileName(segmentSize: archive.registration.walSegmentSize)
        return KedgeError(
            .archivingBroken,
            "WAL segment \(name) did not arrive in repository \"\(archive.cluster.repository.name)\"",
            detail: "It was waited for \(timeout.components.seconds) s without progress. "
                + (last.map { "The file that the server archived last is \($0)." } ?? "The server archives nothing."),
            hint: "Check archiving on the primary. With primary-host in the cluster's section kedge ends the segment "
                + "there by itself; else run \"SELECT pg_switch_wal()\" on the primary.")
    }

    /// Checks that the history file of every timeline of the ancestry that has one is in the repository.
    ///
    /// `history` is that of the backup's timeline. Throws `archiving-broken`, which says how to store a missing one.
    func checkHistories(_ history: TimelineHistory, pgWAL: RawPath) throws(KedgeError) {
        // The first timeline of an ancestry has no ancestors, and so no file. Where nothing is known of the ancestry of
        // one above 1, that is because the file is gone: no server follows the timeline without it.
        var timelines = history.entries.dropFirst().map(\.timeline)
        if timelines.isEmpty, history.timeline.number > 1 { timelines = [history.timeline] }
        for timeline in timelines {
            let file = WALFileName.history(timeline)
            guard try archive.find(file).isEmpty else { continue }
            let path = pgWAL.appending(file.text)
            throw KedgeError(
                .archivingBroken,
                "could not find timeline history file \"\(file.text)\" in repository "
                    + "\"\(archive.cluster.repository.name)\"",
                detail:
                    "Recovery needs it to find its way from the backup's timeline \(history.timeline) to later ones.",
                hint: try FileSystem.exists(path)
                    ? "Run \"kedge archive-push \(path)\" and then the backup again."
                    : "It is not in pg_wal either: copy it there from another server, run \"kedge archive-push "
                        + "\(path)\", and then the backup again.  If nobody has it, as after pg_resetwal, promote the "
                        + "server once, and its next timeline has one: stop it, make \"standby.signal\" in its data "
                        + "directory, start it, and run \"SELECT pg_promote()\".")
        }
    }

    /// Looks at what has arrived: it must be this server's own WAL. Returns what its facts say of damage.
    ///
    /// Throws `archive-conflict` where it is not, and what reading throws.
    func examine(_ segments: ClosedRange<WALSegment>) throws(KedgeError) -> [CommitRecord.SuspectWAL] {
        let own = OwnWAL(archive: archive, dataDirectory: dataDirectory)
        var suspects: [CommitRecord.SuspectWAL] = []
        var segment = segments.lowerBound
        while segment <= segments.upperBound {
            try interruption.checkpoint()
            let name = segment.fileName(segmentSize: archive.registration.walSegmentSize)
            for archived in try archive.find(.segment(name)) {
                let facts = try archive.facts(of: archived)
                // A standby may not have received all of the last one yet.
                if !isOfStandby || segment < segments.upperBound { try own.check(segment, against: archived, facts) }
                if let defect = facts.segment?.suspect {
                    suspects.append(CommitRecord.SuspectWAL(file: name, lsn: defect.lsn, reason: defect.reason))
                }
            }
            segment = segment.next
        }
        return suspects
    }
}

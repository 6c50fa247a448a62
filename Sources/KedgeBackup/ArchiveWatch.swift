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
    let timeout: Duration
    let time: any TimeSource
    let interruption: Interruption

    private static let pollNanoseconds: UInt64 = 250_000_000
    private static let listLimit = 1000

    /// Waits until every segment of `segments`, which are of one timeline, is in the repository.
    ///
    /// `statistics` asks the server how archiving goes, and fails the wait when the server can't be asked. Throws
    /// `archiving-broken`, `interrupted` and what reading throws.
    func wait(
        for segments: ClosedRange<WALSegment>, statistics: () throws(KedgeError) -> ArchiverStatistics
    ) throws(KedgeError) {
        var missing = segments.lowerBound
        let limit = UInt64(timeout.components.seconds) * 1_000_000_000
        var lastProgress = time.monotonicNanoseconds()
        var before = try statistics()
        while true {
            let next = try firstMissing(from: missing, through: segments.upperBound)
            guard let next else { return }
            let now = try statistics()
            if next != missing || isCatchingUp(to: next, before, now) { lastProgress = time.monotonicNanoseconds() }
            (missing, before) = (next, now)
            guard time.monotonicNanoseconds() - lastProgress < limit else { throw failure(missing, now) }
            try time.sleep(nanoseconds: ArchiveWatch.pollNanoseconds, unless: interruption)
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

    /// The first segment that the repository lacks; nil where it has all. Listed in pages, not asked for one by one
    /// (lesson 41).
    func firstMissing(from first: WALSegment, through last: WALSegment) throws(KedgeError) -> WALSegment? {
        let size = archive.registration.walSegmentSize
        let system = archive.registration.systemIdentifier
        let cluster = archive.cluster
        let directory = cluster.name(ClusterLayout.walDirectory(system, timeline: first.timeline))
        var expected = first
        // Listings begin after a name: that of the segment before. Its own copies with a tag come first, and are
        // skipped.
        var after: ObjectName?
        if first.number > 0 {
            let previous = WALSegment(timeline: first.timeline, number: first.number - 1)
            after = cluster.name(
                ClusterLayout.walFile(.segment(previous.fileName(segmentSize: size)), of: system, tag: nil))
        }
        while true {
            let page = try cluster.repository.store.list(
                below: directory, after: after, limit: ArchiveWatch.listLimit)
            for entry in page.entries {
                guard case .segment(let name)? = ClusterLayout.parseWALFile(entry.name.lastComponent)?.file,
                    let found = WALSegment(fileName: name, segmentSize: size), found >= expected
                else { continue }
                guard found == expected else { return expected }
                if expected == last { return nil }
                expected = expected.next
            }
            guard let next = page.next else { return expected }
            after = next
        }
    }

    private func failure(_ missing: WALSegment, _ statistics: ArchiverStatistics) -> KedgeError {
        let name = missing.fileName(segmentSize: archive.registration.walSegmentSize)
        let repository = archive.cluster.repository.name
        return KedgeError(
            .archivingBroken, "could not find WAL segment \"\(name)\" in repository \"\(repository)\"",
            detail: "Nothing new arrived there for \(timeout.components.seconds) s. "
                + ArchiveWatch.describe(statistics),
            hint: "Look into the server's log for what archive_command says, check that it stores into repository "
                + "\"\(repository)\", and run \"kedge check\". A longer wait is set with archive-timeout.")
    }

    /// What the server says about its archiver, in sentences.
    static func describe(_ statistics: ArchiverStatistics) -> String {
        var text = "The server has archived \(statistics.archivedCount) file(s)"
        if let file = statistics.lastArchivedFile, let time = statistics.lastArchivedTime {
            text += ", the last one \"\(file)\" at \(time)"
        }
        text += "; \(statistics.failedCount) attempt(s) failed"
        if let file = statistics.lastFailedFile, let time = statistics.lastFailedTime {
            text += ", the last one with \"\(file)\" at \(time)"
        }
        return text + "."
    }

    /// Checks that the history file of every timeline of the ancestry that has one is in the repository.
    ///
    /// `history` is that of the backup's timeline. Throws `archiving-broken`, which says how to store a missing one.
    func checkHistories(_ history: TimelineHistory, pgWAL: RawPath) throws(KedgeError) {
        // The first timeline of an ancestry has no ancestors, and so no file.
        for entry in history.entries.dropFirst() {
            let file = WALFileName.history(entry.timeline)
            guard try archive.find(file).isEmpty else { continue }
            throw KedgeError(
                .archivingBroken,
                "could not find timeline history file \"\(file.text)\" in repository "
                    + "\"\(archive.cluster.repository.name)\"",
                detail:
                    "Recovery needs it to find its way from the backup's timeline \(history.timeline) to later ones.",
                hint: "Run \"kedge archive-push \(pgWAL.appending(file.text))\" and then the backup again.")
        }
    }

    /// What the facts of the segments say of damage in them.
    func suspects(in segments: ClosedRange<WALSegment>) throws(KedgeError) -> [CommitRecord.SuspectWAL] {
        var suspects: [CommitRecord.SuspectWAL] = []
        var segment = segments.lowerBound
        while segment <= segments.upperBound {
            try interruption.checkpoint()
            let name = segment.fileName(segmentSize: archive.registration.walSegmentSize)
            for archived in try archive.find(.segment(name)) {
                if let defect = try archive.facts(of: archived).segment?.suspect {
                    suspects.append(CommitRecord.SuspectWAL(file: name, lsn: defect.lsn, reason: defect.reason))
                }
            }
            segment = segment.next
        }
        return suspects
    }
}

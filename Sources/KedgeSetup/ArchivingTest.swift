// Whether archiving works, shown by one segment: written to, switched, and waited for in every repository (lesson 42).
//
//   restore point ──▶ pg_switch_wal ──▶ the server has archived the segment that holds the restore point, and it is in
//                                       every repository, and opens
//                                   ──▶ not in time: what PostgreSQL knows about it, the likely cause, what to do
//
// The archiver gives up a segment after three failures and comes back a minute later (NUM_ARCHIVE_RETRIES and
// PGARCH_AUTOWAKE_INTERVAL, src/backend/postmaster/pgarch.c), so three failures end the wait.

import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// Waits for one segment to arrive.
struct ArchivingTest {
    let connection: DatabaseConnection
    let server: TestedServer
    let repositories: [ClusterRepository]
    let dataDirectory: RawPath
    let timeout: Duration
    /// What kedge itself would say about a file that the archiver could not store; nil where nobody can tell.
    let explainPush: (@Sendable (String) -> String?)?
    let time: any TimeSource
    let interruption: Interruption

    private static let pollNanoseconds: UInt64 = 200_000_000
    private static let failuresBeforeGivingUp = 3

    /// Throws `interrupted`.
    func run(_ report: inout CheckReport) throws(KedgeError) {
        guard !server.isInRecovery else {
            return report.warn(
                .archiving,
                KedgeError(
                    .notSupported, "archiving was not tested: a standby cannot switch to a new WAL segment",
                    hint: "Run \"kedge check\" on the primary."))
        }
        guard server.archives, !repositories.isEmpty else {
            let reason = server.archives ? "no repository can be used" : "the server is not set up for it"
            return report.warn(
                .archiving,
                KedgeError(
                    .archivingBroken, "archiving was not tested: \(reason)",
                    hint: "Correct what failed above, and run \"kedge check\" again."))
        }
        let begun = try report.attempt(.archiving) { () throws(KedgeError) in
            let segment = try switchSegment()
            return (before: try facts(about: segment), segment: segment)
        }
        guard let begun else { return }
        try wait(for: begun.segment, since: begun.before, &report)
    }

    /// Makes sure that the present segment holds something, and ends it.
    private func switchSegment() throws(KedgeError) -> WALSegment {
        let timeline = try connection.position().timeline
        let end = try connection.createRestorePoint("kedge check \(time.now())")
        _ = try connection.switchWAL()
        // The LSN is the first byte after the record, which may be the first of the next segment.
        return WALSegment(
            timeline: timeline, containing: LSN(end.position - 1), segmentSize: server.settings.walSegmentSizeBytes)
    }

    // MARK: - Waiting

    private func wait(
        for segment: WALSegment, since before: ArchivingFacts, _ report: inout CheckReport
    ) throws(KedgeError) {
        let start = time.monotonicNanoseconds()
        let limit = UInt64(max(0, timeout.components.seconds)) * 1_000_000_000
        var missing = repositories
        while true {
            let elapsed = time.monotonicNanoseconds() - start
            let now = try report.attempt(.archiving) { () throws(KedgeError) in try facts(about: segment) }
            guard let now else { return }
            if isArchived(segment, by: now.statistics) {
                try removeArrived(segment, from: &missing, after: elapsed, &report)
            }
            guard !missing.isEmpty else { return }
            let hasGivenUp =
                now.statistics.failedCount - before.statistics.failedCount >= Self.failuresBeforeGivingUp
                && now.statistics.archivedCount == before.statistics.archivedCount
            guard !hasGivenUp, elapsed < limit else {
                let diagnosis = ArchivingDiagnosis(
                    segment: segment, segmentSize: server.settings.walSegmentSizeBytes, before: before, now: now,
                    waitedSeconds: elapsed / 1_000_000_000, dataDirectory: dataDirectory)
                let explanation = diagnosis.failedPush.flatMap { explainPush?($0) }
                for cluster in missing {
                    let name = cluster.repository.name
                    report.fail(.archiving, in: name, diagnosis.error(name, explanation: explanation))
                }
                return
            }
            try time.sleep(nanoseconds: Self.pollNanoseconds, unless: interruption)
        }
    }

    /// Whether the server counts the segment as archived. A repository that has one of this name may have another
    /// server's, and this server's fails then.
    private func isArchived(_ segment: WALSegment, by statistics: ArchiverStatistics) -> Bool {
        // Files other than segments begin with the name of one, but for history files.
        guard let name = statistics.lastArchivedFile?.prefix(24),
            let last = WALSegment(fileName: String(name), segmentSize: server.settings.walSegmentSizeBytes)
        else { return false }
        return last >= segment
    }

    /// Reports and removes the repositories that have the segment, or that can't be asked for it.
    private func removeArrived(
        _ segment: WALSegment, from missing: inout [ClusterRepository], after elapsed: UInt64,
        _ report: inout CheckReport
    ) throws(KedgeError) {
        let file = segment.fileName(segmentSize: server.settings.walSegmentSizeBytes)
        var still: [ClusterRepository] = []
        for cluster in missing {
            let name = cluster.repository.name
            let hasArrived = try report.attempt(.archiving, in: name) { () throws(KedgeError) in
                let registration = try cluster.registration(of: server.settings.systemIdentifier)
                let archive = WALArchive(cluster, registration)
                guard let found = try archive.find(.segment(file)).first else { return false }
                // That it can be opened with the configured key is part of "it has arrived".
                _ = try archive.facts(of: found)
                return true
            }
            switch hasArrived {
            case true?:
                let milliseconds = elapsed / 1_000_000
                report.ok(.archiving, in: name, "segment \(file) arrived after \(milliseconds) ms")
            case false?: still.append(cluster)
            case nil: break
            }
        }
        missing = still
    }

    private func facts(about segment: WALSegment) throws(KedgeError) -> ArchivingFacts {
        try ArchivingFacts.ask(
            connection, about: segment.fileName(segmentSize: server.settings.walSegmentSizeBytes),
            dataDirectory: dataDirectory)
    }
}

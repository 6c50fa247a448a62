// Why a segment did not arrive, judged by what the server counts. Pure: counters in, an error that says what to do out.

import KedgeCore
import KedgePostgres

/// What the server knows about its archiver at one moment.
struct ArchiverState: Sendable, Equatable {
    let statistics: ArchiverStatistics
    /// Files in pg_wal/archive_status that end in .ready; nil where that could not be seen.
    let waitingFiles: Int?
}

/// What happened, or did not happen, to a segment that was waited for.
struct ArchivingDiagnosis: Sendable {
    let segment: WALSegment
    let segmentSize: UInt64
    let before: ArchiverState
    let now: ArchiverState
    let waitedSeconds: UInt64
    let archiveCommand: String
    let dataDirectory: RawPath

    /// What most likely is wrong.
    enum Cause: Sendable, Equatable {
        /// The server counts the segment as archived.
        case storedElsewhere
        /// The last attempt failed; with this file.
        case commandFails(String)
        /// Files are archived, but others come first.
        case isBehind
        /// Nothing was archived and nothing failed while we waited.
        case standsStill
    }

    var cause: Cause {
        let statistics = now.statistics
        if let last = statistics.lastArchivedFile.flatMap({ WALSegment(fileName: $0, segmentSize: segmentSize) }),
            last.timeline == segment.timeline, last.number >= segment.number
        {
            return .storedElsewhere
        }
        if let file = statistics.lastFailedFile, let failed = statistics.lastFailedTime,
            failed >= statistics.lastArchivedTime ?? failed
        {
            return .commandFails(file)
        }
        return statistics.archivedCount > before.statistics.archivedCount ? .isBehind : .standsStill
    }

    /// The error for a repository that lacks the segment.
    func error(_ repository: String) -> KedgeError {
        let file = segment.fileName(segmentSize: segmentSize)
        return KedgeError(
            .archivingBroken,
            "could not find WAL segment \"\(file)\" in repository \"\(repository)\" after \(waitedSeconds) s",
            detail: [explanation, counters].joined(separator: "  "), hint: hint(repository))
    }

    private var explanation: String {
        switch cause {
        case .storedElsewhere: "PostgreSQL counts the segment as archived, but it is not in this repository."
        case .commandFails(let file): "The archive_command fails: the last attempt was with \"\(file)\"."
        case .isBehind: "Archiving works but is behind: other files come first."
        case .standsStill: "The archiver has neither stored nor failed anything meanwhile."
        }
    }

    private var counters: String {
        let statistics = now.statistics
        var text = "The server has archived \(statistics.archivedCount) file(s)"
        if let file = statistics.lastArchivedFile, let time = statistics.lastArchivedTime {
            text += ", the last one \"\(file)\" at \(time)"
        }
        text += "; \(statistics.failedCount) attempt(s) failed"
        if let file = statistics.lastFailedFile, let time = statistics.lastFailedTime {
            text += ", the last one with \"\(file)\" at \(time)"
        }
        if let waiting = now.waitingFiles { text += "; \(waiting) file(s) wait in pg_wal" }
        return text + "."
    }

    private func hint(_ repository: String) -> String {
        switch cause {
        case .storedElsewhere:
            return "Check that archive_command calls kedge with this configuration and cluster, that the cluster's "
                + "repositories there include \"\(repository)\", and that it does not hide a failure."
        case .commandFails(let file):
            return "Look into the server's log for what the command said, or run it by hand as the server's user: "
                + "cd '\(dataDirectory)' && \(command(for: file))"
        case .isBehind:
            return
                "Run \"kedge check\" again later, or with a longer --archive-timeout.  If the files that wait become "
                + "more, WAL is written faster than it is stored: raise process-max, or choose a faster compression."
        case .standsStill:
            return "Look for a process \"archive-push\" on the server's host and for what it waits, and into the "
                + "server's log for the archiver.  After three failures the archiver pauses for a minute."
        }
    }

    /// The archive_command as the server runs it for `file` (BuildArchiveCommand, src/backend/archive/shell_archive.c).
    private func command(for file: String) -> String {
        var result = ""
        var rest = archiveCommand[...]
        while let percent = rest.firstIndex(of: "%") {
            result += rest[..<percent]
            rest = rest[percent...].dropFirst()
            switch rest.first {
            case "p": result += "pg_wal/\(file)"
            case "f": result += file
            case "%": result += "%"
            case let other: result += "%" + (other.map { String($0) } ?? "")
            }
            rest = rest.dropFirst()
        }
        return result + rest
    }
}

// Why a segment did not arrive, judged by what the server tells. Pure: facts in, an error that says what to do out.

package import KedgeCore
import KedgePostgres

/// What happened, or did not happen, to a segment that was waited for.
package struct ArchivingDiagnosis: Sendable {
    package let segment: WALSegment
    package let segmentSize: UInt64
    /// When the wait began, and when it was given up.
    package let before: ArchivingFacts
    package let now: ArchivingFacts
    package let waitedSeconds: UInt64
    package let dataDirectory: RawPath

    package init(
        segment: WALSegment, segmentSize: UInt64, before: ArchivingFacts, now: ArchivingFacts, waitedSeconds: UInt64,
        dataDirectory: RawPath
    ) {
        self.segment = segment
        self.segmentSize = segmentSize
        self.before = before
        self.now = now
        self.waitedSeconds = waitedSeconds
        self.dataDirectory = dataDirectory
    }

    /// What most likely is wrong.
    package enum Cause: Sendable, Hashable {
        /// archive_mode is off.
        case modeIsOff
        /// A standby archives only with archive_mode = always.
        case standbyDoesNotArchive
        /// There is neither a command nor a library.
        case nothingIsCalled
        /// The server still writes to the segment.
        case isNotFinished
        /// The server counts the segment as archived, by this library.
        case libraryStoredElsewhere(String)
        /// The server counts the segment as archived, by a command that is not kedge's.
        case otherCommandStoredElsewhere
        /// The server counts the segment as archived, by kedge.
        case storedElsewhere
        /// The last attempt failed; with this file.
        case fails(String)
        case archiverIsNotRunning
        /// It ended and began anew while we waited.
        case archiverRestarts
        /// Files are archived, but others come first.
        case isBehind
        /// The archiver has been busy with this file all the while.
        case hangs(String)
        /// Nothing was archived and nothing failed while we waited, and more can't be seen.
        case standsStill
    }

    /// The first that fits, from what the settings rule out to what only the counters suggest.
    package var cause: Cause {
        if now.archiveMode == .off { return .modeIsOff }
        if now.isInRecovery, now.archiveMode != .always { return .standbyDoesNotArchive }
        if now.archiveCommand.isEmpty, now.archiveLibrary.isEmpty { return .nothingIsCalled }
        if now.timeline == segment.timeline, now.lsn < segment.next.startLSN(segmentSize: segmentSize) {
            return .isNotFinished
        }
        if isCountedAsArchived {
            if !now.archiveLibrary.isEmpty { return .libraryStoredElsewhere(now.archiveLibrary) }
            return now.callsKedge ? .storedElsewhere : .otherCommandStoredElsewhere
        }
        let statistics = now.statistics
        if let file = statistics.lastFailedFile, let failed = statistics.lastFailedTime,
            failed >= statistics.lastArchivedTime ?? failed
        {
            return .fails(file)
        }
        if let archiver = now.archiver, !archiver.isRunning { return .archiverIsNotRunning }
        if let since = now.archiver?.since, let earlier = before.archiver?.since, since > earlier {
            return .archiverRestarts
        }
        if statistics.archivedCount > before.statistics.archivedCount { return .isBehind }
        if let next = now.backlog?.next { return .hangs(next) }
        return .standsStill
    }

    private var isCountedAsArchived: Bool {
        // The server's own note about this very segment knows better than the order of names.
        if now.isReady == true { return false }
        let last = now.statistics.lastArchivedFile.flatMap { WALSegment(fileName: $0, segmentSize: segmentSize) }
        guard let last else { return false }
        return last.timeline == segment.timeline && last.number >= segment.number
    }

    // MARK: - Words

    /// The error for a repository that lacks the segment.
    ///
    /// `explanation` is what kedge itself would say about a file that the archiver could not store, if that was tried.
    package func error(_ repository: String, explanation: String? = nil) -> KedgeError {
        let file = segment.fileName(segmentSize: segmentSize)
        let sentences = [whatIsWrong, explanation, counters, backlog, rates].compactMap { $0 }
        return KedgeError(
            .archivingBroken,
            "could not find WAL segment \"\(file)\" in repository \"\(repository)\" after \(waitedSeconds) s",
            detail: sentences.joined(separator: "  "), hint: hint(repository))
    }

    /// The file that the archiver could not store by calling kedge; nil where it was not that.
    package var failedPush: String? {
        guard now.callsKedge, case .fails(let file) = cause else { return nil }
        return file
    }

    private var caller: String { now.archiveLibrary.isEmpty ? "archive_command" : "archive_library" }

    private var whatIsWrong: String {
        let file = segment.fileName(segmentSize: segmentSize)
        switch cause {
        case .modeIsOff: return "archive_mode is off: the server archives nothing."
        case .standbyDoesNotArchive:
            return "The server is a standby, which archives nothing with archive_mode = on."
        case .nothingIsCalled: return "archive_command is empty: segments pile up in pg_wal."
        case .isNotFinished: return "The server still writes to this segment, and archives it once it is finished."
        case .libraryStoredElsewhere(let library):
            return "PostgreSQL counts the segment as archived, by archive_library \"\(library)\", not by kedge."
        case .otherCommandStoredElsewhere:
            return "PostgreSQL counts the segment as archived, but by a command that is not kedge's: "
                + "\"\(now.archiveCommand)\"."
        case .storedElsewhere:
            return "PostgreSQL counts the segment as archived, but it is not in this repository."
        case .fails(let failed) where failed == file: return "The \(caller) fails with this very segment."
        case .fails(let failed):
            return "The \(caller) fails with \"\(failed)\", and the archiver goes on to nothing else before that."
        case .archiverIsNotRunning:
            return "The server's archiver process does not run: a command that a signal ends, or that exits above 125, "
                + "ends it too, and PostgreSQL counts no failure then."
        case .archiverRestarts:
            return "The archiver process ended and was started anew meanwhile: a command that a signal ends, or that "
                + "exits above 125, does that to it, and PostgreSQL counts no failure then."
        case .isBehind: return "Archiving works but is behind: other files come first."
        case .hangs(let next) where next == file:
            return "The archiver has neither stored this segment nor failed: its command does not come back."
        case .hangs(let next):
            return "The archiver has neither stored nor failed anything meanwhile: it is at \"\(next)\", which comes "
                + "before this segment."
        case .standsStill: return "The archiver has neither stored nor failed anything meanwhile."
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
        return text + "."
    }

    private var backlog: String? {
        guard let backlog = now.backlog else { return nil }
        guard backlog.files > 0 else { return "No file waits in pg_wal." }
        let (bytes, overflow) = segmentSize.multipliedReportingOverflow(by: UInt64(clamping: backlog.files))
        var text = "\(backlog.files) file(s) wait in pg_wal"
        if !overflow { text += ", up to \(HumanText.size(bytes))" }
        if let next = backlog.next { text += ", the next one \"\(next)\"" }
        if let since = backlog.since { text += ", the oldest since \(since)" }
        return text + "."
    }

    /// How much WAL came and went, and how long pg_wal lasts if that goes on. Nil where too little time has passed.
    private var rates: String? {
        let microseconds = now.time.microseconds - before.time.microseconds
        guard microseconds >= 1_000_000, now.timeline == before.timeline, now.lsn >= before.lsn else { return nil }
        let seconds = Double(microseconds) / 1e6
        let written = Double(now.lsn.position - before.lsn.position) / seconds
        let files = max(0, now.statistics.archivedCount - before.statistics.archivedCount)
        let archived = Double(files) * Double(segmentSize) / seconds
        var text =
            "WAL is written at \(HumanText.rate(bytesPerSecond: written)) and archived at "
            + HumanText.rate(bytesPerSecond: archived)
        if let free = now.freeBytes {
            text += "; the file system of pg_wal has \(HumanText.size(free)) free"
            // Below a byte a second it lasts for longer than anybody cares.
            if written - archived >= 1 {
                let left = min(Double(free) / (written - archived), 3e9)
                text += " and is full in \(HumanText.duration(.seconds(Int64(left)))) at this rate"
            }
        }
        return text + "."
    }

    private static let initHint = "Put the lines that \"kedge init\" prints into postgresql.conf"

    private func hint(_ repository: String) -> String {
        switch cause {
        case .modeIsOff: return Self.initHint + " and restart the server."
        case .nothingIsCalled: return Self.initHint + " and reload the server."
        case .standbyDoesNotArchive:
            return "Let the primary archive into repository \"\(repository)\", or set archive_mode = always on the "
                + "standby and restart it."
        case .isNotFinished:
            return "Wait until it is full, call pg_switch_wal() on the primary, or set archive_timeout there."
        case .libraryStoredElsewhere:
            return "Set archive_library = '' and archive_command to what \"kedge init\" prints, and reload the server; "
                + "archive both ways only if you mean to."
        case .otherCommandStoredElsewhere:
            return
                "Set archive_command to what \"kedge init\" prints, and reload the server.  If the command is a script "
                + "that calls kedge, check that it calls it for every file and hides no failure."
        case .storedElsewhere:
            return "Check that archive_command calls kedge with this configuration and cluster, that the cluster's "
                + "repositories there include \"\(repository)\", and that it does not hide a failure."
        case .fails where !now.archiveLibrary.isEmpty:
            return "Look into the server's log for what the library said."
        case .fails(let file):
            return "Look into the server's log for what the command said, or run it by hand as the server's user: "
                + "cd '\(dataDirectory)' && \(command(for: file))"
        case .archiverIsNotRunning, .archiverRestarts:
            return
                "Look into the server's log for how the command or the archiver ended, and for what ended it (such as "
                + "the kernel, for want of memory).  The server starts the archiver again after ten seconds."
        case .isBehind:
            return
                "Run the command again later, or with a longer --archive-timeout.  If the files that wait become "
                + "more, WAL is written faster than it is stored: raise process-max, or choose a faster compression."
        case .hangs, .standsStill:
            return
                "Look for the process of the archive_command on the server's host and for what it waits, and into the "
                + "server's log for the archiver.  After three failures the archiver pauses for a minute."
        }
    }

    /// The archive_command as the server runs it for `file` (BuildArchiveCommand, src/backend/archive/shell_archive.c).
    private func command(for file: String) -> String {
        var result = ""
        var rest = now.archiveCommand[...]
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

// From outcome to exit status. PostgreSQL acts on two of them, so they are decided here, in pure functions.
//
// archive-get: PostgreSQL takes 1 to 125 as "there is no such file" and may end recovery there; above 125, and death by
// a signal, make it abort (src/backend/access/transam/xlogarchive.c, RestoreArchivedFile). So 1 means proven absence.
//
// archive-push: above 125, and at death by a signal, the archiver process itself exits and the failure is not counted
// in pg_stat_archiver (src/backend/postmaster/pgarch.c, pgarch_archiveXlog). So it stays at or below.
package import KedgeCore

/// In which state the server is that runs `restore_command`, read from the signal file in its data directory.
package enum RecoverySituation: Sendable, CaseIterable {
    /// No signal file: pg_rewind, or somebody at a terminal.
    case noSignalFile
    /// recovery.signal: a restore recovers to its target and will not ask again.
    case recovery
    /// standby.signal: the server keeps asking.
    case standby

    /// From the signal files of the working directory, which is the data directory for `restore_command`.
    package static func detect(fileExists: (String) -> Bool) -> RecoverySituation {
        // standby.signal wins where both exist (xlogrecovery.c, readRecoverySignalFile).
        if fileExists("standby.signal") { return .standby }
        return fileExists("recovery.signal") ? .recovery : .noSignalFile
    }
}

/// How `archive-get` came out.
package enum ArchiveGetAnswer: Sendable {
    case found
    /// Every repository was read and none has the file or a later segment of its timeline.
    case provenAbsent
    case failed(ErrorCode)
}

/// What the data directory knows about the timeline whose history file is asked for.
package enum LocalTimeline: Hashable, Sendable, CaseIterable {
    /// Its history file is in pg_wal, where the server looks next; or it is timeline 1, which has none.
    case hasHistory
    /// This timeline, or a later one, has left files in pg_wal: so it exists.
    case exists
    /// Nothing here says that it exists.
    case unknown

    /// From the names of the files in pg_wal.
    package static func look(up timeline: TimelineID, in names: [String]) -> LocalTimeline {
        if timeline == TimelineID(1) { return .hasHistory }
        let files = names.compactMap(WALFileName.init)
        if files.contains(.history(timeline)) { return .hasHistory }
        return files.contains { $0.timeline >= timeline } ? .exists : .unknown
    }
}

/// The rules from outcome to exit status (docs/design.md section 5).
package enum ExitStatus {
    /// The status of `archive-get`. `answer` is `on-unavailable`, where it is set; `history` is given where the file
    /// asked for is a history file.
    ///
    /// A standby that cannot learn whether a history file exists is told that it does not: it asks for those of the
    /// next timelines again and again, and goes on with what it has. But a server that is promoted takes the first
    /// timeline without a history file (timeline.c, findNewestTimeLine); so one that is known to exist is never called
    /// absent.
    ///
    /// Where the server has the history file itself, it is always sent there. At the end of recovery, from version 15
    /// on without a signal file already, it asks for its own timeline's history to write the next one (timeline.c,
    /// writeTimeLineHistory). If that failed, it would crash there, and the next start would take it for a server
    /// after a crash, which goes on along the old timeline.
    package static func archiveGet(
        _ outcome: ArchiveGetAnswer, in situation: RecoverySituation, onUnavailable answer: UnavailableAnswer?,
        history: LocalTimeline? = nil
    ) -> Int32 {
        switch outcome {
        case .found: return 0
        case .provenAbsent: return 1
        // The server or the user ended us; whoever asked must not read an answer into that.
        case .failed(.interrupted): return 130
        case .failed where history == .hasHistory: return 1
        case .failed:
            switch answer ?? (situation == .standby && history != .exists ? .absent : .abort) {
            case .abort: return 126
            case .absent: return 1
            }
        }
    }

    /// The status of `archive-push` for an error: never above 125.
    package static func archivePush(_ code: ErrorCode) -> Int32 {
        code.exitStatus <= 125 ? code.exitStatus : 1
    }

    /// The status of any other command for an error.
    package static func other(_ code: ErrorCode) -> Int32 { code.exitStatus }
}

/// The rule for one run of `archive-get`: what decides besides the outcome.
package struct ArchiveGetRule: Sendable {
    private let situation: RecoverySituation
    private let history: LocalTimeline?

    /// Looks at the working directory, which is the data directory where PostgreSQL runs the command. `fileName` is the
    /// file asked for, nil where that could not be told.
    package init(fileName: String?, _ surroundings: Surroundings) {
        situation = .detect(fileExists: surroundings.fileExists)
        guard let fileName, case .history(let timeline)? = WALFileName(fileName) else {
            history = nil
            return
        }
        // Where pg_wal cannot be listed nothing is known, and nothing must be called absent for that.
        history = surroundings.listDirectory("pg_wal").map { LocalTimeline.look(up: timeline, in: $0) } ?? .exists
    }

    /// Whether PostgreSQL runs these words as its `restore_command`, whichever command they name: %p is one of two
    /// names then (xlogrecovery.c, XLogFileRead; timeline.c), which no other command has to do with.
    package static func isRestoreCommand(_ words: [String]) -> Bool {
        words.contains { $0.hasSuffix("RECOVERYXLOG") || $0.hasSuffix("RECOVERYHISTORY") }
    }

    /// Whether a server recovers in the working directory, or did when it last ran.
    package var isRecovering: Bool { situation != .noSignalFile }

    /// Whether a standby asks.
    package var isStandby: Bool { situation == .standby }

    /// The status of a failure.
    package func status(of code: ErrorCode, onUnavailable answer: UnavailableAnswer?) -> Int32 {
        ExitStatus.archiveGet(.failed(code), in: situation, onUnavailable: answer, history: history)
    }
}

/// How a command ends that does not stop by itself after a signal, or that dies of a fault of its own.
package struct ForcedEnd: Hashable, Sendable {
    /// How long after the first signal.
    package let milliseconds: Int32
    /// The exit status; nil: by that signal.
    package let status: Int32?
    /// The exit status in place of death by SIGSEGV and its like; nil: let it die.
    package let crashStatus: Int32?

    /// The exit status where even this cannot be set up; nil: that of the error. Of archive-get, 1 would be "absent".
    package let failureStatus: Int32?

    /// The rule for the command line `words`, which may be wrong.
    package init(words: [String]) {
        switch words.first(where: { $0 == "archive-get" || $0 == "archive-push" }) {
        // The server waits for its end when it is shut down, and nothing is lost with it.
        case "archive-get": (milliseconds, status, crashStatus, failureStatus) = (2_000, nil, nil, 126)
        // Longer than the rest: the server archives what it can before it stops.
        case "archive-push": (milliseconds, status, crashStatus, failureStatus) = (10_000, 1, 1, nil)
        default:
            (milliseconds, status, crashStatus, failureStatus) = (10_000, ErrorCode.interrupted.exitStatus, nil, nil)
        }
    }
}

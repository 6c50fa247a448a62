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

/// The rules from outcome to exit status (docs/design.md section 5).
package enum ExitStatus {
    /// The status of `archive-get`. `answer` is `on-unavailable`, where it is set.
    package static func archiveGet(
        _ outcome: ArchiveGetAnswer, in situation: RecoverySituation, onUnavailable answer: UnavailableAnswer?
    ) -> Int32 {
        switch outcome {
        case .found: return 0
        case .provenAbsent: return 1
        // The server or the user ended us; whoever asked must not read an answer into that.
        case .failed(.interrupted): return 130
        case .failed:
            switch answer ?? (situation == .standby ? .absent : .abort) {
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

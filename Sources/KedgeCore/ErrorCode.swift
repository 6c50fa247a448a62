// The one table of error codes.
//
// A code is a stable word that a script may react to. It exists only if somebody can react to it
// differently from every other code, it is never renamed and never reused. The manual's list of
// codes is generated from this file.

/// What kind of thing went wrong: stable, printed as `code:` and as `"code"` in JSON.
package enum ErrorCode: String, Sendable, CaseIterable {
    // What the user asked for
    case usage = "usage"
    case configuration = "configuration"
    case notSupported = "not-supported"

    // The state of things
    case alreadyExists = "already-exists"
    case notFound = "not-found"
    case locked = "locked"
    case notEmpty = "not-empty"
    case serverRunning = "server-running"
    case interrupted = "interrupted"

    // WAL
    case walForeign = "wal-foreign"
    case walInvalid = "wal-invalid"
    case walGap = "wal-gap"
    case walSuspect = "wal-suspect"
    case archiveConflict = "archive-conflict"
    case archivingBroken = "archiving-broken"

    // Restore
    case targetUnreachable = "target-unreachable"
    case targetAmbiguous = "target-ambiguous"
    case unarchivedWAL = "unarchived-wal"

    // Keys and formats
    case keyMissing = "key-missing"
    case keyWrong = "key-wrong"
    case keyUnsafe = "key-unsafe"
    case keyOutdated = "key-outdated"
    case formatUnknown = "format-unknown"
    case featureUnknown = "feature-unknown"

    // What was read is not what was written
    case damaged = "damaged"
    case pageDamaged = "page-damaged"
    case unsafePath = "unsafe-path"

    // The world outside
    case repositoryUnavailable = "repository-unavailable"
    case permission = "permission"
    case noSpace = "no-space"
    case inputOutput = "input-output"
    case timeout = "timeout"
    case databaseUnavailable = "database-unavailable"
    case databaseRefused = "database-refused"

    /// Our own fault: please report it.
    case defect = "defect"

    /// Whether doing the very same thing again, a little later, has a fair chance of success.
    package var isRetryable: Bool {
        switch self {
        case .repositoryUnavailable, .timeout, .databaseUnavailable: true
        default: false
        }
    }

    /// The exit status that every command but `archive-get` ends with (design.md section 5).
    package var exitStatus: Int32 {
        switch self {
        case .usage, .configuration, .notSupported: 2
        case .damaged, .pageDamaged, .unsafePath: 3
        case .locked: 4
        case .interrupted: 130
        default: 1
        }
    }
}

// One restore at a time into one data directory.
//
// Where pg_control is away and the marker is there, --delta goes on with what another restore has begun. Nothing in the
// directory says whether that one has ended or is still at work: the kernel does, by a lock on the directory.

import KedgeCore

/// The lock on a data directory, from the moment on when there is one.
final class TargetLock {
    private let pgdata: RawPath
    private var lock: DirectoryLock?

    init(_ pgdata: RawPath) { self.pgdata = pgdata }

    /// Locks the directory if it is there. To be called before anything in it is judged. Throws `locked`.
    func takeIfPresent() throws(KedgeError) {
        do throws(KedgeError) {
            try take()
        } catch  where error.code == .notFound {
            // It is made, and locked, later.
        }
    }

    /// Locks the directory, unless that is done. Throws `locked`.
    func take() throws(KedgeError) {
        guard lock == nil else { return }
        lock = try DirectoryLock(pgdata)
        guard lock == nil else { return }
        throw KedgeError(
            .locked, "cannot restore into directory \"\(pgdata)\": another restore is at work there",
            detail: "Another kedge process has locked the directory.",
            hint: "Wait until that restore has ended, or end it, and run the command again.")
    }

    /// Locks a directory that was absent when it was judged, and looks whether it is empty still: another restore may
    /// have come and gone. Throws `locked` or `not-empty`.
    func takeNew() throws(KedgeError) {
        guard lock == nil else { return }
        try take()
        guard let entry = try Directory.entries(at: pgdata).first else { return }
        throw KedgeError(
            .notEmpty, "cannot restore into directory \"\(pgdata)\": it is not empty any more",
            detail: "It was not there a moment ago, and holds \"\(entry.name)\" now.",
            hint: "Find out who writes there, and restore into another directory with \"--pgdata\".")
    }
}

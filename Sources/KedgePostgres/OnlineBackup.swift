// pg_backup_start and pg_backup_stop on one connection, which is held open in between.
//
//   running --stop--> stopped        the texts are here; they exist nowhere else
//   running --abort, deinit, lost connection--> failed        the server gives the backup up by itself
//
// 1. Non-exclusive always: nothing is written into the data directory, and a session that dies takes the backup with it
//    (manual, section "Making a Base Backup Using the Low Level API").
// 2. While files are copied somebody calls `ping` all the while: a copy made without a session is worthless.
// 3. The server never waits for WAL here (wait_for_archive is off): kedge checks in its own repository.
package import KedgeCore

/// A base backup that the server knows of. For one thread at a time.
package final class OnlineBackup {
    /// What is known from the start on.
    package struct Start: Sendable, Equatable {
        /// Replay begins here: the redo pointer of the checkpoint that the start made.
        package let lsn: LSN
        /// The timeline of that checkpoint. A standby may have followed its primary to a newer one already, and may
        /// make a restartpoint there before the label is written: the label has the last word.
        package let timeline: TimelineID
        package let isFromStandby: Bool
        /// The server's clock, read before the start.
        package let time: Timestamp
    }

    /// What only the stop can tell.
    package struct Stop: Sendable, Equatable {
        /// The backup is consistent once replay has reached this.
        package let lsn: LSN
        /// The text that becomes `backup_label` in the restored data directory.
        package let labelBytes: [UInt8]
        package let label: BackupLabel
        /// The text that becomes `tablespace_map`; empty if there are no tablespaces to link.
        package let tablespaceMapBytes: [UInt8]
        package let tablespaceMap: TablespaceMap
        /// Position, clock and visible transactions right after the stop.
        package let after: ServerPosition
        /// What the server had to remark.
        package let notices: [String]
    }

    private enum State {
        case running, stopped, failed
    }

    package let start: Start
    private let connection: DatabaseConnection
    /// The backend and the server that the backup lives in, as `ping` compares them.
    private let session: String
    private var state = State.running

    /// Starts a backup on `connection`, with an immediate checkpoint. The connection serves nothing but the backup
    /// until the stop, is closed if the backup is given up, and may be used again after the stop.
    ///
    /// Throws `database-refused` (rights, a primary with wal_level minimal), `database-unavailable`, `interrupted`.
    package init(on connection: DatabaseConnection, label: String) throws(KedgeError) {
        let before = try connection.position()
        let call =
            connection.majorVersion >= 15 ? "pg_backup_start($1, true)" : "pg_start_backup($1, true, false)"
        let lsn: LSN
        let timeline: TimelineID
        let session: String
        do throws(KedgeError) {
            lsn = try connection.row("SELECT \(call)", [label], attempt: "start a backup").lsn(0, "start of the backup")
            timeline = try connection.row("SELECT timeline_id FROM pg_control_checkpoint()", attempt: "start a backup")
                .timeline(0, "timeline of the checkpoint")
            session = try OnlineBackup.session(of: connection)
        } catch {
            connection.close()
            throw error
        }
        self.connection = connection
        self.session = session
        self.start = Start(
            lsn: lsn, timeline: timeline, isFromStandby: before.isInRecovery, time: before.time)
    }

    /// Whether the server has said something unasked, as it does when it ends the session. Cheap; `ping` tells more.
    package var hasUnaskedInput: Bool { connection.hasUnaskedInput }

    /// Asks the server whether the backup still stands. To be called every few seconds while files are copied.
    ///
    /// Throws if it does not; the backup has failed then and its copy is worthless.
    package func ping() throws(KedgeError) {
        guard state == .running else { throw OnlineBackup.notRunning }
        do throws(KedgeError) {
            let present = try OnlineBackup.session(of: connection)
            guard present == session else {
                throw KedgeError(
                    .databaseUnavailable, "could not keep the backup's session",
                    detail: "The connection leads to another session now (\(present) in place of \(session)).",
                    hint: "Connect to PostgreSQL itself: a connection pooler cannot hold a backup.")
            }
        } catch {
            abort()
            guard error.code != .interrupted else { throw error }
            throw error.wrapped(
                "the backup has failed: its database session is gone",
                detail:
                    "A base backup exists only as long as the session that started it. What was copied is not used.",
                hint: "Look into the server's log for why the session ended, then run the backup again.")
        }
    }

    /// Ends the backup. Its texts and the server's position after it.
    ///
    /// Throws as `ping`; and `database-refused` if the server gave it up, such as for a standby that was promoted.
    package func stop() throws(KedgeError) -> Stop {
        try ping()
        do throws(KedgeError) {
            _ = connection.takeNotices()
            let call =
                connection.majorVersion >= 15
                ? "pg_backup_stop(wait_for_archive => false)" : "pg_stop_backup(false, wait_for_archive => false)"
            let row = try connection.row(
                "SELECT lsn, labelfile, spcmapfile FROM \(call)", attempt: "stop the backup")
            // An empty map is null or empty, by version.
            let mapBytes = row.bytes(2) ?? []
            let labelBytes = row.bytes(1) ?? []
            let stop = Stop(
                lsn: try row.lsn(0, "end of the backup"), labelBytes: labelBytes,
                label: try BackupLabel(parsing: labelBytes), tablespaceMapBytes: mapBytes,
                tablespaceMap: try TablespaceMap(parsing: mapBytes, majorVersion: connection.majorVersion),
                after: try connection.position(), notices: connection.takeNotices())
            try check(stop)
            state = .stopped
            return stop
        } catch {
            abort()
            throw error
        }
    }

    /// Gives the backup up by disconnecting. Harmless after a stop.
    package func abort() {
        guard state == .running else { return }
        state = .failed
        connection.close()
    }

    deinit { abort() }

    /// The stop must be about the backup that was started, and lie behind it.
    private func check(_ stop: Stop) throws(KedgeError) {
        let timelineFits =
            start.isFromStandby
            ? stop.label.startTimeline >= start.timeline && stop.label.startTimeline <= stop.after.timeline
            : stop.label.startTimeline == start.timeline
        guard stop.label.startLSN == start.lsn, timelineFits, stop.lsn >= start.lsn,
            stop.label.isFromStandby == start.isFromStandby
        else {
            throw KedgeError(
                .databaseRefused, "could not stop the backup: the server ended another one",
                detail:
                    "Started at \(start.lsn) on timeline \(start.timeline); the label says \(stop.label.startLSN) on "
                    + "timeline \(stop.label.startTimeline), and the end is \(stop.lsn).",
                hint: "Run the backup again; if this repeats, please report it with the server's version.")
        }
    }

    private static func session(of connection: DatabaseConnection) throws(KedgeError) -> String {
        try connection.row(
            """
            SELECT pg_backend_pid() || ' since ' || \(DatabaseRow.microseconds("pg_postmaster_start_time()"))
            """, attempt: "reach the backup's session"
        ).required(0, "session")
    }

    private static let notRunning = KedgeError(
        .defect, "cannot use a backup that has ended", hint: "Please report this with the log of the run.")
}

// What the server and its pg_wal tell about archiving at one moment: what `ArchivingDiagnosis` judges.

package import KedgeCore
package import KedgePostgres

/// Archiving as it stands.
package struct ArchivingFacts: Sendable, Equatable {
    /// Files in pg_wal/archive_status that end in `.ready`.
    package struct Backlog: Sendable, Equatable {
        package var files: Int
        /// The WAL file that the archiver takes next: history files first, then by name (pgarch.c, pgarch_readyXlog).
        package var next: String?
        /// When the oldest of them became ready.
        package var since: Timestamp?

        package init(files: Int, next: String?, since: Timestamp?) {
            self.files = files
            self.next = next
            self.since = since
        }
    }

    /// The archiver process.
    package struct Archiver: Sendable, Equatable {
        package var isRunning: Bool
        package var since: Timestamp?

        package init(isRunning: Bool, since: Timestamp?) {
            self.isRunning = isRunning
            self.since = since
        }
    }

    package var archiveMode = ServerSettings.ArchiveMode.on
    package var archiveCommand = ""
    package var archiveLibrary = ""
    package var isInRecovery = false
    package var statistics: ArchiverStatistics
    /// Nil where it can't be seen: before PostgreSQL 14, or for want of rights.
    package var archiver: Archiver?
    /// Nil where it can't be seen.
    package var backlog: Backlog?
    /// Whether the segment that is waited for is ready to be archived, by the server's note; nil where that can't be
    /// seen.
    package var isReady: Bool?
    package var timeline: TimelineID
    package var lsn: LSN
    /// The server's clock.
    package var time: Timestamp
    /// Room on the file system of pg_wal; nil where it can't be seen.
    package var freeBytes: UInt64?

    package init(statistics: ArchiverStatistics, timeline: TimelineID, lsn: LSN, time: Timestamp) {
        self.statistics = statistics
        self.timeline = timeline
        self.lsn = lsn
        self.time = time
    }

    /// Whether the server calls kedge: its own words, not those of a script that may do so.
    package var callsKedge: Bool { archiveLibrary.isEmpty && archiveCommand.contains("archive-push") }

    /// Asks the server, and looks into its data directory for what it does not tell this role.
    ///
    /// `file` is the segment that is waited for. Throws `database-unavailable` and its like.
    package static func ask(
        _ connection: DatabaseConnection, about file: String, dataDirectory: RawPath
    ) throws(KedgeError) -> ArchivingFacts {
        let settings = try connection.settings()
        let position = try connection.position()
        var facts = ArchivingFacts(
            statistics: try connection.archiverStatistics(), timeline: position.timeline, lsn: position.lsn,
            time: position.time)
        facts.archiveMode = settings.archiveMode
        facts.archiveCommand = settings.archiveCommand
        facts.archiveLibrary = settings.archiveLibrary
        facts.isInRecovery = position.isInRecovery
        facts.archiver = try askForArchiver(connection)
        (facts.backlog, facts.isReady) = try askForBacklog(connection, file, dataDirectory)
        facts.freeBytes = freeBytes(dataDirectory)
        return facts
    }

    private static func askForArchiver(
        _ connection: DatabaseConnection
    ) throws(KedgeError) -> Archiver? {
        guard connection.majorVersion >= 14 else { return nil }
        let row = try connection.row(
            """
            SELECT count(*) FILTER (WHERE backend_type = 'archiver'), count(*) FILTER (WHERE backend_type IS NULL),
                \(DatabaseRow.microseconds("max(backend_start) FILTER (WHERE backend_type = 'archiver')"))
            FROM pg_stat_activity
            """, attempt: "ask whether the archiver runs")
        let isRunning = try row.integer(0, "archivers") > 0
        // What other users' processes are is hidden from a role without pg_read_all_stats.
        if !isRunning, try row.integer(1, "hidden processes") > 0 { return nil }
        return Archiver(isRunning: isRunning, since: try row.timestamp(2, "archiver's start"))
    }

    private static func askForBacklog(
        _ connection: DatabaseConnection, _ file: String, _ dataDirectory: RawPath
    ) throws(KedgeError) -> (Backlog?, Bool?) {
        do throws(KedgeError) {
            let row = try connection.row(
                """
                SELECT count(*), coalesce(min(name) FILTER (WHERE name LIKE '%.history.ready'), min(name)),
                    \(DatabaseRow.microseconds("min(modification)")), coalesce(bool_or(name = $1 || '.ready'), false)
                FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
                """, [file], attempt: "list the files that wait to be archived")
            return (
                Backlog(
                    files: try row.integer(0, "count"), next: row.text(1).map { String($0.dropLast(6)) },
                    since: try row.timestamp(2, "time of the oldest")), try row.boolean(3, "state of the segment")
            )
        } catch  where error.code == .databaseRefused {
            return readBacklog(file, dataDirectory)
        }
    }

    /// The same from the directory itself, where it can be read.
    private static func readBacklog(_ file: String, _ dataDirectory: RawPath) -> (Backlog?, Bool?) {
        do throws(KedgeError) {
            let directory = dataDirectory.appending("pg_wal/archive_status")
            let names = try Directory.entries(at: directory).map(\.name.description).filter { $0.hasSuffix(".ready") }
            let files = names.map { String($0.dropLast(6)) }
            let next = files.filter { $0.hasSuffix(".history") }.min() ?? files.min()
            return (Backlog(files: files.count, next: next, since: nil), files.contains(file))
        } catch {
            return (nil, nil)
        }
    }

    private static func freeBytes(_ dataDirectory: RawPath) -> UInt64? {
        do throws(KedgeError) {
            return try FileSystemSpace(near: dataDirectory.appending("pg_wal")).freeBytes
        } catch {
            return nil
        }
    }
}

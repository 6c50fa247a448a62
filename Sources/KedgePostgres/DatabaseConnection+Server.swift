// What kedge asks a server about itself. Each function is one query, with its answer as a value.
package import KedgeCore

/// How the server is set up; from `pg_settings`, so a role without pg_read_all_settings gets an error and no guess.
package struct ServerSettings: Sendable, Equatable {
    package enum ArchiveMode: String, Sendable {
        case off, on, always
    }

    package let dataDirectory: RawPath
    package let archiveMode: ArchiveMode
    package let archiveCommand: String
    /// Empty before PostgreSQL 15.
    package let archiveLibrary: String
    package let walLevel: String
    package let fullPageWrites: Bool
    package let walSegmentSizeBytes: UInt64
    package let blockSizeBytes: UInt64
    package let walBlockSizeBytes: UInt64
    /// Blocks in one file of a relation.
    package let relationSegmentBlocks: UInt64
    package let dataChecksums: Bool
    package let systemIdentifier: SystemIdentifier
}

/// Where the server reads its configuration from: absolute paths, each once, included files too.
package struct ConfigurationFiles: Sendable, Equatable {
    package let configuration: RawPath
    package let hostBasedAuthentication: RawPath
    package let identMap: RawPath
    /// What these include, as far as the server tells: the configuration file's in every version, the other two's
    /// since 16.
    package let included: [RawPath]
}

/// `pg_stat_archiver`: how archiving has gone since its counters were reset.
package struct ArchiverStatistics: Sendable, Equatable {
    package let archivedCount: Int
    package let lastArchivedFile: String?
    package let lastArchivedTime: Timestamp?
    package let failedCount: Int
    package let lastFailedFile: String?
    package let lastFailedTime: Timestamp?

    package init(
        archivedCount: Int, lastArchivedFile: String?, lastArchivedTime: Timestamp?, failedCount: Int,
        lastFailedFile: String?, lastFailedTime: Timestamp?
    ) {
        self.archivedCount = archivedCount
        self.lastArchivedFile = lastArchivedFile
        self.lastArchivedTime = lastArchivedTime
        self.failedCount = failedCount
        self.lastFailedFile = lastFailedFile
        self.lastFailedTime = lastFailedTime
    }
}

/// Where the server's log of changes is now.
package struct ServerPosition: Sendable, Equatable {
    package let isInRecovery: Bool
    package let timeline: TimelineID
    /// Of a primary: up to where WAL has been generated. Of a standby: up to where it was replayed.
    package let lsn: LSN
    /// Of a primary: up to where WAL has been written. Of a standby: the same as `lsn`.
    package let writtenLSN: LSN
    /// The server's clock.
    package let time: Timestamp
    /// `pg_current_snapshot()`: "xmin:xmax:xip,…". Which transactions are visible at this moment.
    package let snapshot: String
    /// When the server was started, by its clock (`pg_postmaster_start_time()`): also after a crash of a backend, which
    /// the postmaster survives, the same.
    package let startTime: Timestamp
}

extension DatabaseConnection {
    /// The settings that decide what a backup and its WAL look like.
    package func settings() throws(KedgeError) -> ServerSettings {
        let attempt = "read the server's settings"
        let names = [
            "data_directory", "archive_mode", "archive_command", "archive_library", "wal_level", "full_page_writes",
            "wal_segment_size", "block_size", "wal_block_size", "segment_size", "data_checksums",
        ]
        // archive_command may hold quotes and backslashes; as rows of their own the values need no escaping.
        let rows = try query(
            "SELECT name, setting FROM pg_settings WHERE name = ANY (string_to_array($1, ','))",
            [names.joined(separator: ",")], attempt: attempt)
        var values: [String: [UInt8]] = [:]
        for row in rows { values[try row.required(0, "setting's name")] = row.bytes(1) }
        func text(_ name: String) throws(KedgeError) -> String {
            guard let value = values[name] else { throw DatabaseConnection.hidden(name) }
            return String(decoding: value, as: UTF8.self)
        }
        func number(_ name: String) throws(KedgeError) -> UInt64 {
            guard let number = UInt64(try text(name)), number > 0 else { throw DatabaseConnection.hidden(name) }
            return number
        }
        guard let dataDirectory = values["data_directory"] else { throw DatabaseConnection.hidden("data_directory") }
        guard let archiveMode = ServerSettings.ArchiveMode(rawValue: try text("archive_mode")) else {
            throw DatabaseConnection.hidden("archive_mode")
        }
        let control = try row("SELECT system_identifier FROM pg_control_system()", attempt: attempt)
        return ServerSettings(
            dataDirectory: RawPath(bytes: dataDirectory), archiveMode: archiveMode,
            archiveCommand: try text("archive_command"),
            archiveLibrary: majorVersion >= 15 ? try text("archive_library") : "", walLevel: try text("wal_level"),
            fullPageWrites: try text("full_page_writes") == "on",
            walSegmentSizeBytes: try number("wal_segment_size"), blockSizeBytes: try number("block_size"),
            walBlockSizeBytes: try number("wal_block_size"), relationSegmentBlocks: try number("segment_size"),
            dataChecksums: try text("data_checksums") == "on",
            // bigint is signed, the identifier is not.
            systemIdentifier: SystemIdentifier(
                UInt64(bitPattern: Int64(try control.integer(0, "system identifier")))))
    }

    /// Whether the server is a standby, or still recovering.
    package func isInRecovery() throws(KedgeError) -> Bool {
        try row("SELECT pg_is_in_recovery()", attempt: "ask whether the server is in recovery").boolean(
            0, "recovery state")
    }

    /// Where the configuration files lie.
    ///
    /// Throws `database-refused` for a role that may not read pg_file_settings, pg_hba_file_rules and
    /// pg_ident_file_mappings (by default only superusers may).
    package func configurationFiles() throws(KedgeError) -> ConfigurationFiles {
        let attempt = "ask the server for its configuration files"
        let main = try row(
            """
            SELECT max(setting) FILTER (WHERE name = 'config_file'), max(setting) FILTER (WHERE name = 'hba_file'),
                max(setting) FILTER (WHERE name = 'ident_file')
            FROM pg_settings
            """, attempt: attempt)
        var included = "SELECT sourcefile FROM pg_file_settings"
        if majorVersion >= 16 {
            included += " UNION SELECT file_name FROM pg_hba_file_rules"
            included += " UNION SELECT file_name FROM pg_ident_file_mappings"
        }
        let rows = try query("SELECT DISTINCT f FROM (\(included)) AS s (f) WHERE f <> ''", attempt: attempt)
        guard let configuration = main.bytes(0), let hba = main.bytes(1), let ident = main.bytes(2) else {
            throw DatabaseConnection.hidden("config_file")
        }
        let mains = [configuration, hba, ident].map { RawPath(bytes: $0) }
        return ConfigurationFiles(
            configuration: mains[0], hostBasedAuthentication: mains[1], identMap: mains[2],
            included: rows.compactMap { $0.bytes(0).map { RawPath(bytes: $0) } }.filter { !mains.contains($0) }.sorted()
        )
    }

    /// The archiver's counters. They lag behind what it does by up to a second or so.
    package func archiverStatistics() throws(KedgeError) -> ArchiverStatistics {
        let row = try row(
            """
            SELECT archived_count, last_archived_wal, \(DatabaseRow.microseconds("last_archived_time")),
                failed_count, last_failed_wal, \(DatabaseRow.microseconds("last_failed_time"))
            FROM pg_stat_archiver
            """, attempt: "ask the server how archiving goes")
        return ArchiverStatistics(
            archivedCount: try row.integer(0, "count of archived files"), lastArchivedFile: row.text(1),
            lastArchivedTime: try row.timestamp(2, "time of the last archived file"),
            failedCount: try row.integer(3, "count of failures"), lastFailedFile: row.text(4),
            lastFailedTime: try row.timestamp(5, "time of the last failure"))
    }

    /// Position, clock and visible transactions, taken by one query.
    package func position() throws(KedgeError) -> ServerPosition {
        // On a primary the WAL file's name tells the timeline; on a standby pg_walfile_name is refused, and the control
        // file knows the timeline of what has been replayed: the newer of the last restartpoint's and of the end that
        // recovery must reach (0 once that is reached on a primary).
        let row = try row(
            """
            SELECT r,
                CASE WHEN r THEN greatest(c.timeline_id, e.min_recovery_end_timeline)::text
                    ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
                CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
                CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                \(DatabaseRow.microseconds("clock_timestamp()")), pg_current_snapshot(),
                \(DatabaseRow.microseconds("pg_postmaster_start_time()"))
            FROM pg_is_in_recovery() r, pg_control_checkpoint() c, pg_control_recovery() e
            """, attempt: "ask the server for its WAL position")
        let isInRecovery = try row.boolean(0, "recovery state")
        let timeline: TimelineID
        if isInRecovery {
            timeline = try row.timeline(1, "timeline")
        } else {
            let name = try row.required(1, "timeline")
            guard let parsed = TimelineID(hex: name) else {
                throw KedgeError(
                    .databaseRefused, "cannot understand the server's answer for the timeline",
                    detail: "The WAL file's name begins with \(name).",
                    hint: "Please report this with the server's version.")
            }
            timeline = parsed
        }
        guard let time = try row.timestamp(4, "clock"), let startTime = try row.timestamp(6, "start time") else {
            throw KedgeError(.defect, "could not read the server's clock", hint: "Please report this.")
        }
        return ServerPosition(
            isInRecovery: isInRecovery, timeline: timeline, lsn: try row.lsn(2, "WAL position"),
            writtenLSN: try row.lsn(3, "written WAL position"), time: time, snapshot: try row.required(5, "snapshot"),
            startTime: startTime)
    }

    /// Ends the present WAL segment, so that it is archived. Returns the end of it, or of the one before if the present
    /// one is still empty: then nothing was done. Refused on a standby.
    package func switchWAL() throws(KedgeError) -> LSN {
        try row("SELECT pg_switch_wal()", attempt: "switch to a new WAL segment").lsn(0, "end of the segment")
    }

    /// Writes a named point to restore to. Returns its LSN. At most 63 bytes. Refused on a standby.
    package func createRestorePoint(_ name: String) throws(KedgeError) -> LSN {
        try row("SELECT pg_create_restore_point($1)", [name], attempt: "create restore point \"\(name)\"")
            .lsn(0, "position of the restore point")
    }

    private static func hidden(_ setting: String) -> KedgeError {
        KedgeError(
            .databaseRefused, "could not read setting \"\(setting)\" of the server",
            detail:
                "The server shows it only to superusers and members of pg_read_all_settings, or not as a value that "
                + "kedge understands.",
            hint: "Grant the role that kedge connects as membership of pg_monitor.")
    }
}

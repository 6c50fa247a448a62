// What the scratch server is told: everything that matters, so that nothing of the restored configuration can surprise.
// Pure.

import KedgeCatalog
package import KedgeCore
package import KedgePostgres
import KedgeRestore

/// The configuration files of a drill's server.
package struct ScratchConfiguration: Sendable {
    package var data: RawPath
    package var directory: RawPath
    package var socketDirectory: RawPath
    package var majorVersion: Int
    package var id: String
    /// From the restored `pg_control`; raised when replay complains.
    package var limits: ControlFile.StandbySettings
    package var walSegmentSize: UInt64
    package var preload: [String]
    package var hasInPlaceTablespaces: Bool
    /// The lines that make the server recover.
    package var recovery: [String]
    /// The user's `drill-set`, which wins over the rest.
    package var overrides: [DrillSetting]

    package init(
        data: RawPath, directory: RawPath, socketDirectory: RawPath, majorVersion: Int, id: String,
        limits: ControlFile.StandbySettings, walSegmentSize: UInt64, preload: [String], hasInPlaceTablespaces: Bool,
        recovery: [String], overrides: [DrillSetting]
    ) {
        self.data = data
        self.directory = directory
        self.socketDirectory = socketDirectory
        self.majorVersion = majorVersion
        self.id = id
        self.limits = limits
        self.walSegmentSize = walSegmentSize
        self.preload = preload
        self.hasInPlaceTablespaces = hasInPlaceTablespaces
        self.recovery = recovery
        self.overrides = overrides
    }

    package var configurationFile: RawPath { directory.appending("postgresql.conf") }
    package var hostBasedAuthenticationFile: RawPath { directory.appending("pg_hba.conf") }
    package var identFile: RawPath { directory.appending("pg_ident.conf") }

    /// Only whoever can reach the socket, in a directory with mode 0700, gets in.
    package static let hostBasedAuthentication = "local all all trust\n"

    /// The content of postgresql.conf.
    package var text: String {
        var lines = ["# Made by kedge drill; it goes with the directory."]
        lines += settings.map { RecoverySettings.line($0.name, $0.value) }
        lines += recovery
        lines += overrides.map { RecoverySettings.line($0.name, $0.value) }
        return lines.joined(separator: "\n") + "\n"
    }

    private var settings: [DrillSetting] {
        var settings = fixed
        let megabytes = max(1, walSegmentSize >> 20)
        settings += [
            ("max_connections", String(max(20, limits.maxConnections))),
            ("max_worker_processes", String(max(8, limits.maxWorkerProcesses))),
            ("max_wal_senders", String(max(0, limits.maxWALSenders))),
            ("max_prepared_transactions", String(max(0, limits.maxPreparedTransactions))),
            ("max_locks_per_transaction", String(max(64, limits.maxLocksPerTransaction))),
            ("track_commit_timestamp", limits.trackCommitTimestamp ? "on" : "off"),
            ("min_wal_size", "\(2 * megabytes)MB"), ("max_wal_size", "\(max(256, 4 * megabytes))MB"),
            ("shared_preload_libraries", preload.joined(separator: ",")),
        ].map { DrillSetting(name: $0.0, value: $0.1) }
        if hasInPlaceTablespaces { settings.append(DrillSetting(name: "allow_in_place_tablespaces", value: "on")) }
        // Login triggers could refuse us (since 17).
        if majorVersion >= 17 { settings.append(DrillSetting(name: "event_triggers", value: "off")) }
        return settings
    }

    private var fixed: [DrillSetting] {
        [
            ("data_directory", data.text ?? ""), ("hba_file", hostBasedAuthenticationFile.text ?? ""),
            ("ident_file", identFile.text ?? ""), ("external_pid_file", ""), ("cluster_name", "kedge-drill-\(id)"),
            // Reached by its own socket and by nothing else.
            ("listen_addresses", ""), ("port", String(ScratchDirectory.port)),
            ("unix_socket_directories", "\"" + (socketDirectory.text ?? "") + "\""),
            ("unix_socket_permissions", "0700"), ("ssl", "off"), ("bonjour", "off"),
            // Nothing leaves it.
            ("archive_mode", "off"), ("archive_command", ""), ("primary_conninfo", ""), ("primary_slot_name", ""),
            ("max_logical_replication_workers", "0"), ("hot_standby", "on"),
            // Nothing changes it but the checks.
            ("autovacuum", "off"), ("jit", "off"), ("max_standby_archive_delay", "-1"),
            // Little memory; nothing outside its directory, also after SIGKILL.
            ("shared_buffers", "64MB"), ("huge_pages", "off"), ("dynamic_shared_memory_type", "mmap"),
            ("maintenance_work_mem", "64MB"), ("max_parallel_workers_per_gather", "0"),
            ("max_parallel_maintenance_workers", "0"), ("temp_tablespaces", ""),
            // Its log is read here.
            ("logging_collector", "off"), ("log_destination", "stderr"), ("log_min_messages", "warning"),
            ("log_line_prefix", "%m [%p] "), ("lc_messages", "C"), ("log_timezone", "UTC"), ("timezone", "UTC"),
            ("log_checkpoints", "off"), ("log_statement", "none"), ("log_min_duration_statement", "-1"),
            ("log_error_verbosity", "default"), ("update_process_title", "on"),
            // A page that is wrong shows.
            ("zero_damaged_pages", "off"), ("ignore_checksum_failure", "off"), ("restart_after_crash", "off"),
        ].map { DrillSetting(name: $0.0, value: $0.1) }
    }
}

/// One server setting that the user overrides for drills.
package struct DrillSetting: Hashable, Sendable {
    package let name: String
    package let value: String

    package init(name: String, value: String) {
        self.name = name
        self.value = value
    }

    /// What a drill's safety, or what it proves, rests on.
    private static let reserved: Set<String> = [
        "data_directory", "config_file", "hba_file", "ident_file", "external_pid_file", "listen_addresses", "port",
        "unix_socket_directories", "unix_socket_permissions", "archive_mode", "archive_command", "archive_library",
        "archive_cleanup_command", "recovery_end_command", "restore_command", "primary_conninfo", "primary_slot_name",
        "hot_standby", "recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid",
        "recovery_target_lsn", "recovery_target_inclusive", "recovery_target_timeline", "recovery_target_action",
        "logging_collector", "log_destination", "lc_messages", "dynamic_shared_memory_type", "include", "include_dir",
        "include_if_exists", "ignore_checksum_failure", "zero_damaged_pages", "restart_after_crash",
        "ignore_invalid_pages", "promote_trigger_file", "log_min_messages", "log_error_verbosity", "autovacuum",
    ]

    /// Settings as `name=value`, separated by semicolons. Throws the reason and a hint for what cannot be set.
    package static func parse(_ text: String) throws(KedgeError) -> [DrillSetting] {
        var settings: [DrillSetting] = []
        for part in text.split(separator: ";") {
            let piece = trimmed(part)
            if piece.isEmpty { continue }
            guard let equals = piece.firstIndex(of: "=") else { throw unreadable(piece) }
            let name = trimmed(piece[..<equals]).lowercased()
            guard !name.isEmpty, name.utf8.allSatisfy(isNameByte) else { throw unreadable(piece) }
            guard !reserved.contains(name) else {
                throw KedgeError(
                    .configuration, "cannot set \"\(name)\" for drills",
                    detail: "That a drill is safe, or what it proves, rests on this setting.",
                    hint: "Leave it out of drill-set.")
            }
            settings.append(DrillSetting(name: name, value: trimmed(piece[piece.index(after: equals)...])))
        }
        return settings
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x5F || byte == 0x2E
    }

    private static func unreadable(_ piece: String) -> KedgeError {
        KedgeError(
            .configuration, "cannot read \"\(piece)\" in drill-set",
            hint: "Write name=value, several of them separated by semicolons.")
    }

    private static func trimmed(_ text: some StringProtocol) -> String {
        let start = text.drop { $0 == " " || $0 == "\t" }
        return String(start.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}

// From the start of the scratch server to the moment when it stands still at the target.
//
//   starting ──▶ connectable (consistent) ──▶ paused at the target   ──▶ what it shows
//      │               │                 └──▶ a primary (it could not pause) ──▶ what it shows
//      └───────────────┴──▶ ended ──▶ its log says a setting is too low: raised, started again
//                               └──▶ else: the target was not reached

import Glibc
import KedgeCore
import KedgePostgres

/// What came of a recovery.
enum RecoveryResult {
    case reached(RecoveryEnd)
    /// The server's own words.
    case failed(String)
}

/// Starts the server and waits for the end of its recovery.
final class RecoveryWatch {
    private let server: ScratchServer
    private let scratch: ScratchDirectory
    private var configuration: ScratchConfiguration
    private let expected: ExpectedEnd
    private let users: [String]
    private let tools: Drill.Tools
    private let isKept: Bool
    /// The role that could connect.
    private(set) var user = ""
    /// Nanoseconds when the server took connections for the first time, and when replay had ended.
    private(set) var consistentAt: UInt64?
    private(set) var endedAt: UInt64 = 0
    /// Kept from one look to the next.
    private var connection: DatabaseConnection?
    /// Settings that had to be raised.
    private(set) var raised: [String] = []
    private var lastAdvance: UInt64 = 0
    private var lastSeen = LSN.invalid

    /// How long replay may stand still before the drill gives up: a fetch takes as long as the store's own timeouts.
    private static let patienceNanoseconds: UInt64 = 1_800_000_000_000

    init(
        _ server: ScratchServer, _ scratch: ScratchDirectory, _ configuration: ScratchConfiguration,
        expected: ExpectedEnd, users: [String], isKept: Bool, tools: Drill.Tools
    ) {
        self.server = server
        self.scratch = scratch
        self.configuration = configuration
        self.expected = expected
        self.users = users
        self.isKept = isKept
        self.tools = tools
    }

    /// Runs to the end of recovery. Throws what is no result: `repository-unavailable`, `no-space`, `interrupted`, ….
    func run() throws(KedgeError) -> RecoveryResult {
        try scratch.write(ScratchConfiguration.hostBasedAuthentication, to: configuration.hostBasedAuthenticationFile)
        try scratch.write("", to: configuration.identFile)
        for _ in 0..<5 {
            try scratch.write(configuration.text, to: configuration.configurationFile)
            try server.start(configurationFile: configuration.configurationFile, mayOutliveUs: isKept)
            lastAdvance = tools.time.monotonicNanoseconds()
            let result = try watch()
            guard case .failed = result, try raiseLimits() else { return result }
            connection = nil
            try server.stopNow(time: tools.time)
        }
        return .failed("the server wants ever higher limits: \(raised.joined(separator: ", "))")
    }

    private func watch() throws(KedgeError) -> RecoveryResult {
        while true {
            switch try server.status(after: 20) {
            case .ended(let status): return .failed(try failure(status))
            case .starting: try checkPatience()
            case .connectable:
                if consistentAt == nil { consistentAt = tools.time.monotonicNanoseconds() }
                if let end = try look() {
                    endedAt = tools.time.monotonicNanoseconds()
                    return end
                }
                try checkPatience()
            }
        }
    }

    /// What the server says about its replay; nil while it goes on.
    private func look() throws(KedgeError) -> RecoveryResult? {
        do throws(KedgeError) {
            if connection == nil { connection = try connect() }
            guard let connection else { return nil }
            let isPaused =
                connection.majorVersion >= 14
                ? "pg_get_wal_replay_pause_state() = 'paused'" : "pg_is_wal_replay_paused()"
            let row = try connection.row(
                """
                SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN \(isPaused) ELSE false END,
                    pg_last_wal_replay_lsn(), \(DatabaseRow.microseconds("pg_last_xact_replay_timestamp()"))
                """, attempt: "ask the scratch server how far it is")
            let lsn = row.text(2).flatMap { LSN($0) } ?? .invalid
            note(lsn)
            let isInRecovery = try row.boolean(0, "recovery state")
            let isPausedNow = try row.boolean(1, "pause state")
            if isPausedNow, try !ServerLog(server.log()).insufficient.isEmpty, try wantsHigherLimits() {
                return .failed("replay needs higher limits")
            }
            guard !isInRecovery || isPausedNow else { return nil }
            return .reached(
                RecoveryEnd(
                    replayLSN: lsn, lastTransactionTime: try row.timestamp(3, "last transaction's time"),
                    stopTransactionStatus: try status(of: expected.stopTransaction, connection),
                    isPaused: isPausedNow))
        } catch  where error.code == .databaseUnavailable {
            connection = nil
            if let lack = HostLack.error(for: error) { throw lack }
            // It may be about to end, or to promote; the process tells.
            guard HostLack.isFinal(error) else { return nil }
            return .failed("it lets nobody in: \(error.detail ?? error.message)")
        }
    }

    /// In recovery a number of 32 bits is taken for the transaction nearest to the present one.
    private func status(of transaction: UInt32?, _ connection: DatabaseConnection) throws(KedgeError) -> String? {
        guard let transaction else { return nil }
        let snapshot = try connection.row(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text", attempt: "ask for the newest transaction")
        guard let next = snapshot.text(0).flatMap({ UInt64($0) }) else { return nil }
        let distance = Int32(truncatingIfNeeded: Int64(transaction) - Int64(next & 0xFFFF_FFFF))
        let (full, overflow) = Int64(next).addingReportingOverflow(Int64(distance))
        // Never begun as far as was replayed.
        guard !overflow, full > 2, distance < 0 else { return "not begun" }
        return try connection.row(
            "SELECT pg_xact_status($1::xid8)", [String(full)], attempt: "ask for the state of transaction \(full)"
        ).text(0)
    }

    private func note(_ lsn: LSN) {
        guard lsn > lastSeen else { return }
        if lastSeen != .invalid { tools.progress.advance(lsn - lastSeen) }
        lastSeen = lsn
        lastAdvance = tools.time.monotonicNanoseconds()
    }

    private func checkPatience() throws(KedgeError) {
        guard tools.time.monotonicNanoseconds() - lastAdvance > RecoveryWatch.patienceNanoseconds else { return }
        throw KedgeError(
            .timeout, "could not wait for the scratch server any longer",
            detail: "Its replay has not moved for half an hour, at LSN \(lastSeen).",
            hint: "Run the drill with \"--keep\" and look into its server.log.")
    }

    /// The first of the roles that may be a superuser of the restored cluster.
    private func connect() throws(KedgeError) -> DatabaseConnection {
        var refused: KedgeError?
        for candidate in user.isEmpty ? users : [user] {
            do throws(KedgeError) {
                let connection = try DatabaseConnection(
                    server.database("postgres", user: candidate), unless: tools.interruption)
                user = candidate
                return connection
            } catch {
                guard error.detail?.contains("role ") == true else {
                    // The database "postgres" may have been dropped; template1 hardly ever is.
                    guard error.detail?.contains("database \"postgres\" does not exist") == true else { throw error }
                    let connection = try DatabaseConnection(
                        server.database("template1", user: candidate), unless: tools.interruption)
                    user = candidate
                    return connection
                }
                refused = error
            }
        }
        throw KedgeError(
            .configuration, "cannot connect to the restored cluster: it has none of the roles that were tried",
            detail: "They were: \(users.joined(separator: ", "))." + (refused?.detail.map { " " + $0 } ?? ""),
            hint: "Name a superuser of the cluster with the key user.")
    }

    // MARK: - Limits

    private func wantsHigherLimits() throws(KedgeError) -> Bool {
        try ServerLog(server.log()).insufficient.contains { name, wanted in
            configuration.limits.value(of: name).map { $0 < wanted } ?? false
        }
    }

    /// Raises the settings of which replay said that they are too low. False if there are none.
    private func raiseLimits() throws(KedgeError) -> Bool {
        var hasRaised = false
        for (name, wanted) in try ServerLog(server.log()).insufficient {
            guard let present = configuration.limits.value(of: name), present < wanted else { continue }
            configuration.limits = configuration.limits.raising(name, to: wanted)
            raised.append("\(name) = \(wanted)")
            hasRaised = true
        }
        return hasRaised
    }

    /// Why the server is gone. Throws where that says nothing about the backup.
    private func failure(_ status: Subprocess.Status) throws(KedgeError) -> String {
        let log = ServerLog(try server.log())
        if let (code, message) = log.archiveGetFailure {
            switch code {
            case .damaged, .archiveConflict, .walGap, .walForeign, .walInvalid, .notFound: return message
            default:
                throw KedgeError(
                    code, "could not recover: \(message)", detail: "restore_command failed with it.",
                    hint: "Run the drill again when that is settled.")
            }
        }
        let disturbance = try Disturbance(of: scratch, server, walSegmentSize: configuration.walSegmentSize)
        if let error = disturbance.error { throw error }
        let words = log.lastFailure ?? "it ended with \(status) and said nothing"
        if words.contains("No space left on device") {
            throw KedgeError(
                .noSpace, "could not recover in \"\(scratch.path)\": the file system is full", detail: words + ".",
                hint: "Free space there, or set drill-directory to a larger file system.")
        }
        guard log.hasBegunRecovery else {
            throw KedgeError(
                .databaseUnavailable, "could not start PostgreSQL in scratch directory \"\(scratch.path)\"",
                detail: words + ".",
                hint: "Mend what it names.  A setting of the restored cluster can be replaced with drill-set.")
        }
        return words
    }
}

extension ControlFile.StandbySettings {
    /// By the setting's name.
    func value(of name: String) -> Int32? {
        switch name {
        case "max_connections": maxConnections
        case "max_worker_processes": maxWorkerProcesses
        case "max_wal_senders": maxWALSenders
        case "max_prepared_transactions": maxPreparedTransactions
        case "max_locks_per_transaction": maxLocksPerTransaction
        default: nil
        }
    }

    func raising(_ name: String, to value: Int32) -> ControlFile.StandbySettings {
        func chosen(_ own: String, _ present: Int32) -> Int32 { own == name ? max(present, value) : present }
        return ControlFile.StandbySettings(
            maxConnections: chosen("max_connections", maxConnections),
            maxWorkerProcesses: chosen("max_worker_processes", maxWorkerProcesses),
            maxWALSenders: chosen("max_wal_senders", maxWALSenders),
            maxPreparedTransactions: chosen("max_prepared_transactions", maxPreparedTransactions),
            maxLocksPerTransaction: chosen("max_locks_per_transaction", maxLocksPerTransaction),
            trackCommitTimestamp: trackCommitTimestamp)
    }
}

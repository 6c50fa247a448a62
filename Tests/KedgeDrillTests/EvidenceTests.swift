// That the check of the target passes where PostgreSQL stops, and fails for anything before or beyond it.
import KedgeCore
import KedgePostgres
import KedgeRestore
import Testing

@testable import KedgeDrill

@Suite struct EvidenceTests {
    private let noon = Timestamp(secondsSince1970: 1_795_262_400)
    private let record = LSN(0x300_1000)
    private let segment = WALSegment(timeline: TimelineID(1), number: 3)

    private func stop(_ event: WALEvent?, isBefore: Bool) -> ReplayStop {
        ReplayStop(record: record, isBefore: isBefore, event: event, segment: segment)
    }

    /// Before the end of a transaction that is later than noon.
    private func timeTarget(exclusive: Bool = false) -> ExpectedEnd {
        let end = TransactionEnd(lsn: record, time: noon.adding(seconds: 1), xid: 800)
        return ExpectedEnd(
            target: .time(noon, exclusive: exclusive), stop: stop(.transactionEnd(end), isBefore: true),
            lastRecord: nil, consistency: LSN(0x200_0100))
    }

    @Test("a time: the last commit before it is there, the next is not, and nothing between is missing")
    func time() {
        let expected = timeTarget()
        #expect(expected.stopTransaction == 800)
        func problems(_ lsn: UInt64, _ seconds: Int64, _ status: String?) -> Int {
            expected.problems(
                with: RecoveryEnd(
                    replayLSN: LSN(lsn), lastTransactionTime: noon.adding(seconds: seconds),
                    stopTransactionStatus: status)
            ).count
        }
        #expect(problems(0x300_1000, -1, "in progress") == 0)
        #expect(problems(0x300_1000, 0, "not begun") == 0)
        #expect(problems(0x300_1000, -1, nil) == 0)
        // Too far: the record itself was replayed, the transaction shows, a later time shows.
        #expect(problems(0x300_1040, 1, "committed") == 3)
        #expect(problems(0x300_1000, -1, "committed") == 1)
        #expect(problems(0x300_1000, 1, "in progress") == 1)
        // Not far enough: something lies between.
        #expect(problems(0x300_0F00, -1, "in progress") == 1)
        #expect(problems(0x100_0000, -1, "in progress") == 2)
        let end = RecoveryEnd(replayLSN: record, lastTransactionTime: noon)
        #expect(timeTarget(exclusive: true).problems(with: end).count == 1)
    }

    @Test("only the header of a page lies between neighbouring records")
    func neighbours() {
        #expect(ExpectedEnd.adjoins(LSN(0x300_1000), LSN(0x300_1000)))
        #expect(ExpectedEnd.adjoins(LSN(0x300_2000), LSN(0x300_2018)))
        #expect(ExpectedEnd.adjoins(LSN(0x400_0000), LSN(0x400_0028)))
        #expect(!ExpectedEnd.adjoins(LSN(0x300_1008), LSN(0x300_1020)))
        #expect(!ExpectedEnd.adjoins(LSN(0x300_2000), LSN(0x300_2030)))
        #expect(!ExpectedEnd.adjoins(LSN(0x300_1008), LSN(0x300_1000)))
    }

    @Test("a transaction, an LSN and the latest moment are in; before the backup's end is too early")
    func others() {
        let end = TransactionEnd(lsn: record, time: noon, xid: 900)
        let transaction = ExpectedEnd(
            target: .transaction(900, exclusive: false), stop: stop(.transactionEnd(end), isBefore: false),
            lastRecord: nil, consistency: .invalid)
        let after = LSN(record.position + 0x28)
        func problems(_ lsn: LSN, _ status: String) -> Int {
            transaction.problems(with: RecoveryEnd(replayLSN: lsn, stopTransactionStatus: status)).count
        }
        #expect(problems(after, "committed") == 0)
        #expect(problems(after, "aborted") == 0)
        #expect(problems(after, "in progress") == 1)
        #expect(problems(record, "in progress") == 2)
        let latest = ExpectedEnd(
            target: .lsn(record, exclusive: false), stop: nil, lastRecord: record, consistency: .invalid)
        #expect(latest.problems(with: RecoveryEnd(replayLSN: after)).isEmpty)
        #expect(latest.problems(with: RecoveryEnd(replayLSN: record)).count == 1)
        let immediate = ExpectedEnd(target: .immediate, stop: nil, lastRecord: nil, consistency: record)
        #expect(immediate.problems(with: RecoveryEnd(replayLSN: record)).isEmpty)
        #expect(immediate.problems(with: RecoveryEnd(replayLSN: LSN(record.position - 8))).count == 1)
    }

    // MARK: - The server's log

    @Test("the server's own words: limits that are too low, the last failure, where it stopped, what kedge said")
    func log() {
        let log = ServerLog(
            """
            2026-11-21 02:00:00.001 UTC [77] LOG:  starting archive recovery
            2026-11-21 02:00:00.002 UTC [77] WARNING:  hot standby is not possible because of insufficient settings
            2026-11-21 02:00:00.002 UTC [77] DETAIL:  max_connections = 100 is a lower setting than on the primary \
            server, where its value was 200.
            kedge: error: could not read pack "ab"
            code: damaged
            2026-11-21 02:00:01.000 UTC [78] FATAL:  the database system is starting up
            2026-11-21 02:00:01.002 UTC [77] LOG:  recovery stopping before commit of transaction 800, time 2026-11-21
            2026-11-21 02:00:02.000 UTC [77] FATAL:  recovery ended before configured recovery target was reached
            2026-11-21 02:00:02.001 UTC [70] LOG:  startup process (PID 77) exited with exit code 1
            2026-11-21 02:00:02.001 UTC [79] FATAL:  the database system is shutting down
            """)
        #expect(log.insufficient.map(\.name) == ["max_connections"])
        #expect(log.insufficient.map(\.wanted) == [200])
        // PostgreSQL 13 ends there, and says it in other words.
        let old = ServerLog(
            "2026-11-21 02:00:00.002 UTC [77] FATAL:  hot standby is not possible because max_connections = 100 is a "
                + "lower setting than on the master server (its value was 250)")
        #expect(old.insufficient.map(\.name) == ["max_connections"] && old.insufficient.map(\.wanted) == [250])
        #expect(log.lastFailure == "recovery ended before configured recovery target was reached")
        #expect(log.archiveGetFailure?.code == .damaged)
        #expect(log.archiveGetFailure?.message == "could not read pack \"ab\"")
        #expect(ServerLog("").lastFailure == nil)
    }

    @Test("what is not the backup's fault: a full disk, a killed server, a host without a locale or a library")
    func notItsFault() throws {
        func disturbance(free: UInt64, _ ended: Subprocess.Status?, _ log: String) throws -> KedgeError? {
            let space = FileSystemSpace(
                mountPoint: "/", totalBytes: 1 << 40, freeBytes: free, totalInodes: 0, freeInodes: 0)
            return Disturbance(
                scratch: "/s", space: space, walSegmentSize: 64 << 20, ended: ended, log: ServerLog(log)
            ).error
        }
        let room: UInt64 = 1 << 30
        #expect(try disturbance(free: room, nil, "") == nil)
        #expect(try disturbance(free: room, .exited(1), "x [1] LOG:  startup process exited with exit code 1") == nil)
        // The server's own doing: a PANIC of one of its processes.
        #expect(try disturbance(free: room, .signalled(6), "x [1] LOG:  was terminated by signal 6: Aborted") == nil)
        #expect(try disturbance(free: 100 << 20, nil, "")?.code == .noSpace)
        #expect(try disturbance(free: room, .signalled(9), "")?.code == .databaseUnavailable)
        let killed = "x [1] LOG:  server process (PID 7) was terminated by signal 9: Killed"
        #expect(try disturbance(free: room, .exited(1), killed)?.detail?.contains("PID 7") == true)

        func said(_ words: String) -> KedgeError {
            KedgeError(.databaseUnavailable, "could not connect to PostgreSQL", detail: words, hint: "")
        }
        let locale = said(
            "FATAL:  database locale is incompatible with operating system DETAIL:  The database was initialized with "
                + "LC_COLLATE \"xx\", which is not recognized by setlocale().")
        #expect(HostLack.error(for: locale)?.code == .configuration)
        #expect(HostLack.error(for: said("FATAL:  could not access file \"x\": No such file"))?.code == .configuration)
        // pg_dump repeats its query, which may be long, behind what the server said.
        let query = (1...20).map { "a.attname\($0)," }.joined(separator: "\n")
        func dump(_ words: String) throws(KedgeError) -> Finding {
            try DatabaseChecks.dumpFailure("pg_dump: error: query failed: ERROR:  \(words)\nQuery was: \(query)\n")
        }
        let library = #expect(throws: KedgeError.self) {
            _ = try dump("could not access file \"$libdir/postgis-3\": No such file or directory")
        }
        #expect(library?.code == .configuration)
        guard case .failed = try dump("could not open relation with OID 4711") else {
            Issue.record("damage is no lack")
            return
        }
        for damage in ["FATAL:  could not open file \"base/5/2601\": No such file", "FATAL:  invalid page in block 0"] {
            #expect(HostLack.error(for: said(damage)) == nil)
            #expect(HostLack.isFinal(said(damage)))
        }
        for passing in [
            "FATAL:  the database system is starting up.", "FATAL:  sorry, too many clients already.",
            "could not connect to server: Connection refused.",
        ] {
            #expect(!HostLack.isFinal(said(passing)))
        }
        #expect(ServerLog("x [1] LOG:  starting point-in-time recovery to \"here\"").hasBegunRecovery)
        #expect(!ServerLog("x [1] LOG:  starting PostgreSQL 15.14 on x86_64").hasBegunRecovery)
    }

    @Test("only another order of an index's entries may be a collation's doing, never a damaged tuple or page")
    func collationsExcuse() {
        func refusal(_ code: ErrorCode, _ state: String) -> KedgeError {
            KedgeError(code, "could not check index i", detail: "ERROR: corrupted (SQLSTATE \(state))")
        }
        #expect(AmcheckRun.mayBeOrder(refusal(.databaseRefused, "XX002")))
        for state in ["XX001", "XX000", "42501", "58030"] {
            #expect(!AmcheckRun.mayBeOrder(refusal(.databaseRefused, state)), "\(state)")
        }
        #expect(!AmcheckRun.mayBeOrder(refusal(.databaseUnavailable, "XX002")))
        #expect(!AmcheckRun.mayBeOrder(KedgeError(.databaseRefused, "no state")))
    }
}

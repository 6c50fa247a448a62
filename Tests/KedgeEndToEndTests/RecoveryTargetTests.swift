// That a restored, promoted database holds exactly the rows that WAL order puts at or before the target, for random
// targets of every kind chosen during load, and that PostgreSQL's own checkers agree with every restored directory.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: KEDGE_TEST_SERVERS=1"))
struct RecoveryTargetTests {
    /// A target as the command line takes it, and which records it replays.
    struct Target: CustomStringConvertible {
        let arguments: [String]
        /// How many of the oracle's records are replayed.
        let replayed: Int

        var description: String { arguments.joined(separator: " ") }
    }

    @Test(
        "30 random targets of all kinds, chosen during load, restore exactly the rows before them",
        arguments: PostgresInstallation.all)
    func randomTargets(_ installation: PostgresInstallation) throws {
        let random = SeededRandom(seed: testSeed() &+ UInt64(installation.version))
        let cluster = try ProtectedCluster(installation)
        try cluster.server.psql("create table journal (xid bigint); create table wide (a int, b text)")
        let first = try cluster.server.value("select pg_walfile_name(pg_current_wal_lsn())")
        var load = try Load(cluster)
        try load.start()
        try cluster.server.wait(until: "select count(*) > 100 from journal")
        let backup = try Backup(cluster.kedge(["backup", "--type", "full", "--json"]))
        for number in 0..<6 {
            try cluster.server.psql("select pg_sleep(0.7)")
            try cluster.server.psql("select pg_create_restore_point('point-\(number)')")
        }
        try load.wait()
        try cluster.archiveEverything()

        let records = try WALOracle.records(cluster.server, from: first)
        if installation.has("pg_waldump") {
            // Versions without one rely on our own reader: where both are there, they must agree on every record.
            let own = try WALOracle.ownRecords(cluster.server, from: first)
            #expect(own.count == records.count)
            for (one, other) in zip(own, records) where one != other { Issue.record("\(one) is no \(other)") }
        }
        let journal = Set(try cluster.server.psql("select xid from journal").compactMap { UInt64($0[0]) })
        #expect(journal.count > 300)
        let targets = Self.targets(30, records, backup, random)
        for (number, target) in targets.enumerated() {
            let directory = cluster.scratch("restored-\(number)")
            try cluster.kedge(["restore", "--pgdata", directory, "--target-action", "promote"] + target.arguments)
            if installation.has("pg_verifybackup") {
                try cluster.server.tool("pg_verifybackup", ["-n", directory])
            }
            let restored = try PostgresTestServer(dataDirectory: directory, installation: installation)
            try restored.start()
            try restored.wait(until: "select not pg_is_in_recovery()")
            let rows = Set(try restored.psql("select xid from journal").compactMap { UInt64($0[0]) })
            let expected = Set(records[..<target.replayed].filter { $0.kind == .commit }.map(\.xid)).intersection(
                journal)
            #expect(
                rows == expected,
                """
                PostgreSQL \(installation.version), \(target): \(rows.count) rows instead of \(expected.count); \
                missing \(expected.subtracting(rows).sorted().prefix(5)), \
                surplus \(rows.subtracting(expected).sorted().prefix(5)); seed \(testSeed())
                """)
            try restored.stop()
            if installation.has("pg_checksums") {
                try cluster.server.tool("pg_checksums", ["-c", "-D", directory])
            } else {
                #expect(try PageScan.damagedPages(below: directory) == [])
            }
            try ServerUser.run(["rm", "-rf", directory])
        }
        print("PostgreSQL \(installation.version): \(targets.count) targets among \(records.count) records")
    }

    // MARK: Choosing targets

    /// Where the backup ended.
    struct Backup {
        let stopLSN: LSN
        let stopTime: Timestamp

        init(_ json: String) throws {
            let record = try JSONRecord(parsing: json.utf8, what: "backup")
            stopLSN = try record.parsed("stopLSN") { LSN($0) }
            stopTime = try record.parsed("stopTime") { Timestamp(record: $0) }
        }
    }

    static func targets(
        _ count: Int, _ records: [OracleRecord], _ backup: Backup, _ random: SeededRandom
    ) -> [Target] {
        // What a target may mean: ends of transactions and restore points after the backup.
        let usable = records.indices.filter { records[$0].lsn > backup.stopLSN }
        let ends = usable.filter { records[$0].time.map { $0 > backup.stopTime } ?? false }
        let commits = ends.filter { records[$0].kind == .commit && records[$0].xid > 0 }
        let points = usable.filter { if case .restorePoint = records[$0].kind { true } else { false } }
        func pick(_ indices: [Int]) -> Int { indices[random.next(below: indices.count)] }
        var targets = [
            Target(arguments: [], replayed: records.count),
            Target(
                arguments: ["--target-immediate"],
                replayed: records.firstIndex { $0.lsn >= backup.stopLSN } ?? records.count),
        ]
        while targets.count < count {
            let isExclusive = random.next(below: 3) == 0
            let flag = isExclusive ? ["--target-exclusive"] : []
            switch targets.count % 4 {
            case 0:
                targets.append(timeTarget(records, pick(ends), isExclusive, random))
            case 1:
                let index = pick(commits)
                targets.append(
                    Target(
                        arguments: ["--target-xid", String(records[index].xid)] + flag,
                        replayed: isExclusive ? index : index + 1))
            case 2:
                // Inclusive: the record that begins at or after the LSN is replayed as well.
                let index = pick(usable)
                targets.append(
                    Target(
                        arguments: ["--target-lsn", records[index].lsn.description] + flag,
                        replayed: isExclusive ? index : index + 1))
            default:
                let index = pick(points)
                guard case .restorePoint(let name) = records[index].kind else { continue }
                targets.append(Target(arguments: ["--target-name", name], replayed: index + 1))
            }
        }
        return targets
    }

    /// A time on, just before or just after the end of a transaction. Recovery stops before the first end of a
    /// transaction later than it (exclusive: at or later), in WAL order, whose times may go back a little.
    private static func timeTarget(
        _ records: [OracleRecord], _ index: Int, _ isExclusive: Bool, _ random: SeededRandom
    ) -> Target {
        let shift = Int64(random.next(below: 3)) - 1
        let time = Timestamp(microseconds: (records[index].time?.microseconds ?? 0) + shift)
        let stop = records.firstIndex { record in
            guard let end = record.time else { return false }
            return isExclusive ? end >= time : end > time
        }
        return Target(
            arguments: ["--target-time", time.description] + (isExclusive ? ["--target-exclusive"] : []),
            replayed: stop ?? records.count)
    }

    // MARK: Load

    /// pgbench: commits, rollbacks and subtransactions on several connections, each commit leaving its xid in the
    /// journal.
    struct Load: ~Copyable {
        private let command: Subprocess
        private var process: RunningProcess?

        init(_ cluster: ProtectedCluster) throws {
            let scripts = [
                ("commit", 6, "insert into journal values (txid_current());"),
                (
                    "wide", 2,
                    "begin; insert into journal values (txid_current()); "
                        + "insert into wide select g, repeat('x', g) from generate_series(1, 200) g; commit;"
                ),
                (
                    "subtransaction", 1,
                    "begin; savepoint s; insert into journal values (txid_current()); release s; commit;"
                ),
                ("rollback", 1, "begin; insert into journal values (txid_current()); rollback;"),
            ]
            var arguments = [
                cluster.server.installation.has("pgbench")
                    ? cluster.server.installation.program("pgbench") : PostgresInstallation.standard.program("pgbench")
            ]
            arguments += cluster.server.connectionArguments + ["-n", "-c", "4", "-j", "1", "-R", "200", "-T", "9"]
            for (name, weight, sql) in scripts {
                let file = cluster.directory(name + ".sql")
                try cluster.write(file, sql.split(separator: ";").map { $0 + ";" }.joined(separator: "\n"))
                arguments += ["-f", "\(file)@\(weight)"]
            }
            command = ServerUser.command(arguments + ["postgres"])
        }

        mutating func start() throws { process = try command.start(output: .discarded, errors: .discarded) }

        mutating func wait() throws {
            let status = try process?.wait(timeout: .seconds(60))
            #expect(status == .exited(0))
        }
    }
}

// That a restore by the built kedge is safe whatever happens: a copy without backup_label does not start, refusals have
// their messages and statuses, damage and interruption leave nothing that a server would take for a cluster, and no
// living tablespace is touched. Where recovery stops is RecoveryTargetTests' matter.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct RestoreTests {
    /// A protected cluster with a few rows and a backup of them.
    private func backedUp(_ installation: PostgresInstallation = .standard) throws -> ProtectedCluster {
        let cluster = try ProtectedCluster(installation)
        try cluster.server.psql("create table t as select g, repeat('x', 100) from generate_series(1, 20000) g")
        try cluster.kedge(["backup"])
        return cluster
    }

    /// What kedge prints for an error.
    private func error(_ message: String, detail: String? = nil, hint: String, code: String) -> String {
        var lines = ["kedge: error: \(message)"]
        if let detail { lines.append("detail: \(detail)") }
        return (lines + ["hint: \(hint)", "code: \(code)", ""]).joined(separator: "\n")
    }

    private func hasControlFile(_ directory: String) -> Bool { access(directory + "/global/pg_control", F_OK) == 0 }

    // MARK: What was restored

    @Test(
        "a copy without its backup_label does not start, with recovery.signal and without (lesson 37)",
        arguments: PostgresInstallation.all)
    func poisonedControlFile(_ installation: PostgresInstallation) throws {
        let cluster = try backedUp(installation)
        // The backup that is restored is a delta of the first.
        try cluster.server.psql("insert into t values (0, 'y')")
        try cluster.kedge(["backup", "--type", "delta"])
        let copy = cluster.scratch("copy")
        let plan = try cluster.kedge(["restore", "--pgdata", copy, "--target-immediate", "--target-action", "promote"])
        #expect(plan.contains("-delta-"), "\(plan)")
        try ServerUser.run(["mv", copy + "/backup_label", copy + "/label"])
        let server = try PostgresTestServer(dataDirectory: copy, installation: installation)
        for removed in ["nothing", "recovery.signal"] {
            try ServerUser.run(["rm", "-f", copy + "/" + removed])
            try server.startWithoutWaiting()
            let status = try server.waitForExit()
            #expect(status != nil && status?.isSuccess == false, "without \(removed)")
            #expect(server.log.contains("PANIC:  could not locate a valid checkpoint record"))
        }
        // The very same copy starts once the label is back: it was nothing else that stopped it.
        try ServerUser.run(["mv", copy + "/label", copy + "/backup_label"])
        try ServerUser.run(["touch", copy + "/recovery.signal"])
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from t") == "20001")
        #expect(try server.value("show archive_mode") == "off")
    }

    @Test("pg_verifybackup agrees with a restored directory, tablespace included", arguments: PostgresInstallation.all)
    func serverManifest(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(installation)
        try ServerUser.run(["mkdir", cluster.scratch("ts")])
        try cluster.server.psql(
            """
            create tablespace ts location '\(cluster.scratch("ts"))';
            create table t tablespace ts as select generate_series(1, 20000) g;
            create database "odd=\\#[ name]";
            """)
        try cluster.kedge(["backup"])
        let copy = cluster.scratch("copy")
        let oid = try cluster.server.value("select oid from pg_tablespace where spcname = 'ts'")
        try cluster.kedge(["restore", "--pgdata", copy, "--tablespace", "\(oid)=\(cluster.scratch("moved"))"])
        try cluster.server.tool("pg_verifybackup", ["-n", copy])
        let server = try PostgresTestServer(dataDirectory: copy, installation: installation)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from t") == "20000")
        #expect(try server.value("select pg_tablespace_location(\(oid))") == cluster.scratch("moved"))
    }

    @Test("a row that only a partial segment holds comes back with the old timeline")
    func partialSegment() throws {
        let cluster = try backedUp()
        let standbyDirectory = cluster.scratch("standby")
        try cluster.kedge(["restore", "--pgdata", standbyDirectory, "--standby", "--archiving", "keep"])
        let standby = try PostgresTestServer(dataDirectory: standbyDirectory)
        let source = "host=\(cluster.server.directory.path) port=\(cluster.server.port) user=postgres"
        try standby.appendConfiguration(["primary_conninfo = '\(source)'"])
        try standby.start()
        try cluster.archiveEverything()
        let xid = try cluster.server.value("insert into t values (0, 'last') returning pg_current_xact_id()")
        try standby.wait(until: "select count(*) = 20001 from t")
        // The primary is gone with a segment that it never archived whole; the standby archives it as .partial.
        try cluster.server.kill()
        try standby.psql("select pg_promote()")
        try standby.wait(until: "select not pg_is_in_recovery()")
        try standby.wait(until: "select last_archived_wal like '%.partial' or archived_count > 1 from pg_stat_archiver")
        try standby.psql("create table later()")
        let copy = cluster.scratch("copy")
        let text = try cluster.kedge([
            "restore", "--pgdata", copy, "--target-xid", xid, "--target-timeline", "1", "--target-action", "promote",
        ])
        #expect(text.contains(".partial") || text.contains("proven"))
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from t") == "20001")
    }

    @Test("a server comes up at the last record before a hole in the WAL, which it must not look into")
    func hole() throws {
        let cluster = try backedUp()
        func archive(_ row: Int) throws -> String {
            try cluster.server.psql("insert into t values (-\(row), 'y')")
            let file = try cluster.server.value("select pg_walfile_name(pg_current_wal_lsn())")
            try cluster.archiveEverything()
            return file
        }
        let files = try (1...4).map { try archive($0) }
        let lost = try Subprocess(["find", cluster.repository, "-name", files[2]]).run().outputText
        try ServerUser.run(["rm", String(lost.dropLast())])
        let refused = try cluster.attempt(["restore", "--pgdata", cluster.scratch("copy")])
        #expect(refused.status == .exited(1))
        let hint = try #require(refused.errorText.split(separator: "\n").first { $0.hasPrefix("hint:") })
        let target = try #require(hint.split(separator: "--target-lsn ").last?.prefix { $0 != "\"" })
        let copy = cluster.scratch("copy")
        try cluster.kedge([
            "restore", "--pgdata", copy, "--target-lsn", String(target), "--target-action", "promote",
        ])
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select min(g) from t") == "-2")
        // From 15 on a server reads ahead, unless it is told not to.
        guard server.installation.version >= 15 else { return }
        #expect(try server.value("show recovery_prefetch") == "off")
    }

    @Test("a dry run prints the plan, for people and as JSON, and writes nothing")
    func dryRun() throws {
        let cluster = try backedUp()
        let point = try cluster.server.value("select pg_create_restore_point('before_drop')")
        try cluster.archiveEverything()
        let copy = cluster.scratch("copy")
        let arguments = ["restore", "--pgdata", copy, "--target-name", "before_drop", "--dry-run"]
        let text = try cluster.kedge(arguments)
        #expect(text.contains("recovery: to restore point \"before_drop\" on timeline 1, then pause\n"))
        #expect(text.contains("proven: Recovery stops after restore point \"before_drop\" of "))
        let json = try JSONRecord(parsing: try cluster.kedge(["--json"] + arguments).utf8, what: "plan")
        #expect(try json.bool("written") == false)
        #expect(try json.record("target").string("kind") == "name")
        #expect(try json.string("archiving") == "off")
        #expect(try json.string("action") == "pause")
        let stop = try #require(LSN(try json.string("stopLSN")))
        #expect(stop < LSN(point) ?? .invalid)
        #expect(access(copy, F_OK) != 0)
    }

    // MARK: What is refused

    @Test("refusals have their whole message and their status, and write nothing")
    func refusals() throws {
        let cluster = try backedUp()
        let (copy, pgdata) = (cluster.scratch("copy"), cluster.server.dataDirectory)
        func refusal(_ arguments: [String]) throws -> (Int32?, String) {
            let outcome = try cluster.attempt(["--log-level", "error", "restore"] + arguments)
            #expect(access(copy, F_OK) != 0, "\(arguments) wrote something")
            guard case .exited(let status) = outcome.status else { return (nil, outcome.errorText) }
            return (status, outcome.errorText)
        }
        let process = try #require(cluster.server.processID)
        #expect(
            try refusal([]) == (
                1,
                error(
                    "cannot restore into directory \"\(pgdata)\": a server runs there",
                    detail: "Its postmaster.pid names process \(process), which is alive.",
                    hint: "Stop that server and move its directory away, or restore into another with \"--pgdata\".",
                    code: "server-running")
            ))
        #expect(
            try refusal(["--pgdata", cluster.directory.path]) == (
                1,
                error(
                    "cannot restore into directory \"\(cluster.directory.path)\": it is not empty",
                    detail: "It holds \"kedge.conf\" and 3 more.",
                    hint: "Move what is there away, or restore into another directory with \"--pgdata\".",
                    code: "not-empty")
            ))
        let late = try refusal(["--pgdata", copy, "--target-time", "2099-01-01 00:00:00Z"])
        #expect(late.0 == 1)
        #expect(
            late.1.hasPrefix(
                "kedge: error: cannot restore to time 2099-01-01T00:00:00Z: recovery would not get there\n"))
        #expect(late.1.hasSuffix("code: target-unreachable\n"))
        #expect(
            try refusal(["--pgdata", copy, "--target-xid", "7", "--target-name", "a"]) == (
                2,
                error(
                    "cannot recover to two targets at once: \"--target-xid\" and \"--target-name\"",
                    hint: "Give one of them.", code: "usage")
            ))
        #expect(
            try refusal(["--pgdata", copy, "--replace-system", "7"]) == (
                2,
                error(
                    "cannot use \"--replace-system\" without \"--delta\"",
                    hint: "Without \"--delta\" nothing that is there is ever overwritten.", code: "usage")
            ))
        #expect(
            try refusal(["--pgdata", copy, "--standby", "--target-immediate"]) == (
                2,
                error(
                    "cannot restore a standby to a target: it follows its primary without end",
                    hint: "Leave out \"--standby\" or the target.", code: "usage")
            ))
    }

    @Test("a tablespace that recovery would create over a living one is refused, before it was created it is not")
    func createdTablespace() throws {
        let cluster = try backedUp()
        try ServerUser.run(["mkdir", cluster.scratch("new")])
        let before = try cluster.server.value("select pg_current_wal_insert_lsn()")
        try cluster.server.psql(
            "create tablespace new location '\(cluster.scratch("new"))'; create table n() tablespace new")
        try cluster.archiveEverything()
        let copy = cluster.scratch("copy")
        let refused = try cluster.attempt(["--log-level", "error", "restore", "--pgdata", copy])
        #expect(refused.status == .exited(1))
        #expect(
            refused.errorText.hasPrefix(
                "kedge: error: cannot restore: recovery would write into tablespace directory "
                    + "\"\(cluster.scratch("new"))\"\n"
            ))
        #expect(access(copy, F_OK) != 0)
        try cluster.kedge(["restore", "--pgdata", copy, "--target-lsn", before])
    }

    // MARK: What goes wrong on the way

    @Test("damage anywhere in a backup ends the restore with status 3 and leaves nothing that starts")
    func damage() throws {
        let cluster = try backedUp()
        let objects = try ServerUser.run(["find", cluster.repository + "/main", "-type", "f"]).split(separator: "\n")
        let backup = objects.map(String.init).filter { $0.contains("/pack/") || $0.hasSuffix("/manifest") }
        #expect(backup.count >= 2)
        for (number, object) in backup.enumerated() {
            let whole = try #require(try? FileDescriptor.open(RawPath(object), [.read]).readAll(limit: 1 << 30))
            for part in [1, 3, 5, 7] {
                var bytes = whole
                bytes[bytes.count * part / 8] ^= 0x10
                try rewrite(object, bytes)
                let copy = cluster.scratch("damaged-\(number)-\(part)")
                let outcome = try cluster.attempt(["--log-level", "error", "restore", "--pgdata", copy])
                #expect(outcome.status == .exited(3), "\(object) at \(part)/8: \(outcome.errorText)")
                #expect(!hasControlFile(copy), "\(object) at \(part)/8")
                #expect(outcome.errorText.hasSuffix("code: damaged\n"))
            }
            try rewrite(object, whole)
        }
        let copy = cluster.scratch("whole")
        try cluster.kedge(["restore", "--pgdata", copy])
        #expect(hasControlFile(copy))
    }

    private func rewrite(_ path: String, _ bytes: [UInt8]) throws {
        try FileDescriptor.open(RawPath(path), [.write]).write(bytes, at: 0)
    }

    @Test("an interrupted restore leaves nothing that starts, and says what to remove")
    func interruption() throws {
        let cluster = try backedUp()
        var interrupted = 0
        for attempt in 1...20 where interrupted < 3 {
            let copy = cluster.scratch("copy-\(attempt)")
            var process = try KedgeBinary.command(
                ["--config", cluster.configuration, "--log-level", "error", "restore", "--pgdata", copy]
            ).start(output: .discarded, errors: .file(cluster.scratch("errors")))
            // A little later each time, from the moment on when the directory is there.
            let begin = ContinuousClock.now
            while access(copy, F_OK) != 0, ContinuousClock.now < begin + .seconds(20) { sched_yield() }
            let begun = ContinuousClock.now
            while ContinuousClock.now < begun + .milliseconds(attempt * 3) { sched_yield() }
            process.kill(SIGTERM)
            let status = try process.wait()
            if status?.isSuccess == true { continue }
            interrupted += 1
            #expect(!hasControlFile(copy))
            let text = try #require(readTextFile(cluster.scratch("errors")))
            #expect(text.contains("kedge: error: could not finish the restore into directory \"\(copy)\"\n"))
            #expect(text.contains("hint: Remove \"\(copy)\", then run the command again."))
        }
        #expect(interrupted > 0)
    }
}

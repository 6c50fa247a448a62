// That `restore --delta` by the built kedge makes of a real data directory, damaged and out of date, page for page what
// a fresh restore gives, that a server starts on it, and that a kill leaves nothing that starts. What it does to every
// kind of file, and at every system call, is DeltaRestoreTests' matter.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DeltaRestoreServerTests {
    /// A cluster with two tablespaces, a full and a delta backup, a restore point, and a life after that.
    private struct World {
        let cluster: ProtectedCluster
        var pgdata: String { cluster.server.dataDirectory }
        var first: String { cluster.scratch("first") }
        var late: String { cluster.scratch("late") }
        let oid: String

        init(_ installation: PostgresInstallation) throws {
            cluster = try ProtectedCluster(installation)
            let server = cluster.server
            try ServerUser.run(["mkdir", cluster.scratch("first"), cluster.scratch("late"), cluster.scratch("dropped")])
            try server.psql(
                """
                create tablespace first location '\(cluster.scratch("first"))';
                create tablespace dropped location '\(cluster.scratch("dropped"))';
                create table a as select g, repeat('x', 200) p from generate_series(1, 60000) g;
                create table b tablespace first as select g, repeat('y', 200) p from generate_series(1, 20000) g;
                create table d tablespace dropped as select 1 one;
                create unlogged table u as select g from generate_series(1, 1000) g;
                """)
            try cluster.kedge(["backup"])
            try server.psql("update a set p = 'z' where g % 5000 = 0; insert into b values (0, 'n')")
            try cluster.kedge(["backup", "--type", "delta"])
            try server.psql("insert into a values (-1, 'm')")
            _ = try server.value("select pg_create_restore_point('wanted')")
            try server.psql("drop table d")
            try server.psql("drop tablespace dropped")
            try server.psql("create tablespace late location '\(cluster.scratch("late"))'")
            try server.psql(
                """
                create table c tablespace late as select g from generate_series(1, 5000) g;
                delete from a where g between 1000 and 2000;
                create table e as select g from generate_series(1, 5000) g;
                """)
            try cluster.archiveEverything()
            oid = try server.value("select oid from pg_tablespace where spcname = 'first'")
        }

        /// The path of a table's file, absolute.
        func file(of table: String) throws -> String {
            pgdata + "/" + (try cluster.server.value("select pg_relation_filepath('\(table)')"))
        }

        func delta(_ arguments: [String]) throws -> JSONRecord {
            try JSONRecord(
                parsing: try cluster.kedge(["--json", "restore", "--delta"] + arguments).utf8, what: "outcome")
        }
    }

    @Test(
        "a damaged, outdated data directory with dropped and new tablespaces becomes what a fresh restore gives",
        arguments: PostgresInstallation.soakIsEnabled ? PostgresInstallation.all : [.standard])
    func wholeWay(_ installation: PostgresInstallation) throws {
        let world = try World(installation)
        let (cluster, server) = (world.cluster, world.cluster.server)
        let running = try cluster.attempt(["--log-level", "error", "restore", "--delta"])
        #expect(running.status == .exited(1))
        #expect(running.errorText.hasSuffix("code: server-running\n"))
        let (a, b) = (try world.file(of: "a"), try world.file(of: "b"))
        try server.stop()
        try damage(world, a, b)
        // To the end of the WAL: recovery creates the late tablespace again, where its later state still lies.
        let first = try world.delta([])
        let (total, fetched) = (try first.integer("bytes", as: Int.self), try fetchedBytes(first))
        #expect(fetched < total, "\(fetched) of \(total)")
        try expectStarts(server, ["a": "59000", "b": "20001", "c": "5000", "e": "5000", "u": "0"])
        try server.stop()
        // To the restore point before, of the first timeline: the tablespace that was dropped since is back.
        let target = ["--target-name", "wanted", "--target-timeline", "1", "--target-action", "promote"]
        try ServerUser.run(["rm", "-rf", cluster.scratch("dropped")])
        let plan = try world.delta(target + ["--dry-run"])
        let second = try world.delta(target)
        #expect(try fetchedBytes(plan) == fetchedBytes(second))
        try server.tool("pg_verifybackup", ["-n", world.pgdata])
        try expectSame(world, target)
        // Nothing is left to be done.
        #expect(try fetchedBytes(world.delta(target)) == 0)
        try expectStarts(server, ["a": "60001", "b": "20001", "d": "1", "u": "0"])
    }

    private func damage(_ world: World, _ a: String, _ b: String) throws {
        for (file, offset) in [(a, 123_456), (b, 1_500_000)] {
            try FileDescriptor.open(RawPath(file), [.write]).write([0xFF, 0xFE], at: UInt64(offset))
        }
        let pgdata = world.pgdata
        let lines = [
            "rm \(pgdata)/global/pg_filenode.map \(pgdata)/PG_VERSION", "truncate -s 100 \(pgdata)/base/1/2619",
            "truncate -s +300000 \(pgdata)/base/1/1255", "echo x > \(pgdata)/base/1/99999",
            "echo x > \(pgdata)/foreign",
            "mkdir -p \(pgdata)/base/77777 && cp \(pgdata)/base/1/1259 \(pgdata)/base/77777/",
            "ln -s /etc \(pgdata)/pg_tblspc/99999", "rm -r \(pgdata)/pg_xact && ln -s /etc \(pgdata)/pg_xact",
            "chmod 755 \(pgdata)/base",
        ]
        for line in lines { try ServerUser.run(["sh", "-c", line]) }
    }

    private func fetchedBytes(_ outcome: JSONRecord) throws -> Int {
        try outcome.record("delta").integer("fetchedBytes", as: Int.self)
    }

    private func expectStarts(_ server: PostgresTestServer, _ tables: [String: String]) throws {
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        for (table, count) in tables {
            #expect(try server.value("select count(*) from \(table)") == count, "\(table)")
        }
    }

    /// Compares with a fresh restore to the same target, byte for byte.
    private func expectSame(_ world: World, _ target: [String]) throws {
        let cluster = world.cluster
        let copy = cluster.scratch("copy")
        let dropped = try ServerUser.run(["sh", "-c", "cd \(world.pgdata)/pg_tblspc && ls -l | grep dropped"])
        let other = dropped.split(separator: " ").dropLast(2).last.map(String.init) ?? ""
        try cluster.kedge(
            [
                "restore", "--pgdata", copy, "--tablespace", "\(world.oid)=\(cluster.scratch("copy-first"))",
                "--tablespace", "\(other)=\(cluster.scratch("copy-dropped"))", "--archiving", "keep",
            ] + target)
        // What holds paths and times of the one or the other.
        let apart = ["tablespace_map", "backup_manifest"].flatMap { ["--exclude", $0] }
        let difference = try Subprocess(["diff", "-r"] + apart + [world.pgdata, copy]).run()
        #expect(difference.outputText == "" && difference.status == .exited(0), "\(difference.errorText)")
        try ServerUser.run(["rm", "-rf", copy, cluster.scratch("copy-first"), cluster.scratch("copy-dropped")])
    }

    @Test("killed at any moment nothing starts, and the same command again completes it")
    func kills() throws {
        let world = try World(.standard)
        let server = world.cluster.server
        let (a, b) = (try world.file(of: "a"), try world.file(of: "b"))
        try server.stop()
        var killed = 0
        for attempt in 1...30 where killed < 4 {
            if access(a, F_OK) == 0, access(b, F_OK) == 0 { try ServerUser.run(["rm", "-f", a, b]) }
            let command = try KedgeBinary.command([
                "--config", world.cluster.configuration, "--log-level", "error", "restore", "--delta",
            ])
            var process = try command.start(output: .discarded, errors: .discarded)
            // From the moment on when pg_control is away, a little later each time.
            let begin = ContinuousClock.now
            while access(world.pgdata + "/kedge_restore.json", F_OK) != 0, ContinuousClock.now < begin + .seconds(20) {
                sched_yield()
            }
            let begun = ContinuousClock.now
            while ContinuousClock.now < begun + .milliseconds(attempt * attempt) { sched_yield() }
            process.kill(SIGKILL)
            if try process.wait()?.isSuccess == true { continue }
            killed += 1
            guard access(world.pgdata + "/global/pg_control", F_OK) != 0 else { continue }
            try server.startWithoutWaiting()
            #expect(try server.waitForExit()?.isSuccess == false)
        }
        #expect(killed > 0)
        _ = try world.delta([])
        try expectStarts(server, ["a": "59000", "b": "20001", "c": "5000", "e": "5000", "u": "0"])
    }
}

// That `kedge drill` proves good backups on every version: to the latest moment, to moments of every kind, on a host
// that has nothing but the repository and the key; and that it leaves nothing behind.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DrillTests {
    @Test("the newest backup is restored, recovered and checked", arguments: PostgresInstallation.all)
    func newest(_ installation: PostgresInstallation) throws {
        let drills = try DrillCluster(installation)
        try drills.cluster.server.psql("insert into t select 0, 'after' from generate_series(1, 10)")
        try drills.archive()
        let proof = try drills.proof()
        #expect(try proof.string("result") == "passed")
        #expect(try DrillCluster.checks(proof, "failed") == [])
        let passed = Set(try DrillCluster.checks(proof, "passed"))
        var expected: Set = [
            "fetch", "target-reached", "opens", "connect", "extensions", "collations", "schema-dump", "checksums",
        ]
        // Some installations for tests are the server alone.
        if !installation.has("pg_dump") { expected.remove("schema-dump") }
        #expect(passed.isSuperset(of: expected), "\(proof)")
        #expect(try proof.string("serverVersion").hasPrefix("\(installation.version)."))
        let phases = try proof.records("phases").map { phase in
            (try phase.string("name"), try phase.integer("milliseconds", as: Int.self))
        }
        #expect(phases.map(\.0) == ["select", "fetch", "start", "replay", "open", "checks"])
        let times = phases.map { "\($0.0) \($0.1) ms" }.joined(separator: ", ")
        print("drill of PostgreSQL \(installation.version): \(times)")
        try drills.expectNothingLeft()
        #expect(try drills.proofCount() == 1)
        // Info shows it, and a forecast rests on it.
        let info = try drills.cluster.kedge(["info"])
        #expect(info.contains("proof: drilled "), "\(info)")
        let forecast = try drills.cluster.kedge(["restore", "--dry-run", "--pgdata", drills.cluster.scratch("new")])
        #expect(forecast.contains("forecast: about "), "\(forecast)")
    }

    @Test("moments of every kind, given and at random, are reached")
    func targets() throws {
        let drills = try DrillCluster()
        let server = drills.cluster.server
        let point = "select pg_create_restore_point('here')"
        let moment = try server.value("select clock_timestamp()")
        try server.psql("insert into t select g, 'more' from generate_series(1, 100) g")
        let xid = try server.value("insert into t values (-1, 'last') returning pg_current_xact_id()")
        let lsn = try server.value(point)
        try server.psql("insert into t values (-2, 'beyond')")
        try drills.cluster.kedge(["backup"])
        try server.psql("insert into t values (-3, 'far beyond')")
        try drills.archive()
        let checks = drills.cluster.scratch("checks.sql")
        func drill(_ arguments: [String], rows: Int?) throws {
            let expectation = rows.map { "select count(*) = \($0) from t;" } ?? "select true;"
            try drills.cluster.write(checks, "-- how many\n\(expectation)")
            let proof = try drills.proof(arguments + ["--drill-check", checks, "--drill-amcheck", "off"])
            #expect(Set(try DrillCluster.checks(proof, "passed")).isSuperset(of: ["target-reached", "assertion"]))
        }
        try drill(["--target-time", moment], rows: 5000)
        try drill(["--target-xid", xid], rows: 5101)
        try drill(["--target-xid", xid, "--target-exclusive"], rows: 5100)
        try drill(["--target-name", "here"], rows: 5101)
        // The record that begins there is the row's own; its commit is the next.
        try drill(["--target-lsn", lsn], rows: 5101)
        try drill(["--target-immediate"], rows: 5102)
        try drill([], rows: 5103)
        for _ in 0..<(PostgresInstallation.soakIsEnabled ? 20 : 1) {
            try drill(["--random"], rows: nil)
            try drill(["--random-target"], rows: nil)
        }
        try drills.expectNothingLeft()
    }

    @Test("a host without the original, its network, its socket or its spool needs the repository and the key alone")
    func elsewhere() throws {
        let drills = try DrillCluster(configuration: ["shared_preload_libraries = 'pg_stat_statements'"])
        let server = drills.cluster.server
        try drills.archive()
        try server.stop()
        try ServerUser.run(["mv", server.dataDirectory, drills.cluster.scratch("gone")])
        // A new host's directory: configuration, key, repository.
        let host = try TemporaryDirectory()
        for name in ["repository", "main.key"] {
            try ServerUser.run(["cp", "-a", drills.cluster.directory(name), host(name)])
        }
        try drills.cluster.write(
            host("kedge.conf"),
            """
            [repository main]
            path = \(host("repository"))
            encryption = aes-256-gcm
            key-file = \(host("main.key"))
            [cluster main]
            pgdata = /nonexistent/data
            drill-directory = \(host("new/scratch"))
            bin-dir = \(server.installation.binDirectory)
            work-directory = \(host("work"))
            """)
        try ServerUser.run(["mv", drills.cluster.repository, drills.cluster.scratch("gone too")])
        // What libpq would find in the environment leads nowhere.
        let misleading = [
            "PGHOST": "/nonexistent", "PGPORT": "1", "PGUSER": "nobody", "PGOPTIONS": "-c nonsense=1",
            "PGSERVICE": "none", "PGTARGETSESSIONATTRS": "read-write",
        ]
        let outcome = try KedgeBinary.run(
            ["--config", host("kedge.conf"), "drill"], environment: misleading.mapValues { Optional($0) },
            workingDirectory: host.path)
        #expect(outcome.status == .exited(0), "\(outcome.errorText)\(outcome.outputText)")
        #expect(outcome.outputText.contains("restored and proven"))
        #expect(try Directory.entries(at: RawPath(host("new/scratch"))).isEmpty)
    }

    @Test("tablespaces are restored below the scratch directory, living ones stay as they are, later ones are refused")
    func tablespaces() throws {
        let cluster = try ProtectedCluster()
        let living = cluster.scratch("living")
        try ServerUser.run(["mkdir", living, cluster.scratch("later")])
        try cluster.server.psql("create tablespace ts location '\(living)'")
        let drills = try DrillCluster(
            on: cluster, sql: "create table t tablespace ts as select generate_series(1, 9) g")
        func state() throws -> String {
            try ServerUser.run(["find", living, "-printf", "%p %i %s %T@ %C@\\n"])
        }
        try cluster.server.psql("checkpoint")
        let before = try state()
        let checks = cluster.scratch("checks.sql")
        try cluster.write(
            checks,
            """
            select count(*) = 9 from t;
            select pg_tablespace_location(oid) like '\(drills.scratch)/%' from pg_tablespace where spcname = 'ts'
            """)
        let proof = try drills.proof(["--drill-check", checks])
        #expect(try DrillCluster.checks(proof, "failed") == [])
        #expect(try state() == before)

        try cluster.server.psql("create tablespace late location '\(cluster.scratch("later"))'")
        try cluster.archiveEverything()
        let refused = try drills.drill()
        #expect(refused.status == .exited(2))
        #expect(refused.errorText.hasPrefix("kedge: error: cannot drill: recovery would create tablespace "))
        #expect(refused.errorText.contains(cluster.scratch("later")))
        #expect(try drills.proofCount() == 1)
        try drills.expectNothingLeft()
    }

    @Test("limits that were raised after the backup are raised in the drill too, as replay asks for them")
    func limits() throws {
        let drills = try DrillCluster()
        let server = drills.cluster.server
        try server.psql("alter system set max_connections = 250; alter system set max_locks_per_transaction = 128")
        try server.stop()
        try server.start()
        try server.psql("insert into t values (0, 'after')")
        try drills.archive()
        let outcome = try drills.drill()
        #expect(outcome.status == .exited(0), "\(outcome.errorText)\(outcome.outputText)")
        #expect(outcome.errorText.contains("max_connections = 250"), "\(outcome.errorText)")
        try drills.expectNothingLeft()
    }

    @Test("two drills at once do not meet; one that is kept can be looked at and goes with --clean")
    func sideBySide() throws {
        let drills = try DrillCluster()
        try drills.archive()
        var other = try KedgeBinary.command(
            ["--config", drills.cluster.configuration, "drill"] + drills.arguments,
            workingDirectory: drills.cluster.directory.path
        ).start(output: .discarded, errors: .file(drills.cluster.scratch("errors")))
        let kept = try drills.drill(["--keep", "--json"])
        #expect(kept.status == .exited(0), "\(kept.errorText)\(kept.outputText)")
        #expect(try other.wait() == .exited(0), "\(readTextFile(drills.cluster.scratch("errors")) ?? "")")
        let json = try JSONRecord(parsing: kept.outputText.utf8, what: "drill").record("kept")
        let rows = try ServerUser.run([
            drills.cluster.server.installation.program("psql"), "-XAt", "-h", try json.string("socketDirectory"), "-p",
            String(try json.integer("port", as: Int.self)), "-U", try json.string("user"), "-d", "postgres", "-c",
            "select count(*) from t",
        ])
        #expect(rows == "5000\n")
        // A drill leaves it alone.
        _ = try drills.proof()
        #expect(access(try json.string("directory"), F_OK) == 0)
        #expect(try drills.drill(["--clean"]).status == .exited(0))
        try drills.expectNothingLeft()
    }
}

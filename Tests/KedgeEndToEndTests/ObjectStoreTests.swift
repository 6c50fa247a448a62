// The main job with the repository in a real object store: archive, back up, restore, recover.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(
    .serialized,
    .enabled(
        if: PostgresInstallation.serversAreEnabled && !S3TestServer.all.isEmpty,
        "needs PostgreSQL and object stores: scripts/test.sh"))
struct ObjectStoreTests {
    /// The first; in the long tests all that honour conditional puts.
    private static var some: [S3TestServer] {
        PostgresInstallation.soakIsEnabled
            ? S3TestServer.all.filter(\.hasConditionalPut) : Array(S3TestServer.all.prefix(1))
    }

    @Test("a cluster is backed up, its WAL archived, and both restored", arguments: S3TestServer.all)
    func mainJob(_ store: S3TestServer) throws {
        let cluster = try ProtectedCluster(store: store)
        try cluster.server.psql("create table t as select g, repeat('x', 100) from generate_series(1, 20000) g")
        // rclone replaces objects in place, and check says so.
        if store.name != "rclone" { #expect(try cluster.kedge(["check"]).contains("is ready")) }
        try cluster.kedge(["backup"])
        try cluster.server.psql("insert into t select g, 'after' from generate_series(1, 500) g")
        try cluster.archiveEverything()
        // Initialising again changes nothing, and "info" needs neither server nor data directory.
        try cluster.kedge(["init"])
        #expect(try cluster.kedge(["info"]).contains(": ok"))
        let copy = cluster.scratch("copy")
        try cluster.kedge(["restore", "--pgdata", copy])
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from t") == "20500")
    }

    @Test(
        "under load: deltas, verify, a drill and expire, and what is left restores",
        arguments: some)
    func wholeLife(_ store: S3TestServer) throws {
        let cluster = try ProtectedCluster(store: store)
        let connection = cluster.server.connectionArguments
        try cluster.server.tool("pgbench", connection + ["-i", "-q", "-s", "2", "postgres"])
        let load = try ServerUser.command(
            [cluster.server.installation.program("pgbench")] + connection
                + ["-n", "-c", "2", "-T", "3600", "-R", "200", "postgres"]
        ).start(output: .discarded, errors: .discarded)
        for type in ["full", "delta", "full"] {
            let outcome = try cluster.kedge(["--json", "backup", "--type", type])
            let found = try JSONRecord(parsing: outcome.utf8, what: "backup").string("type")
            #expect(found == type, "\(outcome)")
        }
        load.kill(SIGKILL)
        try cluster.server.wait(until: "select count(*) = 0 from pg_stat_activity where application_name = 'pgbench'")
        try cluster.archiveEverything()
        let rows = try cluster.server.value("select count(*) from pgbench_history")
        #expect(try cluster.kedge(["verify"]).contains("restores"))
        let drilled = try cluster.attempt(
            [
                "drill", "--drill-directory", cluster.scratch("drills"), "--bin-dir",
                cluster.server.installation.binDirectory,
            ])
        #expect(drilled.status.isSuccess, "\(drilled.errorText)\(drilled.outputText)")
        // The first full and its delta go, at once.
        let rules = ["--keep-full", "1", "--expire-grace", "0s"]
        try cluster.kedge(["expire"] + rules)
        try cluster.kedge(["expire"] + rules)
        let left = try cluster.kedge(["info"])
        #expect(!left.contains("-delta-"), "\(left)")
        let copy = cluster.scratch("copy")
        try cluster.kedge(["restore", "--pgdata", copy])
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from pgbench_history") == rows)
    }

    @Test("archive-get never calls absent what it can't look for", arguments: some)
    func outage(_ store: S3TestServer) throws {
        let cluster = try ProtectedCluster(store: store)
        let segment = "000000010000000000000099"
        let absent = try cluster.attempt(["archive-get", segment, cluster.scratch("file")])
        #expect(absent.status == .exited(1), "\(absent.errorText)")
        for (option, value) in [
            ("--endpoint", "http://127.0.0.1:1"), ("--bucket", "no-such-bucket"),
            ("--secret-access-key-file", cluster.directory("id")),
        ] {
            let outcome = try cluster.attempt([
                "archive-get", segment, cluster.scratch("file"), option, value, "--archive-get-timeout", "1s",
            ])
            #expect(outcome.status == .exited(126), "\(option): \(outcome.errorText)")
        }
    }
}

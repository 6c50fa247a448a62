// That `restore --delta` after a crash loses no commit that only pg_wal has: it refuses, brings the last one back with
// --unarchived-wal keep, and drops it only with discard. And that a server that was shut down in order is not refused
// over its last checkpoint.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct UnarchivedWALServerTests {
    @Test(
        "commits that were never archived survive restore --delta after a crash",
        arguments: PostgresInstallation.soakIsEnabled ? PostgresInstallation.all : [.standard])
    func crash(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(installation)
        let server = cluster.server
        let pgdata = server.dataDirectory
        try server.psql("create table t (n int)")
        try cluster.kedge(["backup"])
        try server.psql("insert into t values (1)")
        try cluster.archiveEverything()
        try server.psql("alter system set archive_command = 'false'")
        try server.psql("select pg_reload_conf()")
        try server.wait(until: "select current_setting('archive_command') = 'false'")
        for number in 2...4 {
            try server.psql("insert into t values (\(number))")
            if number < 4 { _ = try server.value("select pg_switch_wal()") }
        }
        try server.stop(.immediate)
        let saved = cluster.scratch("saved")
        try ServerUser.run(["cp", "-a", pgdata, saved])

        for extra in [[], ["--dry-run"]] {
            let refused = try cluster.attempt(["--log-level", "error", "restore", "--delta"] + extra)
            #expect(refused.status == .exited(1))
            #expect(refused.errorText.hasSuffix("code: unarchived-wal\n"), "\(refused.errorText)")
            #expect(try same(pgdata, saved) == "")
        }

        let discarded = try restore(cluster, ["--unarchived-wal", "discard", "--archiving", "off"])
        #expect(try discarded.string("choice") == "discard")
        try expect(server, rows: "1")
        try server.stop()

        try ServerUser.run(["rm", "-rf", pgdata])
        try ServerUser.run(["cp", "-a", saved, pgdata])
        let kept = try restore(cluster, ["--unarchived-wal", "keep"])
        #expect(try kept.bool("replayed"))
        #expect(try kept.strings("files").count >= 3)
        // Repeated it still knows them.
        #expect(try restore(cluster, ["--unarchived-wal", "keep"]).strings("files") == kept.strings("files"))
        try expect(server, rows: "1,2,3,4")

        // All of it is archived by now, and what comes last is a checkpoint.
        try cluster.archiveEverything()
        try server.stop()
        let outcome = try JSONRecord(
            parsing: try cluster.kedge(["--json", "restore", "--delta"]).utf8, what: "outcome")
        #expect(try outcome.record("delta").optionalRecord("unarchivedWAL") == nil)
        try expect(server, rows: "1,2,3,4")
    }

    /// What became of the WAL that no repository has.
    private func restore(_ cluster: ProtectedCluster, _ arguments: [String]) throws -> JSONRecord {
        let outcome = try JSONRecord(
            parsing: try cluster.kedge(["--json", "restore", "--delta"] + arguments).utf8, what: "outcome")
        return try outcome.record("delta").record("unarchivedWAL")
    }

    private func expect(_ server: PostgresTestServer, rows: String) throws {
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select string_agg(n::text, ',' order by n) from t") == rows)
    }

    /// How two directories differ; empty where they do not.
    private func same(_ first: String, _ second: String) throws -> String {
        let outcome = try Subprocess(["diff", "-r", first, second]).run()
        return outcome.outputText + outcome.errorText
    }
}

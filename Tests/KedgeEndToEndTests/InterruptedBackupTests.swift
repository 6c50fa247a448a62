// Proves with the built binary that a backup which was killed when most of it was stored is not paid for twice.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct InterruptedBackupTests {
    /// Bytes of all packs that are complete.
    private func packBytes(_ cluster: ProtectedCluster) throws -> Int {
        try ServerUser.run([
            "find", cluster.repository + "/main/pack", "-type", "f", "!", "-name", ".kedge~*", "-printf", "%s\\n",
        ]).split(separator: "\n").reduce(0) { $0 + (Int($1) ?? 0) }
    }

    @Test(
        "a rerun after a kill at 90 % stores only the rest, says so, and the backup restores",
        arguments: PostgresInstallation.soakIsEnabled ? [true, false] : [true])
    func killed(encrypted: Bool) throws {
        let cluster = try ProtectedCluster(encrypted: encrypted)
        try cluster.server.psql(
            """
            create table r as select i, (select string_agg(md5(random()::text || i || j), '')
                from generate_series(1, 50) j) from generate_series(1, 8000) i;
            vacuum freeze; checkpoint
            """)
        let backup = ["backup", "--type", "full", "--pack-size", "1MB"]
        func storedBytes(_ output: String) throws -> (stored: Int, resumed: [JSONRecord]) {
            let record = try JSONRecord(parsing: output.utf8, what: "backup")
            return (try record.integer("storedBytes"), try record.records("resumed"))
        }
        let (whole, none) = try storedBytes(try cluster.kedge(backup + ["--json"]))
        #expect(none.isEmpty)
        let before = try packBytes(cluster)
        var doomed = try KedgeBinary.command(
            ["--config", cluster.configuration] + backup + ["--read-rate", "8MB"],
            workingDirectory: cluster.directory.path
        ).start(output: .discarded, errors: .file(cluster.directory("doomed")))
        var status: Subprocess.Status?
        while try status == nil && packBytes(cluster) - before < whole * 9 / 10 - (2 << 20) {
            status = try doomed.wait(timeout: .milliseconds(10))
        }
        #expect(status == nil, "it was too quick")
        doomed.kill(SIGKILL)
        _ = try doomed.wait()
        let left = try packBytes(cluster) - before

        let (stored, resumed) = try storedBytes(try cluster.kedge(backup + ["--json"]))
        print("encrypted \(encrypted): \(whole) bytes stored; \(left) before the kill; \(stored) by the rerun")
        #expect(resumed.count == 1)
        #expect(stored < whole - left + (512 << 10))
        #expect(try cluster.kedge(["verify"]).isEmpty == false)
        let copy = cluster.scratch("copy")
        try cluster.kedge(["restore", "--pgdata", copy, "--target-immediate", "--target-action", "promote"])
        let sum = "select count(*), sum(hashtext(string_agg)::bigint) from r"
        let restored = try PostgresTestServer(dataDirectory: copy)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        #expect(try restored.psql(sum) == cluster.server.psql(sum))
        try restored.stop()
    }
}

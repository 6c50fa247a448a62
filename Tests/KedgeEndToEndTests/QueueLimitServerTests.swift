// archive-queue-limit on a real server: an outage of the repository lets WAL wait up to the limit and no further, the
// server goes on, and afterwards everybody is told what is missing.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct QueueLimitServerTests {
    private func waiting(_ cluster: ProtectedCluster) throws -> [String] {
        try Directory.entries(at: RawPath(cluster.server.dataDirectory + "/pg_wal/archive_status"))
            .compactMap(\.name.text).filter { $0.hasSuffix(".ready") && !$0.contains(".backup") }.sorted()
    }

    @Test("in an outage no more waits than the limit, what was given up is told, and a new backup reaches the present")
    func outage() throws {
        let cluster = try ProtectedCluster(configuration: ["wal_keep_size = 0"])
        try ServerUser.run(["sh", "-c", "echo 'archive-queue-limit = 4MB' >> \(cluster.configuration)"])
        try cluster.server.psql("create table t (n int)")
        try cluster.kedge(["backup"])
        try cluster.archiveEverything()
        let repository = cluster.repository
        try ServerUser.run(["mv", repository, repository + ".away"])
        var names: [String] = []
        var positions: [String] = []
        for number in 0..<12 {
            try cluster.server.psql("insert into t values (\(number))")
            positions.append(try cluster.server.value("select pg_current_wal_lsn()"))
            names.append(try cluster.server.value("select pg_walfile_name(pg_switch_wal())"))
        }
        // The archiver tries three times, a second apart, before it looks again.
        for _ in 0..<600 where try waiting(cluster).count > 4 { poll(nil, 0, 100) }
        #expect(try waiting(cluster) == names.suffix(4).map { $0 + ".ready" })
        #expect(try cluster.attempt(["check"]).status == .exited(1))

        try ServerUser.run(["mv", repository + ".away", repository])
        // Wakes the archiver, and adds nothing to what waits.
        try cluster.server.psql("select pg_reload_conf()")
        try cluster.server.wait(until: "select last_archived_wal >= '\(names[11])' from pg_stat_archiver")
        #expect(try waiting(cluster).isEmpty)
        let told = "8 WAL segment(s) were given up on timeline 1: \(names[0]) to \(names[7])"
        let info = try cluster.attempt(["info"]).outputText
        #expect(info.contains(told), "\(info)")
        #expect(cluster.server.log.contains("GAVE UP WAL file \"\(names[7])\""))
        #expect(!cluster.server.log.contains("GAVE UP WAL file \"\(names[8])\""))
        // Nobody is deceived: no moment behind the gap is promised, and none is restored to.
        let copy = cluster.scratch("copy")
        for position in [positions[3], positions[11]] {
            let refused = try cluster.attempt(["restore", "--dry-run", "--pgdata", copy, "--target-lsn", position])
            #expect(!refused.status.isSuccess, "\(position): \(refused.outputText)")
        }

        try cluster.kedge(["backup"])
        try cluster.server.psql("insert into t values (100)")
        try cluster.archiveEverything()
        try cluster.kedge(["restore", "--pgdata", copy])
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) + max(n) from t") == "113")
        try cluster.kedge(["info", "--acknowledge-gap", names[0]])
        #expect(try !cluster.attempt(["info"]).outputText.contains("given up"))
    }
}

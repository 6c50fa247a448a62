// That what the built kedge leaves after expire restores on a real server: the pinned backup to its end, the newest one
// to the last row.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct ExpireEndToEndTests {
    @Test("of four backups the pinned and the newest stay, restore, and info has nothing to warn of")
    func expire() throws {
        let cluster = try ProtectedCluster()
        try cluster.server.psql("create table t as select 1 as g")
        var labels: [String] = []
        for number in 2...5 {
            let json = try JSONRecord(
                parsing: try cluster.kedge(["--json", "backup", "--type", "full"]).utf8, what: "backup")
            labels.append(try json.string("label"))
            try cluster.server.psql("insert into t select \(number)")
            try cluster.archiveEverything()
        }
        let rules = ["--keep-full", "1", "--expire-grace", "0s"]
        try cluster.kedge(["pin", labels[1]])
        let plan = try cluster.kedge(["expire", "--dry-run"] + rules)
        #expect(plan.contains("would be condemned: \(labels[0])") && plan.contains("kept: pinned"))
        #expect(try counts(cluster).backups == 4)

        let before = try counts(cluster)
        let json = try JSONRecord(parsing: try cluster.kedge(["--json", "expire"] + rules).utf8, what: "expire")
        let outcome = try #require(try json.records("repositories").first)
        #expect(try outcome.strings("removed") == [labels[0], labels[2]])
        #expect(try outcome.record("swept").integer("packs", as: Int.self) > 0)
        let after = try counts(cluster)
        #expect(after.backups == 2 && after.segments < before.segments)
        let info = try JSONRecord(parsing: try cluster.kedge(["--json", "info"]).utf8, what: "info")
        let shown = try #require(try info.records("clusters").first)
        #expect(try shown.array("messages") == [])

        #expect(try restored(cluster, "pinned", ["--backup", labels[1], "--target-immediate"]) == "2")
        #expect(try restored(cluster, "newest", []) == "5")

        try cluster.kedge(["unpin", labels[1]])
        try cluster.kedge(["expire"] + rules)
        #expect(try counts(cluster).backups == 1)
        #expect(try restored(cluster, "last", []) == "5")
        #expect(try cluster.attempt(["pin", labels[0]]).status == .exited(1))
        #expect(try cluster.attempt(["pin", "yesterday"]).status == .exited(2))
    }

    private func counts(_ cluster: ProtectedCluster) throws -> (backups: Int, segments: Int) {
        func count(_ directory: String) throws -> Int {
            let found = try ServerUser.run(["find", cluster.repository + "/main/" + directory, "-type", "f"])
            return found.split(separator: "\n").count
        }
        return (try count("catalog/backup"), try count("wal"))
    }

    /// The number of rows in a copy that was restored and promoted.
    private func restored(_ cluster: ProtectedCluster, _ name: String, _ options: [String]) throws -> String {
        let copy = cluster.scratch(name)
        try cluster.kedge(["restore", "--pgdata", copy, "--target-action", "promote"] + options)
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        defer { try? server.stop() }
        return try server.value("select count(*) from t")
    }
}

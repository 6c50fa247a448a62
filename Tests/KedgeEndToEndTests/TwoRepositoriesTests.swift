// Two repositories of one cluster, with a real server: one is damaged, is down, lags, and every command goes on with
// the other and says so.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TwoRepositoriesTests {
    /// A protected cluster whose WAL goes to "main" and to "offsite", with a backup in each.
    private func protected() throws -> ProtectedCluster {
        let cluster = try ProtectedCluster()
        let text = try ServerUser.run(["cat", cluster.configuration])
        try cluster.write(
            cluster.configuration,
            text.split(separator: "\n").filter { !$0.hasPrefix("repositories") }.joined(separator: "\n")
                + """

                repositories = main, offsite
                drill-directory = \(cluster.directory("drills"))
                [repository offsite]
                path = \(cluster.directory("offsite"))
                encryption = aes-256-gcm
                key-file = \(cluster.directory("offsite.key"))
                """)
        try cluster.kedge(["init", "--repository", "offsite", "--generate-key", cluster.directory("offsite.key")])
        try cluster.server.psql("create table t as select g, repeat('x', 100) from generate_series(1, 20000) g")
        try cluster.kedge(["backup"])
        try cluster.kedge(["backup", "--repository", "offsite"])
        try cluster.server.psql("insert into t select g, 'after' from generate_series(1, 500) g")
        try cluster.archiveEverything()
        return cluster
    }

    /// Restores to the end of the WAL, starts the copy and returns its number of rows and kedge's words.
    private func recovered(_ cluster: ProtectedCluster, _ name: String) throws -> (rows: String, words: String) {
        let copy = cluster.scratch(name)
        let outcome = try cluster.attempt(["restore", "--pgdata", copy])
        guard outcome.status.isSuccess else { return ("none", outcome.errorText) }
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        return (try server.value("select count(*) from t"), outcome.outputText + outcome.errorText)
    }

    private func sh(_ cluster: ProtectedCluster, _ command: String) throws {
        try ServerUser.run(["sh", "-ec", "cd '\(cluster.directory.path)'; \(command)"])
    }

    @Test("damage in one segment, an outage, and a lagging repository cost nothing as long as the other one is well")
    func oneIsEnough() throws {
        let cluster = try protected()
        try sh(
            cluster,
            """
            newest=$(find repository -path '*/wal/*' -name '0000000100000000????????' | sort | tail -1)
            cp -p "$newest" kept
            printf x | dd of="$newest" bs=1 seek=2000 conv=notrunc 2>/dev/null
            """)
        #expect(try recovered(cluster, "damaged").rows == "20500")
        try sh(
            cluster,
            "cp -p kept $(find repository -path '*/wal/*' -name '0000000100000000????????' | sort | tail -1)")
        // One is away: the backup comes from the other, and that is told.
        try sh(cluster, "mv repository elsewhere")
        let away = try recovered(cluster, "away")
        #expect(away.rows == "20500" && away.words.contains("repository \"main\" could not serve"), "\(away.words)")
        #expect(away.words.contains("from repository \"offsite\""), "\(away.words)")
        let info = try cluster.attempt(["info"])
        #expect(info.status == .exited(1))
        #expect(info.outputText.contains("-full-") && info.outputText.contains("offsite"), "\(info.outputText)")
        // Nothing is called absent, and nothing archived, while one is away.
        let segment = "0000000100000000000000F9"
        #expect(try cluster.attempt(["archive-get", segment, cluster.scratch("f")]).status == .exited(126))
        let verified = try cluster.attempt(["verify"])
        #expect(verified.status == .exited(1) && verified.outputText.contains("offsite"), "\(verified.outputText)")
        #expect(verified.errorText.contains("repository \"main\" could not be verified"))
        let expired = try cluster.attempt(["expire", "--dry-run"])
        #expect(expired.status == .exited(1) && expired.outputText.contains("repository main:"))
        try sh(cluster, "mv elsewhere repository")
        #expect(try cluster.attempt(["archive-get", segment, cluster.scratch("f")]).status == .exited(1))
        // One lacks the last segments.
        try sh(
            cluster,
            "find offsite -path '*/wal/*' -name '0000000100000000????????' | sort | tail -2 | xargs rm -f")
        #expect(try recovered(cluster, "lagging").rows == "20500")
    }

    @Test("a damaged pack is an error that names the other repository, from which the same restore works")
    func damagedPack() throws {
        let cluster = try protected()
        try sh(
            cluster,
            """
            for pack in $(find repository/*/pack -type f); do
                printf xxxx | dd of="$pack" bs=1 seek=5000 conv=notrunc 2>/dev/null
            done
            """)
        let copy = cluster.scratch("copy")
        let failed = try cluster.attempt(["restore", "--pgdata", copy])
        // Where the manifest's own pack is hit as well, the next repository is taken at once.
        if failed.status.isSuccess {
            #expect(failed.errorText.contains("repository \"main\" could not serve"), "\(failed.errorText)")
        } else {
            #expect(failed.status == .exited(3), "\(failed.errorText)")
            #expect(failed.errorText.contains("--repository offsite"), "\(failed.errorText)")
            try sh(cluster, "rm -rf '\(copy)'")
            let again = try cluster.kedge(["restore", "--pgdata", copy, "--repository", "offsite"])
            #expect(again.contains("from repository \"offsite\""))
        }
        // A proof is one of a repository, and says of which.
        let drilled = try cluster.attempt([
            "drill", "--repository", "offsite", "--bin-dir", cluster.server.installation.binDirectory,
        ])
        #expect(drilled.status.isSuccess, "\(drilled.errorText)\(drilled.outputText)")
        #expect(drilled.outputText.contains("in repository \"offsite\": restored and proven"))
    }
}

// That SIGKILL at any moment of the real binary, under load, costs nothing that was acknowledged: segments are there
// and byte-identical, every backup that shows restores, a half-done restore can't be started, the repository always
// opens with a key that is at hand, and what the killed left behind is in nobody's way. KillingArchiver.swift does the
// killing.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct KillTests {
    @Test("100 kills of push, get, backup, restore and key rotation under load lose nothing that was acknowledged")
    func kills() throws {
        // KEDGE_TEST_KILLS: a soak in pieces, each with a seed of its own.
        let wanted =
            getenv("KEDGE_TEST_KILLS").flatMap { Int(String(cString: $0)) }
            ?? (PostgresInstallation.soakIsEnabled ? 1000 : 100)
        // The last archive_command counts: the test stands in for the archiver, and the server's own only fails.
        let cluster = try ProtectedCluster(configuration: ["archive_command = '/bin/false'", "max_wal_size = 64MB"])
        try cluster.server.tool("pgbench", cluster.server.connectionArguments + ["-i", "-q", "-s", "2", "postgres"])
        let load = try ServerUser.command(
            [cluster.server.installation.program("pgbench")] + cluster.server.connectionArguments
                + ["-n", "-c", "2", "-T", "3600", "-R", "400", "postgres"]
        ).start(output: .discarded, errors: .discarded)
        let archiver = KillingArchiver(cluster, seed: testSeed())
        try archiver.calibrate()
        let deadline = ContinuousClock.now + .seconds(PostgresInstallation.soakIsEnabled ? 3600 : 240)
        let kinds = ["archive-push", "archive-get", "backup", "restore", "key rotate", "key rewrap"]
        var isEnough: Bool {
            archiver.killCount >= wanted && kinds.allSatisfy { archiver.kills[$0, default: 0] >= wanted / 20 }
        }
        while !isEnough && ContinuousClock.now < deadline { try archiver.step() }
        #expect(isEnough, "\(archiver.kills)")

        // A rerun of everything succeeds, and the original is none the worse.
        try archiver.backUp()
        try archiver.restore(mayKill: false)
        for command in ["rotate", "rewrap"] { try archiver.changeKeys(command, mayKill: false) }
        #expect(try isConsistent(cluster.server))
        load.kill(SIGKILL)
        while try archiver.push(mayKill: false) {}
        for name in archiver.acknowledged.keys.sorted() { try archiver.get(name, mayKill: false) }

        let leftovers = try ServerUser.run(["find", cluster.repository, "-name", ".kedge~*"]).split(separator: "\n")
        let restored = try checkBackups(cluster, archiver)
        let kills = archiver.kills.sorted { $0.key < $1.key }.map { "\($0.value) of \($0.key)" }
        print(
            """
            PostgreSQL \(cluster.server.installation.version), \(archiver.killCount) kills: \
            \(kills.joined(separator: ", ")), seed \(testSeed()); \(archiver.acknowledged.count) files and \
            \(archiver.backups.count) backups acknowledged; \
            \(archiver.halfRestores) half-done restores did not start, \(archiver.dataKeys) data keys; \
            \(leftovers.count) leftovers; \(restored) backups restored and started
            """)
    }

    /// Restores and starts every backup that the catalogue shows. Returns how many there are.
    private func checkBackups(_ cluster: ProtectedCluster, _ archiver: KillingArchiver) throws -> Int {
        let listing = try BackupCatalog(source(of: cluster).openCluster("main", for: .read)).list()
        #expect(listing.unreadable.isEmpty)
        let shown = listing.backups.map(\.label.text)
        #expect(archiver.backups.isSubset(of: shown))
        for label in shown {
            let copy = cluster.scratch("copy-" + label)
            try cluster.kedge([
                "restore", "--pgdata", copy, "--backup", label, "--target-immediate", "--target-action", "promote",
            ])
            let server = try PostgresTestServer(dataDirectory: copy)
            try server.start()
            try server.wait(until: "select not pg_is_in_recovery()")
            #expect(try isConsistent(server), "\(label)")
            try server.stop()
            try ServerUser.run(["rm", "-rf", copy])
        }
        return shown.count
    }

    private func isConsistent(_ server: PostgresTestServer) throws -> Bool {
        try server.value(
            """
            select (select sum(abalance) from pgbench_accounts) = coalesce(sum(delta), 0)
                and (select sum(bbalance) from pgbench_branches) = coalesce(sum(delta), 0) from pgbench_history
            """) == "t"
    }

    private func source(of cluster: ProtectedCluster) throws -> RepositorySource {
        let path = cluster.repository
        let key = try FileDescriptor.open(RawPath(cluster.directory("main.key")), .read).readAll(limit: 1024)
        let settings = RepositorySettings(
            name: "main", cipher: .aes256GCM, compression: .standard,
            secret: try KeyEncryptionSecret(parsingKeyFile: key, what: "key file"))
        return RepositorySource(
            settings: settings,
            openStore: { () throws(KedgeError) in try LocalStore(at: path, random: SystemRandomSource()) },
            createStore: { () throws(KedgeError) in try LocalStore(at: path, random: SystemRandomSource()) })
    }
}

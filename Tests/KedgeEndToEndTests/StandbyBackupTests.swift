// Proves with the built binary that a backup taken from a standby restores to any target, that a paused standby can be
// backed up, that a promotion fails the backup, and that without a primary to ask it waits and says what for.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct StandbyBackupTests {
    /// A primary that archives, a streaming standby of it, and a configuration for the standby's host.
    private struct World {
        let cluster: ProtectedCluster
        let standby: PostgresTestServer
        var primary: PostgresTestServer { cluster.server }
        var configuration: String { cluster.directory("standby.conf") }

        init(_ installation: PostgresInstallation = .standard) throws {
            cluster = try ProtectedCluster(installation)
            try cluster.server.psql("create table t as select i from generate_series(1, 1000) i")
            try cluster.kedge(["backup"])
            let directory = cluster.scratch("standby")
            try cluster.kedge(["restore", "--pgdata", directory, "--standby", "--archiving", "keep"])
            standby = try PostgresTestServer(dataDirectory: directory, installation: installation)
            let source = "host=\(cluster.server.directory.path) port=\(cluster.server.port) user=postgres"
            try standby.appendConfiguration(["primary_conninfo = '\(source)'"])
            try standby.start()
            try ServerUser.run(["mkdir", "-m", "700", cluster.directory("standby-work")])
            try cluster.write(
                configuration,
                """
                [repository main]
                type = local
                path = \(cluster.repository)
                encryption = aes-256-gcm
                key-file = \(cluster.directory("main.key"))
                [cluster main]
                pgdata = \(standby.dataDirectory)
                host = \(standby.directory.path)
                port = \(standby.port)
                user = postgres
                dbname = postgres
                process-max = 2
                work-directory = \(cluster.directory("standby-work"))
                """)
            try catchUp()
        }

        var primaryOptions: [String] {
            ["--primary-host", primary.directory.path, "--primary-port", String(primary.port)]
        }

        /// Waits until the standby has replayed all that the primary has written.
        func catchUp() throws {
            let lsn = try primary.value("select pg_current_wal_lsn()")
            try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(lsn)'")
        }

        func command(_ arguments: [String]) throws -> Subprocess {
            try KedgeBinary.command(
                ["--config", configuration, "backup", "--json"] + arguments,
                workingDirectory: cluster.directory.path)
        }

        /// Takes a backup of the standby, which must succeed. Returns its label.
        func backUp(_ arguments: [String]) throws -> String {
            let outcome = try command(arguments).run()
            try #require(outcome.status == .exited(0), "\(outcome.errorText)")
            return try JSONRecord(parsing: outcome.outputText.utf8, what: "backup").string("label")
        }

        /// Restores `label` and returns the number of rows of t.
        func rows(of label: String, _ target: [String]) throws -> Int {
            let copy = cluster.scratch("copy-\(label)")
            try cluster.kedge(
                ["restore", "--pgdata", copy, "--backup", label, "--target-action", "promote"] + target)
            let server = try PostgresTestServer(dataDirectory: copy, installation: primary.installation)
            try server.start()
            try server.wait(until: "select not pg_is_in_recovery()")
            let rows = Int(try server.value("select count(*) from t")) ?? -1
            try server.stop()
            try ServerUser.run(["rm", "-rf", copy])
            return rows
        }
    }

    @Test("a standby's backup restores to a target behind it; so does that of a paused standby, at its own moment")
    func restores() throws {
        let world = try World()
        try world.primary.psql("insert into t select 1 from generate_series(1, 500); checkpoint")
        try world.catchUp()
        let label = try world.backUp(world.primaryOptions)
        #expect(label.contains("-full-"))
        let record = try world.cluster.kedge(["cat", "main/catalog/backup/" + label])
        #expect(try JSONRecord(parsing: record.utf8, what: "commit record").bool("fromStandby"))
        try world.primary.psql("insert into t select 2 from generate_series(1, 30)")
        try world.primary.psql("select pg_create_restore_point('x')")
        try world.primary.psql("insert into t select 3")
        try world.cluster.archiveEverything()
        #expect(try world.rows(of: label, ["--target-name", "x"]) == 1530)
        #expect(try world.rows(of: label, ["--target-immediate"]) == 1500)

        try world.catchUp()
        try world.standby.psql("select pg_wal_replay_pause()")
        try world.standby.wait(until: "select pg_is_wal_replay_paused()")
        try world.primary.psql("insert into t select 4 from generate_series(1, 5000); checkpoint")
        let paused = try world.backUp(world.primaryOptions)
        #expect(try world.rows(of: paused, ["--target-immediate"]) == 1531)
        #expect(try world.rows(of: paused, []) == 6531)
        try world.cluster.kedge(["verify"])
    }

    @Test("a standby that is promoted in the midst of its backup fails it, and nothing is committed")
    func promoted() throws {
        let world = try World()
        try world.primary.psql("create table big as select md5(i::text) from generate_series(1, 100000) i; checkpoint")
        try world.catchUp()
        // Errors of a command with --json are part of its output.
        let (output, errors) = (world.cluster.scratch("output"), world.cluster.scratch("errors"))
        var process = try world.command(world.primaryOptions + ["--read-rate", "2MB"]).start(
            output: .file(output), errors: .file(errors))
        try world.standby.wait(until: "select count(*) = 1 from pg_stat_activity where application_name = 'kedge'")
        // A pack has been begun.
        while try ServerUser.run(["find", world.cluster.repository + "/main/pack", "-name", ".kedge~*"]) == "" {
            if try process.wait(timeout: .milliseconds(50)) != nil { break }
        }
        try world.standby.psql("select pg_promote()")
        let status = try process.wait(timeout: .seconds(120))
        let said = (readTextFile(output) ?? "") + (readTextFile(errors) ?? "")
        #expect(status == .exited(1), "\(said)")
        #expect(said.contains("promoted") || said.contains("another timeline"), "\(said)")
        let info = try world.cluster.kedge(["info", "--json"])
        let backups = try JSONRecord(parsing: info.utf8, what: "info").records("clusters").first?.records("backups")
        #expect(backups?.count == 1)
    }

    @Test("without a primary to ask, a standby's backup says that it waits, and ends once the primary archives")
    func waits() throws {
        let world = try World()
        // The end of the backup lies in a segment that nobody has ended.
        try world.primary.psql("checkpoint; insert into t select 5; select txid_current()")
        try world.catchUp()
        try world.standby.psql("checkpoint")
        let errors = world.cluster.scratch("errors")
        var process = try world.command([]).start(output: .discarded, errors: .file(errors))
        while !(readTextFile(errors) ?? "").contains("The backup waits until WAL segments ") {
            if try process.wait(timeout: .milliseconds(50)) != nil { break }
        }
        try world.cluster.archiveEverything()
        let status = try process.wait(timeout: .seconds(120))
        #expect(status == .exited(0), "\(readTextFile(errors) ?? "")")
        #expect((readTextFile(errors) ?? "").contains("no primary-host is set"))

        // A standby is no primary, and a stranger is none.
        let refused = try world.command([
            "--primary-host", world.standby.directory.path, "--primary-port", String(world.standby.port),
        ]).run()
        #expect(refused.status == .exited(2), "\(refused.errorText)")
        #expect(refused.outputText.contains("it is in recovery"), "\(refused.outputText)")
    }
}

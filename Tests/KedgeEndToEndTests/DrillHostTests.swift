// That what this host lacks, and what is done to a drill while it runs, is told as what it is: an error that names it,
// and never a proof that a sound backup is bad.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DrillHostTests {
    /// Drills, which must end with `status` and `code` and without a proof. Returns the error.
    @discardableResult
    private func refuses(
        _ drills: DrillCluster, status: Int32, code: String, _ arguments: [String] = [], binDirectory: String? = nil
    ) throws -> String {
        let count = try drills.proofCount()
        let outcome = try drills.drill(arguments, binDirectory: binDirectory)
        #expect(outcome.status == .exited(status), "\(outcome.errorText)\(outcome.outputText)")
        #expect(outcome.errorText.hasSuffix("code: \(code)\n"), "\(outcome.errorText)")
        #expect(try drills.proofCount() == count)
        try drills.expectNothingLeft()
        return outcome.errorText
    }

    /// A bin-dir with the real programs, whose postgres runs a line of shell before it becomes the server. There $2 is
    /// the data directory.
    private func programs(_ drills: DrillCluster, _ line: String) throws -> String {
        let real = drills.cluster.server.installation.binDirectory
        let directory = drills.cluster.scratch("bin")
        let link = "rm -rf \"$1\"; mkdir \"$1\"; ln -s \"$2\"/* \"$1\"; rm \"$1\"/postgres"
        try ServerUser.run(["sh", "-c", link, "sh", directory, real])
        let script = "#!/bin/sh\nif [ \"$1\" = -D ]; then\n\(line)\nfi\nexec \(real)/postgres \"$@\""
        try drills.cluster.write(directory + "/postgres", script)
        try ServerUser.run(["chmod", "755", directory + "/postgres"])
        return directory
    }

    @Test("settings of databases and roles neither need their libraries here nor hide a damaged page")
    func sessionSettings() throws {
        let drills = try DrillCluster()
        let server = drills.cluster.server
        try server.psql("create database other")
        try server.psql(
            """
            alter database other set session_preload_libraries = 'no_such_library';
            alter role postgres in database other set zero_damaged_pages = on;
            alter role postgres in database other set default_transaction_read_only = on;
            """)
        try drills.archive()
        let checks = drills.cluster.scratch("checks.sql")
        try drills.cluster.write(
            checks, "\\connect other\nselect current_setting('zero_damaged_pages') = 'off'")
        let proof = try drills.proof(["--drill-check", checks])
        #expect(try DrillCluster.checks(proof, "failed") == [])
        #expect(try DrillCluster.checks(proof, "warning") == [])
        #expect(try DrillCluster.checks(proof, "passed").contains("assertion"))
    }

    @Test("the recovery point is that of the drill's beginning, whatever is archived while it runs")
    func recoveryPoint() throws {
        let drills = try DrillCluster()
        try drills.archive()
        let server = drills.cluster.server
        try ServerUser.run(["sleep", "3"])
        // pg_dump is run late in the drill: by then the original has archived something new.
        let psql = ([server.installation.program("psql")] + server.connectionArguments + ["-XqAt", "postgres"])
            .joined(separator: " ")
        let real = server.installation.binDirectory
        let bin = drills.cluster.scratch("bin")
        let link = "mkdir \"$1\"; ln -s \"$2\"/* \"$1\"; rm \"$1\"/pg_dump"
        try ServerUser.run(["sh", "-c", link, "sh", bin, real])
        try drills.cluster.write(
            bin + "/pg_dump",
            """
            #!/bin/sh
            \(psql) -c "select pg_current_xact_id()"
            wal=$(\(psql) -c "select pg_walfile_name(pg_switch_wal())")
            for i in $(seq 300); do
                case $(\(psql) -c "select last_archived_wal >= '$wal' from pg_stat_archiver") in t) break;; esac
                sleep 0.1
            done
            exec \(real)/pg_dump "$@"
            """)
        try ServerUser.run(["chmod", "755", bin + "/pg_dump"])
        let outcome = try drills.drill(["--rpo-target", "1s", "--json"], binDirectory: bin)
        #expect(outcome.status == .exited(1), "\(outcome.errorText)\(outcome.outputText)")
        let proof = try JSONRecord(parsing: outcome.outputText.utf8, what: "drill").record("proof")
        #expect(try proof.string("result") == "passed")
        let lag = try proof.record("objectives").integer("lagSeconds", as: UInt64.self)
        #expect(lag >= 3)
    }

    @Test("a locale that this host does not have is told, not taken for damage")
    func locale() throws {
        let drills = try DrillCluster()
        let server = drills.cluster.server
        try server.psql("create database other")
        let foreign = "update pg_database set datcollate = 'xx_XX.UTF-8', datctype = 'xx_XX.UTF-8' where datname = "
        try server.psql(foreign + "'other'")
        try drills.archive()
        let error = try refuses(drills, status: 2, code: "configuration")
        #expect(error.contains("it lacks a locale of the restored cluster"), "\(error)")
        #expect(error.contains("\"xx_XX.UTF-8\""), "\(error)")
        // The database that the drill itself asks first, already during recovery. The server archives when it ends.
        try server.psql(foreign + "'postgres'")
        try server.stop()
        try refuses(drills, status: 2, code: "configuration")
    }

    @Test("a server that does not start, whose socket is taken or that is killed makes no proof")
    func disturbedServer() throws {
        let drills = try DrillCluster()
        try drills.archive()
        let start = try refuses(
            drills, status: 1, code: "database-unavailable", ["--drill-set", "shared_buffers=900TB"])
        #expect(start.contains("could not start PostgreSQL in scratch directory"), "\(start)")
        // Another server's lock on the very socket.
        let other = drills.cluster.server.dataDirectory + "/postmaster.pid"
        let socket = "head -n 1 \(other) >\"$2/../.s.PGSQL.5432.lock\""
        let taken = try refuses(
            drills, status: 1, code: "database-unavailable", binDirectory: try programs(drills, socket))
        #expect(taken.contains(".s.PGSQL.5432.lock"), "\(taken)")
        let killer =
            "(for i in $(seq 3000); do if grep -q ready \"$2/postmaster.pid\" 2>/dev/null; then kill -9 $$; exit; fi; "
            + "sleep 0.01; done) &"
        let killed = try refuses(
            drills, status: 1, code: "database-unavailable", binDirectory: try programs(drills, killer))
        #expect(killed.contains("its server was killed"), "\(killed)")
        _ = try drills.proof()
    }

    @Test(
        "a disk that fills up while the server recovers is told, and nothing stays on it",
        .enabled(if: ServerUser.isAnother, "mounts a file system: needs root"))
    func diskFillsUp() throws {
        let drills = try DrillCluster()
        try drills.archive()
        try ServerUser.run(["mkdir", "-m", "700", drills.scratch])
        let mount = try Subprocess(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", drills.scratch]).run()
        guard mount.status.isSuccess else {
            print("skipped: no file system can be mounted here: \(mount.errorText)")
            return
        }
        defer { _ = try? Subprocess(["umount", "-l", drills.scratch]).run() }
        try ServerUser.own(drills.scratch)
        _ = try Subprocess(["chmod", "700", drills.scratch]).run()
        _ = try drills.proof()
        let fill = "cat /dev/zero >\"$2/../fill\" 2>/dev/null"
        let full = try refuses(drills, status: 1, code: "no-space", binDirectory: try programs(drills, fill))
        #expect(full.contains(drills.scratch), "\(full)")
    }
}

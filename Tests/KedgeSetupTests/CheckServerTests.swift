// The whole of `kedge check` with the built binary on real servers: its output word for word when all is well, and what
// it says and which status it ends with when archiving is broken in each of the ways in which it breaks.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: KEDGE_TEST_SERVERS=1"))
struct CheckServerTests {
    @Test("everything that works is one line, and the segment has arrived", arguments: PostgresInstallation.all)
    func good(_ installation: PostgresInstallation) throws {
        let cluster = try CheckedCluster(installation)
        let outcome = try cluster.check()
        let output = try cluster.normalized(outcome.outputText)
        #expect(
            output == """
                ok       work-directory: can be used; its spool SPOOL
                ok       pgdata: "DATA" is a PostgreSQL \(installation.version) cluster, system identifier SYSTEM
                ok       repository main: opened repository directory "DIR/repository", id ID
                ok       storage main: the store keeps all \(ObjectStoreContract.promises.count) promises
                ok       registration main: cluster "main" is registered: PostgreSQL \(installation.version), \
                system identifier SYSTEM
                ok       wal main: no segment of it is known to be damaged, missing or there twice
                ok       connection: connected to a primary of PostgreSQL \(installation.version)
                ok       version: PostgreSQL \(installation.version) is supported
                ok       server: it uses data directory "DATA"
                ok       privileges: the role may run all functions that kedge needs
                ok       wal_level: is replica
                ok       archive_mode: is on
                ok       archive_command: is "KEDGE --config DIR/kedge.conf archive-push %p"
                ok       full_page_writes: is on
                ok       archiving main: segment SEGMENT arrived after N ms
                cluster "main" is ready

                """)
        #expect(outcome.errorText == "")
        #expect(outcome.status == .exited(0))
        // Again at once: there is nothing to switch but what the check itself writes.
        let again = try cluster.check(["--json"])
        #expect(again.status == .exited(0))
        let json = try JSONRecord(parsing: again.output, what: "output")
        let findings = try json.records("checks")
        #expect(try json.string("status") != "failed")
        #expect(try findings.last?.string("check") == "archiving")
        #expect(try findings.last?.string("status") == "ok")
        #expect(try findings.last?.string("repository") == "main")
        #expect(try cluster.objects().filter { $0.contains("/probe") } == [])
    }

    /// An archive_command, and what is said of it: the start of the detail, and a part of the hint.
    struct Broken: Sendable, CustomTestStringConvertible {
        let command: String
        let detail: String
        let hint: String
        var testDescription: String { command }
    }

    @Test(
        "whatever is wrong with archiving is told by its likely cause, with what PostgreSQL knows (lesson 42)",
        arguments: [
            Broken(
                command: "false # kedge archive-push %p",
                detail: "The archive_command fails with this very segment.  With this configuration and as this user, "
                    + "\"kedge archive-push\" finds nothing wrong with \"SEGMENT\" or the repositories: the command's "
                    + "own configuration, user or environment may differ.  The server has archived N file(s); N "
                    + "attempt(s) failed, the last one with \"SEGMENT\" at TIME.  N file(s) wait in pg_wal, up to ",
                hint: "cd 'DATA' && false # kedge archive-push pg_wal/SEGMENT"),
            Broken(
                command: "true # kedge archive-push %p",
                detail: "PostgreSQL counts the segment as archived, but it is not in this repository.  The server has "
                    + "archived N file(s), the last one \"SEGMENT\" at TIME; N attempt(s) failed.  No file waits in "
                    + "pg_wal.",
                hint: "the cluster's repositories there include \"main\", and that it does not hide a failure."),
            Broken(
                command: "true",
                detail: "PostgreSQL counts the segment as archived, but by a command that is not "
                    + "kedge's: \"true\".", hint: "Set archive_command to what \"kedge init\" prints"),
            Broken(
                command: "sleep 20 # kedge archive-push %p",
                detail: "The archiver has neither stored this segment nor failed: its command does not come back.",
                hint: "Look for the process of the archive_command"),
            Broken(
                command: "exit 200 # kedge archive-push %p",
                detail: "The server's archiver process does not run: a command that a signal ends, or that exits above "
                    + "125, ends it too, and PostgreSQL counts no failure then.",
                hint: "how the command or the archiver"),
        ])
    func brokenCommand(_ broken: Broken) throws {
        let cluster = try CheckedCluster(archiveCommand: broken.command)
        let outcome = try cluster.check(broken.command.hasPrefix("false") ? [] : ["--archive-timeout", "2s"])
        #expect(outcome.status == .exited(1))
        let problems = try cluster.problems(outcome.outputText)
        let failure = problems[(problems.firstRange(of: "FAILED")?.lowerBound ?? problems.startIndex)...]
        #expect(
            failure.hasPrefix(
                "FAILED   archiving main: could not find WAL segment \"SEGMENT\" in repository \"main\" after N s\n"
                    + "         detail: " + broken.detail), "\(problems)")
        #expect(failure.contains(broken.hint), "\(problems)")
        let json = try JSONRecord(parsing: cluster.check(["--json", "--archive-timeout", "1s"]).output, what: "output")
        let last = try #require(try json.records("checks").last)
        #expect(try json.string("status") == "failed")
        #expect(try last.record("error").string("code") == "archiving-broken")
    }

    @Test("a push that kedge itself refuses is told in kedge's own words")
    func conflict() throws {
        let cluster = try CheckedCluster()
        // Another server of the same system, started from a copy, archived the segment first.
        let other = try CheckedCluster(copyOf: cluster)
        try other.server.psql("create table twin (i int)")
        let name = try cluster.server.value("select pg_walfile_name(pg_switch_wal())")
        try cluster.server.wait(until: "select count(*) > 0 from pg_stat_archiver where last_archived_wal >= '\(name)'")
        let outcome = try other.check()
        #expect(outcome.status == .exited(1))
        let problems = try other.problems(outcome.outputText)
        #expect(
            problems.contains(
                "With this configuration, \"kedge archive-push\" says about \"SEGMENT\": cannot archive WAL file "
                    + "\"SEGMENT\": repository \"main\" holds other content under this name. The two first "
                    + "differ at LSN "), "\(problems)")
    }

    @Test("a server that does not archive fails at once, without a wait")
    func noArchiving() throws {
        let cluster = try CheckedCluster(archiveCommand: "", archiveMode: "off")
        let outcome = try cluster.check()
        #expect(outcome.status == .exited(1))
        let problems = try cluster.problems(outcome.outputText)
        #expect(
            problems == """
                FAILED   archive_mode: archive_mode is off
                         detail: The server does not archive its WAL.
                         hint: Put the lines that "kedge init" prints into postgresql.conf and restart the server.
                warning  archiving: archiving was not tested: the server is not set up for it
                         hint: Correct what failed above, and run "kedge check" again.

                """)
    }

    @Test("a standby is said not to be able to switch, and the rest is checked")
    func standby() throws {
        let cluster = try CheckedCluster(archiveCommand: "")
        try cluster.server.stop()
        try ServerUser.run(["touch", cluster.server.dataDirectory + "/standby.signal"])
        try cluster.server.start()
        let outcome = try cluster.check()
        #expect(outcome.status == .exited(0))
        #expect(outcome.outputText.contains("ok       connection: connected to a standby of PostgreSQL"))
        let problems = try cluster.problems(outcome.outputText)
        #expect(
            problems == """
                warning  archive_command: archive_command is empty
                         detail: Segments pile up in pg_wal until it is set.
                         hint: Put the lines that "kedge init" prints into postgresql.conf and reload the server.
                warning  archiving: archiving was not tested: a standby cannot switch to a new WAL segment
                         hint: Run "kedge check" on the primary.

                """)
    }

    @Test("a server that is down, and one that is another than pgdata says, are told apart")
    func wrongServer() throws {
        let cluster = try CheckedCluster()
        let other = try CheckedCluster()
        let outcome = try cluster.check(["--pgdata", other.server.dataDirectory])
        #expect(outcome.status == .exited(1))
        let problems = try cluster.problems(outcome.outputText)
        #expect(
            problems.contains(
                "FAILED   registration main: cannot use database system SYSTEM with cluster \"main\"\n"), "\(problems)")
        #expect(
            problems.contains("FAILED   server: the server is not the one of data directory \"/"), "\(problems)")
        try cluster.server.stop()
        let down = try cluster.check()
        #expect(down.status == .exited(1))
        #expect(
            try cluster.problems(down.outputText).hasPrefix("FAILED   connection: could not connect to PostgreSQL\n"),
            "\(down.outputText)")
    }

    @Test("a role that may not switch WAL is told which functions it lacks")
    func privileges() throws {
        let cluster = try CheckedCluster()
        try cluster.server.psql("CREATE ROLE weak LOGIN IN ROLE pg_monitor")
        let outcome = try cluster.check(["--user", "weak"])
        #expect(outcome.status == .exited(1))
        let problems = try cluster.problems(outcome.outputText)
        #expect(
            problems.hasPrefix(
                """
                FAILED   privileges: the role that kedge connects as may not run all functions that it needs
                         detail: Missing is EXECUTE on pg_backup_start(text,boolean), pg_backup_stop(boolean), \
                pg_switch_wal(), pg_create_restore_point(text).

                """), "\(problems)")
    }
}

/// A running server whose archive_command is the built kedge, with an initialised local repository.
private struct CheckedCluster {
    let server: PostgresTestServer
    let scratch: TemporaryDirectory
    /// Further arguments of every command.
    private var arguments: [String] = []

    init(
        _ installation: PostgresInstallation = .standard, archiveCommand: String? = nil, archiveMode: String = "on"
    ) throws {
        scratch = try TemporaryDirectory()
        let command = try archiveCommand ?? "\(KedgeBinary.path()) --config \(scratch("kedge.conf")) archive-push %p"
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.walSegmentMiB = 1
        options.configuration = [
            "archive_mode = \(archiveMode)", "archive_command = '\(command)'", "wal_level = replica",
        ]
        server = try PostgresTestServer(options)
        var write = ServerUser.command(["tee", scratch("kedge.conf")])
        write.input = Array(
            """
            [repository main]
            path = \(scratch("repository"))
            encryption = aes-256-gcm
            key-file = \(scratch("main.key"))

            [cluster main]
            pgdata = \(server.dataDirectory)
            host = \(server.directory.path)
            port = \(server.port)
            user = postgres
            dbname = postgres
            work-directory = \(scratch("work"))

            """.utf8)
        try ServerUser.run(write)
        let made = try kedge(["init", "--generate-key", scratch("main.key")])
        #expect(made.status == .exited(0), "\(made.errorText)")
        try server.start()
    }

    /// A copy of another cluster's server, with the same configuration file: its twin archives into the same
    /// repository.
    init(copyOf original: CheckedCluster) throws {
        scratch = original.scratch
        try original.server.stop()
        let copy = original.scratch("twin")
        try ServerUser.run(["cp", "-a", original.server.dataDirectory, copy])
        try original.server.start()
        server = try PostgresTestServer(dataDirectory: copy, installation: original.server.installation)
        try server.start()
        arguments = ["--pgdata", copy, "--host", server.directory.path, "--work-directory", original.scratch("work2")]
    }

    func kedge(_ words: [String]) throws -> Subprocess.Outcome {
        try KedgeBinary.run(["--config", scratch("kedge.conf")] + words + arguments)
    }

    func check(_ words: [String] = []) throws -> Subprocess.Outcome { try kedge(["check"] + words) }

    /// The repository's files, relative to it.
    func objects() throws -> [String] {
        try ServerUser.run(["find", scratch("repository"), "-printf", "/%P\n"]).split(separator: "\n").map(String.init)
    }

    /// The output without what differs from run to run, and without what depends on the disk that the tests run on.
    func normalized(_ output: String) throws -> String {
        var lines: [Substring] = []
        var skipsDetails = false
        for line in output.split(separator: "\n", omittingEmptySubsequences: false) {
            let isDetail = line.hasPrefix("         ")
            skipsDetails = line.dropFirst(9).hasPrefix("space ") || skipsDetails && isDetail
            if !skipsDetails { lines.append(line) }
        }
        return lines.joined(separator: "\n")
            .replacing(try KedgeBinary.path(), with: "KEDGE")
            .replacing(server.dataDirectory, with: "DATA").replacing(scratch.path, with: "DIR")
            .replacing(/\d{4}-\d\d-\d\dT[0-9:.]+Z/, with: "TIME").replacing(/[0-9A-F]{24}/, with: "SEGMENT")
            .replacing(/[0-9a-f]{32}/, with: "ID").replacing(/\d{17,20}/, with: "SYSTEM")
            .replacing(/; its spool .*/, with: "; its spool SPOOL")
            .replacing(/is ready.*/, with: "is ready").replacing(/\d+ ms/, with: "N ms")
            .replacing(/\d+ (s\b|file|attempt)/) { "N \($0.output.1)" }
    }

    /// What was not ok, without the last line.
    func problems(_ output: String) throws -> String {
        try normalized(output).split(separator: "\n").filter { !$0.hasPrefix("ok  ") && !$0.hasPrefix("cluster ") }
            .map { $0 + "\n" }.joined()
    }
}

// The test server itself: what other tests conclude from it holds, for every installed version.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct PostgresTestServerTests {
    @Test("a server starts, answers, survives a crash, stops, and leaves nothing", arguments: PostgresInstallation.all)
    func life(_ installation: PostgresInstallation) throws {
        var path = ""
        var process: Int32 = 0
        do {
            var options = PostgresTestServer.Options()
            options.installation = installation
            options.walSegmentMiB = 1
            options.configuration = ["wal_level = logical"]
            let server = try PostgresTestServer(options)
            path = server.directory.path
            try server.start()
            #expect(try server.value("show wal_level") == "logical")
            #expect(try server.value("show wal_segment_size") == "1MB")
            #expect(try server.value("show data_checksums") == "on")
            #expect(try server.psql("create table t (i int, v text); insert into t values (1, null), (2, 'b|c')") == [])
            try server.kill()
            #expect(server.processID == nil)
            try server.start()
            #expect(try server.psql("select * from t; select null") == [["1", ""], ["2", "b|c"], [""]])
            #expect(server.log.contains("database system was interrupted"))
            try server.stop()
            #expect(server.log.contains("database system is shut down"))
            try server.start()
            process = try #require(server.processID)
            let error = #expect(throws: KedgeError.self) { try server.psql("select 1/0") }
            #expect(error?.detail?.contains("division by zero") == true)
        }
        #expect(kill(process, 0) == -1 && errno == ESRCH)
        #expect(access(path, F_OK) == -1 && errno == ENOENT)
    }

    @Test("a server that cannot start is an error with its log")
    func refusal() throws {
        let server = try PostgresTestServer()
        try server.appendConfiguration(["no_such_setting = 1"])
        let error = #expect(throws: KedgeError.self) { try server.start() }
        #expect(error?.detail?.contains("no_such_setting") == true)
    }

    @Test("the built binary runs as the server's user")
    func binary() throws {
        // Whatever the command line says to no arguments, it is the program that says it and not setpriv or the loader.
        let outcome = try KedgeBinary.run([])
        #expect([.exited(0), .exited(2)].contains(outcome.status), "\(outcome.errorText)")
        let user = try ServerUser.command(["id", "-u"]).run()
        #expect(user.outputText != "0\n")
    }
}

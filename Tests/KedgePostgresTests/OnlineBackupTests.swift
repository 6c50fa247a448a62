// A backup's life on real servers of every version: what start and stop tell, and that a backup whose session is gone
// fails.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct OnlineBackupTests {
    @Test("start, stop and label agree; the map has every byte of a path", arguments: PostgresInstallation.all)
    func life(_ installation: PostgresInstallation) throws {
        var options = PostgresTestServer.Options()
        options.installation = installation
        let server = try PostgresTestServer(options)
        try server.start()
        let place = server.directory("ts\nä\\x y")
        try ServerUser.run(["mkdir", place])
        try server.psql("create tablespace one location E'\(place.replacing("\\", with: "\\\\"))'")
        // A database whose encoding is not UTF-8: the path must not be converted on its way.
        try server.psql("create database latin encoding 'LATIN1' locale 'C' template template0")
        var settings = server.databaseSettings
        settings.dbname = "latin"

        let connection = try DatabaseConnection(settings)
        let backup = try OnlineBackup(on: connection, label: "kedge label: 1")
        try backup.ping()
        try server.psql("create table t (i int)")
        try backup.ping()
        let stop = try backup.stop()
        #expect(stop.label.startLSN == backup.start.lsn)
        #expect(stop.label.startTimeline == TimelineID(1))
        #expect(stop.label.label == "kedge label: 1")
        #expect(stop.lsn > backup.start.lsn)
        #expect(stop.after.lsn >= stop.lsn)
        #expect(stop.after.time > backup.start.time)
        #expect(!stop.after.snapshot.isEmpty)
        let oid = try server.psql("select oid from pg_tablespace where spcname = 'one'").first?.first
        #expect(
            try stop.tablespaceMap.entries == [
                .init(oid: #require(oid.flatMap { UInt32($0) }), path: Array(place.utf8))
            ])
        #expect(stop.tablespaceMap.bytes(majorVersion: installation.version) == stop.tablespaceMapBytes)
        let again = #expect(throws: KedgeError.self) { try backup.stop() }
        #expect(again?.code == .defect)
    }

    @Test("a backup without tablespaces has an empty map")
    func noTablespaces() throws {
        let server = try PostgresTestServer()
        try server.start()
        let stop = try OnlineBackup(on: DatabaseConnection(server.databaseSettings), label: "x").stop()
        #expect(stop.tablespaceMapBytes == [])
    }

    @Test("a backup whose session was ended fails at the next ping and at the stop (lesson 40)")
    func deadSession() throws {
        let server = try PostgresTestServer()
        try server.start()
        let backup = try OnlineBackup(on: DatabaseConnection(server.databaseSettings), label: "x")
        try server.psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kedge'")
        let error = #expect(throws: KedgeError.self) { try backup.ping() }
        #expect(error?.code == .databaseUnavailable)
        #expect(error?.message == "the backup has failed: its database session is gone")
        #expect(throws: KedgeError.self) { try backup.stop() }
    }

    @Test("a backup that is given up leaves no backup behind in the server", arguments: PostgresInstallation.all)
    func givenUp(_ installation: PostgresInstallation) throws {
        var options = PostgresTestServer.Options()
        options.installation = installation
        let server = try PostgresTestServer(options)
        try server.start()
        do {
            let backup = try OnlineBackup(on: DatabaseConnection(server.databaseSettings), label: "x")
            try backup.ping()
        }
        try server.wait(until: "select count(*) = 0 from pg_stat_activity where application_name = 'kedge'")
        // A smart shutdown waits for backups before 15; a new backup starts in any case.
        _ = try OnlineBackup(on: DatabaseConnection(server.databaseSettings), label: "y").stop()
    }

    @Test("a role without the right gets an error that says how to grant it")
    func rights() throws {
        let server = try PostgresTestServer()
        try server.start()
        try server.psql("create role weak login")
        var settings = server.databaseSettings
        settings.user = "weak"
        let error = #expect(throws: KedgeError.self) { try OnlineBackup(on: DatabaseConnection(settings), label: "x") }
        #expect(error?.message == "could not start a backup")
        #expect(error?.detail?.contains("SQLSTATE 42501") == true)
    }

    @Test("a backup from a standby says so, and fails if it is promoted", arguments: PostgresInstallation.all)
    func standby(_ installation: PostgresInstallation) throws {
        var options = PostgresTestServer.Options()
        options.installation = installation
        let primary = try PostgresTestServer(options)
        try primary.start()
        let directory = try TemporaryDirectory()
        try primary.tool(
            "pg_basebackup",
            ["-D", directory("data"), "-R", "-X", "stream", "-c", "fast", "--no-sync"] + primary.connectionArguments)
        let standby = try PostgresTestServer(dataDirectory: directory("data"), installation: installation)
        try standby.start()
        let backup = try OnlineBackup(on: DatabaseConnection(standby.databaseSettings), label: "x")
        #expect(backup.start.isFromStandby)
        let stop = try backup.stop()
        #expect(stop.label.isFromStandby)
        #expect(stop.after.isInRecovery)
        #expect(stop.after.timeline == TimelineID(1))

        let second = try OnlineBackup(on: DatabaseConnection(standby.databaseSettings), label: "y")
        try standby.psql("select pg_promote()")
        let error = #expect(throws: KedgeError.self) { try second.stop() }
        #expect(error?.code == .databaseRefused)
        #expect(error?.detail?.contains("promoted") == true)
        let position = try DatabaseConnection(standby.databaseSettings).position()
        #expect(!position.isInRecovery)
        #expect(position.timeline == TimelineID(2))
    }
}

// The session and the typed queries, against what psql says on real servers of every version, and each way of failing.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DatabaseConnectionTests {
    @Test("settings, position, archiver and files are what psql says", arguments: PostgresInstallation.all)
    func facts(_ installation: PostgresInstallation) throws {
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.walSegmentMiB = 1
        options.dataChecksums = false
        options.configuration = [
            "archive_mode = on", "archive_command = 'test \"a\\\\b\" = ''x'' || false'",
            "include_if_exists = 'more.conf'",
            "wal_level = logical", "timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'",
        ]
        let server = try PostgresTestServer(options)
        try ServerUser.run(["sh", "-c", "echo work_mem = 5MB > '\(server.dataDirectory)/more.conf'"])
        try server.start()
        let connection = try DatabaseConnection(server.databaseSettings)
        #expect(connection.majorVersion == installation.version)

        let settings = try connection.settings()
        #expect(settings.dataDirectory == RawPath(server.dataDirectory))
        #expect(settings.archiveMode == .on)
        #expect(settings.archiveCommand == "test \"a\\b\" = 'x' || false")
        #expect(settings.archiveLibrary == "")
        #expect(settings.walLevel == "logical")
        #expect(settings.fullPageWrites)
        #expect(settings.walSegmentSizeBytes == 1 << 20)
        #expect(settings.blockSizeBytes == 8192)
        #expect(settings.walBlockSizeBytes == 8192)
        #expect(settings.relationSegmentBlocks == 131_072)
        #expect(!settings.dataChecksums)
        #expect(
            settings.systemIdentifier.description
                == (try server.value("select system_identifier from pg_control_system()")))

        let before = try #require(Int64(try server.value("select (extract(epoch from now()) * 1000000)::bigint")))
        let position = try connection.position()
        let after = try #require(Int64(try server.value("select (extract(epoch from now()) * 1000000)::bigint")))
        #expect((before...after).contains(position.time.microseconds))
        #expect(!position.isInRecovery)
        #expect(position.timeline == TimelineID(1))
        #expect(position.writtenLSN <= position.lsn)
        #expect(try server.value("select pg_current_wal_insert_lsn() >= '\(position.lsn)'") == "t")
        #expect(try server.value("select pg_current_snapshot()") == position.snapshot)

        let end = try connection.switchWAL()
        #expect(end >= position.lsn)
        let point = try connection.createRestorePoint("before it all; \"'ä")
        #expect(point > end)
        try server.wait(until: "select failed_count > 0 from pg_stat_archiver")
        let archiver = try connection.archiverStatistics()
        #expect(archiver.archivedCount == 0)
        #expect(archiver.lastArchivedFile == nil)
        #expect(archiver.lastArchivedTime == nil)
        #expect(archiver.failedCount > 0)
        #expect(archiver.lastFailedFile?.utf8.count == 24)
        #expect(try #require(archiver.lastFailedTime) >= position.time)

        let files = try connection.configurationFiles()
        #expect(files.configuration == RawPath(server.dataDirectory + "/postgresql.conf"))
        #expect(files.hostBasedAuthentication == RawPath(server.dataDirectory + "/pg_hba.conf"))
        #expect(files.identMap == RawPath(server.dataDirectory + "/pg_ident.conf"))
        #expect(files.included == [RawPath(server.dataDirectory + "/more.conf")])
    }

    @Test("each way of failing has its own code and says what the server said")
    func failures() throws {
        let server = try PostgresTestServer()
        var settings = server.databaseSettings
        let noServer = #expect(throws: KedgeError.self) { try DatabaseConnection(settings) }
        #expect(noServer?.code == .databaseUnavailable)
        #expect(noServer?.message == "could not connect to PostgreSQL")
        #expect(noServer?.detail?.contains("No such file or directory") == true)
        try server.start()
        settings.dbname = "no such database"
        let noDatabase = #expect(throws: KedgeError.self) { try DatabaseConnection(settings) }
        #expect(noDatabase?.detail?.contains("database \"no such database\" does not exist") == true)

        let connection = try DatabaseConnection(server.databaseSettings)
        let refused = #expect(throws: KedgeError.self) { try connection.query("SELECT 1/0", attempt: "divide") }
        #expect(
            refused?.description
                == """
                could not divide
                code: database-refused
                detail: The server said: division by zero (SQLSTATE 22012).
                hint: Look into the server's log for more.
                """)
        #expect(try connection.row("SELECT 1", attempt: "count").integer(0, "number") == 1)

        try server.psql("create role weak login")
        var weakSettings = server.databaseSettings
        weakSettings.user = "weak"
        weakSettings.dbname = "postgres"
        let weak = try DatabaseConnection(weakSettings)
        let hidden = #expect(throws: KedgeError.self) { try weak.settings() }
        #expect(hidden?.code == .databaseRefused)
        #expect(hidden?.message == "could not read setting \"data_directory\" of the server")
        let forbidden = #expect(throws: KedgeError.self) { try weak.switchWAL() }
        #expect(forbidden?.detail?.contains("SQLSTATE 42501") == true)
        #expect(forbidden?.hint?.contains("superuser") == true)

        try server.stop(.immediate)
        let lost = #expect(throws: KedgeError.self) { try connection.position() }
        #expect(lost?.code == .databaseUnavailable)
        #expect(lost?.message == "could not ask the server for its WAL position: the connection was lost")
        let closed = #expect(throws: KedgeError.self) { try connection.position() }
        #expect(closed?.code == .databaseUnavailable)
    }

    @Test("a password in the configuration is refused (lesson 46)")
    func password() {
        var settings = DatabaseSettings()
        settings.others = ["password": "hidden"]
        let error = #expect(throws: KedgeError.self) { try DatabaseConnection(settings) }
        #expect(error?.code == .configuration)
        #expect(error?.description.contains("hidden") == false)
    }

    @Test("a request to stop ends a query that the server is still working on (lesson 48)")
    func interruption() throws {
        let server = try PostgresTestServer()
        try server.start()
        let interruption = Interruption()
        let connection = try DatabaseConnection(server.databaseSettings, unless: interruption)
        interruption.request(signal: SIGTERM)
        let error = #expect(throws: KedgeError.self) {
            try connection.query("SELECT pg_sleep(1000)", attempt: "sleep")
        }
        #expect(error?.code == .interrupted)
        try server.wait(until: "select count(*) = 0 from pg_stat_activity where query like '%pg_sleep(1000)'")
    }
}

// pg_control, data pages and the files of a timeline switch as real servers of every installed version write them, and
// what a server makes of a poisoned pg_control.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct ServerFileTests {
    private func read(_ path: String) throws -> [UInt8] {
        try FileDescriptor.open(RawPath(path), .read).readAll(limit: 1 << 30)
    }

    private func files(_ directory: String) throws -> [String] {
        try Subprocess(["ls", directory]).run().outputText.split(separator: "\n").map { String($0) }
    }

    private func server(_ installation: PostgresInstallation, _ configuration: [String]) throws -> PostgresTestServer {
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.walSegmentMiB = 2
        options.configuration = configuration
        return try PostgresTestServer(options)
    }

    // MARK: pg_control

    @Test("every field of pg_control agrees with what the server says of it", arguments: PostgresInstallation.all)
    func controlFile(_ installation: PostgresInstallation) throws {
        let server = try server(
            installation,
            [
                "max_connections = 37", "max_worker_processes = 11", "max_wal_senders = 13",
                "max_prepared_transactions = 5", "max_locks_per_transaction = 77", "track_commit_timestamp = on",
                "wal_level = logical",
            ])
        try server.start()
        try server.psql("CREATE TABLE t (i int); CHECKPOINT;")
        let file = try ControlFile.read(dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        #expect(file.version.major == installation.version)
        #expect(file.state == .inProduction)
        #expect(file.minimumRecoveryPoint == .invalid && file.backupStartPoint == .invalid && !file.backupEndRequired)
        #expect(file.standbySettings.maxConnections == 37)
        #expect(file.standbySettings.maxWorkerProcesses == 11)
        #expect(file.standbySettings.maxWALSenders == 13)
        #expect(file.standbySettings.maxPreparedTransactions == 5)
        #expect(file.standbySettings.maxLocksPerTransaction == 77)
        #expect(file.standbySettings.trackCommitTimestamp)
        #expect(file.walLevel == .logical)

        let row = try server.psql(
            """
            SELECT s.system_identifier, s.catalog_version_no, c.checkpoint_lsn, c.redo_lsn, c.timeline_id,
              c.prev_timeline_id, extract(epoch FROM c.checkpoint_time)::bigint, i.max_data_alignment,
              i.database_block_size, i.blocks_per_segment, i.wal_block_size, i.bytes_per_wal_segment,
              i.data_page_checksum_version
            FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_init() i
            """)
        #expect(
            row == [
                [
                    file.systemIdentifier.description, String(file.version.catalogVersion), file.checkpoint.description,
                    file.redo.description, file.timeline.description, file.previousTimeline.description,
                    String(file.checkpointTime.microseconds / 1_000_000), String(file.maximumAlignment),
                    String(file.blockSize), String(file.relationSegmentBlocks), String(file.walBlockSize),
                    String(file.walSegmentSize), String(file.dataChecksumVersion),
                ]
            ])
        #expect(file.walSegmentSize == 2 << 20)

        try server.stop()
        let stopped = try ControlFile.read(dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        #expect(stopped.state == .shutDown)
        guard installation.has("pg_controldata") else { return }
        let said = try server.tool("pg_controldata", ["-D", server.dataDirectory])
        for line in [
            "Database cluster state: shut down", "Latest checkpoint location: \(stopped.checkpoint)",
            "Latest checkpoint's REDO location: \(stopped.redo)", "wal_level setting: logical",
            "Minimum recovery ending location: \(stopped.minimumRecoveryPoint)",
            "Min recovery ending loc's timeline: 0", "Backup start location: 0/0", "Backup end location: 0/0",
            "End-of-backup record required: no", "track_commit_timestamp setting: on", "max_connections setting: 37",
            "max_locks_per_xact setting: 77", "Maximum data alignment: \(stopped.maximumAlignment)",
            "Data page checksum version: \(stopped.dataChecksumVersion)",
        ] {
            let found = said.split(separator: "\n").contains { words($0) == words(line) }
            #expect(found, "\(line)")
        }
    }

    private func words(_ line: some StringProtocol) -> [String] { line.split(separator: " ").map { String($0) } }

    // MARK: Pages

    @Test("every page of a new cluster is valid at its place, and at no other", arguments: PostgresInstallation.all)
    func pages(_ installation: PostgresInstallation) throws {
        let server = try server(installation, [])
        var valid = 0
        var moved = 0
        for directory in ["/base/1/", "/global/"] {
            for name in try files(server.dataDirectory + directory) where name.first?.isNumber == true {
                let bytes = try read(server.dataDirectory + directory + name)
                #expect(bytes.count.isMultiple(of: 8192), "\(name)")
                bytes.withUnsafeBytes { all in
                    for block in 0..<all.count / 8192 {
                        let page = DataPage(UnsafeRawBufferPointer(rebasing: all[block * 8192..<(block + 1) * 8192]))
                        if page.verdict(block: UInt32(block)) == .valid { valid += 1 } else { valid -= 1_000_000 }
                        if !page.isNew && page.verdict(block: UInt32(block) + 131_072) == .valid { moved += 1 }
                    }
                }
            }
        }
        #expect(valid > 500)
        // One in 65,535 is to be expected, so a few by chance would be too many.
        #expect(moved <= 2)
    }

    // MARK: Poison

    @Test(
        "a copy with a poisoned pg_control starts with its backup_label and never without (lesson 37)",
        arguments: PostgresInstallation.all)
    func poison(_ installation: PostgresInstallation) throws {
        let server = try server(installation, [])
        try server.start()
        try server.psql("CREATE TABLE t AS SELECT 1 AS i")
        let copies = try (0..<2).map { _ in try TemporaryDirectory() }
        for copy in copies {
            try server.tool(
                "pg_basebackup",
                server.connectionArguments + ["-D", copy("data"), "-X", "fetch", "-c", "fast", "--no-sync"])
            let path = copy("data/global/pg_control")
            let poisoned = try ControlFile.poisoned(try read(path))
            try FileDescriptor.open(RawPath(path), .write).write(poisoned, at: 0)
        }
        try server.stop()

        let labelled = try PostgresTestServer(dataDirectory: copies[0]("data"), installation: installation)
        try labelled.start()
        #expect(try labelled.value("SELECT i FROM t") == "1")
        let healed = try ControlFile.read(dataDirectory: RawPath(copies[0]("data")), time: SystemTimeSource())
        #expect(!healed.isPoisoned)
        try labelled.stop()

        #expect(unlink(copies[1]("data/backup_label")) == 0)
        let unlabelled = try PostgresTestServer(dataDirectory: copies[1]("data"), installation: installation)
        try unlabelled.startWithoutWaiting()
        let status = try #require(try unlabelled.waitForExit())
        #expect(!status.isSuccess)
        #expect(unlabelled.log.contains("checkpoint record"), "\(unlabelled.log)")
        let left = try ControlFile.read(dataDirectory: RawPath(copies[1]("data")), time: SystemTimeSource())
        #expect(left.isPoisoned)
    }

    // MARK: A timeline switch

    /// A recovery that ends by itself writes a checkpoint, one that is ended writes an END_OF_RECOVERY record.
    private static let promotions =
        PostgresInstallation.all.map { ($0, "promote") } + [(PostgresInstallation.standard, "pause")]

    @Test(
        "the files of a promotion are understood: history, partial segment, first segment of the new timeline",
        arguments: promotions)
    func promotion(_ installation: PostgresInstallation, action: String) throws {
        let archive = try TemporaryDirectory()
        // A copy that the immediate stop below cuts must not lie in the archive.
        let half = try TemporaryDirectory()
        let command = "cp %p \(half.path)/%f && mv \(half.path)/%f \(archive.path)/%f"
        let server = try server(
            installation, ["archive_mode = on", "archive_command = '\(command)'", "wal_keep_size = 1GB"])
        try server.start()
        let copy = try TemporaryDirectory()
        try server.tool(
            "pg_basebackup",
            server.connectionArguments + ["-D", copy("data"), "-X", "fetch", "-c", "fast", "--no-sync"])
        // Recycled segments make the garbage that a partial one ends in.
        try server.psql("CREATE TABLE t AS SELECT i, repeat('x', 200) v FROM generate_series(1, 30000) i")
        try server.psql("CHECKPOINT; INSERT INTO t SELECT * FROM t; CHECKPOINT")
        try server.psql("SELECT pg_create_restore_point('here'); INSERT INTO t VALUES (0, 'x')")
        // The last segment is not archived: only such a one becomes a partial segment when it is left for a new
        // timeline.
        try server.stop(.immediate)
        let wal = server.dataDirectory + "/pg_wal/0*"
        let copied = try ServerUser.command(["sh", "-c", "cp -n \(wal) \(copy("data/pg_wal/"))"]).run()
        #expect(copied.status.isSuccess, "\(copied.errorText)")

        let promoted = try PostgresTestServer(dataDirectory: copy("data"), installation: installation)
        try promoted.appendConfiguration([
            "restore_command = 'cp \(archive.path)/%f %p'", "recovery_target_name = 'here'",
            "recovery_target_action = \(action)",
        ])
        #expect(try ServerUser.command(["touch", copy("data/recovery.signal")]).run().status.isSuccess)
        try promoted.start()
        if action == "pause" {
            try promoted.wait(until: "SELECT pg_is_wal_replay_paused()")
            try promoted.psql("SELECT pg_promote()")
        }
        try promoted.wait(until: "SELECT pg_is_in_recovery()", is: "f")
        try promoted.psql("INSERT INTO t VALUES (-1, 'y'); SELECT pg_switch_wal()")
        try promoted.wait(
            until: "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn()) FROM pg_stat_archiver")
        try promoted.stop()
        try check(archive, ControlFile.read(dataDirectory: RawPath(copy("data")), time: SystemTimeSource()))
    }

    private func check(_ archive: TemporaryDirectory, _ control: ControlFile) throws {
        let history = try TimelineHistory(parsing: try read(archive("00000002.history")), timeline: TimelineID(2))
        let switchPoint = try #require(history.switchPoint(leaving: TimelineID(1)))
        var facts: [String: WALFacts] = [:]
        for name in try files(archive.path) {
            switch try #require(WALFileName(name)) {
            case .history: continue
            case .backup:
                let note = try BackupHistoryFile(parsing: try read(archive(name)), name: name)
                #expect(note.stopLSN > note.startLSN && note.stopTimeline == TimelineID(1))
            case .segment, .partial: facts[name] = try self.facts(try read(archive(name)), name, control)
            }
        }
        let before = WALSegment(timeline: TimelineID(1), containing: switchPoint, segmentSize: 2 << 20)
        let after = WALSegment(timeline: TimelineID(2), number: before.number)
        let first = try #require(facts[after.fileName(segmentSize: 2 << 20)])
        let partial = try #require(facts[before.fileName(segmentSize: 2 << 20) + ".partial"])
        #expect(facts.values.allSatisfy { $0.suspect == nil })
        #expect(partial.events.restorePoints.map(\.name) == ["here"])
        #expect(partial.walk.defect != nil && partial.endLSN >= switchPoint)
        #expect(first.walk.firstPageTimeline == TimelineID(switchPoint.position % (2 << 20) > 8192 ? 1 : 2))
        // A page keeps its header: the one with the switch point is still of the old timeline.
        let last = try #require(first.walk.lastRecord)
        let onSamePage = last.position / 8192 == switchPoint.position / 8192
        #expect(first.walk.lastPageTimeline == (onSamePage ? first.walk.firstPageTimeline : TimelineID(2)))
        #expect(first.events.restorePoints.map(\.name) == ["here"])
        let end = try #require(first.events.lastEndOfRecovery)
        // The record begins behind a page header, if the switch point is at a page border.
        #expect(end.lsn >= switchPoint && end.lsn.position - switchPoint.position <= 40)
        #expect((end.timeline, end.previousTimeline) == (TimelineID(2), TimelineID(1)))
        #expect(control.timeline == TimelineID(2))
    }

    private func facts(_ bytes: [UInt8], _ name: String, _ control: ControlFile) throws -> WALFacts {
        let fileName = try #require(WALFileName(name))
        return try bytes.withUnsafeBytes { buffer in
            let segment = try WALFileCheck.check(
                name: fileName, firstPage: buffer, sizeBytes: UInt64(buffer.count), format: control.walFormat)
            return try WALFacts(
                of: buffer, segment: segment, isPartial: name.hasSuffix(".partial"), format: control.walFormat)
        }
    }
}

// Proves on real servers that a backup taken under load recovers, that what is wrong with a server stops it early and
// is said, and that a backup that fails leaves nothing that looks like one.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct BackupTests {
    /// An array of all pages that a reader of the data directory may compare: those of a server that writes nothing.
    @Test("a backup of a quiet server holds every file byte for byte", arguments: PostgresInstallation.all)
    func quietServer(_ installation: PostgresInstallation) throws {
        let cluster = try BackupTestCluster(installation)
        let server = cluster.server
        let place = cluster.scratch("space one")
        try ServerUser.run(["mkdir", place])
        try server.psql(
            """
            create tablespace one location '\(place)';
            create table t as select i, md5(i::text) from generate_series(1, 20000) i;
            create table elsewhere (i int) tablespace one;
            insert into elsewhere select generate_series(1, 1000);
            create unlogged table u as select 1;
            create table empty ();
            checkpoint
            """)
        let outcome = try cluster.backUp()
        #expect(outcome.afterCommit == nil)
        #expect(outcome.warnings == [])
        let listed = try BackupCatalog(cluster.cluster()).list()
        #expect(listed.backups == [outcome.record])
        #expect(try BackupCatalog(cluster.cluster()).intents() == [])
        try compare(cluster, outcome.record)
        try checkRecord(outcome.record, cluster)
    }

    private func compare(_ cluster: BackupTestCluster, _ record: CommitRecord) throws {
        let reader = PackReader(PackDirectories(try cluster.cluster()))
        let entries = try cluster.entries(record)
        // What the server writes by itself between the copy and this comparison.
        let changing: Set<String> = ["global/pg_control", "backup_label"]
        var bytes: UInt64 = 0
        for entry in entries where entry.content != nil {
            let content = try cluster.content(entry, reader)
            bytes += UInt64(content.count)
            if changing.contains(entry.path.description) { continue }
            let path = RawPath(cluster.server.dataDirectory).appending(RawPath(bytes: entry.path.bytes))
            let present = try FileDescriptor.open(path, .read).readAll(limit: 1 << 30)
            // Hint bits, statistics and commit status move on; the backup's own checkpoint wrote the rest.
            let isStable = entry.path.isAtOrBelow("base") || entry.path.isAtOrBelow("pg_tblspc")
            if isStable { #expect(content == present, "\(entry.path)") }
        }
        #expect(bytes == record.sizes.databaseBytes)
        let paths = entries.map(\.path.description)
        for path in ["backup_label", "global/pg_control", "PG_VERSION", "pg_wal", "pg_wal/archive_status"] {
            #expect(paths.contains(path), "\(path)")
        }
        #expect(
            paths.contains { $0.hasPrefix("pg_tblspc/") && $0.contains("/PG_\(cluster.server.installation.version)_") })
        #expect(!paths.contains { $0.hasPrefix("pg_wal/0") || $0 == "postmaster.pid" })
    }

    private func checkRecord(_ record: CommitRecord, _ cluster: BackupTestCluster) throws {
        #expect(record.server.postgresVersion == cluster.server.installation.version)
        #expect(record.server.dataChecksums)
        #expect(record.tablespaces.count == 1)
        #expect(record.dataDirectoryMode == 0o700)
        #expect(record.walDirectory == nil)
        #expect(record.tablespaces.first?.path == RawPath(cluster.scratch("space one")))
        #expect(record.health == CommitRecord.BackupHealth())
        #expect(record.span.startLSN < record.span.stopLSN)
        #expect(record.span.stopLSN <= record.span.afterStopLSN)
        #expect(record.span.startTime <= record.span.stopTime)
        #expect(record.keySlots.count == 1)
        #expect(record.sizes.storedBytes > 0 && record.sizes.storedBytes < record.sizes.databaseBytes)
        #expect(record.durations.map(\.phase) == ["start", "copy", "manifest", "wal"])
        let size = record.server.walSegmentSize
        let first = WALSegment(timeline: record.span.timeline, containing: record.span.startLSN, segmentSize: size)
        #expect(record.span.walFrom == first.fileName(segmentSize: size))
        #expect(record.span.walTo >= record.span.walFrom)
    }

    @Test("a backup taken under load recovers to a consistent database", arguments: PostgresInstallation.all)
    func underLoad(_ installation: PostgresInstallation) throws {
        let cluster = try BackupTestCluster(installation)
        let server = cluster.server
        try server.tool("pgbench", server.connectionArguments + ["-i", "-s", "5", "-q", "postgres"])
        let place = cluster.scratch("space")
        try ServerUser.run(["mkdir", place])
        try server.psql("create tablespace one location '\(place)'; alter table pgbench_tellers set tablespace one")
        let load = try ServerUser.command(
            [installation.program("pgbench")] + server.connectionArguments + ["-c", "2", "-T", "300", "-n", "postgres"]
        ).start(output: .file("/dev/null"), errors: .file("/dev/null"))
        try server.wait(until: "select count(*) > 100 from pgbench_history")
        let psql = cluster.psql
        // Relations come and go while their files are copied.
        let outcome = try cluster.backUp(
            files: ChangingFiles { (_, moment) throws(KedgeError) in
                guard case .open = moment, UInt8.random(in: 0..<100) == 0 else { return }
                try psql("create table if not exists gone (i int); drop table gone")
            })
        load.kill(SIGKILL)
        #expect(outcome.record.health.damagedPageCount == 0)

        let restored = try cluster.restore(outcome.record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        let sums = try restored.psql(
            """
            select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history),
                (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
                (select count(*) from pgbench_history) > 100
            """)
        #expect(sums == [["t", "t", "t", "t"]])
        try restored.stop()
        if installation.has("pg_checksums") || installation.version == 15 {
            try restored.tool("pg_checksums", ["--check", "-D", restored.dataDirectory])
        }
    }

    @Test("damaged pages are recorded with their place, and the backup is committed all the same")
    func damagedPages() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i, md5(i::text) from generate_series(1, 20000) i; checkpoint")
        let file = try server.value("select pg_relation_filepath('t')")
        try server.stop()
        let path = RawPath(server.dataDirectory).appending(file)
        try FileDescriptor.open(path, .write).write([UInt8](repeating: 0x5A, count: 64), at: 3 * 8192 + 4000)
        try server.start()
        let record = try cluster.backUp().record
        #expect(record.health.damagedPageCount == 1)
        #expect(record.health.damagedPages == [.init(path: ManifestPath(file), block: 3)])
        #expect(try BackupCatalog(cluster.cluster()).list().backups == [record])
    }

    @Test("a cluster without data checksums is backed up unchecked")
    func noChecksums() throws {
        let record = try BackupTestCluster(dataChecksums: false).backUp().record
        #expect(!record.server.dataChecksums)
        #expect(record.health.damagedPageCount == 0)
    }

    // MARK: What stops a backup

    /// What fails leaves no commit record, an intent only with packs that the next backup can use, and the server runs
    /// no backup any more. Nil: whether it had stored packs is left to chance.
    private func expectNothingLeft(_ cluster: BackupTestCluster, butPacks: Bool? = nil) throws {
        let catalog = BackupCatalog(try cluster.cluster())
        #expect(try catalog.list().backups.isEmpty)
        var packs = 0
        try cluster.store.forEachObject(below: "main/pack") { _ throws(KedgeError) in packs += 1 }
        #expect(try catalog.intents().isEmpty != (butPacks ?? (packs > 0)))
        try cluster.server.wait(
            until: "select count(*) = 0 from pg_stat_activity where application_name = 'kedge'")
    }

    @Test("WAL that does not arrive stops the backup before anything is copied, with the archiver's words (lesson 42)")
    func archivingBroken() throws {
        let cluster = try BackupTestCluster()
        try cluster.server.psql("alter system set archive_command = 'exit 7'")
        try cluster.server.psql("select pg_reload_conf()")
        var options = cluster.options
        options.archiveTimeout = .seconds(2)
        let error = #expect(throws: KedgeError.self) { try Backup(options, cluster.tools()).run() }
        #expect(error?.code == .archivingBroken)
        #expect(error?.message.hasPrefix("could not find WAL segment \"00000001") == true)
        #expect(error?.detail?.contains("attempt(s) failed, the last one with \"00000001") == true)
        var packs = 0
        try cluster.store.forEachObject(below: "main/pack") { _ throws(KedgeError) in packs += 1 }
        #expect(packs == 0)
        try expectNothingLeft(cluster)
    }

    @Test("WAL that is archived to somewhere else is not waited for for ever")
    func archivedElsewhere() throws {
        let cluster = try BackupTestCluster()
        let psql = cluster.psql
        try cluster.server.psql("alter system set archive_command = 'true'; ")
        try cluster.server.psql("select pg_reload_conf()")
        var options = cluster.options
        options.archiveTimeout = .seconds(2)
        var tools = try cluster.tools()
        // The archiver goes on and on.
        tools.time = HookedTime(time: tools.time) { try psql("select pg_logical_emit_message(true, 'x', 'y')") }
        let error = #expect(throws: KedgeError.self) { try Backup(options, tools).run() }
        #expect(error?.code == .archivingBroken)
        try expectNothingLeft(cluster)
    }

    @Test("a role with no more rights than a backup needs takes one, without configuration files")
    func fewRights() throws {
        let cluster = try BackupTestCluster()
        try cluster.server.psql(
            """
            create role kedge login in role pg_monitor;
            grant execute on function pg_backup_start, pg_backup_stop, pg_switch_wal to kedge
            """)
        var options = cluster.options
        options.database.user = "kedge"
        let outcome = try Backup(options, cluster.tools()).run()
        #expect(outcome.warnings.count == 1)
        #expect(outcome.warnings.first?.hasPrefix("Configuration files outside") == true)
        #expect(try BackupCatalog(cluster.cluster()).list().backups == [outcome.record])
    }

    @Test("archiving that is off is refused at once, and a standby whose WAL nobody archives is given up")
    func refusals() throws {
        let off = try BackupTestCluster(configuration: ["archive_mode = off"])
        let error = #expect(throws: KedgeError.self) { try off.backUp() }
        #expect(error?.code == .archivingBroken)
        #expect(
            error?.message == "cannot back up cluster \"main\": the server does not archive its WAL")
        try off.server.stop()
        try FileDescriptor.open(RawPath(off.server.dataDirectory + "/standby.signal"), [.write, .create]).close()
        try ServerUser.own(off.server.dataDirectory + "/standby.signal")
        try off.server.start()
        let standby = #expect(throws: KedgeError.self) { try off.backUp() }
        #expect(standby?.code == .archivingBroken)
        #expect(standby?.message.hasSuffix(" did not arrive in repository \"main\"") == true)
        try expectNothingLeft(off, butPacks: true)
    }

    @Test("a data directory that is not the server's is refused")
    func otherServer() throws {
        let cluster = try BackupTestCluster()
        let other = try PostgresTestServer()
        var options = cluster.options
        options.dataDirectory = RawPath(other.dataDirectory)
        let error = #expect(throws: KedgeError.self) { try Backup(options, cluster.tools()).run() }
        #expect(error?.code == .configuration)
        try expectNothingLeft(cluster)
    }

    @Test(
        "files of a standby or a copy are not backed up in the primary's session, whatever pg_control says at the end",
        arguments: [true, false])
    func filesOfAnotherServer(_ isRunning: Bool) throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i from generate_series(1, 1000) i; checkpoint")
        if !isRunning { try server.stop() }
        let copy = cluster.scratch("copy")
        try ServerUser.run(["cp", "-a", server.dataDirectory, copy])
        if !isRunning { try server.start() }
        // A standby has the same WAL, so that this tells nothing.
        try ServerUser.run(["sh", "-c", "rm \(copy)/pg_wal/0*"])
        // Where the files belong to a standby it may make a restartpoint at any moment.
        let live = RawPath(server.dataDirectory).appending("global/pg_control")
        let files = ChangingFiles { (path, moment) throws(KedgeError) in
            guard case .open = moment, path.lastComponent == "PG_VERSION" else { return }
            let bytes = try FileDescriptor.open(live, .read).readAll(limit: ControlFile.fileSize)
            try FileDescriptor.open(RawPath(copy).appending("global/pg_control"), .write).write(bytes, at: 0)
        }
        var options = cluster.options
        options.dataDirectory = RawPath(copy)
        let error = #expect(throws: KedgeError.self) { try Backup(options, cluster.tools(files: files)).run() }
        #expect(error?.code == .configuration, "\(String(describing: error))")
        #expect(error?.message.hasSuffix("the server is another one") == true)
        try expectNothingLeft(cluster)
    }

    @Test("a second backup on this host is refused while the first runs")
    func locked() throws {
        let cluster = try BackupTestCluster()
        let lock = try FileLock(
            at: cluster.options.workDirectory.appending("backup-main.lock"), purpose: "test",
            time: SystemTimeSource())
        let error = #expect(throws: KedgeError.self) { try cluster.backUp() }
        #expect(error?.code == .locked)
        withExtendedLifetime(lock) {}
    }

    @Test("a session that ends while files are copied fails the backup (lesson 40)")
    func deadSession() throws {
        let cluster = try BackupTestCluster()
        let psql = cluster.psql
        let error = #expect(throws: KedgeError.self) {
            try cluster.backUp(
                files: ChangingFiles { (path, moment) throws(KedgeError) in
                    guard case .open = moment, path.lastComponent == "PG_VERSION" else { return }
                    try psql(
                        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kedge'")
                })
        }
        #expect(error?.code == .databaseUnavailable)
        try expectNothingLeft(cluster)
    }

    @Test("an interruption leaves neither backup nor intent")
    func interrupted() throws {
        let cluster = try BackupTestCluster()
        var tools = try cluster.tools()
        let interruption = tools.interruption
        tools.files = ChangingFiles { (path, _) throws(KedgeError) in
            if path.lastComponent == "PG_VERSION" { interruption.request(signal: SIGTERM) }
        }
        let error = #expect(throws: KedgeError.self) { try Backup(cluster.options, tools).run() }
        #expect(error?.code == .interrupted)
        try expectNothingLeft(cluster)
    }

    @Test("a pack or the intent that goes before the commit stops it (lesson 24)", arguments: [true, false])
    func somethingIsGone(_ removesPack: Bool) throws {
        let cluster = try BackupTestCluster()
        let opened = try cluster.cluster()
        let store = cluster.store
        var tools = try cluster.tools()
        // Waiting for the last WAL is the moment: all packs are there by then.
        let pump = tools.time
        tools.time = HookedTime(time: pump) {
            var manifests: [ObjectName] = []
            try store.forEachObject(below: "main/backup") { entry throws(KedgeError) in manifests.append(entry.name) }
            guard !manifests.isEmpty else { return }
            var victims: [ObjectName] = []
            let directory = opened.name(removesPack ? ClusterLayout.packs : ClusterLayout.intents)
            try store.forEachObject(below: directory) { entry throws(KedgeError) in victims.append(entry.name) }
            _ = try store.remove(Array(victims.prefix(1)))
        }
        let error = #expect(throws: KedgeError.self) { try Backup(cluster.options, tools).run() }
        #expect(error?.code == .notFound)
        #expect(error?.message.hasPrefix("cannot commit backup \"") == true)
        try expectNothingLeft(cluster, butPacks: removesPack)
    }

    @Test("after a promotion the history files of the ancestry are asked for, and the record tells the ancestry")
    func promoted() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.stop()
        try FileDescriptor.open(RawPath(server.dataDirectory + "/standby.signal"), [.write, .create]).close()
        try ServerUser.own(server.dataDirectory + "/standby.signal")
        try server.start()
        try server.psql("select pg_promote()")
        try server.wait(until: "select not pg_is_in_recovery()")
        let history = cluster.archiveDirectory + "/00000002.history"
        try server.wait(until: "select coalesce((pg_stat_file('\(history)', true)).size, 0) > 0")
        try FileSystem.removeFile(at: RawPath(history))
        let error = #expect(throws: KedgeError.self) { try cluster.backUp() }
        #expect(error?.code == .archivingBroken)
        #expect(
            error?.message
                == "could not find timeline history file \"00000002.history\" in repository \"main\"")
        // Nor does it help that the server does not know its own ancestry any more.
        let kept = cluster.scratch("kept.history")
        try ServerUser.run(["mv", server.dataDirectory + "/pg_wal/00000002.history", kept])
        let told = Monitor<[String]>([])
        var tools = try cluster.tools()
        tools.warn = { text in told.update { $0.append(text) } }
        let second = #expect(throws: KedgeError.self) { try Backup(cluster.options, tools).run() }
        #expect(second?.message == error?.message)
        // Before anything is copied.
        #expect(told.update { $0 }.contains { $0.hasPrefix("The backup will fail in the end: could not") })
        #expect(error?.hint?.contains("pg_promote") == false)
        #expect(second?.hint?.contains("pg_promote") == true, "\(second?.hint ?? "")")
        try ServerUser.run(["cp", kept, history])
        let record = try cluster.backUp().record
        #expect(record.span.timeline == TimelineID(2))
        #expect(record.span.history.map(\.timeline) == [TimelineID(1)])
    }
}

/// Does something whenever somebody sleeps.
private struct HookedTime: TimeSource {
    let time: any TimeSource
    let hook: @Sendable () throws -> Void

    func now() -> Timestamp { time.now() }
    func monotonicNanoseconds() -> UInt64 { time.monotonicNanoseconds() }

    func sleep(nanoseconds: UInt64) {
        do { try hook() } catch { Issue.record(error) }
        time.sleep(nanoseconds: nanoseconds)
    }
}

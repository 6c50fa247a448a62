// A small real cluster whose backups go to any store. Its WAL comes from the server's own archiver by way of
// ArchivePush in this process, as another process would bring it: faults of the backup's store do not touch it.
import Glibc
import KedgeArchive
import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Synchronization

/// A running PostgreSQL 15 of one small database, and an encrypted repository in memory to start from.
final class SweepCluster {
    let server: PostgresTestServer
    /// Everything that is archived, and the backups that tests put into it. Points of a sweep work on copies.
    let base = MemoryStore(time: SystemTimeSource())
    private let scratch: TemporaryDirectory
    private let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    private let pump: SegmentPump
    /// Rows of the table `points`.
    private(set) var rows = 0

    init() throws {
        scratch = try TemporaryDirectory()
        let archive = scratch("archive")
        try ServerUser.run(["mkdir", archive])
        var options = PostgresTestServer.Options()
        options.walSegmentMiB = 1
        options.configuration = [
            "archive_mode = on", "archive_command = 'cp %p \(archive)/%f.part && mv \(archive)/%f.part \(archive)/%f'",
            "autovacuum = off", "max_wal_size = 64MB",
        ]
        server = try PostgresTestServer(options)
        try server.start()
        // One database instead of three: what a sweep repeats hundreds of times should be small.
        try server.psql(
            """
            update pg_database set datistemplate = false where datname <> 'postgres';
            drop database template0;
            drop database template1;
            create table points (number int);
            """)
        _ = try Directory.create(at: RawPath(scratch("work")))
        let control = try ControlFile.read(dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        _ = try ArchiveFixture(system: control.systemIdentifier, segmentMiB: 1).makeRepository(in: base, secret: secret)
        pump = SegmentPump(
            archive: RawPath(archive), dataDirectory: RawPath(server.dataDirectory),
            target: ArchiveFixture.source(base, secret: secret))
    }

    func source(_ store: any ObjectStore) -> RepositorySource { ArchiveFixture.source(store, secret: secret) }

    func catalog(_ store: any ObjectStore) throws -> BackupCatalog {
        BackupCatalog(try source(store).openCluster("main", for: .read))
    }

    /// A copy of `base` with all WAL that is archived by now.
    func copyOfBase() throws -> MemoryStore {
        try pump.run()
        return base.copy()
    }

    /// Inserts a row and backs up by way of `faulty`, while WAL arrives in `store`, which `faulty` wraps or is.
    func backUp(
        by faulty: any ObjectStore, into store: MemoryStore, _ request: BackupRequest = .full
    ) throws -> Backup.Outcome {
        rows += 1
        try server.psql("insert into points values (\(rows))")
        var options = Backup.Options(
            clusterName: "main", dataDirectory: RawPath(server.dataDirectory), database: server.databaseSettings,
            repository: source(faulty), workDirectory: RawPath(scratch("work")), ownDirectories: [], workers: 2,
            archiveTimeout: .seconds(3600), readRateBytes: nil, hostName: "test", processID: 1)
        // Whoever crashes here is this process, which lives on: say that it is dead, so that a rerun need not wait.
        var dead = ProcessIdentity.current(hostName: "test")
        dead.startTicks = 0
        options.leaseHolder = dead
        options.watching.leaseInterval = nil
        options.request = request
        // Several packs for each worker.
        options.packLimits = PackLimits(storedBytes: 256 << 10, tableBytes: 2 << 20)
        let pump = store === base ? pump : pump.copy(into: source(store))
        return try Backup(options, Backup.Tools(time: PumpedTime(pump: pump), interruption: Interruption())).run()
    }

    /// Restores one backup, which checks every byte of it, and hands the directory to `body`.
    func restore(_ label: Label, from store: any ObjectStore, _ body: (String) throws -> Void = { _ in }) throws {
        let target = scratch("restored")
        defer { _ = try? Subprocess(["rm", "-rf", target, scratch("wal")]).run() }
        try restoration(of: label, from: store, into: target).run()
        try body(target)
    }

    /// A restore of one backup that was not run yet.
    func restoration(of label: Label, from store: any ObjectStore, into target: String) -> Restoration {
        let options = Restore.Options(
            clusterName: "main", request: RestoreRequest(backup: label, target: .immediate), pgdata: RawPath(target),
            configuredPgdata: RawPath(server.dataDirectory), action: .promote,
            restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
            workDirectory: RawPath(workDirectory))
        return Restoration(source: source(store), options: options)
    }

    /// A restore, to be run on any thread.
    struct Restoration: Sendable {
        let source: RepositorySource
        var options: Restore.Options

        func run() throws(KedgeError) { _ = try Restore(source, options).run() }
    }

    /// Where backups and restores keep their scratch files.
    var workDirectory: String { scratch("work") }

    /// The path of `name` in the cluster's own directory.
    func place(_ name: String) -> String { scratch(name) }

    /// Runs a server on what was restored and returns how many rows it has.
    func countRows(in directory: String, _ store: MemoryStore) throws -> Int {
        try fetchWAL(from: store)
        let file = try FileDescriptor.open(RawPath(directory + "/postgresql.auto.conf"), [.read, .write])
        let line = "restore_command = 'cp \(scratch("wal"))/%f %p'\n"
        try file.write(Array(line.utf8), at: try file.status().sizeBytes)
        if ServerUser.isAnother {
            _ = try Subprocess(["chown", "-R", "postgres:postgres", directory, scratch("wal")]).run()
        }
        let restored = try PostgresTestServer(dataDirectory: directory)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        let count = Int(try restored.value("select count(*) from points")) ?? -1
        try restored.stop()
        return count
    }

    /// Brings the segments that `store` holds into a directory, each checked by archive-get.
    private func fetchWAL(from store: MemoryStore) throws {
        _ = try Directory.create(at: RawPath(scratch("wal")))
        let names = store.names.map { String($0.lastComponent) }
        for name in names where WALFileName(name)?.isSegment == true {
            let options = ArchiveGet.Options(
                fileName: name, destination: RawPath(scratch("wal") + "/" + name), clusterName: "main",
                dataDirectory: RawPath(server.dataDirectory), repositories: [source(store)], threads: 1,
                timeoutNanoseconds: 0)
            _ = try ArchiveGet(
                options, random: SystemRandomSource(), time: SystemTimeSource(), interruption: Interruption()
            ).run()
        }
    }
}

extension WALFileName {
    fileprivate var isSegment: Bool {
        if case .segment = self { true } else { false }
    }
}

/// Pushes files that the server has archived and that the target does not have yet.
final class SegmentPump: Sendable {
    private let archive: RawPath
    private let dataDirectory: RawPath
    private let target: RepositorySource
    private let done: Mutex<Set<String>>

    init(archive: RawPath, dataDirectory: RawPath, target: RepositorySource, done: Set<String> = []) {
        self.archive = archive
        self.dataDirectory = dataDirectory
        self.target = target
        self.done = Mutex(done)
    }

    /// One for a copy of the target.
    func copy(into target: RepositorySource) -> SegmentPump {
        SegmentPump(archive: archive, dataDirectory: dataDirectory, target: target, done: done.withLock { $0 })
    }

    func run() throws(KedgeError) {
        let names = try Directory.entries(at: archive).map(\.name.description)
        for name in names.sorted() where WALFileName(name) != nil && !done.withLock({ $0.contains(name) }) {
            let options = ArchivePush.Options(
                path: archive.appending(name), clusterName: "main", dataDirectory: dataDirectory,
                repositories: [target], threads: 1, refusesDamagedWAL: false, hostName: "test")
            _ = try ArchivePush(options, random: SystemRandomSource(), time: SystemTimeSource()).run()
            done.withLock { _ = $0.insert(name) }
        }
    }
}

/// A clock that jumps over every wait and lets WAL arrive meanwhile.
private final class PumpedTime: TimeSource {
    private let pump: SegmentPump
    private let system = SystemTimeSource()
    private let skipped = Mutex<UInt64>(0)

    init(pump: SegmentPump) { self.pump = pump }

    func now() -> Timestamp { system.now() }
    func monotonicNanoseconds() -> UInt64 { system.monotonicNanoseconds() + skipped.withLock { $0 } }

    func sleep(nanoseconds: UInt64) {
        do {
            try pump.run()
        } catch {
            print("could not push WAL: \(error)")
        }
        // The server's archiver is another process, and needs a moment of its own.
        system.sleep(nanoseconds: min(nanoseconds, 5_000_000))
        skipped.withLock { $0 += nanoseconds }
    }
}

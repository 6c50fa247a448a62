// A real server whose archived WAL is brought into a repository by the test itself, and restoring from that repository
// by nothing but the manifest: so these tests rest on neither `archive-push` nor `restore`.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

/// A running server with archiving, and an encrypted repository in memory where it is registered.
final class BackupTestCluster {
    let server: PostgresTestServer
    let store = MemoryStore(time: SystemTimeSource())
    let source: RepositorySource
    let archiveDirectory: String
    let scratch: TemporaryDirectory
    /// The last that brought WAL into `store`.
    private var pump: WALPump?

    init(
        _ installation: PostgresInstallation = .standard, dataChecksums: Bool = true, configuration: [String] = []
    ) throws {
        scratch = try TemporaryDirectory()
        archiveDirectory = scratch("archive")
        try ServerUser.run(["mkdir", archiveDirectory])
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.dataChecksums = dataChecksums
        options.walSegmentMiB = 1
        options.configuration =
            [
                "archive_mode = on", "autovacuum = off",
                // cp makes a file before it fills it.
                "archive_command = 'cd \(archiveDirectory) && cp \"$OLDPWD/%p\" %f.part && mv %f.part %f'",
            ] + configuration
        server = try PostgresTestServer(options)
        try server.start()
        _ = try Directory.create(at: RawPath(scratch("work")))
        let store = store
        let settings = RepositorySettings(
            name: "main", cipher: .aes256GCM, compression: .standard,
            secret: KeyEncryptionSecret.newKeyFile(random: SystemRandomSource()))
        source = RepositorySource(settings: settings, openStore: { store }, createStore: { store })
        try initialise()
    }

    /// The same repository in another store.
    func source(in store: any ObjectStore) -> RepositorySource {
        RepositorySource(settings: source.settings, openStore: { store }, createStore: { store })
    }

    private func initialise() throws {
        let random = SystemRandomSource()
        let identity = RepositoryIdentity(
            id: RandomID(from: random), createdAt: Timestamp(secondsSince1970: 0), createdBy: Version.writer)
        let secret = try #require(source.settings.secret)
        let slot = try KeySlot.wrap(
            DataKey(sequence: 1, random: random), with: secret, repositoryID: identity.id, label: "main",
            createdAt: identity.createdAt, random: random)
        try Repository.putKeySlot(slot, in: store)
        _ = try store.put(
            RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.compactText.utf8)), .createOnly)
        let control = try ControlFile.read(
            dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        let registration = Registration(
            clusterID: RandomID(from: random), name: "main", systemIdentifier: control.systemIdentifier,
            postgresVersion: control.version.major, catalogVersion: control.version.catalogVersion,
            walSegmentSize: UInt64(control.walSegmentSize), blockSize: control.blockSize,
            walBlockSize: control.walBlockSize, relationSegmentBlocks: control.relationSegmentBlocks,
            createdAt: Timestamp(secondsSince1970: 0), createdBy: Version.writer)
        _ = try ClusterRepository.register(registration, in: source.open(for: .write))
    }

    /// Runs SQL from any thread.
    var psql: ThreadSafePsql {
        ThreadSafePsql(
            arguments: [server.installation.program("psql")] + server.connectionArguments + ["-Xq", "postgres", "-c"])
    }

    func cluster(in source: RepositorySource? = nil) throws -> ClusterRepository {
        try (source ?? self.source).openCluster("main", for: .read)
    }

    var options: Backup.Options {
        Backup.Options(
            clusterName: "main", dataDirectory: RawPath(server.dataDirectory), database: server.databaseSettings,
            repository: source, workDirectory: RawPath(scratch("work")), ownDirectories: [], workers: 2,
            archiveTimeout: .seconds(5), readRateBytes: nil, hostName: "test", processID: 1)
    }

    /// Tools whose clock brings WAL into the repository whenever the backup waits.
    func tools(
        files: any FileSource = SystemFileSource(), source: RepositorySource? = nil
    ) throws -> Backup.Tools {
        let pump = WALPump(cluster: try cluster(in: source), directory: RawPath(archiveDirectory), after: pump)
        if source == nil { self.pump = pump }
        return Backup.Tools(time: PumpingTime(pump: pump), interruption: Interruption(), files: files)
    }

    /// Takes a backup.
    func backUp(files: any FileSource = SystemFileSource()) throws -> Backup.Outcome {
        try Backup(options, tools(files: files)).run()
    }

    // MARK: Reading back

    /// Every entry of a committed backup.
    func entries(_ record: CommitRecord, in source: RepositorySource? = nil) throws -> [ManifestEntry] {
        let cluster = try cluster(in: source)
        var reader = ManifestReader(
            try BackupCatalog(cluster).manifest(of: record), reader: PackReader(PackDirectories(cluster)))
        var entries: [ManifestEntry] = []
        while let entry = try reader.next() { entries.append(entry) }
        return entries
    }

    /// The content of one entry, each region checked.
    func content(_ entry: ManifestEntry, _ reader: PackReader) throws -> [UInt8] {
        let content = try #require(entry.content)
        var bytes: [UInt8] = []
        for extent in content.extents {
            switch extent.source {
            case .zeros: bytes += [UInt8](repeating: 0, count: Int(extent.length))
            case .pack(let pack, let frame, let offset):
                try reader.read(pack, frame: frame, offset: offset, length: extent.length) { piece in
                    bytes.append(contentsOf: piece)
                }
            }
        }
        #expect(CopyHarness.regions(of: bytes) == content.regions, "\(entry.path)")
        return bytes
    }

    /// Writes a backup into a new data directory and returns a server for it that recovers to the backup's end, or to
    /// the first record at or after `position`, and is promoted.
    func restore(
        _ record: CommitRecord, to name: String = "restored", in source: RepositorySource? = nil,
        until position: LSN? = nil
    ) throws -> PostgresTestServer {
        let target = scratch(name)
        _ = try Directory.create(at: RawPath(target), mode: 0o700)
        let reader = PackReader(PackDirectories(try cluster(in: source)))
        var map = ""
        for entry in try entries(record, in: source) {
            let path = RawPath(target).appending(RawPath(bytes: entry.path.bytes))
            switch entry.kind {
            case .extraFile: break
            case .directory: _ = try Directory.create(at: path, mode: entry.mode)
            case .symbolicLink:
                let place = scratch("\(name)-\(String(decoding: entry.path.name, as: UTF8.self))")
                _ = try Directory.create(at: RawPath(place), mode: 0o700)
                try FileSystem.createSymbolicLink(at: path, target: RawPath(place))
                map += "\(String(decoding: entry.path.name, as: UTF8.self)) \(place)\n"
            case .file:
                let file = try FileDescriptor.open(path, [.write, .create, .exclusive])
                try file.write(content(entry, reader), at: 0)
                try file.setMode(entry.mode)
            }
        }
        let end =
            position.map { "recovery_target_lsn = '\($0)'\nrecovery_target_inclusive = off" }
            ?? "recovery_target = 'immediate'"
        let settings = """

            restore_command = 'cp \(archiveDirectory)/%f %p'
            \(end)
            recovery_target_action = 'promote'
            archive_mode = off

            """
        let configuration = try FileDescriptor.open(RawPath(target + "/postgresql.conf"), [.read, .write])
        try configuration.write(Array(settings.utf8), at: try configuration.status().sizeBytes)
        for (name, text) in [("recovery.signal", ""), ("tablespace_map", map)]
        where name != "tablespace_map" || map != "" {
            try FileDescriptor.open(RawPath("\(target)/\(name)"), [.write, .create]).write(Array(text.utf8), at: 0)
        }
        if ServerUser.isAnother {
            let outcome = try Subprocess(["chown", "-R", "postgres:postgres", scratch.path]).run()
            #expect(outcome.status.isSuccess)
        }
        return try PostgresTestServer(dataDirectory: target, installation: server.installation)
    }

    /// Removes what `restore` has made under this name, tablespaces included.
    func removeRestored(_ name: String = "restored") throws {
        for entry in try Directory.entries(at: RawPath(scratch.path)) {
            let found = entry.name.description
            guard found == name || found.hasPrefix(name + "-"),
                Int(found.dropFirst(name.count + 1)) != nil || found == name
            else { continue }
            _ = try Subprocess(["rm", "-rf", scratch(found)]).run()
        }
    }
}

/// psql of one server, for hooks that run on a copy's threads.
struct ThreadSafePsql: Sendable {
    let arguments: [String]

    func callAsFunction(_ sql: String) throws(KedgeError) {
        let outcome = try ServerUser.command(arguments + [sql]).run()
        guard outcome.status.isSuccess else { throw KedgeError(.inputOutput, outcome.errorText) }
    }
}

/// Stores archived files that the repository does not hold yet.
final class WALPump: Sendable {
    private let cluster: ClusterRepository
    private let directory: RawPath
    private let done: Mutex<Set<RawPath>>

    /// What `other` has brought is there already: into the same store, or into that which this one is a copy of.
    init(cluster: ClusterRepository, directory: RawPath, after other: WALPump?) {
        self.cluster = cluster
        self.directory = directory
        done = Mutex(other.map { other in other.done.withLock { $0 } } ?? [])
    }

    func run() throws(KedgeError) {
        for entry in try Directory.entries(at: directory) where done.withLock({ !$0.contains(entry.name) }) {
            guard let file = WALFileName(entry.name.description) else { continue }
            let bytes = try FileDescriptor.open(directory.appending(entry.name), .read).readAll(limit: 64 << 20)
            let tag = bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) }
            let facts = WALFileFacts(
                file: file, length: UInt64(bytes.count), tag: tag, archivedAt: Timestamp(secondsSince1970: 0),
                hostName: "test", segment: nil)
            let name = ClusterLayout.walFile(file, of: cluster.newestRegistration.systemIdentifier, tag: nil)
            let sealed = try SealedObject.seal(
                .walFile, name: cluster.scoped(name), contents: bytes,
                facts: Array(facts.jsonValue.compactText.utf8), keyRing: cluster.repository.keyRing,
                random: cluster.repository.random)
            _ = try cluster.repository.store.put(cluster.name(name), ObjectBody(sealed), .createOnly)
            done.withLock { _ = $0.insert(entry.name) }
        }
    }
}

/// The system's clock; who sleeps lets WAL arrive.
struct PumpingTime: TimeSource {
    let pump: WALPump
    private let system = SystemTimeSource()

    init(pump: WALPump) { self.pump = pump }

    func now() -> Timestamp { system.now() }
    func monotonicNanoseconds() -> UInt64 { system.monotonicNanoseconds() }

    func sleep(nanoseconds: UInt64) {
        do {
            try pump.run()
        } catch {
            Issue.record(error)
        }
        // Shorter than asked for: who waits here waits for the server.
        system.sleep(nanoseconds: min(nanoseconds, 5_000_000))
    }
}

// That a backup of a running server is restored without kedge: Catalog/reader.py, written from FORMAT.md alone, writes
// it byte for byte as kedge reads it, and serves the WAL for its recovery; every record fits its schema.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct IndependentReaderTests {
    @Test("the independent reader restores a delta backup taken under load, and serves its recovery")
    func restore() throws {
        let cluster = try BackupTestCluster()
        let record = try Self.backUpUnderLoad(cluster)
        let reader = try ReaderScript(cluster)
        let checked = try reader.run(program: "testing/check_repository.py", [])
        #expect(checked.contains(" wal"), "\(checked)")
        #expect(try reader.run(["list"]).contains("backup \(record.label), timeline 1, "))

        let target = cluster.scratch("independent")
        let space = cluster.scratch("independent space")
        let oid = try #require(record.tablespaces.first).oid
        _ = try reader.run(["restore", record.label.text, "--target", target, "--tablespace", "\(oid)=\(space)"])
        try Self.compare(cluster, record, target)
        try Self.recover(cluster, record, target, restoreCommand: reader.commandLine(["wal", "%f", "%p"]))
    }

    private static func backUpUnderLoad(_ cluster: BackupTestCluster) throws -> CommitRecord {
        let server = cluster.server
        let place = cluster.scratch("space one")
        try ServerUser.run(["mkdir", place])
        try server.psql("create tablespace one location '\(place)'")
        try server.tool("pgbench", server.connectionArguments + ["-i", "-s", "3", "-q", "postgres"])
        try server.psql("alter table pgbench_tellers set tablespace one")
        _ = try cluster.backUp(.full)
        let load = try ServerUser.command(
            [server.installation.program("pgbench")] + server.connectionArguments
                + ["-c", "2", "-T", "300", "-n", "postgres"]
        ).start(output: .file("/dev/null"), errors: .file("/dev/null"))
        try server.wait(until: "select count(*) > 100 from pgbench_history")
        let record = try cluster.delta()
        load.kill(SIGTERM)
        return record
    }

    /// Every entry of the manifest as kedge reads it against what the reader wrote, and nothing else was written.
    private static func compare(_ cluster: BackupTestCluster, _ record: CommitRecord, _ target: String) throws {
        let packs = PackReader(PackDirectories(try cluster.cluster()))
        var expected: Set<String> = ["tablespace_map"]
        for entry in try cluster.entries(record) {
            if case .extraFile = entry.kind { continue }
            expected.insert(entry.path.description)
            let path = RawPath(target).appending(RawPath(bytes: entry.path.bytes))
            let status = try FileStatus(at: path)
            #expect(status.modifiedNanoseconds == entry.modificationTime, "\(entry.path)")
            if case .symbolicLink = entry.kind { continue }
            #expect(status.mode & 0o7777 == entry.mode, "\(entry.path)")
            guard entry.content != nil else { continue }
            let written = try FileDescriptor.open(path, .read).readAll(limit: 1 << 30)
            #expect(try written == cluster.content(entry, packs), "\(entry.path)")
        }
        let found = try ServerUser.run(["find", "-L", target, "-mindepth", "1", "-printf", "%P\\n"])
        #expect(Set(found.split(separator: "\n").map(String.init)) == expected)
    }

    /// Recovers to the end of the archived WAL and compares the rows with those of a server that never stopped.
    private static func recover(
        _ cluster: BackupTestCluster, _ record: CommitRecord, _ target: String, restoreCommand: String
    ) throws {
        let settings = """

            restore_command = '\(restoreCommand)'
            recovery_target = 'immediate'
            recovery_target_action = 'promote'
            archive_mode = off

            """
        try ServerUser.run([
            "sh", "-c", "printf '%s' \"$1\" >> \"$0/postgresql.conf\" && touch \"$0/recovery.signal\"", target,
            settings,
        ])
        let restored = try PostgresTestServer(dataDirectory: target, installation: cluster.server.installation)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        // pgbench's own invariant: each transaction adds the same delta in four places.
        let sums =
            "select sum(abalance) from pgbench_accounts union all select sum(tbalance) from pgbench_tellers "
            + "union all select sum(bbalance) from pgbench_branches union all select sum(delta) from pgbench_history"
        #expect(try restored.value("select count(distinct sum) from (\(sums)) s") == "1")
        #expect(try restored.value("select count(*) > 100 from pgbench_history") == "t")
        try restored.stop()
    }
}

/// Catalog/reader.py over a copy of a test's repository in a directory, run by the user that runs servers.
private struct ReaderScript {
    private let catalog: String
    private let arguments: [String]

    init(_ cluster: BackupTestCluster) throws {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()
        let directory = cluster.scratch("repository")
        let keyFile = cluster.scratch("main.key")
        catalog = cluster.scratch("Catalog")
        arguments = ["--repository", directory, "--cluster", "main", "--key-file", keyFile]
        try LocalStore.createRoot(at: directory)
        let copy = try LocalStore(at: directory, marker: nil, random: SystemRandomSource())
        try cluster.store.forEachObject(below: nil) { (entry) throws(KedgeError) in
            _ = try copy.put(entry.name, ObjectBody(cluster.store.readAll(entry.name, limit: 1 << 30)), .createOnly)
        }
        let key = try FileDescriptor.open(RawPath(keyFile), [.write, .create, .exclusive])
        try key.write(#require(cluster.source.settings.secret?.keyFileText), at: 0)
        let outcome = try Subprocess(["cp", "-r", root + "/Catalog", catalog]).run()
        try #require(outcome.status.isSuccess, "\(outcome.errorText)")
        guard ServerUser.isAnother else { return }
        let owned = try Subprocess(["chown", "-R", "postgres:postgres", directory, keyFile, catalog]).run()
        try #require(owned.status.isSuccess, "\(owned.errorText)")
    }

    /// Runs the reader, or another program of Catalog, and returns what it printed. Any error fails the test.
    func run(program: String = "reader.py", _ command: [String]) throws -> String {
        try ServerUser.run(line(program, command))
    }

    /// The reader's command line for a configuration file; nothing in it needs quotes.
    func commandLine(_ command: [String]) -> String { line("reader.py", command).joined(separator: " ") }

    // Debian's own Python: another one in PATH would not have the packages.
    private func line(_ program: String, _ command: [String]) -> [String] {
        ["/usr/bin/python3", "\(catalog)/\(program)"] + arguments + command
    }
}

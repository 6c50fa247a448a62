// That SIGKILL at any moment of the real binary, under load, costs nothing that was acknowledged: segments are there
// and byte-identical, every backup that shows restores, and what the killed left behind is in nobody's way.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct KillTests {
    @Test("100 kills of push, get and backup under load lose no acknowledged segment and no acknowledged backup")
    func kills() throws {
        let wanted = PostgresInstallation.soakIsEnabled ? 1000 : 100
        // The last archive_command counts: the test stands in for the archiver, and the server's own only fails.
        let cluster = try ProtectedCluster(configuration: ["archive_command = '/bin/false'", "max_wal_size = 64MB"])
        try cluster.server.tool("pgbench", cluster.server.connectionArguments + ["-i", "-q", "-s", "2", "postgres"])
        let load = try ServerUser.command(
            [cluster.server.installation.program("pgbench")] + cluster.server.connectionArguments
                + ["-n", "-c", "2", "-T", "3600", "-R", "400", "postgres"]
        ).start(output: .discarded, errors: .discarded)
        let archiver = KillingArchiver(cluster, seed: testSeed())
        try archiver.calibrate()
        let deadline = ContinuousClock.now + .seconds(PostgresInstallation.soakIsEnabled ? 3600 : 240)
        var isEnough: Bool { archiver.killCount >= wanted && archiver.kills["backup", default: 0] >= wanted / 10 }
        while !isEnough && ContinuousClock.now < deadline { try archiver.step() }
        #expect(isEnough, "\(archiver.kills)")

        // A rerun of everything succeeds.
        try archiver.backUp()
        load.kill(SIGKILL)
        while try archiver.push(mayKill: false) {}
        for name in archiver.acknowledged.keys.sorted() { try archiver.get(name, mayKill: false) }

        let leftovers = try ServerUser.run(["find", cluster.repository, "-name", ".kedge~*"]).split(separator: "\n")
        let restored = try checkBackups(cluster, archiver)
        let kills = archiver.kills.sorted { $0.key < $1.key }.map { "\($0.value) of \($0.key)" }
        print(
            """
            kills: \(kills.joined(separator: ", ")), seed \(testSeed()); \(archiver.acknowledged.count) files and \
            \(archiver.backups.count) backups acknowledged; \
            \(leftovers.count) leftovers; \(restored) backups restored and started
            """)
    }

    /// Restores and starts every backup that the catalogue shows. Returns how many there are.
    private func checkBackups(_ cluster: ProtectedCluster, _ archiver: KillingArchiver) throws -> Int {
        let listing = try BackupCatalog(source(of: cluster).openCluster("main", for: .read)).list()
        #expect(listing.unreadable.isEmpty)
        let shown = listing.backups.map(\.label.text)
        #expect(archiver.backups.isSubset(of: shown))
        for label in shown {
            let copy = cluster.scratch("copy-" + label)
            try cluster.kedge([
                "restore", "--pgdata", copy, "--backup", label, "--target-immediate", "--target-action", "promote",
            ])
            let server = try PostgresTestServer(dataDirectory: copy)
            try server.start()
            try server.wait(until: "select not pg_is_in_recovery()")
            let isConsistent = try server.value(
                """
                select (select sum(abalance) from pgbench_accounts) = coalesce(sum(delta), 0)
                    and (select sum(bbalance) from pgbench_branches) = coalesce(sum(delta), 0) from pgbench_history
                """)
            #expect(isConsistent == "t", "\(label)")
            try server.stop()
            try ServerUser.run(["rm", "-rf", copy])
        }
        return shown.count
    }

    private func source(of cluster: ProtectedCluster) throws -> RepositorySource {
        let path = cluster.repository
        let key = try FileDescriptor.open(RawPath(cluster.directory("main.key")), .read).readAll(limit: 1024)
        let settings = RepositorySettings(
            name: "main", cipher: .aes256GCM, compression: .standard,
            secret: try KeyEncryptionSecret(parsingKeyFile: key, what: "key file"))
        return RepositorySource(
            settings: settings,
            openStore: { () throws(KedgeError) in try LocalStore(at: path, random: SystemRandomSource()) },
            createStore: { () throws(KedgeError) in try LocalStore(at: path, random: SystemRandomSource()) })
    }
}

/// Does what PostgreSQL's archiver does with the files in archive_status, and meanwhile gets segments and takes
/// backups; kills most of the processes that it starts for that.
private final class KillingArchiver {
    /// What was acknowledged, and its content at that moment.
    private(set) var acknowledged: [String: ContentHash] = [:]
    /// Labels of backups that were acknowledged.
    private(set) var backups: Set<String> = []
    /// How many processes were killed, by command.
    private(set) var kills: [String: Int] = [:]
    var killCount: Int { kills.values.reduce(0, +) }

    private let cluster: ProtectedCluster
    private let random: SeededRandom
    /// How long the commands take when nobody kills them.
    private var times: [String: Duration] = [:]
    private var backup: RunningBackup?
    private var backupNumber = 0

    private final class RunningBackup {
        var process: RunningProcess
        let output: String
        let begin = ContinuousClock.now
        let killAfter: Duration?

        init(_ process: consuming RunningProcess, output: String, killAfter: Duration?) {
            self.process = process
            self.output = output
            self.killAfter = killAfter
        }
    }

    init(_ cluster: ProtectedCluster, seed: UInt64) {
        self.cluster = cluster
        random = SeededRandom(seed: seed)
    }

    /// Measures the commands, so that kills fall anywhere within their run.
    func calibrate() throws {
        while try !push(mayKill: false) { try cluster.server.psql("select pg_switch_wal()") }
        try get(try #require(acknowledged.keys.min()), mayKill: false)
        try backUp()
    }

    /// Does one thing, most likely with a kill in it.
    func step() throws {
        if backup == nil { try startBackup(mayKill: random.next(below: 8) > 0) }
        try lookAfterBackup()
        if random.next(below: 4) > 0, try push(mayKill: random.next(below: 4) > 0) { return }
        let names = acknowledged.keys.sorted()
        try get(names[random.next(below: names.count)], mayKill: true)
    }

    // MARK: Archiving

    /// Pushes the oldest file that is ready. False if none is.
    func push(mayKill: Bool) throws -> Bool {
        let status = cluster.server.dataDirectory + "/pg_wal/archive_status/"
        let ready = try Directory.entries(at: RawPath(status)).map(\.name.description).filter { $0.hasSuffix(".ready") }
        guard let name = ready.first.map({ String($0.dropLast(6)) }) else { return false }
        let content = ContentHash(of: try read(cluster.server.dataDirectory + "/pg_wal/" + name))
        guard try run("archive-push", ["pg_wal/" + name], mayKill: mayKill) else { return true }
        acknowledged[name] = content
        // As pgarch.c, pgarch_archiveDone.
        #expect(rename(status + name + ".ready", status + name + ".done") == 0)
        return true
    }

    /// Gets a file; what is at the destination afterwards is the file or nothing.
    func get(_ name: String, mayKill: Bool) throws {
        let destination = cluster.scratch("fetched")
        try ServerUser.run(["rm", "-f", destination])
        let isDone = try run("archive-get", [name, destination], mayKill: mayKill)
        if access(destination, F_OK) == 0 {
            #expect(ContentHash(of: try read(destination)) == acknowledged[name], "\(name)")
        } else {
            #expect(!isDone, "\(name)")
        }
    }

    private func read(_ path: String) throws -> [UInt8] {
        try FileDescriptor.open(RawPath(path), .read).readAll(limit: 64 << 20)
    }

    /// Runs a command. False if it was killed; any other end than success is a failure of the test.
    private func run(_ name: String, _ arguments: [String], mayKill: Bool) throws -> Bool {
        let errors = cluster.scratch("errors")
        try ServerUser.run(["rm", "-f", errors])
        let begin = ContinuousClock.now
        var process = try KedgeBinary.command(
            ["--config", cluster.configuration, name] + arguments,
            workingDirectory: cluster.server.dataDirectory
        ).start(output: .discarded, errors: .file(errors))
        if let killAfter = mayKill ? moment(in: name) : nil, try process.wait(timeout: killAfter) == nil {
            kill(&process)
        }
        let status = try process.wait(timeout: .seconds(60))
        if status == .signalled(SIGKILL) {
            kills[name, default: 0] += 1
            return false
        }
        #expect(status == .exited(0), "\(name) \(arguments): \(readTextFile(errors) ?? "")")
        if !mayKill { times[name] = ContinuousClock.now - begin }
        return status == .exited(0)
    }

    /// Kills a process, but not before it is kedge.
    private func kill(_ process: inout RunningProcess) {
        while readTextFile("/proc/\(process.id)/comm").map({ $0 != "kedge\n" && !$0.isEmpty }) ?? false {
            sched_yield()
        }
        process.kill(SIGKILL)
    }

    private func moment(in name: String) -> Duration {
        let time = times[name] ?? .milliseconds(30)
        return time * random.next(below: 1000) / 1000
    }

    // MARK: Backups

    /// Takes a backup to its end, archiving what it waits for.
    func backUp() throws {
        try finishBackup()
        let count = backups.count
        try startBackup(mayKill: false)
        try finishBackup()
        #expect(backups.count == count + 1)
    }

    private func finishBackup() throws {
        while backup != nil {
            _ = try push(mayKill: false)
            try lookAfterBackup()
        }
    }

    private func startBackup(mayKill: Bool) throws {
        backupNumber += 1
        let output = cluster.scratch("backup-\(backupNumber)")
        let process = try KedgeBinary.command(
            ["--config", cluster.configuration, "backup", "--json"], workingDirectory: cluster.directory.path
        ).start(output: .file(output), errors: .file(output + ".errors"))
        backup = RunningBackup(process, output: output, killAfter: mayKill ? moment(in: "backup") : nil)
    }

    /// Kills the backup that runs when its time has come, and takes note of its end.
    private func lookAfterBackup() throws {
        guard let running = backup else { return }
        let age = ContinuousClock.now - running.begin
        if let killAfter = running.killAfter, age >= killAfter { kill(&running.process) }
        guard let status = try running.process.wait(timeout: .milliseconds(1)) else { return }
        backup = nil
        if status == .signalled(SIGKILL) {
            kills["backup", default: 0] += 1
            return
        }
        #expect(status == .exited(0), "\(readTextFile(running.output + ".errors") ?? "")")
        guard status.isSuccess, let text = readTextFile(running.output) else { return }
        backups.insert(try JSONRecord(parsing: text.utf8, what: "backup").string("label"))
        if running.killAfter == nil { times["backup"] = age }
    }
}

// That a real archiver drains a backlog through few long runs and many quick ones, and that what the quick ones say is
// true: after the spool is gone, after kills, and for the server that the copy is restored to.
import Glibc
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct SpoolEndToEndTests {
    /// A server whose archiver fails until it is let go, with a backlog of segments.
    private func backlog(_ count: Int) throws -> (cluster: ProtectedCluster, names: [String]) {
        let cluster = try ProtectedCluster(configuration: ["archive_command = '/bin/false'"])
        try cluster.server.psql("create table t (n int)")
        for number in 0..<count {
            try cluster.server.psql("insert into t values (\(number)); select pg_switch_wal()")
        }
        return (cluster, try ready(cluster))
    }

    private func ready(_ cluster: ProtectedCluster) throws -> [String] {
        try Directory.entries(at: RawPath(cluster.server.dataDirectory + "/pg_wal/archive_status"))
            .compactMap(\.name.text).filter { $0.hasSuffix(".ready") }.map { String($0.dropLast(6)) }
    }

    private func push(_ cluster: ProtectedCluster, _ name: String) throws -> JSONRecord {
        let outcome = try KedgeBinary.run(
            ["--config", cluster.configuration, "archive-push", "pg_wal/" + name, "--json"],
            workingDirectory: cluster.server.dataDirectory)
        #expect(outcome.status == .exited(0), "\(outcome.outputText)")
        return try JSONRecord(parsing: outcome.output, what: "archive-push")
    }

    @Test("the archiver drains a backlog, a copy recovers from it, and the copy's own WAL is never acknowledged by it")
    func drain() throws {
        let (cluster, names) = try backlog(12)
        let first = try push(cluster, names[0])
        #expect(try first.integer("storedAhead") == names.count - 1)
        for name in names.dropFirst() { #expect(try push(cluster, name).bool("fromSpool")) }

        // The server's own archiver asks for them all again, and for more.
        let command = "\(try KedgeBinary.path()) --config \(cluster.configuration) archive-push %p"
        try cluster.server.appendConfiguration(["archive_command = '\(command)'"])
        try cluster.server.psql("select pg_reload_conf()")
        try cluster.kedge(["backup"])
        try cluster.server.psql("insert into t values (1000)")
        try cluster.archiveEverything()
        #expect(try ready(cluster).isEmpty)
        let copy = cluster.scratch("copy")
        try cluster.kedge(["restore", "--pgdata", copy, "--archiving", "off"])
        let server = try PostgresTestServer(dataDirectory: copy)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) + max(n) from t") == "1013")
    }

    @Test("a single push leaves the spool small, and init empties it")
    func small() throws {
        let (cluster, names) = try backlog(3)
        _ = try push(cluster, names[0])
        let notes = cluster.directory("work/spool/main/durable")
        #expect(access(notes, F_OK) == 0)
        try cluster.kedge(["init"])
        #expect(access(notes, F_OK) != 0)
        #expect(try !push(cluster, names[0]).bool("fromSpool"))
    }

    @Test("kills around the spool: what any call acknowledges is there, byte for byte")
    func kills() throws {
        let wanted = PostgresInstallation.soakIsEnabled ? 1000 : 40
        let (cluster, names) = try backlog(PostgresInstallation.soakIsEnabled ? 60 : 20)
        let random = SeededRandom(seed: testSeed())
        var (kills, acknowledged, fromSpool) = (0, 0, 0)
        while kills < wanted {
            // Now and then everything begins anew, as with a new prefix, so that there is something to store.
            if random.next(below: names.count) == 0 {
                try ServerUser.run(["rm", "-rf", cluster.repository + "/main/wal", cluster.directory("work/spool")])
            } else if random.next(below: 30) == 0 {
                // The repository loses what the spool has notes of.
                try ServerUser.run(["rm", "-rf", cluster.repository + "/main/wal"])
            }
            let name = names[random.next(below: names.count)]
            let output = cluster.scratch("output")
            try ServerUser.run(["rm", "-f", output])
            var process = try KedgeBinary.command(
                ["--config", cluster.configuration, "archive-push", "pg_wal/" + name, "--json"],
                workingDirectory: cluster.server.dataDirectory
            ).start(output: .file(output), errors: .discarded)
            if random.next(below: 3) > 0,
                try process.wait(timeout: .microseconds(random.next(below: 40_000))) == nil
            {
                process.kill(SIGKILL)
            }
            let status = try process.wait(timeout: .seconds(60))
            if status == .signalled(SIGKILL) {
                kills += 1
                continue
            }
            #expect(status == .exited(0))
            acknowledged += 1
            if readTextFile(output)?.contains("\"fromSpool\": true") == true { fromSpool += 1 }
            let fetched = cluster.scratch("fetched")
            try cluster.kedge(["archive-get", name, fetched])
            let local = cluster.server.dataDirectory + "/pg_wal/" + name
            #expect(try content(fetched) == content(local), "\(name) was acknowledged")
        }
        #expect(acknowledged > 0 && fromSpool > 0)
        print("\(kills) kills, \(acknowledged) acknowledged, \(fromSpool) of them from the spool, seed \(testSeed())")
    }

    @Test("a recovering server replays what was fetched ahead, whoever fetches is killed, and nothing stays behind")
    func recovery() throws {
        let cluster = try ProtectedCluster()
        try cluster.server.psql("create table t (n int)")
        try cluster.kedge(["backup"])
        let rows = PostgresInstallation.soakIsEnabled ? 300 : 25
        for number in 0..<rows { try cluster.server.psql("insert into t values (\(number)); select pg_switch_wal()") }
        try cluster.archiveEverything()
        let random = SeededRandom(seed: testSeed())
        var (kills, fromSpool) = (0, 0)
        for round in 0..<(PostgresInstallation.soakIsEnabled ? 40 : 2) {
            let copy = cluster.scratch("copy")
            try cluster.kedge(["restore", "--pgdata", copy, "--archiving", "off"])
            let server = try PostgresTestServer(dataDirectory: copy)
            server.startArguments = [
                "-c",
                "restore_command=\(try KedgeBinary.path()) --config \(cluster.configuration) --log-level info "
                    + "archive-get %f \"%p\"",
            ]
            try server.startWithoutWaiting()
            func log() -> String { readTextFile(server.directory("log")) ?? "" }
            let deadline = ContinuousClock.now + .seconds(120)
            while !log().contains("database system is ready to accept connections"), ContinuousClock.now < deadline {
                // Not too often: some of them have to get something done.
                poll(nil, 0, Int32(random.next(below: 60)))
                if round > 0 { for process in try fetchers(in: copy) where kill(process, SIGKILL) == 0 { kills += 1 } }
            }
            try server.wait(until: "select not pg_is_in_recovery()")
            #expect(try server.value("select count(*) from t") == "\(rows)")
            fromSpool += log().split(separator: "\n").filter { $0.contains("from the spool") }.count
            try server.stop()
            for _ in 0..<1000 where try !fetchers(in: copy).isEmpty { poll(nil, 0, 10) }
            #expect(try fetchers(in: copy).isEmpty)
            if round == 0 {
                #expect(fromSpool > 0)
                let left = try Directory.entries(at: RawPath(cluster.directory("work/spool/main/fetched")))
                #expect(left.isEmpty, "\(left)")
            }
            try ServerUser.run(["rm", "-rf", copy])
        }
        print("\(kills) kills of what fetches ahead, \(fromSpool) segments from the spool, seed \(testSeed())")
    }

    /// The processes that fetch ahead for the server in a data directory.
    private func fetchers(in directory: String) throws -> [pid_t] {
        try ProcessTable.entries().filter { process in
            process.workingDirectory == RawPath(directory)
                && readTextFile("/proc/\(process.id)/cmdline")?.contains("archive-prefetch") == true
        }.map(\.id)
    }

    private func content(_ path: String) throws -> ContentHash {
        ContentHash(of: try FileDescriptor.open(RawPath(path), .read).readAll(limit: 64 << 20))
    }
}

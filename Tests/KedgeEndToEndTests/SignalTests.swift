// That SIGTERM and SIGINT at any moment end every command soon, with the status that its caller expects, and leave
// nothing: no temporary file, no intent, no backup on the server's side, no part of a file, no child.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct SignalTests {
    @Test("a signal at any moment ends each command in its way, and leaves nothing behind")
    func anyMoment() throws {
        let random = SeededRandom(seed: testSeed())
        let scene = try Scene(random)
        let rounds = PostgresInstallation.soakIsEnabled ? 200 : 14
        for round in 0..<rounds {
            try scene.interrupt(
                Scene.kinds[round % Scene.kinds.count], by: random.next(below: 2) == 0 ? SIGTERM : SIGINT)
        }
        // What was interrupted is done by running it again.
        try scene.finish()
        print(
            "signals: \(scene.counts.sorted { $0.key < $1.key }), slowest end \(scene.slowest), seed \(testSeed())")
        #expect(scene.interrupted > 0)
    }

    /// A loaded cluster and the commands that are interrupted.
    private final class Scene {
        static let kinds = ["archive-push", "backup", "archive-get", "restore", "check", "init", "key add"]

        let cluster: ProtectedCluster
        private let archived: String
        private let random: SeededRandom
        private let load: Load
        private var times: [String: Duration] = [:]
        private(set) var counts: [String: Int] = [:]
        private(set) var slowest = Duration.zero
        private(set) var interrupted = 0
        private var number = 0
        /// What interrupted backups left.
        private var keptIntents = ""

        private final class Load {
            let process: RunningProcess
            init(_ process: consuming RunningProcess) { self.process = process }
            deinit { process.kill(SIGKILL) }
        }

        init(_ random: SeededRandom) throws {
            self.random = random
            cluster = try ProtectedCluster(configuration: ["max_wal_size = 64MB"])
            let connection = cluster.server.connectionArguments
            try cluster.server.tool("pgbench", connection + ["-i", "-q", "-s", "2", "postgres"])
            load = Load(
                try ServerUser.command(
                    [cluster.server.installation.program("pgbench")] + connection
                        + ["-n", "-c", "2", "-T", "3600", "-R", "200", "postgres"]
                ).start(output: .discarded, errors: .discarded))
            try cluster.kedge(["backup"])
            archived = try cluster.archivedSegment()
            for kind in Scene.kinds { times[kind] = try run(kind, signal: nil) }
        }

        /// Runs a command and sends it `signal` somewhere within the time that it took alone.
        func interrupt(_ kind: String, by signal: Int32) throws { _ = try run(kind, signal: signal) }

        /// Every command once more, to its end.
        func finish() throws {
            for kind in Scene.kinds { _ = try run(kind, signal: nil) }
        }

        private func words(_ kind: String) throws -> [String] {
            number += 1
            let directory = cluster.scratch("round-\(number)")
            try ServerUser.run(["mkdir", directory])
            switch kind {
            case "archive-push":
                // What is archived already is pushed again; a new name would be the archiver's to push.
                return [kind, "pg_wal/" + archived]
            case "archive-get": return [kind, archived, directory + "/RECOVERYXLOG"]
            case "restore": return [kind, "--pgdata", directory + "/data", "--target-immediate"]
            case "init":
                return [
                    kind, "--path", directory + "/repository", "--generate-key", directory + "/other.key",
                    "--key-file", directory + "/other.key",
                ]
            case "key add": return ["key", "add", "--generate-key", directory + "/more.key"]
            default: return [kind]
            }
        }

        private func run(_ kind: String, signal: Int32?) throws -> Duration {
            let words = try words(kind)
            let (output, errors) = (cluster.scratch("output"), cluster.scratch("errors"))
            try ServerUser.run(["rm", "-f", output, errors])
            let begin = ContinuousClock.now
            var process = try KedgeBinary.command(
                ["--config", cluster.configuration] + words, workingDirectory: cluster.server.dataDirectory
            ).start(output: .file(output), errors: .file(errors))
            let said = { (readTextFile(output) ?? "") + (readTextFile(errors) ?? "") }
            guard let signal else {
                let status = try process.wait(timeout: .seconds(120))
                #expect(status == .exited(0), "\(words): \(said())")
                try look(kind)
                return ContinuousClock.now - begin
            }
            let time = times[kind] ?? .milliseconds(50)
            var status = try process.wait(timeout: time * random.next(below: 1000) / 1000)
            let sent = ContinuousClock.now
            if status == nil {
                // Not before it is kedge, and has made signals its own.
                while readTextFile("/proc/\(process.id)/comm").map({ $0 != "kedge\n" && !$0.isEmpty }) ?? false {
                    sched_yield()
                }
                process.kill(signal)
                status = try process.wait(timeout: .seconds(60))
                slowest = max(slowest, ContinuousClock.now - sent)
            }
            let allowed = allowedStatuses(kind, signal)
            let end = try #require(status, "\(words) did not end after signal \(signal)")
            #expect(allowed.contains(end), "\(words), signal \(signal): \(end): \(said())")
            counts["\(kind) \(end)", default: 0] += 1
            if end != .exited(0) { interrupted += 1 }
            try look(kind)
            return ContinuousClock.now - begin
        }

        /// It may have been quicker than the signal; and before it looks at signals, it dies of them.
        private func allowedStatuses(_ kind: String, _ signal: Int32) -> Set<Subprocess.Status> {
            switch kind {
            case "archive-push": [.exited(0), .exited(1), .signalled(signal)]
            case "archive-get": [.exited(0), .signalled(signal)]
            default: [.exited(0), .exited(130), .signalled(signal)]
            }
        }

        /// Nothing of the command is left.
        private func look(_ kind: String) throws {
            let place = cluster.scratch("round-\(number)")
            // In the spool the archiver's pushes and archive-prefetch, which outlives archive-get, are at work.
            let temporary = try ServerUser.run([
                "find", place, cluster.directory("work"), cluster.repository + "/key", "-name", ".kedge~*", "-not",
                "-path", "*/spool/*",
            ])
            #expect(temporary == "", "\(kind)")
            // The archiver pushes meanwhile: what it writes at the moment is its own.
            let packs = try ServerUser.run(["find", cluster.repository + "/main/pack", "-name", ".kedge~*"])
            #expect(packs == "", "\(kind)")
            // A backup that had stored packs leaves its intent with them, for the next one.
            let intents = try ServerUser.run(["find", cluster.repository + "/main/catalog", "-path", "*/intent/*"])
            #expect(intents == keptIntents || kind.hasPrefix("backup"), "\(kind)")
            keptIntents = intents
            try cluster.server.wait(until: "select count(*) = 0 from pg_stat_activity where application_name = 'kedge'")
            switch kind {
            case "archive-get":
                let size =
                    try FileSystem.exists(RawPath(place + "/RECOVERYXLOG"))
                    ? FileStatus(at: RawPath(place + "/RECOVERYXLOG")).sizeBytes : nil
                #expect(size == nil || size == 1 << 20)
            case "init":
                // Half of an init is finished by the next one.
                guard access(place + "/other.key", F_OK) == 0 else { break }
                try cluster.kedge([
                    "init", "--path", place + "/repository", "--generate-key", place + "/other.key", "--key-file",
                    place + "/other.key",
                ])
            case "key add": try cluster.kedge(["key", "list"])
            default: break
            }
            try ServerUser.run(["rm", "-rf", place])
        }
    }

    @Test("a passphrase command is ended together with the command that waits for it")
    func passphraseCommand() throws {
        let cluster = try ProtectedCluster()
        let note = cluster.scratch("note")
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            try ServerUser.run(["rm", "-f", note])
            var process = try KedgeBinary.command(
                [
                    "--config", cluster.configuration, "key", "add", "--add-passphrase-command",
                    "echo $$ > \(note); exec sleep 1000",
                ], workingDirectory: cluster.directory.path
            ).start(output: .discarded, errors: .discarded)
            var child = ""
            while child.isEmpty {
                let early = try process.wait(timeout: .milliseconds(10))
                #expect(early == nil)
                if early != nil { return }
                child = (readTextFile(note) ?? "").filter(\.isNumber)
            }
            process.kill(signal)
            #expect(try process.wait(timeout: .seconds(30)) == .exited(130))
            #expect(readTextFile("/proc/\(child)/cmdline")?.contains("sleep") != true)
        }
    }

    @Test("a server that does not answer when we connect keeps no command from ending")
    func silentServer() throws {
        let cluster = try ProtectedCluster()
        // It listens, and never takes a connection.
        let place = cluster.scratch("s")
        try ServerUser.run(["mkdir", place])
        var listener = try ServerUser.command([
            "/usr/bin/python3", "-c",
            """
            import socket, time
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("\(place)/.s.PGSQL.5432")
            listener.listen(8)
            open("\(place)/ready", "w").close()
            time.sleep(600)
            """,
        ]).start(output: .discarded, errors: .discarded)
        while access(place + "/ready", F_OK) != 0 {
            if try listener.wait(timeout: .milliseconds(10)) != nil { throw KedgeError(.defect, "no listener") }
        }
        // The listener's own, and then one for each connection that it never took.
        var earlier = 1
        for words in [["backup"], ["check"]] {
            var process = try KedgeBinary.command(
                ["--config", cluster.configuration] + words + ["--host", place],
                workingDirectory: cluster.directory.path
            ).start(output: .discarded, errors: .discarded)
            // The connection is there when the kernel has queued it: its end of the server's carries the path.
            var isConnected = false
            while !isConnected, try process.wait(timeout: .milliseconds(10)) == nil {
                let sockets = (readTextFile("/proc/net/unix") ?? "").split(separator: "\n")
                isConnected = sockets.filter { $0.hasSuffix(place + "/.s.PGSQL.5432") }.count > earlier
            }
            earlier += 1
            #expect(isConnected, "\(words)")
            process.kill(SIGTERM)
            // Well before connect_timeout (30 s) and before the end by force (10 s).
            #expect(try process.wait(timeout: .seconds(9)) == .exited(130), "\(words)")
        }
        listener.kill(SIGKILL)
    }

    @Test(
        "a mount that does not answer keeps no command from ending, and each ends with its own status",
        .enabled(if: StalledFileSystem.isAvailable, "needs root and /dev/fuse"))
    func stalledRepository() throws {
        let cluster = try ProtectedCluster()
        try cluster.kedge(["backup"])
        let name = try cluster.archivedSegment()
        let stalled = try StalledFileSystem(at: cluster.repository)
        let commands: [(words: [String], end: Subprocess.Status)] = [
            (["archive-push", "pg_wal/" + name], .exited(1)),
            (["archive-get", name, cluster.scratch("got")], .signalled(SIGTERM)), (["info"], .exited(130)),
            (["backup"], .exited(130)), (["check"], .exited(130)), (["init"], .exited(130)),
            (["restore", "--pgdata", cluster.scratch("copy")], .exited(130)), (["key", "list"], .exited(130)),
        ]
        var running: [Hanging] = []
        for (index, command) in commands.enumerated() {
            let errors = cluster.scratch("errors-\(index)")
            running.append(
                Hanging(
                    try KedgeBinary.command(
                        ["--config", cluster.configuration] + command.words,
                        workingDirectory: cluster.server.dataDirectory
                    ).start(output: .discarded, errors: .file(errors)), errors))
        }
        for hanging in running { try hanging.waitUntilStuck() }
        // The first waits for a second signal, the others for the end of their time.
        for hanging in running { hanging.process.kill(SIGTERM) }
        for (hanging, command) in zip(running, commands) {
            #expect(try hanging.process.wait(timeout: .seconds(60)) == command.end, "\(command.words)")
            let said = readTextFile(hanging.errors) ?? ""
            #expect(said.contains("Nothing was cleaned up.") && said.contains("code: interrupted"), "\(said)")
        }
        let impatient = Hanging(
            try KedgeBinary.command(
                ["--config", cluster.configuration, "backup"], workingDirectory: cluster.server.dataDirectory
            ).start(output: .discarded, errors: .discarded), "")
        try impatient.waitUntilStuck()
        impatient.process.kill(SIGINT)
        // Sent again and again: a second one that arrives with the first is the same.
        var end: Subprocess.Status?
        while end == nil {
            end = try impatient.process.wait(timeout: .milliseconds(100))
            impatient.process.kill(SIGINT)
        }
        #expect(end == .exited(130))
        withExtendedLifetime(stalled) {}
    }

    /// A process that hangs in the kernel.
    private final class Hanging {
        var process: RunningProcess
        let errors: String

        init(_ process: consuming RunningProcess, _ errors: String) {
            self.process = process
            self.errors = errors
        }

        /// Waits until one of its threads waits in a way that only SIGKILL ends.
        func waitUntilStuck() throws {
            while try process.wait(timeout: .milliseconds(10)) == nil {
                let stat = readTextFile("/proc/\(process.id)/stat") ?? ""
                if stat.contains("(kedge) D ") { return }
            }
            throw KedgeError(.defect, "the command ended: \(readTextFile(errors) ?? "")")
        }
    }
}

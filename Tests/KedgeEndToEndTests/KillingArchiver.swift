// The one who kills: see KillTests.swift.
import Glibc
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

/// Does what PostgreSQL's archiver does with the files in archive_status, and meanwhile gets segments and takes
/// backups, restores them, and changes the repository's keys; kills most of the processes that it starts for that.
final class KillingArchiver {
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
    /// How many killed restores left something that could not be started.
    private(set) var halfRestores = 0
    /// How many data keys the repository has at least.
    private(set) var dataKeys = 1

    private final class RunningBackup {
        var process: RunningProcess
        let output: String
        let begin = ContinuousClock.now
        let killAfter: Duration?
        /// Whether the secret was replaced while it ran, so that it may have found itself with an old one.
        var mayFail = false

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
        try restore(mayKill: false)
        for command in ["rotate", "rewrap"] { try changeKeys(command, mayKill: false) }
    }

    /// Does one thing, most likely with a kill in it.
    func step() throws {
        if backup == nil { try startBackup(mayKill: random.next(below: 8) > 0) }
        try lookAfterBackup()
        switch random.next(below: 16) {
        case 0: return try restore(mayKill: random.next(below: 8) > 0)
        // Each rotation leaves a data key for ever.
        case 1, 2: return try changeKeys(dataKeys < 40 ? "rotate" : "rewrap", mayKill: true)
        case 3: return try changeKeys("rewrap", mayKill: random.next(below: 8) > 0)
        default: break
        }
        if random.next(below: 4) > 0, try push(mayKill: random.next(below: 4) > 0) { return }
        let names = acknowledged.keys.sorted()
        try get(names[random.next(below: names.count)], mayKill: true)
    }

    // MARK: Archiving

    /// Pushes the oldest file that is ready. False if none is.
    func push(mayKill: Bool) throws -> Bool {
        guard let (name, content) = try oldestReady() else { return false }
        if try run("archive-push", ["pg_wal/" + name], mayKill: mayKill) { try acknowledge(name, content) }
        return true
    }

    private var status: String { cluster.server.dataDirectory + "/pg_wal/archive_status/" }

    private func oldestReady() throws -> (name: String, content: ContentHash)? {
        let ready = try Directory.entries(at: RawPath(status)).map(\.name.description).filter { $0.hasSuffix(".ready") }
        guard let name = ready.first.map({ String($0.dropLast(6)) }) else { return nil }
        return (name, ContentHash(of: try read(cluster.server.dataDirectory + "/pg_wal/" + name)))
    }

    private func acknowledge(_ name: String, _ content: ContentHash) throws {
        acknowledged[name] = content
        // As pgarch.c, pgarch_archiveDone.
        #expect(rename(status + name + ".ready", status + name + ".done") == 0)
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
            ["--config", cluster.configuration] + name.split(separator: " ").map(String.init) + arguments,
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
        // Time without progress is measured by the server's own archiver, which this one stands in for.
        let process = try KedgeBinary.command(
            ["--config", cluster.configuration, "backup", "--json", "--archive-timeout", "600s"],
            workingDirectory: cluster.directory.path
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
        let output = readTextFile(running.output) ?? ""
        let errors = (readTextFile(running.output + ".errors") ?? "") + output
        #expect(status == .exited(0) || running.mayFail && errors.contains("\"key-missing\""), "\(status): \(errors)")
        guard status.isSuccess else { return }
        backups.insert(try JSONRecord(parsing: output.utf8, what: "backup").string("label"))
        if running.killAfter == nil { times["backup"] = age }
    }

    // MARK: Restores

    /// Restores a backup beside the original. Of a killed one, what is left is whole or can't be started.
    func restore(mayKill: Bool) throws {
        let labels = backups.sorted()
        let copy = cluster.scratch("killed-copy")
        let arguments = [
            "--pgdata", copy, "--backup", labels[random.next(below: labels.count)], "--target-immediate",
            "--target-action", "promote",
        ]
        _ = try run("restore", arguments, mayKill: mayKill)
        if access(copy + "/global/pg_control", F_OK) == 0 {
            // pg_control comes last: all the rest is there, and nothing but the WAL is to be fetched.
            let check = [cluster.server.installation.program("pg_verifybackup"), "-n", copy]
            let outcome = try ServerUser.command(check).run()
            #expect(outcome.status.isSuccess, "\(outcome.errorText)")
        } else {
            #expect(mayKill)
            if access(copy, F_OK) == 0 {
                let outcome = try ServerUser.command([cluster.server.installation.program("postgres"), "-D", copy])
                    .run()
                #expect(!outcome.status.isSuccess, "a half-done restore can be started")
                halfRestores += 1
            }
        }
        try ServerUser.run(["rm", "-rf", copy])
    }

    // MARK: Keys

    /// Runs `key rotate` or `key rewrap` beside a push. Whatever becomes of it, a key file that is at hand opens all.
    func changeKeys(_ command: String, mayKill: Bool) throws {
        let (main, new) = (cluster.directory("main.key"), cluster.directory("new.key"))
        let more = command == "rewrap" ? ["--generate-key", new] : []
        if command == "rewrap" { backup?.mayFail = true }
        let ready = try oldestReady()
        let errors = cluster.scratch("push-errors")
        try ServerUser.run(["rm", "-f", errors])
        var bystander = try KedgeBinary.command(
            ["--config", cluster.configuration]
                + (ready.map { ["archive-push", "pg_wal/" + $0.name] } ?? ["key", "list"]),
            workingDirectory: cluster.server.dataDirectory
        ).start(output: .discarded, errors: .file(errors))
        let isDone = try run("key " + command, more, mayKill: mayKill)
        let status = try bystander.wait(timeout: .seconds(60))
        let text = readTextFile(errors) ?? ""
        // Until the new key file is configured, a push may find that the old one opens nothing, and is tried again.
        #expect(status == .exited(0) || command == "rewrap" && text.contains("code: key-"), "\(text)")
        if let ready, status == .exited(0) { try acknowledge(ready.name, ready.content) }

        let usable: [String] = try [main, new].filter { (key: String) in try access(key, F_OK) == 0 && opensAll(key) }
        #expect(!usable.isEmpty, "no key file opens all data keys after key \(command)")
        guard command == "rewrap" else { return }
        #expect(!isDone || usable == [new])
        // With whichever opens: either must be able to finish it.
        if !usable.isEmpty {
            let key = usable[random.next(below: usable.count)]
            try cluster.kedge(["--key-file", key, "key", "rewrap", "--generate-key", new])
        }
        #expect(try opensAll(new) && !opensAll(main))
        #expect(rename(new, main) == 0)
    }

    /// Whether a key file opens every data key of the repository. Learns how many there are.
    private func opensAll(_ key: String) throws -> Bool {
        let outcome = try cluster.attempt(["--key-file", key, "key", "list", "--json"])
        guard outcome.status.isSuccess else {
            #expect(outcome.outputText.contains("\"key-wrong\""), "\(outcome.outputText)")
            return false
        }
        let slots = try JSONRecord(parsing: outcome.output, what: "key list").records("slots")
        dataKeys = try max(dataKeys, Set(slots.map { try $0.string("key") }).count)
        return try slots.allSatisfy { try $0.bool("keyIsOpen") }
    }
}

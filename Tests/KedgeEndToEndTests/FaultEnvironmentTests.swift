// That the surroundings in which a command is started do no harm: limits, closed streams, an odd umask, no home, no
// locale, a working directory that is read-only or gone. It works, or it says what is wrong with the right status.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct FaultEnvironmentTests {
    private final class Scene {
        let cluster: ProtectedCluster
        let archived: String

        init() throws {
            cluster = try ProtectedCluster()
            try cluster.kedge(["backup"])
            archived = try cluster.archivedSegment()
        }

        /// Runs a line of shell as the server's user; `$K` is kedge with its configuration.
        func shell(
            _ line: String, environment: [String: String?] = [:], workingDirectory: String? = nil
        ) throws -> Subprocess.Outcome {
            var command = ServerUser.command(["sh", "-c", line])
            command.environment.merge(environment) { _, new in new }
            for name in ["SERVERS", "SOAK", "POSTGRES", "SEED", "DIRECTORY"] {
                command.environment.updateValue(nil, forKey: "KEDGE_TEST_" + name)
            }
            command.environment.updateValue(nil, forKey: "KEDGE_BINARY")
            command.environment["K"] = "\(try KedgeBinary.path()) --config \(cluster.configuration)"
            command.workingDirectory = workingDirectory ?? cluster.server.dataDirectory
            command.timeout = .seconds(120)
            return try command.run()
        }

        var commands: [String] {
            [
                "$K archive-push pg_wal/\(archived)", "$K archive-get \(archived) \(cluster.scratch("got"))", "$K info",
                "$K backup", "$K restore --pgdata \(cluster.scratch("copy")) --target-immediate",
                "$K check",
            ]
        }

        /// Every command succeeds where `prefix` was done before, without writing elsewhere than it should.
        func expectSuccess(
            _ prefix: String, _ suffix: String = "", environment: [String: String?] = [:],
            workingDirectory: String? = nil, sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            for command in commands {
                try clean()
                var line = "\(prefix) \(command) \(suffix)"
                if workingDirectory != nil || prefix.contains("rmdir") {
                    line = line.replacing("pg_wal/", with: cluster.server.dataDirectory + "/pg_wal/")
                }
                let outcome = try shell(line, environment: environment, workingDirectory: workingDirectory)
                #expect(
                    outcome.status == .exited(0), "\(line): \(outcome.errorText)\(outcome.outputText)",
                    sourceLocation: sourceLocation)
                if command.contains("archive-get") {
                    try ServerUser.run([
                        "cmp", cluster.scratch("got"), cluster.server.dataDirectory + "/pg_wal/" + archived,
                    ])
                }
            }
        }

        func clean() throws { try ServerUser.run(["rm", "-rf", cluster.scratch("got"), cluster.scratch("copy")]) }
    }

    @Test("no HOME, no locale, few descriptors, an odd umask and closed streams change nothing")
    func oddButSufficient() throws {
        let scene = try Scene()
        try scene.expectSuccess("ulimit -n 64;")
        try scene.expectSuccess(
            "umask 0777;",
            environment: ["HOME": nil, "USER": nil, "LOGNAME": nil, "LANG": nil, "LC_ALL": nil, "PATH": nil])
        // Files of ours must not get the numbers of streams that are closed.
        try scene.expectSuccess("", "<&- 2>&-")
        let unsafe = try ServerUser.run(["find", scene.cluster.repository, "-type", "f", "!", "-perm", "0640"])
        #expect(unsafe == "")
    }

    @Test("a working directory that is read-only or gone changes nothing where paths are absolute")
    func workingDirectory() throws {
        let scene = try Scene()
        try scene.expectSuccess("", workingDirectory: "/proc")
        let gone = scene.cluster.scratch("gone")
        try scene.expectSuccess("mkdir \(gone); cd \(gone); rmdir \(gone);", workingDirectory: "/")
    }

    @Test("an output that is closed, full or unread is an error of its own, never a success that nobody saw")
    func output() throws {
        let scene = try Scene()
        let closed = try scene.shell("$K info >&-")
        #expect(closed.status == .exited(1), "\(closed.errorText)")
        #expect(closed.errorText.contains("could not write to standard output"))
        let full = try scene.shell("$K info >/dev/full")
        #expect(full.status == .exited(1) && full.errorText.contains("code: no-space"), "\(full.errorText)")
        // The reader of the pipe has gone: no death by SIGPIPE, which would end the archiver.
        let unread = try scene.shell("(sleep 1; $K archive-push --json pg_wal/\(scene.archived); echo $? >&2) | true")
        #expect(unread.errorText.hasSuffix("1\n"), "\(unread.errorText)")
        // What goes to nobody's standard error is not written into a file of ours.
        let silent = try scene.shell(
            "$K archive-get 00000001000000990000000A \(scene.cluster.scratch("got")) 2>&- >&- <&-")
        #expect(silent.status == .exited(1))
        try scene.expectSuccess("")
    }

    @Test("a limit of file sizes is an error that names it, not death by SIGXFSZ")
    func fileSize() throws {
        let scene = try Scene()
        // 64 blocks of 512 bytes.
        for (command, status) in zip(scene.commands, [0, 126, 0, 1, 1]) where status != 0 {
            try scene.clean()
            let outcome = try scene.shell("ulimit -f 64; " + command)
            #expect(outcome.status == .exited(Int32(status)), "\(command): \(outcome.errorText)")
            #expect(outcome.errorText.contains("(ulimit -f)"), "\(command): \(outcome.errorText)")
        }
        #expect(access(scene.cluster.scratch("got"), F_OK) != 0)
        let leftovers = try ServerUser.run(["find", scene.cluster.directory.path, "-name", ".kedge~*"])
        #expect(leftovers == "")
        try scene.expectSuccess("")
    }

    @Test("too little memory ends archive-push at or below 125, and nothing half done is left")
    func memory() throws {
        let scene = try Scene()
        var ends: Set<String> = []
        for mebibytes in stride(from: 24, through: 224, by: 40) {
            try scene.clean()
            let limit = "ulimit -c 0; ulimit -v \(mebibytes << 10); "
            let push = try scene.shell(limit + "exec $K archive-push pg_wal/\(scene.archived)")
            ends.insert("\(mebibytes) MiB: \(push.status)")
            // Below what the dynamic linker needs there is no kedge yet: then it is 127.
            if case .exited(let status) = push.status {
                #expect(status <= 127, "\(mebibytes) MiB: \(push.errorText)")
            } else {
                Issue.record("\(mebibytes) MiB: \(push.status): \(push.errorText)")
            }
            let get = try scene.shell(limit + "exec $K archive-get \(scene.archived) \(scene.cluster.scratch("got"))")
            // Never taken for absent.
            #expect(get.status != .exited(1), "\(mebibytes) MiB: \(get.errorText)")
            let size =
                try FileSystem.exists(RawPath(scene.cluster.scratch("got")))
                ? FileStatus(at: RawPath(scene.cluster.scratch("got"))).sizeBytes : 0
            #expect(size == 0 || size == 1 << 20)
        }
        print("little memory: \(ends.sorted())")
        try scene.expectSuccess("")
    }
}

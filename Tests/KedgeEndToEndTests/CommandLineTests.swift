// The built binary as a process: streams, exit statuses and death by signal, without a server.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct CommandLineTests {
    /// A configuration whose only repository asks `command` for its passphrase.
    private func configuration(_ command: String, in directory: TemporaryDirectory) throws -> String {
        let text = """
            [repository main]
            path = \(directory("repository"))
            encryption = aes-256-gcm
            passphrase-command = \(command)

            [cluster main]
            pgdata = \(directory("pgdata"))
            """
        let path = directory("kedge.conf")
        let outcome = try DurableFile.write(
            Array(text.utf8), to: RawPath(path), mode: 0o644, random: SystemRandomSource())
        #expect(outcome == .created)
        return path
    }

    @Test("results go to standard output, errors to standard error, and to standard output with --json")
    func streams() throws {
        let help = try KedgeBinary.run(["--help"])
        #expect(help.status == .exited(0))
        #expect(help.outputText.hasPrefix("kedge \(Version.text): backup and point-in-time recovery"))
        #expect(help.errors.isEmpty)
        let wrong = try KedgeBinary.run(["bakcup"])
        #expect(wrong.status == .exited(2))
        #expect(wrong.output.isEmpty)
        #expect(
            wrong.errorText == """
                kedge: error: unknown command "bakcup"
                hint: Did you mean "backup"?  Run "kedge --help" for the list of commands.
                code: usage

                """)
        let json = try KedgeBinary.run(["bakcup", "--json"])
        #expect(json.status == .exited(2))
        #expect(json.errors.isEmpty)
        let error = try JSONRecord(parsing: json.output, what: "output").record("error")
        #expect(try error.string("code") == "usage")
    }

    @Test("a full or closed standard output is an error, not a success")
    func brokenOutput() throws {
        let path = try KedgeBinary.path()
        let full = try ServerUser.command(["/bin/sh", "-c", "\(path) --help > /dev/full"]).run()
        #expect(full.status == .exited(1))
        #expect(
            full.errorText == """
                kedge: error: could not write to standard output
                detail: The system said: No space left on device.
                hint: Check where the output goes.
                code: no-space

                """)
        let closed = try ServerUser.command(["/bin/sh", "-c", "\(path) --help >&-"]).run()
        #expect(closed.status == .exited(1))
        #expect(closed.errorText.hasSuffix("\ncode: input-output\n"))
    }

    @Test("archive commands without a configuration say so, with the statuses that PostgreSQL needs (lesson 29)")
    func noConfiguration() throws {
        let directory = try TemporaryDirectory()
        let config = ["--config", directory("none.conf")]
        let expected = """
            kedge: error: could not read configuration file "\(directory("none.conf"))"
            detail: The system said: No such file or directory (ENOENT).
            hint: Check that this path exists and is spelled right.
            code: configuration

            """
        let get = try KedgeBinary.run(
            ["archive-get", "000000010000000000000001", "x"] + config, workingDirectory: directory.path)
        #expect(get.status == .exited(126))
        #expect(get.errorText == expected)
        let push = try KedgeBinary.run(["archive-push", "x"] + config, workingDirectory: directory.path)
        #expect(push.status == .exited(2))
        #expect(push.errorText == expected)
        let outcome = try DurableFile.write(
            [], to: RawPath(directory("standby.signal")), mode: 0o644, random: SystemRandomSource())
        #expect(outcome == .created)
        let standby = try KedgeBinary.run(
            ["archive-get", "000000010000000000000001", "x"] + config, workingDirectory: directory.path)
        #expect(standby.status == .exited(1))
        #expect(standby.errorText == expected)
    }

    @Test("archive-get dies by SIGTERM and SIGINT, archive-push and others end with a status")
    func signals() throws {
        for (name, signal) in [("TERM", SIGTERM), ("INT", SIGINT)] {
            let directory = try TemporaryDirectory()
            let config = try configuration("kill -\(name) $PPID; sleep 60", in: directory)
            let get = try KedgeBinary.run(["archive-get", "00000002.history", "x", "--config", config])
            #expect(get.status == .signalled(signal))
            let push = try KedgeBinary.run(["archive-push", "x", "--config", config])
            #expect(push.status == .exited(1))
            let initialization = try KedgeBinary.run(["init", "--config", config])
            #expect(initialization.status == .exited(130))
        }
    }

    @Test("a passphrase gets from a command into the repository, and into no output (lesson 46)")
    func secrets() throws {
        let directory = try TemporaryDirectory()
        let config = try configuration("echo hunter2-hunter2", in: directory)
        let words = ["archive-get", "00000002.history", "x", "--config", config, "--log-level", "debug"]
        let outcome = try KedgeBinary.run(words, environment: ["KEDGE_PASSPHRASE_FILE": nil])
        #expect(outcome.status == .exited(126))
        #expect(!outcome.errorText.contains("hunter2"))
        #expect(outcome.errorText.contains("code: repository-unavailable"))
    }
}

// Whole runs: what goes to standard output, what to standard error, and how the process ends.
import KedgeCore
import Testing

@testable import KedgeCommand

/// A command `work` that does `body`.
private func working(
    _ body: @escaping @Sendable (CommandContext) throws(KedgeError) -> CommandResult, name: String = "work"
) -> [Command] {
    [Command(CommandSpecification(name: name, summary: "work"), run: body)]
}

@Suite struct CommandLineToolTests {
    @Test("a result is printed as text, or as one JSON document with --json")
    func result() {
        let commands = working { (_: CommandContext) throws(KedgeError) -> CommandResult in
            CommandResult(lines: ["one", "two\u{1B}"], json: ["n": 1], status: 3)
        }
        let text = ToolRun(["work"], commands: commands)
        #expect(text.output == "one\ntwo\\u{1B}\n")
        #expect(text.ending == .exit(3))
        #expect(text.errors.isEmpty)
        #expect(ToolRun(["work", "--json"], commands: commands).output == "{\n  \"n\": 1\n}\n")
    }

    @Test("an error goes to standard error, with its causes, and to standard output as JSON with --json")
    func error() {
        let commands = working { (_: CommandContext) throws(KedgeError) -> CommandResult in
            throw KedgeError(
                .inputOutput, "could not read file \"x\ny\"", detail: "It is gone.",
                cause: KedgeError(.noSpace, "could not write"))
        }
        let text = ToolRun(["work"], commands: commands)
        #expect(
            text.errors == """
                kedge: error: could not read file "x\\u{A}y"
                detail: It is gone.
                cause: could not write
                code: input-output

                """)
        #expect(text.output.isEmpty)
        #expect(text.ending == .exit(1))
        let json = ToolRun(["--json", "work"], commands: commands)
        #expect(json.errors.isEmpty)
        #expect(
            json.output == """
                {
                  "error": {
                    "code": "input-output",
                    "message": "could not read file \\"x\\ny\\"",
                    "detail": "It is gone.",
                    "hint": null,
                    "retryable": false,
                    "cause": {
                      "code": "no-space",
                      "message": "could not write",
                      "detail": null,
                      "hint": null,
                      "retryable": false,
                      "cause": null
                    }
                  }
                }

                """)
    }

    @Test("an error that cannot be printed as JSON is told on standard error")
    func brokenOutput() {
        let run = ToolRun(["--json", "nonsense"], outputFails: true)
        #expect(run.errors.hasPrefix("kedge: error: unknown command \"nonsense\"\n"))
        #expect(ToolRun(["--version"], outputFails: true).ending == .exit(1))
    }

    @Test("where the result cannot be printed the error says what was done all the same")
    func doneButUntold() {
        let commands = working { (_: CommandContext) throws(KedgeError) -> CommandResult in
            var result = CommandResult(lines: ["x"], json: [:])
            result.done = "Backup a is committed."
            return result
        }
        for words in [["work"], ["work", "--json"]] {
            let run = ToolRun(words, commands: commands, outputFails: true)
            #expect(run.ending == .exit(1))
            #expect(run.errors.contains("hint: Backup a is committed.  Only its report could not be printed."))
        }
    }

    @Test("bad usage and bad configuration end with 2, even with --json")
    func usage() {
        #expect(ToolRun(["nonsense"]).ending == .exit(2))
        let json = ToolRun(["restore", "--json", "--nonsense"])
        #expect(json.output.contains("\"code\": \"usage\""))
        #expect(json.ending == .exit(2))
        let level = ToolRun(["help"], environment: [EnvironmentVariable("KEDGE_LOG_LEVEL", "inf")])
        #expect(level.ending == .exit(2))
        #expect(
            level.errors == """
                kedge: error: cannot use environment variable "KEDGE_LOG_LEVEL": "inf" is not a log level
                hint: Did you mean "info"?  It is one of: error, warn, info, debug.
                code: configuration

                """)
    }

    @Test("log lines follow the command's level, the variable and the option, in rising order")
    func logging() {
        let commands = working { (context: CommandContext) throws(KedgeError) -> CommandResult in
            context.log.warn("w")
            context.log.info("i")
            context.log.debug("d")
            return .silent
        }
        let variable = [EnvironmentVariable("KEDGE_LOG_LEVEL", "error")]
        #expect(ToolRun(["work"], commands: commands).errors == "kedge: warn: w\nkedge: info: i\n")
        #expect(ToolRun(["work"], commands: commands, environment: variable).errors == "")
        #expect(
            ToolRun(["work", "--log-level", "debug"], commands: commands, environment: variable).errors
                == "kedge: warn: w\nkedge: info: i\nkedge: debug: d\n")
    }

    @Test("archive-get that cannot even parse its words says 126, and 1 only to a standby (lesson 29)")
    func archiveGetUsage() {
        let words = ["archive-get", "--nonsense", "a", "b"]
        #expect(ToolRun(words).ending == .exit(126))
        #expect(ToolRun(words, existing: ["recovery.signal"]).ending == .exit(126))
        #expect(ToolRun(words, existing: ["recovery.signal", "standby.signal"]).ending == .exit(1))
        let absent = [EnvironmentVariable("KEDGE_ON_UNAVAILABLE", "absent")]
        #expect(ToolRun(words, environment: absent).ending == .exit(1))
        let commands = working(
            { (context: CommandContext) throws(KedgeError) -> CommandResult in
                _ = try context.loadConfiguration()
                return .silent
            }, name: "archive-get")
        #expect(ToolRun(["archive-get", "--on-unavailable=absent"], commands: commands).ending == .exit(1))
        #expect(
            ToolRun(["archive-get", "--on-unavailable=abort"], commands: commands, existing: ["standby.signal"])
                .ending == .exit(126))
    }

    @Test("an argument that is not UTF-8 is shown unless it may be a part of a secret")
    func notUTF8() {
        for (option, isShown) in [("--pgdata", true), ("--passphrase-command", false)] {
            let run = ToolRun(bytes: [Array("backup".utf8), Array(option.utf8), Array("geheim".utf8) + [0xFF]])
            #expect(run.ending == .exit(2))
            #expect(run.errors.contains("cannot read argument 3") && run.errors.contains("geheim") == isShown)
        }
    }

    @Test("a restore_command with a slip is not taken for \"absent\", whichever command it names")
    func mistypedRestoreCommand() {
        let segment = "000000010000000000000001"
        // %p tells, whatever the working directory is.
        for words in [
            ["archive-gett", segment, "pg_wal/RECOVERYXLOG"], ["--confg", "x", segment, "pg_wal/RECOVERYXLOG"],
            [segment, "pg_wal/RECOVERYXLOG"], ["archive-push", "pg_wal/RECOVERYXLOG"],
            ["archive-push", segment, "/data/pg_wal/RECOVERYXLOG"], ["info", segment, "pg_wal/RECOVERYXLOG"],
            ["archive-gett", "00000002.history", "pg_wal/RECOVERYHISTORY"],
        ] {
            #expect(ToolRun(words).ending == .exit(126), "\(words)")
            #expect(ToolRun(words, existing: ["recovery.signal"]).ending == .exit(126), "\(words)")
        }
        let standby = ["standby.signal", "pg_wal"]
        let words = ["archive-gett", segment, "pg_wal/RECOVERYXLOG"]
        #expect(ToolRun(words, existing: standby).ending == .exit(1))
        #expect(ToolRun(words, environment: [EnvironmentVariable("KEDGE_ON_UNAVAILABLE", "absent")]).ending == .exit(1))
        let history = ["archive-gett", "00000002.history", "pg_wal/RECOVERYHISTORY"]
        #expect(ToolRun(history, existing: standby + ["pg_wal/000000020000000000000009"]).ending == .exit(126))
        // A script may give it another path: then the signal file tells, for what is not understood.
        for words in [["archive-gett", segment, "/tmp/x"], ["--cluster", "c", "--confg", segment, "x"]] {
            #expect(ToolRun(words, existing: ["recovery.signal"]).ending == .exit(126), "\(words)")
            #expect(ToolRun(words, existing: standby).ending == .exit(1), "\(words)")
            #expect(ToolRun(words).ending == .exit(2), "\(words)")
        }
        // The archiver's own slips stay below 126, and so does what was understood.
        for words in [["archive-psh", "pg_wal/" + segment], ["archive-push", "--nonsense", segment], ["inof"]] {
            #expect(ToolRun(words, existing: ["recovery.signal"]).ending == .exit(2), "\(words)")
        }
        #expect(
            ToolRun(["info", "--config", "/missing", "--cluster", segment], existing: ["recovery.signal"]).ending
                == .exit(2))
    }

    @Test("on a standby, archive-get asked for a history file looks into pg_wal")
    func archiveGetHistory() {
        let words = ["archive-get", "00000002.history", "x", "--config", "/missing"]
        let standby = ["standby.signal", "pg_wal"]
        #expect(ToolRun(words, existing: standby).ending == .exit(1))
        #expect(ToolRun(words, existing: standby + ["pg_wal/000000020000000000000009"]).ending == .exit(126))
        #expect(ToolRun(words, existing: standby + ["pg_wal/00000002.history"]).ending == .exit(1))
        #expect(ToolRun(words, existing: ["standby.signal"]).ending == .exit(126))
        #expect(ToolRun(words, existing: ["recovery.signal", "pg_wal"]).ending == .exit(126))
    }

    @Test("archive-get follows on-unavailable of the configuration file", arguments: [("absent", 1), ("abort", 126)])
    func archiveGetConfigured(_ answer: String, _ status: Int32) {
        let file =
            "[repository r]\npath = /none/at/all\nencryption = none\n"
            + "[cluster c]\npgdata = /none\non-unavailable = \(answer)\n"
        let run = ToolRun(
            ["archive-get", "000000010000000000000001", "/tmp/none/x"], files: ["/etc/kedge/kedge.conf": file])
        #expect(run.ending == .exit(status))
        #expect(run.errors.contains("code: repository-unavailable"))
    }

    @Test("archive-get that is interrupted ends by that signal, other commands with 130, archive-push with 1")
    func interrupted() {
        let interruption = Interruption()
        interruption.request(signal: 15)
        func ending(_ name: String) -> Ending {
            let commands = working(
                { (context: CommandContext) throws(KedgeError) -> CommandResult in
                    try context.surroundings.interruption.checkpoint()
                    return .silent
                }, name: name)
            return ToolRun([name], commands: commands, existing: ["standby.signal"], interruption: interruption).ending
        }
        #expect(ending("archive-get") == .die(15))
        #expect(ToolRun(["archive-get", "--nonsense"], interruption: interruption).ending == .die(15))
        #expect(ToolRun(["backup", "--nonsense"], interruption: interruption).ending == .exit(130))
        #expect(ending("archive-push") == .exit(1))
        #expect(ending("backup") == .exit(130))
    }

    @Test("kedge --help is one screen: at most 40 lines of 80 columns")
    func help() {
        let help = ToolRun(["--help"])
        #expect(help.ending == .exit(0))
        #expect(help.output == ToolRun(["help"]).output)
        let lines = help.output.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.count <= 40)
        for command in CommandTable.all {
            #expect(
                help.output.contains("  \(command.specification.name) ") != command.specification.isInternal)
            let own = ToolRun(command.specification.words + ["--help"])
            #expect(own.output.hasPrefix("Usage: kedge \(command.specification.name) "))
            #expect(own.output == ToolRun(["help"] + command.specification.words).output)
            for line in (help.output + own.output).split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
            for option in command.specification.options { #expect(own.output.contains("  \(option.usage)")) }
        }
    }

    @Test("kedge --version names the release and the repository format")
    func version() {
        #expect(ToolRun(["--version"]).output == "kedge 0.1.0 (repository format 0-draft)\n")
    }
}

// The command line's grammar: what is understood, and the whole message for what is not.
import KedgeCore
import Testing

@testable import KedgeCommand

/// Where "key" stands alone.
private let keyCommands =
    "Run \"kedge key list\" or \"kedge key add\" or \"kedge key rotate\" or \"kedge key rewrap\" or "
    + "\"kedge key remove\"."

@Suite struct ArgumentParserTests {
    private let parser = ArgumentParser(
        commands: CommandTable.all.map(\.specification), configurationKeys: ConfigurationKey.all.map(\.name))

    private func run(_ line: String) throws -> (CommandSpecification, ParsedArguments) {
        guard case .run(let command, let arguments) = try parser.parse(line.split(separator: " ").map(String.init))
        else {
            Issue.record("\(line) runs no command")
            return (CommandTable.all[0].specification, ParsedArguments())
        }
        return (command, arguments)
    }

    @Test("global options stand before or after the command, values after a space or =")
    func globalOptions() throws {
        for line in ["--json --cluster=a backup --type full", "backup --type=full --cluster a --json"] {
            let (command, arguments) = try run(line)
            #expect(command.name == "backup")
            #expect(arguments.has("json"))
            #expect(arguments.value("cluster") == "a")
            #expect(arguments.value("type") == "full")
            #expect(arguments.overrides.isEmpty)
        }
    }

    @Test("any configuration key is an option of every command (lesson 52)")
    func overrides() throws {
        let (_, arguments) = try run("--path /r archive-push pg_wal/x --process-max=3 --compression none")
        #expect(arguments.positionals == ["pg_wal/x"])
        #expect(
            arguments.overrides == [
                ConfigurationOverride(key: "path", value: "/r"), ConfigurationOverride(key: "process-max", value: "3"),
                ConfigurationOverride(key: "compression", value: "none"),
            ])
    }

    @Test("a value begins right behind the =, also with a mark that combines with it")
    func combiningMark() throws {
        let (_, arguments) = try run("backup --passphrase-command=\u{301}a --cluster=\u{301}")
        #expect(arguments.overrides == [ConfigurationOverride(key: "passphrase-command", value: "\u{301}a")])
        #expect(arguments.value("cluster") == "\u{301}")
    }

    @Test("restore --pgdata is the directory to restore into, wherever it stands")
    func shadowedKey() throws {
        for line in ["restore --pgdata /d", "--pgdata /d restore"] {
            let (_, arguments) = try run(line)
            #expect(arguments.value("pgdata") == "/d")
            #expect(arguments.overrides.isEmpty)
        }
    }

    @Test("only restore --pgdata and backup --type hide a configuration key")
    func shadowing() {
        let keys = Set(ConfigurationKey.all.map(\.name))
        let hidden = CommandTable.all.flatMap { command in
            command.specification.options.filter { keys.contains($0.name) }
                .map { "\(command.specification.name) --\($0.name)" }
        }
        #expect(hidden == ["backup --type", "restore --pgdata"])
        #expect(GlobalOptions.all.allSatisfy { !keys.contains($0.name) })
        #expect(keys.count == ConfigurationKey.all.count)
    }

    @Test("global options before help are not its topic")
    func helpWithOptions() throws {
        for line in ["--config /x help", "help --config /x", "--config=/x --json help"] {
            #expect(try run(line).0.name == "help", "\(line)")
        }
        for line in ["--config /x help restore", "help --config /x restore", "help restore --config /x"] {
            guard case .help(let command?) = try parser.parse(line.split(separator: " ").map(String.init)) else {
                Issue.record("no help: \(line)")
                continue
            }
            #expect(command.name == "restore")
        }
    }

    @Test("an empty value is refused: as a path it would be the working directory")
    func emptyValues() {
        for words in [
            ["restore", "--pgdata", ""], ["--pgdata=", "restore"], ["--config", "", "info"],
            ["restore", "--waldir="], ["restore", "--extra-files", ""], ["restore", "--target-name", ""],
        ] {
            let text = failure { () throws(KedgeError) in try parser.parse(words) }
            #expect(text.contains("is empty") && text.hasSuffix("code: usage"), "\(words): \(text)")
        }
    }

    @Test("commands of two words, repeated options, values with = and --, arguments after --")
    func grammar() throws {
        #expect(try run("--json key list").0.name == "key list")
        let (_, arguments) = try run("restore --tablespace 1=/a=b --tablespace=2=--c --target-name=--n")
        #expect(arguments.values("tablespace") == ["1=/a=b", "2=--c"])
        #expect(arguments.value("target-name") == "--n")
        #expect(try run("cat -- --strange").1.positionals == ["--strange"])
        #expect(try run("archive-get 00000002.history -").1.positionals == ["00000002.history", "-"])
    }

    @Test("what is not understood is refused with the nearest valid name", arguments: ArgumentParserTests.refusals)
    func refused(_ line: String, _ expected: String) {
        #expect(
            failure { () throws(KedgeError) in
                try parser.parse(line.split(separator: " ").map(String.init))
            } == expected + "\ncode: usage")
    }

    static let refusals: [(String, String)] = [
        (
            "", "kedge: error: cannot run kedge without a command\nhint: Run \"kedge --help\" for the list of commands."
        ),
        (
            "bakcup",
            "kedge: error: unknown command \"bakcup\"\n"
                + "hint: Did you mean \"backup\"?  Run \"kedge --help\" for the list of commands."
        ),
        (
            "report", "kedge: error: unknown command \"report\"\nhint: Run \"kedge --help\" for the list of commands."
        ),
        (
            "key",
            "kedge: error: command \"key\" needs a second word\nhint: " + keyCommands
        ),
        (
            "key ad",
            "kedge: error: unknown command \"key ad\"\n"
                + "hint: Did you mean \"key add\"?  " + keyCommands
        ),
        (
            "restore --tagret-time x",
            "kedge: error: cannot run command \"restore\": unknown option \"--tagret-time\"\n"
                + "hint: Did you mean \"--target-time\"?  Run \"kedge restore --help\" for the list of options."
        ),
        (
            "backup --proces-max=2",
            "kedge: error: cannot run command \"backup\": unknown option \"--proces-max\"\n"
                + "hint: Did you mean \"--process-max\"?  Run \"kedge backup --help\" for the list of options."
        ),
        (
            "backup -json",
            "kedge: error: cannot run command \"backup\": unknown option \"-json\"\n"
                + "hint: Did you mean \"--json\"?  Run \"kedge backup --help\" for the list of options."
        ),
        (
            "--conf x info",
            "kedge: error: unknown option \"--conf\"\n"
                + "hint: Did you mean \"--config\"?  Run \"kedge --help\" for the list of options."
        ),
        (
            "--dry-run restore",
            "kedge: error: cannot use option \"--dry-run\" before a command\n"
                + "hint: Write it after the command, as in \"kedge restore --dry-run\"."
        ),
        (
            "restore --backup --dry-run",
            "kedge: error: cannot run command \"restore\": option \"--backup\" needs a value\n"
                + "hint: Write \"--backup LABEL\"; a value that begins with two dashes is given as \"--backup=VALUE\"."
        ),
        (
            "--config --log-level info backup",
            "kedge: error: cannot run command \"backup\": option \"--config\" needs a value\n"
                + "hint: Write \"--config FILE\"; a value that begins with two dashes is given as \"--config=VALUE\"."
        ),
        (
            "restore --dry-run=yes",
            "kedge: error: cannot run command \"restore\": option \"--dry-run\" takes no value\n"
                + "hint: Write just \"--dry-run\"."
        ),
        (
            "restore --backup a --backup b",
            "kedge: error: cannot run command \"restore\": option \"--backup\" is given twice\nhint: Give it once."
        ),
        (
            "info --path /a --path /b",
            "kedge: error: cannot run command \"info\": option \"--path\" is given twice\nhint: Give it once."
        ),
        (
            "restore --target-action promte",
            "kedge: error: cannot run command \"restore\": option \"--target-action\" does not know the value "
                + "\"promte\"\nhint: Did you mean \"promote\"?  It is one of: pause, promote, shutdown."
        ),
        (
            "archive-get 000000010000000000000001",
            "kedge: error: cannot run command \"archive-get\": argument DESTINATION is missing\n"
                + "hint: Usage: kedge archive-get [OPTION]... WALFILE DESTINATION"
        ),
        (
            "backup now",
            "kedge: error: cannot run command \"backup\": unexpected argument \"now\"\n"
                + "hint: Usage: kedge backup [OPTION]..."
        ),
    ]

    @Test(
        "what may be a part of a secret is not shown",
        arguments: [
            "key add --add-passphrase-command echo hunter2", "key rewrap hunter2", "key rotate hunter2",
            "backup --passphrase-command=echo hunter2", "--passphrase-command echo hunter2 backup",
            "--config /c --key-file /k hunter2", "backup --passphrase=hunter2", "key add --passphrase=\u{301}hunter2",
        ])
    func secretArgument(_ line: String) {
        let text = failure { () throws(KedgeError) in try parser.parse(line.split(separator: " ").map(String.init)) }
        #expect(text.hasSuffix("\ncode: usage") && !text.contains("hunter2"), "\(text)")
    }

    @Test("names are near when few letters differ, swapped neighbours counting once")
    func distances() {
        #expect(NearestName.editDistance("taget", "target") == 1)
        #expect(NearestName.editDistance("tagret", "target") == 1)
        #expect(NearestName.editDistance("", "abc") == 3)
        #expect(NearestName.editDistance("KEY", "key") == 0)
        #expect(NearestName.find("x", among: ["a"]) == nil)
        #expect(NearestName.find(String(repeating: "x", count: 100_000), among: ["abc"]) == nil)
    }
}

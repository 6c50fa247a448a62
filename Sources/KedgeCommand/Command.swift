// A command as the command line sees it, and what it is given to work with.
//
// A `<UseCase>Command.swift` holds one `Command`: it turns options into the use case's `Options`, calls `run()` and
// turns the `Outcome` into a `CommandResult`. It decides nothing else, reads nothing from outside but through its
// context, and prints nothing but through its result and the context's log.
package import KedgeArchive
package import KedgeCore
package import KedgeRepository

/// One command: its outside and what runs it.
package struct Command: Sendable {
    package let specification: CommandSpecification
    package let run: @Sendable (CommandContext) throws(KedgeError) -> CommandResult

    package init(
        _ specification: CommandSpecification,
        run: @escaping @Sendable (CommandContext) throws(KedgeError) -> CommandResult
    ) {
        self.specification = specification
        self.run = run
    }
}

/// What a command hands back for printing.
package struct CommandResult: Sendable {
    /// The result for people, a line each.
    package var lines: [String]
    /// The result for programs, printed instead with `--json`.
    package var json: JSONValue
    /// The exit status; not 0 where the command worked and what it found is bad, such as damage.
    package var status: Int32

    package init(lines: [String], json: JSONValue, status: Int32 = 0) {
        self.lines = lines
        self.json = json
        self.status = status
    }

    /// What stays done where the result cannot be printed, as a sentence; nil where nothing was.
    package var done: String?

    /// Shown as a thrown error is; for a command that decides on its own exit status.
    package private(set) var error: KedgeError?

    /// The command failed, and `status` is what to exit with.
    package static func failed(_ error: KedgeError, status: Int32) -> CommandResult {
        var result = CommandResult(lines: [], json: .null, status: status)
        result.error = error
        return result
    }

    /// Nothing to print: the command wrote its result itself, or has none.
    package static let silent = CommandResult(lines: [], json: .null)
}

/// The world outside, as far as commands see it; tests give one of their own.
package struct Surroundings: Sendable {
    /// The `KEDGE_` variables, and those that credentials of object stores come from.
    package var environment: [EnvironmentVariable]
    package var host: HostFacts
    package var readFile: FileReader
    package var runShell: ShellRunner
    /// Whether something exists at a path; relative ones start from the working directory.
    package var fileExists: @Sendable (String) -> Bool
    /// The names in a directory; nil where it cannot be read.
    package var listDirectory: @Sendable (String) -> [String]?
    /// Writes all bytes to standard output.
    package var writeOutput: @Sendable ([UInt8]) throws(KedgeError) -> Void
    /// Writes one line to standard error.
    package var writeErrorLine: @Sendable (String) -> Void
    /// Nil where standard error is no terminal.
    package var terminal: Terminal?
    package var time: any TimeSource
    package var random: any RandomSource
    /// What long work looks at to learn that it should stop.
    package var interruption: Interruption
    /// When a push that hangs is ended, and how.
    package var queueWatch = QueueWatch.Rule(end: {})
    /// Makes what remembers the newest data keys, from the work-directories and a way to warn; nil: nothing does.
    package var keyMemory: (@Sendable ([String], @escaping @Sendable (String) -> Void) -> any KeyMemory)?
    /// Makes what remembers the repository in a place, from the place, the work-directories and a way to warn; nil:
    /// nothing does.
    package var placeMemory: (@Sendable (String, [String], @escaping @Sendable (String) -> Void) -> any PlaceMemory)?

    package init(
        environment: [EnvironmentVariable], host: HostFacts, readFile: @escaping FileReader,
        runShell: @escaping ShellRunner, fileExists: @escaping @Sendable (String) -> Bool,
        listDirectory: @escaping @Sendable (String) -> [String]?,
        writeOutput: @escaping @Sendable ([UInt8]) throws(KedgeError) -> Void,
        writeErrorLine: @escaping @Sendable (String) -> Void, terminal: Terminal? = nil,
        time: any TimeSource, random: any RandomSource,
        interruption: Interruption
    ) {
        self.environment = environment
        self.host = host
        self.readFile = readFile
        self.runShell = runShell
        self.fileExists = fileExists
        self.listDirectory = listDirectory
        self.writeOutput = writeOutput
        self.writeErrorLine = writeErrorLine
        self.terminal = terminal
        self.time = time
        self.random = random
        self.interruption = interruption
    }
}

/// What one run of a command works with.
package struct CommandContext: Sendable {
    package let arguments: ParsedArguments
    package let surroundings: Surroundings
    package let log: Log
    /// Whether the result, or the error, is printed as JSON.
    package let wantsJSON: Bool

    package init(arguments: ParsedArguments, surroundings: Surroundings, log: Log, wantsJSON: Bool) {
        self.arguments = arguments
        self.surroundings = surroundings
        self.log = log
        self.wantsJSON = wantsJSON
    }

    /// Reads the configuration and logs its warnings. To be called once. Throws `usage`, `configuration`,
    /// `not-supported`.
    package func loadConfiguration() throws(KedgeError) -> Configuration {
        let configuration = try Configuration(
            arguments: arguments, environment: surroundings.environment, host: surroundings.host,
            readFile: surroundings.readFile)
        for warning in configuration.warnings { log.warn(warning) }
        return configuration
    }
}

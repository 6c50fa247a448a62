// One run of kedge from words to exit status: parse, dispatch, render.
//
// Nothing here exits or touches the outside but through `Surroundings`, so tests compare whole runs.
import KedgeCore
import KedgeRepository

/// How the process ends.
package enum Ending: Hashable, Sendable {
    case exit(Int32)
    /// By this signal, as if it had never been caught.
    case die(Int32)
}

/// The tool with its commands and its surroundings.
package struct CommandLineTool: Sendable {
    private let commands: [Command]
    private let surroundings: Surroundings

    package init(commands: [Command] = CommandTable.all, surroundings: Surroundings) {
        self.commands = commands
        self.surroundings = surroundings
    }

    /// Runs the command line `words` (without the program's name) as the kernel handed it over.
    ///
    /// One that is not UTF-8 is refused: repaired, it would name another file.
    package func run(bytes words: [[UInt8]]) -> Ending {
        let texts = words.map { String(decoding: $0, as: UTF8.self) }
        guard let index = words.firstIndex(where: { RawPath(bytes: $0).text == nil }) else { return run(texts) }
        let shown = texts.contains(where: ArgumentParser.givesSecret) ? "" : " \"\(RawPath(bytes: words[index]))\""
        let error = KedgeError(
            .usage, "cannot read argument \(index + 1)\(shown): it is not UTF-8",
            hint: "Reach a file of such a name by another path, such as a symbolic link with a name in UTF-8.")
        report(error, asJSON: texts.prefix { $0 != "--" }.contains("--json"))
        let rule = StatusRule(words: texts, surroundings: surroundings)
        return rule.ending(of: error, status: rule.status(of: error))
    }

    /// Runs the command line `words` (without the program's name) and says how to end.
    package func run(_ words: [String]) -> Ending {
        // Read off the words: where they cannot be parsed, the error still has to take this form.
        let wantsJSON = words.prefix { $0 != "--" }.contains("--json")
        var rule = StatusRule(words: words, surroundings: surroundings)
        do {
            let specifications = commands.map(\.specification)
            let parser = ArgumentParser(
                commands: specifications, configurationKeys: ConfigurationKey.all.map(\.name))
            switch try parser.parse(words) {
            case .help(nil): try print(HelpText.overview(specifications))
            case .help(let command?): try print(HelpText.command(command))
            case .version: try print(["kedge \(Version.text) (repository format \(RepositoryIdentity.format))"])
            case .run(let specification, let arguments):
                rule.note(arguments)
                let result = try run(specification, arguments, wantsJSON: wantsJSON)
                if let error = result.error {
                    report(error, asJSON: wantsJSON)
                    return rule.ending(of: error, status: result.status)
                }
                try write(result, asJSON: wantsJSON)
                return .exit(result.status)
            }
            return .exit(0)
        } catch {
            report(error, asJSON: wantsJSON)
            return rule.ending(of: error, status: rule.status(of: error))
        }
    }

    private func run(
        _ specification: CommandSpecification, _ arguments: ParsedArguments, wantsJSON: Bool
    ) throws(KedgeError) -> CommandResult {
        guard let command = commands.first(where: { $0.specification.name == specification.name }) else {
            preconditionFailure("the argument parser found a command that is not in the table")
        }
        let level = try logLevel(arguments) ?? specification.logLevel
        let log = Log(level: level, write: surroundings.writeErrorLine)
        let context = CommandContext(
            arguments: arguments, surroundings: surroundings, log: log, wantsJSON: wantsJSON)
        return try command.run(context)
    }

    /// Prints the result. Where it cannot be printed the error says what the command has done all the same.
    private func write(_ result: CommandResult, asJSON: Bool) throws(KedgeError) {
        do throws(KedgeError) {
            try surroundings.writeOutput(OutputRenderer.output(result, asJSON: asJSON))
        } catch {
            guard let done = result.done else { throw error }
            var error = error
            error.hint = "\(done)  Only its report could not be printed."
            throw error
        }
    }

    private func logLevel(_ arguments: ParsedArguments) throws(KedgeError) -> LogLevel? {
        if let level = arguments.value("log-level") { return LogLevel(rawValue: level) }
        guard let variable = surroundings.environment.first(where: { $0.name == "KEDGE_LOG_LEVEL" }) else { return nil }
        guard let level = LogLevel(rawValue: variable.value) else {
            let names = LogLevel.allCases.map(\.rawValue)
            throw KedgeError(
                .configuration,
                "cannot use environment variable \"KEDGE_LOG_LEVEL\": "
                    + "\"\(variable.value)\" is not a log level",
                hint: NearestName.question(variable.value, among: names) + "It is one of: "
                    + "\(names.joined(separator: ", ")).")
        }
        return level
    }

    private func print(_ lines: [String]) throws(KedgeError) {
        try surroundings.writeOutput(Array(lines.map { $0 + "\n" }.joined().utf8))
    }

    /// Shows the error where it belongs.
    private func report(_ error: KedgeError, asJSON: Bool) {
        if asJSON {
            do {
                let text = OutputRenderer.errorJSON(error).prettyText + "\n"
                try surroundings.writeOutput(Array(text.utf8))
                return
            } catch {
                // Standard output is gone; standard error can still tell.
            }
        }
        for line in OutputRenderer.errorLines(error) { surroundings.writeErrorLine(line) }
    }
}

/// Which rule of `ExitStatus` holds for a command line, even for one that cannot be parsed.
private struct StatusRule {
    private let command: String?
    /// For `archive-get`, and whatever else surely is a restore_command.
    private let archiveGet: ArchiveGetRule?
    /// For what may be one, as long as the words were not understood: a slip must not end a recovery.
    private var mistyped: ArchiveGetRule?
    private var onUnavailable: UnavailableAnswer?
    private let interruption: Interruption

    init(words: [String], surroundings: Surroundings) {
        command = words.first { $0 == "archive-get" || $0 == "archive-push" }
        let fileName = words.first { WALFileName($0) != nil }
        let rule = ArchiveGetRule(fileName: fileName, surroundings)
        archiveGet = command == "archive-get" || ArchiveGetRule.isRestoreCommand(words) ? rule : nil
        mistyped = command == nil && fileName != nil && rule.isRecovering ? rule : nil
        interruption = surroundings.interruption
        onUnavailable = surroundings.environment.first { $0.name == "KEDGE_ON_UNAVAILABLE" }
            .flatMap { UnavailableAnswer(rawValue: $0.value) }
    }

    /// The words were understood.
    mutating func note(_ arguments: ParsedArguments) {
        mistyped = nil
        guard let text = arguments.overrides.first(where: { $0.key == "on-unavailable" })?.value else { return }
        onUnavailable = UnavailableAnswer(rawValue: text) ?? onUnavailable
    }

    func status(of error: KedgeError) -> Int32 {
        if let rule = archiveGet ?? mistyped { return rule.status(of: error.code, onUnavailable: onUnavailable) }
        return command == "archive-push" ? ExitStatus.archivePush(error.code) : ExitStatus.other(error.code)
    }

    /// How to end after an error that came with `status`.
    ///
    /// PostgreSQL tells a `restore_command` that was ended by SIGTERM from one that failed: it then shuts down rather
    /// than report an error (xlogarchive.c). So `archive-get` ends by the signal that it got. Once a signal came, any
    /// error may be its consequence: a terminal sends it to the children too.
    func ending(of error: KedgeError, status: Int32) -> Ending {
        guard let signal = interruption.signal else { return .exit(status) }
        if archiveGet != nil { return .die(signal) }
        return .exit(command == "archive-push" ? status : ExitStatus.other(.interrupted))
    }
}

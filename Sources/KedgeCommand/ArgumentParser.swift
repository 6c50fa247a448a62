// Turns the words of a command line into one command with its options and arguments.
//
// 1. Pure: reads no file and no environment.
// 2. An option is looked up among the global options, then the command's own, then the configuration keys. So
//    `restore --pgdata` is the directory to restore into, although `pgdata` is a configuration key as well; the result
//    does not depend on whether the option stands before or after the command's name.
// 3. Whatever is not understood is refused, with the nearest valid name; nothing is guessed.
package import KedgeCore

/// What somebody asked for.
package enum Invocation: Sendable {
    /// Print help on one command, or on all of them.
    case help(CommandSpecification?)
    case version
    case run(CommandSpecification, ParsedArguments)
}

/// A configuration key given as an option: it wins over the environment and the file.
package struct ConfigurationOverride: Hashable, Sendable {
    package let key: String
    package let value: String
}

/// The options and arguments of one command line, checked against the command's specification.
package struct ParsedArguments: Sendable {
    private var values: [String: [String]] = [:]
    private var flags: Set<String> = []
    /// As many as the command's specification has.
    package fileprivate(set) var positionals: [String] = []
    /// In the order in which they were given, each key once.
    package fileprivate(set) var overrides: [ConfigurationOverride] = []

    package init() {}

    /// The value of an option; nil where it was not given.
    package func value(_ option: String) -> String? { values[option]?.last }

    /// All values of a repeatable option, in order.
    package func values(_ option: String) -> [String] { values[option] ?? [] }

    /// Whether a flag was given.
    package func has(_ flag: String) -> Bool { flags.contains(flag) }

    fileprivate func isGiven(_ name: String) -> Bool {
        values[name] != nil || flags.contains(name) || overrides.contains { $0.key == name }
    }

    fileprivate mutating func add(_ option: OptionSpecification, _ value: String?) {
        if let value { values[option.name, default: []].append(value) } else { flags.insert(option.name) }
    }
}

/// Parses command lines against a list of commands and of configuration keys.
package struct ArgumentParser: Sendable {
    private let commands: [CommandSpecification]
    private let configurationKeys: [String]

    package init(commands: [CommandSpecification], configurationKeys: [String]) {
        self.commands = commands
        self.configurationKeys = configurationKeys
    }

    /// The invocation that `words` (without the program's own name) ask for. Throws `usage`.
    package func parse(_ words: [String]) throws(KedgeError) -> Invocation {
        let (command, rest) = try findCommand(words)
        guard let command else {
            if rest.contains("--version") { return .version }
            if rest.contains("--help") || rest.contains("-h") { return .help(nil) }
            throw KedgeError(
                .usage, "cannot run kedge without a command", hint: "Run \"kedge --help\" for the list of commands.")
        }
        if command.name == HelpCommand.name { return try parseHelp(command, rest) }
        let arguments = try parseRest(rest, of: command)
        if arguments.has("help") { return .help(command) }
        if arguments.has("version") { return .version }
        guard arguments.positionals.count == command.arguments.count else {
            throw wrongNumber(of: arguments.positionals, for: command, given: rest)
        }
        return .run(command, arguments)
    }

    // MARK: - Finding the command

    /// The command, and all words but those of its name.
    private func findCommand(_ words: [String]) throws(KedgeError) -> (CommandSpecification?, [String]) {
        var before: [String] = []
        var index = 0
        while index < words.count {
            let word = words[index]
            guard word.hasPrefix("-") else {
                let (command, length) = try lookUp(word, Array(words[(index + 1)...]), given: before)
                return (command, before + words[(index + length)...])
            }
            before.append(word)
            index += 1
            if try takesValue(beforeCommand: word), index < words.count, !words[index].hasPrefix("--") {
                before.append(words[index])
                index += 1
            }
        }
        return (nil, before)
    }

    /// Whether the word after an option that stands before the command is the option's value.
    private func takesValue(beforeCommand word: String) throws(KedgeError) -> Bool {
        if word == "-h" { return false }
        let (name, value) = ArgumentParser.split(word)
        if let option = GlobalOptions.all.first(where: { $0.name == name }) {
            return option.placeholder != nil && value == nil
        }
        if configurationKeys.contains(name) { return value == nil }
        if let owner = commands.first(where: { $0.options.contains { $0.name == name } }) {
            throw KedgeError(
                .usage, "cannot use option \"--\(name)\" before a command",
                hint: "Write it after the command, as in \"kedge \(owner.name) --\(name)\".")
        }
        throw unknownOption(word, name, of: nil)
    }

    /// The command that begins with `word`, and how many words its name has. `given`: the words before it.
    private func lookUp(
        _ word: String, _ following: [String], given: [String] = []
    ) throws(KedgeError) -> (CommandSpecification, Int) {
        if let command = commands.first(where: { $0.name == word }) { return (command, 1) }
        let family = commands.filter { $0.words.count == 2 && $0.words[0] == word }
        guard !family.isEmpty else {
            if given.contains(where: ArgumentParser.givesSecret) {
                throw KedgeError(
                    .usage, "unknown command, which \(ArgumentParser.hidden)",
                    hint: "\(ArgumentParser.quotes)  Run \"kedge --help\" for the list of commands.")
            }
            let names = commands.map { $0.words[0] }
            throw KedgeError(
                .usage, "unknown command \"\(word)\"",
                hint: NearestName.question(word, among: names) + "Run \"kedge --help\" for the list of commands.")
        }
        let subcommands = family.map { $0.words[1] }
        let list = family.map { "\"kedge \($0.name)\"" }.joined(separator: " or ")
        guard let next = following.first, !next.hasPrefix("-") else {
            throw KedgeError(.usage, "command \"\(word)\" needs a second word", hint: "Run \(list).")
        }
        guard let command = family.first(where: { $0.words[1] == next }) else {
            throw KedgeError(
                .usage, "unknown command \"\(word) \(next)\"",
                hint: NearestName.question(next, among: subcommands, prefix: "\(word) ") + "Run \(list).")
        }
        return (command, 2)
    }

    private func parseHelp(_ help: CommandSpecification, _ words: [String]) throws(KedgeError) -> Invocation {
        let topic = ArgumentParser.topic(words)
        if topic.isEmpty {
            let arguments = try parseRest(words, of: help)
            return arguments.has("help") ? .help(help) : .run(help, arguments)
        }
        return .help(try lookUp(topic[0], Array(topic[1...])).0)
    }

    /// The words that are neither options nor values of global options.
    private static func topic(_ words: [String]) -> [String] {
        var topic: [String] = []
        var index = 0
        while index < words.count {
            let word = words[index]
            index += 1
            guard word.hasPrefix("-") else {
                topic.append(word)
                continue
            }
            let (name, value) = split(word)
            let takesValue = GlobalOptions.all.contains { $0.name == name && $0.placeholder != nil }
            if takesValue && value == nil { _ = takeValue(words, &index) }
        }
        return topic
    }

    // MARK: - Options and arguments

    private func parseRest(
        _ words: [String], of command: CommandSpecification
    ) throws(KedgeError) -> ParsedArguments {
        var parsed = ParsedArguments()
        var index = 0
        var optionsEnded = false
        while index < words.count {
            let word = words[index]
            index += 1
            if optionsEnded || !word.hasPrefix("-") || word == "-" {
                parsed.positionals.append(word)
            } else if word == "--" {
                optionsEnded = true
            } else {
                try parseOption(word == "-h" ? "--help" : word, of: command, words, &index, &parsed)
            }
        }
        return parsed
    }

    private func parseOption(
        _ word: String, of command: CommandSpecification, _ words: [String], _ index: inout Int,
        _ parsed: inout ParsedArguments
    ) throws(KedgeError) {
        let (name, attached) = ArgumentParser.split(word)
        let option = (GlobalOptions.all + command.options).first { $0.name == name }
        guard word.hasPrefix("--"), option != nil || configurationKeys.contains(name) else {
            throw unknownOption(word, name, of: command)
        }
        guard !parsed.isGiven(name) || option?.isRepeatable == true else {
            throw usage(command, "option \"--\(name)\" is given twice", hint: "Give it once.")
        }
        if let option, option.placeholder == nil {
            guard attached == nil else {
                throw usage(command, "option \"--\(name)\" takes no value", hint: "Write just \"--\(name)\".")
            }
            parsed.add(option, nil)
            return
        }
        guard let value = attached ?? ArgumentParser.takeValue(words, &index) else {
            throw usage(
                command, "option \"--\(name)\" needs a value",
                hint: "Write \"--\(name) \(option?.placeholder ?? "VALUE")\"; "
                    + "a value that begins with two dashes is given as \"--\(name)=VALUE\".")
        }
        guard let option else {
            parsed.overrides.append(ConfigurationOverride(key: name, value: value))
            return
        }
        // Taken for a path it would mean the working directory; it mostly is a variable that nobody has set.
        guard !value.isEmpty else {
            throw usage(
                command, "the value of option \"--\(name)\" is empty",
                hint:
                    "Write \"--\(name) \(option.placeholder ?? "VALUE")\", or leave it out.  A shell variable that is "
                    + "not set is empty.")
        }
        guard option.choices.isEmpty || option.choices.contains(value) else {
            throw usage(
                command, "option \"--\(name)\" does not know the value \"\(value)\"",
                hint: NearestName.question(value, among: option.choices)
                    + "It is one of: \(option.choices.joined(separator: ", ")).")
        }
        parsed.add(option, value)
    }

    private static func takeValue(_ words: [String], _ index: inout Int) -> String? {
        guard index < words.count, !words[index].hasPrefix("--") else { return nil }
        index += 1
        return words[index - 1]
    }

    /// `--name=value` as its two parts; the name without dashes.
    private static func split(_ word: String) -> (name: String, value: String?) {
        // By bytes: to Swift, a combining mark and the "=" before it are one character.
        let text = Substring(word.utf8.drop { $0 == UInt8(ascii: "-") })
        guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")) else { return (String(text), nil) }
        return (String(text[..<equals]), String(text[text.utf8.index(after: equals)...]))
    }

    // MARK: - Errors

    private func usage(_ command: CommandSpecification, _ what: String, hint: String) -> KedgeError {
        KedgeError(.usage, "cannot run command \"\(command.name)\": \(what)", hint: hint)
    }

    private func unknownOption(_ word: String, _ name: String, of command: CommandSpecification?) -> KedgeError {
        let names = (GlobalOptions.all + (command?.options ?? [])).map(\.name) + configurationKeys
        let typed = Substring(word.utf8.prefix { $0 != UInt8(ascii: "=") })
        let help = command.map { "kedge \($0.name) --help" } ?? "kedge --help"
        let question = NearestName.question(name, among: names, prefix: "--")
        let hint = question + "Run \"\(help)\" for the list of options."
        guard let command else { return KedgeError(.usage, "unknown option \"\(typed)\"", hint: hint) }
        return usage(command, "unknown option \"\(typed)\"", hint: hint)
    }

    /// `words` are those that belong to the command.
    private func wrongNumber(
        of positionals: [String], for command: CommandSpecification, given words: [String]
    ) -> KedgeError {
        let hint = "Usage: \(command.usage)"
        if positionals.count < command.arguments.count {
            let missing = command.arguments[positionals.count].name
            return usage(command, "argument \(missing) is missing", hint: hint)
        }
        if (words + command.options.map { "--\($0.name)" }).contains(where: ArgumentParser.givesSecret) {
            return usage(
                command, "unexpected argument, which \(ArgumentParser.hidden)",
                hint: "\(ArgumentParser.quotes)  \(hint)")
        }
        return usage(command, "unexpected argument \"\(positionals[command.arguments.count])\"", hint: hint)
    }

    /// Whether `word` is an option that takes a secret by its file or by the command that prints it. What stands beside
    /// it may be a part of a command that lacks its quotes, or the secret itself.
    static func givesSecret(_ word: String) -> Bool {
        let name = split(word).name
        return word.hasPrefix("--")
            && ["key-file", "passphrase-file", "passphrase-command"].contains { name.hasSuffix($0) }
    }

    private static let hidden = "is not shown, since it may be a part of a secret"
    private static let quotes = "Put a command of several words in quotes, and secrets into files."
}

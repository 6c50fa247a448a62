// What a command looks like from outside: its words, options and arguments.
//
// Parsing, `--help`, the manual page and "did you mean" all read these values, so they cannot disagree.

/// One option of a command, or one that every command knows.
package struct OptionSpecification: Sendable {
    /// The name without its two dashes.
    package let name: String
    /// What stands for the value in help texts, such as `FILE`. Nil: a flag, which takes no value.
    package let placeholder: String?
    /// One sentence.
    package let help: String
    /// The only values allowed; empty: any.
    package let choices: [String]
    /// Whether it may be given more than once.
    package let isRepeatable: Bool

    /// An option without a value.
    package static func flag(_ name: String, _ help: String) -> OptionSpecification {
        OptionSpecification(name: name, placeholder: nil, help: help, choices: [], isRepeatable: false)
    }

    /// An option with a value.
    package static func value(
        _ name: String, _ placeholder: String, _ help: String, isRepeatable: Bool = false
    ) -> OptionSpecification {
        OptionSpecification(name: name, placeholder: placeholder, help: help, choices: [], isRepeatable: isRepeatable)
    }

    /// An option whose value is one of `choices`.
    package static func choice(_ name: String, _ choices: [String], _ help: String) -> OptionSpecification {
        OptionSpecification(
            name: name, placeholder: choices.joined(separator: "|"), help: help, choices: choices, isRepeatable: false)
    }

    /// `--backup LABEL`, or `--dry-run`.
    package var usage: String { placeholder.map { "--\(name) \($0)" } ?? "--\(name)" }
}

/// One argument that is known by its place.
package struct ArgumentSpecification: Sendable {
    /// How help texts and errors name it, such as `WALFILE`.
    package let name: String
    /// One sentence.
    package let help: String

    package init(_ name: String, _ help: String) {
        self.name = name
        self.help = help
    }
}

/// The outside of one command.
package struct CommandSpecification: Sendable {
    /// The command's name as it is typed: one word, or two as in `key list`.
    package let name: String
    /// One line for the list of commands.
    package let summary: String
    /// Paragraphs for the command's own help, after the summary.
    package let description: [String]
    /// What must be given, in this order.
    package let arguments: [ArgumentSpecification]
    package let options: [OptionSpecification]
    /// What is logged unless `--log-level` says otherwise: commands that PostgreSQL runs keep its log short.
    package let logLevel: LogLevel
    /// Whether kedge itself runs it, so that the list of commands leaves it out.
    package let isInternal: Bool

    package init(
        name: String, summary: String, description: [String] = [], arguments: [ArgumentSpecification] = [],
        options: [OptionSpecification] = [], logLevel: LogLevel = .info, isInternal: Bool = false
    ) {
        self.isInternal = isInternal
        self.name = name
        self.summary = summary
        self.description = description
        self.arguments = arguments
        self.options = options
        self.logLevel = logLevel
    }

    /// The words of the name.
    package var words: [String] { name.split(separator: " ").map(String.init) }

    /// `kedge archive-get [OPTION]... WALFILE DESTINATION`.
    package var usage: String {
        (["kedge", name, "[OPTION]..."] + arguments.map(\.name)).joined(separator: " ")
    }
}

/// The options that every command knows; they may stand before or after the command.
package enum GlobalOptions {
    package static let all: [OptionSpecification] = [
        .value("config", "FILE", "Read this configuration file instead of \(Configuration.defaultPath)."),
        .value("cluster", "NAME", "Work on this cluster; needed where several are configured."),
        .value("repository", "NAME", "Work on this repository; needed if there are several."),
        .choice("log-level", LogLevel.allCases.map(\.rawValue), "Log this much to standard error."),
        .flag("json", "Print the result, or the error, as one JSON document."),
        .flag("help", "Print this help."),
        .flag("version", "Print the version."),
    ]
}

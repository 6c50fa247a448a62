// docs/kedge.1, written from the tables of commands, configuration keys and error codes. A test compares the checked-in
// page with this text.
import KedgeCore

/// The manual page as roff (man macros).
package enum ManualPage {
    /// The page's lines.
    package static func lines(_ commands: [CommandSpecification]) -> [String] {
        var page = [".TH KEDGE 1 \"\" \"kedge \(Version.text)\" \"User Commands\""]
        page += section("NAME", ["kedge \\- backup and point-in-time recovery for PostgreSQL"])
        page += section(
            "SYNOPSIS", [".B kedge", ".RI [ OPTION ]...", ".I COMMAND", ".RI [ OPTION ]... ", ".RI [ ARGUMENT ]..."])
        page += section("DESCRIPTION", description)
        page += [".SH COMMANDS"] + commands.filter { $0.name != HelpCommand.name }.flatMap(entry)
        page += [".SH OPTIONS OF EVERY COMMAND"] + GlobalOptions.all.flatMap { item($0.usage, $0.help) }
        page += section("CONFIGURATION", configuration)
        for kind in SectionKind.allCases {
            page += [".SS Keys of a \(kind.rawValue)"] + ConfigurationKey.all(in: kind).flatMap(entry)
        }
        page += [".SS Environment"] + environment
        page += section("EXIT STATUS", []) + exitStatuses
        page += section("ERROR CODES", ["The last line of an error is a code that scripts may rely on:"])
        page += [".PP", text(ErrorCode.allCases.map(\.rawValue).joined(separator: ", ") + ".")]
        page += section("EXAMPLES", examples)
        page += section("FILES", []) + item(Configuration.defaultPath, "The configuration.")
        return page
    }

    private static let description = [
        "Kedge archives the WAL of a PostgreSQL cluster, takes base backups of it and restores it to any moment that",
        "they cover.",
    ]

    private static let configuration = [
        "The file consists of sections, which begin with [cluster NAME] or [repository NAME], and of lines",
        "\"key = value\". A \"#\" at the beginning of a line or after white space starts a comment. A value may stand",
        "in double quotation marks; then \\e\\e is a backslash and \\e\" is a quotation mark. Sizes are written with",
        "B, kB, MB, GB or TB (1024 bytes are 1 kB), durations with ms, s, min, h, d or w.",
    ]

    private static let environment = [
        "An option",
        ".BI \\-\\- KEY \\~ VALUE",
        "wins over the environment, and that over the file. For the selected cluster or repository a variable is",
        "called KEDGE_KEY, such as KEDGE_PROCESS_MAX; for a named one KEDGE_CLUSTER_NAME_KEY or",
        "KEDGE_REPOSITORY_NAME_KEY, such as KEDGE_REPOSITORY_MAIN_PATH. KEDGE_CONFIG, KEDGE_CLUSTER, KEDGE_REPOSITORY",
        "and KEDGE_LOG_LEVEL stand for the options of these names. Variables that fit nothing are reported and",
        "ignored.",
    ]

    private static let exitStatuses: [String] = [
        ("0", "Done."), ("1", "Failed. From archive-get: every repository was read, and there is no such file."),
        ("2", "Usage or configuration."), ("3", "Damage was found."), ("4", "Another kedge holds the lock."),
        (
            "126",
            "From archive-get: could not find out whether there is such a file; PostgreSQL stops recovery. On a "
                + "standby the status is 1 instead."
        ), ("130", "Interrupted."),
    ].flatMap { item($0.0, $0.1) }

    private static let examples = [
        ".nf", "[cluster main]", "pgdata = /var/lib/postgresql/15/main", "host = /var/run/postgresql", "",
        "[repository main]", "path = /var/lib/kedge", "encryption = aes\\-256\\-gcm",
        "key\\-file = /etc/kedge/main.key",
        ".fi", ".PP", ".nf", "kedge init \\-\\-generate\\-key /etc/kedge/main.key", "kedge check", "kedge backup",
        "kedge restore \\-\\-pgdata /srv/restored \\-\\-target\\-time \\(aq2026\\-11\\-20 14:30:00+02\\(aq", ".fi",
    ]

    // MARK: - Parts

    private static func section(_ title: String, _ body: [String]) -> [String] { [".SH \(title)"] + body }

    private static func item(_ term: String, _ explanation: String) -> [String] {
        [".TP", ".B \(text(term))", text(explanation)]
    }

    private static func entry(_ command: CommandSpecification) -> [String] {
        var lines = [".SS \(text(([command.name] + command.arguments.map(\.name)).joined(separator: " ")))"]
        lines.append(text(HelpText.capitalized(command.summary) + "."))
        for paragraph in command.description { lines += [".PP", text(paragraph)] }
        for argument in command.arguments { lines += item(argument.name, argument.help) }
        for option in command.options { lines += item(option.usage, option.help) }
        return lines
    }

    private static func entry(_ key: ConfigurationKey) -> [String] {
        let standard = key.defaultText ?? key.defaultNote ?? "none"
        return item("\(key.name) = \(key.kind.placeholder)", "\(key.help) Default: \(standard).")
    }

    /// Plain text as roff: hyphens, backslashes and apostrophes as themselves, and no line taken for a request.
    static func text(_ plain: String) -> String {
        var out = plain.hasPrefix(".") || plain.hasPrefix("'") ? "\\&" : ""
        for character in plain {
            switch character {
            case "-": out += "\\-"
            case "\\": out += "\\e"
            case "'": out += "\\(aq"
            case "~": out += "\\(ti"
            case "^": out += "\\(ha"
            default: out.append(character)
            }
        }
        return out
    }
}

// `kedge --help` and `kedge COMMAND --help`, written from the specifications.
import KedgeCore

/// Help texts for a terminal of 80 columns.
package enum HelpText {
    private static let width = 80

    /// One screen: what kedge is, its commands and the options that all of them know.
    package static func overview(_ commands: [CommandSpecification]) -> [String] {
        var lines = [
            "kedge \(Version.text): backup and point-in-time recovery for PostgreSQL", "",
            "Usage: kedge [OPTION]... COMMAND [OPTION]... [ARGUMENT]...", "", "Commands:",
        ]
        lines += list(commands.filter { !$0.isInternal }.map { ($0.name, $0.summary) })
        lines += ["", "Options of every command:"]
        lines += list(GlobalOptions.all.map { ($0.usage, $0.help) })
        lines += ["", "\"kedge COMMAND --help\" explains a command, \"man kedge\" the configuration too."]
        return lines
    }

    /// One command with all that it takes.
    package static func command(_ command: CommandSpecification) -> [String] {
        var lines = ["Usage: \(command.usage)", ""] + wrapped(capitalized(command.summary) + ".", indent: 0)
        for paragraph in command.description { lines += [""] + wrapped(paragraph, indent: 0) }
        if !command.arguments.isEmpty {
            lines += ["", "Arguments:"] + list(command.arguments.map { ($0.name, $0.help) })
        }
        if !command.options.isEmpty {
            lines += ["", "Options:"] + list(command.options.map { ($0.usage, $0.help) })
        }
        lines += ["", "Options of every command:"] + list(GlobalOptions.all.map { ($0.usage, $0.help) })
        lines += [""]
        lines += wrapped("Every configuration key can be given as an option too, such as --process-max 4.", indent: 0)
        return lines
    }

    /// The text with a capital letter at its start.
    static func capitalized(_ text: String) -> String { text.prefix(1).uppercased() + text.dropFirst() }

    /// Names on the left, explanations on the right; a name that is too long gets a line of its own.
    static func list(_ items: [(name: String, help: String)]) -> [String] {
        let column = 4 + min(22, items.map { $0.name.utf8.count }.max() ?? 0)
        var lines: [String] = []
        for (name, help) in items {
            var text = wrapped(help, indent: column)
            let head = "  " + name
            if head.utf8.count + 2 > column {
                lines.append(head)
            } else {
                let first = text.removeFirst().dropFirst(head.utf8.count)
                text.insert(head + first, at: 0)
            }
            lines += text
        }
        return lines
    }

    /// The text in lines of at most 80 columns, each indented.
    static func wrapped(_ text: String, indent: Int) -> [String] {
        let margin = String(repeating: " ", count: indent)
        var lines: [String] = []
        var line = margin
        for word in text.split(separator: " ") {
            let isFirst = line.utf8.count == indent
            if !isFirst, line.utf8.count + 1 + word.utf8.count > width {
                lines.append(line)
                line = margin + word
            } else {
                line += (isFirst ? "" : " ") + word
            }
        }
        lines.append(line)
        return lines
    }
}

// `kedge help`, and the manual page that is made from the same tables.
import KedgeCore

/// The command line of `help`. `kedge help COMMAND` never gets here: the argument parser turns it into `--help`.
enum HelpCommand {
    static let name = "help"

    static let specification = CommandSpecification(
        name: name, summary: "explain a command",
        options: [.flag("man", "Print the manual page, as roff, instead.")])

    static let command = Command(specification) { (context: CommandContext) throws(KedgeError) -> CommandResult in
        let specifications = CommandTable.all.map(\.specification)
        let lines =
            context.arguments.has("man") ? ManualPage.lines(specifications) : HelpText.overview(specifications)
        return CommandResult(lines: lines, json: .null)
    }
}

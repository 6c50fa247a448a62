// `kedge cat`.
import KedgeCatalog
import KedgeCore

/// The command line of `cat`.
enum CatCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "cat", summary: "print one repository object, opened",
        description: [
            "Checks and opens one object of the repository and prints it: a record as JSON, a WAL file's facts, "
                + "a pack's table. With --data, a WAL file's own bytes; with --entries, the files of a manifest, a "
                + "JSON object a line."
        ],
        arguments: [
            ArgumentSpecification(
                "OBJECT", "The object's name below the repository, such as main/catalog/backup/LABEL.")
        ],
        options: [
            .flag("data", "Write the bytes of a WAL file to standard output instead of its facts."),
            .flag("entries", "List the files, directories and links of a manifest instead of its root."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        guard !(context.arguments.has("data") && context.arguments.has("entries")) else {
            throw KedgeError(
                .usage, "cannot show an object with both --data and --entries",
                hint: "Give --data for a WAL file, --entries for a manifest.")
        }
        let view: Cat.View =
            context.arguments.has("data") ? .data : context.arguments.has("entries") ? .entries : .record
        let options = Cat.Options(
            repository: try context.source(of: configuration.repository()),
            name: context.arguments.positionals[0], view: view)
        let outcome = try Cat(options).run { (entry) throws(KedgeError) in
            let line = OutputRenderer.printableJSON(entry.compactText) + "\n"
            try context.surroundings.writeOutput(Array(line.utf8))
        }
        switch outcome {
        case .entries: return .silent
        case .json(let json):
            return CommandResult(lines: json.prettyText.split(separator: "\n").map(String.init), json: json)
        case .bytes(let bytes):
            try context.surroundings.writeOutput(bytes)
            return .silent
        }
    }
}

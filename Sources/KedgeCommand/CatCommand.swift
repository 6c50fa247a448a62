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
                + "a pack's table. With --data, a WAL file's own bytes."
        ],
        arguments: [
            ArgumentSpecification(
                "OBJECT", "The object's name below the repository, such as main/catalog/backup/LABEL.")
        ],
        options: [.flag("data", "Write the bytes of a WAL file to standard output instead of its facts.")])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let options = Cat.Options(
            repository: try context.source(of: configuration.repository()),
            name: context.arguments.positionals[0], wantsData: context.arguments.has("data"))
        switch try Cat(options).run() {
        case .json(let json):
            return CommandResult(lines: json.prettyText.split(separator: "\n").map(String.init), json: json)
        case .bytes(let bytes):
            try context.surroundings.writeOutput(bytes)
            return .silent
        }
    }
}

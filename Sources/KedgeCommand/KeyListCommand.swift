// `kedge key list`.
import KedgeCore

/// The command line of `key list`.
enum KeyListCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "key list", summary: "list the repository's keys",
        description: ["Lists the data keys and, for each, the slots that can open it."])
}

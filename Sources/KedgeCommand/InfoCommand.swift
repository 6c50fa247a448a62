// `kedge info`.
import KedgeCore

/// The command line of `info`.
enum InfoCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "info", summary: "show backups, WAL and recoverable windows",
        description: ["Shows what the repositories hold and to which moments the cluster can be restored."])
}

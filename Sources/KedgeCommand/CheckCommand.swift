// `kedge check`.
import KedgeCore

/// The command line of `check`.
enum CheckCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "check", summary: "test configuration, connection and archiving",
        description: [
            "Tests the configuration, permissions, the connection to the server, its archive settings and the promises "
                + "of each repository's storage, then switches to a new WAL segment and waits until the old one "
                + "arrives in every repository."
        ])
}

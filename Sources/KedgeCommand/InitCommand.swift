// `kedge init`.
import KedgeCore

/// The command line of `init`.
enum InitCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "init", summary: "create the repository and register the cluster",
        description: [
            "Creates each repository of the cluster, registers the cluster there and prints the lines for "
                + "postgresql.conf. Safe to repeat: what exists already is checked and left alone."
        ],
        options: [
            .value("generate-key", "FILE", "Make a new key file first; it must not exist yet. Keep a copy elsewhere.")
        ])
}

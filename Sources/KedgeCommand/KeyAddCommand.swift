// `kedge key add`.
import KedgeCore

/// The command line of `key add`.
enum KeyAddCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "key add", summary: "let one more key file or passphrase open the repository",
        description: [
            "Opens the repository's data keys with the configured secret and wraps them for another one. Give exactly "
                + "one option."
        ],
        options: [
            .value("generate-key", "FILE", "Make a new key file, which must not exist yet, and add it."),
            .value("add-key-file", "FILE", "Add this key file."),
            .value("add-passphrase-file", "FILE", "Add the passphrase in the first line of this file."),
        ])
}

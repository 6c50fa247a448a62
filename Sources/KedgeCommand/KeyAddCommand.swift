// `kedge key add`.
import KedgeCatalog
import KedgeCore

/// The command line of `key add`.
enum KeyAddCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key add", summary: "let one more key file or passphrase open the repository",
        description: [
            "Opens the repository's data keys with the configured secret and wraps them for another one. Give exactly "
                + "one of the first four options. Safe to repeat."
        ],
        options: [
            .value("generate-key", "FILE", "Make a new key file and add it. One that exists is added as it is."),
            .value("add-key-file", "FILE", "Add this key file."),
            .value("add-passphrase-file", "FILE", "Add the passphrase in this file of one line."),
            .value(
                "add-passphrase-command", "COMMAND", "Add the passphrase that this command prints as its first line."),
            .value("label", "NAME", "What listings call the new secret (default: added)."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let source = try context.source(of: repository)
        let secret = try context.oneSecret("add", "add", for: source).secret
        let outcome = try KeyAdd(
            source, secret: secret.secret, label: context.arguments.value("label") ?? "added",
            random: context.surroundings.random, time: context.surroundings.time
        ).run()
        let line =
            outcome.added.isEmpty
            ? "repository \"\(repository.name)\" opens with this secret already; nothing was changed"
            : "repository \"\(repository.name)\" now opens with this secret too; slots added: "
                + outcome.added.joined(separator: ", ")
        return CommandResult(
            lines: [line],
            json: [
                "repository": .string(repository.name), "added": .array(outcome.added.map(JSONValue.string)),
                "alreadyOpen": .int(outcome.alreadyOpen),
            ])
    }
}

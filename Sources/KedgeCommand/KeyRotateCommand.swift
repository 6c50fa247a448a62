// `kedge key rotate`.
import KedgeCatalog
import KedgeCore

/// The command line of `key rotate`.
enum KeyRotateCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key rotate", summary: "make a new data key for new objects",
        description: [
            "Makes a new data key and wraps it for the configured secret. New objects are sealed with it from then on; "
                + "what is there stays as it is, and readable. Every other secret that has a slot must be given as "
                + "well, "
                + "or left out by its label: a key can only be wrapped for a secret that is at hand.",
            "To be run when a data key may be known to somebody. Objects that it sealed are not sealed anew: expire "
                + "them.",
        ],
        options: [
            .value("add-key-file", "FILE", "Wrap the new key for this key file too.", isRepeatable: true),
            .value(
                "add-passphrase-file", "FILE", "Wrap the new key for the passphrase in this file too.",
                isRepeatable: true),
            .value(
                "add-passphrase-command", "COMMAND",
                "Wrap the new key for the passphrase that this command prints as its first line too.",
                isRepeatable: true),
            .value(
                "leave-out", "LABEL",
                "Do not wrap it for the secrets of this label: they read what is there, and nothing that is stored "
                    + "from "
                    + "then on.", isRepeatable: true),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let sources =
            context.arguments.values("add-key-file").map(KeySource.keyFile)
            + context.arguments.values("add-passphrase-file").map(KeySource.passphraseFile)
            + context.arguments.values("add-passphrase-command").map(KeySource.passphraseCommand)
        var secrets: [NamedSecret] = []
        for source in sources { secrets.append(try context.namedSecret(source)) }
        let outcome = try KeyRotate(
            context.source(of: repository), secrets: secrets,
            leaveOut: Set(context.arguments.values("leave-out")), random: context.surroundings.random,
            time: context.surroundings.time
        ).run()
        func list(_ labels: [String]) -> String { labels.map { "\"\($0)\"" }.joined(separator: ", ") }
        var lines = [
            "repository \"\(repository.name)\" seals new objects with data key \(outcome.sequence) from now on",
            "it opens with: \(list(outcome.labels))",
        ]
        if !outcome.leftOut.isEmpty {
            lines.append(
                "left out: \(list(outcome.leftOut)); to let one in again, give it to \"kedge key add\", to shut it out "
                    + "for good, \"kedge key remove --label LABEL\"")
        }
        lines.append(
            "the \(outcome.olderKeys) older data key(s) stay, since what they sealed needs them")
        return CommandResult(
            lines: lines,
            json: [
                "repository": .string(repository.name), "key": .string(outcome.key.hex),
                "sequence": .int(outcome.sequence), "labels": .array(outcome.labels.map(JSONValue.string)),
                "leftOut": .array(outcome.leftOut.map(JSONValue.string)), "olderKeys": .int(outcome.olderKeys),
            ])
    }
}

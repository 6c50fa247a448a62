// `kedge key rewrap`.
import KedgeCatalog
import KedgeCore

/// The command line of `key rewrap`.
enum KeyRewrapCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key rewrap", summary: "replace the configured key file or passphrase",
        description: [
            "Wraps every data key that the configured secret opens for a new one, checks that the new one opens the "
                + "repository, and then removes the slots of the configured secret. Give exactly one of the first four "
                + "options, and change the configuration of every host afterwards: until then commands fail there, and "
                + "archive_command is tried again. If it is interrupted, run it again, with either secret configured.",
            "The data keys stay the same: whoever has a copy of the old secret and of its slots still opens them. If "
                + "somebody may, run key rotate as well. To change secrets without a gap, use key add, change the "
                + "configuration, then key remove.",
        ],
        options: [
            .value("generate-key", "FILE", "Make a new key file and take it. One that exists is taken as it is."),
            .value("new-key-file", "FILE", "Take this key file."),
            .value("new-passphrase-file", "FILE", "Take the passphrase in this file of one line."),
            .value(
                "new-passphrase-command", "COMMAND", "Take the passphrase that this command prints as its first line."),
            .value("label", "NAME", "What listings call the new secret (default: as the old one)."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let source = try context.source(of: repository)
        let (secret, key) = try context.oneSecret("new", "take", for: source)
        let outcome = try KeyRewrap(
            source, secret: secret, label: context.arguments.value("label"), random: context.surroundings.random,
            time: context.surroundings.time
        ).run()
        var lines: [String] = []
        if outcome.added.isEmpty && outcome.removed.isEmpty {
            lines.append("repository \"\(repository.name)\" opens with the \(secret.what) already; nothing was changed")
        } else {
            lines.append(
                "repository \"\(repository.name)\" now opens with the \(secret.what): slots added: "
                    + "\(outcome.added.count), removed: \(outcome.removed.count)")
        }
        if repository.keySource != key {
            lines.append(setting(key, of: repository))
        }
        if !outcome.removed.isEmpty {
            lines.append(
                "whoever has a copy of the old secret and of its slots still opens the data keys; if somebody may, run "
                    + "\"kedge key rotate\" as well")
        }
        if !outcome.others.isEmpty {
            lines.append("these have slots too: \(outcome.others.joined(separator: ", "))")
        }
        if outcome.closed > 0 {
            lines.append("\(outcome.closed) data key(s) stay closed to this secret, as they were to the old one")
        }
        return CommandResult(
            lines: lines,
            json: [
                "repository": .string(repository.name), "added": .array(outcome.added.map(JSONValue.string)),
                "removed": .array(outcome.removed.map(JSONValue.string)),
                "others": .array(outcome.others.map(JSONValue.string)), "closedKeys": .int(outcome.closed),
            ])
    }

    private static func setting(_ key: KeySource, of repository: RepositoryConfiguration) -> String {
        let line =
            switch key {
            case .keyFile(let path): "key-file = \(path)"
            case .passphraseFile(let path): "passphrase-file = \(path)"
            case .passphraseCommand: "the new passphrase-command"
            }
        return "set \(line) in [repository \(repository.name)] on every host now"
    }
}

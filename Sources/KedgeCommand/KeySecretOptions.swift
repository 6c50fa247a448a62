// The options by which key commands are given further secrets.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeSetup

extension CommandContext {
    /// Reads a secret that an option names. Throws as `SecretReader.read`.
    func namedSecret(_ source: KeySource) throws(KedgeError) -> NamedSecret {
        let reader = SecretReader(readFile: surroundings.readFile, runShell: surroundings.runShell)
        return NamedSecret(try reader.read(source), what: source.described)
    }

    /// The one secret that an option beginning with `prefix` ("add", "new"), or `generate-key`, names. Makes the key
    /// file that `generate-key` asks for, once the repository has been opened: a key file for one that does not open
    /// would be of no use. Throws `usage` unless exactly one is given.
    func oneSecret(_ prefix: String, _ verb: String, for source: RepositorySource) throws(KedgeError) -> (
        secret: NamedSecret, source: KeySource
    ) {
        let names = ["generate-key", "\(prefix)-key-file", "\(prefix)-passphrase-file", "\(prefix)-passphrase-command"]
        let given = names.filter { arguments.value($0) != nil }
        guard given.count == 1, let option = given.first, let value = arguments.value(option) else {
            let list = names.map { "--\($0)" }
            throw KedgeError(
                .usage, "cannot tell which secret to \(verb): \(given.isEmpty ? "none is" : "several are") given",
                hint: "Give exactly one of \(list.dropLast().joined(separator: ", ")) and \(list[list.count - 1]).")
        }
        let key: KeySource
        switch option {
        case names[2]: key = .passphraseFile(value)
        case names[3]: key = .passphraseCommand(value)
        default: key = .keyFile(value)
        }
        if option == "generate-key" {
            // One that is there may be that of an attempt that was interrupted.
            if !surroundings.fileExists(value) { _ = try source.open(for: .write, random: surroundings.random) }
            try NewKeyFile(at: RawPath(value), random: surroundings.random)?.write(random: surroundings.random)
        }
        return (try namedSecret(key), key)
    }
}

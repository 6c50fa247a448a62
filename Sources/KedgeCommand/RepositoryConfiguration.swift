// One `[repository NAME]` of the configuration: where it lies, and what opens it.
package import KedgeCodec
import KedgeCore

/// One `[repository NAME]` with its defaults filled in.
package struct RepositoryConfiguration: Sendable {
    package let name: String
    package let place: RepositoryPlace
    package let compression: CompressionChoice
    /// Nil: `encryption = none`.
    package let keySource: KeySource?
    /// The work-directories of the clusters that use it, each once.
    package internal(set) var workDirectories: [String] = []
    /// What clusters were registered as, where that is not their present name.
    package internal(set) var registeredNames: [String: String] = [:]
}

/// Where a repository lies.
package enum RepositoryPlace: Sendable {
    /// A directory.
    case local(path: String)
    case s3(S3Configuration)

    /// The directory of a local repository; nil for any other.
    package var directory: String? { if case .local(let path) = self { path } else { nil } }

    /// What no other repository may have.
    package var description: String {
        switch self {
        case .local(let path): "path \"\(path)\""
        case .s3(let s3): "place \(s3.location)"
        }
    }
}

/// Where the secret that unwraps a repository's data keys comes from.
package enum KeySource: Hashable, Sendable {
    case keyFile(String)
    case passphraseFile(String)
    case passphraseCommand(String)

    /// How messages call it: never by the words of a command, which may hold what must not be shown.
    package var described: String {
        switch self {
        case .keyFile(let path): "key file \"\(path)\""
        case .passphraseFile(let path): "passphrase in \"\(path)\""
        case .passphraseCommand: "passphrase of passphrase-command"
        }
    }
}

extension RepositoryConfiguration {
    /// The section's values as they are needed. Throws `configuration`.
    init(_ section: LayeredSection, path file: String) throws(KedgeError) {
        name = section.name
        place = try RepositoryConfiguration.place(section, path: file)
        compression = section.compression("compression")
        let encryption = try section.requiredText(
            "encryption", why: "backups hold all data, so whether they are encrypted is never left to a default",
            example: "aes-256-gcm", file)
        let sources: [KeySource] = [
            section.text("key-file").map(KeySource.keyFile),
            section.text("passphrase-file").map(KeySource.passphraseFile),
            section.text("passphrase-command").map(KeySource.passphraseCommand),
        ].compactMap { $0 }
        let problem: String
        switch (encryption, sources.count) {
        case ("none", 0), ("aes-256-gcm", 1):
            keySource = sources.first
            return
        case ("none", _): problem = "It has encryption = none and a key as well, which contradict each other."
        case (_, 0): problem = "It has encryption = aes-256-gcm but no key."
        default: problem = "It has several of key-file, passphrase-file and passphrase-command."
        }
        throw KedgeError(
            .configuration, "cannot use configuration file \"\(file)\", line \(section.line): [repository \(name)]",
            detail: problem,
            hint: encryption == "none"
                ? "Remove key-file, passphrase-file and passphrase-command, or write encryption = aes-256-gcm."
                : "Set exactly one of key-file, passphrase-file and passphrase-command; "
                    + "\"kedge init --generate-key FILE\" makes a key file.")
    }
}

extension RepositoryConfiguration {
    /// Where the repository is. Throws `configuration`, also for keys that belong to another type: whoever wrote them
    /// expects them to do something.
    fileprivate static func place(
        _ section: LayeredSection, path file: String
    ) throws(KedgeError) -> RepositoryPlace {
        let isLocal = section.text("type") == "local"
        for key in isLocal ? S3Configuration.ownKeys : ["path"] where section.text(key) != nil {
            throw section.error(
                key, "key \"\(key)\" is for repositories of type \(isLocal ? "s3" : "local")",
                hint: isLocal ? "Remove it, or write type = s3." : "Remove it; bucket and prefix say where it is.", file
            )
        }
        guard isLocal else { return .s3(try S3Configuration(section, path: file)) }
        return .local(
            path: try section.requiredText(
                "path", why: "kedge must know where the repository is", example: "/var/lib/kedge", file))
    }
}

// Everything of Kedge's own on this host that no restore may remove.
import KedgeCore
import KedgeRepository

extension CommandContext {
    /// The repositories that are directories, and every file and directory that the configuration names, of all
    /// clusters: whichever of them is restored, the others need theirs as well.
    func keptPaths(_ configuration: Configuration) -> [KeptPath] {
        var kept: [KeptPath] = []
        func add(_ name: String, _ path: String?, _ kind: KeptPath.Kind = .other) {
            guard let path else { return }
            let found = KeptPath(kind, name, at: RawPath(absolute(path)))
            if !kept.contains(where: { $0.kind == kind && $0.places == found.places }) { kept.append(found) }
        }
        for repository in configuration.repositories {
            add("repository \"\(repository.name)\"", repository.place.directory, .repository)
        }
        for repository in configuration.repositories {
            let tail = "of repository \"\(repository.name)\""
            switch repository.keySource {
            case .keyFile(let path): add("the key file \(tail)", path)
            case .passphraseFile(let path): add("the passphrase file \(tail)", path)
            case .passphraseCommand, nil: break
            }
            guard case .s3(let s3) = repository.place else { continue }
            add("the ca-file \(tail)", s3.trustFile)
            add("the access-key-id-file \(tail)", s3.keyFiles?.accessKeyID)
            add("the secret-access-key-file \(tail)", s3.keyFiles?.secretAccessKey)
            if s3.keyFiles == nil {
                func variable(_ name: String) -> String? {
                    surroundings.environment.first { $0.name == name && !$0.value.isEmpty }?.value
                }
                add(
                    "the credentials file \(tail)",
                    variable("AWS_SHARED_CREDENTIALS_FILE") ?? variable("HOME").map { $0 + "/.aws/credentials" })
            }
        }
        add("the configuration file", configuration.path)
        for cluster in configuration.clusters {
            let tail = "of cluster \"\(cluster.name)\""
            add("the work-directory \(tail)", cluster.workDirectory)
            add("the drill-directory \(tail)", cluster.drill.directory)
            add("the drill-check file \(tail)", cluster.drill.checkFile)
        }
        // Only a path: tests have a name alone.
        if surroundings.host.executable.hasPrefix("/") { add("the program kedge", surroundings.host.executable) }
        return kept
    }
}

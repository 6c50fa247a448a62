// From a configured repository to what use cases open.
import KedgeCodec
package import KedgeCore
package import KedgeRepository

extension CommandContext {
    /// Where a repository is and how it is read; its secret is read now. Throws as `SecretReader.read`.
    package func source(of repository: RepositoryConfiguration) throws(KedgeError) -> RepositorySource {
        let secrets = SecretReader(readFile: surroundings.readFile, runShell: surroundings.runShell)
        var secret: KeyEncryptionSecret?
        if let source = repository.keySource { secret = try secrets.read(source) }
        let settings = RepositorySettings(
            name: repository.name, cipher: secret == nil ? .none : .aes256GCM, compression: repository.compression,
            secret: secret)
        let path = repository.path
        let random = surroundings.random
        // No retries around a directory: what fails there does not heal by itself within a minute.
        return RepositorySource(
            settings: settings,
            openStore: { () throws(KedgeError) in try LocalStore(at: path, random: random) },
            createStore: { () throws(KedgeError) in
                try LocalStore.createRoot(at: path)
                return try LocalStore(at: path, marker: nil, random: random)
            })
    }
}

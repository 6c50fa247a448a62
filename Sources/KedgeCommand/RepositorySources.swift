// From a configured repository to what use cases open.
package import KedgeCodec
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

extension CommandContext {
    /// Where a repository is and how it is read; its secret is read now, unless a new one is given. `retries` is for an
    /// object store. Throws as `SecretReader.read`.
    package func source(
        of repository: RepositoryConfiguration, retries: RetryPolicy = RetryPolicy(),
        newSecret: KeyEncryptionSecret? = nil
    ) throws(KedgeError) -> RepositorySource {
        let secrets = SecretReader(readFile: surroundings.readFile, runShell: surroundings.runShell)
        var secret = newSecret
        if secret == nil, let source = repository.keySource { secret = try secrets.read(source) }
        var settings = RepositorySettings(
            name: repository.name, cipher: secret == nil ? .none : .aes256GCM, compression: repository.compression,
            secret: secret, registeredNames: repository.registeredNames)
        if let source = repository.keySource { settings.secretName = source.described }
        let log = log
        settings.warn = { log.warn($0) }
        settings.keyMemory = surroundings.keyMemory?(repository.workDirectories) { log.warnOnce($0) }
        let place = repository.place.directory.map { "path \"\(absolute($0))\"" } ?? repository.place.description
        settings.placeMemory = surroundings.placeMemory?(place, repository.workDirectories) { log.warn($0) }
        let path: String
        switch repository.place {
        case .local(let directory): path = directory
        case .s3(let s3): return source(s3, settings, secrets, retries)
        }
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

    private func source(
        _ s3: S3Configuration, _ settings: RepositorySettings, _ secrets: SecretReader, _ retries: RetryPolicy
    ) -> RepositorySource {
        let (time, random, interruption) = (surroundings.time, surroundings.random, surroundings.interruption)
        let service = surroundings.environment.first { $0.name == "AWS_EC2_METADATA_SERVICE_ENDPOINT" }?.value
        let client = S3ClientSettings(
            location: s3.location,
            credentials: S3CredentialReader(
                s3.keyFiles, environment: surroundings.environment, secrets: secrets,
                fileExists: surroundings.fileExists,
                metadata: InstanceMetadata(
                    endpoint: service ?? InstanceMetadata.standardEndpoint, time: time, interruption: interruption)),
            trustFile: s3.trustFile, time: time, interruption: interruption)
        let log = log
        let store = S3Store(
            client, conditionalPut: s3.conditionalPut, keeping: s3.keeping, warn: { log.warn($0) })
        let retrying = RetryingStore(
            store, policy: retries, time: time, random: random, interruption: interruption)
        var source = RepositorySource(
            settings: settings, openStore: { () throws(KedgeError) in retrying },
            createStore: { () throws(KedgeError) in
                try store.confirmConditionalPut(random: random)
                return retrying
            })
        var hasty = client
        hasty.patience = .short
        let hastyStore = RetryingStore(
            S3Store(hasty, conditionalPut: s3.conditionalPut, keeping: s3.keeping), policy: .hasty,
            time: time, random: random, interruption: interruption)
        source.examineStore = { () throws(KedgeError) in try S3Doctor(store, random: random, time: time).run() }
        source.openHastyStore = { () throws(KedgeError) in hastyStore }
        return source
    }

    /// The sources of all of a cluster's repositories, in its order. One whose secret can't be read is one that can't
    /// be opened: the others serve all the same.
    package func sources(
        of cluster: ClusterConfiguration, in configuration: Configuration, retries: RetryPolicy = RetryPolicy()
    ) -> [RepositorySource] {
        configuration.repositories(of: cluster).map { repository in
            switch sourceOrFailure(of: repository, retries: retries) {
            case .success(let source): source
            case .failure(let error): .unusable(repository.name, error)
            }
        }
    }

    /// The same for commands that report what is wrong with one repository and go on with the next.
    package func sourceOrFailure(
        of repository: RepositoryConfiguration, retries: RetryPolicy = RetryPolicy()
    ) -> Result<RepositorySource, KedgeError> {
        do throws(KedgeError) {
            return .success(try source(of: repository, retries: retries))
        } catch {
            return .failure(error)
        }
    }

    /// A repository as `info` and its like take it.
    package func configured(
        _ repository: RepositoryConfiguration, retries: RetryPolicy = RetryPolicy()
    ) -> ConfiguredRepository {
        ConfiguredRepository(name: repository.name, source: sourceOrFailure(of: repository, retries: retries))
    }

    /// A path that means the same in any working directory.
    package func absolute(_ path: String) -> String {
        path.hasPrefix("/") ? path : surroundings.host.workingDirectory + "/" + path
    }

    /// Where `global/pg_control` is to be read for a command that PostgreSQL calls: it runs those in its data
    /// directory, which may be another one than is configured (a copy, or one behind a link; lesson 30).
    package func dataDirectory(of cluster: ClusterConfiguration) -> RawPath {
        surroundings.fileExists("global/pg_control") ? "." : RawPath(cluster.pgdata)
    }
}

extension ClusterConfiguration {
    /// How to reach the cluster's server.
    package var database: DatabaseSettings {
        var settings = DatabaseSettings()
        settings.host = host
        settings.port = port.map { String($0) }
        settings.user = user
        settings.dbname = dbname
        return settings
    }

    /// The primary, seen from a standby's host; nil where none is named.
    package var primaryDatabase: DatabaseSettings? {
        guard let primaryHost else { return nil }
        var settings = database
        settings.host = primaryHost
        settings.port = primaryPort.map { String($0) }
        return settings
    }
}

extension Duration {
    /// Whole nanoseconds; 0 for a negative duration.
    package var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}

// A running server that the built kedge protects: configuration, key, encrypted repository, archiving.
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// A server with everything that `kedge init` and a user's postgresql.conf would give it.
final class ProtectedCluster {
    let server: PostgresTestServer
    /// Where configuration, key and repository are, apart from the server.
    let directory: TemporaryDirectory

    var configuration: String { directory("kedge.conf") }
    var repository: String { directory("repository") }

    /// Makes and starts the server, initialises the repository and archives from the first segment on.
    init(
        _ installation: PostgresInstallation = .standard, walSegmentMiB: Int = 1, encrypted: Bool = true,
        configuration lines: [String] = [], store: S3TestServer? = nil
    ) throws {
        directory = try TemporaryDirectory()
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.walSegmentMiB = walSegmentMiB
        let command = "\(try KedgeBinary.path()) --config \(directory("kedge.conf")) archive-push %p"
        options.configuration =
            ["archive_mode = on", "archive_command = '\(command)'", "fsync = off", "wal_keep_size = 4GB"] + lines
        server = try PostgresTestServer(options)
        let encryption =
            encrypted ? "encryption = aes-256-gcm\nkey-file = \(directory("main.key"))" : "encryption = none"
        try write(
            directory("kedge.conf"),
            """
            [repository main]
            \(try place(store))
            \(encryption)
            [cluster main]
            pgdata = \(server.dataDirectory)
            host = \(server.directory.path)
            port = \(server.port)
            user = postgres
            dbname = postgres
            repositories = main
            process-max = 2
            work-directory = \(directory("work"))
            """)
        try ServerUser.run(["mkdir", "-m", "700", directory("work")])
        try kedge(["init"] + (encrypted ? ["--generate-key", directory("main.key")] : []))
        try server.start()
    }

    /// The keys that say where the repository is: a directory, or a prefix of its own in an object store.
    private func place(_ store: S3TestServer?) throws -> String {
        guard let store else { return "type = local\npath = \(repository)" }
        for (file, text) in [("id", store.accessKeyID), ("secret", store.secretAccessKey)] {
            try write(directory(file), text)
            try ServerUser.run(["chmod", "600", directory(file)])
        }
        return """
            type = s3
            endpoint = \(store.endpoint)
            region = \(store.region)
            bucket = \(store.bucket)
            prefix = \(store.newDirectory())
            access-key-id-file = \(directory("id"))
            secret-access-key-file = \(directory("secret"))
            conditional-put = \(store.hasConditionalPut ? "yes" : "no")
            """
    }

    /// Writes a file as the server's user.
    func write(_ path: String, _ text: String) throws {
        var command = ServerUser.command(["sh", "-c", "cat > \"$1\"", "sh", path])
        command.input = Array((text + "\n").utf8)
        try ServerUser.run(command)
    }

    /// Runs kedge, which must succeed. Returns its standard output.
    @discardableResult
    func kedge(_ arguments: [String]) throws -> String {
        let outcome = try attempt(arguments)
        guard outcome.status.isSuccess else {
            throw KedgeError(
                .defect, "kedge \(arguments.joined(separator: " ")) failed: \(outcome.status)",
                detail: outcome.errorText + outcome.outputText)
        }
        return outcome.outputText
    }

    /// Runs kedge, whatever comes of it.
    func attempt(_ arguments: [String]) throws -> Subprocess.Outcome {
        try KedgeBinary.run(["--config", configuration] + arguments, workingDirectory: directory.path)
    }

    /// Ends the present segment and waits until it is archived.
    func archiveEverything() throws {
        // Nothing is switched, and nothing archived, where nothing was written since the last switch.
        try server.psql("select pg_logical_emit_message(false, '', '')")
        let name = try server.value("select pg_walfile_name(pg_switch_wal())")
        try server.wait(until: "select last_archived_wal >= '\(name)' from pg_stat_archiver")
    }

    /// An empty place for a restored cluster, below a directory of its own.
    func scratch(_ name: String) -> String { directory(name) }
}

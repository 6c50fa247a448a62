// A real PostgreSQL server for one test: Unix socket only, in a directory of its own, gone with the test.
//
// The postmaster is our own child (no pg_ctl), so that its end is seen at once and a test can never hang on a server
// that died. Whoever waits, waits for a condition of the server, with a bound.
import Glibc
package import KedgeCore
package import KedgePostgres

/// A database cluster and, between `start` and `stop`, its server.
package final class PostgresTestServer {
    /// What a new database cluster is like.
    package struct Options: Sendable {
        package var installation = PostgresInstallation.standard
        package var dataChecksums = true
        /// A power of two from 1 to 1024. Small segments make short tests.
        package var walSegmentMiB = 16
        /// Lines appended to postgresql.conf.
        package var configuration: [String] = []
        /// Further arguments of initdb.
        package var initdbArguments: [String] = []

        package init() {}
    }

    package let installation: PostgresInstallation
    /// Holds the socket, the log and, for a new cluster, the data directory.
    package let directory: TemporaryDirectory
    package let dataDirectory: String
    /// The same for every server: the socket's directory tells them apart.
    package let port = 5432
    /// Further arguments of postgres, such as a `config_file` elsewhere.
    package var startArguments: [String] = []
    /// Nil while the server is down.
    private var postmaster: Postmaster?

    /// A class, since an optional of a noncopyable value cannot be changed in place.
    private final class Postmaster {
        var process: RunningProcess
        init(_ process: consuming RunningProcess) { self.process = process }
    }

    /// Makes a new database cluster; superuser `postgres`, locale C.UTF-8, no passwords. It is not started.
    ///
    /// `fsync` is off unless `options.configuration` turns it on.
    package init(_ options: Options = Options()) throws(KedgeError) {
        installation = options.installation
        directory = try TemporaryDirectory()
        dataDirectory = directory("data")
        var arguments = [
            installation.program("initdb"), "-D", dataDirectory, "-U", "postgres", "--auth=trust", "--no-sync",
            "--locale=C.UTF-8", "--encoding=UTF8", "--wal-segsize=\(options.walSegmentMiB)",
        ]
        if options.dataChecksums {
            arguments.append("--data-checksums")
        } else if installation.version >= 18 {
            arguments.append("--no-data-checksums")
        }
        try ServerUser.run(arguments + options.initdbArguments)
        let configuration =
            ["fsync = off", "max_wal_size = 256MB", "log_line_prefix = '%m [%p] '"] + options.configuration
        try appendConfiguration(configuration)
    }

    /// A server for a data directory that somebody else made, such as `kedge restore`. It is not started.
    package init(dataDirectory: String, installation: PostgresInstallation = .standard) throws(KedgeError) {
        self.installation = installation
        self.directory = try TemporaryDirectory()
        self.dataDirectory = dataDirectory
    }

    deinit {
        if let postmaster { PostgresTestServer.end(&postmaster.process, dataDirectory: dataDirectory) }
    }

    /// Appends lines to postgresql.conf. The server has to be reloaded or restarted for them.
    package func appendConfiguration(_ lines: [String]) throws(KedgeError) {
        var append = ServerUser.command(["sh", "-c", "cat >> \"$1\"", "sh", dataDirectory + "/postgresql.conf"])
        append.input = Array((lines.joined(separator: "\n") + "\n").utf8)
        try ServerUser.run(append)
    }

    // MARK: Running

    /// Starts the server and waits until it takes connections, as a primary or as a hot standby.
    ///
    /// Throws, with the server's log in the detail, if it ends before that or the time is over.
    package func start(timeout: Duration = .seconds(60)) throws(KedgeError) {
        try startWithoutWaiting()
        try wait(for: "connections", timeout: timeout) { () throws(KedgeError) in self.acceptsConnections }
    }

    /// Starts the server and returns at once; for servers that are expected to fail or to stop by themselves.
    package func startWithoutWaiting() throws(KedgeError) {
        let log = directory("log")
        let arguments = [
            installation.program("postgres"), "-D", dataDirectory, "-p", String(port), "-c", "listen_addresses=",
            "-c", "unix_socket_directories=\(directory.path)", "-c", "logging_collector=off",
        ]
        let process = try ServerUser.command(arguments + startArguments).start(output: .file(log), errors: .file(log))
        postmaster = Postmaster(process)
    }

    /// How `stop` ends the server.
    package enum StopMode: Sendable {
        /// Disconnects everybody and writes a shutdown checkpoint.
        case fast
        /// Ends without a checkpoint: the next start recovers.
        case immediate
    }

    /// Stops the server and waits for its end. A server that is down stays so.
    package func stop(_ mode: StopMode = .fast, timeout: Duration = .seconds(60)) throws(KedgeError) {
        guard let running = postmaster else { return }
        running.process.kill(mode == .fast ? SIGINT : SIGQUIT)
        guard try running.process.wait(timeout: timeout) != nil else { throw failure("could not stop the server") }
        postmaster = nil
    }

    /// Kills every process of the server with SIGKILL, as a crash would, and waits until all are gone.
    package func kill() throws(KedgeError) {
        guard let running = postmaster else { return }
        // Stopped first, the postmaster can neither start further children nor tell these to end in order.
        running.process.kill(SIGSTOP)
        let postmaster = running.process.id
        let children = (readTextFile("/proc/\(postmaster)/task/\(postmaster)/children") ?? "")
            .split(separator: " ").compactMap { pid_t($0) }
        for child in children { Glibc.kill(child, SIGKILL) }
        running.process.kill(SIGKILL)
        _ = try running.process.wait()
        self.postmaster = nil
        // A child that is not quite gone still holds the shared memory, and the next start would refuse.
        for child in children {
            while let state = readTextFile("/proc/\(child)/stat"), !state.contains(") Z ") { poll(nil, 0, 1) }
        }
    }

    /// Waits for a server that stops by itself. Nil if it still runs after `timeout`.
    package func waitForExit(timeout: Duration = .seconds(60)) throws(KedgeError) -> Subprocess.Status? {
        guard let running = postmaster else { return nil }
        let status = try running.process.wait(timeout: timeout)
        if status != nil { postmaster = nil }
        return status
    }

    /// Waits until the server's log is as `isThere` wants it; `what` says how. Throws if the time is over.
    package func wait(
        forLog what: String, timeout: Duration = .seconds(60), _ isThere: (String) -> Bool
    ) throws(KedgeError) {
        let deadline = ContinuousClock.now + timeout
        while !isThere(log) {
            guard ContinuousClock.now < deadline else { throw failure("could not wait any longer until \(what)") }
            poll(nil, 0, 20)
        }
    }

    /// Waits until `sql` gives the single value `value`. Throws if the server ends or the time is over.
    package func wait(
        until sql: String, is value: String = "t", timeout: Duration = .seconds(60)
    ) throws(KedgeError) {
        try wait(for: "\(sql) to be \(value)", timeout: timeout) { () throws(KedgeError) in
            self.acceptsConnections ? try self.value(sql) == value : false
        }
    }

    /// The postmaster's process id, for tests that look at /proc or send signals. Nil while the server is down.
    package var processID: Int32? { postmaster?.process.id }

    /// What postmaster.pid says, as pg_ctl reads it (src/include/utils/pidfile.h, LOCK_FILE_LINE_PM_STATUS).
    private var acceptsConnections: Bool {
        let lines = (readTextFile(dataDirectory + "/postmaster.pid") ?? "").split(
            separator: "\n", omittingEmptySubsequences: false)
        guard lines.count > 7, let process = postmaster?.process.id, lines[0] == String(process) else { return false }
        return lines[7].hasPrefix("ready") || lines[7].hasPrefix("standby")
    }

    private func wait(
        for what: String, timeout: Duration, until condition: () throws(KedgeError) -> Bool
    ) throws(KedgeError) {
        let deadline = ContinuousClock.now + timeout
        while try !condition() {
            guard let running = postmaster else { throw failure("could not wait for \(what): the server is down") }
            // The wait for the postmaster's end is what paces this loop.
            if let status = try running.process.wait(timeout: .milliseconds(20)) {
                postmaster = nil
                throw failure("could not wait for \(what): the server ended (\(status))")
            }
            guard ContinuousClock.now < deadline else { throw failure("could not wait for \(what) any longer") }
        }
    }

    private static func end(_ process: inout RunningProcess, dataDirectory: String) {
        process.kill(SIGQUIT)
        do {
            if try process.wait(timeout: .seconds(10)) == nil {
                print("a test server had to be killed: \(dataDirectory)")
            }
        } catch {
            print("could not stop a test server: \(error)")
        }
    }

    // MARK: Asking

    /// Runs SQL with psql, several statements allowed, each in its own transaction; throws the first error. Returns the
    /// rows of all statements, every value as text and null as the empty string; a value must hold no newline.
    @discardableResult
    package func psql(_ sql: String, database: String = "postgres") throws(KedgeError) -> [[String]] {
        var psql = ServerUser.command([
            installation.program("psql"), "-XqAt", "-F", "\u{1F}", "-R", "\u{1E}", "-v", "ON_ERROR_STOP=1", "-h",
            directory.path, "-p", String(port), "-U", "postgres", "-d", database, "-f", "-",
        ])
        psql.input = Array(sql.utf8)
        psql.timeout = .seconds(300)
        // psql ends each statement's rows, if there are any, with a newline in place of the last record separator.
        let rows = try ServerUser.run(psql).split(omittingEmptySubsequences: false) { $0 == "\u{1E}" || $0 == "\n" }
        return rows.dropLast().map { row in
            row.split(separator: "\u{1F}", omittingEmptySubsequences: false).map { String($0) }
        }
    }

    /// The one value that `sql` gives.
    package func value(_ sql: String, database: String = "postgres") throws(KedgeError) -> String {
        let rows = try psql(sql, database: database)
        guard rows.count == 1, rows[0].count == 1 else {
            throw KedgeError(.defect, "query \"\(sql)\" gave \(rows) and not one value")
        }
        return rows[0][0]
    }

    /// Runs one of PostgreSQL's programs as the server's user. A status other than 0 is an error, with both outputs.
    @discardableResult
    package func tool(_ name: String, _ arguments: [String]) throws(KedgeError) -> String {
        try ServerUser.run([installation.program(name)] + arguments)
    }

    /// What pgbench and other clients need to connect.
    package var connectionArguments: [String] { ["-h", directory.path, "-p", String(port), "-U", "postgres"] }

    /// How kedge reaches this server, as superuser.
    package var databaseSettings: DatabaseSettings {
        var settings = DatabaseSettings()
        settings.host = directory.path
        settings.port = String(port)
        settings.user = "postgres"
        settings.dbname = "postgres"
        return settings
    }

    /// Everything that the server has logged.
    package var log: String { readTextFile(directory("log")) ?? "" }

    private func failure(_ message: String) -> KedgeError {
        KedgeError(
            .databaseUnavailable, message, detail: "\(installation), \(dataDirectory); its log:\n\(log.suffix(8000))")
    }
}

/// The file's text with invalid UTF-8 repaired. Nil if it cannot be opened.
package func readTextFile(_ path: String) -> String? {
    guard let file = fopen(path, "re") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = fread(&buffer, 1, buffer.count, file)
        if count == 0 { break }
        bytes.append(contentsOf: buffer[..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
}

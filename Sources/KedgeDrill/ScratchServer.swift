// The server of a drill: our own child, told to stop by the kernel when we end, watched by its process descriptor and
// by the status line of its postmaster.pid (src/include/utils/pidfile.h).

import Glibc
package import KedgeCore
package import KedgePostgres

/// A server in a scratch directory.
package final class ScratchServer {
    private let programs: ServerPrograms
    private let scratch: ScratchDirectory
    private let interruption: Interruption
    private var running: Running?
    /// How it ended; nil while it runs, and before it was started.
    package private(set) var ended: Subprocess.Status?

    /// A class, since an optional of a noncopyable value cannot be changed in place.
    private final class Running {
        var process: RunningProcess
        init(_ process: consuming RunningProcess) { self.process = process }
    }

    package init(_ programs: ServerPrograms, _ scratch: ScratchDirectory, interruption: Interruption) {
        self.programs = programs
        self.scratch = scratch
        self.interruption = interruption
    }

    /// Starts it and returns at once. `mayOutliveUs`: it was asked for that it stays.
    package func start(configurationFile: RawPath, mayOutliveUs: Bool) throws(KedgeError) {
        var process = Subprocess([
            programs.server.description, "-D", scratch.data.description, "-c",
            "config_file=\(configurationFile)",
        ])
        process.workingDirectory = scratch.path.text
        // The server refuses to start where LC_ALL names a locale that is not there; its own settings say the rest.
        process.environment = ["LC_ALL": "C", "LANG": nil, "PGDATA": nil]
        // Immediate shutdown: nobody needs what is in there.
        process.bond = mayOutliveUs ? .ownSession : .endsWithUs(signal: SIGQUIT)
        let log = scratch.log.description
        running = Running(try process.start(output: .file(log), errors: .file(log)))
        ended = nil
    }

    package var processID: Int32? { running?.process.id }

    /// What the server's status line says.
    package enum Status: Hashable, Sendable {
        case starting
        /// Takes connections, as a hot standby or as a primary.
        case connectable
        case ended(Subprocess.Status)
    }

    /// Looks, after at most `milliseconds`.
    package func status(after milliseconds: Int) throws(KedgeError) -> Status {
        guard let running else { return .ended(ended ?? .exited(0)) }
        if let status = try running.process.wait(timeout: .milliseconds(milliseconds)) {
            self.running = nil
            ended = status
            return .ended(status)
        }
        try interruption.checkpoint()
        let path = scratch.data.appending("postmaster.pid")
        let bytes: [UInt8]
        do throws(KedgeError) {
            bytes = try FileDescriptor.open(path, .read).read(count: 4096, at: 0)
        } catch  where error.code == .notFound {
            return .starting
        }
        let lines = bytes.split(separator: 0x0A, omittingEmptySubsequences: false)
        guard lines.count > 7, String(decoding: lines[0], as: UTF8.self) == String(running.process.id) else {
            return .starting
        }
        let word = String(decoding: lines[7].prefix { $0 != 0x20 }, as: UTF8.self)
        return word == "ready" || word == "standby" ? .connectable : .starting
    }

    /// Stops it at once, without a checkpoint. Never interrupted.
    package func stopNow(time: any TimeSource) throws(KedgeError) {
        guard let running else { return }
        running.process.kill(SIGQUIT)
        if try running.process.wait(timeout: .seconds(20)) == nil {
            running.process.kill(SIGKILL)
            _ = try running.process.wait(timeout: .seconds(20))
        }
        self.running = nil
    }

    /// Lets it run when we end: nothing of ours looks after it any more.
    package func release() {
        running?.process.release()
        running = nil
    }

    /// The end of the server's log.
    package func log(limit: Int = 256 << 10) throws(KedgeError) -> String {
        do throws(KedgeError) {
            let file = try FileDescriptor.open(scratch.log, .read)
            let size = try file.status().sizeBytes
            let start = size > UInt64(limit) ? size - UInt64(limit) : 0
            return String(decoding: try file.read(count: limit, at: start), as: UTF8.self)
        } catch  where error.code == .notFound {
            return ""
        }
    }

    /// What a session sets at once: the restored databases and roles may have settings of their own (ALTER DATABASE …
    /// SET), which these win over. Such a setting could need a library that is not here, or hide a damaged page.
    static let sessionOptions = [
        "session_preload_libraries=", "local_preload_libraries=", "default_transaction_read_only=off",
        "zero_damaged_pages=off", "ignore_checksum_failure=off", "statement_timeout=0",
    ].map { "-c \($0)" }.joined(separator: " ")

    /// How to reach a database of it. Every keyword that libpq would look up elsewhere has a value here.
    package func database(_ name: String, user: String) -> DatabaseSettings {
        var settings = DatabaseSettings()
        settings.host = scratch.socketDirectory.description
        settings.port = String(ScratchDirectory.port)
        settings.user = user
        settings.dbname = name
        settings.others = [
            "sslmode": "disable", "gssencmode": "disable", "application_name": "kedge drill",
            "options": ScratchServer.sessionOptions,
        ]
        return settings
    }
}

/// What a server's log says, in the words that PostgreSQL uses under `lc_messages = C`. Pure.
package struct ServerLog: Sendable {
    package let lines: [Substring]

    package init(_ text: String) { lines = text.split(separator: "\n") }

    /// The settings that replay complained about, with the value that it wants
    /// (src/backend/access/transam/xlogrecovery.c, RecoveryRequiresIntParameter; 13 ends with a FATAL of xlog.c).
    package var insufficient: [(name: String, wanted: Int32)] {
        var found: [(String, Int32)] = []
        let introduction = "hot standby is not possible because "
        for line in lines {
            guard var text = ServerLog.text(line, "DETAIL:") ?? ServerLog.text(line, "FATAL:") else { continue }
            // "max_connections = 10 is a lower setting than on the primary server, where its value was 200."
            // "… because max_connections = 10 is a lower setting than on the master server (its value was 200)"
            if text.hasPrefix(introduction) { text = String(text.dropFirst(introduction.count)) }
            let words = text.split(separator: " ")
            guard words.count > 6, words[1] == "=", text.contains(" is a lower setting than on the "),
                let wanted = words.last.flatMap({ Int32($0.filter(\.isNumber)) })
            else { continue }
            found.append((String(words[0]), wanted))
        }
        return found
    }

    /// The last FATAL, PANIC or ERROR of the server, with its DETAIL and HINT, as one sentence or more.
    package var lastFailure: String? {
        let index = lines.lastIndex { line in
            ["FATAL:", "PANIC:"].contains { ServerLog.text(line, $0) != nil }
                && !line.contains("the database system is")
        }
        guard let index else { return nil }
        var parts: [String] = []
        for (offset, line) in lines[index...].prefix(3).enumerated() {
            for word in offset == 0 ? ["FATAL:", "PANIC:"] : ["DETAIL:", "HINT:"] {
                if let text = ServerLog.text(line, word) { parts.append(text) }
            }
        }
        return parts.joined(separator: "; ")
    }

    /// Whether a server got as far as to read the backup's first WAL record: before that it only looks at this host and
    /// at its settings (src/backend/access/transam/xlogrecovery.c, InitWalRecovery).
    package var hasBegunRecovery: Bool {
        lines.contains { line in
            ServerLog.text(line, "LOG:").map { $0.hasPrefix("starting ") && $0.contains(" recovery") } ?? false
        }
    }

    /// The line about a process of the server that was killed, as the kernel does where memory runs out.
    package var killedProcess: String? {
        lines.lazy.compactMap { ServerLog.text($0, "LOG:") }.first { $0.contains(" was terminated by signal 9") }
    }

    /// The code of the last error that kedge itself reported as restore_command; nil where there is none.
    package var archiveGetFailure: (code: ErrorCode, message: String)? {
        guard let index = lines.lastIndex(where: { $0.hasPrefix("code: ") }),
            let code = ErrorCode(rawValue: String(lines[index].dropFirst(6)))
        else { return nil }
        let prefix = "kedge: error: "
        let message = lines[..<index].last { $0.hasPrefix(prefix) }?.dropFirst(prefix.count)
        return (code, message.map(String.init) ?? "")
    }

    private static func text(_ line: Substring, _ severity: String) -> String? {
        // "2026-11-21 02:00:00.000 UTC [1234] LOG:  text"
        guard let end = line.firstIndex(of: "]") else { return nil }
        let rest = line[end...].dropFirst(2)
        return rest.hasPrefix(severity + "  ") ? String(rest.dropFirst(severity.count + 2)) : nil
    }
}

// The built `kedge`, run as the user that runs the servers.
import Glibc
package import KedgeCore

/// The binary under test: what KEDGE_BINARY names (`scripts/test.sh` sets it), else what lies beside the running tests.
package enum KedgeBinary {
    /// Where the binary can be run from by the server's user; for `archive_command` and the like.
    ///
    /// It is a copy: a checkout below a home directory with mode 0700 is out of that user's reach.
    package static func path() throws(KedgeError) -> String { try copy.get().directory("kedge") }

    /// Runs `kedge ARGUMENTS` to its end. `environment` comes on top of the tests' own.
    package static func run(
        _ arguments: [String], environment: [String: String?] = [:], workingDirectory: String? = nil,
        timeout: Duration = .seconds(300)
    ) throws(KedgeError) -> Subprocess.Outcome {
        try command(arguments, environment: environment, workingDirectory: workingDirectory, timeout: timeout).run()
    }

    /// The same as a value, for `start` and for input.
    package static func command(
        _ arguments: [String], environment: [String: String?] = [:], workingDirectory: String? = nil,
        timeout: Duration = .seconds(300)
    ) throws(KedgeError) -> Subprocess {
        var command = ServerUser.command([try path()] + arguments)
        // The tests' own variables are not kedge's, and it would say so.
        for name in ["SERVERS", "SOAK", "POSTGRES", "SEED", "DIRECTORY", "KILLS", "HISTORIES", "S3"] {
            command.environment.updateValue(nil, forKey: "KEDGE_TEST_" + name)
        }
        command.environment.updateValue(nil, forKey: "KEDGE_BINARY")
        command.environment.merge(environment) { _, new in new }
        command.workingDirectory = workingDirectory ?? "/"
        command.timeout = timeout
        return command
    }

    private struct Copy: Sendable {
        let directory: TemporaryDirectory
    }

    private static let copy: Result<Copy, KedgeError> = makeCopy()

    private static func makeCopy() -> Result<Copy, KedgeError> {
        do throws(KedgeError) {
            let source = try built()
            let directory = try TemporaryDirectory()
            // The directory is the server user's; install(1) leaves a file that it can run and not change.
            let outcome = try Subprocess(["install", "-m", "0755", source, directory("kedge")]).run()
            guard outcome.status.isSuccess else {
                throw KedgeError(.inputOutput, "could not copy \"\(source)\": \(outcome.errorText)")
            }
            // Globals are never deinitialised, so the copy is removed when the tests end.
            removeAtExit = directory.path
            atexit {
                guard let path = KedgeBinary.removeAtExit else { return }
                unlink(path + "/kedge")
                rmdir(path)
            }
            return .success(Copy(directory: directory))
        } catch {
            return .failure(error)
        }
    }

    /// Written once, before `atexit` is told about it.
    nonisolated(unsafe) private static var removeAtExit: String?

    private static func built() throws(KedgeError) -> String {
        if let variable = getenv("KEDGE_BINARY") { return String(cString: variable) }
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        let program = String(decoding: buffer.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = program.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/kedge"
        guard access(path, X_OK) == 0 else {
            throw KedgeError(
                .notFound, "could not find the kedge binary beside \"\(program)\"",
                hint: "Set KEDGE_BINARY to its path.")
        }
        return path
    }
}

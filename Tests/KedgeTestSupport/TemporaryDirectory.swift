// A directory of a test's own. Short, since a Unix socket's path has at most 107 bytes, and usable by the operating
// system user that runs the servers.
import CTestSupport
import Glibc
package import KedgeCore

/// A new directory `/tmp/k.XXXXXX` (below KEDGE_TEST_DIRECTORY if that is set, as `scripts/test.sh` does), removed with
/// all that is in it when this value goes away.
package final class TemporaryDirectory: Sendable {
    /// Absolute, without a slash at the end.
    package let path: String

    /// Makes the directory, mode 0700, owned by the user that runs servers (`ServerUser`).
    ///
    /// `inMemory` asks for a file system without a disk, where there is one: for what syncs file systems hundreds of
    /// times.
    package init(inMemory: Bool = false) throws(KedgeError) {
        var parent = getenv("KEDGE_TEST_DIRECTORY").map { String(cString: $0) } ?? "/tmp"
        if inMemory, access("/dev/shm", W_OK) == 0 { parent = "/dev/shm" }
        var template = Array("\(parent)/k.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw KedgeError(.inputOutput, "could not make a temporary directory: \(String(cString: strerror(errno)))")
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try ServerUser.own(path)
    }

    /// The path of `name` in this directory.
    package func callAsFunction(_ name: String) -> String { path + "/" + name }

    deinit {
        do {
            _ = try Subprocess(["rm", "-rf", "--", path]).run()
        } catch {
            print("could not remove \(path): \(error)")
        }
    }
}

/// The operating system user that runs PostgreSQL and the built binary in tests: a server refuses to run as root, so
/// under root it is `postgres`; otherwise ourselves.
package enum ServerUser {
    /// Whether commands have to change to `postgres` first.
    package static let isAnother = getuid() == 0

    /// `arguments`, to be run as this user. The process id stays the program's own: nothing stands in between.
    package static func command(_ arguments: [String]) -> Subprocess {
        guard isAnother else { return Subprocess(arguments) }
        var command = Subprocess(
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] + arguments)
        command.environment = ["HOME": "/nonexistent", "USER": "postgres", "LOGNAME": "postgres"]
        return command
    }

    /// Where we are root: gives the calling thread, and those that it starts, no more rights on files than this user
    /// has.
    package static func useFileRights() {
        guard isAnother, let user = getpwnam("postgres") else { return }
        ctest_use_file_rights(user.pointee.pw_uid, user.pointee.pw_gid)
    }

    /// Runs a command as this user and returns its output. A status other than 0 is an error, with both outputs.
    @discardableResult
    package static func run(_ arguments: [String]) throws(KedgeError) -> String { try run(command(arguments)) }

    /// The same for a command that was made by `command` and changed.
    @discardableResult
    package static func run(_ command: Subprocess) throws(KedgeError) -> String {
        let outcome = try command.run()
        guard outcome.status.isSuccess else {
            throw KedgeError(
                .inputOutput, "command \(command.arguments) failed: \(outcome.status)",
                detail: "\(outcome.errorText)\n\(outcome.outputText)")
        }
        return outcome.outputText
    }

    /// Gives the file or directory at `path` (not what is in it) to this user.
    package static func own(_ path: String) throws(KedgeError) {
        guard isAnother else { return }
        let outcome = try Subprocess(["chown", "postgres:postgres", path]).run()
        guard outcome.status.isSuccess else {
            throw KedgeError(.permission, "could not give \"\(path)\" to user postgres: \(outcome.errorText)")
        }
    }
}

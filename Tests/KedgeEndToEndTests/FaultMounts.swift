// File systems of a test's own: small ones, and ones that never answer. Both need root and the right to mount.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

/// A tmpfs that is mounted at a path until this value goes away.
final class SmallFileSystem {
    let path: String

    /// Whether this process may mount one.
    static let isAvailable: Bool = {
        do {
            let place = try TemporaryDirectory()
            _ = try SmallFileSystem(at: place.path, "size=64k")
            return true
        } catch {
            return false
        }
    }()

    /// Mounts an empty tmpfs over the directory `path` with mount(8)'s `options`, owned by the user that runs servers.
    init(at path: String, _ options: String) throws {
        self.path = path
        try asRoot(["mount", "-t", "tmpfs", "-o", options + ",mode=0700", "kedge-test", path])
        try ServerUser.own(path)
    }

    deinit {
        do {
            try asRoot(["umount", "--lazy", path])
        } catch {
            // The test has unmounted it itself.
        }
    }

    func remount(_ options: String) throws { try asRoot(["mount", "-o", "remount," + options, path]) }

    /// Takes all free bytes but `left`, with a file that `freeAll` removes.
    func fill(leaving left: UInt64) throws {
        try freeAll()
        let free = try FileSystemSpace(near: RawPath(path)).freeBytes
        try asRoot(["fallocate", "-l", String(free > left ? free - left : 1), ballast])
    }

    func freeAll() throws { try asRoot(["rm", "-f", ballast]) }

    private var ballast: String { path + "/lost+found" }

    /// What commands left behind that nobody will look for.
    func leftovers() throws -> String { try asRoot(["find", path, "-name", ".kedge~*"]) }
}

/// A file system whose server never answers, mounted at a path until this value goes away: whoever touches it hangs in
/// the kernel, as on a network mount whose server is gone. (FUSE; nobody ever reads what the kernel asks.)
final class StalledFileSystem {
    let path: String
    private var device: Int32

    static let isAvailable: Bool = {
        do {
            let place = try TemporaryDirectory()
            _ = try StalledFileSystem(at: place.path)
            return true
        } catch {
            return false
        }
    }()

    init(at path: String) throws {
        self.path = path
        device = open("/dev/fuse", O_RDWR | O_CLOEXEC)
        guard device >= 0 else { throw KedgeError(.notSupported, "could not open /dev/fuse") }
        let options = "fd=\(device),rootmode=40000,user_id=0,group_id=0,allow_other"
        let failure = options.withCString { mount("kedge-test", path, "fuse", UInt(MS_NOSUID), $0) }
        guard failure == 0 else {
            close(device)
            throw KedgeError(.notSupported, "could not mount a FUSE file system: error \(errno)")
        }
    }

    /// The server behind the mount dies: what hangs gets an error, and so does whoever comes later.
    func breakConnection() {
        if device >= 0 { close(device) }
        device = -1
    }

    deinit {
        breakConnection()
        umount2(path, Int32(MNT_DETACH))
    }
}

/// Runs a command as root. A status other than 0 is an error.
@discardableResult
func asRoot(_ arguments: [String]) throws -> String {
    let outcome = try Subprocess(arguments).run()
    guard outcome.status.isSuccess else {
        throw KedgeError(.inputOutput, "command \(arguments) failed: \(outcome.status)", detail: outcome.errorText)
    }
    return outcome.outputText
}

extension ProtectedCluster {
    /// Moves the repository to a small file system of its own, mounted where it was.
    func moveRepository(to options: String) throws -> SmallFileSystem {
        try ServerUser.run(["mv", repository, repository + ".original"])
        try ServerUser.run(["mkdir", "-m", "750", repository])
        let mounted = try SmallFileSystem(at: repository, options)
        try ServerUser.run(["cp", "-a", repository + ".original/.", repository + "/"])
        return mounted
    }

    /// Runs kedge as `archive_command` and `restore_command` do: in the data directory.
    func attemptInDataDirectory(
        _ arguments: [String], environment: [String: String?] = [:]
    ) throws -> Subprocess.Outcome {
        try KedgeBinary.run(
            ["--config", configuration] + arguments, environment: environment,
            workingDirectory: server.dataDirectory)
    }

    /// Ends the present segment, in which there is something, and returns its name.
    func endedSegment() throws -> String {
        try server.psql("create table if not exists filler (text text)")
        try server.psql("insert into filler select md5(random()::text) from generate_series(1, 1000)")
        return try server.value("select pg_walfile_name(pg_switch_wal())")
    }

    /// The same, once it is archived.
    func archivedSegment() throws -> String {
        let name = try endedSegment()
        try server.wait(until: "select last_archived_wal >= '\(name)' from pg_stat_archiver")
        return name
    }

    /// Whether the server believes that a backup runs.
    func hasBackupSession() throws -> Bool {
        try server.value("select count(*) from pg_stat_activity where application_name = 'kedge'") != "0"
    }
}

// The work-directory: scratch files, and notes that only save time.
//
// Its default lies below /tmp, where anybody could have put something of that name: so whatever is there must be a
// directory of our own that nobody else can write to, and not a symbolic link to one.
package import KedgeCore

/// Makes and checks the work directory.
package enum WorkDirectory {
    /// Makes the directory, mode 0700, unless it is there, and checks that it is safe. `user` is our effective user id,
    /// `key` the key that names the directory.
    ///
    /// Throws `permission` where it is not ours or others can write to it, or what making it failed with.
    package static func prepare(
        _ path: String, user: UInt32, key: String = "work-directory"
    ) throws(KedgeError) {
        if try exists(path, user: user, key: key) { return }
        if try Directory.create(at: RawPath(path), mode: 0o700) { return }
        _ = try exists(path, user: user, key: key)
    }

    /// Whether the directory is there. Throws `permission` where it is not safe.
    package static func exists(
        _ path: String, user: UInt32, key: String = "work-directory"
    ) throws(KedgeError) -> Bool {
        let status: FileStatus
        do {
            status = try FileStatus(at: RawPath(path))
        } catch  where error.code == .notFound {
            return false
        }
        if let problem = problem(status, user: user) { throw unsafe(path, key, problem) }
        return true
    }

    private static func unsafe(_ path: String, _ key: String, _ problem: String) -> KedgeError {
        KedgeError(
            .permission, "cannot use \(String(key.map { $0 == "-" ? " " : $0 })) \"\(path)\"", detail: problem,
            hint: "Remove it after a look at it, or set \(key) to another path.")
    }

    private static func problem(_ status: FileStatus, user: UInt32) -> String? {
        if status.kind != .directory { return "It is not a directory." }
        if status.user != user {
            return "It belongs to the user with id \(status.user), but this process runs as user id \(user)."
        }
        if status.mode & 0o022 != 0 { return "Other users can write to it." }
        return nil
    }
}

// A lock between the kedge processes of one host: flock(2) on a file that says who holds it.
//
// The kernel frees the lock when its holder ends, however it ends. The file stays: removing it would let two processes
// lock two different files of one name.

import Glibc

/// A held lock; it is given back when this value is freed.
package final class FileLock: Sendable {
    private let file: FileDescriptor

    /// Takes the lock file at `path`, which is made if it is missing, at once or not at all.
    ///
    /// `purpose` says in a few words what is being done, for others to read ("backup of cluster main"). Throws `locked`
    /// with the holder's words when somebody has it.
    package init(at path: RawPath, purpose: String, time: any TimeSource) throws(KedgeError) {
        file = try FileDescriptor.open(path, [.read, .write, .create])
        while flock(file.number, LOCK_EX | LOCK_NB) != 0 {
            let failure = errno
            if failure == EINTR { continue }
            guard failure == EWOULDBLOCK else { throw systemError("lock file", path, errno: failure) }
            throw FileLock.held(try file.read(count: FileLock.maximumTextBytes, at: 0), path, purpose)
        }
        let text = "process \(getpid()): \(purpose), since \(time.now())\n"
        try file.truncate(to: 0)
        try file.write(Array(text.utf8.prefix(FileLock.maximumTextBytes)), at: 0)
    }

    /// Whether the file is still the one at its path. Where somebody removed it another process may hold a lock as
    /// well.
    package func isCurrent() throws(KedgeError) -> Bool { try file.isStill(at: file.path) }

    /// Unlocks rather than just closes: a child that another thread is about to start holds a copy of the descriptor
    /// until its exec, and with it the lock (flock(2): duplicates refer to the same lock).
    deinit { flock(file.number, LOCK_UN) }

    private static func held(_ text: [UInt8], _ path: RawPath, _ purpose: String) -> KedgeError {
        let holder = RawPath(bytes: text.prefix { $0 != 0x0A }).description
        return KedgeError(
            .locked, "could not take lock file \"\(path)\" for \(purpose)",
            // Its holder may have locked it and not have written yet.
            detail: holder.isEmpty ? "Another kedge process holds it." : "It is held by \(holder).",
            hint: "Wait until that process has ended, or end it, and run the command again.")
    }

    private static let maximumTextBytes = 512
}

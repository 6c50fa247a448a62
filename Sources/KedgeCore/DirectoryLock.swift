// A lock on a directory itself, by flock(2): nothing is written into it, and nothing is left.
//
// The kernel keeps it with the directory, under whatever name that is reached, and frees it when its holder ends,
// however it ends. It holds among the processes of one host.

import Glibc

/// A directory that this process has locked; unlocked when this value is freed.
package final class DirectoryLock: Sendable {
    private let directory: FileDescriptor

    /// Locks the directory at `path`, following links, at once or not at all: nil where somebody else has it.
    ///
    /// Throws what opening and locking throw, `not-found` where there is none.
    package init?(_ path: RawPath) throws(KedgeError) {
        let directory = try FileDescriptor.open(path, [.read, .directory])
        while flock(directory.number, LOCK_EX | LOCK_NB) != 0 {
            let failure = errno
            if failure == EINTR { continue }
            guard failure == EWOULDBLOCK else { throw systemError("lock directory", path, errno: failure) }
            return nil
        }
        self.directory = directory
    }

    /// See FileLock.
    deinit { flock(directory.number, LOCK_UN) }
}

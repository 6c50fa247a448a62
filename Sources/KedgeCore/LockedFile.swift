// A file whose lock says that its maker is alive: the kernel gives the lock back when the process ends, however it
// ends.
//
// Unlike `FileLock`'s the file holds what its maker likes and may be removed. So whoever has locked it looks whether it
// still is what the name stands for: another process may have removed it just before.

import Glibc

/// A file that this process has locked; unlocked when this value is freed.
package final class LockedFile: Sendable {
    private let file: FileDescriptor
    package let path: RawPath

    private init(_ file: consuming FileDescriptor, path: RawPath) {
        self.file = file
        self.path = path
    }

    /// See FileLock.
    deinit { flock(file.number, LOCK_UN) }

    /// Makes the file with exactly this content, locked from the first byte on, and durable. Throws `already-exists`.
    package static func create(at path: RawPath, _ content: [UInt8]) throws(KedgeError) -> LockedFile {
        while true {
            let file = try FileDescriptor.open(path, [.read, .write, .create, .exclusive, .noFollow], mode: 0o600)
            // Somebody who looks for abandoned files may have been quicker with an empty one.
            guard try lock(file), try file.isStill(at: path) else { continue }
            let locked = LockedFile(file, path: path)
            try locked.file.write(content, at: 0)
            try locked.file.sync()
            try Directory.sync(path.parent)
            return locked
        }
    }

    /// Locks the file that is there. Nil where somebody else has it, or it is gone.
    package static func take(_ path: RawPath) throws(KedgeError) -> LockedFile? {
        do throws(KedgeError) {
            let file = try FileDescriptor.open(path, [.read, .write, .noFollow])
            guard try lock(file), try file.isStill(at: path) else { return nil }
            return LockedFile(file, path: path)
        } catch  where error.code == .notFound {
            return nil
        }
    }

    /// The first `limit` bytes.
    package func read(limit: Int) throws(KedgeError) -> [UInt8] { try file.read(count: limit, at: 0) }

    /// Removes the file.
    package func remove() throws(KedgeError) { try FileSystem.removeFile(at: path) }

    private static func lock(_ file: borrowing FileDescriptor) throws(KedgeError) -> Bool {
        while flock(file.number, LOCK_EX | LOCK_NB) != 0 {
            let failure = errno
            if failure == EINTR { continue }
            guard failure == EWOULDBLOCK else { throw systemError("lock file", file.path, errno: failure) }
            return false
        }
        return true
    }
}

extension FileDescriptor {
    /// Whether this is the file that lies at `path` now: it may have been removed, and another one made there.
    borrowing func isStill(at path: RawPath) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            let (own, named) = (try status(), try FileStatus(at: path))
            return own.inode == named.inode && own.device == named.device
        } catch  where error.code == .notFound {
            return false
        }
    }
}

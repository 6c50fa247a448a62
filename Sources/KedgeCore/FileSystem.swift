// Single changes to the tree of files, named as the system calls they are. None is durable until the directory is
// synced.

import CSystem
import Glibc

/// What can be done with entries of directories.
package enum FileSystem {
    /// The directory in which a file system's check collects what belongs nowhere: in the root of a mount, and root's.
    package static let ownDirectory: RawPath = "lost+found"

    /// Whether anything, even a dangling link, is at `path`. Throws where that cannot be found out.
    package static func exists(_ path: RawPath) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            _ = try FileStatus(at: path)
            return true
        } catch  where error.code == .notFound {
            return false
        }
    }

    /// Makes the umask withhold nothing from the owner: with one that does, we could not enter the directories that we
    /// make. What it withholds from others stays so. To be called before anything is made.
    package static func keepRightsOfOwner() {
        let present = umask(0o077)
        umask(present & 0o077)
    }

    /// Removes a file or a link. Throws `not-found` where there is none.
    package static func removeFile(at path: RawPath) throws(KedgeError) {
        try change("remove file", path) { unlink($0) }
    }

    /// Removes a file or a link below an open directory.
    package static func removeFile(_ name: RawPath, in directory: borrowing FileDescriptor) throws(KedgeError) {
        let number = directory.number
        try change("remove file", name, below: directory.path) { unlinkat(number, $0, 0) }
    }

    /// Makes a directory below an open one; returns false where something has the name. The umask narrows `mode`.
    package static func makeDirectory(
        _ name: RawPath, in directory: borrowing FileDescriptor, mode: UInt32
    ) throws(KedgeError) -> Bool {
        let number = directory.number
        var isCreated = true
        try change("create directory", name, below: directory.path) { path in
            guard mkdirat(number, path, mode) != 0 else { return 0 }
            isCreated = false
            return errno == EEXIST ? 0 : -1
        }
        return isCreated
    }

    /// Removes an empty directory; returns false where it is not empty, not there, or a link to one.
    package static func removeEmptyDirectory(
        _ name: RawPath, in directory: borrowing FileDescriptor
    ) throws(KedgeError) -> Bool {
        let number = directory.number
        var failure: Int32 = 0
        try change("remove directory", name, below: directory.path) { path in
            guard unlinkat(number, path, AT_REMOVEDIR) != 0 else { return 0 }
            failure = errno
            if [ENOTEMPTY, EEXIST, ENOENT, ENOTDIR, EBUSY].contains(failure) { return 0 }
            errno = failure
            return -1
        }
        return failure == 0
    }

    /// Removes an empty directory.
    package static func removeDirectory(at path: RawPath) throws(KedgeError) {
        try change("remove directory", path) { rmdir($0) }
    }

    /// Moves `path`, replacing what is at `target`.
    package static func rename(_ path: RawPath, to target: RawPath) throws(KedgeError) {
        let failure = try target.withCPath { target throws(KedgeError) in
            try path.withCPath { path throws(KedgeError) in
                Glibc.rename(path, target) == 0 ? 0 : errno
            }
        }
        guard failure == 0 else {
            throw systemError("move to \"\(target)\" the file", path, errno: failure)
        }
    }

    /// Moves an entry of one open directory into another, or within one, replacing a file that has the new name.
    package static func rename(
        _ name: RawPath, in directory: borrowing FileDescriptor, to newName: RawPath,
        in target: borrowing FileDescriptor
    ) throws(KedgeError) {
        let (from, to) = (directory.number, target.number)
        let failure = try newName.withCPath { newName throws(KedgeError) in
            try name.withCPath { name throws(KedgeError) in
                renameat(from, name, to, newName) == 0 ? 0 : errno
            }
        }
        guard failure == 0 else {
            let shown = target.path.appending(newName)
            throw systemError("move to \"\(shown)\" the file", directory.path.appending(name), errno: failure)
        }
    }

    /// Gives a file, a directory or a link itself to a user and a group.
    package static func setOwner(of path: RawPath, user: UInt32, group: UInt32) throws(KedgeError) {
        try change("set the owner of", path) { lchown($0, user, group) }
    }

    /// Sets the permission bits of a file or directory below an open directory. Follows a link: the caller knows that
    /// it is none.
    package static func setMode(
        of name: RawPath, in directory: borrowing FileDescriptor, _ mode: UInt32
    ) throws(KedgeError) {
        let number = directory.number
        try change("set the mode of", name, below: directory.path) { fchmodat(number, $0, mode, 0) }
    }

    /// Who this process is for the file system.
    package static var ownUser: UInt32 { geteuid() }

    /// Makes a symbolic link at `path` that points to `target`, any bytes.
    package static func createSymbolicLink(at path: RawPath, target: RawPath) throws(KedgeError) {
        let failure = try target.withCPath { target throws(KedgeError) in
            try path.withCPath { path throws(KedgeError) in
                symlink(target, path) == 0 ? 0 : errno
            }
        }
        guard failure == 0 else { throw systemError("create symbolic link", path, errno: failure) }
    }

    /// Where a symbolic link points, as it was written.
    package static func symbolicLinkTarget(at path: RawPath) throws(KedgeError) -> RawPath {
        // PATH_MAX bounds what symlink(2) accepts.
        var target = [CChar](repeating: 0, count: 4097)
        var failure: Int32 = 0
        let count = try path.withCPath { path throws(KedgeError) in
            let count = readlink(path, &target, target.count)
            failure = errno
            return count
        }
        guard count >= 0 else { throw systemError("read symbolic link", path, errno: failure) }
        return RawPath(bytes: target[..<count].lazy.map { UInt8(bitPattern: $0) })
    }

    private static func change(
        _ attempt: String, _ path: RawPath, below directory: RawPath = "", _ call: (UnsafePointer<CChar>) -> Int32
    ) throws(KedgeError) {
        let failure = try path.withCPath { path throws(KedgeError) in call(path) == 0 ? 0 : errno }
        guard failure == 0 else { throw systemError(attempt, directory.appending(path), errno: failure) }
    }
}

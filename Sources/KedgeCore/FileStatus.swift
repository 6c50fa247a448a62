// What the file system says about a file.

import CSystem
import Glibc

/// The kinds of file that Kedge tells apart.
package enum FileKind: Hashable, Sendable {
    case regular
    case directory
    case symbolicLink
    /// A socket, pipe or device.
    case other
}

/// A file's metadata at one moment. Times are in nanoseconds since 1970.
package struct FileStatus: Hashable, Sendable {
    package let kind: FileKind
    package let sizeBytes: UInt64
    /// Bytes that take up disk space: less than the size for a file with holes.
    package let allocatedBytes: UInt64
    package let device: UInt64
    package let inode: UInt64
    package let linkCount: UInt32
    /// The twelve permission bits.
    package let mode: UInt32
    package let user: UInt32
    package let group: UInt32
    package let modifiedNanoseconds: Int64
    package let changedNanoseconds: Int64
    /// When the inode was made. Nil where the file system does not keep it.
    package let birthNanoseconds: Int64?
    /// Whether something is mounted on this directory. Kernels before 5.8 do not tell: there a bind mount of the same
    /// file system is not noticed.
    package let isMountPoint: Bool

    /// The status of the file at `path`. Throws `not-found` where there is none.
    package init(at path: RawPath, followLinks: Bool = false) throws(KedgeError) {
        try self.init(of: path, in: AT_FDCWD, shown: path, followLinks: followLinks)
    }

    /// The status of `name` in the open `directory`. Throws `not-found` where there is none.
    package init(
        of name: RawPath, in directory: borrowing FileDescriptor, followLinks: Bool = false
    ) throws(KedgeError) {
        let shown = directory.path.appending(name)
        try self.init(of: name, in: directory.number, shown: shown, followLinks: followLinks)
    }

    init(of name: RawPath, in directory: Int32, shown: RawPath, followLinks: Bool) throws(KedgeError) {
        var status = csystem_status()
        let number = try name.withCPath { path throws(KedgeError) in
            csystem_status(directory, path, followLinks, &status) == 0 ? 0 : errno
        }
        guard number == 0 else { throw systemError("look up file", shown, errno: number) }
        kind =
            switch status.mode & UInt32(S_IFMT) {
            case UInt32(S_IFREG): .regular
            case UInt32(S_IFDIR): .directory
            case UInt32(S_IFLNK): .symbolicLink
            default: .other
            }
        sizeBytes = status.size
        allocatedBytes = status.allocated_bytes
        device = status.device
        inode = status.inode
        linkCount = status.links
        mode = status.mode & 0o7777
        user = status.user
        group = status.group
        modifiedNanoseconds = status.modified_ns
        changedNanoseconds = status.changed_ns
        birthNanoseconds = status.has_birth ? status.birth_ns : nil
        isMountPoint = status.is_mount_root
    }

    /// The modification time, rounded down to microseconds.
    package var modified: Timestamp {
        let (quotient, remainder) = modifiedNanoseconds.quotientAndRemainder(dividingBy: 1000)
        return Timestamp(microseconds: remainder < 0 ? quotient - 1 : quotient)
    }
}

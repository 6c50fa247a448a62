// Failed system calls as errors that a user can act on.

import CSystem
import Glibc

/// The error for a system call that failed with `number` (errno, read at once after the call).
///
/// `attempt` says what was tried and on what kind of object, such as "open file"; `bytes` is what a write had left to
/// write. Codes: ENOENT `not-found`; EACCES, EPERM and EROFS `permission`; ENOSPC and EDQUOT `no-space`, with the file
/// system, what is needed and what is free there; all else `input-output`. So `not-found` means that the kernel said
/// so, never that nobody could look.
package func systemError(
    _ attempt: String, _ path: RawPath, errno number: Int32, needing bytes: UInt64? = nil
) -> KedgeError {
    let message = "could not \(attempt) \"\(path)\""
    let reason = "The system said: \(errorText(number)) (\(errorName(number)))."
    switch number {
    case ENOENT:
        return KedgeError(.notFound, message, detail: reason, hint: "Check that this path exists and is spelled right.")
    case EACCES, EPERM:
        return KedgeError(
            .permission, message, detail: reason + " This process runs as user id \(geteuid()).",
            hint: "Run kedge as the user that owns \"\(path)\", or give this user access to it.")
    case EROFS:
        return KedgeError(
            .permission, message, detail: reason, hint: "Mount the file system of \"\(path)\" for writing.")
    case ENOSPC, EDQUOT:
        let space = FileSystemSpace.find(near: path)
        let need = bytes.map { " \($0) more bytes are needed." } ?? ""
        return KedgeError(
            .noSpace, message, detail: "\(reason)\(need) \(FileSystemSpace.describe(space))",
            hint: number == EDQUOT
                ? "Raise the quota or remove files, then run the command again." : FileSystemSpace.hint(space))
    case EFBIG:
        return KedgeError(
            .inputOutput, message, detail: reason,
            hint: "Raise the limit of file sizes (ulimit -f), or use a file system that takes larger files.")
    case ENOTDIR:
        return KedgeError(
            .inputOutput, message, detail: reason,
            hint: "A part of this path is a file where a directory should be: check the path and what lies there.")
    case ESTALE, ENOTCONN, ENODEV, ENXIO, EHOSTDOWN, ETIMEDOUT, ECONNABORTED, ECONNREFUSED, ENOLINK:
        return KedgeError(
            .inputOutput, message, detail: reason + " The file system there is mounted, but it is out of reach.",
            hint: "Check the server or disk behind the mount, and mount it again.")
    case EMFILE, ENFILE:
        return KedgeError(
            .inputOutput, message, detail: reason,
            hint: "Raise the limit of open files (ulimit -n), or use fewer workers.")
    default:
        return KedgeError(
            .inputOutput, message, detail: reason,
            hint: "Check the health of the disk or mount that holds it, for example in the kernel log.")
    }
}

/// `ENOENT` and its like; the number where the C library knows no name.
private func errorName(_ number: Int32) -> String {
    guard let name = csystem_errno_name(number) else { return "errno \(number)" }
    return String(cString: name)
}

private func errorText(_ number: Int32) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
        guard let start = buffer.baseAddress else { return "error \(number)" }
        csystem_errno_text(number, start, buffer.count)
        return String(cString: start)
    }
}

/// Room on a file system.
package struct FileSystemSpace: Hashable, Sendable {
    /// The directory that the file system is mounted on.
    package let mountPoint: RawPath
    package let totalBytes: UInt64
    /// What a process without special rights can still write.
    package let freeBytes: UInt64
    /// How many files and directories it can hold; 0 where it has no such limit.
    package let totalInodes: UInt64
    /// How many more such a process can make; 0 where it has no such limit.
    package let freeInodes: UInt64

    /// The file system that holds `path`, or its nearest existing parent.
    package init(near path: RawPath) throws(KedgeError) {
        var place = path
        while true {
            var room = statvfs()
            let number = try place.withCPath { path throws(KedgeError) in
                statvfs(path, &room) == 0 ? 0 : errno
            }
            if number == 0 {
                self.init(mountPoint: FileSystemSpace.mountPoint(of: place), room)
                return
            }
            guard number == ENOENT, place != place.parent else {
                throw systemError("look up the file system of", path, errno: number)
            }
            place = place.parent
        }
    }

    package init(
        mountPoint: RawPath, totalBytes: UInt64, freeBytes: UInt64, totalInodes: UInt64, freeInodes: UInt64
    ) {
        self.mountPoint = mountPoint
        self.totalBytes = totalBytes
        self.freeBytes = freeBytes
        self.totalInodes = totalInodes
        self.freeInodes = freeInodes
    }

    private init(mountPoint: RawPath, _ room: statvfs) {
        self.mountPoint = mountPoint
        let unit = UInt64(room.f_frsize)
        totalBytes = UInt64(room.f_blocks).multipliedReportingOverflow(by: unit).partialValue
        freeBytes = UInt64(room.f_bavail).multipliedReportingOverflow(by: unit).partialValue
        totalInodes = UInt64(room.f_files)
        freeInodes = UInt64(room.f_favail)
    }

    /// Whether no more files can be made although there may be bytes free.
    package var lacksInodes: Bool { totalInodes > 0 && freeInodes == 0 }

    /// One sentence for an error's detail.
    package var sentence: String {
        let inodes = lacksInodes ? ", and none of its \(totalInodes) inodes (files and directories)" : ""
        return "The file system at \"\(mountPoint)\" has \(freeBytes) of \(totalBytes) bytes free\(inodes)."
    }

    /// The file system near `path`; nil where that can't be found out.
    package static func find(near path: RawPath) -> FileSystemSpace? {
        do throws(KedgeError) {
            return try FileSystemSpace(near: path)
        } catch {
            // Only told along with another error.
            return nil
        }
    }

    /// One sentence for an error's detail.
    package static func describe(_ space: FileSystemSpace?) -> String {
        space?.sentence ?? "How much is free could not be found out."
    }

    /// What to do where there is no room.
    package static func hint(_ space: FileSystemSpace?) -> String {
        space?.lacksInodes == true
            ? "Remove files there, or give the file system more inodes, then run the command again."
            : "Free space there or make it larger, then run the command again."
    }

    /// The highest parent on the same device.
    private static func mountPoint(of path: RawPath) -> RawPath {
        var place = path
        while let device = deviceNumber(place), place != place.parent, place.isAbsolute,
            deviceNumber(place.parent) == device
        {
            place = place.parent
        }
        return place
    }

    private static func deviceNumber(_ path: RawPath) -> UInt64? {
        try? FileStatus(at: path, followLinks: true).device
    }
}

extension KedgeError {
    /// This error, if it is `no-space`, told of the whole attempt after its leftovers were removed: what all of it
    /// needs, and what is free near `path` now. Any other error is returned as it is.
    package func telling(_ message: String, needing bytes: UInt64?, near path: RawPath) -> KedgeError {
        guard code == .noSpace else { return self }
        let space = FileSystemSpace.find(near: path)
        let need = bytes.map { "It needs \($0) bytes. " } ?? ""
        return KedgeError(
            .noSpace, message,
            detail: "\(need)\(FileSystemSpace.describe(space)) What was written of it has been removed.", hint: hint,
            cause: self)
    }
}

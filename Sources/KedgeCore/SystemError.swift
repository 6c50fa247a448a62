// Failed system calls as errors that a user can act on.

import CSystem
import Glibc

/// The error for a system call that failed with `number` (errno, read at once after the call).
///
/// `attempt` says what was tried and on what kind of object, such as "open file". Codes: ENOENT `not-found`; EACCES,
/// EPERM and EROFS `permission`; ENOSPC and EDQUOT `no-space`, with the file system and its free bytes; all else
/// `input-output`. So `not-found` means that the kernel said so, never that nobody could look.
package func systemError(_ attempt: String, _ path: RawPath, errno number: Int32) -> KedgeError {
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
        let place = FileSystemSpace.describe(near: path)
        let hint =
            number == EDQUOT
            ? "Raise the quota or remove files, then run the command again."
            : "Free space there or make it larger, then run the command again."
        return KedgeError(.noSpace, message, detail: "\(reason) \(place)", hint: hint)
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

    /// The file system that holds `path`, or its nearest existing parent.
    package init(near path: RawPath) throws(KedgeError) {
        var place = path
        while true {
            var room = statvfs()
            let number = try place.withCPath { path throws(KedgeError) in
                statvfs(path, &room) == 0 ? 0 : errno
            }
            if number == 0 {
                mountPoint = FileSystemSpace.mountPoint(of: place)
                let unit = UInt64(room.f_frsize)
                totalBytes = UInt64(room.f_blocks).multipliedReportingOverflow(by: unit).partialValue
                freeBytes = UInt64(room.f_bavail).multipliedReportingOverflow(by: unit).partialValue
                return
            }
            guard number == ENOENT, place != place.parent else {
                throw systemError("look up the file system of", path, errno: number)
            }
            place = place.parent
        }
    }

    /// One sentence for an error's detail; never fails.
    fileprivate static func describe(near path: RawPath) -> String {
        do throws(KedgeError) {
            let space = try FileSystemSpace(near: path)
            return
                "The file system at \"\(space.mountPoint)\" has \(space.freeBytes) of \(space.totalBytes) bytes free."
        } catch {
            return "How much is free could not be found out."
        }
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

// Files that appear whole and stay. The only place where a file of Kedge's own is published.
//
// Order:
//   1. write to a temporary file in the same directory
//   2. fsync it: contents and mode
//   3. rename it without replacing (or with, when asked)
//   4. fsync the directory
// A crash before 3 leaves a temporary file, which every listing ignores and a sweep may remove once it is old; a crash
// between 3 and 4 may leave the file visible but not durable, so whoever finds it there makes it durable before
// relying on it.

import CSystem
import Glibc

/// A file that is being written and is not visible under its name yet.
///
/// It is removed when it is freed without having been published. Used by one thread at a time.
package final class DurableFile {
    /// What publishing found.
    package enum Outcome: Hashable, Sendable {
        case created
        /// Another file has the name and was not touched; what was written is gone.
        case alreadyExists
    }

    /// Where to write.
    package let file: FileDescriptor
    private let directory: FileDescriptor
    private let temporaryName: RawPath
    private var hasTemporaryFile = true

    /// Begins a file in the open `directory`, with exactly these permission bits.
    package init(
        in directory: consuming FileDescriptor, mode: UInt32, random: any RandomSource
    ) throws(KedgeError) {
        let name = RawPath(DurableFile.temporaryPrefix + RandomID(from: random).hex)
        let file = try FileDescriptor.open(name, in: directory, [.read, .write, .create, .exclusive], mode: mode)
        self.file = file
        self.directory = directory
        temporaryName = name
        try self.file.setMode(mode)
    }

    deinit { removeTemporaryFile() }

    /// Makes what was written durable and visible as `name`.
    ///
    /// When it throws, the file may be visible or not; it is never visible in part. To be called once.
    package func publish(as name: RawPath, replacing: Bool = false) throws(KedgeError) -> Outcome {
        try file.sync()
        guard try move(to: name, replacing: replacing) else {
            removeTemporaryFile()
            return .alreadyExists
        }
        try directory.sync()
        return .created
    }

    /// Makes what was written visible as `name`, in place of what may be there, whole but not durable: for copies that
    /// can be made again after a crash. To be called once.
    package func publishWithoutSync(as name: RawPath) throws(KedgeError) {
        _ = try move(to: name, replacing: true)
    }

    /// Gives the file up.
    package func discard() { removeTemporaryFile() }

    private func removeTemporaryFile() {
        guard hasTemporaryFile else { return }
        hasTemporaryFile = false
        do throws(KedgeError) {
            try FileSystem.removeFile(temporaryName, in: directory)
        } catch {
            // It stays behind under a name that listings ignore, and a sweep takes it.
        }
    }

    /// Returns false where `name` is taken and may not be replaced.
    private func move(to name: RawPath, replacing: Bool) throws(KedgeError) -> Bool {
        let number = directory.number
        var failure = try callWithBothNames(name) { temporary, final in
            replacing
                ? renameat(number, temporary, number, final)
                : csystem_rename_noreplace(number, temporary, number, final)
        }
        if !replacing && (failure == EINVAL || failure == ENOSYS || failure == EOPNOTSUPP) {
            // NFS and others know no RENAME_NOREPLACE; link(2) refuses an existing name as well.
            failure = try callWithBothNames(name) { temporary, final in linkat(number, temporary, number, final, 0) }
            if failure == 0 {
                removeTemporaryFile()
                return true
            }
        }
        switch failure {
        case 0:
            hasTemporaryFile = false
            return true
        case EEXIST where !replacing:
            return false
        default:
            throw systemError("publish file", directory.path.appending(name), errno: failure)
        }
    }

    private func callWithBothNames(
        _ name: RawPath, _ call: (UnsafePointer<CChar>, UnsafePointer<CChar>) -> Int32
    ) throws(KedgeError) -> Int32 {
        try name.withCPath { name throws(KedgeError) in
            try temporaryName.withCPath { temporary throws(KedgeError) in
                call(temporary, name) == 0 ? 0 : errno
            }
        }
    }
}

extension DurableFile {
    /// Makes `contents` durable and visible as `path`, whose directory must exist.
    package static func write(
        _ contents: [UInt8], to path: RawPath, mode: UInt32 = 0o640, replacing: Bool = false, random: any RandomSource
    ) throws(KedgeError) -> Outcome {
        let directory = try FileDescriptor.open(path.parent, [.read, .directory])
        let file = try DurableFile(in: directory, mode: mode, random: random)
        try file.file.write(contents, at: 0)
        return try file.publish(as: path.lastComponent, replacing: replacing)
    }

    /// Whether a directory entry is a temporary file of ours, in use or left behind by a crash.
    package static func isTemporary(_ name: RawPath) -> Bool { name.bytes.starts(with: temporaryPrefix.utf8) }

    /// "~" is not allowed in object names, so none can be taken for a temporary file.
    private static let temporaryPrefix = ".kedge~"
}

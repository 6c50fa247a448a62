// A file without a name in the work directory, for what must be collected or sorted and may not grow in memory.
//
// It takes up disk space only while it is open: nothing is left behind, however the process ends.

import CSystem
import Glibc

/// An unnamed file that grows at its end and can be read and changed anywhere. Used by one thread at a time.
package final class ScratchFile {
    private let file: FileDescriptor
    private var pending: [UInt8] = []
    private var writtenBytes: UInt64 = 0

    /// Makes a file in `directory`, which must exist.
    package init(in directory: RawPath, random: any RandomSource) throws(KedgeError) {
        var failure: Int32 = 0
        let number = try directory.withCPath { path throws(KedgeError) in
            let number = csystem_open_unnamed(AT_FDCWD, path, 0o600)
            failure = errno
            return number
        }
        if number >= 0 {
            file = FileDescriptor(owning: number, path: directory.appending("(scratch file)"))
        } else if failure == EOPNOTSUPP || failure == EISDIR {
            // No unnamed files on this file system: a named one, whose name goes at once.
            let path = directory.appending(".kedge~scratch-" + RandomID(from: random).hex)
            do throws(KedgeError) {
                file = try FileDescriptor.open(path, [.read, .write, .create, .exclusive], mode: 0o600)
            } catch {
                throw ScratchFile.told(error)
            }
            try FileSystem.removeFile(at: path)
        } else {
            throw ScratchFile.told(systemError("create scratch file in", directory, errno: failure))
        }
    }

    /// How many bytes were appended.
    package var sizeBytes: UInt64 { writtenBytes + UInt64(pending.count) }

    /// Adds bytes at the end and returns where they begin. Small pieces are collected before they are written.
    @discardableResult
    package func append(_ bytes: [UInt8]) throws(KedgeError) -> UInt64 {
        let offset = sizeBytes
        pending += bytes
        if pending.count >= ScratchFile.bufferBytes { try flush() }
        return offset
    }

    /// Exactly `count` bytes from `offset` on. Throws `defect` beyond the end: we wrote this file ourselves.
    package func read(count: Int, at offset: UInt64) throws(KedgeError) -> [UInt8] {
        try flush()
        let bytes = try file.read(count: count, at: offset)
        guard bytes.count == count else { throw beyondEnd(offset, count) }
        return bytes
    }

    /// Fills `buffer` from `offset` on as far as the file goes, and returns how many bytes there were.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int {
        try flush()
        return try file.read(into: buffer, at: offset)
    }

    /// Changes bytes that were appended before.
    package func overwrite(_ bytes: [UInt8], at offset: UInt64) throws(KedgeError) {
        guard offset <= sizeBytes, UInt64(bytes.count) <= sizeBytes - offset else {
            throw beyondEnd(offset, bytes.count)
        }
        try flush()
        try file.write(bytes, at: offset)
    }

    /// Forgets all that was appended.
    package func removeAll() throws(KedgeError) {
        pending.removeAll(keepingCapacity: true)
        writtenBytes = 0
        try file.truncate(to: 0)
    }

    private func flush() throws(KedgeError) {
        guard !pending.isEmpty else { return }
        do throws(KedgeError) {
            try file.write(pending, at: writtenBytes)
        } catch {
            throw ScratchFile.told(error)
        }
        writtenBytes += UInt64(pending.count)
        pending.removeAll(keepingCapacity: true)
    }

    private func beyondEnd(_ offset: UInt64, _ count: Int) -> KedgeError {
        KedgeError(
            .defect, "cannot reach bytes \(offset) to \(offset &+ UInt64(count)) of file \"\(file.path)\"",
            detail: "The file has \(sizeBytes) bytes.", hint: "Please report this.")
    }

    /// An error of a full disk, with the setting that says where scratch files lie.
    private static func told(_ error: KedgeError) -> KedgeError {
        guard error.code == .noSpace else { return error }
        var error = error
        error.hint = (error.hint.map { $0 + " " } ?? "") + "The setting work-directory names another place for it."
        return error
    }

    private static let bufferBytes = 256 << 10
}

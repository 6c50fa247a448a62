// Open files: one owner for each descriptor, complete reads and writes, every failure an error that names the file.
//
// Blocking calls that a signal interrupts are begun again: interruption is asked for at checkpoints, never here.

import CSystem
import Glibc

/// How to open a file. Every descriptor is closed on exec.
package struct OpenOptions: OptionSet, Sendable {
    package let rawValue: Int32

    package init(rawValue: Int32) { self.rawValue = rawValue }

    package static let read = OpenOptions(rawValue: 1)
    package static let write = OpenOptions(rawValue: 2)
    /// Makes the file if it is not there.
    package static let create = OpenOptions(rawValue: 4)
    /// With `create`: fails with `already-exists` if it is there.
    package static let exclusive = OpenOptions(rawValue: 8)
    package static let truncate = OpenOptions(rawValue: 16)
    /// Fails unless it is a directory.
    package static let directory = OpenOptions(rawValue: 32)
    /// Fails if the last component is a symbolic link.
    package static let noFollow = OpenOptions(rawValue: 64)
    /// Opening a pipe does not wait for its other end. Without effect on files and directories.
    package static let nonBlocking = OpenOptions(rawValue: 128)

    fileprivate var flags: Int32 {
        var flags: Int32 =
            switch (contains(.read), contains(.write)) {
            case (true, true): O_RDWR
            case (false, true): O_WRONLY
            default: O_RDONLY
            }
        if contains(.create) { flags |= O_CREAT }
        if contains(.exclusive) { flags |= O_EXCL }
        if contains(.truncate) { flags |= O_TRUNC }
        if contains(.directory) { flags |= O_DIRECTORY }
        if contains(.noFollow) { flags |= O_NOFOLLOW }
        if contains(.nonBlocking) { flags |= O_NONBLOCK }
        return flags
    }
}

/// What will be done with a range of a file, for the kernel's page cache (posix_fadvise(2)).
package enum CacheAdvice: Sendable {
    case sequential
    case willNeed
    /// Drop the pages. Dirty pages stay: write them out first.
    case dontNeed

    fileprivate var number: Int32 {
        switch self {
        case .sequential: POSIX_FADV_SEQUENTIAL
        case .willNeed: POSIX_FADV_WILLNEED
        case .dontNeed: POSIX_FADV_DONTNEED
        }
    }
}

/// The owner of one open descriptor; it is closed when the owner goes out of scope.
///
/// Reads and writes at offsets may be made from several threads at once.
package struct FileDescriptor: ~Copyable, Sendable {
    private let handle: DescriptorHandle
    /// The path that it was opened by, for messages.
    package let path: RawPath

    /// Takes over `number`: nobody else may close it.
    package init(owning number: Int32, path: RawPath) {
        handle = DescriptorHandle(number: number)
        self.path = path
    }

    /// The raw descriptor, for a system call that has no method here. It stays owned by this value.
    package var number: Int32 { handle.number }

    /// Opens the file at `path`. `mode` serves `create` and is narrowed by the umask.
    package static func open(
        _ path: RawPath, _ options: OpenOptions, mode: UInt32 = 0o640
    ) throws(KedgeError) -> FileDescriptor {
        try open(path, in: AT_FDCWD, shown: path, options, mode: mode)
    }

    /// Opens `name`, a path relative to the open `directory`.
    package static func open(
        _ name: RawPath, in directory: borrowing FileDescriptor, _ options: OpenOptions, mode: UInt32 = 0o640
    ) throws(KedgeError) -> FileDescriptor {
        try open(name, in: directory.number, shown: directory.path.appending(name), options, mode: mode)
    }

    private static func open(
        _ name: RawPath, in directory: Int32, shown: RawPath, _ options: OpenOptions, mode: UInt32
    ) throws(KedgeError) -> FileDescriptor {
        let flags = options.flags
        var failure: Int32 = 0
        let number = try name.withCPath { path throws(KedgeError) in
            while true {
                let number = csystem_openat(directory, path, flags, mode)
                if number >= 0 { return number }
                failure = errno
                if failure != EINTR { return -1 }
            }
        }
        guard number >= 0 else {
            let attempt = options.contains(.directory) ? "open directory" : "open file"
            if failure == EEXIST {
                throw KedgeError(
                    .alreadyExists, "cannot create file \"\(shown)\"", detail: "It is there already.",
                    hint: "Check whether another kedge has just made it.")
            }
            throw systemError(options.contains(.create) ? "create file" : attempt, shown, errno: failure)
        }
        return FileDescriptor(owning: number, path: shown)
    }

    /// Closes the descriptor and reports what the kernel says, such as a late write error of NFS.
    package consuming func close() throws(KedgeError) {
        let path = path
        let failure = handle.close()
        if failure != 0 { throw systemError("close file", path, errno: failure) }
    }
}

/// The bare number, apart from the path because only a value of trivial parts can be discarded.
///
/// Not private: Swift 6.3 optimises across modules and then links other modules against its metadata, which a private
/// type does not export.
struct DescriptorHandle: ~Copyable, Sendable {
    let number: Int32

    deinit {
        // A failed close loses no data that fsync has not covered; whoever must know calls `close()`.
        _ = Glibc.close(number)
    }

    /// 0, or the error number.
    consuming func close() -> Int32 {
        let number = number
        discard self
        guard Glibc.close(number) != 0 else { return 0 }
        let failure = errno
        // Linux has closed the descriptor all the same (close(2)).
        return failure == EINTR ? 0 : failure
    }
}

// MARK: - Reading and writing

extension FileDescriptor {
    /// Fills `buffer` from `offset` on as far as the file goes, and returns how many bytes there were.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let count = pread(number, rest.baseAddress, rest.count, try fileOffset(offset, plus: done))
            if count == 0 { break }
            if count < 0 {
                let failure = errno
                if failure == EINTR { continue }
                throw systemError("read file", path, errno: failure)
            }
            done += count
        }
        return done
    }

    /// The bytes from `offset` on, at most `count`; fewer where the file ends.
    package func read(count: Int, at offset: UInt64) throws(KedgeError) -> [UInt8] {
        var failure: KedgeError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let buffer = UnsafeMutableRawBufferPointer(buffer)
            preferHugePages(buffer)
            do throws(KedgeError) {
                initialized = try read(into: buffer, at: offset)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// The whole file. Throws `damaged` where it is longer than `limit`: what is read here is known to be small.
    package func readAll(limit: Int) throws(KedgeError) -> [UInt8] {
        let size = try status().sizeBytes
        guard size <= UInt64(limit) else {
            throw KedgeError(
                .damaged, "cannot read file \"\(path)\"",
                detail: "It is \(size) bytes long, and a file of this kind has at most \(limit).",
                hint: "Check that this is the right file.")
        }
        return try read(count: limit, at: 0)
    }

    /// Writes all of `bytes` at `offset`.
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(KedgeError) {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = pwrite(number, rest.baseAddress, rest.count, try fileOffset(offset, plus: done))
            if count < 0 {
                let failure = errno
                if failure == EINTR { continue }
                throw systemError("write file", path, errno: failure, needing: UInt64(rest.count))
            }
            done += count
        }
    }

    package func write(_ bytes: [UInt8], at offset: UInt64) throws(KedgeError) {
        let failure: KedgeError? = bytes.withUnsafeBytes { buffer in
            do throws(KedgeError) {
                try write(buffer, at: offset)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }

    private func fileOffset(_ offset: UInt64, plus done: Int) throws(KedgeError) -> off_t {
        // Offsets may come from a repository: beyond what the kernel can address is an error, not a trap.
        let (sum, overflow) = offset.addingReportingOverflow(UInt64(done))
        guard !overflow, let position = off_t(exactly: sum) else {
            throw systemError("reach byte \(offset) of file", path, errno: EFBIG)
        }
        return position
    }
}

/// Asks for huge pages under a buffer that was not touched yet: a WAL segment costs 4096 page faults without.
/// Advice may be ignored, so nothing fails.
package func preferHugePages(_ buffer: UnsafeMutableRawBufferPointer) {
    let hugePage = 2 << 20
    guard buffer.count >= 2 * hugePage, let start = buffer.baseAddress else { return }
    // Only whole huge pages that belong to the buffer alone.
    let first = start.alignedUp(toMultipleOf: hugePage)
    let end = (start + buffer.count).alignedDown(toMultipleOf: hugePage)
    _ = madvise(first, end - first, MADV_HUGEPAGE)
}

// MARK: - Metadata, durability, page cache

extension FileDescriptor {
    /// The file's status now.
    package func status() throws(KedgeError) -> FileStatus {
        try FileStatus(of: "", in: number, shown: path, followLinks: false)
    }

    /// Sets the permission bits exactly, whatever the umask is.
    package func setMode(_ mode: UInt32) throws(KedgeError) {
        if fchmod(number, mode) != 0 { throw systemError("set the mode of file", path, errno: errno) }
    }

    /// Gives the file to a user and a group.
    package func setOwner(user: UInt32, group: UInt32) throws(KedgeError) {
        if fchown(number, user, group) != 0 { throw systemError("set the owner of file", path, errno: errno) }
    }

    /// Sets the access and the modification time, in nanoseconds since 1970.
    package func setTimes(nanoseconds: Int64) throws(KedgeError) {
        var (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        if rest < 0 { (seconds, rest) = (seconds - 1, rest + 1_000_000_000) }
        let time = timespec(tv_sec: Int(seconds), tv_nsec: Int(rest))
        if futimens(number, [time, time]) != 0 { throw systemError("set the time of file", path, errno: errno) }
    }

    /// Cuts or extends the file.
    package func truncate(to size: UInt64) throws(KedgeError) {
        let length = try fileOffset(size, plus: 0)
        while ftruncate(number, length) != 0 {
            let failure = errno
            if failure != EINTR { throw systemError("set the length of file", path, errno: failure) }
        }
    }

    /// Makes data and metadata durable. On a directory: the entries in it.
    package func sync() throws(KedgeError) {
        while fsync(number) != 0 {
            let failure = errno
            if failure != EINTR { throw systemError("make durable (fsync)", path, errno: failure) }
        }
    }

    /// Makes the whole file system of this file durable.
    package func syncFileSystem() throws(KedgeError) {
        if csystem_syncfs(number) != 0 { throw systemError("make the file system durable at", path, errno: errno) }
    }

    /// Advises the kernel about a range; a length of 0 reaches to the end. Advice may be ignored, so nothing fails.
    package func advise(_ advice: CacheAdvice, offset: UInt64 = 0, length: UInt64 = 0) {
        guard let start = off_t(exactly: offset), let count = off_t(exactly: length) else { return }
        _ = posix_fadvise(number, start, count, advice.number)
    }

    /// Starts writing a range to the disk, or waits until it is there. Keeps dirty pages few; promises no durability.
    package func startWriteback(offset: UInt64, length: UInt64, wait: Bool) {
        guard let start = off_t(exactly: offset), let count = off_t(exactly: length) else { return }
        // A failure shows again in fsync, where it counts.
        _ = csystem_start_writeback(number, start, count, wait)
    }
}

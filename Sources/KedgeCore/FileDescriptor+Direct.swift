// Writing past the page cache (O_DIRECT, open(2)).
//
// What kedge writes in bulk is not read again soon: neither by kedge nor, for the most part, by a server. Through the
// page cache every page of it costs an allocation, a copy and its removal, which is most of the CPU of a restore, and
// pushes out what the database uses. Direct writes promise no durability either: that takes the same fsync or syncfs.
//
// Not every file system can, and each has its own rules of alignment (a page always does). Where it refuses, the
// same bytes go through the page cache.

import CSystem
import Glibc

extension FileDescriptor {
    /// Makes an empty file `length` zeros long, and reserves the room where the file system can. Several threads that
    /// write into it need not wait for each other to make it longer then, and ext4 has less to do for each page.
    package func allocate(_ length: UInt64) throws(KedgeError) {
        guard let count = off_t(exactly: length), count > 0 else { return try truncate(to: length) }
        while csystem_allocate(number, count) != 0 {
            let failure = errno
            switch failure {
            case EINTR: continue
            case ENOSPC, EDQUOT, EFBIG: throw systemError("make room for file", path, errno: failure, needing: length)
            default: return try truncate(to: length)
            }
        }
    }

    /// To what offset, address and count are aligned in a direct write: what every device and file system takes.
    private static let directAlignment = 4096

    /// Writes all of `bytes` at `offset`, past the page cache as far as their alignment and the file system allow.
    ///
    /// Nobody else may write through this descriptor meanwhile.
    package func writeDirect(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(KedgeError) {
        let done = try writeAligned(bytes, at: offset)
        guard done < bytes.count else { return }
        let (next, overflow) = offset.addingReportingOverflow(UInt64(done))
        guard !overflow else { throw systemError("reach byte \(offset) of file", path, errno: EFBIG) }
        try write(UnsafeRawBufferPointer(rebasing: bytes[done...]), at: next)
    }

    /// Writes the part that direct writes take, and returns how long it was; 0 where there is none.
    private func writeAligned(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int {
        let alignment = FileDescriptor.directAlignment
        let whole = bytes.count & ~(alignment - 1)
        guard whole > 0, offset % UInt64(alignment) == 0, let start = bytes.baseAddress,
            Int(bitPattern: start) & (alignment - 1) == 0, let position = off_t(exactly: offset),
            !position.addingReportingOverflow(off_t(whole)).overflow, csystem_set_direct(number, true) == 0
        else { return 0 }
        defer { _ = csystem_set_direct(number, false) }
        var done = 0
        while done < whole {
            let count = pwrite(number, start + done, whole - done, position + off_t(done))
            if count > 0 {
                done += count
                // The rest would not be aligned any more.
                if count & (alignment - 1) != 0 { return done }
                continue
            }
            let failure = count < 0 ? errno : EINVAL
            switch failure {
            case EINTR: continue
            case EINVAL, EOPNOTSUPP: return done
            default: throw systemError("write file", path, errno: failure, needing: UInt64(whole - done))
            }
        }
        return done
    }
}

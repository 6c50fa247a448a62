// Which parts of a file the kernel holds in its page cache, so that a reader can leave the cache as it found it.

import CSystem
import Glibc

/// What was in the page cache of one range of a file, by parts of equal length.
package struct PageCacheResidency: Sendable {
    private let offset: UInt64
    private let partBytes: UInt64
    /// Whether at least half of each part was there.
    let parts: [Bool]

    /// Looks at `length` bytes from `offset` on, which is a multiple of the page size, in parts of `partBytes`.
    ///
    /// Where the kernel does not tell (on a file of others), all counts as cached, so nothing is dropped. `usesMincore`
    /// asks as kernels before 6.5 have to be asked.
    package init(
        of file: borrowing FileDescriptor, offset: UInt64, length: UInt64, partBytes: UInt64, usesMincore: Bool = false
    ) {
        self.offset = offset
        self.partBytes = partBytes
        let pageBytes = UInt64(sysconf(Int32(_SC_PAGESIZE)))
        if !usesMincore,
            let parts = PageCacheResidency.counted(
                of: file, offset: offset, length: length, partBytes: partBytes, pageBytes: pageBytes)
        {
            self.parts = parts
            return
        }
        let pages = PageCacheResidency.pages(of: file, offset: offset, length: length, pageBytes: pageBytes)
        let pagesPerPart = max(1, Int(partBytes / pageBytes))
        parts = stride(from: 0, to: pages.count, by: pagesPerPart).map { start in
            let part = pages[start..<min(start + pagesPerPart, pages.count)]
            return 2 * part.count(where: { $0 & 1 != 0 }) >= part.count
        }
    }

    /// Drops the part that begins at `partOffset` from the cache, unless it was there before.
    package func restore(partAt partOffset: UInt64, of file: borrowing FileDescriptor) {
        let index = Int((partOffset - offset) / partBytes)
        guard parts.indices.contains(index), !parts[index] else { return }
        file.advise(.dontNeed, offset: partOffset, length: partBytes)
    }

    /// Whether at least half of each part is cached, by the kernel's own count (cachestat(2)): a tenth of the time that
    /// it takes to map the file and to look at each page. Nil where the kernel has no such call, or does not tell.
    private static func counted(
        of file: borrowing FileDescriptor, offset: UInt64, length: UInt64, partBytes: UInt64, pageBytes: UInt64
    ) -> [Bool]? {
        var parts: [Bool] = []
        var done: UInt64 = 0
        while done < length {
            let part = min(partBytes, length - done)
            let cached = csystem_cached_pages(file.number, offset + done, part)
            guard cached >= 0 else { return nil }
            parts.append(2 * UInt64(cached) >= (part + pageBytes - 1) / pageBytes)
            done += part
        }
        return parts
    }

    /// One byte for each page, whose lowest bit says whether it is cached. Empty where the kernel does not tell.
    private static func pages(
        of file: borrowing FileDescriptor, offset: UInt64, length: UInt64, pageBytes: UInt64
    ) -> [UInt8] {
        guard length > 0, let start = off_t(exactly: offset), let count = Int(exactly: length) else { return [] }
        let map = mmap(nil, count, PROT_READ, MAP_SHARED, file.number, start)
        guard let map, map != MAP_FAILED else { return [] }
        defer { munmap(map, count) }
        var pages = [UInt8](repeating: 0, count: (count + Int(pageBytes) - 1) / Int(pageBytes))
        return mincore(map, count, &pages) == 0 ? pages : []
    }
}

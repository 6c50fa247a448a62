// Proves that the two ways to ask what the page cache holds agree, and that reading leaves the cache as it was.
import Glibc
import KedgeTestSupport
import Testing

@testable import KedgeCore

@Suite struct PageCacheResidencyTests {
    @Test("the kernel's own count and the look at each page agree, for ranges and parts of all sizes")
    func agree() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(RawPath(directory.path + "/file"), [.read, .write, .create], mode: 0o600)
        let size = 3_000_001
        try file.write([UInt8](repeating: 1, count: size), at: 0)
        try file.sync()
        // Some of it leaves the cache, where the file system can do that.
        file.advise(.dontNeed, offset: 262_144, length: 700_000)
        file.advise(.dontNeed, offset: 2_000_000 / 4096 * 4096, length: 1_000_001)
        for part in [65_536, 262_144, 1 << 20] as [UInt64] {
            for offset in [0, 65_536, 1 << 20] as [UInt64] {
                for length in [0, 1, 4097, 300_000, UInt64(size) - offset] {
                    let counted = PageCacheResidency(of: file, offset: offset, length: length, partBytes: part)
                    let looked = PageCacheResidency(
                        of: file, offset: offset, length: length, partBytes: part, usesMincore: true)
                    #expect(counted.parts == looked.parts, "\(length) bytes from \(offset) on in parts of \(part)")
                }
            }
        }
    }

    @Test("a part that was not cached is dropped after it was read, and one that was stays")
    func restores() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(RawPath(directory.path + "/file"), [.read, .write, .create], mode: 0o600)
        try file.write([UInt8](repeating: 1, count: 2 << 20), at: 0)
        try file.sync()
        file.advise(.dontNeed, offset: 0, length: 1 << 20)
        func look() -> [Bool] {
            PageCacheResidency(of: file, offset: 0, length: 2 << 20, partBytes: 1 << 20, usesMincore: true).parts
        }
        // A file system in memory drops nothing.
        guard look() == [false, true] else { return }
        let before = PageCacheResidency(of: file, offset: 0, length: 2 << 20, partBytes: 1 << 20)
        _ = try file.read(count: 2 << 20, at: 0)
        #expect(look() == [true, true])
        before.restore(partAt: 0, of: file)
        before.restore(partAt: 1 << 20, of: file)
        #expect(look() == [false, true])
    }
}

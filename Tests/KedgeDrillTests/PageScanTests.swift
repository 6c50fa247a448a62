// That a scan of pages passes over nothing in silence, and takes no page that is being written for a damaged one.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct PageScanTests {
    private let directory: TemporaryDirectory
    private let time = ManualTime()

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["global", "base", "base/5", "pg_tblspc"] {
            _ = try Directory.create(at: RawPath(directory(name)))
        }
    }

    private func page(isDamaged: Bool) -> [UInt8] {
        var page = [UInt8](repeating: 7, count: 8192)
        // pd_lsn, pd_checksum, pd_flags, pd_lower, pd_upper, pd_special, pd_pagesize_version, pd_prune_xid
        page.replaceSubrange(
            0..<24, with: [0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 100, 0, 64, 31, 0, 32, 4, 32, 0, 0, 0, 0])
        let checksum = page.withBytes { PageChecksum.compute(page: $0, block: 0) } ^ (isDamaged ? 1 : 0)
        page[8] = UInt8(truncatingIfNeeded: checksum)
        page[9] = UInt8(truncatingIfNeeded: checksum >> 8)
        return page
    }

    private static func write(_ bytes: [UInt8], to path: String) throws {
        try FileDescriptor.open(RawPath(path), [.write, .create]).write(bytes, at: 0)
    }

    private func scan() throws(KedgeError) -> PageScan.Outcome {
        try PageScan(
            data: RawPath(directory.path), blockSize: 8192, segmentBlocks: 131_072, threads: 2,
            tools: Drill.Tools(
                time: time, random: SystemRandomSource(), interruption: Interruption(), progress: WorkProgress())
        ).run()
    }

    @Test("a page that does not fit is read again: one that was just being written passes, damage does not")
    func tornPage() throws {
        let path = directory("base/5/16384")
        try Self.write(page(isDamaged: true), to: path)
        try Self.write([1, 2, 3], to: directory("base/5/PG_VERSION"))
        #expect(try scan().damagedCount == 1)
        let whole = page(isDamaged: false)
        time.onSleep { try? Self.write(whole, to: path) }
        let outcome = try scan()
        #expect(outcome.damagedCount == 0 && outcome.bytes == 8192)
    }

    @Test("a directory that cannot be listed is an error, a file among directories is not")
    func unreadableDirectory() throws {
        try Self.write([1], to: directory("base/file"))
        try Self.write([1], to: directory("pg_tblspc/file"))
        #expect(try scan().damagedCount == 0)
        try FileSystem.removeFile(at: RawPath(directory("base/file")))
        try Directory.removeTree(at: RawPath(directory("global")))
        try Self.write([1], to: directory("global"))
        #expect(throws: KedgeError.self) { try scan() }
    }
}

// Proves which failing pages are reported as damaged: none that is being written, none that replay makes good.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

struct PageCheckTests {
    private static let blockSize = 8192

    /// A page that PostgreSQL accepts as number `block`.
    private static func page(block: UInt32, lsn: UInt64) -> [UInt8] {
        var page = CopyHarness.bytes(blockSize, seed: UInt64(block) + 1)
        func put(_ number: some FixedWidthInteger, at offset: Int) {
            withUnsafeBytes(of: number.littleEndian) { page.replaceSubrange(offset..<offset + $0.count, with: $0) }
        }
        put(UInt32(lsn >> 32), at: 0)
        put(UInt32(truncatingIfNeeded: lsn), at: 4)
        put(UInt16(0), at: 8)
        put(UInt16(24), at: 12)
        put(UInt16(4000), at: 14)
        let checksum = page.withUnsafeBytes { PageChecksum.compute(page: $0, block: block) }
        put(checksum, at: 8)
        return page
    }

    private static func pages(_ count: Int, first: UInt32 = 0, lsn: UInt64 = 500) -> [UInt8] {
        (0..<UInt32(count)).flatMap { page(block: first + $0, lsn: lsn) }
    }

    /// Copies one relation file called `name` and returns what was found with a stop at LSN 2000 (the start is 1000).
    private func check(
        _ bytes: [UInt8], name: String = "16384", _ harness: CopyHarness = CopyHarness()
    ) throws -> (pages: [CommitRecord.DamagedPage], count: UInt64, copied: [UInt8]?) {
        let tree = try TestTree()
        try tree.makeDirectory("data/base/5")
        try tree.write("data/base/5/" + name, bytes)
        var harness = harness
        harness.checksPages = true
        let contents = try harness.contents(harness.copy(tree))
        let verdict = harness.findings.verdict(stopLSN: LSN(2000))
        return (verdict.pages, verdict.count, contents["base/5/" + name])
    }

    private func damaged(_ block: UInt32, name: String = "16384") -> CommitRecord.DamagedPage {
        CommitRecord.DamagedPage(path: ManifestPath("base/5/" + name), block: block)
    }

    @Test("good pages, new pages of zeros and a torn tail are all right (lesson 34)")
    func good() throws {
        let bytes =
            Self.pages(200) + [UInt8](repeating: 0, count: Self.blockSize) + Self.pages(1, first: 201)
            + [UInt8](repeating: 7, count: 100)
        let found = try check(bytes)
        #expect(found.count == 0)
        #expect(found.copied == bytes)
    }

    @Test(
        "block numbers run on in the second file of a relation, and the report counts from the file's start (lesson 34)"
    )
    func secondFile() throws {
        // The tree has two blocks in a relation file, so the third file begins with block 4.
        let found = try check(Self.pages(2, first: 4), name: "16384.2")
        #expect(found.count == 0)
        var bytes = Self.pages(2, first: 4)
        bytes[Self.blockSize + 100] ^= 1
        let broken = try check(bytes, name: "16384.2")
        #expect(broken.pages == [damaged(1, name: "16384.2")])
    }

    struct Row: Sendable, CustomTestStringConvertible {
        let lsn: UInt64
        let isDamage: Bool
        var testDescription: String { "LSN \(lsn)" }
    }

    @Test(
        "a page that goes on failing is damaged unless replay writes it anew",
        arguments: [
            Row(lsn: 0, isDamage: true), Row(lsn: 1000, isDamage: true), Row(lsn: 1001, isDamage: false),
            Row(lsn: 2000, isDamage: false), Row(lsn: 2001, isDamage: true), Row(lsn: .max, isDamage: true),
        ])
    func persistentFailure(_ row: Row) throws {
        var bytes = Self.pages(130, lsn: row.lsn)
        bytes[129 * Self.blockSize + 4096] ^= 0x10
        let harness = CopyHarness()
        let found = try check(bytes, harness)
        #expect(found.pages == (row.isDamage ? [damaged(129)] : []))
        #expect(found.count == (row.isDamage ? 1 : 0))
        #expect(found.copied == bytes)
        #expect(harness.time.monotonicNanoseconds() == 1_000_000_000 + 150_000_000)
    }

    @Test("a page with pd_upper of 0 that is not empty is damaged")
    func newButNotEmpty() throws {
        var bytes = [UInt8](repeating: 0, count: Self.blockSize)
        bytes[8000] = 1
        #expect(try check(bytes).pages == [damaged(0)])
    }

    @Test("a page that was being written is read again, and what was read then is kept (lesson 35)")
    func beingWritten() throws {
        let good = Self.pages(3)
        var torn = good
        torn.replaceSubrange(Self.blockSize + 4096..<2 * Self.blockSize, with: [UInt8](repeating: 9, count: 4096))
        let tornPath = Mutex<RawPath?>(nil)
        var harness = CopyHarness()
        harness.files = ChangingFiles { (path, moment) throws(KedgeError) in
            guard path.lastComponent == "16384" else { return }
            // The second page alone is read again; by then it is whole.
            if case .read(UInt64(Self.blockSize)) = moment {
                tornPath.withLock { $0 = path }
                try FileDescriptor.open(path, .write).write(good, at: 0)
            }
        }
        let found = try check(torn, harness)
        #expect(found.count == 0)
        #expect(found.copied == good)
        #expect(tornPath.withLock { $0 } != nil)
    }

    @Test("a file full of damage is counted in full and listed in part, without long waits")
    func fullOfDamage() throws {
        let harness = CopyHarness()
        let bytes = [UInt8](repeating: 0xA5, count: 24 * 128 * Self.blockSize)
        let found = try check(bytes, harness)
        #expect(found.count == 24 * 128)
        #expect(found.pages.count == CommitRecord.BackupHealth.maximumListedPages)
        #expect(found.pages.first == damaged(0))
        let waited = harness.time.monotonicNanoseconds() - 1_000_000_000
        #expect(waited < 24 * 150_000_000)
    }
}

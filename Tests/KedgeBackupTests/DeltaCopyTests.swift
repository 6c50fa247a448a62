// Proves that a delta's copy is, byte for byte, what lay there, for whatever was done to the files since the parent's;
// that what did not change is the parent's, entry for entry; and what is stored.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

/// Copies of one tree into one repository in memory, each a delta of the one before.
private final class DeltaHarness {
    let tree: TestTree
    let cluster: ClusterRepository
    private(set) var entries: [ManifestEntry] = []
    private(set) var delta: DeltaCopy?
    private(set) var rawBytes: UInt64 = 0
    var trustsPages = true
    /// Whether pages are checked, and whether the parent is taken to have found none damaged.
    var checksPages = false
    var hasVerifiedPages = true
    /// Of the last copy. It begins at `start`, as the first did at `parentStart`.
    private(set) var findings = PageFindings(startLSN: LSN(0))
    static let start: UInt64 = 0x800_0000
    static let parentStart: UInt64 = 0x500_0000

    init() throws {
        tree = try TestTree()
        cluster = try MemoryRepository().cluster()
        try tree.makeDirectory("data/base/5")
    }

    /// Copies the tree. The first copy is full.
    func copy() throws {
        let directories = PackDirectories(cluster)
        let parents = Dictionary(
            uniqueKeysWithValues: entries.compactMap { entry in entry.content.map { (entry.path, $0) } })
        let delta =
            parents.isEmpty
            ? nil
            : DeltaCopy(
                directories: directories,
                pages: PageScan(parentStart: LSN(Self.parentStart), walSegmentSize: 1 << 20), blockSize: 8192,
                parentStart: LSN(Self.parentStart))
        findings = PageFindings(startLSN: LSN(parents.isEmpty ? Self.parentStart : Self.start))
        let listing = try tree.walk().listing
        let limits = PackLimits(storedBytes: 1 << 20, tableBytes: 2 << 20)
        let context = CopyContext(
            dataDirectory: tree.dataDirectory, files: SystemFileSource(),
            packs: ClusterPacks(
                cluster: cluster, limits: limits, label: try #require(Label("20261121T020000Z-full-7k3q")),
                tally: PackTally()), limits: limits,
            results: try CopyResults(
                entries: listing.totals.entries, in: tree.workDirectory, random: SystemRandomSource()),
            delta: delta,
            pageCheck: checksPages ? PageCheck(blockSize: 8192, findings: findings, time: ManualTime()) : nil,
            progress: WorkProgress(), totals: PackTotals(),
            interruption: Interruption())
        try run(context, listing, parents)
        if let delta, delta.mustStartOver {
            try context.results.removeAll()
            try run(context, listing, parents)
        }
        var copied: [ManifestEntry] = []
        try ManifestAssembly.forEachEntry(of: listing, results: context.results, adding: []) {
            entry throws(KedgeError) in
            copied.append(entry)
        }
        (entries, self.delta, rawBytes) = (copied, delta, context.totals.rawBytes)
    }

    private func run(_ context: CopyContext, _ listing: FileListing, _ parents: [ManifestPath: FileContent]) throws {
        let pool = try WorkerPool<CopyItem>(
            name: "copy", workers: 2, queueLimit: 2,
            makeState: { _ throws(KedgeError) in FileCopier(context) },
            body: { copier, item throws(KedgeError) in try copier.copy(item) },
            finishState: { copier throws(KedgeError) in try copier.finish() })
        var plan = CopyPlan()
        let (trustsPages, hasVerifiedPages) = (trustsPages, trustsPages && hasVerifiedPages)
        try listing.forEach { index, entry throws(KedgeError) in
            let isMain = RelationFileName(Array(entry.path.name))?.fork == .main
            let parent = parents[entry.path].map {
                ParentFile(
                    content: $0, trustsPages: trustsPages && isMain, hasVerifiedPages: hasVerifiedPages)
            }
            for item in plan.add(index, entry, parent: parent) { try pool.submit(item) }
        }
        if let last = plan.finish() { try pool.submit(last) }
        try pool.finish()
    }

    /// Compares every entry with the file on disk, and its checksums with its content.
    func compare(_ comment: Comment) throws {
        let reader = PackReader(PackDirectories(cluster))
        for entry in entries {
            guard let content = entry.content else { continue }
            var bytes: [UInt8] = []
            for extent in content.extents {
                switch extent.source {
                case .zeros: bytes += [UInt8](repeating: 0, count: Int(extent.length))
                case .pack(let pack, let frame, let offset):
                    try reader.read(pack, frame: frame, offset: offset, length: extent.length) { piece in
                        bytes.append(contentsOf: piece)
                    }
                }
            }
            let path = tree.dataDirectory.appending(RawPath(bytes: entry.path.bytes))
            #expect(try bytes == FileDescriptor.open(path, .read).readAll(limit: 1 << 30), "\(entry.path), \(comment)")
            #expect(CopyHarness.regions(of: bytes) == content.regions, "\(entry.path), \(comment)")
        }
    }

    func entry(_ path: String) throws -> ManifestEntry {
        try #require(entries.first { $0.path == ManifestPath(path) })
    }

    /// Changes bytes of a file in place.
    func change(_ name: String, at offset: Int, _ bytes: [UInt8]) throws {
        try FileDescriptor.open(tree.path("data/" + name), .write).write(bytes, at: UInt64(offset))
    }
}

struct DeltaCopyTests {
    private func pages(_ blocks: Range<Int>, lsn: UInt64 = 0x300_0000, filler: UInt64 = 0) -> [UInt8] {
        blocks.flatMap { PageSamples.page(block: UInt32($0), lsn: lsn, filler: filler + UInt64($0)) }
    }

    @Test("nothing changed: every entry is the parent's, nothing is stored, and every manifest part is referred to")
    func unchanged() throws {
        let harness = try DeltaHarness()
        try harness.tree.write("data/base/5/16384", pages(0..<5000))
        try harness.tree.write("data/base/5/16385", pages(0..<10))
        try harness.tree.write("data/base/5/16384_vm", PageSamples.page(block: 0, lsn: 0x300_0000, filler: 1))
        try harness.tree.write("data/base/5/16390", pages(0..<3) + [UInt8](repeating: 0, count: 400 * 8192))
        try harness.tree.write("data/file", CopyHarness.bytes(3_000_001))
        try harness.copy()
        let full = harness.entries
        try harness.copy()
        #expect(harness.entries == full)
        #expect(harness.rawBytes == 0)
        try harness.compare("unchanged")
        // The manifest of the second refers to all parts of the first.
        let label = try #require(Label("20261121T020000Z-full-aaaa"))
        var stored = 0
        func write(reusing parts: [ManifestPartReference]) throws -> ManifestRoot {
            var writer = ManifestWriter(label: label, reusing: parts, hash: { ContentHash(of: $0) }) { _ in
                stored += 1
                return PartPlace(pack: RandomID(high: 5, low: UInt64(stored)), frame: 0, offset: 0)
            }
            for entry in full { try writer.append(entry) }
            return try writer.finish()
        }
        let first = try write(reusing: [])
        let count = stored
        #expect(try write(reusing: first.parts) == first)
        #expect(stored == count && count > 0)
    }

    @Test("changed pages are stored alone, new ones too, and other forks as regions")
    func changedPages() throws {
        let harness = try DeltaHarness()
        try harness.tree.write("data/base/5/16384", pages(0..<1000))
        try harness.tree.write("data/base/5/16384_vm", pages(0..<300))
        try harness.copy()
        for block in [3, 4, 500, 999] {
            try harness.change(
                "base/5/16384", at: block * 8192,
                PageSamples.page(block: UInt32(block), lsn: 0x600_0000, filler: 7))
        }
        try harness.change("base/5/16384", at: 1000 * 8192, pages(1000..<1010))
        try harness.change("base/5/16384_vm", at: 0, PageSamples.page(block: 0, lsn: 0x600_0000, filler: 7))
        try harness.copy()
        try harness.compare("changed pages")
        #expect(harness.rawBytes == 14 * 8192 + 1 << 20)
        #expect(harness.delta?.auditCount == 0)
        // A delta of the delta: its parent's file is in many pieces of several packs.
        try harness.change("base/5/16384", at: 501 * 8192, PageSamples.page(block: 501, lsn: 0x600_0000, filler: 8))
        // Page 500 lies in the same region, and its LSN is not below the start either.
        try harness.copy()
        try harness.compare("delta of a delta")
        #expect(harness.rawBytes == 2 * 8192)
    }

    @Test("a file made anew under the same name is not taken for its predecessor")
    func madeAnew() throws {
        let harness = try DeltaHarness()
        try harness.tree.write("data/base/5/16384", pages(0..<256))
        try harness.copy()
        let path = harness.tree.path("data/base/5/16384")
        // Something else takes the inode.
        try FileSystem.removeFile(at: path)
        try harness.tree.write("data/base/5/99999", [1])
        // The first region has other content with old LSNs and one page that was changed since.
        try harness.tree.write(
            path,
            pages(0..<127, filler: 5000) + PageSamples.page(block: 127, lsn: 0x600_0000, filler: 1)
                + pages(128..<256))
        try harness.copy()
        try harness.compare("made anew")
        // What is the same byte for byte is the parent's all the same.
        #expect(harness.rawBytes == 1 << 20 + 1)
    }

    @Test("a change that no LSN shows makes the copy start over, and only whole regions come from the parent then")
    func silentChange() throws {
        let harness = try DeltaHarness()
        try harness.tree.write("data/base/5/16384", pages(0..<512))
        try harness.copy()
        // A region with an honest change and a silent one: the plan of that region alone would be wrong.
        try harness.change("base/5/16384", at: 0, PageSamples.page(block: 0, lsn: 0x600_0000, filler: 9))
        try harness.change("base/5/16384", at: 8192, PageSamples.page(block: 1, lsn: 0x300_0000, filler: 9))
        // A region with nothing but a silent one gives it away.
        try harness.change("base/5/16384", at: 200 * 8192, PageSamples.page(block: 200, lsn: 0x300_0000, filler: 9))
        try harness.copy()
        try harness.compare("silent change")
        #expect(harness.delta?.auditCount == 1)
    }

    /// A page whose bytes were changed without a new checksum.
    private func damaged(_ block: UInt32, lsn: UInt64) -> [UInt8] {
        var page = PageSamples.page(block: block, lsn: lsn, filler: 1)
        page[5000] ^= 4
        return page
    }

    @Test("damage that the parent took for a page being written is found in a region that is still the same")
    func damageInWhatIsTheParents() throws {
        let harness = try DeltaHarness()
        harness.checksPages = true
        try harness.tree.write(
            "data/base/5/16384", pages(0..<7) + damaged(7, lsn: DeltaHarness.parentStart + 1) + pages(8..<200))
        try harness.tree.write(
            "data/base/5/16384_vm", damaged(0, lsn: DeltaHarness.parentStart + 1) + pages(1..<40))
        try harness.copy()
        // Replay up to the parent's stop would have mended them.
        #expect(harness.findings.verdict(stopLSN: LSN(DeltaHarness.start - 1)).count == 0)
        try harness.copy()
        #expect(harness.rawBytes == 0)
        let found = harness.findings.verdict(stopLSN: LSN(DeltaHarness.start + 100)).pages
        #expect(found.map { "\($0.path) \($0.block)" } == ["base/5/16384 7", "base/5/16384_vm 0"])
    }

    @Test("damage of a file is found again in each delta, whatever its LSN", arguments: [0, 0x300_0000])
    func damageIsFoundAgain(_ lsn: UInt64) throws {
        let harness = try DeltaHarness()
        harness.checksPages = true
        try harness.tree.write("data/base/5/16384", pages(0..<7) + damaged(7, lsn: lsn) + pages(8..<200))
        try harness.copy()
        #expect(harness.findings.verdict(stopLSN: LSN(DeltaHarness.start)).count == 1)
        // ParentBackup says so of files with a page in the parent's list, and of all where that is cut.
        harness.hasVerifiedPages = false
        try harness.copy()
        #expect(harness.rawBytes == 0)
        #expect(harness.findings.verdict(stopLSN: LSN(DeltaHarness.start)).count == 1)
    }

    @Test("new damage is found and stored, never covered by the parent, in a region with honest changes")
    func newDamage() throws {
        let harness = try DeltaHarness()
        harness.checksPages = true
        try harness.tree.write("data/base/5/16384", pages(0..<200))
        try harness.copy()
        try harness.change("base/5/16384", at: 0, PageSamples.page(block: 0, lsn: 0x600_0000, filler: 9))
        try harness.change("base/5/16384", at: 5 * 8192, damaged(5, lsn: 0x300_0000))
        try harness.copy()
        try harness.compare("new damage")
        #expect(harness.rawBytes == 2 * 8192)
        #expect(harness.findings.verdict(stopLSN: LSN(DeltaHarness.start)).pages.map(\.block) == [5])
    }

    @Test("generated changes of a tree, over a chain of deltas: each copy is what lay there")
    func generated() throws {
        let random = SeededRandom(seed: testSeed())
        for round in 0..<6 {
            let harness = try DeltaHarness()
            harness.trustsPages = round % 3 != 2
            var blocks: [Int: Int] = [:]
            var filler: UInt64 = 1
            func fresh(_ range: Range<Int>, lsn: UInt64) -> [UInt8] {
                filler += 1_000_000
                return pages(range, lsn: lsn, filler: filler)
            }
            for number in 0..<8 {
                let count = [0, 1, 20, 40, 130, 700, 2300][random.next(below: 7)]
                blocks[number] = count
                try harness.tree.write("data/base/5/\(20000 + number)", fresh(0..<count, lsn: 0x300_0000))
            }
            try harness.copy()
            for step in 0..<4 {
                for _ in 0..<6 {
                    let number = random.next(below: 8)
                    let name = "base/5/\(20000 + number)"
                    let count = blocks[number] ?? 0
                    switch random.next(below: 6) {
                    case 0, 1:
                        for _ in 0..<random.next(below: 30) where count > 0 {
                            let block = random.next(below: count)
                            try harness.change(name, at: block * 8192, fresh(block..<block + 1, lsn: 0x600_0000))
                        }
                    case 2:
                        let more = random.next(below: 200)
                        let isZero = random.next(below: 2) == 0
                        try harness.change(
                            name, at: count * 8192,
                            isZero
                                ? [UInt8](repeating: 0, count: more * 8192)
                                : fresh(count..<count + more, lsn: 0x600_0000))
                        blocks[number] = count + more
                    case 3 where count > 0:
                        // Truncated, then extended with pages that nobody logged.
                        let rest = random.next(below: count)
                        let file = try FileDescriptor.open(harness.tree.path("data/" + name), .write)
                        try file.truncate(to: UInt64(rest * 8192))
                        try file.write(fresh(rest..<count, lsn: UInt64(random.next(below: 2))), at: UInt64(rest * 8192))
                    case 4 where count > 0:
                        blocks[number] = random.next(below: count)
                        let file = try FileDescriptor.open(harness.tree.path("data/" + name), .write)
                        try file.truncate(to: UInt64((blocks[number] ?? 0) * 8192))
                    default:
                        try FileSystem.removeFile(at: harness.tree.path("data/" + name))
                        try harness.tree.write("data/" + name, fresh(0..<count, lsn: 0x300_0000))
                    }
                }
                try harness.copy()
                try harness.compare("round \(round), step \(step), seed \(testSeed())")
            }
        }
    }
}

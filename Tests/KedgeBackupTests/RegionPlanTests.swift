// Proves the pure decision of a delta: whatever happens to a file, nothing comes from the parent but what is certain to
// be the same, and what the plan puts together is what was read.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeBackup

struct RegionPlanTests {
    private static let blockSize = PageSamples.blockSize
    private static let parentStart: UInt64 = 0x500_0000
    private static let scan = PageScan(parentStart: LSN(parentStart), walSegmentSize: 1 << 20)

    /// What can happen to a page between two backups.
    private enum Fate: Int, CaseIterable {
        case untouched, changed, zeroed, initialisedWithoutLog, builtWithoutLog, damaged, replacedByOlder
    }

    private struct Limited: ChangedPages {
        let limit: UInt32?
        func limitBlock(of path: ManifestPath) -> UInt32? { limit }
        func isUnchanged(_ page: DataPage, block: UInt32, of path: ManifestPath, isValid: Bool) -> Bool {
            RegionPlanTests.scan.isUnchanged(page, block: block, of: path, isValid: isValid)
        }
    }

    private func content(_ bytes: [UInt8]) -> FileContent {
        FileContent(
            size: UInt64(bytes.count), identity: FileIdentity(inode: 1, birthTime: 1),
            regions: CopyHarness.regions(of: bytes),
            extents: bytes.isEmpty ? [] : [Extent(length: UInt64(bytes.count), source: .zeros)])
    }

    private func plan(
        _ region: ArraySlice<UInt8>, at offset: UInt64, parent: [UInt8], pages: (any ChangedPages)? = Self.scan,
        firstBlock: UInt32 = 0
    ) -> RegionPlan {
        let region = Array(region)
        return region.withUnsafeBytes { bytes in
            RegionPlan.decide(
                bytes,
                RegionPlan.Circumstances(
                    path: ManifestPath("base/5/16384"), offset: offset, checksum: ContentHash(of: region),
                    parent: content(parent), pages: pages, firstBlock: firstBlock, blockSize: Self.blockSize))
        }
    }

    /// What a restore would make of the plan.
    private func rebuilt(_ plan: RegionPlan, _ region: ArraySlice<UInt8>, at offset: Int, parent: [UInt8]) -> [UInt8] {
        switch plan {
        case .parent: return Array(parent[offset..<offset + region.count])
        case .whole, .audit: return Array(region)
        case .pieces(let pieces):
            return pieces.flatMap { piece -> [UInt8] in
                switch piece.source {
                case .parent:
                    return Array(parent[offset + piece.range.lowerBound..<offset + piece.range.upperBound])
                case .stored:
                    return Array(
                        region[region.startIndex + piece.range.lowerBound..<region.startIndex + piece.range.upperBound])
                case .zeros: return [UInt8](repeating: 0, count: piece.range.count)
                }
            }
        }
    }

    // Quick in a debug build, as generic algorithms over bytes are not.
    private func joined(_ pages: [[UInt8]]) -> [UInt8] { pages.reduce(into: []) { $0 += $1 } }
    private func hash(_ bytes: [UInt8]) -> ContentHash { ContentHash(of: bytes) }

    @Test("generated histories of a file: what is put together is what was read, and the limits hold")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        var seen: Set<String> = []
        // A page that is replaced by an older one, which alone makes an audit, is rare: more rounds until it came up.
        for round in 0..<3000 where round < 150 || seen.count < 4 {
            let firstBlock = random.next(below: 2) == 0 ? 0 : UInt32(131_072)
            let parentBlocks = random.next(below: 200)
            let parentPages = (0..<parentBlocks).map { block in
                random.next(below: 20) == 0
                    ? PageSamples.zeros
                    : PageSamples.page(
                        block: firstBlock + UInt32(block), lsn: UInt64(0x200_0000 + random.next(below: 0x100_0000)),
                        filler: UInt64(round * 1000 + block))
            }
            let changeEvery = [2, 20, 100, 100_000][random.next(below: 4)]
            var isHonest = true
            let length = max(1, parentBlocks + [0, 0, -30, 40][random.next(below: 4)])
            let present = (0..<length).map { block -> [UInt8] in
                let number = firstBlock + UInt32(block)
                let old = block < parentBlocks ? parentPages[block] : nil
                let isTouched = random.next(below: changeEvery) == 0 || old == nil
                let fate = isTouched ? Fate.allCases[random.next(below: Fate.allCases.count)] : .untouched
                let filler = UInt64(round * 1000 + block + 500_000)
                switch fate {
                case .untouched: return old ?? PageSamples.page(block: number, lsn: 0x600_0000, filler: filler)
                case .changed:
                    return PageSamples.page(
                        block: number, lsn: Self.parentStart + UInt64(random.next(below: 1 << 20)), filler: filler)
                case .zeroed: return PageSamples.zeros
                case .initialisedWithoutLog: return PageSamples.page(block: number, lsn: 0, filler: filler)
                case .builtWithoutLog: return PageSamples.page(block: number, lsn: 1, filler: filler)
                case .damaged:
                    var page = PageSamples.page(block: number, lsn: 0x300_0000, filler: filler)
                    page[5000] ^= 1
                    return page
                case .replacedByOlder:
                    // What PostgreSQL never does below the parent's length: the checksum of the region must tell.
                    if block < parentBlocks { isHonest = false }
                    return PageSamples.page(block: number, lsn: 0x300_0000, filler: filler)
                }
            }
            let (parent, bytes) = (joined(parentPages), joined(present))
            let limit = random.next(below: 3) == 0 ? firstBlock + UInt32(random.next(below: 200)) : nil
            for offset in stride(from: 0, to: bytes.count, by: Int(regionSize)) {
                let region = bytes[offset..<min(offset + Int(regionSize), bytes.count)]
                if hash(Array(region)) == hash([UInt8](repeating: 0, count: region.count)) { continue }
                let plan = plan(
                    region, at: UInt64(offset), parent: parent, pages: Limited(limit: limit), firstBlock: firstBlock)
                seen.insert(name(plan))
                check(plan, region.count, at: offset, parentBytes: parent.count, limit, firstBlock)
                if isHonest || name(plan) != "pieces" {
                    #expect(
                        hash(rebuilt(plan, region, at: offset, parent: parent)) == hash(Array(region)),
                        "round \(round), seed \(testSeed())")
                }
            }
        }
        #expect(seen == ["parent", "whole", "audit", "pieces"])
    }

    private func name(_ plan: RegionPlan) -> String {
        switch plan {
        case .parent: "parent"
        case .whole: "whole"
        case .audit: "audit"
        case .pieces: "pieces"
        }
    }

    /// Nothing at or beyond min(limit block, parent's length) comes from the parent, and pieces tile the region.
    private func check(
        _ plan: RegionPlan, _ count: Int, at offset: Int, parentBytes: Int, _ limit: UInt32?, _ firstBlock: UInt32
    ) {
        if case .parent = plan { #expect(offset + count <= parentBytes) }
        guard case .pieces(let pieces) = plan else { return }
        var end = 0
        for piece in pieces {
            #expect(piece.range.lowerBound == end && !piece.range.isEmpty)
            end = piece.range.upperBound
            guard piece.source == .parent else { continue }
            #expect(offset + end <= parentBytes)
            if let limit { #expect((offset + end) / Self.blockSize <= Int(limit) - Int(firstBlock)) }
        }
        #expect(end == count)
    }

    private func file(_ blocks: Range<Int>, lsn: UInt64 = 0x300_0000, filler: UInt64 = 0) -> [UInt8] {
        blocks.flatMap { PageSamples.page(block: UInt32($0), lsn: lsn, filler: filler + UInt64($0)) }
    }

    @Test("truncated, then grown again by zero pages: nothing of the old pages comes back (defect of July 2026)")
    func truncatedAndRegrown() {
        let parent = file(0..<128)
        // One page was changed besides, so that the region is not compared as a whole.
        let present =
            PageSamples.page(block: 0, lsn: 0x600_0000, filler: 9) + file(1..<40)
            + [UInt8](repeating: 0, count: 88 * Self.blockSize)
        #expect(
            plan(present[...], at: 0, parent: parent)
                == .pieces([
                    .init(range: 0..<8192, source: .stored), .init(range: 8192..<40 * 8192, source: .parent),
                    .init(range: 40 * 8192..<128 * 8192, source: .zeros),
                ]))
        // The same with pages that were initialised and not logged yet: they are not zero, and have LSN 0.
        let initialised = file(0..<40) + file(40..<128, lsn: 0, filler: 1000)
        let found = plan(initialised[...], at: 0, parent: parent)
        #expect(rebuilt(found, initialised[...], at: 0, parent: parent) == initialised)
    }

    @Test("a page beyond the parent's length is stored, whatever its LSN: files copied by the server keep old LSNs")
    func beyondTheParent() {
        let parent = file(0..<50) + [1, 2, 3]
        let present = file(0..<100)
        #expect(
            plan(present[...], at: 0, parent: parent)
                == .pieces([
                    .init(range: 0..<50 * 8192, source: .parent),
                    .init(range: 50 * 8192..<100 * 8192, source: .stored),
                ]))
    }

    @Test("a change that no LSN shows is found by the region's checksum, and is an audit")
    func audit() {
        let parent = file(0..<128)
        var present = parent
        present.replaceSubrange(
            3 * 8192..<4 * 8192, with: PageSamples.page(block: 3, lsn: 0x300_0000, filler: 77))
        #expect(plan(present[...], at: 0, parent: parent) == .audit)
    }

    @Test("without trust in pages a region is the parent's as a whole or stored as a whole")
    func withoutPages() {
        let parent = file(0..<128)
        #expect(plan(parent[...], at: 0, parent: parent, pages: nil) == .parent)
        let present = PageSamples.page(block: 0, lsn: 0x600_0000, filler: 9) + file(1..<128)
        #expect(plan(present[...], at: 0, parent: parent, pages: nil) == .whole)
        #expect(plan(parent[...], at: 0, parent: []) == .whole)
        // A region of the same content and another length is another region.
        #expect(plan(parent[..<(100 * 8192)], at: 0, parent: parent, pages: nil) == .whole)
    }

    @Test("a region of which most would be stored is stored whole")
    func mostlyChanged() {
        let parent = file(0..<128)
        let present = file(0..<32) + file(32..<128, lsn: 0x600_0000, filler: 500)
        #expect(plan(present[...], at: 0, parent: parent) == .whole)
        let fewer = file(0..<33) + file(33..<128, lsn: 0x600_0000, filler: 500)
        #expect(
            plan(fewer[...], at: 0, parent: parent)
                == .pieces([
                    .init(range: 0..<33 * 8192, source: .parent),
                    .init(range: 33 * 8192..<128 * 8192, source: .stored),
                ]))
    }

    @Test("the scan trusts an LSN of the log before the parent's start, in a page whose checksum fits")
    func scanTable() {
        func isUnchanged(_ lsn: UInt64, block: UInt32 = 5, damaged: Bool = false) -> Bool {
            var page = PageSamples.page(block: 5, lsn: lsn, filler: 1)
            if damaged { page[7000] ^= 1 }
            return page.withUnsafeBytes {
                Self.scan.isUnchanged(DataPage($0), block: block, of: ManifestPath("base/5/1"), isValid: false)
            }
        }
        #expect(isUnchanged(1 << 20) && isUnchanged(Self.parentStart - 1))
        #expect(!isUnchanged(Self.parentStart) && !isUnchanged(Self.parentStart + 1))
        #expect(!isUnchanged(0) && !isUnchanged(1) && !isUnchanged(40) && !isUnchanged((1 << 20) - 1))
        #expect(!isUnchanged(1 << 20, block: 6) && !isUnchanged(1 << 20, damaged: true))
    }

    @Test("a file is the same by inode and birth time; without a birth time nobody can tell")
    func identity() {
        func isSame(_ then: FileIdentity?, _ now: FileIdentity?) -> Bool {
            let content = FileContent(size: 0, identity: then, regions: [], extents: [])
            return ParentFile(content: content, trustsPages: true, hasVerifiedPages: true).isSame(now)
        }
        let file = FileIdentity(inode: 1, birthTime: 2)
        #expect(isSame(file, file))
        #expect(
            !isSame(file, FileIdentity(inode: 1, birthTime: 3)) && !isSame(file, FileIdentity(inode: 2, birthTime: 2)))
        let unknown = FileIdentity(inode: 1, birthTime: 0)
        #expect(!isSame(unknown, unknown) && !isSame(nil, file) && !isSame(file, nil) && !isSame(nil, nil))
    }
}

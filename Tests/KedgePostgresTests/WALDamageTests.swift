// Whatever the bytes of a segment are, the walk ends and nothing traps; and no change of a byte that was checked goes
// unseen. Seeded: the same in every run.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct WALDamageTests {
    /// A segment that begins and ends inside records and holds every event between.
    private static let log: WALBuilder = {
        var builder = WALBuilder(version: .v17, timeline: 2, walBlockSize: 8192)
        let time = Timestamp(microseconds: 1_800_000_000_000_000)
        builder.fill(leaving: 3000)
        builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 4, count: 30_000))
        for index in 0..<120 {
            builder.appendEnd(
                commit: index % 9 != 0, xid: UInt32(800 + index), time: time.adding(seconds: Int64(index)))
            builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 5, count: index * 53 % 9000))
            if index % 20 == 0 {
                builder.appendRestorePoint(Array("point \(index)".utf8), time: time)
                builder.appendEnd(
                    commit: true, xid: 0, time: time, prepared: UInt32(5000 + index), subtransactions: [1, 2])
                builder.appendTablespace(UInt32(index), path: Array("/ts/\(index)".utf8))
                builder.appendCheckpoint(redo: builder.lsn, shutdown: false, time: time)
                let lost = builder.appendAbandoned(length: 20_000, pages: 1)
                builder.appendOverwrite(of: lost)
            }
        }
        builder.fill(leaving: 504)
        builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 6, count: 4000))
        return builder
    }()

    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    private func facts(_ bytes: [UInt8], _ segment: WALSegment, _ format: WALFormat) throws -> WALFacts {
        try bytes.withUnsafeBytes { try WALFacts(of: $0, segment: segment, isPartial: false, format: format) }
    }

    /// Whether byte `offset` of the segment lies in a record that crosses its borders, or in padding: nothing in the
    /// segment itself vouches for those.
    private func isUnchecked(_ offset: Int, _ clean: WALFacts) -> Bool {
        if let continued = clean.walk.continued, offset < Int(continued.remaining) + 40 + 5 * 24 { return true }
        if let unfinished = clean.walk.unfinished, offset >= Int(unfinished.lsn - clean.startLSN) { return true }
        return false
    }

    @Test("no flipped bit goes unseen: it shows as suspect, or nothing that was learned changes")
    func flippedBits() throws {
        let builder = WALDamageTests.log
        let (segment, clean) = builder.segments[1]
        let expected = try facts(clean, segment, builder.format)
        try #require(expected.suspect == nil)
        try #require(expected.walk.continued != nil && expected.walk.unfinished != nil)
        try #require(expected.events.restorePoints.count > 1 && expected.events.commits > 20)
        var random = Random(state: 42)
        var seen = 0
        var harmless = 0
        var bytes = clean
        for _ in 0..<1500 {
            let bit = Int.random(in: 0..<clean.count * 8, using: &random)
            bytes[bit / 8] ^= 1 << (bit % 8)
            let found = try facts(bytes, segment, builder.format)
            if found.suspect != nil {
                seen += 1
            } else if found == expected {
                harmless += 1
            } else {
                #expect(isUnchecked(bit / 8, expected), "bit \(bit) changed the facts unseen")
            }
            bytes[bit / 8] ^= 1 << (bit % 8)
        }
        // Unused are the rests of pages at which records were given up, and a few bytes of padding.
        #expect(seen > 1000)
        #expect(harmless > 0)
    }

    @Test("bits flipped in headers of pages and records are seen as well", arguments: 0..<24)
    func flippedHeaders(_ byte: Int) throws {
        let builder = WALDamageTests.log
        let (segment, clean) = builder.segments[1]
        let expected = try facts(clean, segment, builder.format)
        let page = 8192 * 60
        let record = builder.records.first {
            $0.lsn.position >= segment.startLSN(segmentSize: 1 << 20).position + 400_000
        }
        let start = Int(try #require(record).lsn - expected.startLSN)
        for (offset, isPage) in [(page + byte, true), (start + byte, false)] {
            for bit in 0..<8 {
                var bytes = clean
                bytes[offset] ^= 1 << bit
                let found = try facts(bytes, segment, builder.format)
                // The padding of a page header, and the flag that says that images may be left out.
                let isUnused = isPage && (byte >= 20 || (byte == 2 && bit == 2))
                #expect(
                    isUnused ? found == expected : found.suspect != nil, "byte \(byte), bit \(bit), page: \(isPage)")
            }
        }
    }

    @Test("a record of the last page that is made to leave the segment is found out by the next one")
    func flippedLength() throws {
        var builder = WALBuilder()
        builder.fill(leaving: 400)
        let time = Timestamp(microseconds: 1_800_000_000_000_000)
        let last = builder.appendEnd(commit: true, xid: 9, time: time)
        builder.fill(leaving: 16)
        builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 6, count: 400))
        let segments = builder.segments
        var bytes = segments[0].bytes
        bytes[Int(last - LSN(5 << 20)) + 1] ^= 0x10
        let damaged = try facts(bytes, segments[0].segment, builder.format)
        #expect(damaged.suspect == nil && damaged.walk.unfinished?.lsn == last)
        let next = try facts(segments[1].bytes, segments[1].segment, builder.format)
        guard case .mismatch = WALFacts.straddling(damaged, next, version: .v15) else {
            Issue.record("the two segments were taken to fit")
            return
        }
    }

    @Test("garbage never traps: bytes overwritten, pages moved, files cut, noise", arguments: 0..<60)
    func garbage(_ seed: Int) throws {
        let builder = WALDamageTests.log
        var (segment, bytes) = builder.segments[1]
        let expected = try facts(bytes, segment, builder.format)
        var random = Random(state: UInt64(seed) &* 977 &+ 5)
        for _ in 0..<Int.random(in: 1...20, using: &random) {
            let at = Int.random(in: 40..<bytes.count, using: &random)
            let count = min(Int.random(in: 1...2000, using: &random), bytes.count - at)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: for offset in at..<at + count { bytes[offset] = UInt8.random(in: 0...255, using: &random) }
            case 1: for offset in at..<at + count { bytes[offset] = 0 }
            case 2:
                let page = at / 8192 * 8192
                let other = Int.random(in: 1..<128, using: &random) * 8192
                bytes.replaceSubrange(page..<page + 8192, with: Array(bytes[other..<other + 8192]))
            default: for offset in at..<min(at + 8, bytes.count) { bytes[offset] = 0xFF }
            }
        }
        let found = try facts(bytes, segment, builder.format)
        #expect(found.suspect != nil || found == expected || found.walk.unfinished != expected.walk.unfinished)
        let text = Array(found.jsonValue.compactText.utf8)
        #expect(try WALFacts(JSONRecord(parsing: text, what: "facts")) == found)
    }

    @Test("noise behind a valid header never traps", arguments: 0..<20)
    func noise(_ seed: Int) throws {
        let builder = WALDamageTests.log
        var (segment, bytes) = builder.segments[1]
        var random = Random(state: UInt64(seed))
        var noise: [UInt8] = []
        while noise.count < 50_000 { noise.append(littleEndian: random.next()) }
        // Over the first pages, or from the first record on up to the end.
        let from = seed % 2 == 0 ? 40 : 0
        for start in stride(from: from, to: bytes.count - noise.count, by: noise.count) where start == from || from > 0
        {
            bytes.replaceSubrange(start..<start + noise.count, with: noise)
        }
        #expect(try facts(bytes, segment, builder.format).suspect != nil)
    }
}

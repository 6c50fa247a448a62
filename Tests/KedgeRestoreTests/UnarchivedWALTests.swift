// Which files of a pg_wal would be missed: every combination of what can be known, and generated histories of two
// servers that wrote one timeline.
import KedgeCatalog
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct UnarchivedWALTests {
    private func file(_ number: UInt64, timeline: UInt32 = 1) -> WALFileName {
        .segment(WALSegment(timeline: TimelineID(timeline), number: number).fileName(segmentSize: 1 << 20))
    }

    private func segment(_ number: UInt64, timeline: UInt32 = 1) -> WALSegment {
        WALSegment(timeline: TimelineID(timeline), number: number)
    }

    /// Segments of timeline 1 that are archived, and backups that start and end in one of these each.
    private func coverage(_ archived: some Sequence<UInt64>, backups: [UInt64]) throws -> WALCoverage {
        var inventory = WALInventory(segmentSize: 1 << 20)
        for number in archived { inventory.add(objectNamed: file(number).text, storedBytes: 1) }
        return WALCoverage(
            ArchivedWAL(inventory: inventory, histories: [:]),
            backups: try backups.map { number in
                let start = LSN(number << 20 + 40)
                return .sample(
                    try #require(Label("20261121T020000Z-full-\(1000 + number)")), start: start, stop: start + 400)
            })
    }

    @Test("alone, a file is missed if it holds data or waits for the archive, and nobody else has it")
    func alone() throws {
        let coverage = try coverage([], backups: [])
        for content in [LocalWALFile.Content.nothing, .bookkeeping, .data] {
            for copy in [LocalWALFile.Copy.none, .same, .other] {
                for isReady in [false, true] {
                    let wal = UnarchivedWAL(
                        [
                            LocalWALFile(
                                name: file(5), segment: segment(5), content: content, isReady: isReady, copy: copy)
                        ], coverage)
                    let isMissed =
                        switch content {
                        case .nothing: isReady && copy != .same
                        case .bookkeeping: false
                        case .data: copy != .same
                        }
                    #expect(wal.files.isEmpty != isMissed, "\(content) \(copy) \(isReady)")
                }
            }
        }
    }

    @Test("a backup that starts later makes up for a segment only where the directory's own WAL leads to it")
    func backups() throws {
        /// Whether segment 5 is missed that lies beside others whose content is archived.
        func isMissed(
            beside others: [UInt64], _ coverage: WALCoverage, ready: Bool = false, copy: LocalWALFile.Copy = .none
        ) -> Bool {
            let own = LocalWALFile(
                name: file(5), segment: segment(5), content: .data, isReady: ready, copy: copy)
            let archived = others.map {
                LocalWALFile(name: file($0), segment: segment($0), content: .data, copy: .same)
            }
            return UnarchivedWAL([own] + archived, coverage).files == [own]
        }
        let later = try coverage(8...12, backups: [8])
        #expect(!isMissed(beside: [8], later))
        #expect(try !isMissed(beside: [7], coverage(7...12, backups: [8])))
        // It waits for the archive; the repository has another of that name; the name alone is that of the backup.
        #expect(isMissed(beside: [8], later, ready: true))
        #expect(isMissed(beside: [8], later, copy: .other))
        #expect(isMissed(beside: [], later))
        // What is archived behind the backup may be another server's that came there later.
        #expect(isMissed(beside: [9, 10], later))
        // The backup needs it itself, and something older may need it on its way.
        #expect(try isMissed(beside: [6], coverage(6...12, backups: [5])))
        #expect(try isMissed(beside: [8], coverage([3] + Array(8...12), backups: [8])))
        #expect(try isMissed(beside: [8], coverage(8...12, backups: [4, 8])))
    }

    @Test("what closes a hole is missed even if it holds nothing but a server's own records")
    func holes() throws {
        let own = LocalWALFile(name: file(5), segment: segment(5), content: .bookkeeping)
        for (archived, backups, isHole) in [
            ([4, 6], [4], true), ([4, 7], [], true), ([4], [8], true), ([6, 7], [4], true), ([6, 7], [6], false),
            ([4], [4], false), ([4, 5, 6], [4], false), ([], [], false),
        ] as [([UInt64], [UInt64], Bool)] {
            let wal = UnarchivedWAL([own], try coverage(archived, backups: backups))
            #expect(wal.files.isEmpty != isHole && wal.holes == wal.files, "\(archived) \(backups)")
        }
    }

    /// One server archived and took backups; another went on from a copy of its data directory, on the same timeline.
    private struct World {
        let random: SeededRandom
        /// Where the other's WAL begins to differ.
        let fork: UInt64
        /// What is archived of the first.
        var archived: Set<UInt64> = []
        var backups: [UInt64] = []
        let isOther: Bool
        /// What lies in the directory.
        let local: ClosedRange<UInt64>
        var files: [LocalWALFile] = []

        init(_ random: SeededRandom) {
            self.random = random
            func next(_ low: UInt64, _ high: UInt64) -> UInt64 { low + UInt64(random.next(below: Int(high - low))) }
            fork = next(1, 24)
            isOther = random.next(below: 2) == 0
            let first = next(1, 20)
            local = first...next(first, 24)
            let begin = next(1, 20)
            for number in begin...22 where random.next(below: 12) > 0 { archived.insert(number) }
            for _ in 0..<random.next(below: 3) { backups.append(next(begin, 22)) }
        }

        func isShared(_ number: UInt64) -> Bool { !isOther || number < fork }
    }

    @Test("generated histories: what may go is archived with its content, or before all else in a backup's own past")
    func generated() throws {
        let random = SeededRandom(seed: testSeed())
        var (missed, inBackup, twins) = (0, 0, 0)
        for round in 0..<4000 {
            let world = World(random)
            let files = world.local.map { number in
                LocalWALFile(
                    name: file(number), segment: segment(number), content: .data,
                    isReady: random.next(below: 8) == 0,
                    copy: !world.archived.contains(number) ? .none : world.isShared(number) ? .same : .other)
            }
            let wal = UnarchivedWAL(files, try coverage(world.archived.sorted(), backups: world.backups))
            let kept = Set(wal.files)
            missed += kept.isEmpty ? 0 : 1
            for file in files where !kept.contains(file) {
                guard file.copy != .same else { continue }
                let number = try #require(file.segment).number
                // Truly of the past of a backup, and of no use to any other or to what is archived.
                #expect(
                    !file.isReady && world.isShared(number) && !world.archived.contains(number)
                        && world.backups.contains { $0 > number } && world.backups.allSatisfy { $0 > number }
                        && world.archived.allSatisfy { $0 > number }, "round \(round): \(number) of \(world)")
                inBackup += 1
            }
            // And nobody is troubled over what is nowhere missed: before all that is archived, in order.
            if let start = world.backups.min(), world.archived.min() == start, world.local.upperBound >= start {
                for file in files where kept.contains(file) && file.copy == .none && !file.isReady {
                    let number = try #require(file.segment).number
                    #expect(number >= start || !world.isShared(start), "round \(round): \(number) of \(world)")
                    twins += number < start ? 1 : 0
                }
            }
        }
        #expect(missed > 1000 && inBackup > 50 && twins > 50)
    }

    @Test("the summary names how many, the first, the last and how far; what is kept includes what waits")
    func text() throws {
        let nothing = try coverage([], backups: [])
        let wal = UnarchivedWAL(
            [
                LocalWALFile(name: file(12), content: .data, end: LSN(0xC1_2340)),
                LocalWALFile(name: file(10), content: .bookkeeping, end: LSN(0xB0_0000), isReady: true),
                LocalWALFile(name: file(11), content: .data, end: LSN(0xC0_0000), isReady: true),
                LocalWALFile(name: file(9), content: .data, copy: .same),
            ], nothing)
        #expect(
            wal.summary
                == "3 WAL files, 00000001000000000000000A to 00000001000000000000000C, up to LSN 0/C12340")
        #expect(
            wal.keptNames == [
                "00000001000000000000000A", "archive_status/00000001000000000000000A.ready",
                "00000001000000000000000B", "archive_status/00000001000000000000000B.ready",
                "00000001000000000000000C",
            ])
        #expect(
            UnarchivedWAL([LocalWALFile(name: .history(TimelineID(2)), content: .data)], nothing).summary
                == "WAL file 00000002.history")
        let next = WALSegment(timeline: TimelineID(1), number: 10)
        #expect(wal.goesOn(at: [next], segmentSize: 1 << 20))
        #expect(!wal.goesOn(at: [WALSegment(timeline: TimelineID(2), number: 10)], segmentSize: 1 << 20))
        #expect(!wal.goesOn(at: [WALSegment(timeline: TimelineID(1), number: 9)], segmentSize: 1 << 20))
    }
}

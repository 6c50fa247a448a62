// Which files of a pg_wal would be missed: every combination of what can be known, and generated directories.
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct UnarchivedWALTests {
    private func file(_ number: UInt64, timeline: UInt32 = 1) -> WALFileName {
        .segment(WALSegment(timeline: TimelineID(timeline), number: number).fileName(segmentSize: 1 << 20))
    }

    @Test("alone, a file is missed if it holds data or waits for the archive, and nobody else has it")
    func alone() {
        for content in [LocalWALFile.Content.nothing, .bookkeeping, .data] {
            for bits in 0..<8 {
                let (isReady, isArchived, isInBackup) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)
                let wal = UnarchivedWAL([
                    LocalWALFile(
                        name: file(5), content: content, isReady: isReady, isArchived: isArchived,
                        isInBackup: isInBackup)
                ])
                let isMissed =
                    switch content {
                    case .nothing: isReady && bits < 2
                    case .bookkeeping: false
                    case .data: bits < 2
                    }
                #expect(wal.files.isEmpty != isMissed, "\(content) \(bits)")
            }
        }
    }

    @Test("generated directories: nothing with data is left out, what another has or holds nothing is never kept")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        var missed = 0
        for _ in 0..<2000 {
            let files = (0..<random.next(below: 7)).map { number in
                LocalWALFile(
                    name: number == 6 ? .history(TimelineID(2)) : file(UInt64(20 - number)),
                    content: [.nothing, .bookkeeping, .data][random.next(below: 3)], end: LSN(UInt64(number) << 20),
                    isReady: random.next(below: 4) == 0, isArchived: random.next(below: 3) == 0,
                    isInBackup: random.next(below: 4) == 0)
            }
            let wal = UnarchivedWAL(files)
            let kept = Set(wal.files)
            let known = files.filter { $0.isArchived || $0.isInBackup || $0.content == .nothing && !$0.isReady }
            let data = files.filter { $0.content == .data && !$0.isArchived && !$0.isInBackup }
            #expect(kept.isDisjoint(with: known))
            #expect(kept.isSuperset(of: data))
            // Replay goes through every segment on the way: all or nothing.
            let rest = Set(files).subtracting(known)
            #expect(kept.isEmpty || kept == rest)
            #expect(kept.isEmpty == rest.allSatisfy { $0.content == .bookkeeping })
            #expect(wal.files.map(\.name.text) == wal.files.map(\.name.text).sorted())
            missed += kept.isEmpty ? 0 : 1
        }
        #expect((200..<1900).contains(missed))
    }

    @Test("the summary names how many, the first, the last and how far; what is kept includes what waits")
    func text() {
        let wal = UnarchivedWAL([
            LocalWALFile(name: file(12), content: .data, end: LSN(0xC1_2340)),
            LocalWALFile(name: file(10), content: .bookkeeping, end: LSN(0xB0_0000), isReady: true),
            LocalWALFile(name: file(11), content: .data, end: LSN(0xC0_0000), isReady: true),
            LocalWALFile(name: file(9), content: .data, isArchived: true),
        ])
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
            UnarchivedWAL([LocalWALFile(name: .history(TimelineID(2)), content: .data)]).summary
                == "WAL file 00000002.history")
        let next = WALSegment(timeline: TimelineID(1), number: 10)
        #expect(wal.goesOn(at: [next], segmentSize: 1 << 20))
        #expect(!wal.goesOn(at: [WALSegment(timeline: TimelineID(2), number: 10)], segmentSize: 1 << 20))
        #expect(!wal.goesOn(at: [WALSegment(timeline: TimelineID(1), number: 9)], segmentSize: 1 << 20))
    }
}

// That `info` stays quick and honest: how many segments it reads at most, what it says when there were more, and what
// it makes of files that can't be read.
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCatalog

@Suite struct RepositorySurveyTests {
    private func lsn(_ segment: UInt64, _ offset: UInt64 = 0) -> LSN { LSN(segment << 20 + offset) }

    private func repository(segments: ClosedRange<UInt64>, damaged: Set<UInt64> = []) throws -> MemoryRepository {
        let memory = try MemoryRepository(walSegmentSize: 1 << 20)
        try memory.archive(segments, damaged: damaged)
        try BackupCatalog(memory.cluster()).commit(
            CommitRecord.sample(
                #require(Label("20261121T020000Z-full-7k3q")), start: lsn(segments.lowerBound, 40),
                stop: lsn(segments.lowerBound + 1, 400),
                stopTime: MemoryRepository.commitTime(segments.lowerBound + 1)))
        return memory
    }

    /// The survey, and how many segments' facts were read.
    private func survey(
        _ memory: MemoryRepository, limit: Int
    ) throws -> (info: RepositoryInfo, segmentsRead: Int) {
        let store = FaultyStore(memory.store) { _ in nil }
        let source = RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
        let cluster = try source.openCluster("main", for: .read)
        let info = try RepositorySurvey(cluster: cluster, interruption: Interruption(), segmentLimit: limit).run()
        let read = store.operations.filter { $0.kind == .readPrefix && $0.name.hasPrefix("main/wal/7/00000001/") }
        return (info, Set(read.map(\.name)).count)
    }

    @Test("no more segments are read than the limit, the newest first, and the rest is admitted")
    func limit() throws {
        let memory = try repository(segments: 1...20)
        let (whole, all) = try survey(memory, limit: 500)
        #expect((all, whole.hasUnseenSegments) == (20, false))
        #expect(InfoMessage.about(whole).isEmpty)
        let (some, few) = try survey(memory, limit: 4)
        #expect((few, some.hasUnseenSegments) == (4, true))
        // What is said is right all the same: the end is known from the last segment.
        #expect(some.windows.map(\.to) == whole.windows.map(\.to))
        #expect(
            InfoMessage.about(some).map(\.error.message) == [
                "not every segment after the newest backup was looked at for damage"
            ])
    }

    @Test("WAL of wal_level = minimal ends the window, and says so until there is a backup behind it")
    func minimalWAL() throws {
        let memory = try repository(segments: 1...4)
        try memory.archive(5...5, minimal: [5])
        try memory.archive(6...7)
        let info = try survey(memory, limit: 500).info
        #expect(info.windows.map { $0.to.lsn < lsn(6) && $0.to.lsn > lsn(5) } == [true])
        #expect(info.suspects.map(\.reason) == [WALFacts.minimalWALReason])
        #expect(InfoMessage.about(info).first?.error.hint?.hasPrefix("Take a new backup now: ") == true)
        try BackupCatalog(memory.cluster()).commit(
            CommitRecord.sample(
                #require(Label("20261121T030000Z-full-7k3q")), start: lsn(6, 40), stop: lsn(6, 400),
                stopTime: MemoryRepository.commitTime(6)))
        #expect(try survey(memory, limit: 500).info.suspects.isEmpty)
    }

    @Test("WAL behind the last segment is missing where a backup history file names a later one")
    func missingEnd() throws {
        let memory = try repository(segments: 1...4)
        let paper = PaperBackup(try memory.cluster())
        try paper.archive(.backup("000000010000000000000003.00000028.backup"), Array("START\n".utf8))
        #expect(InfoMessage.about(try survey(memory, limit: 500).info).isEmpty)
        try paper.archive(.backup("000000010000000000000006.00000028.backup"), Array("START\n".utf8))
        #expect(
            InfoMessage.about(try survey(memory, limit: 500).info).map(\.error.message) == [
                "2 WAL segment(s) are missing at the end of timeline 1: 000000010000000000000005 to "
                    + "000000010000000000000006"
            ])
    }

    @Test("a backup history file of a branch that was left says nothing once no backup is recovered along it")
    func expiredEnd() throws {
        // Timeline 1 went on to a backup in segment 9; after a recovery to segment 3 its backups were expired, and with
        // them all WAL before the oldest backup of timeline 2.
        for isKept in [false, true] {
            let memory = try MemoryRepository(walSegmentSize: 1 << 20)
            try memory.archive(isKept ? 1...4 : 4...4)
            try memory.archive(3...6, timeline: 2)
            try memory.archiveHistory(2, [(1, lsn(3, 4096))])
            let paper = PaperBackup(try memory.cluster())
            try paper.archive(.backup("000000010000000000000009.00000028.backup"), Array("START\n".utf8))
            let catalog = BackupCatalog(try memory.cluster())
            var record = CommitRecord.sample(
                try #require(Label("20261121T030000Z-full-bbbb")), timeline: 2, start: lsn(4, 40), stop: lsn(5, 400))
            record.span.history = [.init(timeline: TimelineID(1), switchLSN: lsn(3, 4096))]
            try catalog.commit(record)
            if isKept {
                try catalog.commit(
                    CommitRecord.sample(
                        try #require(Label("20261121T020000Z-full-aaaa")), start: lsn(1, 40), stop: lsn(2, 400)))
            }
            let about = InfoMessage.about(try survey(memory, limit: 500).info).map(\.error.message)
            #expect(about.filter { $0.contains("at the end of timeline 1") }.count == (isKept ? 1 : 0), "\(about)")
            #expect(isKept || about.isEmpty, "\(about)")
        }
    }

    @Test("the time of the last commit is unknown where it was not looked for far enough")
    func unknownTime() throws {
        let memory = try repository(segments: 1...3)
        // Segments without a commit follow.
        for number in UInt64(4)...9 { try memory.archiveEmpty(number) }
        #expect(try survey(memory, limit: 500).info.windows.map(\.to.time) == [MemoryRepository.commitTime(3)])
        #expect(try survey(memory, limit: 5).info.windows.map(\.to.time) == [nil])
    }

    @Test("the end of a standby's backup says nothing of how far its primary had come")
    func standbyTime() throws {
        for (isStandby, segments, time) in [
            (false, 1...3 as ClosedRange<UInt64>, Self.late), (true, 1...3, MemoryRepository.commitTime(3)),
            (false, 1...2, Self.late), (true, 1...2, nil),
        ] as [(Bool, ClosedRange<UInt64>, Timestamp?)] {
            let memory = try MemoryRepository(encrypted: false, walSegmentSize: 1 << 20)
            try memory.archive(segments)
            let label = try #require(Label("20261121T030000Z-full-bbbb"))
            // It ends with segment 2, and its clocks were far ahead of what the WAL has.
            var record = CommitRecord.sample(label, start: lsn(2, 40), stop: LSN(3 << 20), stopTime: Self.late)
            record.server.fromStandby = isStandby
            try BackupCatalog(memory.cluster()).commit(record)
            #expect(try survey(memory, limit: 500).info.windows.map(\.to.time) == [time], "\(isStandby) \(segments)")
        }
    }

    private static let late = MemoryRepository.commitTime(900)

    @Test("a segment that can't be opened ends the window before it, and is told with its reason")
    func unreadable() throws {
        let memory = try repository(segments: 1...6)
        memory.store.damage("main/wal/7/00000001/00000000/000000010000000000000004") { $0[200] ^= 1 }
        let info = try survey(memory, limit: 500).info
        #expect(info.windows.map(\.to.lsn) == [lsn(3, 0x70)])
        #expect(info.windows.map(\.to.time) == [MemoryRepository.commitTime(3)])
        #expect(info.unreadableSegments.map(\.name) == ["000000010000000000000004"])
        #expect(info.suspects.isEmpty)
        #expect(InfoMessage.about(info).map(\.severity) == [.error])
    }

    @Test("damage that a newer backup has left behind is not told any more")
    func leftBehind() throws {
        let memory = try repository(segments: 1...8, damaged: [3])
        #expect(try survey(memory, limit: 500).info.suspects.map(\.file) == ["000000010000000000000003"])
        try BackupCatalog(memory.cluster()).commit(
            CommitRecord.sample(
                #require(Label("20261121T030000Z-full-aaaa")), start: lsn(5, 40), stop: lsn(6, 400),
                stopTime: MemoryRepository.commitTime(6)))
        let info = try survey(memory, limit: 500).info
        #expect(info.suspects.isEmpty)
        #expect(info.windows.map(\.to.lsn).last == lsn(8, 0x70))
    }

    @Test("a standby's half-filled last segment of a timeline that was left is no damage")
    func leftTimeline() throws {
        let memory = try repository(segments: 1...4, damaged: [4])
        try memory.archiveHistory(2, [(timeline: 1, end: lsn(4, 0x50))])
        let info = try survey(memory, limit: 500).info
        #expect(info.suspects.isEmpty)
        #expect(InfoMessage.about(info).isEmpty)
    }

    @Test("a store that goes away while it is surveyed is an error, not a short answer")
    func unavailable() throws {
        let memory = try repository(segments: 1...4)
        let count = try FaultSweep.operations(of: memory) { source in
            try RepositorySurvey(
                cluster: source.openCluster("main", for: .read), interruption: Interruption()
            ).run()
        }
        #expect(count > 5)
        for number in 1...count {
            let store = FaultyStore(memory.store, .failBefore, atOperation: number, code: .repositoryUnavailable)
            let source = RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
            let error = #expect(throws: KedgeError.self, "operation \(number)") {
                try RepositorySurvey(
                    cluster: source.openCluster("main", for: .read), interruption: Interruption()
                ).run()
            }
            #expect(error?.code == .repositoryUnavailable)
        }
    }
}

private enum FaultSweep {
    /// How many store operations `body` takes.
    static func operations<Value>(
        of memory: MemoryRepository, _ body: (RepositorySource) throws -> Value
    ) throws -> Int {
        let store = FaultyStore(memory.store) { _ in nil }
        _ = try body(RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store }))
        return store.operations.count
    }
}

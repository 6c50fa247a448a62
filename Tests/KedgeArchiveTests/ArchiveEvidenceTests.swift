// What shows that a segment existed which is nowhere: a backup that was taken there or later, and a newer state of the
// repository that this host has seen. Absence is proven only without it.
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ArchiveEvidenceTests {
    let fixture: ArchiveFixture
    let store = MemoryStore()
    let harness: ArchiveHarness
    let names: [String]

    init() throws {
        fixture = try ArchiveFixture()
        harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: store)])
        names = try fixture.writeSegments(count: 4)
        _ = try harness.push(names[0])
    }

    private func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    private func commit(_ label: String, timeline: UInt32 = 1, start: UInt64, stop: UInt64, system: UInt64? = nil)
        throws
    {
        let cluster = try harness.repositories[0].openCluster("main", for: .write)
        try BackupCatalog(cluster).commit(
            .sample(
                try #require(Label(label)), timeline: timeline, start: LSN(start), stop: LSN(stop),
                system: system ?? WALBuilder.system.number))
    }

    @Test("a backup history file shows that its segment and those before it existed")
    func backupHistory() throws {
        try fixture.write("pg_wal/\(names[2]).00000028.backup", Array("START WAL LOCATION: 0/700028\n".utf8))
        #expect(try harness.get(names[1]) == .absent)
        _ = try harness.push("\(names[2]).00000028.backup")
        for name in names[1...2] {
            let error = failure { _ = try harness.get(name) }
            #expect(error?.code == .walGap)
            #expect(error?.detail?.contains("says \"\(names[2]).00000028.backup\"") == true, "\(error?.detail ?? "")")
        }
        #expect(try harness.get(names[0]) == .fetched(repository: "main"))
        #expect(try harness.get(names[3]) == .absent)
        #expect(try harness.get("00000002" + names[1].dropFirst(8)) == .absent)
    }

    @Test("a server whose history left the timeline before is not held up by backups of the other branch")
    func otherBranch() throws {
        try fixture.write("pg_wal/\(names[3]).00000028.backup", Array("START WAL LOCATION: 0/800028\n".utf8))
        _ = try harness.push("\(names[3]).00000028.backup")
        func get(_ name: String, leftAt lsn: String) throws(KedgeError) -> ArchiveGet.Outcome {
            let history = try TimelineHistory(parsing: Array("1\t\(lsn)\tx\n".utf8), timeline: TimelineID(2))
            return try ArchiveGet(
                ArchiveGet.Options(
                    fileName: name, destination: harness.destination, clusterName: "main",
                    dataDirectory: fixture.path("."), repositories: harness.repositories, threads: 1,
                    timeoutNanoseconds: 0, followed: history), random: SystemRandomSource(), time: harness.time,
                interruption: Interruption()
            ).run()
        }
        #expect(try get(names[2], leftAt: "0/600000") == .absent)
        #expect(failure { _ = try get(names[1], leftAt: "0/600001") }?.code == .walGap)
    }

    @Test("a committed backup shows that the WAL up to its stop existed, on its timeline and of its system alone")
    func commitRecord() throws {
        try commit("20261121T020000Z-full-aaaa", start: 0x600028, stop: 0x700138)
        for name in names[1...2] {
            let error = failure { _ = try harness.get(name) }
            #expect(error?.code == .walGap)
            #expect(error?.detail?.contains("backup \"20261121T020000Z-full-aaaa\" ended there or behind it") == true)
        }
        #expect(try harness.get(names[3]) == .absent)
        try commit("20261121T030000Z-full-aaaa", timeline: 2, start: 0x900028, stop: 0x900138)
        try commit("20261121T040000Z-full-aaaa", start: 0x900028, stop: 0x900138, system: 8)
        #expect(try harness.get(names[3]) == .absent)
        // One that can't be read is no evidence, and does not stand in the way of what is absent.
        let newest = try #require(store.names.first { $0.text.hasSuffix("backup/20261121T040000Z-full-aaaa") })
        store.damage(newest) { $0[$0.count / 2] ^= 1 }
        #expect(try harness.get(names[3]) == .absent)
    }

    @Test("the segment that a stop position begins with is not reached", arguments: 1...50)
    func generated(_ seed: UInt64) throws {
        let dice = SeededRandom(seed: seed)
        let size: UInt64 = 1 << 20
        for _ in 0..<100 {
            let (timeline, number) = (UInt32(1 + dice.next(below: 2)), UInt64(dice.next(below: 6)))
            let (otherTimeline, start) = (UInt32(1 + dice.next(below: 2)), UInt64(dice.next(below: 6)))
            let segment = WALSegment(timeline: TimelineID(timeline), number: number)
            let other = WALSegment(timeline: TimelineID(otherTimeline), number: start)
            let name = other.fileName(segmentSize: size)
            let isBehind = timeline == otherTimeline && start >= number
            let file = try #require(WALFileName(name + ".00000028.backup"))
            #expect(WALEvidence.isBackup(file, atOrBehind: segment, segmentSize: size) == isBehind)
            #expect(!WALEvidence.isBackup(.segment(name), atOrBehind: segment, segmentSize: size))
            let stop = start * size + [0, 1, size - 1][dice.next(below: 3)]
            let record = CommitRecord.sample(
                try #require(Label("20261121T020000Z-full-aaaa")), timeline: otherTimeline, start: LSN(0),
                stop: LSN(max(stop, 1)))
            let bytes = (number * size)..<(number * size + size)
            #expect(
                record.span.reaches(segment, segmentSize: size)
                    == (timeline == otherTimeline && max(stop, 1) > bytes.lowerBound))
        }
    }

    /// Remembers a key that is newer than any.
    private struct Seen: KeyMemory {
        let sequence: UInt64

        func location(of repository: RandomID) -> String { "\"/note\"" }
        func newestKey(of repository: RandomID) -> KeyVersion? {
            KeyVersion(sequence: sequence, id: RandomID(high: .max, low: .max))
        }
        func remember(_ key: KeyVersion, of repository: RandomID) {}
    }

    @Test("a repository that is known to be an older state of itself serves what it has and proves no absence")
    func rolledBack() throws {
        let (store, secret) = (MemoryStore(), KeyEncryptionSecret.newKeyFile(random: SystemRandomSource()))
        let plain = try fixture.makeRepository(in: store, secret: secret)
        let usual = ArchiveHarness(fixture: fixture, repositories: [plain])
        _ = try usual.push(names[0])
        #expect(try usual.get(names[1]) == .absent)
        var settings = plain.settings
        settings.keyMemory = Seen(sequence: 2)
        let old = ArchiveHarness(
            fixture: fixture,
            repositories: [
                RepositorySource(settings: settings, openStore: plain.openStore, createStore: plain.createStore)
            ])
        #expect(try old.get(names[0]) == .fetched(repository: "main"))
        for name in [names[1], "00000002.history"] {
            let error = failure { _ = try old.get(name) }
            #expect(error?.code == .keyOutdated, "\(text(error))")
        }
        // Another repository that has the file serves it all the same; absence needs both.
        let other = ArchiveHarness(fixture: fixture, repositories: [harness.repositories[0]])
        _ = try other.push(names[1])
        let both = ArchiveHarness(fixture: fixture, repositories: old.repositories + other.repositories)
        #expect(try both.get(names[1]) == .fetched(repository: "main"))
        #expect(failure { _ = try both.get(names[2]) }?.code == .keyOutdated)
    }

    /// A rotation of the key that is done, and remembered, at the moment when somebody looks at what is remembered.
    private struct Rotating: KeyMemory {
        let store: MemoryStore
        let secret: KeyEncryptionSecret
        let key = DataKey(sequence: 2, random: SystemRandomSource())

        func location(of repository: RandomID) -> String { "\"/note\"" }
        func newestKey(of repository: RandomID) -> KeyVersion? {
            do throws(KedgeError) {
                let slot = try KeySlot.wrap(
                    key, with: secret, repositoryID: repository, label: "second",
                    createdAt: Timestamp(secondsSince1970: 1_795_000_001), random: SystemRandomSource())
                try Repository.putKeySlot(slot, in: store)
                return key.version
            } catch {
                Issue.record(error)
                return nil
            }
        }
        func remember(_ key: KeyVersion, of repository: RandomID) {}
    }

    @Test("a rotation beside it makes no older state of a repository, for a push or for a proof of absence")
    func rotation() throws {
        let (store, secret) = (MemoryStore(), KeyEncryptionSecret.newKeyFile(random: SystemRandomSource()))
        let plain = try fixture.makeRepository(in: store, secret: secret)
        var settings = plain.settings
        settings.keyMemory = Rotating(store: store, secret: secret)
        let source = RepositorySource(
            settings: settings, openStore: plain.openStore, createStore: plain.createStore)
        let beside = ArchiveHarness(fixture: fixture, repositories: [source])
        #expect(try beside.push(names[0]).stored.map(\.outcome) == [.created])
        settings.keyMemory = Rotating(store: store, secret: secret)
        #expect(try beside.get(names[1]) == .absent)
    }

    @Test("an empty history file is refused: the real one would be a conflict for ever")
    func emptyHistory() throws {
        let before = store.contents
        for content in ["", "\n", "# nothing\n"] {
            try fixture.write("pg_wal/00000002.history", Array(content.utf8))
            #expect(failure { _ = try harness.push("00000002.history") }?.code == .walInvalid)
        }
        #expect(store.contents == before)
        try fixture.write("pg_wal/00000002.history", Array("1\t0/680000\tbefore\n".utf8))
        _ = try harness.push("00000002.history")
    }
}

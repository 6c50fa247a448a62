// Proves that a manifest that is gone, or is not the one that was committed, is damage of a backup that exists, and
// that the error names what restores instead.
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCatalog

@Suite struct LostManifestTests {
    private func backup(_ number: Int, timeline: UInt32 = 1, system: UInt64 = 7) throws -> CommitRecord {
        let label = try #require(Label("202611\(10 + number)T020000Z-full-aaa\(number)"))
        let stop = UInt64(number) << 24
        return CommitRecord.sample(
            label, timeline: timeline, start: LSN(stop - 1000), stop: LSN(stop), system: system)
    }

    @Test("a manifest that is missing is damage while its backup is committed, else it is not found")
    func missing() throws {
        let cluster = try MemoryRepository(encrypted: false).cluster()
        let catalog = BackupCatalog(cluster)
        let (older, newest) = (try backup(1), try backup(2))
        try catalog.commit(older)
        let uncommitted = #expect(throws: KedgeError.self) { try catalog.manifest(of: newest) }
        #expect(uncommitted?.code == .notFound)
        try catalog.commit(newest)
        let error = #expect(throws: KedgeError.self) { try catalog.manifest(of: newest) }
        #expect(error?.code == .damaged)
        #expect(error?.hint?.contains("\"--backup \(older.label)\"") == true)
    }

    @Test("a manifest that cannot be read names an older backup, whatever is wrong with it")
    func altered() throws {
        let cluster = try MemoryRepository(encrypted: false).cluster()
        let catalog = BackupCatalog(cluster)
        let (older, newest) = (try backup(1), try backup(2))
        for record in [older, newest] { try catalog.commit(record) }
        let name = cluster.name(try #require(ClusterLayout.manifest(label: newest.label.text)))
        let random = SeededRandom(seed: testSeed())
        for length in [0, 1, 40, 200] {
            _ = try cluster.repository.store.remove([name])
            _ = try cluster.repository.store.put(name, ObjectBody(random.bytes(length)), .createOnly)
            let error = #expect(throws: KedgeError.self) { try catalog.manifest(of: newest) }
            #expect(error?.code.exitStatus == 3, "\(String(describing: error))")
            #expect(error?.hint?.contains("\"--backup \(older.label)\"") == true, "\(String(describing: error))")
        }
    }

    @Test("the hint names the newest older backup of the same system, on no later timeline")
    func hint() throws {
        let random = SeededRandom(seed: testSeed())
        var named = 0
        for _ in 0..<200 {
            let record = try backup(5, timeline: 2)
            let others = try (1...9).filter { _ in random.next(below: 3) == 0 }.map { number in
                try backup(
                    number, timeline: UInt32(1 + random.next(below: 3)), system: random.next(below: 3) == 0 ? 8 : 7)
            }
            let usable = others.filter {
                $0.label != record.label && $0.server.systemIdentifier == record.server.systemIdentifier
                    && $0.span.timeline.number <= 2 && $0.span.stopLSN <= record.span.stopLSN
            }
            let hint = LostManifest.hint(record, others: others.shuffledBy(random))
            if let best = usable.map(\.label).max() {
                #expect(hint.contains("\"--backup \(best)\""))
                named += 1
            } else {
                #expect(!hint.contains("--backup"))
            }
        }
        #expect(named > 20 && named < 200)
    }
}

extension [CommitRecord] {
    fileprivate func shuffledBy(_ random: SeededRandom) -> [CommitRecord] {
        random.next(below: 2) == 0 ? self : reversed()
    }
}

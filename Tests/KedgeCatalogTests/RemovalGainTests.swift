// What removing backups would free: against a model that counts what is left, and against what expire then frees.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct RemovalGainTests {
    private func label(_ number: Int) -> Label { ExpireHarness.label(UInt64(number)) }

    @Test("generated chains: a removal frees exactly what nobody that stays refers to, with all that build on it")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        var shared = 0
        for round in 0..<300 {
            let context: Comment = "seed \(testSeed()), round \(round)"
            let ids = (0..<12).map { RandomID(high: 1, low: UInt64($0)) }
            // The last one is listed by a manifest and is not there.
            let sizes = Dictionary(
                uniqueKeysWithValues: ids.dropLast().map {
                    (ClusterLayout.pack($0), UInt64(1 + random.next(below: 1000)))
                })
            var backups: [CommitRecord] = []
            for number in 1...(1 + random.next(below: 7)) {
                var record = CommitRecord.sample(label(number), start: LSN(1 << 20), stop: LSN(2 << 20))
                record.manifest.length = UInt64(random.next(below: 50))
                if let parent = backups.randomElement(random), random.next(below: 3) > 0 {
                    record.parent = parent.label
                }
                record.packs = ids.filter { _ in random.next(below: 4) == 0 }.map { PackUse(id: $0, liveBytes: 1) }
                backups.append(record)
            }
            let gain = RemovalGain(backups, packBytes: sizes)
            func stored(_ left: [CommitRecord]) -> UInt64 {
                let packs = Set(left.flatMap { $0.packs.map { ClusterLayout.pack($0.id) } })
                return packs.reduce(0) { $0 + (sizes[$1] ?? 0) } + left.reduce(0) { $0 + $1.manifest.length }
            }
            func builds(_ record: CommitRecord, on ancestor: Label) -> Bool {
                guard let parent = record.parent else { return false }
                if parent == ancestor { return true }
                return backups.first { $0.label == parent }.map { builds($0, on: ancestor) } ?? false
            }
            for backup in backups {
                let share = gain.share(of: backup.label)
                let dependents = backups.filter { builds($0, on: backup.label) }.map(\.label).sorted()
                #expect(share.dependents == dependents, context)
                #expect(
                    share.ownBytes == stored(backups) - stored(backups.filter { $0.label != backup.label }), context)
                let left = backups.filter { $0.label != backup.label && !dependents.contains($0.label) }
                #expect(share.bytes == stored(backups) - stored(left), context)
                shared += share.bytes > share.ownBytes ? 1 : 0
            }
        }
        #expect(shared > 50)
    }

    @Test("a backup that is its own ancestor, or has one that is gone, ends no search")
    func circles() {
        var first = CommitRecord.sample(label(1), start: LSN(1 << 20), stop: LSN(2 << 20))
        var second = CommitRecord.sample(label(2), start: LSN(1 << 20), stop: LSN(2 << 20))
        first.parent = label(2)
        second.parent = label(1)
        let gain = RemovalGain([first, second], packBytes: [:])
        #expect(gain.share(of: label(1)).dependents == [label(2)])
        #expect(gain.share(of: label(9)) == gain.share(of: label(8)))
    }

    @Test("a dry run of expire says what the runs after it free, to the byte, packs and WAL")
    func forecast() throws {
        var harness = try ExpireHarness()
        try harness.backup(1)
        try harness.backup(2, base: 1)
        try harness.backup(3)
        harness.rules = RetentionRules(keepFull: 1, graceSeconds: 0)
        let outcome = try harness.expire(isDryRun: true)
        let forecast = try #require(outcome.forecast)
        let full = ExpireHarness.label(1)
        let share = try #require(forecast.shares[full])
        #expect(share.dependents == [ExpireHarness.label(2, .delta)])
        #expect(share.bytes > share.ownBytes)
        #expect(forecast.shares.count == 3 && forecast.freed.packs == 4)
        let manifests = try [full, ExpireHarness.label(2, .delta)].reduce(UInt64(0)) { sum, label in
            sum + (try harness.record(label)).manifest.length
        }
        harness.time.advance(seconds: 90_000)
        var freed = ExpireSweep.Result()
        for _ in 0..<3 {
            let run = try harness.expire()
            #expect(run.forecast == nil)
            freed.packs += run.swept.packs
            freed.packBytes += run.swept.packBytes
            freed.walFiles += run.swept.walFiles
            freed.walBytes += run.swept.walBytes
            harness.time.advance(seconds: 90_000)
        }
        #expect(forecast.freed.packs == freed.packs)
        #expect(forecast.freed.bytes == freed.packBytes + manifests)
        #expect(forecast.walFiles == freed.walFiles && forecast.walBytes == freed.walBytes)
        #expect(forecast.walFiles == 6)
    }
}

extension [CommitRecord] {
    fileprivate func randomElement(_ random: SeededRandom) -> CommitRecord? {
        isEmpty ? nil : self[random.next(below: count)]
    }
}

extension ExpireHarness {
    fileprivate func record(_ label: Label) throws -> CommitRecord {
        try #require(try BackupCatalog(cluster()).list().backups.first { $0.label == label })
    }
}

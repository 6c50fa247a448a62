// That a dry run of expire tells what the run right after it does, over generated catalogues: what is condemned, taken
// back, removed and swept, whatever the grace period, and that it writes nothing itself.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ExpireDryRunTests {
    /// What a run came to, but for unfinished writes, which a dry run does not look for.
    private struct Told: Equatable {
        var condemned: [Label]
        var withdrawn: [String]
        var pending: [String]
        var removed: [Label]
        var swept: ExpireSweep.Result
        var warnings: [String]

        init(_ outcome: Expire.Outcome) {
            condemned = outcome.condemned
            withdrawn = outcome.withdrawn.map { "\($0.label): \($0.why)" }
            pending = outcome.pending.map { "\($0.label): \($0.seconds)" }
            removed = outcome.removed
            swept = outcome.swept
            swept.writes = 0
            warnings = outcome.warnings
        }
    }

    /// Looks at the dry run, carries it out and compares.
    @discardableResult
    private func compare(_ harness: ExpireHarness, byHand: Label? = nil, _ place: String = "") throws -> Expire.Outcome
    {
        let before = harness.memory.store.names
        let dry = try harness.expire(byHand: byHand, isDryRun: true)
        #expect(harness.memory.store.names == before, "\(place)")
        let real = try harness.expire(byHand: byHand)
        #expect(Told(dry) == Told(real), "\(place)")
        return real
    }

    @Test("without a grace period a dry run says removed, with all that goes at once")
    func atOnce() throws {
        var harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        harness.rules.graceSeconds = 0
        let outcome = try compare(harness)
        #expect(outcome.removed == [ExpireHarness.label(1), ExpireHarness.label(2)])
        #expect(outcome.swept.packs == 4 && outcome.swept.walFiles == 6)
    }

    @Test("what is swept is told also where no backup goes and no retention is configured")
    func sweepAlone() throws {
        var harness = try ExpireHarness()
        harness.rules = RetentionRules()
        try PaperBackup(try harness.cluster()).archive(1...2)
        try harness.backup(1)
        harness.time.advance(seconds: 90_000)
        let outcome = try compare(harness)
        #expect(outcome.removed == [] && outcome.swept.walFiles == 2)
        #expect(try compare(harness).swept.isEmpty)
    }

    @Test("a removal that was interrupted is gone on with by both; one that cannot be read stops both")
    func interrupted() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        try harness.expire()
        try RetentionCatalog(try harness.cluster()).removeCommitRecord(ExpireHarness.label(1))
        #expect(try compare(harness).removed == [ExpireHarness.label(1)])
        let record = try #require(harness.memory.store.names.first { $0.text.hasPrefix("main/catalog/backup/") })
        harness.memory.store.damage(record) { $0[$0.count / 2] ^= 1 }
        harness.time.advance(seconds: 90_000)
        #expect(try compare(harness).plan.blocks.count == 1)
    }

    @Test("generated catalogues: run after run the dry run tells what the next one does")
    func generated() throws {
        let rounds = PostgresInstallation.soakIsEnabled ? 300 : 12
        var (condemned, withdrawn, pending, removed, swept) = (0, 0, 0, 0, 0)
        for round in 0..<rounds {
            let random = SeededRandom(seed: testSeed() &* 1000 &+ UInt64(round))
            var harness = try ExpireHarness()
            var labels: [Label] = []
            var number: UInt64 = 0
            for step in 0..<12 {
                let place = "round \(round), step \(step)"
                switch random.next(below: 6) {
                case 0, 1, 2:
                    number += 1
                    let base =
                        number > 1 && random.next(below: 3) == 0 && labels.last == ExpireHarness.label(number - 1)
                    try harness.backup(number, base: base ? number - 1 : nil)
                    labels.append(ExpireHarness.label(number, base ? .delta : .full))
                case 3 where random.next(below: 4) == 0:
                    try harness.dieInBackup(30 + UInt64(step))
                case 4 where !labels.isEmpty:
                    // It may be gone by now.
                    let label = labels[random.next(below: labels.count)]
                    if try BackupCatalog(try harness.cluster()).isCommitted(label) {
                        _ = try harness.pinning().pin(label)
                        if random.next(below: 2) == 0 { try harness.pinning().unpin(label) }
                    }
                default: break
                }
                harness.rules = RetentionRules(
                    keepFull: random.next(below: 5) == 0 ? nil : 1 + random.next(below: 2),
                    graceSeconds: [0, 3600, 86_400][random.next(below: 3)])
                harness.time.advance(seconds: [600, 7200, 90_000][random.next(below: 3)])
                let outcome = try compare(harness, place)
                condemned += outcome.condemned.count
                withdrawn += outcome.withdrawn.count
                pending += outcome.pending.count
                removed += outcome.removed.count
                swept += outcome.swept.walFiles + outcome.swept.packs + outcome.swept.intents.count
            }
        }
        #expect([condemned, withdrawn, pending, removed, swept].allSatisfy { $0 > rounds / 2 })
    }
}

// What retention decides in cases that a person can follow, with the reasons that are shown. RetentionSimulationTests
// holds thousands of generated ones against a second opinion.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct RetentionPlanTests {
    /// 2026-11-01T00:00:00Z, a Sunday.
    private let day0 = Timestamp(secondsSince1970: 1_793_491_200)

    /// One backup a day from `day0` on, or every so many days, each in a segment of its own; `types`: f for full, d for
    /// a delta of the one before.
    private func daily(_ types: String, every days: Int64 = 1) throws -> [RetentionFacts.Backup] {
        var backups: [RetentionFacts.Backup] = []
        for (day, type) in types.enumerated() {
            let time = day0.adding(seconds: Int64(day) * days * 86_400 + 7200)
            let isDelta = type == "d"
            let label = try #require(Label("\(time.labelText)-\(isDelta ? "delta" : "full")-aaaa"))
            let start = LSN(UInt64(day + 1) << 20 + 40)
            var record = CommitRecord.sample(label, start: start, stop: start + 400, stopTime: time)
            if isDelta {
                record.type = .delta
                record.parent = backups.last?.record.label
            }
            backups.append(RetentionFacts.Backup(record: record))
        }
        return backups
    }

    private func facts(
        _ backups: [RetentionFacts.Backup], daysLater: Int64 = 0, running: [RetentionFacts.Running] = [],
        lastStored: Timestamp? = nil
    ) -> RetentionFacts {
        var inventory = WALInventory(segmentSize: 1 << 20)
        for number in UInt64(1)...UInt64(backups.count + 2) {
            let segment = WALSegment(timeline: TimelineID(1), number: number)
            inventory.add(objectNamed: segment.fileName(segmentSize: 1 << 20), storedBytes: 1)
        }
        let now = (backups.last?.record.span.stopTime ?? day0).adding(seconds: 3600 + daysLater * 86_400)
        return RetentionFacts(
            now: now,
            systems: [
                .init(
                    identifier: SystemIdentifier(7), archive: ArchivedWAL(inventory: inventory, histories: [:]),
                    lastStored: [TimelineID(1): lastStored ?? now])
            ], backups: backups, running: running)
    }

    /// The day of each backup that is kept.
    private func days(_ plan: RetentionPlan) -> [Int] {
        plan.items.indices.filter { plan.items[$0].isKept }
    }

    @Test("without any rule nothing goes")
    func noRules() throws {
        let plan = RetentionPlan(facts(try daily("ffff")), RetentionRules())
        #expect(days(plan) == [0, 1, 2, 3])
        #expect(plan.items[0].text == "kept: no retention is configured")
    }

    @Test("keep-full counts full backups from the newest, and keeps what follows the oldest of them")
    func keepFull() throws {
        let plan = RetentionPlan(facts(try daily("fddfddfd")), RetentionRules(keepFull: 2))
        #expect(days(plan) == [3, 4, 5, 6, 7])
        #expect(plan.items[2].text == "removed: no rule keeps it")
        #expect(plan.items[3].text.hasPrefix("kept: full backup no. 2 of keep-full, base of "))
        #expect(plan.items[7].text == "kept: the newest backup, after a full backup of keep-full")
        #expect(days(RetentionPlan(facts(try daily("fdf")), RetentionRules(keepFull: 3))) == [0, 1, 2])
    }

    /// Moves backups to timeline 2, which left timeline 1 at the end of segment `fork`.
    private func branched(_ backups: inout [RetentionFacts.Backup], _ days: [Int], fork: UInt64) {
        for day in days {
            backups[day].record.span.timeline = TimelineID(2)
            backups[day].record.span.history = [
                CommitRecord.TimelineSwitch(timeline: TimelineID(1), switchLSN: LSN((fork + 1) << 20))
            ]
        }
    }

    @Test("after a recovery to an earlier moment keep-full counts over all and on the way to each branch in use")
    func keepFullAfterRecovery() throws {
        // Weeks 2 and 3 lie on timeline 1 behind the point where timeline 2 branched off.
        var backups = try daily("fffff", every: 7)
        branched(&backups, [4], fork: 2)
        let rules = RetentionRules(keepFull: 2)
        let left = backups[3].record.span.stopTime
        let plan = RetentionPlan(facts(backups, lastStored: left), rules)
        #expect(plan.removed.map(\.label) == [backups[0].record.label])
        #expect(plan.item(backups[3].record.label)?.text == "kept: full backup no. 2 of keep-full")
        #expect(
            plan.item(backups[1].record.label)?.text == "kept: keep-full wants so many on the way to timeline 2")
        // With so many on the branch itself, and nothing archived behind it since the older of them, all others go.
        var later = try daily("ffffff", every: 7)
        branched(&later, [4, 5], fork: 2)
        #expect(
            RetentionPlan(facts(later, lastStored: left), rules).items.filter(\.isKept).map(\.label)
                == [later[4].record.label, later[5].record.label])
    }

    @Test("a promoted copy with the newest full backups does not cost the original, which goes on, its own")
    func keepFullBesideANewerCopy() throws {
        // Weeks 0 to 2 are the original's; on the two days after the last a copy takes one each, from behind it.
        var backups = try daily("fffff", every: 7)
        branched(&backups, [3, 4], fork: 3)
        let last = backups[2].record.span.stopTime
        for (index, days) in [(3, 1), (4, 2)] as [(Int, Int64)] {
            backups[index].record.span.stopTime = last.adding(seconds: days * 86_400)
        }
        let rules = RetentionRules(keepFull: 2)
        // Also where the original had nothing to archive since.
        for lastStored in [nil, last] {
            let plan = RetentionPlan(facts(backups, lastStored: lastStored), rules)
            #expect(days(plan) == [1, 2, 3, 4])
            #expect(
                plan.item(backups[2].record.label)?.text == "kept: keep-full wants so many on the way to timeline 1")
        }
        // Where it forked off before the last of them the same.
        var early = backups
        branched(&early, [3, 4], fork: 1)
        #expect(days(RetentionPlan(facts(early), rules)) == [1, 2, 3, 4])
        // What nothing more comes of for longer than a week is left.
        for (index, days) in [(3, 8), (4, 9)] as [(Int, Int64)] {
            backups[index].record.span.stopTime = last.adding(seconds: days * 86_400)
        }
        #expect(days(RetentionPlan(facts(backups, lastStored: last), rules)) == [3, 4])
        #expect(days(RetentionPlan(facts(backups), rules)) == [1, 2, 3, 4])
    }

    @Test("before its first backup a branch keeps its full backups behind which those of the one that was left lie")
    func keepFullWithoutBackup() throws {
        let backups = try daily("ffff", every: 7)
        var known = facts(backups)
        let second = TimelineID(2)
        let history = try TimelineHistory(timeline: second, ancestors: [(TimelineID(1), LSN(3 << 20))])
        known.systems[0].archive = ArchivedWAL(
            inventory: known.systems[0].archive.inventory, histories: [second: history])
        known.systems[0].lastStored[second] = known.now
        let plan = RetentionPlan(known, RetentionRules(keepFull: 1))
        #expect(days(plan) == [1, 3])
        #expect(
            plan.item(backups[1].record.label)?.text == "kept: keep-full wants so many on the way to timeline 2")
    }

    @Test("a promoted copy that is left does not cost the timeline that goes on its full backups")
    func keepFullBesideACopy() throws {
        // Weeks 1 and 2 were taken by a copy on timeline 2, and the original went on.
        var backups = try daily("fffffff", every: 7)
        branched(&backups, [1, 2], fork: 1)
        let plan = RetentionPlan(facts(backups), RetentionRules(keepFull: 3))
        let kept = Set(plan.items.filter(\.isKept).map(\.label))
        #expect(kept == Set([2, 4, 5, 6].map { backups[$0].record.label }))
        // The clock of the original lags behind that of the copy: then nobody knows which are newer.
        var lagging = backups
        for day in [3, 4, 5, 6] {
            lagging[day].record.span.stopTime = lagging[day].record.span.stopTime.adding(seconds: -60 * 86_400)
        }
        lagging[0].record.span.stopTime = backups[1].record.span.stopTime
        let careful = RetentionPlan(facts(lagging), RetentionRules(keepFull: 2)).items.filter(\.isKept).map(\.label)
        #expect(Set(careful).isSuperset(of: [1, 2].map { lagging[$0].record.label }))
    }

    @Test("a full backup that failed its proof, or lacks WAL, takes no place of keep-full")
    func unsound() throws {
        var backups = try daily("fffff")
        backups[4].canBecomeConsistent = false
        let failed = ProofRecord.sample(
            of: backups[3].record, in: RandomID(high: 1, low: 1), result: .failed, finished: day0)
        backups[3].proof = ProofStanding(
            of: failed.label, manifest: failed.manifest, repositoryID: failed.repositoryID, proofs: [failed])
        let plan = RetentionPlan(facts(backups), RetentionRules(keepFull: 2))
        #expect(days(plan) == [1, 2, 3, 4])
        #expect(plan.items[2].text.hasPrefix("kept: the newest backup without a known defect, full backup no. 1"))
    }

    @Test("keep-days keeps the backup that the first of these moments is reached from, and counts back from the newest")
    func keepDays() throws {
        let rules = RetentionRules(keepDays: 3)
        #expect(days(RetentionPlan(facts(try daily("ffffffff")), rules)) == [4, 5, 6, 7])
        // Nobody took a backup for a month, or the clock jumped ahead: nothing gets older by that (lesson 25).
        #expect(days(RetentionPlan(facts(try daily("ffffffff"), daysLater: 30), rules)) == [4, 5, 6, 7])
        var gap = try daily("ffffffff")
        gap.remove(at: 4)
        #expect(
            RetentionPlan(facts(gap), rules).items.filter(\.isKept).map(\.label) == gap[3...].map(\.record.label),
            "the base may be older than the days")
    }

    @Test("tiers keep one backup of each period that has one, a full one where there is one")
    func tiers() throws {
        // Days 0 to 20: Sunday 1 November to Saturday 21 November 2026.
        let plan = RetentionPlan(
            facts(try daily("ddfdddddddfdddddddddf")),
            RetentionRules(keepTiers: [.weekly: 3, .monthly: 1]))
        let texts = plan.items.map(\.text)
        #expect(texts[20] == "kept: the newest backup, weekly 2026-W47, monthly 2026-11")
        #expect(texts[10] == "kept: weekly 2026-W46")
        #expect(texts[2] == "kept: weekly 2026-W45")
        #expect(days(plan) == [2, 10, 20])
    }

    @Test("weeks are those of ISO 8601 around the turn of the year")
    func weeks() {
        func week(_ year: Int, _ month: Int, _ day: Int) -> String {
            RetentionPeriod.weekly.name(
                of: Timestamp(secondsSince1970: CivilDate.days(year: year, month: month, day: day) * 86_400))
        }
        #expect(week(2026, 1, 1) == "2026-W01")
        #expect(week(2027, 1, 1) == "2026-W53")
        #expect(week(2027, 1, 4) == "2027-W01")
        #expect(week(2024, 12, 30) == "2025-W01")
        #expect(week(2021, 1, 3) == "2020-W53")
        #expect(week(1969, 12, 31) == "1970-W01")
    }

    @Test("pins, bases of kept deltas and bases of running backups stay")
    func needed() throws {
        var backups = try daily("fdfdffff")
        backups[1].isPinned = true
        let parent = backups[3].record.label
        let label = try #require(Label("20261121T020000Z-delta-zzzz"))
        let intent = Intent(
            label: label, type: .delta, parent: parent, systemIdentifier: SystemIdentifier(7),
            timeline: TimelineID(1), startLSN: LSN(9 << 20), startedAt: day0, hostName: "h", processID: 1,
            createdBy: "kedge")
        let running = RetentionFacts.Running(label: label, intent: intent, storedAt: day0, hasLease: true)
        let plan = RetentionPlan(facts(backups, running: [running]), RetentionRules(keepFull: 1))
        #expect(days(plan) == [0, 1, 2, 3, 7])
        #expect(plan.items[0].text == "kept: base of \(backups[1].record.label)")
        #expect(plan.items[3].text == "kept: base of \(label), which is being taken")
    }

    @Test("the newest proven and the newest drilled backup stay, with all WAL after them")
    func proven() throws {
        var backups = try daily("fffff")
        func pass(_ index: Int, _ level: ProofLevel) {
            let proof = ProofRecord.sample(
                of: backups[index].record, in: RandomID(high: 1, low: 1), level: level, finished: day0)
            backups[index].proof = ProofStanding(
                of: proof.label, manifest: proof.manifest, repositoryID: proof.repositoryID, proofs: [proof])
        }
        pass(0, .drilled)
        pass(1, .drilled)
        pass(2, .verified)
        let known = facts(backups)
        let plan = RetentionPlan(known, RetentionRules(keepFull: 1))
        #expect(days(plan) == [1, 2, 4])
        #expect(plan.items[1].text == "kept: the newest backup that passed a drill")
        #expect(plan.items[2].text == "kept: the newest proven backup")
        let wal = try #require(plan.wal(of: SystemIdentifier(7), known, isRemoved: { !$0.isKept }))
        #expect(
            (UInt64(1)...7).filter { wal.keeps(WALSegment(timeline: TimelineID(1), number: $0)) } == [2, 3, 4, 5, 6, 7])
    }

    @Test("a backup that a tier keeps has all WAL after it, since recovery reads ahead")
    func singleBackups() throws {
        let known = facts(try daily("fffff"))
        let plan = RetentionPlan(known, RetentionRules(keepFull: 1, keepTiers: [.daily: 3]))
        #expect(days(plan) == [2, 3, 4])
        func kept(_ isRemoved: (RetentionPlan.Item) -> Bool) throws -> [UInt64] {
            let found = plan.wal(of: SystemIdentifier(7), known, isRemoved: isRemoved)
            let wal = try #require(found)
            return (UInt64(1)...7).filter { wal.keeps(WALSegment(timeline: TimelineID(1), number: $0)) }
        }
        #expect(try kept { !$0.isKept } == [3, 4, 5, 6, 7])
        // While the removal of the others can be taken back, all their WAL stays.
        #expect(try kept { _ in false } == [1, 2, 3, 4, 5, 6, 7])
        let far = RetentionPlan(known, RetentionRules(keepFull: 1, keepTiers: [.weekly: 2]))
        #expect(far.items.map(\.isKept) == [true, false, false, false, true])
        let wal = try #require(far.wal(of: SystemIdentifier(7), known, isRemoved: { !$0.isKept }))
        #expect(
            (UInt64(1)...7).filter { wal.keeps(WALSegment(timeline: TimelineID(1), number: $0)) } == [
                1, 2, 3, 4, 5, 6, 7,
            ])
    }

    @Test("without a backup no WAL goes, nor that of a system whose successor has none (lesson 26)")
    func withoutBackups() throws {
        var known = facts([])
        func keepsAll(_ system: UInt64) throws -> Bool {
            let plan = RetentionPlan(known, RetentionRules(keepFull: 1))
            let wal = try #require(plan.wal(of: SystemIdentifier(system), known, isRemoved: { _ in false }))
            return wal.keeps(WALSegment(timeline: TimelineID(1), number: 1))
        }
        #expect(try keepsAll(7))
        var successor = known.systems[0]
        successor.identifier = SystemIdentifier(8)
        known.systems.append(successor)
        #expect(try keepsAll(7))
        #expect(try keepsAll(8))
        let start = LSN(2 << 20)
        known.backups = [
            RetentionFacts.Backup(
                record: .sample(
                    try #require(Label("20261121T020000Z-full-7k3q")), start: start, stop: start + 40, stopTime: day0,
                    system: 8))
        ]
        #expect(try !keepsAll(7), "the upgrade has a backup, and nothing can be done with this WAL")
    }

    @Test("a backup from the future, and one before its predecessor, stop the rules by time and nothing else")
    func clocks() throws {
        let rules = RetentionRules(keepFull: 2, keepDays: 1)
        var backups = try daily("ffffff")
        backups[4].record.span.stopTime = backups[5].record.span.stopTime.adding(seconds: 400 * 86_400)
        let plan = RetentionPlan(facts(backups), rules)
        #expect(days(plan) == [0, 1, 2, 3, 4, 5])
        #expect(plan.clockWarnings.count == 2)
        #expect(plan.clockWarnings[0].contains("ahead of the repository's clock"))
        #expect(plan.clockWarnings[1].contains("before \(backups[4].record.label), which it follows"))
        #expect(plan.items[0].text.hasPrefix("kept: rules by time are not applied: "))
        #expect(days(RetentionPlan(facts(backups), RetentionRules(keepFull: 2))) == [4, 5])
        // Whoever knows which one is wrong names it.
        let mended = RetentionPlan(facts(backups), rules, byHand: [backups[4].record.label])
        #expect(mended.clockWarnings == [])
        #expect(days(mended) == [3, 5])
        #expect(mended.items[4].text == "removed: asked for")
    }

    @Test("a commit record or intent that can't be read stops everything")
    func blocked() throws {
        var known = facts(try daily("ffff"))
        known.unreadable = [UnreadableRecord(name: "x", error: KedgeError(.damaged, "x", hint: "x"))]
        let plan = RetentionPlan(known, RetentionRules(keepFull: 1))
        #expect(days(plan) == [0, 1, 2, 3])
        #expect(plan.blocks == ["commit record \"x\" cannot be read"])
        let wal = try #require(plan.wal(of: SystemIdentifier(7), known, isRemoved: { !$0.isKept }))
        #expect(wal.keeps(WALSegment(timeline: TimelineID(1), number: 1)))
        known.unreadable = []
        let label = try #require(Label("20261121T020000Z-full-zzzz"))
        known.running = [.init(label: label, intent: nil, storedAt: day0, hasLease: false)]
        #expect(days(RetentionPlan(known, RetentionRules(keepFull: 1))) == [0, 1, 2, 3])
    }

    @Test("a removal that was asked for takes a backup out of the rules, but never the newest")
    func byHand() throws {
        let backups = try daily("ffff")
        let asked: Set<Label> = [backups[2].record.label]
        #expect(days(RetentionPlan(facts(backups), RetentionRules(keepFull: 2), byHand: asked)) == [1, 3])
        let newest = RetentionPlan(facts(backups), RetentionRules(), byHand: [backups[3].record.label])
        #expect(newest.items[3].isKept)
    }
}

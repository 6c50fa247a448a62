// That over thousands of generated catalogues retention keeps exactly what a second opinion keeps, and that nothing
// goes which something that stays needs: held against a replay that opens one file after the other.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct RetentionSimulationTests {
    private static var seeds: [UInt64] {
        let first = testSeed() &* 1_000_000
        return (0..<(PostgresInstallation.soakIsEnabled ? 10_000 : 500)).map { first &+ $0 }
    }

    @Test("a plan keeps exactly what the second opinion keeps, and names a reason for each")
    func verdicts() throws {
        var (removed, kept) = (0, 0)
        for seed in Self.seeds {
            let catalog = try GeneratedCatalog(seed: seed)
            let plan = RetentionPlan(catalog.facts, catalog.rules)
            let model = RetentionModel(catalog)
            let planned = Set(plan.items.filter(\.isKept).map(\.label))
            #expect(
                planned == model.kept,
                "seed \(seed): \(planned.symmetricDifference(model.kept)): \(plan.items.map(\.text)) \(catalog.rules)")
            #expect(plan.items.count == catalog.facts.backups.count)
            removed += plan.removed.count
            kept += planned.count
        }
        // The generator must not degenerate.
        #expect(removed > Self.seeds.count / 2 && kept > Self.seeds.count)
    }

    @Test("whatever is kept becomes consistent as before, and recovery from an anchor gets as far as before")
    func nothingNeededGoes() throws {
        var (gone, anchors, single) = (0, 0, 0)
        for seed in Self.seeds {
            let catalog = try GeneratedCatalog(seed: seed)
            let plan = RetentionPlan(catalog.facts, catalog.rules)
            for (system, archive) in zip(catalog.facts.systems, catalog.archives) {
                let wal = try #require(
                    plan.wal(of: system.identifier, catalog.facts, isRemoved: { !$0.isKept }), "seed \(seed)")
                for item in plan.items
                where item.isKept && item.backup.record.server.systemIdentifier == system.identifier {
                    let span = item.backup.record.span
                    for timeline in system.archive.timelines {
                        guard let history = system.archive.history(of: timeline), item.backup.record.lies(on: history)
                        else { continue }
                        let before = archive.replay(from: span.startLSN, along: history)
                        let after = archive.replay(from: span.startLSN, along: history, wal.keeps)
                        if item.keepsWALAfterIt {
                            #expect(after == before, "seed \(seed): \(item.label) along \(timeline): \(item.text)")
                            anchors += 1
                        } else if before >= span.stopLSN {
                            #expect(after >= span.stopLSN, "seed \(seed): \(item.label) along \(timeline)")
                            single += 1
                        }
                    }
                }
                for running in catalog.facts.running.compactMap(\.intent)
                where running.systemIdentifier == system.identifier {
                    let first = running.startLSN.position / retentionSegmentSize
                    for number in archive.whole[running.timeline.number] ?? [] where number >= first {
                        #expect(wal.keeps(WALSegment(timeline: running.timeline, number: number)), "seed \(seed)")
                    }
                }
                for (timeline, numbers) in archive.whole {
                    gone += numbers.filter { !wal.keeps(WALSegment(timeline: TimelineID(timeline), number: $0)) }.count
                }
            }
        }
        #expect(gone > Self.seeds.count / 4 && anchors > Self.seeds.count && single == 0)
    }

    @Test("every moment of the days of keep-days that could be reached can still be reached (lesson 25)")
    func daysStayRecoverable() throws {
        var moments = 0
        for seed in Self.seeds {
            let catalog = try GeneratedCatalog(seed: seed)
            let plan = RetentionPlan(catalog.facts, catalog.rules)
            // By a wrong clock no base can be told from another.
            guard let begin = plan.daysBegin, !catalog.hasWrongClock else { continue }
            let sound = plan.items.filter { item in
                item.backup.canBecomeConsistent && item.backup.proof.failure == nil && !item.isByHand
            }
            for (system, archive) in zip(catalog.facts.systems, catalog.archives) {
                let wal = try #require(plan.wal(of: system.identifier, catalog.facts, isRemoved: { !$0.isKept }))
                let own = sound.filter { $0.backup.record.server.systemIdentifier == system.identifier }
                for timeline in system.archive.timelines {
                    guard let history = system.archive.history(of: timeline) else { continue }
                    let reach = own.filter { $0.backup.record.lies(on: history) }.map { item in
                        let span = item.backup.record.span
                        return (
                            item, span.stopLSN, archive.replay(from: span.startLSN, along: history),
                            archive.replay(from: span.startLSN, along: history, wal.keeps)
                        )
                    }
                    for number in archive.whole[timeline.number] ?? []
                    where archive.time(timeline.number, number) >= begin {
                        let end = LSN((number + 1) * retentionSegmentSize)
                        guard reach.contains(where: { $0.1 <= end && $0.2 >= end }) else { continue }
                        #expect(
                            reach.contains { $0.0.isKept && $0.1 <= end && $0.3 >= end },
                            "seed \(seed): \(end) on timeline \(timeline)")
                        moments += 1
                    }
                }
            }
        }
        #expect(moments > Self.seeds.count)
    }
}

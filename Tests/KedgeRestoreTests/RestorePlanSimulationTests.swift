// That the planner's verdict is the server's: for hundreds of random histories with branching timelines, gaps, partial
// segments and clocks that step back, every verdict is compared with a replay of the records one by one.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRestore
import Testing

@Suite struct RestorePlanSimulationTests {
    /// Targets at and around everything that happened.
    private func targets(_ model: HistoryModel, _ dice: inout Dice) -> [RecoveryTarget] {
        var targets: [RecoveryTarget] = [.name("p\(dice.below(7))"), .transaction(5, exclusive: false)]
        for records in model.lineages.values {
            for _ in 0..<6 {
                let record = records[dice.below(records.count)]
                let exclusive = dice.chance(40)
                targets.append(.lsn(LSN(record.start.position + UInt64(dice.below(2)) * 8), exclusive: exclusive))
                if case .end(let xid, let time) = record.kind {
                    targets.append(.transaction(UInt64(xid), exclusive: exclusive))
                    let step = Int64(dice.below(3) - 1) * 500_000
                    targets.append(.time(Timestamp(microseconds: time.microseconds + step), exclusive: exclusive))
                }
            }
        }
        return targets
    }

    private func plan(_ model: HistoryModel, _ request: RestoreRequest) throws -> RestorePlan? {
        do {
            let planner = RestorePlanner(
                request, backups: model.backups, archive: model.archive, knowledge: model)
            return try planner.plan()
        } catch {
            #expect(error.code == .targetUnreachable, "\(error)")
            #expect(error.hint != nil, "\(error)")
            return nil
        }
    }

    @Test(
        "a plan for a given backup is made exactly where replaying the records reaches the target", arguments: 1...150)
    func explicitBackup(_ seed: UInt64) throws {
        let model = HistoryModel(seed: seed)
        var dice = Dice(seed &* 77)
        for backup in model.backups {
            for timeline in model.lineages.keys.sorted() {
                guard let history = model.archive.history(of: TimelineID(timeline)), backup.lies(on: history) else {
                    continue
                }
                for target in targets(model, &dice) {
                    let request = RestoreRequest(
                        backup: backup.label, target: target, timeline: .number(TimelineID(timeline)))
                    let found = try plan(model, request)
                    let expected = model.replay(backup, along: timeline, to: target)
                    let about: Comment =
                        "seed \(seed), \(request), expected \(expected), got \(String(describing: found?.proofs))"
                    if case .lsn(let lsn, _) = target, lsn < backup.span.stopLSN {
                        // The server would also stop within the record that ends the backup; nobody means that.
                        #expect(found == nil, about)
                        continue
                    }
                    switch expected {
                    case .stopped(let record, let isConsistent):
                        #expect((found?.stop != nil) == isConsistent, about)
                        guard let stop = found?.stop, isConsistent else { continue }
                        if stop.event != nil { #expect(stop.record == record, about) }
                    case .ranOut(let last, let isConsistent):
                        #expect(found?.stop == nil, about)
                        guard let found else { continue }
                        guard case .time = target else {
                            Issue.record(about)
                            continue
                        }
                        #expect(isConsistent && found.lastRecord == last, about)
                    }
                }
            }
        }
    }

    @Test("the histories are not all holes: most backups reach the end of some timeline's record list")
    func generator() {
        var (reached, all) = (0, 0)
        for seed in UInt64(1)...60 {
            let model = HistoryModel(seed: seed)
            for backup in model.backups {
                all += 1
                let ending = model.replay(backup, along: backup.span.timeline.number, to: .latest)
                if case .ranOut(_, true) = ending { reached += 1 }
            }
        }
        #expect(reached * 2 > all, "\(reached) of \(all)")
    }

    @Test("the newest backup that can reach the target is chosen", arguments: 1...100)
    func automaticBackup(_ seed: UInt64) throws {
        let model = HistoryModel(seed: seed)
        var dice = Dice(seed &* 99)
        for timeline in model.lineages.keys.sorted() {
            guard let history = model.archive.history(of: TimelineID(timeline)) else { continue }
            for target in targets(model, &dice) {
                let able = model.backups.filter { backup in
                    guard backup.lies(on: history) else { return false }
                    switch target {
                    case .time(let time, _) where backup.span.stopTime > time: return false
                    case .lsn(let lsn, _) where backup.span.stopLSN > lsn: return false
                    default: break
                    }
                    guard case .stopped(_, true) = model.replay(backup, along: timeline, to: target) else {
                        return false
                    }
                    return true
                }
                let request = RestoreRequest(target: target, timeline: .number(TimelineID(timeline)))
                if case .name = target {
                    let stops = able.map { model.replay($0, along: timeline, to: target) }
                    if stops.contains(where: { $0 != stops[0] }) {
                        // Which backup is taken would decide which of several points of that name is meant.
                        let error = #expect(throws: KedgeError.self) {
                            _ = try RestorePlanner(
                                request, backups: model.backups, archive: model.archive, knowledge: model
                            ).plan()
                        }
                        #expect(error?.code == .targetAmbiguous, "seed \(seed), timeline \(timeline), \(target)")
                        continue
                    }
                }
                let found = try plan(model, request)
                let best = able.max { ($0.span.stopLSN, $0.label) < ($1.span.stopLSN, $1.label) }
                if found?.stop != nil || best != nil {
                    #expect(found?.backup.label == best?.label, "seed \(seed), timeline \(timeline), \(target)")
                }
            }
        }
    }

    @Test(
        "the end of the archive is planned as the last record that can be replayed, or refused at a hole",
        arguments: 1...150)
    func latest(_ seed: UInt64) throws {
        let model = HistoryModel(seed: seed)
        for backup in model.backups {
            for timeline in model.lineages.keys.sorted() {
                guard let history = model.archive.history(of: TimelineID(timeline)), backup.lies(on: history) else {
                    continue
                }
                let request = RestoreRequest(
                    backup: backup.label, target: .latest, timeline: .number(TimelineID(timeline)))
                let found = try plan(model, request)
                let expected = model.replay(backup, along: timeline, to: .latest)
                guard case .ranOut(let last, let isConsistent) = expected else { continue }
                let about: Comment = "seed \(seed), \(request)"
                guard let found else {
                    let chain = WALChain(
                        model.archive.knowing(model.backups), along: history,
                        from: backup.span.startLSN.position / HistoryModel.segmentSize)
                    #expect(!isConsistent || chain.endsInHole, about)
                    continue
                }
                #expect(isConsistent, about)
                // A backup that ended behind the plan's end shows that there was more.
                let isEnd = model.backups.allSatisfy {
                    !$0.lies(on: history) || $0.span.stopLSN <= found.chain.limit
                }
                #expect(isEnd, about)
                #expect(found.lastRecord == last, about)
                #expect(found.target == last.map { .lsn($0, exclusive: false) }, about)
            }
        }
    }

    @Test("what info shows as recoverable is what replay reaches, and what restore plans", arguments: 1...150)
    func windows(_ seed: UInt64) throws {
        let model = HistoryModel(seed: seed)
        let windows = RecoverableWindows.find(
            backups: model.backups, archive: model.archive.knowing(model.backups))
        for timeline in model.lineages.keys.sorted() {
            guard let history = model.archive.history(of: TimelineID(timeline)) else { continue }
            let own = windows.filter { $0.timeline == TimelineID(timeline) }
            // Of a timeline without any WAL of its own nothing is shown: its parent's window says it all.
            guard model.archive.inventory.timeline(TimelineID(timeline)) != nil else {
                #expect(own.isEmpty)
                continue
            }
            for backup in model.backups where backup.lies(on: history) {
                guard case .ranOut(let last, let isConsistent) = model.replay(backup, along: timeline, to: .latest)
                else { continue }
                let about: Comment = "seed \(seed), timeline \(timeline), \(backup.label)"
                guard let window = own.first(where: { $0.backups.contains(backup) }) else {
                    #expect(!isConsistent, about)
                    continue
                }
                // How far a partial segment is filled is not known from its name.
                if window.chain.partial != nil, !isConsistent { continue }
                #expect(isConsistent, about)
                guard let last else { continue }
                #expect(last < window.limit, about)
                #expect(window.oldest.span.stopLSN <= backup.span.stopLSN, about)
                // The backup's own last record lies before its stop, and is no target.
                guard last >= backup.span.stopLSN else { continue }
                let request = RestoreRequest(
                    target: .lsn(last, exclusive: false), timeline: .number(TimelineID(timeline)))
                #expect(try plan(model, request)?.stop?.record == last, about)
            }
        }
    }
}

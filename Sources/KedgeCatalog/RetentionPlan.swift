// Which backups stay and which may go, each with its reasons. Pure: facts, rules and the store's time in, a plan out.
//
//  1. Kept whatever the rules say: the newest backup (by its place in the log, and by its time), the newest without any
//     defect, the newest drilled and the newest proven one, pinned ones, what a kept or running delta is based on.
//  2. A backup that can't become consistent, or whose proof failed, takes no place that another could have.
//  3. Days are counted back from the newest backup, or from now where that is earlier: a clock that jumps ahead makes
//     nothing old, and while no backups are taken nothing goes. Tiers count periods in which there is a backup.
//  4. Where a backup's time is ahead of the store's clock or before that of its predecessor, somebody's clock is wrong
//     and nobody knows whose: then rules that go by time remove nothing.
//  5. Where a commit record or an intent can't be read, nobody knows what it refers to, and nothing goes.

package import KedgeCore
import KedgePostgres

/// What retention wants of each backup.
package struct RetentionPlan: Sendable {
    /// One backup.
    package struct Item: Sendable {
        package let backup: RetentionFacts.Backup
        /// Why it is kept; empty where it may go.
        package fileprivate(set) var reasons: [KeepReason] = []
        /// Whether somebody asked for its removal, now or before.
        package let isByHand: Bool

        package var label: Label { backup.record.label }
        package var isKept: Bool { !reasons.isEmpty }
        /// Whether all WAL after it is kept as well. Of what may go that stays while the removal can be taken back.
        package var keepsWALAfterIt: Bool { !isKept || reasons.contains(where: \.keepsWALAfterIt) }

        /// `kept: weekly 2026-W46, base of …`, or `removed: no rule keeps it`.
        package var text: String {
            guard isKept else { return isByHand ? "removed: asked for" : "removed: no rule keeps it" }
            return "kept: " + reasons.map(\.text).joined(separator: ", ")
        }
    }

    /// Oldest first: by database system, timeline and place in the log.
    package private(set) var items: [Item]
    /// Why nothing is removed at all, backups, packs and WAL; empty where things may go.
    package private(set) var blocks: [String] = []
    /// Whether one of these is damage, and not a key or a version that is missing here.
    package var isBlockedByDamage: Bool { facts.unreadable.contains { $0.error.code.exitStatus == 3 } }
    /// Why rules by time are not applied.
    package private(set) var clockWarnings: [String] = []
    /// Where the days of `keep-days` begin; nil without that rule.
    package private(set) var daysBegin: Timestamp?

    private let facts: RetentionFacts
    private let rules: RetentionRules

    /// How far clocks may be apart before somebody has to look, in seconds.
    package static let clockToleranceSeconds: Int64 = 600

    /// `byHand`: backups whose removal is asked for now, whatever the rules say.
    package init(_ facts: RetentionFacts, _ rules: RetentionRules, byHand: Set<Label> = []) {
        self.facts = facts
        self.rules = rules
        let order = Dictionary(
            facts.systems.enumerated().map { ($0.element.identifier, $0.offset) },
            uniquingKeysWith: { first, _ in first })
        items = facts.backups.sorted { left, right in
            let (first, second) = (left.record, right.record)
            let systems = (order[first.server.systemIdentifier] ?? -1, order[second.server.systemIdentifier] ?? -1)
            if systems.0 != systems.1 { return systems.0 < systems.1 }
            return (first.span.timeline, first.span.stopLSN, first.label)
                < (second.span.timeline, second.span.stopLSN, second.label)
        }.map { Item(backup: $0, isByHand: byHand.contains($0.record.label) || $0.mark?.mark?.isByHand == true) }
        findBlocks()
        findClockWarnings()
        keepNewest()
        keepFulls()
        if clockWarnings.isEmpty {
            keepDays()
            keepTiers()
        }
        keepForOtherReasons(known: Set(order.keys))
        keepBases()
    }

    /// The item of this backup.
    package func item(_ label: Label) -> Item? { items.first { $0.label == label } }

    /// What may go.
    package var removed: [Item] { items.filter { !$0.isKept } }

    // MARK: - What stops it all

    private mutating func findBlocks() {
        blocks += facts.unreadable.map { "commit record \"\($0.name)\" cannot be read" }
        blocks += facts.running.filter { $0.intent == nil }.map { "intent \"\($0.label)\" cannot be read" }
    }

    private mutating func findClockWarnings() {
        guard rules.hasTimeRules else { return }
        let latest = Self.adding(Self.clockToleranceSeconds, to: facts.now)
        var before: Item?
        for item in items where !item.isByHand {
            let stop = item.backup.record.span.stopTime
            if stop > latest {
                clockWarnings.append(
                    "backup \(item.label) ended at \(stop), ahead of the repository's clock, \(facts.now)")
            }
            if let before, before.backup.record.isOfTheSameTimeline(as: item.backup.record),
                Self.adding(Self.clockToleranceSeconds, to: stop) < before.backup.record.span.stopTime
            {
                clockWarnings.append(
                    "backup \(item.label) ended at \(stop), before \(before.label), which it follows")
            }
            before = item
        }
    }

    // MARK: - Rules

    private func isSound(_ item: Item) -> Bool {
        item.backup.canBecomeConsistent && item.backup.proof.failure == nil
    }

    private func stop(_ index: Int) -> Timestamp { items[index].backup.record.span.stopTime }

    private mutating func keep(_ index: Int?, _ reason: KeepReason) {
        guard let index, !items[index].reasons.contains(reason) else { return }
        items[index].reasons.append(reason)
    }

    private mutating func keepNewest() {
        let present = items.indices
        keep(present.last, .newest)
        // Whoever removes a backup by hand may do so because its time is wrong.
        let latest = present.filter { !items[$0].isByHand }.max { (stop($0), $0) < (stop($1), $1) }
        if latest != present.last { keep(latest, .newestByTime) }
        let sound = present.last { index in
            isSound(items[index]) && items[index].backup.record.health.damagedPageCount == 0
        }
        if sound != present.last { keep(sound, .newestSound) }
        keep(present.last { items[$0].backup.proof.drilled != nil }, .newestDrilled)
        keep(present.last { items[$0].backup.proof.proof != nil }, .newestProven)
    }

    /// What rules by number and time look at: a removal that was asked for takes a backup out of them.
    private var ruled: [Int] { items.indices.filter { !items[$0].isByHand } }

    /// Counted over all timelines, by time; and once more on the way to each timeline that is in use, so that those of
    /// a branch that was left, or of a copy beside it, take no place there. Where clocks cannot be believed, also by
    /// place.
    ///
    /// In use is what was archived or backed up since the oldest of those that are counted over all, or in the week
    /// before the newest: which of two timelines is the original and which a copy shows nowhere.
    private mutating func keepFulls() {
        guard let count = rules.keepFull else { return }
        let byTime = ruled.sorted { (stop($0), $0) < (stop($1), $1) }
        guard let newest = byTime.last else { return }
        let kept = newestFulls(count, byTime)
        for index in kept.range { keep(index, kept.reason(index)) }
        let weekBefore = Self.adding(-7 * 86_400, to: min(stop(newest), facts.now))
        let begin = min(kept.range.first.map(stop) ?? weekBefore, weekBefore)
        for line in lines where line.lastUse >= begin {
            let onWay = newestFulls(count, ruled.filter { line.isReached(from: items[$0].backup.record) })
            for index in onWay.range where items[index].reasons.allSatisfy({ !$0.isOfKeepFull }) {
                keep(index, .onWay(line.timeline))
            }
        }
        guard !isTimeInOrder else { return }
        let byPlace = newestFulls(count, ruled)
        for index in byPlace.range where items[index].reasons.allSatisfy({ !$0.isOfKeepFull }) {
            keep(index, byPlace.reason(index))
        }
    }

    /// The way to every timeline on which there is a backup, or WAL and a history; the highest first.
    private var lines: [TimelineWay] {
        var lines: [TimelineWay] = []
        for system in facts.systems {
            for timeline in system.archive.timelines {
                guard let last = system.lastStored[timeline], let history = system.archive.history(of: timeline) else {
                    continue
                }
                let switches = history.entries.compactMap { entry in
                    entry.end.map { CommitRecord.TimelineSwitch(timeline: entry.timeline, switchLSN: $0) }
                }
                lines.append(
                    TimelineWay(system: system.identifier, timeline: timeline, switches: switches, lastUse: last))
            }
        }
        for index in ruled {
            let (system, span) = (items[index].backup.record.server.systemIdentifier, items[index].backup.record.span)
            if let known = lines.firstIndex(where: { $0.system == system && $0.timeline == span.timeline }) {
                lines[known].lastUse = max(lines[known].lastUse, stop(index))
            } else {
                lines.append(
                    TimelineWay(system: system, timeline: span.timeline, switches: span.history, lastUse: stop(index)))
            }
        }
        return lines.sorted { ($0.timeline, $0.system.number) > ($1.timeline, $1.system.number) }
    }

    /// The newest full backups of `ordered`, so many, and what follows the oldest of them; all where there are too few.
    private func newestFulls(
        _ count: Int, _ ordered: [Int]
    ) -> (range: ArraySlice<Int>, reason: (Int) -> KeepReason) {
        let fulls = ordered.filter { items[$0].backup.record.type == .full && isSound(items[$0]) }
        guard fulls.count >= count, let oldest = fulls.dropLast(count - 1).last,
            let place = ordered.firstIndex(of: oldest)
        else { return (ordered[...], { _ in .tooFewFulls }) }
        return (
            ordered[place...],
            { index in fulls.lastIndex(of: index).map { .full(number: fulls.count - $0) } ?? .afterFull }
        )
    }

    /// Whether no backup is ahead of the store's clock, and none ended before one that it follows, on whatever
    /// timeline.
    private var isTimeInOrder: Bool {
        let ruled = ruled
        let latest = Self.adding(Self.clockToleranceSeconds, to: facts.now)
        return ruled.allSatisfy { stop($0) <= latest }
            && ruled.allSatisfy { later in
                let (record, limit) = (
                    items[later].backup.record, Self.adding(Self.clockToleranceSeconds, to: stop(later))
                )
                return ruled.allSatisfy { earlier in
                    let other = items[earlier].backup.record
                    return stop(earlier) <= limit || other.span.stopLSN >= record.span.stopLSN
                        || !other.leads(to: record)
                }
            }
    }

    private mutating func keepDays() {
        guard let days = rules.keepDays else { return }
        let ruled = ruled
        let sound = ruled.filter { isSound(items[$0]) }
        // Without one that counts there is nothing to count back from, and everything stays.
        guard let newest = sound.map(stop).max() else {
            for index in ruled { keep(index, .recent(days: days)) }
            return
        }
        let begin = Self.adding(-Int64(days) * 86_400, to: min(newest, facts.now))
        daysBegin = begin
        for index in ruled where stop(index) >= begin { keep(index, .recent(days: days)) }
        let before = sound.filter { stop($0) <= begin }
        keep(before.max { (stop($0), $0) < (stop($1), $1) }, .reaches(days: days))
        for system in facts.systems { keepDays(days, since: begin, before, of: system) }
    }

    /// The same for every timeline whose WAL goes on into these days: another branch may have another base.
    private mutating func keepDays(
        _ days: Int, since begin: Timestamp, _ before: [Int], of system: RetentionFacts.System
    ) {
        for timeline in system.archive.timelines {
            guard let last = system.lastStored[timeline], last >= begin,
                let history = system.archive.history(of: timeline)
            else { continue }
            let onPath = before.filter { index in
                let record = items[index].backup.record
                return record.server.systemIdentifier == system.identifier && record.lies(on: history)
            }
            func place(_ index: Int) -> LSN { items[index].backup.record.span.stopLSN }
            keep(onPath.max { (place($0), $0) < (place($1), $1) }, .reaches(days: days))
        }
    }

    /// Of each period the newest full backup, or the newest delta where there is no full one: a full one needs no
    /// other.
    private mutating func keepTiers() {
        for period in RetentionPeriod.allCases {
            guard let count = rules.keepTiers[period] else { continue }
            var chosen: [String: Int] = [:]
            for index in ruled where isSound(items[index]) {
                let name = period.name(of: stop(index))
                guard let rival = chosen[name] else {
                    chosen[name] = index
                    continue
                }
                func rank(_ index: Int) -> (Int, Timestamp, Int) {
                    (items[index].backup.record.type == .full ? 1 : 0, stop(index), index)
                }
                if rank(index) > rank(rival) { chosen[name] = index }
            }
            for (name, index) in chosen.sorted(by: { $0.key > $1.key }).prefix(count) {
                keep(index, .tier(period, name))
            }
        }
    }

    private mutating func keepForOtherReasons(known: Set<SystemIdentifier>) {
        for index in items.indices {
            let item = items[index]
            if item.backup.isPinned { keep(index, .pinned) }
            if let mark = item.backup.mark, mark.mark == nil { keep(index, .unreadableMark) }
            if let block = blocks.first { keep(index, .blocked(block)) }
            guard !item.isByHand else { continue }
            if !known.contains(item.backup.record.server.systemIdentifier) { keep(index, .unknownSystem) }
            if rules.isEmpty { keep(index, .noRules) }
            if let warning = clockWarnings.first, items[index].reasons.isEmpty { keep(index, .clock(warning)) }
        }
    }

    private mutating func keepBases() {
        let places = Dictionary(items.indices.map { (items[$0].label, $0) }, uniquingKeysWith: { first, _ in first })
        var left: [(child: Label, parent: Label, isRunning: Bool)] = []
        for running in facts.running {
            if let parent = running.intent?.parent { left.append((running.label, parent, true)) }
        }
        for item in items where item.isKept {
            if let parent = item.backup.record.parent { left.append((item.label, parent, false)) }
        }
        while let (child, parent, isRunning) = left.popLast() {
            guard let index = places[parent] else { continue }
            let wasKept = items[index].isKept
            keep(index, isRunning ? .baseOfRunning(child) : .base(of: child))
            if !wasKept, let next = items[index].backup.record.parent { left.append((parent, next, false)) }
        }
    }

    /// Seconds later; held within what a timestamp can be.
    private static func adding(_ seconds: Int64, to moment: Timestamp) -> Timestamp {
        let (microseconds, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (sum, sumOverflow) = moment.microseconds.addingReportingOverflow(microseconds)
        guard !overflow, !sumOverflow else { return Timestamp(microseconds: seconds < 0 ? .min : .max) }
        return Timestamp(microseconds: sum)
    }
}

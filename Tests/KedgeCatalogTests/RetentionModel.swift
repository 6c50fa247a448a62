// Generated catalogues, and a second opinion on what retention must keep: no order of steps, only one condition for
// each backup and each file, and a replay that opens one file after the other.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport

let retentionSegmentSize: UInt64 = 1 << 20

/// A catalogue of one or two database systems with a tree of timelines each.
struct GeneratedCatalog {
    /// One system's WAL, as plain sets.
    struct Archive {
        var whole: [UInt32: Set<UInt64>] = [:]
        var partial: [UInt32: Set<UInt64>] = [:]
        var histories: [TimelineID: TimelineHistory] = [:]
        /// When a timeline's first segment was filled; each takes six hours.
        var begun: [UInt32: (first: UInt64, time: Timestamp)] = [:]

        func time(_ timeline: UInt32, _ number: UInt64) -> Timestamp {
            guard let (first, time) = begun[timeline] else { return Timestamp(microseconds: 0) }
            return time.adding(seconds: (Int64(number) - Int64(first)) * 21_600)
        }

        func name(_ timeline: UInt32, _ number: UInt64) -> String {
            WALSegment(timeline: TimelineID(timeline), number: number).fileName(segmentSize: retentionSegmentSize)
        }

        var archived: ArchivedWAL {
            var inventory = WALInventory(segmentSize: retentionSegmentSize)
            for timeline in Set(whole.keys).union(partial.keys).sorted() {
                for number in (whole[timeline] ?? []).union(partial[timeline] ?? []).sorted() {
                    if whole[timeline]?.contains(number) == true {
                        inventory.add(objectNamed: name(timeline, number), storedBytes: 1)
                    }
                    if partial[timeline]?.contains(number) == true {
                        let tag = String(repeating: "0", count: 32)
                        inventory.add(objectNamed: name(timeline, number) + ".partial-" + tag, storedBytes: 1)
                    }
                }
            }
            return ArchivedWAL(inventory: inventory, histories: histories)
        }

        /// Up to where recovery gets from `start` along `history`, with the files that `isThere`.
        func replay(
            from start: LSN, along history: TimelineHistory, _ isThere: (WALSegment) -> Bool = { _ in true }
        ) -> LSN {
            var number = start.position / retentionSegmentSize
            var fileTimeline = TimelineID(0)
            while true {
                let begin = LSN(number * retentionSegmentSize)
                let end = LSN((number + 1) * retentionSegmentSize)
                let open = history.entries.reversed().filter {
                    $0.timeline >= fileTimeline && $0.begin.position / retentionSegmentSize <= number
                }
                func holds(_ files: [UInt32: Set<UInt64>], _ timeline: TimelineID) -> Bool {
                    files[timeline.number]?.contains(number) == true
                        && isThere(WALSegment(timeline: timeline, number: number))
                }
                if let entry = open.first(where: { holds(whole, $0.timeline) }) {
                    fileTimeline = entry.timeline
                    if let left = entry.end, left < end { return max(left, begin) }
                    number += 1
                } else if let entry = open.first(where: { holds(partial, $0.timeline) }) {
                    return max(begin, min(end, entry.end ?? end))
                } else {
                    return begin
                }
            }
        }
    }

    var archives: [Archive] = []
    /// Whether some backup says another time than its place in the log.
    var hasWrongClock = false
    var facts: RetentionFacts
    var rules: RetentionRules

    init(seed: UInt64) throws {
        let random = SeededRandom(seed: seed)
        func chance(_ one: Int) -> Bool { random.next(below: one) == 0 }
        var clock = Timestamp(secondsSince1970: 1_795_000_000)
        var systems: [RetentionFacts.System] = []
        var backups: [RetentionFacts.Backup] = []
        var running: [RetentionFacts.Running] = []
        for system in 1...(chance(4) ? 2 : 1) {
            var archive = Archive()
            var parents: [Label] = []
            for timeline in 1...UInt32(1 + random.next(below: 3)) {
                var first: UInt64 = 1
                var begin = LSN(1 << 20)
                var begun = clock
                if timeline > 1 {
                    let parent = UInt32(1 + random.next(below: Int(timeline) - 1))
                    let path = archive.histories[TimelineID(parent)] ?? TimelineHistory(root: TimelineID(parent))
                    let from = max(path.entries.last?.begin ?? begin, begin).position / retentionSegmentSize
                    let until = max(from, archive.whole[parent]?.max() ?? from)
                    first = from + UInt64(random.next(below: Int(until - from) + 1))
                    begin = max(
                        LSN(first << 20) + UInt64([0, 4096, 800_000][random.next(below: 3)]),
                        path.entries.last?.begin ?? begin)
                    var ancestors = path.entries.compactMap { entry in
                        entry.end.map { (timeline: entry.timeline, switchPoint: $0) }
                    }
                    ancestors.append((timeline: TimelineID(parent), switchPoint: begin))
                    archive.histories[TimelineID(timeline)] = try TimelineHistory(
                        timeline: TimelineID(timeline), ancestors: ancestors)
                    parents = []
                    // Beside a parent that goes on: a copy that was promoted, and not what came after it.
                    if chance(3) { begun = archive.time(parent, first) }
                }
                archive.begun[timeline] = (first, begun)
                let last = first + 1 + UInt64(random.next(below: 40))
                for number in first...last {
                    if !chance(25) { archive.whole[timeline, default: []].insert(number) }
                    if chance(40) || (number == last && chance(3)) {
                        archive.partial[timeline, default: []].insert(number)
                    }
                }
                clock = max(clock, archive.time(timeline, last))
                if timeline > 1, chance(12) { archive.histories[TimelineID(timeline)] = nil }
                var position = begin
                for _ in 0..<random.next(below: 7) {
                    let room = Int((last + 1) << 20) - Int(position.position)
                    guard room > 2 << 20 else { break }
                    let start = position + UInt64(random.next(below: min(room, 8 << 20)))
                    let stop = start + UInt64(40 + random.next(below: 1 << 20))
                    position = stop
                    let isDelta = !parents.isEmpty && !chance(3)
                    let number = 1000 + backups.count
                    let type = isDelta ? "delta" : "full"
                    guard let label = Label("20261121T020000Z-\(type)-\(number)") else { break }
                    var time = archive.time(timeline, stop.position >> 20)
                    // Somebody's clock was wrong.
                    if chance(60) {
                        time = time.adding(seconds: Int64(random.next(below: 400) - 200) * 86_400)
                        hasWrongClock = true
                    }
                    var record = CommitRecord.sample(
                        label, timeline: timeline, start: start, stop: stop, stopTime: time, system: UInt64(system))
                    record.type = isDelta ? .delta : .full
                    if isDelta { record.parent = chance(2) ? parents.last : parents.randomElement(random) }
                    record.span.history = (archive.histories[TimelineID(timeline)]?.entries ?? []).compactMap { entry in
                        entry.end.map { CommitRecord.TimelineSwitch(timeline: entry.timeline, switchLSN: $0) }
                    }
                    if chance(10) { record.health.damagedPageCount = 1 }
                    record.manifest = .init(length: UInt64(number), checksum: ContentHash(high: 1, low: 1))
                    var fact = RetentionFacts.Backup(record: record, isPinned: chance(12))
                    fact.proof = Self.proof(record, random)
                    if chance(8) {
                        let mark = CondemnedMark(
                            label: label, isByHand: chance(2), reason: "", condemnedAt: time, hostName: "h")
                        fact.mark = MarkSeen(mark: chance(10) ? nil : mark, storedAt: time)
                    }
                    if !isDelta { parents = [label] } else { parents.append(label) }
                    backups.append(fact)
                }
                if chance(6), let label = Label("20261121T020000Z-delta-\(2000 + running.count)") {
                    let intent = Intent(
                        label: label, type: .delta, parent: parents.last,
                        systemIdentifier: SystemIdentifier(UInt64(system)), timeline: TimelineID(timeline),
                        startLSN: LSN(last << 20), startedAt: clock, hostName: "h", processID: 1, createdBy: "kedge")
                    running.append(
                        .init(label: label, intent: chance(15) ? nil : intent, storedAt: clock, hasLease: false))
                }
            }
            let archived = archive.archived
            for index in backups.indices
            where backups[index].record.server.systemIdentifier == SystemIdentifier(UInt64(system)) {
                backups[index].canBecomeConsistent = RecoverableWindows.canBecomeConsistent(
                    backups[index].record, archive: archived)
            }
            var lastStored: [TimelineID: Timestamp] = [:]
            for timeline in archive.begun.keys {
                let numbers = (archive.whole[timeline] ?? []).union(archive.partial[timeline] ?? [])
                if let last = numbers.max() { lastStored[TimelineID(timeline)] = archive.time(timeline, last) }
            }
            systems.append(
                .init(identifier: SystemIdentifier(UInt64(system)), archive: archived, lastStored: lastStored))
            archives.append(archive)
        }
        clock = clock.adding(seconds: Int64(random.next(below: 60 * 24)) * 3600)
        if chance(40) { clock = clock.adding(seconds: -90 * 86_400) }
        if chance(10) { clock = clock.adding(seconds: 4000 * 86_400) }
        var unreadable: [UnreadableRecord] = []
        if chance(50) { unreadable = [.init(name: "x", error: KedgeError(.damaged, "x", hint: "x"))] }
        facts = RetentionFacts(
            now: clock, systems: systems, backups: backups, running: running, unreadable: unreadable)
        rules = RetentionRules()
        if chance(2) { rules.keepFull = 1 + random.next(below: 4) }
        if chance(2) { rules.keepDays = 1 + random.next(below: 20) }
        for period in RetentionPeriod.allCases where chance(3) { rules.keepTiers[period] = 1 + random.next(below: 4) }
    }

    private static func proof(_ record: CommitRecord, _ random: SeededRandom) -> ProofStanding {
        let repository = RandomID(high: 1, low: 1)
        var proofs: [ProofRecord] = []
        for hour in 0..<random.next(below: 3) {
            proofs.append(
                .sample(
                    of: record, in: repository, level: random.next(below: 2) == 0 ? .drilled : .verified,
                    result: random.next(below: 4) == 0 ? .failed : .passed,
                    finished: record.span.stopTime.adding(seconds: Int64(hour + 1) * 3600)))
        }
        return ProofStanding(of: record.label, manifest: record.manifest, repositoryID: repository, proofs: proofs)
    }
}

extension Array {
    fileprivate func randomElement(_ random: SeededRandom) -> Element? {
        isEmpty ? nil : self[random.next(below: count)]
    }
}

/// The second opinion: a condition for each backup, none of which looks at another's verdict but for bases.
struct RetentionModel {
    let catalog: GeneratedCatalog
    let kept: Set<Label>
    /// Whether rules by time hold.
    let isClockSound: Bool

    typealias Backup = RetentionFacts.Backup

    init(_ catalog: GeneratedCatalog) {
        self.catalog = catalog
        let (facts, rules) = (catalog.facts, catalog.rules)
        let all = facts.backups
        func place(_ backup: Backup) -> (UInt64, UInt32, UInt64, String) {
            let record = backup.record
            return (
                record.server.systemIdentifier.number, record.span.timeline.number, record.span.stopLSN.position,
                record.label.text
            )
        }
        func byHand(_ backup: Backup) -> Bool { backup.mark?.mark?.isByHand == true }
        func isSound(_ backup: Backup) -> Bool { backup.canBecomeConsistent && backup.proof.failure == nil }
        func stop(_ backup: Backup) -> Timestamp { backup.record.span.stopTime }
        let ruled = all.filter { !byHand($0) }

        let isAhead = ruled.contains { stop($0).microseconds > facts.now.microseconds + 600_000_000 }
        let ordered = ruled.sorted { place($0) < place($1) }
        let isBackwards = zip(ordered, ordered.dropFirst()).contains { first, second in
            place(first).0 == place(second).0 && place(first).1 == place(second).1
                && stop(second).microseconds + 600_000_000 < stop(first).microseconds
        }
        let isClockSound = !rules.hasTimeRules || !(isAhead || isBackwards)
        self.isClockSound = isClockSound
        let isBlocked = !facts.unreadable.isEmpty || facts.running.contains { $0.intent == nil }

        /// Whether recovery from `backup` can get to where `other` was taken.
        func isOnWay(_ backup: Backup, to other: Backup) -> Bool {
            let (own, its) = (backup.record, other.record)
            guard own.server.systemIdentifier == its.server.systemIdentifier else { return false }
            var isReached = own.span.timeline == its.span.timeline
            for left in its.span.history.reversed() where !isReached {
                if left.switchLSN < own.span.stopLSN { return false }
                isReached = left.timeline == own.span.timeline
            }
            return isReached
        }
        func nothingNewer(_ backup: Backup, _ condition: (Backup) -> Bool) -> Bool {
            condition(backup) && !all.contains { condition($0) && place($0) > place(backup) }
        }
        func always(_ backup: Backup) -> Bool {
            nothingNewer(backup) { _ in true }
                || !byHand(backup) && !ruled.contains { stop($0) > stop(backup) }
                    && !ruled.contains { stop($0) == stop(backup) && place($0) > place(backup) }
                || nothingNewer(backup) { isSound($0) && $0.record.health.damagedPageCount == 0 }
                || nothingNewer(backup) { $0.proof.drilled != nil } || nothingNewer(backup) { $0.proof.proof != nil }
                || backup.isPinned || (backup.mark != nil && backup.mark?.mark == nil)
        }
        func byRule(_ backup: Backup) -> Bool {
            if rules.keepFull == nil, rules.keepDays == nil, rules.keepTiers.isEmpty { return true }
            if let count = rules.keepFull {
                let fulls = ruled.filter { isSound($0) && $0.record.type == .full }
                let isBefore = { (one: Backup, two: Backup) in
                    stop(one) < stop(two) || stop(one) == stop(two) && place(one) < place(two)
                }
                if fulls.filter({ isBefore(backup, $0) }).count < count { return true }
                // When the window of the rule begins, or a week ago: what was used since then is in use.
                let week = min(ruled.map(stop).max() ?? facts.now, facts.now).adding(seconds: -7 * 86_400)
                let counted = fulls.count < count ? ruled.map(stop) : fulls.map(stop).sorted().suffix(count)
                let begin = min(week, counted.min() ?? week)
                for system in facts.systems {
                    for timeline in system.archive.timelines {
                        let uses =
                            ruled.map(\.record).filter {
                                $0.server.systemIdentifier == system.identifier && $0.span.timeline == timeline
                            }.map(\.span.stopTime) + [system.lastStored[timeline]].compactMap(\.self)
                        guard uses.contains(where: { $0 >= begin }),
                            let history = system.archive.history(of: timeline)
                        else { continue }
                        func isBefore(_ backup: Backup) -> Bool {
                            guard backup.record.server.systemIdentifier == system.identifier else { return false }
                            var isReached = false
                            for entry in history.entries {
                                if entry.timeline == backup.record.span.timeline { isReached = true }
                                if isReached, let end = entry.end, end < backup.record.span.stopLSN { return false }
                            }
                            return isReached
                        }
                        guard isBefore(backup) else { continue }
                        let newer = fulls.filter { isBefore($0) && place($0) > place(backup) }
                        if newer.count < count { return true }
                    }
                }
                let isEarlier = ruled.contains { earlier in
                    ruled.contains { later in
                        isOnWay(earlier, to: later) && earlier.record.span.stopLSN < later.record.span.stopLSN
                            && stop(later).microseconds + 600_000_000 < stop(earlier).microseconds
                    }
                }
                if isAhead || isEarlier, fulls.filter({ place($0) > place(backup) }).count < count { return true }
            }
            guard isClockSound else { return true }
            if let days = rules.keepDays {
                let sound = ruled.filter(isSound)
                guard let newest = sound.map(stop).max() else { return true }
                let begin = min(newest, facts.now).adding(seconds: -Int64(days) * 86_400)
                if stop(backup) >= begin { return true }
                let before = sound.filter { stop($0) <= begin }
                if isSound(backup), stop(backup) <= begin {
                    let isLater = { (rival: Backup) in
                        (stop(rival), place(rival).0, place(rival).1, place(rival).2)
                            > (stop(backup), place(backup).0, place(backup).1, place(backup).2)
                    }
                    if !before.contains(where: isLater) { return true }
                    for system in facts.systems where system.identifier == backup.record.server.systemIdentifier {
                        for timeline in system.archive.timelines {
                            guard let last = system.lastStored[timeline], last >= begin,
                                let history = system.archive.history(of: timeline), backup.record.lies(on: history)
                            else { continue }
                            let rivals = before.filter {
                                $0.record.server.systemIdentifier == system.identifier && $0.record.lies(on: history)
                            }
                            let isHigher = { (rival: Backup) in
                                (rival.record.span.stopLSN, place(rival).1, rival.label)
                                    > (backup.record.span.stopLSN, place(backup).1, backup.label)
                            }
                            if !rivals.contains(where: isHigher) { return true }
                        }
                    }
                }
            }
            guard isSound(backup) else { return false }
            for (period, count) in rules.keepTiers {
                let name = period.name(of: stop(backup))
                let sound = ruled.filter(isSound)
                guard Set(sound.map { period.name(of: stop($0)) }.filter { $0 > name }).count < count else { continue }
                let rivals = sound.filter { period.name(of: stop($0)) == name }
                func rank(_ backup: Backup) -> (Int, Timestamp) {
                    (backup.record.type == .full ? 1 : 0, stop(backup))
                }
                let isBeaten = rivals.contains {
                    rank($0) > rank(backup) || (rank($0) == rank(backup) && place($0) > place(backup))
                }
                if !isBeaten { return true }
            }
            return false
        }

        var kept = Set(all.filter { isBlocked || always($0) || (!byHand($0) && byRule($0)) }.map(\.label))
        kept.formUnion(facts.running.compactMap { $0.intent?.parent })
        // As often as the longest chain could be.
        for _ in all {
            for backup in all where kept.contains(backup.label) {
                if let base = backup.record.parent { kept.insert(base) }
            }
        }
        self.kept = kept.intersection(all.map(\.label))
    }
}

extension RetentionFacts.Backup {
    var label: Label { record.label }
}

// That windows are what recovery can really reach: a few by hand, and thousands of generated archives held against a
// replay that opens one file after the other as the server does.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

private let segmentSize: UInt64 = 1 << 20

private func label(_ number: Int) -> Label {
    guard let label = Label("20261121T020000Z-full-\(1000 + number)") else { preconditionFailure("it is a label") }
    return label
}

private func lsn(_ segment: UInt64, _ offset: UInt64 = 0) -> LSN { LSN(segment * segmentSize + offset) }

/// What is archived, as plain sets.
private struct Archive {
    var whole: [UInt32: Set<UInt64>] = [:]
    var partial: [UInt32: Set<UInt64>] = [:]
    var conflicts: [UInt32: Set<UInt64>] = [:]
    var histories: [TimelineID: TimelineHistory] = [:]
    /// Segments in which a base backup began, by its history file.
    var backupFiles: [UInt32: Set<UInt64>] = [:]
    var backups: [CommitRecord] = []

    var archived: ArchivedWAL {
        var inventory = WALInventory(segmentSize: segmentSize)
        for timeline in Set(whole.keys).union(partial.keys).sorted() {
            func name(_ number: UInt64) -> String {
                WALSegment(timeline: TimelineID(timeline), number: number).fileName(segmentSize: segmentSize)
            }
            let tags = [String(repeating: "0", count: 32), String(repeating: "1", count: 32)]
            for number in (whole[timeline] ?? []).union(partial[timeline] ?? []).sorted() {
                let isTwice = conflicts[timeline]?.contains(number) == true
                if partial[timeline]?.contains(number) == true {
                    for tag in tags.prefix(isTwice ? 2 : 1) {
                        inventory.add(objectNamed: name(number) + ".partial-" + tag, storedBytes: 1)
                    }
                }
                guard whole[timeline]?.contains(number) == true else { continue }
                for tag in tags.prefix(isTwice ? 2 : 1) {
                    inventory.add(objectNamed: name(number) + "-" + tag, storedBytes: 1)
                }
            }
        }
        for (timeline, numbers) in backupFiles {
            for number in numbers {
                let name = WALSegment(timeline: TimelineID(timeline), number: number)
                    .fileName(segmentSize: segmentSize)
                inventory.add(objectNamed: name + ".00000028.backup", storedBytes: 1)
            }
        }
        return ArchivedWAL(inventory: inventory, histories: histories).knowing(backups)
    }

    /// Up to where recovery gets from `start` along `history`, opening one file after the other.
    func replay(from start: LSN, along history: TimelineHistory, damage: [WALSegment: LSN]) -> LSN {
        var number = start.position / segmentSize
        var fileTimeline = TimelineID(0)
        while true {
            let begin = lsn(number)
            // XLogFileReadAnyTLI: newest first, none that had not begun, none older than the last one read.
            let open = history.entries.reversed().filter {
                $0.timeline >= fileTimeline && $0.begin.position / segmentSize <= number
            }
            func left(_ timeline: TimelineID) -> LSN? {
                history.entries.filter { $0.timeline >= timeline }.compactMap(\.end).min()
            }
            let found = open.lazy.map { entry in
                (
                    entry,
                    self.answer(entry.timeline, number, isFollowed: left(entry.timeline).map { $0 > begin } ?? true)
                )
            }.first { $0.1 != .absent }
            guard let (entry, answer) = found else { return begin }
            let left = left(entry.timeline)
            switch answer {
            case .refused, .absent: return begin
            case .partial: return max(begin, min(lsn(number + 1), left ?? LSN(.max)))
            case .whole:
                fileTimeline = entry.timeline
                var end = lsn(number + 1)
                var goesOn = true
                if let left, left < end { (end, goesOn) = (max(left, begin), false) }
                let segment = WALSegment(timeline: entry.timeline, number: number)
                if let lsn = damage[segment], lsn >= start, lsn < end { return lsn }
                guard goesOn else { return end }
                number += 1
            }
        }
    }

    private enum Answer { case whole, partial, refused, absent }

    /// What archive-get says of a segment, and what is in pg_wal where that is "absent".
    private func answer(_ timeline: TimelineID, _ number: UInt64, isFollowed: Bool) -> Answer {
        let isTwice = conflicts[timeline.number]?.contains(number) == true
        let own = whole[timeline.number] ?? []
        if own.contains(number) { return isTwice ? .refused : .whole }
        // A hole is never called absent: not where a later segment is there, nor where a branch shows that it was.
        if own.contains(where: { $0 > number }) { return .refused }
        for history in histories.values where history.contains(timeline) && history.timeline != timeline {
            let left = history.entries.filter { $0.timeline >= timeline }.compactMap(\.end).min()
            if let left, left >= lsn(number + 1) { return .refused }
        }
        // Nor where a backup shows it, unless the server has left this timeline before.
        let isKnown =
            backupFiles[timeline.number]?.contains { $0 >= number } == true
            || backups.contains { $0.span.timeline == timeline && $0.span.stopLSN > lsn(number) }
        if isFollowed, isKnown { return .refused }
        return partial[timeline.number]?.contains(number) == true && !isTwice ? .partial : .absent
    }
}

private func texts(_ windows: [RecoverableWindow]) -> [String] {
    windows.map { window in
        let labels = window.backups.map { $0.label.text.suffix(4) }.joined(separator: ",")
        return "timeline \(window.timeline): \(window.oldest.span.stopLSN) to \(window.limit), backups \(labels)"
    }
}

@Suite struct RecoverableWindowsTests {
    @Test("a gap ends a window, and the next backup begins another")
    func gap() {
        var archive = Archive()
        archive.whole[1] = [1, 2, 3, 4, 6, 7, 8]
        let backups = [
            CommitRecord.sample(label(1), start: lsn(1, 40), stop: lsn(1, 400)),
            CommitRecord.sample(label(2), start: lsn(3, 40), stop: lsn(3, 400)),
            // Needs the missing segment: it reaches nothing.
            CommitRecord.sample(label(3), start: lsn(4, 40), stop: lsn(5, 400)),
            CommitRecord.sample(label(4), start: lsn(6, 40), stop: lsn(7, 400)),
        ]
        let windows = RecoverableWindows.find(backups: backups, archive: archive.archived)
        #expect(
            texts(windows) == [
                "timeline 1: 0/100190 to 0/500000, backups 1001,1002", "timeline 1: 0/700190 to 0/900000, backups 1004",
            ])
        let consistent = backups.map { RecoverableWindows.canBecomeConsistent($0, archive: archive.archived) }
        #expect(consistent == [true, true, false, true])
    }

    @Test("a promotion gives a window along each timeline, the old one up to its partial segment")
    func promotion() throws {
        var archive = Archive()
        archive.whole = [1: [1, 2, 3], 2: [4, 5]]
        archive.partial[1] = [4]
        archive.histories[TimelineID(2)] = try TimelineHistory(
            timeline: TimelineID(2), ancestors: [(timeline: TimelineID(1), switchPoint: lsn(4, 800))])
        let backups = [
            CommitRecord.sample(label(1), start: lsn(1, 40), stop: lsn(1, 400)),
            // Taken on the old timeline after the promotion: it does not lie on the way to the new one.
            CommitRecord.sample(label(2), start: lsn(4, 900), stop: lsn(4, 1000)),
        ]
        let windows = RecoverableWindows.find(backups: backups, archive: archive.archived)
        #expect(
            texts(windows) == [
                "timeline 1: 0/100190 to 0/500000, backups 1001,1002", "timeline 2: 0/100190 to 0/600000, backups 1001",
            ])
        #expect(windows[0].chain.partial == WALSegment(timeline: TimelineID(1), number: 4))
        archive.histories = [:]
        #expect(
            texts(RecoverableWindows.find(backups: backups, archive: archive.archived)).count == 1,
            "without its history file a timeline can't be followed")
    }

    @Test("damaged records end a window, and links backwards begin with the file that holds its end")
    func damage() {
        var archive = Archive()
        archive.whole[1] = [1, 2, 3, 4, 5]
        let backups = [
            CommitRecord.sample(label(1), start: lsn(1, 40), stop: lsn(1, 400)),
            CommitRecord.sample(label(2), start: lsn(4, 40), stop: lsn(4, 400)),
        ]
        let broken = WALSegment(timeline: TimelineID(1), number: 3)
        let windows = RecoverableWindows.find(
            backups: backups, archive: archive.archived, damage: [broken: lsn(3, 4096)])
        #expect(
            texts(windows) == [
                "timeline 1: 0/100190 to 0/301000, backups 1001", "timeline 1: 0/400190 to 0/600000, backups 1002",
            ])
        #expect(windows.map(\.damage) == [broken, nil])
        var numbers: [UInt64] = []
        windows[0].forEachLinkBackwards { link in
            numbers.append(link.segment.number)
            #expect(link.previous?.number == (link.segment.number == 1 ? nil : link.segment.number - 1))
            return true
        }
        #expect(numbers == [3, 2, 1])
    }

    @Test("windows of 3000 generated archives are those of a replay that opens file after file")
    func generated() throws {
        var (found, holes) = (0, 0)
        for seed in UInt64(1)...3000 {
            let random = SeededRandom(seed: seed)
            var (archive, backups, damage) = try Self.generate(random)
            // Half of them with a repository's whole knowledge, half as if nobody had looked at backups.
            if random.next(below: 2) == 0 {
                archive.backups = backups
                for backup in backups where random.next(below: 3) == 0 {
                    let number = backup.span.startLSN.position / segmentSize
                    archive.backupFiles[backup.span.timeline.number, default: []].insert(number)
                }
            }
            let archived = archive.archived
            var expected: [String] = []
            for timeline in archived.inventory.timelines.map(\.id) {
                guard let history = archived.history(of: timeline) else { continue }
                var reached: [(limit: LSN, backup: CommitRecord)] = []
                for backup in backups where backup.lies(on: history) {
                    let limit = archive.replay(from: backup.span.startLSN, along: history, damage: damage)
                    if limit >= backup.span.stopLSN { reached.append((limit, backup)) }
                }
                reached.sort { ($0.backup.span.stopLSN, $0.backup.label) < ($1.backup.span.stopLSN, $1.backup.label) }
                for limit in Set(reached.map(\.limit)).sorted() {
                    let own = reached.filter { $0.limit == limit }.map(\.backup)
                    let labels = own.map { $0.label.text.suffix(4) }.joined(separator: ",")
                    expected.append("timeline \(timeline): \(own[0].span.stopLSN) to \(limit), backups \(labels)")
                }
            }
            let windows = RecoverableWindows.find(backups: backups, archive: archived, damage: damage)
            #expect(texts(windows).sorted() == expected.sorted(), "seed \(seed)")
            found += windows.count
            for window in windows where window.damage == nil {
                guard let history = archived.history(of: window.timeline) else { continue }
                // What stopped behind a window, or began there, shows that it ends in a hole.
                let isBehind =
                    archive.backups.contains { $0.lies(on: history) && $0.span.stopLSN > window.limit }
                #expect(!isBehind || window.endsInHole, "seed \(seed): \(window.limit)")
                holes += isBehind ? 1 : 0
            }
        }
        #expect(holes > 100)
        // The generator must not degenerate into archives without windows.
        #expect(found > 3000)
    }

    /// A tree of up to four timelines with holes, partial and doubled files, damage and backups.
    private static func generate(
        _ random: SeededRandom
    ) throws -> (archive: Archive, backups: [CommitRecord], damage: [WALSegment: LSN]) {
        var archive = Archive()
        var (backups, damage): ([CommitRecord], [WALSegment: LSN]) = ([], [:])
        var ends: [UInt32: UInt64] = [:]
        for timeline in 1...UInt32(1 + random.next(below: 4)) {
            var first: UInt64 = 1
            var begin = lsn(1)
            if timeline > 1 {
                let parent = UInt32(1 + random.next(below: Int(timeline) - 1))
                let path = archive.histories[TimelineID(parent)] ?? TimelineHistory(root: TimelineID(parent))
                let earliest = max(path.entries.last?.begin ?? lsn(1), lsn(1)).position / segmentSize
                first = earliest + UInt64(random.next(below: Int((ends[parent] ?? 1) - earliest) + 1))
                begin = lsn(first, [0, 4096, 800_000][random.next(below: 3)])
                begin = max(begin, path.entries.last?.begin ?? begin)
                var ancestors = path.entries.compactMap { entry in
                    entry.end.map { (timeline: entry.timeline, switchPoint: $0) }
                }
                ancestors.append((timeline: TimelineID(parent), switchPoint: begin))
                archive.histories[TimelineID(timeline)] = try TimelineHistory(
                    timeline: TimelineID(timeline), ancestors: ancestors)
                if random.next(below: 20) == 0 { archive.histories[TimelineID(timeline)] = nil }
            }
            let last = first + UInt64(random.next(below: 10))
            ends[timeline] = last
            for number in first...last {
                if random.next(below: 10) > 0 { archive.whole[timeline, default: []].insert(number) }
                if random.next(below: 12) == 0 { archive.partial[timeline, default: []].insert(number) }
                if random.next(below: 25) == 0 { archive.conflicts[timeline, default: []].insert(number) }
                if random.next(below: 25) == 0 {
                    let segment = WALSegment(timeline: TimelineID(timeline), number: number)
                    damage[segment] = lsn(number, UInt64(random.next(below: 1 << 20)))
                }
            }
            for _ in 0..<random.next(below: 4) {
                let start = begin + UInt64(random.next(below: Int((last - first + 1) * segmentSize)))
                let stop = start + UInt64(40 + random.next(below: 2 << 20))
                backups.append(
                    CommitRecord.sample(label(backups.count), timeline: timeline, start: start, stop: stop))
            }
        }
        return (archive, backups, damage)
    }
}

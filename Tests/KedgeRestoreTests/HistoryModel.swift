// A cluster's history as a plain list of records on branching timelines, and a replay of it that follows PostgreSQL's
// rules one record at a time: the planner's verdicts are held against it. It shares no code with the planner.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRestore

/// A seeded generator (SplitMix64).
struct Dice {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
}

struct ModelRecord: Hashable {
    enum Kind: Hashable {
        case end(xid: UInt32, time: Timestamp)
        case point(String, Timestamp)
        case other
    }

    /// Tells records at the same place on different timelines apart.
    let id: Int
    let start: LSN
    let end: LSN
    let kind: Kind
}

/// One cluster.
struct HistoryModel {
    static let segmentSize: UInt64 = 1 << 20
    var dice: Dice
    /// All records from the root to the timeline's end, by timeline.
    var lineages: [UInt32: [ModelRecord]] = [:]
    var histories: [TimelineID: TimelineHistory] = [:]
    var archived: [UInt32: Set<UInt64>] = [:]
    var partials: [UInt32: Set<UInt64>] = [:]
    var backups: [CommitRecord] = []
    private var nextID = 0
    private var clock: Int64 = 1_700_000_000_000_000
    /// Next and running transactions after each record, by the record's id.
    private var transactions: [Int: (next: UInt32, running: Set<UInt32>, clock: Int64)] = [:]

    init(seed: UInt64) {
        dice = Dice(seed)
        grow(1, from: [])
        for timeline in 2...UInt32(2 + dice.below(3)) {
            let parent = UInt32(1 + dice.below(Int(timeline) - 1))
            let records = lineages[parent] ?? []
            let own = ownStart(parent)
            // Recovery along the parent may end before the parent began: its history says so all the same.
            let cut = dice.chance(20) ? 1 + dice.below(own + 1) : own + 1 + dice.below(records.count - own - 1)
            grow(timeline, from: Array(records[..<cut]))
            var ancestors =
                histories[TimelineID(parent)]?.entries.compactMap { entry in
                    entry.end.map { (entry.timeline, $0) }
                } ?? []
            ancestors.append((TimelineID(parent), records[cut - 1].end))
            histories[TimelineID(timeline)] = try? TimelineHistory(
                timeline: TimelineID(timeline), ancestors: ancestors.map { (timeline: $0.0, switchPoint: $0.1) })
        }
        for timeline in lineages.keys.sorted() { archive(timeline) }
        for timeline in lineages.keys.sorted() { for _ in 0..<(1 + dice.below(3)) { addBackup(timeline) } }
    }

    /// A history made by hand. `ancestors` are the switch points on the way to each timeline, oldest first.
    init(
        _ lineages: [UInt32: [ModelRecord]], ancestors: [UInt32: [(timeline: TimelineID, switchPoint: LSN)]] = [:],
        archived: [UInt32: Set<UInt64>], partials: [UInt32: Set<UInt64>] = [:], backups: [CommitRecord]
    ) throws(KedgeError) {
        dice = Dice(0)
        self.lineages = lineages
        self.archived = archived
        self.partials = partials
        self.backups = backups
        for (timeline, ancestors) in ancestors {
            histories[TimelineID(timeline)] = try TimelineHistory(
                timeline: TimelineID(timeline), ancestors: ancestors)
        }
    }

    private func ownStart(_ timeline: UInt32) -> Int {
        guard let switchPoint = histories[TimelineID(timeline)]?.entries.last?.begin, timeline > 1 else { return 0 }
        return (lineages[timeline] ?? []).firstIndex { $0.start >= switchPoint } ?? 0
    }

    private mutating func grow(_ timeline: UInt32, from prefix: [ModelRecord]) {
        var records = prefix
        var (next, running) = (UInt32(700), Set<UInt32>())
        if let last = prefix.last, let state = transactions[last.id] {
            (next, running) = (state.next, state.running)
            clock = max(clock, state.clock) + 5_000_000
        }
        var position = prefix.last?.end.position ?? HistoryModel.segmentSize + 40
        for _ in 0..<(20 + dice.below(60)) {
            clock += Int64(dice.below(3)) * 1_000_000
            let seen = Timestamp(microseconds: clock - Int64(dice.chance(20) ? dice.below(3) : 0) * 1_000_000)
            var kind = ModelRecord.Kind.other
            switch dice.below(10) {
            case 0...2:
                running.insert(next)
                next += 1
            case 3...7:
                if let xid = running.sorted().dropFirst(dice.below(running.count + 1)).first {
                    running.remove(xid)
                    kind = .end(xid: xid, time: seen)
                }
            case 8: kind = .point("p\(dice.below(6))", seen)
            default: break
            }
            let length = UInt64(dice.chance(30) ? 8 + dice.below(40_000) : 8 + dice.below(10)) * 8
            records.append(
                ModelRecord(id: nextID, start: LSN(position), end: LSN(position + length), kind: kind))
            transactions[nextID] = (next, running, clock)
            nextID += 1
            position += length
        }
        lineages[timeline] = records
    }

    private mutating func archive(_ timeline: UInt32) {
        let records = lineages[timeline] ?? []
        guard let last = records.last else { return }
        let first = records[ownStart(timeline)].start.position / HistoryModel.segmentSize
        let end = (last.end.position - 1) / HistoryModel.segmentSize
        var numbers = Set(first...end)
        switch dice.below(3) {
        case 0: break
        case 1:
            numbers.remove(end)
            partials[timeline] = [end]
        default: numbers.remove(end)
        }
        if dice.chance(25), let gap = numbers.sorted().dropFirst(dice.below(numbers.count + 1)).first {
            numbers.remove(gap)
        }
        archived[timeline] = numbers
    }

    private mutating func addBackup(_ timeline: UInt32) {
        let records = lineages[timeline] ?? []
        let own = ownStart(timeline)
        let start = own + dice.below(records.count - own)
        guard let stop = records.indices.dropFirst(start + 1).first(where: { records[$0].kind == .other }),
            let state = transactions[records[stop].id]
        else { return }
        let history = histories[TimelineID(timeline)]?.entries ?? []
        backups.append(
            modelBackup(
                number: backups.count, timeline: TimelineID(timeline), start: records[start].start,
                stop: records[stop].end, stopTime: Timestamp(microseconds: state.clock),
                history: history.compactMap { entry in
                    entry.end.map { .init(timeline: entry.timeline, switchLSN: $0) }
                },
                snapshot: "\(state.running.min() ?? state.next):\(state.next):"
                    + state.running.sorted().map(String.init).joined(separator: ",")))
    }

    var archive: ArchivedWAL {
        var inventory = WALInventory(segmentSize: HistoryModel.segmentSize)
        for timeline in archived.keys.sorted() {
            let segments = (archived[timeline] ?? []).map { ($0, "") }
            let incomplete = (partials[timeline] ?? []).map { ($0, ".partial-" + String(repeating: "0", count: 32)) }
            for (number, suffix) in (segments + incomplete).sorted(by: { $0 < $1 }) {
                let name = WALSegment(timeline: TimelineID(timeline), number: number)
                    .fileName(segmentSize: HistoryModel.segmentSize)
                inventory.add(objectNamed: name + suffix, storedBytes: 1)
            }
        }
        return ArchivedWAL(inventory: inventory, histories: histories)
    }
}

// MARK: - Replay, one record after the other

extension HistoryModel {
    enum Ending: Equatable {
        case stopped(LSN, isConsistent: Bool)
        case ranOut(lastRecord: LSN?, isConsistent: Bool)
    }

    /// What a server does that recovers `backup` along `timeline`.
    func replay(_ backup: CommitRecord, along timeline: UInt32, to target: RecoveryTarget) -> Ending {
        var last: ModelRecord?
        var file: UInt32 = 0
        var files: [UInt64: UInt32] = [:]
        var isConsistent: Bool { last.map { $0.end >= backup.span.stopLSN } ?? false }
        for record in lineages[timeline] ?? [] where record.start >= backup.span.startLSN {
            let first = record.start.position / HistoryModel.segmentSize
            for number in first...(record.end.position - 1) / HistoryModel.segmentSize where files[number] == nil {
                guard let found = fileFor(number, along: timeline, notBefore: file) else {
                    return .ranOut(lastRecord: last?.start, isConsistent: isConsistent)
                }
                file = found
                files[number] = found
            }
            let isThere = (first...(record.end.position - 1) / HistoryModel.segmentSize).allSatisfy { number in
                lineages[files[number] ?? 0]?.contains(record) ?? false
            }
            guard isThere else { return .ranOut(lastRecord: last?.start, isConsistent: isConsistent) }
            if stopsBefore(record, target) { return .stopped(record.start, isConsistent: isConsistent) }
            last = record
            if stopsAfter(record, target) { return .stopped(record.start, isConsistent: isConsistent) }
        }
        return .ranOut(lastRecord: last?.start, isConsistent: isConsistent)
    }

    /// The timeline of the file that the server reads for a segment.
    private func fileFor(_ number: UInt64, along timeline: UInt32, notBefore: UInt32) -> UInt32? {
        let entries = timeline == 1 ? [] : histories[TimelineID(timeline)]?.entries ?? []
        let candidates =
            timeline == 1
            ? [UInt32(1)]
            : entries.filter { $0.begin.position / HistoryModel.segmentSize <= number }.map(\.timeline.number)
        let eligible = candidates.filter { $0 >= notBefore }.sorted(by: >)
        // The archive, then pg_wal, for each timeline; archive-get refuses to call a hole absent.
        for timeline in eligible {
            if archived[timeline]?.contains(number) ?? false { return timeline }
            let left = entries.filter { $0.timeline.number >= timeline }.compactMap(\.end).min()
            let isFollowed = left.map { $0 > LSN(number * HistoryModel.segmentSize) } ?? true
            if isHole(timeline, number) || isFollowed && hasBackup(behind: timeline, number) { return nil }
            if partials[timeline]?.contains(number) ?? false { return timeline }
        }
        return nil
    }

    /// Whether the segment is missing although a later one, or a branch behind it, shows that it existed.
    private func isHole(_ timeline: UInt32, _ number: UInt64) -> Bool {
        if archived[timeline]?.contains(where: { $0 > number }) ?? false { return true }
        let end = LSN((number + 1) * HistoryModel.segmentSize)
        return histories.values.contains { history in
            let left = history.entries.filter { $0.timeline.number >= timeline }.compactMap(\.end).min()
            return history.contains(TimelineID(timeline)) && left.map { $0 >= end } ?? false
        }
    }

    /// Whether a committed backup stopped on the timeline in this segment or behind it.
    private func hasBackup(behind timeline: UInt32, _ number: UInt64) -> Bool {
        backups.contains { backup in
            backup.span.timeline.number == timeline
                && backup.span.stopLSN > LSN(number * HistoryModel.segmentSize)
        }
    }

    private func stopsBefore(_ record: ModelRecord, _ target: RecoveryTarget) -> Bool {
        switch (target, record.kind) {
        case (.time(let time, let exclusive), .end(_, let seen)): exclusive ? seen >= time : seen > time
        case (.transaction(let xid, true), .end(let ended, _)): UInt64(ended) == xid
        case (.lsn(let lsn, true), _): record.start >= lsn
        default: false
        }
    }

    private func stopsAfter(_ record: ModelRecord, _ target: RecoveryTarget) -> Bool {
        switch (target, record.kind) {
        case (.transaction(let xid, false), .end(let ended, _)): UInt64(ended) == xid
        case (.lsn(let lsn, false), _): record.start >= lsn
        case (.name(let name), .point(let found, _)): found == name
        default: false
        }
    }
}

// MARK: - What the planner sees

extension HistoryModel: WALKnowledge {
    /// The records that end in a file.
    private func records(_ link: WALLink) -> [ModelRecord] {
        (lineages[link.segment.timeline.number] ?? []).filter { record in
            (record.end.position - 1) / HistoryModel.segmentSize == link.segment.number
                && (link.previous != nil || record.start.position / HistoryModel.segmentSize == link.segment.number)
        }
    }

    func summary(of link: WALLink) throws(KedgeError) -> WALSummary {
        var summary = WALSummary(lastRecord: records(link).last?.start)
        for record in records(link) {
            switch record.kind {
            case .end(let xid, let time):
                let times = summary.times ?? time...time
                summary.times = min(times.lowerBound, time)...max(times.upperBound, time)
                summary.transactions.append(TransactionIDSet.Run(first: xid, length: 1))
            case .point(let name, let time):
                summary.restorePoints.append(RestorePoint(lsn: record.start, time: time, name: RawPath(name)))
            case .other: break
            }
        }
        if link.isPartial, let end = lineages[link.segment.timeline.number]?.last?.end,
            end < link.segment.next.startLSN(segmentSize: HistoryModel.segmentSize)
        {
            summary.ending = .init(lsn: end, isDamage: false)
        }
        return summary
    }

    func detail(of link: WALLink, upTo limit: LSN) throws(KedgeError) -> WALDetail {
        var detail = WALDetail(events: [], lastRecord: nil)
        for record in records(link) where record.end <= limit {
            detail.lastRecord = record.start
            switch record.kind {
            case .end(let xid, let time):
                detail.events.append(.transactionEnd(TransactionEnd(lsn: record.start, time: time, xid: xid)))
            case .point(let name, let time):
                detail.events.append(
                    .restorePoint(RestorePoint(lsn: record.start, time: time, name: RawPath(name))))
            case .other: break
            }
        }
        return detail
    }
}

/// A commit record of which only the span matters.
func modelBackup(
    number: Int, timeline: TimelineID, start: LSN, stop: LSN, stopTime: Timestamp,
    history: [CommitRecord.TimelineSwitch] = [], snapshot: String = "700:700:",
    tablespaces: [CommitRecord.Tablespace] = []
) -> CommitRecord {
    let suffix = String(number + 1000)
    guard let label = Label("20261121T020000Z-full-\(suffix)") else { preconditionFailure("a label has this form") }
    func file(_ lsn: LSN) -> String {
        WALSegment(timeline: timeline, containing: lsn, segmentSize: HistoryModel.segmentSize)
            .fileName(segmentSize: HistoryModel.segmentSize)
    }
    return CommitRecord(
        label: label, type: .full, parent: nil, clusterName: "main",
        server: .init(
            systemIdentifier: SystemIdentifier(7), postgresVersion: 15, serverVersion: "15.18", fromStandby: false,
            dataChecksums: true, blockSize: 8192, walSegmentSize: HistoryModel.segmentSize,
            relationSegmentBlocks: 131_072),
        span: .init(
            timeline: timeline, startLSN: start, stopLSN: stop, checkpointLSN: start, startTime: stopTime,
            stopTime: stopTime, walFrom: file(start), walTo: file(stop), history: history, snapshot: snapshot,
            afterStopTime: stopTime, afterStopLSN: stop),
        tablespaces: tablespaces, dataDirectory: "/pg", configurationFiles: [],
        sizes: .init(databaseBytes: 1, storedBytes: 1, deltaBytes: 1, files: 1), packs: [],
        manifest: .init(length: 1, checksum: ContentHash(high: 0, low: 0)), health: .init(), keySlots: [],
        hostName: "h", createdBy: "kedge", durations: [])
}

// Finds where recovery to a target will stop, from the facts of the segments that it will replay, before anything is
// restored.
//
// The rule for each record is the server's own (src/backend/access/transam/xlogrecovery.c, recoveryStopsBefore and
// recoveryStopsAfter):
//   time         before the first transaction end that is later (exclusive: as late or later)
//   transaction  after (exclusive: before) the end of exactly that transaction
//   LSN          after (exclusive: before) the first record that begins there or further on
//   name         after the first restore point of that name
// Every segment's facts are looked at, from the redo point on: that is one short read for a segment that recovery will
// fetch whole. Times and transaction numbers are not in log order, so a search that jumps could miss the record
// that stops the server first, and a tablespace or a damaged record could lie in any of them. A segment is read whole
// only where its facts say that the stop may be in it.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// Where replay will stop.
package struct ReplayStop: Hashable, Sendable {
    /// The record that stops it; for an LSN target the target itself.
    package let record: LSN
    /// Whether that record is left out.
    package let isBefore: Bool
    /// The event that it is, unless the target is an LSN.
    package let event: WALEvent?
    package let segment: WALSegment

    package init(record: LSN, isBefore: Bool, event: WALEvent?, segment: WALSegment) {
        self.record = record
        self.isBefore = isBefore
        self.event = event
        self.segment = segment
    }
}

/// One pass over a chain of WAL.
package struct ReplaySearch {
    package let chain: WALChain
    /// The first stop that was found.
    package private(set) var stop: ReplayStop?
    /// Where the last record that can be replayed begins; nil if that is not known.
    package private(set) var lastRecord: LSN?
    /// No record that ends after this can be replayed: the end of the chain, or damage before it.
    package private(set) var end: LSN
    /// Where a record cannot be read, or ends recovery for the reason that is given, and the file that it is in.
    package private(set) var damage: (lsn: LSN, segment: WALSegment, reason: String?)?
    /// The earliest and the latest transaction end at or after `consistency`, as far as the pass went.
    package private(set) var times: ClosedRange<Timestamp>?
    /// The latest restore points that were passed; at most ten.
    package private(set) var restorePoints: [RestorePoint] = []
    /// Tablespaces that replay up to the stop creates.
    package private(set) var tablespaces: [CreatedTablespace] = []
    /// Segments of which it is not known what is in them, with the reason; at most ten.
    package private(set) var unproven: [(segment: WALSegment, reason: String)] = []

    /// How many segments were looked at.
    package private(set) var segmentCount = 0
    /// Whether it ended at `segmentLimit`, and not where replay does: a stop may lie behind that.
    package private(set) var isCutShort = false

    private var hasEnded = false
    private let target: RecoveryTarget
    private let start: LSN

    /// Goes over `chain` from the record at `start` on until something stops replay, the chain ends, or `bound` is
    /// reached; over no more than `segmentLimit` segments.
    package init(
        _ chain: WALChain, from start: LSN, to target: RecoveryTarget, before bound: LSN = LSN(.max),
        segmentLimit: Int = .max, knowledge: any WALKnowledge
    ) throws(KedgeError) {
        self.chain = chain
        self.target = target
        self.start = start
        end = chain.limit
        try chain.forEachLink(from: start) { (link) throws(KedgeError) in
            if link.segment.startLSN(segmentSize: chain.segmentSize) >= bound { return false }
            guard segmentCount < segmentLimit else {
                isCutShort = true
                return false
            }
            segmentCount += 1
            return try look(at: link, knowledge)
        }
    }

    /// Looks at one segment. False where the pass ends.
    private mutating func look(at link: WALLink, _ knowledge: any WALKnowledge) throws(KedgeError) -> Bool {
        let summary = try knowledge.summary(of: link)
        if let ending = summary.ending, ending.lsn < end {
            end = ending.lsn
            if ending.isDamage { damage = (ending.lsn, link.segment, ending.reason) }
            hasEnded = true
        }
        let isCut = end < link.segment.next.startLSN(segmentSize: chain.segmentSize)
        var created = summary.tablespaces
        if isCut || summary.unknown != nil || mayStop(summary) {
            let detail = try knowledge.detail(of: link, upTo: end)
            if let reason = detail.unknown { note(link.segment, reason) }
            created = detail.tablespaces
            lastRecord = detail.lastRecord ?? lastRecord
            take(detail, of: link)
        } else {
            lastRecord = summary.lastRecord ?? lastRecord
            if let range = summary.times, link.segment.startLSN(segmentSize: chain.segmentSize) >= start {
                include(range)
            }
            for point in summary.restorePoints where point.lsn >= start { remember(point) }
        }
        if stop == nil, case .lsn(let lsn, let exclusive) = target, let lastRecord, lastRecord >= lsn {
            stop = ReplayStop(record: lsn, isBefore: exclusive, event: nil, segment: link.segment)
        }
        let last = stop?.record ?? end
        tablespaces += created.filter { $0.lsn >= start && $0.lsn <= last }
        return stop == nil && !hasEnded
    }

    /// Whether the segment may hold the record that stops replay.
    private func mayStop(_ summary: WALSummary) -> Bool {
        switch target {
        case .latest, .immediate, .lsn: false
        case .time(let time, let exclusive):
            summary.times.map { exclusive ? $0.upperBound >= time : $0.upperBound > time } ?? false
        case .transaction(let number, _):
            summary.transactions.contains { UInt32(truncatingIfNeeded: number) &- $0.first < $0.length }
        case .name(let name): summary.restorePoints.contains { $0.name == RawPath(name) }
        }
    }

    /// Goes over the events of a segment that was read.
    private mutating func take(_ detail: WALDetail, of link: WALLink) {
        for event in detail.events where event.lsn >= start && stop == nil {
            if let isBefore = stops(event) {
                stop = ReplayStop(record: event.lsn, isBefore: isBefore, event: event, segment: link.segment)
            }
            if stop?.isBefore == true { return }
            switch event {
            case .transactionEnd(let end): include(end.time...end.time)
            case .restorePoint(let point): remember(point)
            }
        }
    }

    /// Whether the event stops replay: nil if not, true before it, false after it.
    private func stops(_ event: WALEvent) -> Bool? {
        switch (target, event) {
        case (.time(let time, let exclusive), .transactionEnd(let end)):
            return (exclusive ? end.time >= time : end.time > time) ? true : nil
        case (.transaction(let number, let exclusive), .transactionEnd(let end)):
            return end.xid == UInt32(truncatingIfNeeded: number) ? exclusive : nil
        case (.name(let name), .restorePoint(let point)):
            return point.name == RawPath(name) ? false : nil
        default:
            return nil
        }
    }

    private mutating func include(_ range: ClosedRange<Timestamp>) {
        guard let times else {
            times = range
            return
        }
        self.times = min(times.lowerBound, range.lowerBound)...max(times.upperBound, range.upperBound)
    }

    private mutating func remember(_ point: RestorePoint) {
        if restorePoints.count == 10 { restorePoints.removeFirst() }
        restorePoints.append(point)
    }

    private mutating func note(_ segment: WALSegment, _ reason: String) {
        if unproven.count < 10 { unproven.append((segment, reason)) }
    }

    /// The first transaction end at or after `fork` along `chain`; nil if none is archived.
    package static func firstTransactionEnd(
        _ chain: WALChain, from fork: LSN, knowledge: any WALKnowledge
    ) throws(KedgeError) -> TransactionEnd? {
        var found: TransactionEnd?
        try chain.forEachLink(from: fork) { (link) throws(KedgeError) in
            let summary = try knowledge.summary(of: link)
            guard summary.times != nil || summary.unknown != nil else { return summary.ending == nil }
            let limit = min(chain.limit, summary.ending?.lsn ?? LSN(.max))
            for case .transactionEnd(let end) in try knowledge.detail(of: link, upTo: limit).events
            where end.lsn >= fork {
                found = end
                return false
            }
            return summary.ending == nil
        }
        return found
    }
}

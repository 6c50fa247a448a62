// Which archived files recovery will read, in which order, and where it runs out of them.
//
// The server's rule (src/backend/access/transam/xlogrecovery.c, XLogFileReadAnyTLI): for each segment number it asks
// for the file of the newest timeline of the target's history that had begun by then, goes back to older ones while
// there is none, and never returns to a timeline older than the file it read last. It does not look at where a
// timeline was left: from a file of the parent it would replay records that are not part of the target's history. So a
// chain ends at the switch point when the child's file is missing.

package import KedgeCore
package import KedgePostgres

/// What a repository holds of one database system's WAL, known from names alone, and its timeline histories.
package struct ArchivedWAL: Sendable {
    package private(set) var inventory: WALInventory
    package let histories: [TimelineID: TimelineHistory]
    /// Committed backups: each shows that the WAL up to its stop existed.
    private var backups: [CommitRecord] = []

    package init(inventory: WALInventory, histories: [TimelineID: TimelineHistory]) {
        self.inventory = inventory
        self.histories = histories
    }

    package var segmentSize: UInt64 { inventory.segmentSize }

    /// The same with what these backups, of the same database system, say about WAL that is not there.
    package func knowing(_ backups: [CommitRecord]) -> ArchivedWAL {
        var known = self
        known.backups = backups
        return known
    }

    /// The same where other files are archived. Histories and backups show as before that more existed.
    package func holding(_ inventory: WALInventory) -> ArchivedWAL {
        var known = self
        known.inventory = inventory
        return known
    }

    /// What shows that there was WAL along `history` behind `limit`, where `missing` is not archived, besides segments.
    func evidence(behind limit: LSN, _ missing: WALSegment, along history: TimelineHistory) -> WALEvidence? {
        if let branch = branch(behind: missing) { return .branch(branch.timeline) }
        let backup = backups.filter { $0.span.stopLSN > limit && $0.lies(on: history) }
            .min { ($0.span.stopLSN, $0.label) < ($1.span.stopLSN, $1.label) }
        if let backup { return .backup(backup.label) }
        let starts = history.entries.flatMap { entry in
            (inventory.backupStarts[entry.timeline] ?? [:]).filter { start in
                // On the timelines before, the segment of the switch may begin with WAL that is there.
                (LSN(start.key * segmentSize) >= limit
                    || entry.timeline == missing.timeline && start.key >= missing.number)
                    && entry.holds(start.key, segmentSize)
            }
        }
        return starts.min { ($0.key, $0.value) < ($1.key, $1.value) }.map { .backupHistory($0.value) }
    }

    /// Whether `archive-get` knows of `segment`, which is not archived and behind which no other of its timeline is,
    /// that it existed (WALArchive.evidence). `isFollowed`: false where the history that the server follows left the
    /// timeline before the segment, so that backups there are of another branch.
    func hasExisted(_ segment: WALSegment, isFollowed: Bool) -> Bool {
        if branch(behind: segment) != nil { return true }
        guard isFollowed else { return false }
        return backups.contains { $0.span.reaches(segment, segmentSize: segmentSize) }
            || inventory.backupStarts[segment.timeline]?.keys.contains { $0 >= segment.number } == true
    }

    /// Every timeline of which anything is archived, and timeline 1, which needs no history file.
    package var timelines: [TimelineID] {
        Set(inventory.timelines.map(\.id)).union(histories.keys).union([TimelineID(1)]).sorted()
    }

    /// The path from the root to `timeline`. Nil where its history file is missing: the server would refuse it.
    package func history(of timeline: TimelineID) -> TimelineHistory? {
        timeline == TimelineID(1) ? TimelineHistory(root: timeline) : histories[timeline]
    }

    /// Whether damage at `lsn` in `segment` is none: with `archive_mode = always` a standby archives the last segment
    /// of a timeline that was left under its full name, though it is filled only up to the switch.
    package func isHarmless(_ lsn: LSN, in segment: WALSegment) -> Bool {
        let start = segment.startLSN(segmentSize: segmentSize)
        return histories.values.contains { history in
            history.limit(of: segment.timeline).map { $0 >= start && $0 <= lsn } ?? false
        }
    }

    /// What `archive-get` and pg_wal have for a server that asks for a segment.
    enum Answer: Equatable {
        /// This segment and those after it, up to `end`.
        case whole(end: UInt64)
        /// `archive-get` says that it is absent, and a `.partial` can be put into pg_wal.
        case partial
        /// `archive-get` refuses: there are two different files, or it is missing in the middle. Recovery aborts.
        case refused
        case absent
    }

    /// `isFollowed` as in `hasExisted`.
    func answer(for segment: WALSegment, isFollowed: Bool) -> Answer {
        let archived = inventory.timeline(segment.timeline)
        let number = segment.number
        if let run = archived?.run(containing: number) {
            let conflict = archived?.segmentConflicts.filter { $0 >= number }.min() ?? .max
            return conflict == number ? .refused : .whole(end: min(run.upperBound + 1, conflict))
        }
        if firstSegment(segment.timeline, after: number) != nil || hasExisted(segment, isFollowed: isFollowed) {
            return .refused
        }
        guard let archived, archived.partials.contains(number) else { return .absent }
        return archived.partialConflicts.contains(number) ? .absent : .partial
    }

    /// The first timeline that branched off at or after the end of `segment`: so all of the segment existed.
    package func branch(behind segment: WALSegment) -> TimelineHistory? {
        histories.values.filter { $0.passes(behind: segment, segmentSize: segmentSize) }
            .min { $0.timeline < $1.timeline }
    }

    /// Whether `segment`, which is missing, may just be a push that is under way: pushes in parallel finish out of
    /// order, `archive-push-ahead` at a time (64 by default).
    package func mayBeUnderWay(_ segment: WALSegment) -> Bool {
        guard let last = inventory.timeline(segment.timeline)?.runs.last else { return false }
        return segment.number + 64 > last.upperBound
    }

    /// Holes that recovery from a backup may meet.
    package enum Holes: Hashable, Sendable {
        case none
        /// A push under way may close one of them.
        case mayClose
        case stay
    }

    /// The holes behind `backup` on every timeline that leads on from it.
    package func holes(after backup: CommitRecord) -> Holes {
        let first = backup.span.startLSN.position / segmentSize
        let missing = timelines.compactMap { history(of: $0) }.filter { backup.lies(on: $0) }
            .map { WALChain(self, along: $0, from: first) }.filter(\.endsInHole).map(\.missing)
        return missing.isEmpty ? .none : missing.contains(where: mayBeUnderWay) ? .mayClose : .stay
    }

    func hasConflict(_ segment: WALSegment) -> Bool {
        guard let archived = inventory.timeline(segment.timeline) else { return false }
        return archived.segmentConflicts.contains(segment.number)
            || archived.partialConflicts.contains(segment.number) && !archived.contains(segment.number)
    }

    /// The first archived segment of `timeline` after `number`.
    func firstSegment(_ timeline: TimelineID, after number: UInt64) -> UInt64? {
        inventory.timeline(timeline)?.runs.first { $0.upperBound > number }.map { max($0.lowerBound, number + 1) }
    }
}

/// A segment as recovery will read it.
package struct WALLink: Hashable, Sendable {
    /// The file: its timeline may be newer than that of the records in it.
    package let segment: WALSegment
    package let isPartial: Bool
    /// The file that recovery read before it; nil for the first.
    package let previous: WALSegment?

    package init(segment: WALSegment, isPartial: Bool = false, previous: WALSegment?) {
        self.segment = segment
        self.isPartial = isPartial
        self.previous = previous
    }
}

/// The files that recovery will read from a segment on, along one history.
package struct WALChain: Sendable {
    /// Neighbouring segments of one timeline.
    package struct Run: Hashable, Sendable {
        package let timeline: TimelineID
        package let numbers: Range<UInt64>
        /// A single `.partial` segment, which the restore has to put into pg_wal under the segment's own name.
        package let isPartial: Bool

        package init(timeline: TimelineID, numbers: Range<UInt64>, isPartial: Bool) {
            self.timeline = timeline
            self.numbers = numbers
            self.isPartial = isPartial
        }
    }

    package let history: TimelineHistory
    package let segmentSize: UInt64
    package let runs: [Run]
    /// No record that ends after this can be replayed.
    package let limit: LSN
    /// The first segment that is missing.
    package let missing: WALSegment
    /// The next segment that is there again, if this is a hole and not the end.
    package let resumesAt: WALSegment?
    /// What else shows that there was WAL behind the chain's end: a hole even if nothing follows it.
    package let evidence: WALEvidence?
    /// Whether `missing` has several different `.partial` files, none of which can be trusted.
    package let hasConflict: Bool

    /// Follows `history` from segment number `first` on.
    package init(_ archive: ArchivedWAL, along history: TimelineHistory, from first: UInt64) {
        var builder = Builder(archive: archive, history: history, number: first)
        builder.build()
        self.history = history
        segmentSize = archive.segmentSize
        runs = builder.runs
        limit = builder.limit
        missing = builder.missing
        hasConflict = archive.hasConflict(builder.missing)
        evidence = archive.evidence(behind: builder.limit, builder.missing, along: history)
        let later = history.entries.compactMap { entry in
            archive.firstSegment(entry.timeline, after: builder.missing.number).map {
                WALSegment(timeline: entry.timeline, number: $0)
            }
        }
        resumesAt = later.filter { entry in
            history.entries.contains { $0.timeline == entry.timeline && $0.holds(entry.number, archive.segmentSize) }
        }.min { $0.number < $1.number }
    }

    /// Whether the chain ends although there is, or was, more.
    package var endsInHole: Bool { resumesAt != nil || evidence != nil }

    /// The partial segment that the chain ends with.
    package var partial: WALSegment? {
        runs.last.flatMap { $0.isPartial ? WALSegment(timeline: $0.timeline, number: $0.numbers.lowerBound) : nil }
    }

    package var segmentCount: UInt64 { runs.reduce(0) { $0 + UInt64($1.numbers.count) } }

    /// The last file of the chain; nil where the very first one is missing.
    package var last: WALSegment? {
        runs.last.map { WALSegment(timeline: $0.timeline, number: $0.numbers.upperBound - 1) }
    }

    /// Calls `body` for each file in order, from the one that holds `start` on, until it returns false.
    package func forEachLink<Failure: Error>(
        from start: LSN = .invalid, _ body: (WALLink) throws(Failure) -> Bool
    ) throws(Failure) {
        var previous: WALSegment?
        let firstNumber = start.position / segmentSize
        for run in runs where run.numbers.upperBound > firstNumber {
            for number in max(run.numbers.lowerBound, firstNumber)..<run.numbers.upperBound {
                let segment = WALSegment(timeline: run.timeline, number: number)
                guard try body(WALLink(segment: segment, isPartial: run.isPartial, previous: previous)) else { return }
                previous = segment
            }
        }
    }
}

extension WALChain {
    /// Adds one run after the other until a segment is missing.
    private struct Builder {
        let archive: ArchivedWAL
        let history: TimelineHistory
        var number: UInt64
        var fileTimeline = TimelineID(0)
        var runs: [Run] = []
        var limit = LSN.invalid
        var missing = WALSegment(timeline: TimelineID(0), number: 0)

        mutating func build() {
            while true {
                let eligible = history.entries.reversed().filter { entry in
                    entry.timeline >= fileTimeline && entry.begin.position / archive.segmentSize <= number
                }
                guard let newest = eligible.first ?? history.entries.first else { return }
                missing = WALSegment(timeline: newest.timeline, number: number)
                limit = LSN(number * archive.segmentSize)
                // The server looks for a timeline's file in the archive, then in pg_wal, then for an older one's.
                guard let (entry, answer) = newestAnswer(eligible) else { return }
                switch answer {
                case .whole(let end): guard add(entry, upTo: end) else { return }
                case .partial: return addPartial(of: entry)
                case .refused:
                    missing = WALSegment(timeline: entry.timeline, number: number)
                    return
                case .absent: return
                }
            }
        }

        /// The first timeline of which there is anything to say about the present segment.
        private func newestAnswer(
            _ eligible: [TimelineHistory.Entry]
        ) -> (TimelineHistory.Entry, ArchivedWAL.Answer)? {
            for entry in eligible {
                let isFollowed = entry.limit.map { $0.position > number * archive.segmentSize } ?? true
                let answer = archive.answer(
                    for: WALSegment(timeline: entry.timeline, number: number), isFollowed: isFollowed)
                if answer != .absent { return (entry, answer) }
            }
            return nil
        }

        /// Adds segments of one timeline. Returns false where the chain ends at the timeline's switch point.
        private mutating func add(_ entry: TimelineHistory.Entry, upTo end: UInt64) -> Bool {
            let (present, segmentSize) = (number, archive.segmentSize)
            let nextBegin = history.entries
                .filter { $0.timeline > entry.timeline }
                .map { $0.begin.position / segmentSize }
                .filter { $0 > present }
                .min()
            let stop = min(end, nextBegin ?? .max)
            let own = entry.limit.map { ($0.position + archive.segmentSize - 1) / archive.segmentSize } ?? .max
            guard own > number else { return false }
            append(entry.timeline, number..<min(stop, own))
            number = min(stop, own)
            limit = LSN(number * archive.segmentSize)
            guard let end = entry.limit, end < limit else { return true }
            // The last of these files goes on after the switch point with WAL that is not of this history.
            limit = end
            return false
        }

        private mutating func append(_ timeline: TimelineID, _ numbers: Range<UInt64>) {
            fileTimeline = timeline
            if let last = runs.last, last.timeline == timeline, last.numbers.upperBound == numbers.lowerBound {
                runs[runs.count - 1] = Run(
                    timeline: timeline, numbers: last.numbers.lowerBound..<numbers.upperBound, isPartial: false)
            } else {
                runs.append(Run(timeline: timeline, numbers: numbers, isPartial: false))
            }
        }

        private mutating func addPartial(of entry: TimelineHistory.Entry) {
            let segment = WALSegment(timeline: entry.timeline, number: number)
            let end = segment.next.startLSN(segmentSize: archive.segmentSize)
            guard entry.limit ?? end > limit else { return }
            runs.append(Run(timeline: segment.timeline, numbers: number..<number + 1, isPartial: true))
            limit = min(end, entry.limit ?? end)
            if limit == end { missing = segment.next }
        }
    }
}

extension TimelineHistory {
    /// Whether this history left the timeline of `segment` at or after the segment's end.
    package func passes(behind segment: WALSegment, segmentSize: UInt64) -> Bool {
        entries.contains { entry in
            entry.timeline == segment.timeline
                && entry.limit.map { $0 >= segment.next.startLSN(segmentSize: segmentSize) } ?? false
        }
    }
}

extension TimelineHistory.Entry {
    /// Whether segment `number` holds WAL of this stretch.
    fileprivate func holds(_ number: UInt64, _ segmentSize: UInt64) -> Bool {
        begin.position / segmentSize <= number && limit.map { number * segmentSize < $0.position } ?? true
    }
}

extension CommitRecord {
    /// Whether recovery along `history` can begin with this backup: its timeline is on the path, was not left before
    /// the backup's end, and came about as the backup says. Two promotions may have taken one number.
    package func lies(on history: TimelineHistory) -> Bool {
        history.contains(span.timeline, upTo: span.stopLSN)
            && span.history.allSatisfy { history.switchPoint(leaving: $0.timeline) == $0.switchLSN }
    }
}

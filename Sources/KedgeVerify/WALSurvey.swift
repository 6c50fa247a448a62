// Which archived WAL the backups need: all that recovery could read from their starts on, along every timeline that
// leads on from them. And what of it is missing, known from names alone.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The WAL of one database system, and the backups that need it.
struct WALSurvey {
    let archive: WALArchive
    let backups: [CommitRecord]
    let archived: ArchivedWAL
    /// What recovery could read, without doubles: neighbouring files of one timeline.
    private(set) var runs: [WALChain.Run] = []
    /// Files that follow each other on different timelines.
    private(set) var crossings: Set<Crossing> = []
    private(set) var holes: [Hole] = []

    struct Crossing: Hashable {
        let earlier: WALLink
        let later: WALLink
    }

    /// A file that is not there though something after it is, or though a backup needs it.
    struct Hole: Hashable {
        enum Reason: Hashable {
            /// Later segments are there, or something shows that they were.
            case gap
            /// Several partial segments, none of which can be trusted.
            case conflict
            /// The backup cannot become consistent without it.
            case neededByBackup
            /// The timeline's history file, without which no server follows it.
            case history
        }

        let segment: WALSegment
        let reason: Reason
        let backup: Label
    }

    /// Lists the archive of one database system. `unknown` are timelines whose history could not be read: nothing is
    /// said of them. Throws what listing throws.
    init(
        _ archive: WALArchive, backups: [CommitRecord], histories: [TimelineID: TimelineHistory],
        unknown: Set<TimelineID>
    ) throws(KedgeError) {
        self.archive = archive
        self.backups = backups
        archived = ArchivedWAL(inventory: try archive.inventory(), histories: histories).knowing(backups)
        var needed: [TimelineID: [Range<UInt64>]] = [:]
        var partials: Set<WALSegment> = []
        for backup in backups {
            for timeline in Set(archived.inventory.timelines.map(\.id)).union([backup.span.timeline]).sorted()
            where !unknown.contains(timeline) {
                follow(backup, timeline, &needed, &partials)
            }
        }
        for (timeline, ranges) in needed.sorted(by: { $0.key < $1.key }) {
            runs += merged(ranges).map { WALChain.Run(timeline: timeline, numbers: $0, isPartial: false) }
        }
        runs += partials.sorted().map {
            WALChain.Run(timeline: $0.timeline, numbers: $0.number..<$0.number + 1, isPartial: true)
        }
    }

    private mutating func follow(
        _ backup: CommitRecord, _ timeline: TimelineID, _ needed: inout [TimelineID: [Range<UInt64>]],
        _ partials: inout Set<WALSegment>
    ) {
        let first = backup.span.startLSN.position / archived.segmentSize
        guard let history = archived.history(of: timeline) else {
            let segment = WALSegment(timeline: timeline, number: first)
            return holes.append(Hole(segment: segment, reason: .history, backup: backup.label))
        }
        guard backup.lies(on: history) else { return }
        let chain = WALChain(archived, along: history, from: first)
        for run in chain.runs where run.isPartial {
            partials.insert(WALSegment(timeline: run.timeline, number: run.numbers.lowerBound))
        }
        for run in chain.runs where !run.isPartial { needed[run.timeline, default: []].append(run.numbers) }
        for (earlier, later) in zip(chain.runs, chain.runs.dropFirst()) { cross(earlier, later) }
        if chain.hasConflict {
            holes.append(Hole(segment: chain.missing, reason: .conflict, backup: backup.label))
        } else if chain.resumesAt != nil || chain.evidence.map({ $0 != .backup(backup.label) }) ?? false {
            holes.append(Hole(segment: chain.missing, reason: .gap, backup: backup.label))
        } else if timeline == backup.span.timeline && chain.limit < backup.span.stopLSN {
            holes.append(Hole(segment: chain.missing, reason: .neededByBackup, backup: backup.label))
        }
    }

    private mutating func cross(_ earlier: WALChain.Run, _ later: WALChain.Run) {
        let before = WALSegment(timeline: earlier.timeline, number: earlier.numbers.upperBound - 1)
        let after = WALSegment(timeline: later.timeline, number: later.numbers.lowerBound)
        crossings.insert(
            Crossing(
                earlier: WALLink(segment: before, isPartial: earlier.isPartial, previous: nil),
                later: WALLink(segment: after, isPartial: later.isPartial, previous: nil)))
    }

    /// Whether a hole may just be a push that is under way: pushes in parallel finish out of order.
    func isFresh(_ hole: Hole) -> Bool {
        hole.reason != .history && archived.mayBeUnderWay(hole.segment)
    }

    /// The full name of the object that a hole lacks.
    func object(of hole: Hole) -> ObjectName {
        let system = archive.registration.systemIdentifier
        if hole.reason == .history {
            return ClusterLayout.walFile(.history(hole.segment.timeline), of: system, tag: nil)
        }
        let name = hole.segment.fileName(segmentSize: archived.segmentSize)
        return ClusterLayout.walFile(.segment(name), of: system, tag: nil)
    }

    /// Of a conflict its error is thrown, as whoever asks for the file gets it, or what reading throws.
    func error(of hole: Hole) throws(KedgeError) -> KedgeError {
        let name = hole.segment.fileName(segmentSize: archived.segmentSize)
        let repository = archive.cluster.repository.name
        switch hole.reason {
        case .history:
            return KedgeError(
                .notFound,
                "the history file of timeline \(hole.segment.timeline) is missing from repository \"\(repository)\"",
                detail: "Without \"\(hole.segment.timeline.hex).history\" no server follows that timeline.",
                hint: "Archive it with \"kedge archive-push\" from the pg_wal of a server on that timeline.")
        case .conflict:
            _ = try archive.contents(of: .segment(name)).one()
            return KedgeError(
                .archiveConflict, "WAL file \"\(name)\" was archived several times with different content",
                detail: "Recovery cannot use any of them until it is known which is right.",
                hint: "Two servers wrote the same timeline: run \"kedge cat\" on each to see who stored it.")
        case .gap, .neededByBackup:
            return KedgeError(
                .notFound, "WAL segment \"\(name)\" is missing from repository \"\(repository)\"",
                detail: hole.reason == .gap ? "There is, or was, WAL behind it." : nil,
                hint: "If the server still has it in pg_wal, archive it with \"kedge archive-push\"; otherwise take a "
                    + "new backup.")
        }
    }
}

/// Ranges in order, those that touch joined.
private func merged(_ ranges: [Range<UInt64>]) -> [Range<UInt64>] {
    var merged: [Range<UInt64>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
        if let last = merged.last, range.lowerBound <= last.upperBound {
            merged[merged.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
        } else {
            merged.append(range)
        }
    }
    return merged
}

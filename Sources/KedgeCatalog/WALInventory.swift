// Which WAL is archived, by timeline: runs of consecutive segments, and so the gaps between them. Pure: names in,
// runs out. Memory follows the number of gaps, not of segments. Two names of one segment are a conflict until somebody
// has looked at what they hold (`WALArchive.settleConflicts`).

package import KedgeCore
import KedgeRepository

/// The archived WAL of one database system in one repository, or in all that `archive-get` reads.
package struct WALInventory: Hashable, Sendable {
    package let segmentSize: UInt64
    /// Ordered by timeline.
    package private(set) var timelines: [Timeline] = []
    /// Timelines whose `.history` file is there, in order.
    package private(set) var histories: [TimelineID] = []
    /// The segments in which base backups began, by timeline, each with the backup history file (`.backup`) that says
    /// so.
    package private(set) var backupStarts: [TimelineID: [UInt64: String]] = [:]
    /// Objects among the WAL whose names mean nothing; at most 100 are kept.
    package private(set) var strangers: [String] = []

    /// What is archived of one timeline.
    package struct Timeline: Hashable, Sendable {
        package let id: TimelineID
        /// Runs of consecutive segment numbers, ascending, with a gap between any two.
        package fileprivate(set) var runs: [ClosedRange<UInt64>] = []
        /// Numbers of segments of which there is a `.partial`.
        package fileprivate(set) var partials: Set<UInt64> = []
        /// Numbers of whole segments of which there are two with different content.
        package fileprivate(set) var segmentConflicts: Set<UInt64> = []
        /// The same for partial segments. Whole ones that are there can be used all the same.
        package fileprivate(set) var partialConflicts: Set<UInt64> = []
        /// What the segments and partial segments occupy, as stored.
        package fileprivate(set) var storedBytes: UInt64 = 0

        /// Numbers of segments or partial segments of which there are two with different content.
        package var conflicts: Set<UInt64> { segmentConflicts.union(partialConflicts) }

        /// How many whole segments there are.
        package var segmentCount: UInt64 { runs.reduce(0) { $0 + ($1.upperBound - $1.lowerBound + 1) } }

        /// The runs of numbers that are missing between the first and the last segment.
        package var gaps: [ClosedRange<UInt64>] {
            zip(runs, runs.dropFirst()).map { $0.upperBound + 1...$1.lowerBound - 1 }
        }

        /// Whether this segment is there.
        package func contains(_ number: UInt64) -> Bool { run(containing: number) != nil }

        /// The run that holds this segment.
        package func run(containing number: UInt64) -> ClosedRange<UInt64>? {
            var low = 0
            var high = runs.count
            while low < high {
                let middle = (low + high) / 2
                if runs[middle].upperBound < number { low = middle + 1 } else { high = middle }
            }
            return low < runs.count && runs[low].contains(number) ? runs[low] : nil
        }
    }

    package init(segmentSize: UInt64) { self.segmentSize = segmentSize }

    /// The timeline's WAL; nil where none of it is archived.
    package func timeline(_ id: TimelineID) -> Timeline? { timelines.first { $0.id == id } }

    /// Adds an object among the WAL by the last part of its name. Objects of one timeline come in the order of their
    /// names, as a listing gives them; one that comes out of order is taken for a stranger.
    package mutating func add(objectNamed lastComponent: some StringProtocol, storedBytes: UInt64) {
        guard let (file, _) = ClusterLayout.parseWALFile(lastComponent) else {
            addStranger(String(lastComponent))
            return
        }
        switch file {
        case .history(let timeline): histories.append(timeline)
        case .backup(let name):
            if let start = WALSegment(fileName: name.prefix(24), segmentSize: segmentSize) {
                backupStarts[start.timeline, default: [:]][start.number] = name
            }
        case .segment(let name): addSegment(name, isPartial: false, storedBytes: storedBytes)
        case .partial(let name): addSegment(String(name.prefix(24)), isPartial: true, storedBytes: storedBytes)
        }
    }

    /// The same without the segments and partial segments that `isKept` does not want. What is stored is not counted.
    package func keeping(_ isKept: (WALSegment) -> Bool) -> WALInventory {
        var kept = WALInventory(segmentSize: segmentSize)
        kept.histories = histories
        kept.backupStarts = backupStarts
        for timeline in timelines {
            var left = Timeline(id: timeline.id)
            func isWanted(_ number: UInt64) -> Bool { isKept(WALSegment(timeline: timeline.id, number: number)) }
            for number in timeline.runs.joined() where isWanted(number) {
                if let last = left.runs.last, last.upperBound + 1 == number {
                    left.runs[left.runs.count - 1] = last.lowerBound...number
                } else {
                    left.runs.append(number...number)
                }
            }
            left.partials = timeline.partials.filter(isWanted)
            left.segmentConflicts = timeline.segmentConflicts.filter(isWanted)
            left.partialConflicts = timeline.partialConflicts.filter(isWanted)
            if !left.runs.isEmpty || !left.partials.isEmpty { kept.timelines.append(left) }
        }
        return kept
    }

    /// What is called a conflict is none: all objects of this segment or partial segment hold the same.
    mutating func withdrawConflict(_ number: UInt64, isPartial: Bool, on timeline: TimelineID) {
        guard let index = timelines.firstIndex(where: { $0.id == timeline }) else { return }
        if isPartial {
            timelines[index].partialConflicts.remove(number)
        } else {
            timelines[index].segmentConflicts.remove(number)
        }
    }

    /// Adds an object that is none of the archived files, by the last part of its name.
    package mutating func add(strangerNamed name: String) { addStranger(name) }

    /// This inventory without files that turned out to be of no use. `archive-get` refuses such a file and takes no
    /// other in its place: without a whole segment its partial one is of no use either.
    package func without(_ files: some Sequence<(segment: WALSegment, isPartial: Bool)>) -> WALInventory {
        var rest = self
        for (segment, isPartial) in files {
            guard let index = rest.timelines.firstIndex(where: { $0.id == segment.timeline }) else { continue }
            rest.timelines[index].remove(segment.number, isPartial: isPartial)
        }
        return rest
    }

    /// What `archive-get` can give out that reads both this repository and `other`: it takes a file from the one where
    /// the other has none, or two that contradict each other. What is stored is added up.
    package func union(_ other: WALInventory) -> WALInventory {
        var union = self
        union.histories = Set(histories + other.histories).sorted()
        union.backupStarts.merge(other.backupStarts) { $0.merging($1) { first, _ in first } }
        for stranger in other.strangers { union.addStranger(stranger) }
        for timeline in other.timelines {
            let index = union.index(of: timeline.id)
            union.timelines[index] = union.timelines[index].union(timeline)
        }
        return union
    }

    private mutating func addStranger(_ name: String) {
        if strangers.count < 100 { strangers.append(name) }
    }

    private mutating func addSegment(_ name: String, isPartial: Bool, storedBytes: UInt64) {
        guard let segment = WALSegment(fileName: name, segmentSize: segmentSize) else {
            addStranger(name)
            return
        }
        let index = index(of: segment.timeline)
        timelines[index].storedBytes += storedBytes
        let number = segment.number
        if isPartial {
            if !timelines[index].partials.insert(number).inserted { timelines[index].partialConflicts.insert(number) }
            return
        }
        guard let last = timelines[index].runs.last else {
            timelines[index].runs = [number...number]
            return
        }
        if number < last.upperBound {
            // A listing is in order, so the object lies in a directory that is not its own.
            addStranger(name)
        } else if number == last.upperBound {
            timelines[index].segmentConflicts.insert(number)
        } else if number == last.upperBound + 1 {
            timelines[index].runs[timelines[index].runs.count - 1] = last.lowerBound...number
        } else {
            timelines[index].runs.append(number...number)
        }
    }

    private mutating func index(of id: TimelineID) -> Int {
        if let last = timelines.last, last.id == id { return timelines.count - 1 }
        let position = timelines.firstIndex { $0.id >= id } ?? timelines.count
        if position == timelines.count || timelines[position].id != id {
            timelines.insert(Timeline(id: id), at: position)
        }
        return position
    }
}

extension WALInventory.Timeline {
    fileprivate func union(_ other: WALInventory.Timeline) -> WALInventory.Timeline {
        var union = self
        union.runs = []
        for run in (runs + other.runs).sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = union.runs.last, run.lowerBound <= last.upperBound + 1 {
                union.runs[union.runs.count - 1] = last.lowerBound...max(last.upperBound, run.upperBound)
            } else {
                union.runs.append(run)
            }
        }
        union.partials = partials.union(other.partials)
        union.segmentConflicts = segmentConflicts.union(other.segmentConflicts).filter {
            !hasOne($0) && !other.hasOne($0)
        }
        union.partialConflicts = partialConflicts.union(other.partialConflicts).filter {
            !hasOnePartial($0) && !other.hasOnePartial($0)
        }
        union.storedBytes = storedBytes.addingReportingOverflow(other.storedBytes).partialValue
        return union
    }

    private func hasOne(_ number: UInt64) -> Bool { contains(number) && !segmentConflicts.contains(number) }

    private func hasOnePartial(_ number: UInt64) -> Bool {
        partials.contains(number) && !partialConflicts.contains(number)
    }

    fileprivate mutating func remove(_ number: UInt64, isPartial: Bool) {
        partials.remove(number)
        guard !isPartial, let index = runs.firstIndex(where: { $0.contains(number) }) else { return }
        let run = runs[index]
        var parts: [ClosedRange<UInt64>] = []
        if run.lowerBound < number { parts.append(run.lowerBound...number - 1) }
        if number < run.upperBound { parts.append(number + 1...run.upperBound) }
        runs.replaceSubrange(index...index, with: parts)
    }
}

// Gaps in the archived WAL that somebody knows of: expire left them, or a person acknowledged that what is missing is
// lost. `info` does not warn of them. What archive-push gave up is noted here too, and that `info` does tell, until
// somebody acknowledges it. Which moments can be reached is computed from what is there, whatever this says.

import KedgeCodec
package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// A run of segments that need not be there.
package struct KnownGap: Hashable, Sendable {
    package enum Reason: String, Sendable {
        /// No backup that is kept needs them.
        case expired
        /// They are lost, and somebody knows.
        case acknowledged
        /// `archive-queue-limit` was exceeded, and `archive-push` gave them up. `info` does tell of these.
        case givenUp = "given-up"
    }

    package var systemIdentifier: SystemIdentifier
    package var timeline: TimelineID
    package var numbers: ClosedRange<UInt64>
    package var reason: Reason
    /// By the clock of the host that wrote it.
    package var createdAt: Timestamp
    package var hostName: String
    package var createdBy: String

    package init(
        systemIdentifier: SystemIdentifier, timeline: TimelineID, numbers: ClosedRange<UInt64>, reason: Reason,
        createdAt: Timestamp, hostName: String, createdBy: String = Version.writer
    ) {
        self.systemIdentifier = systemIdentifier
        self.timeline = timeline
        self.numbers = numbers
        self.reason = reason
        self.createdAt = createdAt
        self.hostName = hostName
        self.createdBy = createdBy
    }

    private func file(_ number: UInt64, _ segmentSize: UInt64) -> String {
        WALSegment(timeline: timeline, number: number).fileName(segmentSize: segmentSize)
    }

    /// The relative name of its object.
    package func name(segmentSize: UInt64) -> ObjectName? {
        let (first, last) = (file(numbers.lowerBound, segmentSize), file(numbers.upperBound, segmentSize))
        // Somebody may acknowledge the very same run later.
        let end = reason == .givenUp ? "-\(reason.rawValue)" : ""
        return ClusterLayout.gaps.appending("\(systemIdentifier)/\(first)-\(last)\(end)")
    }

    package func jsonValue(segmentSize: UInt64) -> JSONValue {
        [
            "kedge": "gap", "systemIdentifier": .string(systemIdentifier.description),
            "first": .string(file(numbers.lowerBound, segmentSize)),
            "last": .string(file(numbers.upperBound, segmentSize)), "reason": .string(reason.rawValue),
            "createdAt": .string(createdAt.description), "hostName": .string(hostName),
            "createdBy": .string(createdBy),
        ]
    }

    /// The gap that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord, segmentSize: UInt64) throws(KedgeError) {
        try record.expectType("gap")
        systemIdentifier = try record.parsed("systemIdentifier") { SystemIdentifier($0) }
        let first = try record.parsed("first") { WALSegment(fileName: $0, segmentSize: segmentSize) }
        let last = try record.parsed("last") { WALSegment(fileName: $0, segmentSize: segmentSize) }
        guard first.timeline == last.timeline, first.number <= last.number else {
            throw record.invalid("last", "does not follow \"first\" on its timeline")
        }
        timeline = first.timeline
        numbers = first.number...last.number
        reason = try record.parsed("reason") { Reason(rawValue: $0) }
        createdAt = try record.parsed("createdAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        createdBy = try record.string("createdBy")
    }
}

extension WALArchive {
    /// Stores a gap; one that is there already is left.
    package func put(_ gap: KnownGap) throws(KedgeError) {
        guard let name = gap.name(segmentSize: registration.walSegmentSize) else { return }
        try cluster.putRecord(gap.jsonValue(segmentSize: registration.walSegmentSize), .gap, name)
    }

    /// The gaps of this system that somebody knows of. One that can't be read hides nothing, and is left out.
    package func knownGaps() throws(KedgeError) -> [KnownGap] {
        guard let directory = ClusterLayout.gaps.appending(registration.systemIdentifier.description) else { return [] }
        var names: [ObjectName] = []
        try cluster.forEachObject(below: directory) { (name, _) throws(KedgeError) in names.append(name) }
        var gaps: [KnownGap] = []
        for name in names {
            do throws(KedgeError) {
                let record = try cluster.readRecord(.gap, name, what: "gap \"\(name.lastComponent)\"").record
                let gap = try KnownGap(record, segmentSize: registration.walSegmentSize)
                if gap.name(segmentSize: registration.walSegmentSize) == name { gaps.append(gap) }
            } catch {
                guard error.code.isAboutTheObject else { throw error }
            }
        }
        return gaps
    }
}

extension WALInventory.Timeline {
    /// The gaps less what is known to be missing.
    func gaps(unless known: [KnownGap]) -> [ClosedRange<UInt64>] {
        WALInventory.remainder(of: gaps, without: known.filter { $0.timeline == id }.map(\.numbers))
    }
}

extension WALInventory {
    /// What `archive-push` gave up, is not there, and nobody has acknowledged: runs of numbers with the record of each.
    func givenUp(_ known: [KnownGap]) -> [(gap: KnownGap, missing: [ClosedRange<UInt64>])] {
        known.filter { $0.reason == .givenUp }.compactMap { gap in
            let settled = known.filter { $0.reason != .givenUp && $0.timeline == gap.timeline }.map(\.numbers)
            let there = timeline(gap.timeline)?.runs ?? []
            let missing = WALInventory.remainder(of: [gap.numbers], without: settled + there)
            return missing.isEmpty ? nil : (gap, missing)
        }
    }

    /// The numbers of `ranges` that lie in none of `others`.
    static func remainder(
        of ranges: [ClosedRange<UInt64>], without others: [ClosedRange<UInt64>]
    ) -> [ClosedRange<UInt64>] {
        let others = others.sorted { $0.lowerBound < $1.lowerBound }
        var left: [ClosedRange<UInt64>] = []
        for range in ranges {
            var next = range.lowerBound
            for other in others where other.upperBound >= next && other.lowerBound <= range.upperBound {
                if other.lowerBound > next { left.append(next...other.lowerBound - 1) }
                next = other.upperBound + 1
                if next > range.upperBound { break }
            }
            if next <= range.upperBound { left.append(next...range.upperBound) }
        }
        return left
    }
}

/// `kedge info --acknowledge-gap`: somebody knows that a segment is lost.
package enum GapAcknowledgement {
    /// Acknowledges the gap that `file`, a segment's name, lies in: between two segments of its timeline, behind the
    /// last of them where a backup shows that there was more, or given up by `archive-push` anywhere. Returns the names
    /// of its first and last segment.
    ///
    /// Throws `usage` where this is no segment's name, `not-found` where it lies in no gap, and what a survey throws.
    package static func acknowledge(
        _ file: String, in cluster: ClusterRepository, hostName: String, time: any TimeSource,
        interruption: Interruption
    ) throws(KedgeError) -> (first: String, last: String) {
        let registration = cluster.newestRegistration
        let size = registration.walSegmentSize
        guard let segment = WALSegment(fileName: file, segmentSize: size) else {
            throw KedgeError(
                .usage, "cannot use \"\(file)\" as the name of a WAL segment",
                hint: "Give the name that \"kedge info\" shows, 24 hexadecimal digits.")
        }
        let info = try RepositorySurvey(cluster: cluster, interruption: interruption).run()
        var gaps: [ClosedRange<UInt64>] = []
        if let archived = info.inventory.timeline(segment.timeline) {
            gaps = archived.gaps + [info.missingBehindEnd(of: archived)].compactMap(\.self)
        }
        // The first or last of a timeline that were given up: no segment shows that they are missing, but a record.
        for (gap, missing) in info.inventory.givenUp(info.knownGaps) where gap.timeline == segment.timeline {
            gaps += missing
        }
        guard let gap = gaps.first(where: { $0.contains(segment.number) }) else {
            throw KedgeError(
                .notFound, "could not find a gap at WAL segment \"\(file)\"",
                detail: "Repository \"\(cluster.repository.name)\" holds that segment, or nothing before it on its "
                    + "timeline, or nothing that shows that it existed.",
                hint: "Run \"kedge info\" to see which segments are missing.")
        }
        try WALArchive(cluster, registration).put(
            KnownGap(
                systemIdentifier: registration.systemIdentifier, timeline: segment.timeline, numbers: gap,
                reason: .acknowledged, createdAt: time.now(), hostName: hostName))
        func name(_ number: UInt64) -> String {
            WALSegment(timeline: segment.timeline, number: number).fileName(segmentSize: size)
        }
        return (name(gap.lowerBound), name(gap.upperBound))
    }
}

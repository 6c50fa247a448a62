// Knowledge of WAL from a repository: the facts that were sealed into each file when it was archived, and, for the few
// segments that decide, the file itself.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres
import KedgeRepository

/// Facts and details of the WAL of one database system. Of each file the first archive that has a good copy is asked,
/// as `archive-get` does. Used by one thread at a time.
package final class ArchiveKnowledge: WALKnowledge {
    private let archives: [WALArchive]
    private let registration: Registration
    private let version: PostgresVersion
    private let histories: [TimelineID: TimelineHistory]
    private let threads: Int
    /// Facts of the last segments that were asked for: neighbours are needed in pairs.
    private var recent: [(link: WALLink, facts: WALFacts?, open: LSN?)] = []

    /// `archives`, at least one, are of the same system and `histories` are theirs. Throws `not-supported` for a
    /// PostgreSQL version that kedge does not know.
    package init(
        _ archives: [WALArchive], histories: [TimelineID: TimelineHistory], threads: Int
    ) throws(KedgeError) {
        precondition(!archives.isEmpty, "knowledge comes from an archive")
        registration = archives[0].registration
        guard let version = PostgresVersion(rawValue: registration.postgresVersion) else {
            throw KedgeError(
                .notSupported, "cannot read the WAL of PostgreSQL \(registration.postgresVersion)",
                hint: "Use the kedge version that wrote it, or a newer one.")
        }
        self.archives = archives
        self.version = version
        self.histories = histories
        self.threads = threads
    }

    package func summary(of link: WALLink) throws(KedgeError) -> WALSummary {
        guard let facts = try known(link).facts else {
            return WALSummary(unknown: "it was not understood when it was archived")
        }
        var summary = WALSummary(lastRecord: facts.walk.lastRecord, ending: try ending(of: facts, link))
        add(facts.events, to: &summary)
        guard let previous = try previous(of: link) else { return summary }
        if summary.lastRecord == nil, facts.walk.end != nil { summary.lastRecord = previous.open }
        guard let earlier = previous.facts else { return summary }
        switch WALFacts.straddling(earlier, facts, version: version) {
        case .nothing: break
        case .events(let events):
            add(events, to: &summary)
            if events.hasMinimalWAL {
                summary.ending = WALSummary.Ending(
                    lsn: previous.open ?? facts.startLSN, isDamage: true, reason: WALFacts.minimalWALReason)
            }
        case .unknown: summary.unknown = "the record that crosses its beginning is too large for its facts"
        case .mismatch:
            let lsn = previous.open ?? facts.startLSN
            summary.ending = WALSummary.Ending(lsn: lsn, isDamage: true)
        }
        return summary
    }

    private func add(_ events: WALEvents, to summary: inout WALSummary) {
        if let earliest = events.earliestTime, let latest = events.latestTime {
            let times = summary.times ?? earliest...latest
            summary.times = min(times.lowerBound, earliest)...max(times.upperBound, latest)
        }
        if let ended = events.endedTransactions {
            let whole = TransactionIDSet.Run(first: ended.oldest, length: (ended.newest &- ended.oldest) &+ 1)
            summary.transactions += ended.runs ?? [whole]
        }
        summary.restorePoints += events.restorePoints
        summary.tablespaces += events.tablespaces
        if events.restorePointsOmitted + events.tablespacesOmitted > 0 {
            summary.unknown = "it holds more restore points or tablespaces than its facts list"
        }
    }

    /// Where replay of the segment ends early. With `archive_mode = always` a standby archives the last segment of a
    /// timeline that was left under its full name, though it is filled only up to the switch: that is no damage.
    private func ending(of facts: WALFacts, _ link: WALLink) throws(KedgeError) -> WALSummary.Ending? {
        if facts.events.hasMinimalWAL {
            let minimal = try inFirstArchive { (archive) throws(KedgeError) in
                try archive.minimalWAL(in: find(link, in: archive), facts)
            }
            // The walk has got there: what is damaged lies behind it.
            if let minimal { return WALSummary.Ending(lsn: minimal.lsn, isDamage: true, reason: minimal.reason) }
        }
        guard let defect = facts.walk.defect else { return nil }
        let isLeftThere = histories.values.contains { history in
            history.limit(of: facts.timeline).map { $0 >= facts.startLSN && $0 <= defect.lsn } ?? false
        }
        return WALSummary.Ending(lsn: defect.lsn, isDamage: !facts.isPartial && !isLeftThere)
    }

    package func detail(of link: WALLink, upTo limit: LSN) throws(KedgeError) -> WALDetail {
        let bytes = try inFirstArchive { (archive) throws(KedgeError) in
            try archive.read(find(link, in: archive), threads: threads).bytes
        }
        guard UInt64(bytes.count) == registration.walSegmentSize else {
            return WALDetail(events: [], lastRecord: nil, unknown: "it has not the size of a segment")
        }
        let format = WALFormat(
            systemIdentifier: registration.systemIdentifier, version: version,
            segmentSize: UInt32(registration.walSegmentSize), walBlockSize: registration.walBlockSize)
        var visitor = BoundedVisitor(list: WALEventList(version: version), limit: limit)
        let walk = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALReader.walk(bytes, segment: link.segment, format: format, visitor: &visitor)
        }
        var list = WALEventList(version: version)
        var unknown: String?
        var lastRecord = visitor.lastRecord
        if let previous = try previous(of: link), let later = try known(link).facts {
            if lastRecord == nil, walk.continued != nil, let end = walk.end, end <= limit || walk.lastRecord == nil {
                lastRecord = previous.open
            }
            switch previous.facts.map({ WALFacts.straddling($0, later, version: version) }) {
            case .events(let events)?: list.add(events)
            case .unknown?: unknown = "the record that crosses its beginning is too large for its facts"
            case .nothing?, .mismatch?, nil: break
            }
        }
        return WALDetail(
            events: list.events + visitor.list.events, tablespaces: list.tablespaces + visitor.list.tablespaces,
            lastRecord: lastRecord, unknown: unknown)
    }

    /// Takes the records that end at the limit or before.
    private struct BoundedVisitor: WALRecordVisitor {
        var list: WALEventList
        let limit: LSN
        var lastRecord: LSN?

        mutating func visit(_ record: WALRecord) -> String? {
            // A record that begins before the limit ends there at the latest: limits lie between two records.
            guard record.lsn < limit else { return nil }
            lastRecord = record.lsn
            return list.visit(record)
        }
    }

    // MARK: - Facts

    private func previous(of link: WALLink) throws(KedgeError) -> (facts: WALFacts?, open: LSN?)? {
        guard let previous = link.previous, previous.number + 1 == link.segment.number else { return nil }
        return try known(WALLink(segment: previous, previous: nil))
    }

    /// A segment's facts, and where the record begins that it leaves open at its end.
    private func known(_ link: WALLink) throws(KedgeError) -> (facts: WALFacts?, open: LSN?) {
        let found = recent.first { $0.link.segment == link.segment && $0.link.isPartial == link.isPartial }
        if let found { return (found.facts, found.open) }
        let facts = try inFirstArchive { (archive) throws(KedgeError) in
            try archive.facts(of: find(link, in: archive)).segment
        }
        var open = facts?.walk.unfinished?.lsn
        if open == nil, let facts, facts.walk.remaining > 0, let previous = link.previous {
            // A record longer than a segment runs through this one.
            open = recent.first { $0.link.segment == previous }?.open
        }
        if recent.count == 4 { recent.removeFirst() }
        recent.append((link, facts, open))
        return (facts, open)
    }

    /// What the first archive says that can. Throws what is wrong in the first that has the file, else in the first.
    private func inFirstArchive<Result>(
        _ body: (WALArchive) throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        var failure: KedgeError?
        for archive in archives {
            do throws(KedgeError) {
                return try body(archive)
            } catch {
                guard archives.count > 1, error.code != .interrupted else { throw error }
                if failure == nil || failure?.code == .notFound { failure = error }
            }
        }
        throw failure ?? KedgeError(.defect, "there is no archive to read", hint: "Report this.")
    }

    private func find(_ link: WALLink, in archive: WALArchive) throws(KedgeError) -> ArchivedFile {
        let name = link.segment.fileName(segmentSize: archive.registration.walSegmentSize)
        let file: WALFileName = link.isPartial ? .partial(name + ".partial") : .segment(name)
        let found = try archive.find(file)
        guard found.count == 1 else {
            throw KedgeError(
                found.isEmpty ? .notFound : .archiveConflict,
                "could not read archived WAL file \"\(file.text)\"",
                detail: found.isEmpty
                    ? "It was listed a moment ago and is gone now."
                    : "Several different files of that name are archived.",
                hint: found.isEmpty
                    ? "Check that nothing else removes files from the repository."
                    : "Run \"kedge info\" to see what is archived, and choose another backup or timeline.")
        }
        return found[0]
    }
}

// `<timeline>.history`: the ancestors of a timeline and where each was left
// (src/backend/access/transam/timeline.c, readTimeLineHistory).
//
// Timelines form a tree. The history of one is the path from the root to it: each ancestor with the LSN at which the
// next one branched off. The last timeline of the path is the file's own and has no end.
package import KedgeCore

/// A timeline and its ancestors.
package struct TimelineHistory: Hashable, Sendable {
    /// One timeline of the path, and the stretch of WAL that belongs to it.
    package struct Entry: Hashable, Sendable {
        package let timeline: TimelineID
        /// Where it branched off its parent; `.invalid` for the first.
        package let begin: LSN
        /// Where the next one branched off, as the file says. Nil for the last.
        package let end: LSN?
        /// The first byte that is no longer part of this history: `end`, or where a later timeline of the path was
        /// left, if that lies before it. Nil for the last.
        ///
        /// A server that recovered along timeline 2 to a point before 2 began names 2 as the parent all the same
        /// (xlog.c, writeTimeLineHistory(newTLI, recoveryTargetTLI, …)): "1 0/300, 2 0/200" means that timeline 1 ends
        /// at 0/200 for it.
        package fileprivate(set) var limit: LSN?

        package init(timeline: TimelineID, begin: LSN, end: LSN?) {
            self.timeline = timeline
            self.begin = begin
            self.end = end
            limit = end
        }
    }

    /// Oldest first; the last is `timeline`.
    package let entries: [Entry]

    /// The timeline whose history this is.
    package var timeline: TimelineID { entries[entries.count - 1].timeline }

    /// A timeline without ancestors: 1, or any that has no history file.
    package init(root timeline: TimelineID) {
        entries = [Entry(timeline: timeline, begin: .invalid, end: nil)]
    }

    /// The history of `timeline` that branched off `ancestors`, oldest first, each left at its `switchPoint`.
    ///
    /// Throws `walInvalid` unless the timelines increase up to `timeline`.
    package init(
        timeline: TimelineID, ancestors: [(timeline: TimelineID, switchPoint: LSN)]
    ) throws(KedgeError) {
        var entries: [Entry] = []
        for ancestor in ancestors {
            if let last = entries.last, ancestor.timeline <= last.timeline {
                throw TimelineHistory.invalid(
                    timeline, "Timeline \(ancestor.timeline) follows timeline \(last.timeline), but they must increase."
                )
            }
            entries.append(
                Entry(
                    timeline: ancestor.timeline, begin: entries.last?.end ?? .invalid, end: ancestor.switchPoint))
        }
        if let last = entries.last, last.timeline >= timeline {
            throw TimelineHistory.invalid(
                timeline, "It lists timeline \(last.timeline), which is not older than the file's own.")
        }
        entries.append(Entry(timeline: timeline, begin: entries.last?.end ?? .invalid, end: nil))
        for index in entries.indices.dropLast().reversed() {
            entries[index].limit = [entries[index].end, entries[index + 1].limit].compactMap { $0 }.min()
        }
        self.entries = entries
    }

    /// The largest history file that is read: 64 bytes a promotion and free text leave room for thousands.
    package static let maximumFileSize = 1 << 20

    /// Parses the content of `timeline`'s history file.
    ///
    /// A line is a timeline, white space, an LSN, and free text up to the end of the line (the reason); empty lines and
    /// comments (`#`) are skipped. Throws `walInvalid` with the line's number for anything else, and where a timeline
    /// above 1 has no parent.
    package init(parsing bytes: [UInt8], timeline: TimelineID) throws(KedgeError) {
        guard bytes.count <= TimelineHistory.maximumFileSize else {
            throw TimelineHistory.invalid(
                timeline, "It has \(bytes.count) bytes, which is more than any server writes.")
        }
        var ancestors: [(timeline: TimelineID, switchPoint: LSN)] = []
        for (index, line) in bytes.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated() {
            let fields = line.split(maxSplits: 2) { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }
                .map { String(decoding: $0, as: UTF8.self) }
            guard let first = fields.first, !first.hasPrefix("#") else { continue }
            guard fields.count >= 2, first.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = UInt32(first), number > 0, let switchPoint = LSN(fields[1])
            else {
                throw TimelineHistory.invalid(
                    timeline, "Line \(index + 1) is not a timeline number followed by an LSN.")
            }
            ancestors.append((TimelineID(number), switchPoint))
        }
        // A server writes it for a timeline that branched off another, and for no other (xlog.c,
        // writeTimeLineHistory); an empty one would take the name for ever.
        guard !ancestors.isEmpty || timeline == TimelineID(1) else {
            throw TimelineHistory.invalid(timeline, "It names no timeline that this one branched off.")
        }
        try self.init(timeline: timeline, ancestors: ancestors)
    }

    private static func invalid(_ timeline: TimelineID, _ detail: String) -> KedgeError {
        KedgeError(
            .walInvalid, "cannot read timeline history file \"\(timeline.hex).history\"", detail: detail,
            hint: "Compare it with the copy in pg_wal of a server on that timeline; the right one has to be archived.")
    }

    // MARK: Asking

    /// Whether `timeline` is this one or one of its ancestors.
    package func contains(_ timeline: TimelineID) -> Bool { entries.contains { $0.timeline == timeline } }

    /// The timeline whose WAL holds the record that begins at `lsn`, seen from this one (tliOfPointInHistory).
    ///
    /// Newest first, as the server does: a parent may have been left before its own start (`Entry.limit`).
    package func timeline(containing lsn: LSN) -> TimelineID {
        let entry = entries.last { entry in entry.begin <= lsn && lsn < entry.end ?? LSN(.max) }
        return entry?.timeline ?? timeline
    }

    /// Where `timeline` was left for the next one. Nil for the last of the path, and for one that is not on it.
    package func switchPoint(leaving timeline: TimelineID) -> LSN? {
        entries.first { $0.timeline == timeline }?.end
    }

    /// The first byte of `timeline` that is no longer part of this history (`Entry.limit`). Nil for the last of the
    /// path, and for one that is not on it.
    package func limit(of timeline: TimelineID) -> LSN? { entries.first { $0.timeline == timeline }?.limit }

    /// Whether the WAL up to `lsn` on `timeline` is part of this history: the timeline is on the path and was not left
    /// before `lsn`, nor was any after it. So a backup that stopped there can be recovered along this history; of any
    /// other the server says that the timeline "is not a child of this server's history".
    package func contains(_ timeline: TimelineID, upTo lsn: LSN) -> Bool {
        guard let entry = entries.first(where: { $0.timeline == timeline }) else { return false }
        return lsn > entry.begin && lsn <= entry.limit ?? LSN(.max)
    }
}

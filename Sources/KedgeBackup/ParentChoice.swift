// Full or delta, and on which parent: a pure decision about commit records.
//
// The parent is the newest backup along the server's ancestry, full or delta: a manifest is complete, so a chain has no
// length that a restore would feel. What must fit for its pages to be told apart by their LSNs is asked of that one
// alone; a parent that does not serve means a full backup, never an older parent that happens to be in better shape.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// Which type of backup is wanted.
package enum BackupRequest: Hashable, Sendable {
    case full
    /// A delta; full only where there is nothing to build on.
    case delta
    /// A delta, but a full one when the last full backup began this long ago, or nearly so (see
    /// `ParentChoice.earlySeconds`).
    case auto(fullEvery: Duration)
}

/// What a backup will be.
package struct ParentChoice: Hashable, Sendable {
    /// Nil: a full backup.
    package var parent: Label?
    /// Why, as a sentence without its full stop.
    package var reason: String
    /// A delta was wanted, or would have been taken, and could not be.
    package var isFallback: Bool

    package init(parent: Label?, reason: String, isFallback: Bool) {
        self.parent = parent
        self.reason = reason
        self.isFallback = isFallback
    }

    /// A full backup in place of a delta.
    package static func fallback(_ reason: String) -> ParentChoice {
        ParentChoice(parent: nil, reason: reason, isFallback: true)
    }

    /// The server that is about to be backed up.
    package struct Server: Hashable, Sendable {
        package var systemIdentifier: SystemIdentifier
        package var postgresVersion: Int
        package var dataChecksums: Bool
        package var blockSize: UInt32
        package var walSegmentSize: UInt64
        package var relationSegmentBlocks: UInt32
        /// The ancestry of its present timeline.
        package var history: TimelineHistory
        /// Its present WAL position and its clock.
        package var lsn: LSN
        package var time: Timestamp

        package init(
            systemIdentifier: SystemIdentifier, postgresVersion: Int, dataChecksums: Bool, blockSize: UInt32,
            walSegmentSize: UInt64, relationSegmentBlocks: UInt32, history: TimelineHistory, lsn: LSN, time: Timestamp
        ) {
            self.systemIdentifier = systemIdentifier
            self.postgresVersion = postgresVersion
            self.dataChecksums = dataChecksums
            self.blockSize = blockSize
            self.walSegmentSize = walSegmentSize
            self.relationSegmentBlocks = relationSegmentBlocks
            self.history = history
            self.lsn = lsn
            self.time = time
        }
    }

    /// Decides. `backups` are all that are committed, of any system and timeline, `condemned` those about to be
    /// removed.
    package static func decide(
        _ request: BackupRequest, backups: [CommitRecord], condemned: Set<Label>, server: Server
    ) -> ParentChoice {
        if request == .full { return ParentChoice(parent: nil, reason: "it was asked for", isFallback: false) }
        let own = backups.filter { $0.server.systemIdentifier == server.systemIdentifier }
        let ancestral = own.filter { $0.lies(on: server.history) && $0.span.stopLSN <= server.lsn }
            .sorted { ($0.span.stopLSN, $0.label) < ($1.span.stopLSN, $1.label) }
        guard let newest = ancestral.last else {
            if own.isEmpty {
                // The first backup of all is no surprise to whoever leaves the choice to us.
                return ParentChoice(
                    parent: nil, reason: "the repository has no backup of this database system yet",
                    isFallback: request == .delta)
            }
            return fallback(
                "no backup in the repository lies on the history of timeline \(server.history.timeline) up to "
                    + "LSN \(server.lsn)")
        }
        if case .auto(let interval) = request, let reason = due(ancestral, interval, server.time) {
            return ParentChoice(parent: nil, reason: reason, isFallback: false)
        }
        if condemned.contains(newest.label) {
            return fallback("the newest backup, \(newest.label), is about to be removed")
        }
        if let difference = difference(newest, server) {
            return fallback("backup \(newest.label) cannot be its parent: \(difference)")
        }
        return ParentChoice(
            parent: newest.label, reason: "it builds on backup \(newest.label)", isFallback: false)
    }

    /// How much too early a run may be for a full backup to be due in it: two hours. A timer has its jitter, and once a
    /// year the clocks go forward by an hour; else the full backup would come a whole run too late.
    ///
    /// But never more than half the time since the last backup: where backups are frequent, the next run is nearer.
    package static let earlySeconds: Int64 = 2 * 3600

    /// Why a full backup is due; nil where it is not.
    private static func due(_ backups: [CommitRecord], _ interval: Duration, _ now: Timestamp) -> String? {
        guard let last = backups.last(where: { $0.type == .full }) else {
            return "there is no full backup on the history of this timeline"
        }
        let limit = interval.components.seconds
        let (age, overflow) = now.microseconds.subtractingReportingOverflow(last.span.startTime.microseconds)
        if overflow || age < 0 {
            return "the last full backup, \(last.label), began at \(last.span.startTime), ahead of the server's clock"
        }
        let newest = backups.map(\.span.startTime).max() ?? last.span.startTime
        let (gap, gapOverflow) = now.microseconds.subtractingReportingOverflow(newest.microseconds)
        let early = gapOverflow ? 0 : min(earlySeconds, max(0, gap / 2_000_000))
        guard age / 1_000_000 >= limit - early else { return nil }
        return "the last full backup, \(last.label), began at \(last.span.startTime), and full-every "
            + (age / 1_000_000 >= limit ? "has passed" : "will have passed long before the next backup")
    }

    /// In what the parent differs so that its pages can't be told apart from those of now.
    private static func difference(_ parent: CommitRecord, _ server: Server) -> String? {
        let then = parent.server
        if then.fromStandby { return "it was taken from a standby" }
        if then.postgresVersion != server.postgresVersion {
            return "it is one of PostgreSQL \(then.postgresVersion), not \(server.postgresVersion)"
        }
        if then.dataChecksums != server.dataChecksums {
            return "data checksums were \(then.dataChecksums ? "on" : "off") then"
        }
        if then.blockSize != server.blockSize { return "its blocks have \(then.blockSize) bytes" }
        if then.walSegmentSize != server.walSegmentSize {
            return "its WAL segments have \(then.walSegmentSize) bytes"
        }
        if then.relationSegmentBlocks != server.relationSegmentBlocks {
            return "its relation files have \(then.relationSegmentBlocks) blocks"
        }
        return nil
    }
}

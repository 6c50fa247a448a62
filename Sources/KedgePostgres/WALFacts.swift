// What was learned from one WAL segment: enough to plan a recovery without reading the WAL again.
//
// Invariants
// 1. Facts speak of whole records with a fitting CRC only. The record that crosses the border to the next segment is in
//    neither segment's events: `straddling(_:_:)` joins the halves that both keep.
// 2. Transaction ends are what a recovery target of time or xid can stop at: commits and aborts, of plain and of
//    prepared transactions (src/backend/access/transam/xlogrecovery.c, recoveryStopsBefore, recoveryStopsAfter).
//    Commits are what a user looks for, so they are kept apart as well.
// 3. Clocks are not monotonic in WAL: recovery to a time stops at the first transaction end beyond it, so the earliest
//    and the latest time are kept besides the first and the last in WAL order.
// 4. The size of a record is bounded (about 64 KiB); what is left out for that is counted, never silently dropped.
package import KedgeCore

/// The end of one transaction.
package struct TransactionEnd: Hashable, Sendable {
    /// Where its record begins: with this as an inclusive LSN target the transaction is in.
    package let lsn: LSN
    /// By the database server's clock.
    package let time: Timestamp
    /// The transaction's own id, for a prepared one too. 0 where it had none.
    package let xid: UInt32

    package init(lsn: LSN, time: Timestamp, xid: UInt32) {
        self.lsn = lsn
        self.time = time
        self.xid = xid
    }
}

/// A named restore point (pg_create_restore_point).
package struct RestorePoint: Hashable, Sendable {
    package let lsn: LSN
    package let time: Timestamp
    /// In the encoding of the database that made it; at most 63 bytes.
    package let name: RawPath

    package init(lsn: LSN, time: Timestamp, name: RawPath) {
        self.lsn = lsn
        self.time = time
        self.name = name
    }
}

/// A tablespace that replaying the WAL would create.
package struct CreatedTablespace: Hashable, Sendable {
    package let lsn: LSN
    package let oid: UInt32
    /// Where it would be made; empty for an in-place one.
    package let path: RawPath

    package init(lsn: LSN, oid: UInt32, path: RawPath) {
        self.lsn = lsn
        self.oid = oid
        self.path = path
    }
}

/// A checkpoint record.
package struct CheckpointRecord: Hashable, Sendable {
    package let lsn: LSN
    package let redo: LSN
    package let timeline: TimelineID
    package let isShutdown: Bool
    package let time: Timestamp

    package init(lsn: LSN, redo: LSN, timeline: TimelineID, isShutdown: Bool, time: Timestamp) {
        self.lsn = lsn
        self.redo = redo
        self.timeline = timeline
        self.isShutdown = isShutdown
        self.time = time
    }
}

/// The end of a recovery on a new timeline: its first record. After a promotion that somebody asked for it is an
/// END_OF_RECOVERY record, at a recovery target a shutdown checkpoint that names another timeline before it.
package struct EndOfRecovery: Hashable, Sendable {
    package let lsn: LSN
    package let time: Timestamp
    package let timeline: TimelineID
    package let previousTimeline: TimelineID

    package init(lsn: LSN, time: Timestamp, timeline: TimelineID, previousTimeline: TimelineID) {
        self.lsn = lsn
        self.time = time
        self.timeline = timeline
        self.previousTimeline = previousTimeline
    }
}

/// What happened in a stretch of WAL.
package struct WALEvents: Hashable, Sendable {
    /// Commits, and aborts, of plain and prepared transactions.
    package var commits = 0
    package var aborts = 0
    /// In WAL order.
    package var firstCommit: TransactionEnd?
    package var lastCommit: TransactionEnd?
    /// In WAL order; commits and aborts.
    package var firstEnd: TransactionEnd?
    package var lastEnd: TransactionEnd?
    /// The lowest and the highest time of any transaction end.
    package var earliestTime: Timestamp?
    package var latestTime: Timestamp?
    /// The ids of all transactions that end here.
    package var endedTransactions: TransactionIDSet?
    package var restorePoints: [RestorePoint] = []
    /// How many more there are that are not listed.
    package var restorePointsOmitted = 0
    package var tablespaces: [CreatedTablespace] = []
    package var tablespacesOmitted = 0
    package var checkpoints = 0
    package var lastCheckpoint: CheckpointRecord?
    package var lastEndOfRecovery: EndOfRecovery?
    /// Whether `wal_level = minimal` was in force at some point: a backup from before it is of no use after it.
    package var hasMinimalWAL = false

    package init() {}
}

/// What was learned from a segment or a partial segment.
package struct WALFacts: Hashable, Sendable {
    /// The format of these facts in records.
    package static let format = 1

    /// As the file's name says.
    package let timeline: TimelineID
    package let startLSN: LSN
    /// A partial segment ends in garbage: its walk's end is not suspect.
    package let isPartial: Bool
    package let walk: WALWalk
    package let events: WALEvents

    package init(timeline: TimelineID, startLSN: LSN, isPartial: Bool, walk: WALWalk, events: WALEvents) {
        self.timeline = timeline
        self.startLSN = startLSN
        self.isPartial = isPartial
        self.walk = walk
        self.events = events
    }

    /// Walks a segment. `bytes` are the whole file; `WALFileCheck` has accepted it.
    ///
    /// What is damaged or not understood ends the walk and shows in `suspect`. Throws `defect` only for another size.
    package init(
        of bytes: UnsafeRawBufferPointer, segment: WALSegment, isPartial: Bool, format: WALFormat
    ) throws(KedgeError) {
        var collector = WALEventCollector(version: format.version)
        walk = try WALReader.walk(bytes, segment: segment, format: format, visitor: &collector)
        events = collector.finish()
        timeline = segment.timeline
        startLSN = LSN(segment.number &* UInt64(format.segmentSize))
        self.isPartial = isPartial
    }

    /// Why the segment can't be trusted from some point on; nil where all is well.
    ///
    /// One innocent cause: with `archive_mode = always` a standby whose primary was promoted archives the old
    /// timeline's last segment under its full name, though it was filled only up to the switch. So a suspect position
    /// at which a history file leaves this timeline, or a later one, is harmless.
    package var suspect: WALWalk.Defect? { isPartial ? nil : walk.defect }

    /// The position after the last record that is known to be whole; the segment's start where there is none.
    package var endLSN: LSN { walk.end ?? startLSN }
}

// MARK: - The record between two segments

extension WALFacts {
    /// What is known of the record that begins in one segment and ends in the next.
    package enum Straddling: Hashable, Sendable {
        /// There is none, or it is one that no recovery target and no plan depends on, or it was given up.
        case nothing
        /// It is whole: what happened in it.
        case events(WALEvents)
        /// It may matter, but was too large for the facts: read both segments to know.
        case unknown
        /// The two segments do not fit each other.
        case mismatch(String)
    }

    /// The events of the record that begins in `earlier` and ends in `later`, the next segment of the same ancestry.
    ///
    /// A record that reaches over more than one border is `unknown` at the first, if it may matter.
    package static func straddling(
        _ earlier: WALFacts, _ later: WALFacts, version: PostgresVersion
    ) -> Straddling {
        // A walk that ended early says nothing about the border.
        if earlier.walk.defect != nil || later.walk.overwritesPrevious { return .nothing }
        let carried = later.walk.continued
        guard earlier.walk.remaining == carried?.remaining ?? 0 else {
            return .mismatch(
                "The segment at \(later.startLSN) carries on a record with \(carried?.remaining ?? 0) bytes left, but "
                    + "\(earlier.walk.remaining) are.")
        }
        // Nothing begun, but bytes carried on: a segment that lies in the middle of a record, which was unknown before.
        guard let begun = earlier.walk.unfinished, let carried else { return .nothing }
        return (begun.bytes + carried.bytes).withUnsafeBytes { bytes in
            join(bytes, at: begun, isWhole: carried.remaining == carried.bytes.count, version: version)
        }
    }

    private static func join(
        _ bytes: UnsafeRawBufferPointer, at begun: WALWalk.Unfinished, isWhole: Bool, version: PostgresVersion
    ) -> Straddling {
        guard bytes.count >= WALRecord.headerSize, let base = bytes.baseAddress else {
            return .mismatch("The record at \(begun.lsn) ends within its header.")
        }
        let record = WALRecord(lsn: begun.lsn, bytes: SpannedBytes(contiguous: base, count: bytes.count))
        guard WALEventCollector.mayHoldEvent(record.header) else { return .nothing }
        guard isWhole, bytes.count == Int(begun.length) else { return .unknown }
        guard record.bytes.recordCRC() == record.header.crc else {
            return .mismatch("The CRC of the record at \(begun.lsn) does not fit its content.")
        }
        var collector = WALEventCollector(version: version)
        if let reason = collector.visit(record) { return .mismatch("At \(begun.lsn): \(reason).") }
        return .events(collector.finish())
    }
}

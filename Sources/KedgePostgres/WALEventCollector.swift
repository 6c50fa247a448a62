// The visitor that turns records into WALEvents. It looks into three resource managers; all other records pass at the
// cost of one comparison.
//
// A record whose CRC fits but whose content does not parse is of a format that is not understood: the walk ends there
// and the segment becomes suspect, rather than an event being lost in silence.
import KedgeCore

struct WALEventCollector: WALRecordVisitor {
    private let version: PostgresVersion
    private var events = WALEvents()
    private var ended = TransactionIDCollector()
    private var restorePointBudget = WALEventCollector.listBytes
    private var tablespaceBudget = WALEventCollector.listBytes

    /// Whether a record with this header may hold an event, without looking at its content.
    static func mayHoldEvent(_ header: WALRecord.Header) -> Bool {
        switch header.resourceManager {
        case WALRecord.ResourceManager.transaction:
            [Operation.commit, Operation.abort, Operation.commitPrepared, Operation.abortPrepared].contains(
                header.info & Operation.mask)
        case WALRecord.ResourceManager.xlog:
            [
                WALRecord.XLOGOperation.checkpointShutdown, WALRecord.XLOGOperation.checkpointOnline,
                WALRecord.XLOGOperation.checkpointRedo, WALRecord.XLOGOperation.parameterChange,
                WALRecord.XLOGOperation.endOfRecovery, WALRecord.XLOGOperation.restorePoint,
            ].contains(header.info & 0xF0)
        case WALRecord.ResourceManager.tablespace: header.info & 0xF0 == createTablespace
        default: false
        }
    }

    /// XLOG_TBLSPC_CREATE (src/include/commands/tablespace.h); a drop is 0x10.
    private static let createTablespace: UInt8 = 0x00

    /// How much of a record each of the two lists may fill; what comes after that is only counted.
    private static let listBytes = 12 << 10

    init(version: PostgresVersion) { self.version = version }

    func finish() -> WALEvents {
        var collector = self
        var events = events
        events.endedTransactions = collector.ended.finish()
        return events
    }

    @inline(__always)
    mutating func visit(_ record: WALRecord) -> String? {
        switch record.header.resourceManager {
        case WALRecord.ResourceManager.transaction: visitTransaction(record)
        case WALRecord.ResourceManager.xlog: visitXLOG(record)
        case WALRecord.ResourceManager.tablespace: visitTablespace(record)
        default: nil
        }
    }

    /// The record's main data, at least `count` bytes of it.
    private func data(_ record: WALRecord, atLeast count: Int) -> MainData? {
        guard let offset = record.mainDataOffset(), record.bytes.count - offset >= count else { return nil }
        return MainData(bytes: record.bytes, offset: offset)
    }

    private struct MainData {
        let bytes: SpannedBytes
        let offset: Int
        var count: Int { bytes.count - offset }

        func load<Number: FixedWidthInteger>(_ at: Int, as type: Number.Type = Number.self) -> Number {
            bytes.load(offset + at, as: type)
        }

        func time(_ at: Int) -> Timestamp? { Timestamp(believable: load(at)) }

        /// The bytes up to a zero byte or the end.
        func text(from start: Int, to end: Int) -> RawPath {
            RawPath(bytes: bytes.copy(offset + start..<offset + end).prefix { $0 != 0 })
        }
    }

    private static func notUnderstood(_ what: String) -> String { "The content of a \(what) record is not understood" }
}

// MARK: - Transactions

extension WALEventCollector {
    /// Operations of the transaction manager (src/include/access/xact.h).
    private enum Operation {
        static let mask: UInt8 = 0x70
        static let commit: UInt8 = 0x00
        static let abort: UInt8 = 0x20
        static let commitPrepared: UInt8 = 0x30
        static let abortPrepared: UInt8 = 0x40
        static let hasInfo: UInt8 = 0x80
    }

    private mutating func visitTransaction(_ record: WALRecord) -> String? {
        let operation = record.header.info & Operation.mask
        let isCommit: Bool
        let isPrepared: Bool
        switch operation {
        case Operation.commit: (isCommit, isPrepared) = (true, false)
        case Operation.commitPrepared: (isCommit, isPrepared) = (true, true)
        case Operation.abort: (isCommit, isPrepared) = (false, false)
        case Operation.abortPrepared: (isCommit, isPrepared) = (false, true)
        default: return nil
        }
        guard let data = data(record, atLeast: 8), let time = data.time(0) else {
            return WALEventCollector.notUnderstood(isCommit ? "commit" : "abort")
        }
        var xid = record.header.xid
        if isPrepared {
            guard record.header.info & Operation.hasInfo != 0, let prepared = preparedXID(data) else {
                return WALEventCollector.notUnderstood(isCommit ? "commit prepared" : "rollback prepared")
            }
            xid = prepared
        }
        note(TransactionEnd(lsn: record.lsn, time: time, xid: xid), isCommit: isCommit)
        return nil
    }

    private mutating func note(_ end: TransactionEnd, isCommit: Bool) {
        if isCommit {
            events.commits += 1
            if events.firstCommit == nil { events.firstCommit = end }
            events.lastCommit = end
        } else {
            events.aborts += 1
        }
        if events.firstEnd == nil { events.firstEnd = end }
        events.lastEnd = end
        events.earliestTime = min(events.earliestTime ?? end.time, end.time)
        events.latestTime = max(events.latestTime ?? end.time, end.time)
        if end.xid != 0 { ended.insert(end.xid) }
    }

    /// The id of the prepared transaction that the record ends: behind lists whose lengths have to be skipped
    /// (src/backend/access/rmgrdesc/xactdesc.c, ParseCommitRecord). Nil where they reach beyond the record.
    private func preparedXID(_ data: MainData) -> UInt32? {
        guard data.count >= 12 else { return nil }
        let present: UInt32 = data.load(8)
        var offset = 12
        // Bit of xinfo, bytes of an item; database and tablespace are a single item without a count.
        let statisticsBytes = version >= .v18 ? 16 : 12
        if present & 1 << 0 != 0 { offset += 8 }
        let lists: [(bit: UInt32, itemBytes: Int)] = [(1, 4), (2, 12), (8, statisticsBytes), (3, 16)]
        for list in lists where present & 1 << list.bit != 0 {
            guard offset + 4 <= data.count else { return nil }
            let (bytes, overflow) = Int(data.load(offset, as: UInt32.self)).multipliedReportingOverflow(
                by: list.itemBytes)
            guard !overflow, bytes <= data.count - offset - 4 else { return nil }
            offset += 4 + bytes
        }
        guard present & 1 << 4 != 0, offset + 4 <= data.count else { return nil }
        return data.load(offset)
    }
}

// MARK: - Restore points, checkpoints, tablespaces

extension WALEventCollector {
    private mutating func visitXLOG(_ record: WALRecord) -> String? {
        switch record.operation {
        case WALRecord.XLOGOperation.checkpointShutdown, WALRecord.XLOGOperation.checkpointOnline:
            visitCheckpoint(record)
        case WALRecord.XLOGOperation.checkpointRedo where version >= .v17:
            noteWALLevel(record, at: 0, "checkpoint redo")
        case WALRecord.XLOGOperation.parameterChange:
            // MaxConnections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact, wal_level
            noteWALLevel(record, at: 20, "parameter change")
        case WALRecord.XLOGOperation.endOfRecovery: visitEndOfRecovery(record)
        case WALRecord.XLOGOperation.restorePoint: visitRestorePoint(record)
        default: nil
        }
    }

    private mutating func noteWALLevel(_ record: WALRecord, at offset: Int, _ what: String) -> String? {
        guard let data = data(record, atLeast: offset + 4), let level = WALLevel(rawValue: data.load(offset)) else {
            return WALEventCollector.notUnderstood(what)
        }
        if level == .minimal { events.hasMinimalWAL = true }
        return nil
    }

    private mutating func visitCheckpoint(_ record: WALRecord) -> String? {
        guard let data = data(record, atLeast: 88) else { return WALEventCollector.notUnderstood("checkpoint") }
        let seconds: Int64 = data.load(64)
        let (timeline, previousTimeline): (UInt32, UInt32) = (data.load(8), data.load(12))
        let redo = LSN(data.load(0))
        guard Timestamp.believableSeconds.contains(seconds), timeline > 0, previousTimeline > 0, redo < LSN.bound else {
            return WALEventCollector.notUnderstood("checkpoint")
        }
        events.checkpoints += 1
        events.lastCheckpoint = CheckpointRecord(
            lsn: record.lsn, redo: redo, timeline: TimelineID(timeline),
            isShutdown: record.operation == WALRecord.XLOGOperation.checkpointShutdown,
            time: Timestamp(secondsSince1970: seconds))
        if previousTimeline != timeline {
            events.lastEndOfRecovery = EndOfRecovery(
                lsn: record.lsn, time: Timestamp(secondsSince1970: seconds), timeline: TimelineID(timeline),
                previousTimeline: TimelineID(previousTimeline))
        }
        return version >= .v17 ? noteWALLevel(record, at: 20, "checkpoint") : nil
    }

    private mutating func visitEndOfRecovery(_ record: WALRecord) -> String? {
        guard let data = data(record, atLeast: 16), let time = data.time(0) else {
            return WALEventCollector.notUnderstood("end of recovery")
        }
        let timelines: (UInt32, UInt32) = (data.load(8), data.load(12))
        guard timelines.0 > 0, timelines.1 > 0 else { return WALEventCollector.notUnderstood("end of recovery") }
        events.lastEndOfRecovery = EndOfRecovery(
            lsn: record.lsn, time: time, timeline: TimelineID(timelines.0), previousTimeline: TimelineID(timelines.1))
        return version >= .v17 ? noteWALLevel(record, at: 16, "end of recovery") : nil
    }

    private mutating func visitRestorePoint(_ record: WALRecord) -> String? {
        // A time and a name of 64 bytes, padded with zeroes (MAXFNAMELEN).
        guard let data = data(record, atLeast: 9), let time = data.time(0) else {
            return WALEventCollector.notUnderstood("restore point")
        }
        let point = RestorePoint(
            lsn: record.lsn, time: time, name: data.text(from: 8, to: min(data.count, 8 + 64)))
        if WALEventCollector.spend(point.name, from: &restorePointBudget) {
            events.restorePoints.append(point)
        } else {
            events.restorePointsOmitted += 1
        }
        return nil
    }

    private mutating func visitTablespace(_ record: WALRecord) -> String? {
        // An oid and a path that ends in a zero byte.
        guard record.operation == WALEventCollector.createTablespace else { return nil }
        guard let data = data(record, atLeast: 5) else {
            return WALEventCollector.notUnderstood("create tablespace")
        }
        let tablespace = CreatedTablespace(
            lsn: record.lsn, oid: data.load(0), path: data.text(from: 4, to: min(data.count, 4 + 4096)))
        if WALEventCollector.spend(tablespace.path, from: &tablespaceBudget) {
            events.tablespaces.append(tablespace)
        } else {
            events.tablespacesOmitted += 1
        }
        return nil
    }

    /// Whether a list entry with this text still fits; takes its size off the budget if so.
    private static func spend(_ text: RawPath, from budget: inout Int) -> Bool {
        // In JSON a control character becomes six bytes (\u0001), any other byte at most two, be it as an escape or in
        // hexadecimal; the other members of an entry need less than 100.
        let cost = text.bytes.reduce(100) { $0 + ($1 < 0x20 ? 6 : 2) }
        guard cost <= budget else { return false }
        budget -= cost
        return true
    }
}

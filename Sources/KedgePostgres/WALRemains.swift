// What a segment that lies in some pg_wal holds, seen by somebody who is about to remove it.
//
// A server renames old segments ahead before it fills them, so most files behind the end of its log hold another
// segment's pages: nothing that their name promises (src/backend/access/transam/xlog.c, RemoveXlogFile). And the last
// one is filled up to some point only. Both are told from their pages alone.
package import KedgeCore

/// The content of a segment, a partial or an unfinished one included, as far as recovery could replay it.
package struct WALRemains: Hashable, Sendable {
    /// The position after the last record that ends in it; its start where there is none.
    package let end: LSN
    /// Whether the log certainly ends at `end`, or fills the segment: behind it there is no page of this segment, and
    /// nothing on the page that it ends on. False where a record is cut or damaged.
    package let endsCleanly: Bool
    /// Whether there is nothing in it but what a server notes for itself: checkpoints, switches, running transactions
    /// and settings. No transaction has done anything, and nobody has set a restore point.
    package let isBookkeeping: Bool

    package init(end: LSN, endsCleanly: Bool, isBookkeeping: Bool) {
        self.end = end
        self.endsCleanly = endsCleanly
        self.isBookkeeping = isBookkeeping
    }

    /// What a file's first page says.
    package enum Origin: Hashable, Sendable {
        /// It is the first page of the segment that the file is named after.
        case own
        /// It is that of another database system.
        case foreign
        /// It is a recycled file's, was never written, or is damaged.
        case other
    }

    /// Judges by the first 40 bytes of a file that is named after `segment`.
    package static func origin(
        _ firstBytes: UnsafeRawBufferPointer, of segment: WALSegment, format: WALFormat
    ) -> Origin {
        guard let header = WALLongHeader(firstBytes) else { return .other }
        guard header.systemIdentifier == format.systemIdentifier else {
            return PostgresVersion(walPageMagic: header.page.magic) == nil ? .other : .foreign
        }
        let start = segment.startLSN(segmentSize: UInt64(format.segmentSize))
        let timelines = 1...max(1, segment.timeline.number)
        return header.page.pageAddress == start && timelines.contains(header.page.timeline) ? .own : .other
    }

    /// Walks a whole segment. Throws `defect` where `bytes` are not as many as a segment has.
    package init(
        of bytes: UnsafeRawBufferPointer, segment: WALSegment, format: WALFormat
    ) throws(KedgeError) {
        var visitor = Visitor()
        let walk = try WALReader.walk(bytes, segment: segment, format: format, visitor: &visitor)
        let start = segment.startLSN(segmentSize: UInt64(format.segmentSize))
        end = walk.end ?? start
        endsCleanly = WALRemains.endsCleanly(bytes, walk, from: start, end: end, pageSize: Int(format.walBlockSize))
        // The rest of a record that began before may be a commit's, and so may what runs on into the next segment.
        isBookkeeping =
            visitor.isBookkeeping && endsCleanly && walk.continued == nil && walk.unfinished == nil
            && !walk.overwritesPrevious
    }

    private struct Visitor: WALRecordVisitor {
        var isBookkeeping = true

        mutating func visit(_ record: WALRecord) -> String? {
            isBookkeeping = isBookkeeping && WALRemains.isBookkeeping(record)
            return nil
        }
    }

    /// Records that a server writes by itself and nobody would miss: a positive list, so that what is not known counts
    /// as somebody's data.
    private static func isBookkeeping(_ record: WALRecord) -> Bool {
        switch record.header.resourceManager {
        case WALRecord.ResourceManager.xlog:
            [
                WALRecord.XLOGOperation.checkpointShutdown, WALRecord.XLOGOperation.checkpointOnline,
                WALRecord.XLOGOperation.checkpointRedo, WALRecord.XLOGOperation.switchSegment,
                WALRecord.XLOGOperation.parameterChange, fullPageWritesChange,
            ].contains(record.operation)
        case standby: record.operation == runningTransactions
        default: false
        }
    }

    /// XLOG_FPW_CHANGE (src/include/catalog/pg_control.h).
    private static let fullPageWritesChange: UInt8 = 0x80
    /// RM_STANDBY_ID and XLOG_RUNNING_XACTS (src/include/storage/standbydefs.h).
    private static let standby: UInt8 = 8
    private static let runningTransactions: UInt8 = 0x10

    private static func endsCleanly(
        _ bytes: UnsafeRawBufferPointer, _ walk: WALWalk, from start: LSN, end: LSN, pageSize: Int
    ) -> Bool {
        guard let base = bytes.baseAddress, let defect = walk.defect else { return true }
        var offset = Int(end - start)
        let stop = Int(defect.lsn - start)
        // Behind the last record there may be the header of a page that holds none yet.
        if offset % pageSize == 0, stop > offset {
            offset += offset == 0 ? WALPageHeader.longSize : WALPageHeader.shortSize
        }
        guard stop == offset else { return false }
        let nextPage = (offset + pageSize - 1) / pageSize * pageSize
        guard bytes[offset..<nextPage].allSatisfy({ $0 == 0 }) else { return false }
        for page in stride(from: nextPage, to: bytes.count, by: pageSize) {
            let address = WALPageHeader(at: base + page).pageAddress
            guard address != LSN(start.position + UInt64(page)) else { return false }
        }
        return true
    }
}

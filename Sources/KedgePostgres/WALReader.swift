// Walks the records of one WAL segment, checking all that the server's own reader checks
// (src/backend/access/transam/xlogreader.c, XLogDecodeNextRecord).
//
// States of a walk, at a position in the segment:
//   page border     -> check the page header                        -> record start | end of segment
//   record start    -> length, previous link, resource manager, CRC -> record start | page border | end
//   inside a record -> the next page must carry it on, or say that it was given up (OVERWRITE_CONTRECORD)
//
// Invariants
// 1. One pass, no copy, no allocation per record. Nothing outside the segment's bytes is read, whatever they hold.
// 2. A record is handed on only when it lies whole in the segment and its CRC fits. What began in the segment before
//    is skipped, what runs on into the next one is reported; the two halves are joined by WALFacts.
// 3. The walk stops at the first thing that does not fit and says where and why. Whether that matters is for the
//    caller: a partial segment ends in the garbage of the recycled file it was made from, a full one must not.
// 4. After a SWITCH record the rest of the segment is unused, and is not looked at.
package import KedgeCore

/// Looks at each record of a walk. Block references and the like can be gathered by a visitor beside WALFacts' own.
package protocol WALRecordVisitor {
    /// Called in WAL order. Returns why the record cannot be understood, which ends the walk; nil if all is well.
    mutating func visit(_ record: WALRecord) -> String?
}

/// The walk over one segment.
package struct WALReader {
    /// How many bytes of a record that crosses the segment's border are kept, so that the two halves can be joined
    /// later.
    package static let keptBytes = 2048

    private let bytes: UnsafeRawBufferPointer
    private let base: UnsafeRawPointer
    private let segment: WALSegment
    private let format: WALFormat
    private let pageSize: Int
    private let start: LSN
    private let magic: UInt16
    private let acceptsCustomManagers: Bool

    private var walk = WALWalk()
    /// The offset of the next page border or record.
    private var position = 0
    /// The record that the next one gives up: it must be an OVERWRITE_CONTRECORD that names this one.
    private var abandoned: Abandoned?

    private enum Abandoned {
        case record(LSN)
        case inEarlierSegment
    }

    /// `bytes` are the whole file of `segment`, a partial one included, and must outlive the walk.
    ///
    /// Throws `defect` where they are not as many as a segment has: `WALFileCheck` comes first.
    package init(
        _ bytes: UnsafeRawBufferPointer, segment: WALSegment, format: WALFormat
    ) throws(KedgeError) {
        guard bytes.count == Int(format.segmentSize), let base = bytes.baseAddress else {
            throw KedgeError(
                .defect, "cannot walk WAL segment by \(bytes.count) bytes where it has \(format.segmentSize)")
        }
        self.bytes = bytes
        self.base = base
        self.segment = segment
        self.format = format
        pageSize = Int(format.walBlockSize)
        start = LSN(segment.number &* UInt64(format.segmentSize))
        magic = format.version.walPageMagic
        acceptsCustomManagers = format.version >= .v15
    }

    /// Walks the segment once and hands each complete record to `visitor`.
    package static func walk(
        _ bytes: UnsafeRawBufferPointer, segment: WALSegment, format: WALFormat,
        visitor: inout some WALRecordVisitor
    ) throws(KedgeError) -> WALWalk {
        var reader = try WALReader(bytes, segment: segment, format: format)
        reader.run(&visitor)
        return reader.walk
    }

    private mutating func run(_ visitor: inout some WALRecordVisitor) {
        guard enterSegment() else { return }
        while position < bytes.count {
            if position & (pageSize - 1) == 0 {
                guard let page = enterPage(at: position) else { return }
                guard page.info & WALPageHeader.Flag.firstIsContinuation == 0 else {
                    return stop(position, "The page carries on a record, but none is left open before it")
                }
                position += WALPageHeader.shortSize
            }
            guard readRecord(&visitor) else { return }
        }
    }

    /// Ends the walk with a defect at an offset in the segment.
    private mutating func stop(_ offset: Int, _ reason: String) {
        walk.defect = WALWalk.Defect(lsn: lsn(offset), reason: reason)
    }

    @inline(__always)
    private func lsn(_ offset: Int) -> LSN { LSN(start.position &+ UInt64(offset)) }

    @inline(__always)
    private func aligned(_ offset: Int) -> Int { (offset + 7) & ~7 }
}

// MARK: - Pages

extension WALReader {
    /// Checks the header of the page at `offset`. Nil, with the defect noted, where it does not fit.
    @inline(__always)
    private mutating func enterPage(at offset: Int) -> WALPageHeader? {
        let page = WALPageHeader(at: base + offset)
        guard page.magic == magic, page.info & ~WALPageHeader.Flag.all == 0, page.isLong == (offset == 0),
            page.pageAddress == lsn(offset), page.timeline >= walk.lastPageTimeline.number,
            page.timeline >= 1, page.timeline <= segment.timeline.number
        else {
            stop(offset, reasonAgainst(page, at: offset))
            return nil
        }
        walk.lastPageTimeline = TimelineID(page.timeline)
        return page
    }

    private func reasonAgainst(_ page: WALPageHeader, at offset: Int) -> String {
        func hex(_ number: UInt16) -> String { "0x" + String(number, radix: 16, uppercase: true) }
        if page.magic != magic { return "The page begins with \(hex(page.magic)) and not with \(hex(magic))" }
        if page.info & ~WALPageHeader.Flag.all != 0 { return "The page has the unknown flags \(hex(page.info))" }
        if page.isLong != (offset == 0) {
            return offset == 0
                ? "The first page has a short header" : "The page has the header of a segment's first page"
        }
        if page.pageAddress != lsn(offset) { return "The page says that it begins at \(page.pageAddress)" }
        if page.timeline < 1 || page.timeline > segment.timeline.number {
            return "The page is of timeline \(page.timeline), the segment of timeline \(segment.timeline)"
        }
        return "The page is of timeline \(page.timeline) after one of timeline \(walk.lastPageTimeline)"
    }

    /// Checks the first page and skips the record that began in an earlier segment. False where the walk has ended.
    private mutating func enterSegment() -> Bool {
        guard let page = enterPage(at: 0), let header = WALLongHeader(bytes) else { return false }
        guard header.systemIdentifier == format.systemIdentifier, header.segmentSize == format.segmentSize,
            header.walBlockSize == format.walBlockSize
        else {
            stop(0, "The first page is of another cluster")
            return false
        }
        walk.firstPageTimeline = walk.lastPageTimeline
        position = WALPageHeader.longSize
        if page.info & WALPageHeader.Flag.firstIsOverwriteContinuation != 0 {
            walk.overwritesPrevious = true
            abandoned = .inEarlierSegment
            return true
        }
        guard page.info & WALPageHeader.Flag.firstIsContinuation != 0 else {
            guard page.remainingLength == 0 else {
                stop(0, "The page names \(page.remainingLength) bytes of an earlier record, but does not carry one on")
                return false
            }
            return true
        }
        return skipContinued(page.remainingLength)
    }

    /// Skips the `remaining` bytes of a record that began in an earlier segment. False where the walk has ended.
    private mutating func skipContinued(_ remaining: UInt32) -> Bool {
        guard remaining > 0 else {
            stop(0, "The page carries on a record of which nothing is left")
            return false
        }
        let continued = position
        guard let end = follow(from: pageSize, remaining: Int(remaining) - (pageSize - position)) else { return false }
        noteContinued(at: continued, remaining: remaining)
        switch end {
        case .abandoned:
            abandoned = .inEarlierSegment
            return true
        case .leavesSegment:
            let pages = bytes.count / pageSize - 1
            let here = pageSize - continued + pages * (pageSize - WALPageHeader.shortSize)
            walk.remaining = remaining - UInt32(here)
            return false
        case .at(let offset):
            position = aligned(offset)
            walk.end = lsn(position)
            return true
        }
    }

    private mutating func noteContinued(at offset: Int, remaining: UInt32) {
        // The segment is larger than what is kept, so that many bytes are always there.
        let kept = remaining <= WALReader.keptBytes ? Int(remaining) : WALRecord.headerSize
        let rest = SpannedBytes(at: base + offset, count: kept, firstGap: pageSize - offset, pageSize: pageSize)
        walk.continued = WALWalk.Continued(remaining: remaining, bytes: rest.copy(0..<kept))
    }

    /// Where a record that crosses pages comes to.
    private enum Following {
        /// It ends at this offset.
        case at(Int)
        /// It runs on into the next segment.
        case leavesSegment
        /// The page at hand gives it up; `position` is behind that page's header.
        case abandoned
    }

    /// Follows a record over pages. `border` is the first page border after its beginning and `remaining` what is left
    /// of it there (0 or less: it ends that many bytes before). Nil, with the defect noted, where a page does not carry
    /// it on.
    private mutating func follow(from border: Int, remaining: Int) -> Following? {
        var page = border
        var remaining = remaining
        if remaining <= 0 { return .at(border + remaining) }
        while page < bytes.count {
            guard let header = enterPage(at: page) else { return nil }
            if header.info & WALPageHeader.Flag.firstIsOverwriteContinuation != 0 {
                position = page + WALPageHeader.shortSize
                return .abandoned
            }
            guard header.info & WALPageHeader.Flag.firstIsContinuation != 0 else {
                stop(page, "The page does not carry on the record before it, of which \(remaining) bytes are missing")
                return nil
            }
            guard Int(header.remainingLength) == remaining else {
                stop(
                    page, "The page carries on a record with \(header.remainingLength) bytes left, but \(remaining) are"
                )
                return nil
            }
            let payload = pageSize - WALPageHeader.shortSize
            if remaining <= payload { return .at(page + WALPageHeader.shortSize + remaining) }
            remaining -= payload
            page += pageSize
        }
        return .leavesSegment
    }
}

// MARK: - Records

extension WALReader {
    /// Reads the record at `position` and moves behind it. False where the walk has ended.
    @inline(__always)
    private mutating func readRecord(_ visitor: inout some WALRecordVisitor) -> Bool {
        // At least eight bytes are left on the page: records, headers and pages are aligned. So the length is always
        // here.
        let offset = position
        let length = UInt32(littleEndian: (base + offset).loadUnaligned(as: UInt32.self))
        guard length >= WALRecord.headerSize, length <= WALRecord.maximumLength else {
            stop(offset, length == 0 ? "There is no record" : "A record claims a length of \(length) bytes")
            return false
        }
        let border = (offset & ~(pageSize - 1)) + pageSize
        let total = Int(length)
        var end = offset + total
        if end > border {
            // A header in one piece is checked first, so that garbage is not followed over pages.
            if border - offset >= WALRecord.headerSize {
                let header = WALRecord.Header(.init(contiguous: base + offset, count: WALRecord.headerSize))
                guard accept(header, at: offset) else { return false }
            }
            switch follow(from: border, remaining: total - (border - offset)) {
            case nil: return false
            case .leavesSegment: return noteUnfinished(at: offset, length: length)
            case .abandoned:
                abandoned = .record(lsn(offset))
                return true
            case .at(let found): end = found
            }
        }
        let record = WALRecord(
            lsn: lsn(offset),
            bytes: SpannedBytes(at: base + offset, count: total, firstGap: border - offset, pageSize: pageSize))
        guard accept(record.header, at: offset) else { return false }
        let crc = record.bytes.recordCRC()
        guard crc == record.header.crc else {
            stop(offset, "The CRC of a record does not fit its content")
            return false
        }
        return take(record, from: offset, to: end, &visitor)
    }

    /// Checks a record's header on its own and against the record before it. False, with the defect noted, where it
    /// does not fit.
    @inline(__always)
    private mutating func accept(_ header: WALRecord.Header, at offset: Int) -> Bool {
        let manager = header.resourceManager
        guard
            manager <= WALRecord.ResourceManager.lastBuiltIn
                || (manager >= WALRecord.ResourceManager.firstCustom && acceptsCustomManagers)
        else {
            stop(offset, "A record names the unknown resource manager \(manager)")
            return false
        }
        // The first record's predecessor lies in an earlier segment.
        let fits = walk.lastRecord.map { header.previous == $0 } ?? (header.previous < start)
        guard fits else {
            let expected = walk.lastRecord.map { "at \($0)" } ?? "before \(start)"
            stop(offset, "A record says that the one before it is at \(header.previous), but that is \(expected)")
            return false
        }
        return true
    }

    /// Hands a checked record on and moves behind it. False where the walk has ended.
    @inline(__always)
    private mutating func take(
        _ record: WALRecord, from offset: Int, to end: Int, _ visitor: inout some WALRecordVisitor
    ) -> Bool {
        if abandoned != nil {
            guard overwrites(record) else { return false }
            abandoned = nil
        }
        if let reason = visitor.visit(record) {
            stop(offset, reason)
            return false
        }
        walk.records += 1
        if walk.firstRecord == nil { walk.firstRecord = record.lsn }
        walk.lastRecord = record.lsn
        position = aligned(end)
        walk.end = lsn(position)
        if record.header.resourceManager == WALRecord.ResourceManager.xlog
            && record.operation == WALRecord.XLOGOperation.switchSegment
        {
            walk.endsWithSwitch = true
            walk.end = lsn(bytes.count)
            return false
        }
        return true
    }

    /// Whether `record` is the one that must follow a record that was given up (VerifyOverwriteContrecord).
    private mutating func overwrites(_ record: WALRecord) -> Bool {
        if record.header.resourceManager == WALRecord.ResourceManager.xlog,
            record.operation == WALRecord.XLOGOperation.overwriteContinuation, let data = record.mainDataOffset(),
            data + 8 <= record.bytes.count
        {
            let overwritten = LSN(record.bytes.load(data))
            switch abandoned {
            case .record(let lsn) where lsn == overwritten: return true
            case .inEarlierSegment where overwritten < start: return true
            default: break
            }
        }
        walk.defect = WALWalk.Defect(
            lsn: record.lsn, reason: "The record before was given up, but the one here does not say so")
        return false
    }

    /// Notes a record that the next segment carries on. Always false: the walk has ended.
    private mutating func noteUnfinished(at offset: Int, length: UInt32) -> Bool {
        let here = (bytes.count - offset) - (bytes.count - offset - 1) / pageSize * WALPageHeader.shortSize
        let present = SpannedBytes(
            at: base + offset, count: here, firstGap: (offset & ~(pageSize - 1)) + pageSize - offset,
            pageSize: pageSize)
        guard here < WALRecord.headerSize || accept(WALRecord.Header(present), at: offset) else { return false }
        walk.remaining = length - UInt32(here)
        // A record of which so much lies here matters only if it may hold an event.
        let matters = here < WALRecord.headerSize || WALEventCollector.mayHoldEvent(WALRecord.Header(present))
        let kept = matters && here <= WALReader.keptBytes ? here : min(here, WALRecord.headerSize)
        walk.unfinished = WALWalk.Unfinished(
            lsn: lsn(offset), length: length, remaining: walk.remaining, bytes: present.copy(0..<kept))
        return false
    }
}

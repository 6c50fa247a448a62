// Writes WAL as a server does, so that tests can put any record at any place.
package import KedgeCore
package import KedgePostgres

/// A log under construction, from the start of one segment on.
package struct WALBuilder {
    package static let system = SystemIdentifier(7_000_000_000_000_000_001)

    package let format: WALFormat
    package var timeline: TimelineID
    /// The log's bytes; whole pages, the last one zero from `position` on.
    package private(set) var bytes: [UInt8] = []
    private let start: LSN
    /// Where the next record begins.
    private var position = 0
    package private(set) var previous: LSN
    /// The record that was begun and never ended.
    private var abandoned: LSN?
    /// Where every record begins, with its header's fields.
    package private(set) var records: [Record] = []

    package struct Record: Equatable {
        package let lsn: LSN
        package let manager: UInt8
        package let length: UInt32
        package let xid: UInt32

        package init(lsn: LSN, manager: UInt8, length: UInt32, xid: UInt32) {
            self.lsn = lsn
            self.manager = manager
            self.length = length
            self.xid = xid
        }
    }

    private var pageSize: Int { Int(format.walBlockSize) }

    package init(
        version: PostgresVersion = .v15, system: SystemIdentifier = WALBuilder.system, timeline: UInt32 = 1,
        firstSegment: UInt64 = 5,
        segmentMiB: UInt32 = 1, walBlockSize: UInt32 = 8192
    ) {
        format = WALFormat(
            systemIdentifier: system, version: version,
            segmentSize: segmentMiB << 20, walBlockSize: walBlockSize)
        self.timeline = TimelineID(timeline)
        start = LSN(firstSegment * UInt64(segmentMiB) << 20)
        previous = LSN(start.position - 64)
    }

    package var lsn: LSN { LSN(start.position + UInt64(position)) }

    /// Bytes left on the present page.
    package var leftOnPage: Int { pageSize - position % pageSize }
    /// Bytes left in the present segment.
    package var leftInSegment: Int { Int(format.segmentSize) - position % Int(format.segmentSize) }

    /// Appends a record with `data` as its main data and returns where it begins.
    @discardableResult
    package mutating func append(manager: UInt8, info: UInt8, xid: UInt32 = 0, data: [UInt8]) -> LSN {
        append(manager: manager, info: info, xid: xid, body: WALBuilder.body(data))
    }

    /// Appends a record with any body.
    @discardableResult
    package mutating func append(manager: UInt8, info: UInt8, xid: UInt32, body: [UInt8]) -> LSN {
        if position % pageSize == 0 { beginPage(flags: 0, remaining: 0) }
        let lsn = self.lsn
        let record = WALBuilder.record(manager: manager, info: info, xid: xid, previous: previous, body: body)
        write(record, upTo: record.count)
        records.append(Record(lsn: lsn, manager: manager, length: UInt32(record.count), xid: xid))
        previous = lsn
        return lsn
    }

    /// Writes only the first `count` pages of a record that crosses pages, as a server that crashed; the next record is
    /// the one that gives it up.
    package mutating func appendAbandoned(length: Int, pages: Int) -> LSN {
        let lsn = self.lsn
        let body = WALBuilder.body([UInt8](repeating: 0xAB, count: length))
        let record = WALBuilder.record(manager: 10, info: 0, xid: 3, previous: previous, body: body)
        write(record, upTo: leftOnPage + (pages - 1) * (pageSize - 24))
        abandoned = lsn
        beginPage(flags: WALPageHeader.Flag.firstIsOverwriteContinuation, remaining: 0)
        return lsn
    }

    /// XLOG_OVERWRITE_CONTRECORD: which record is given up, and when.
    @discardableResult
    package mutating func appendOverwrite(of lsn: LSN) -> LSN {
        var data: [UInt8] = []
        data.append(littleEndian: lsn.position)
        data.append(littleEndian: Int64(0))
        return append(manager: 0, info: 0xD0, data: data)
    }

    /// XLOG_SWITCH: the rest of the segment stays zero, and the next record begins in the next one.
    package mutating func appendSwitch() {
        append(manager: 0, info: 0x40, xid: 0, body: [])
        position += leftInSegment % Int(format.segmentSize)
        bytes += [UInt8](repeating: 0, count: position - bytes.count)
    }

    /// Heap records up to exactly `left` bytes before the segment's end; `left` is a multiple of eight below 6000.
    package mutating func fill(leaving left: Int) {
        while leftInSegment > left + 1200 { append(manager: 10, info: 0x20, xid: 700, data: filler(records.count)) }
        let length = leftInSegment - left
        let prefix = length < 24 + 2 + 256 ? 2 : 5
        append(manager: 10, info: 0x20, xid: 700, data: [UInt8](repeating: 1, count: length - 24 - prefix))
        precondition(leftInSegment == left)
    }

    private func filler(_ seed: Int) -> [UInt8] {
        [UInt8](repeating: UInt8(truncatingIfNeeded: seed), count: seed * 37 % 900)
    }

    /// The segments that the log reaches into, whole, the last one zero behind the log's end.
    package var segments: [(segment: WALSegment, bytes: [UInt8])] {
        let size = Int(format.segmentSize)
        let count = (bytes.count + size - 1) / size
        let all = bytes + [UInt8](repeating: 0, count: count * size - bytes.count)
        return (0..<count).map { index in
            let segment = WALSegment(
                timeline: timeline, number: start.position / UInt64(size) + UInt64(index))
            return (segment, Array(all[index * size..<(index + 1) * size]))
        }
    }

    // MARK: Bytes

    package static func body(_ data: [UInt8]) -> [UInt8] {
        if data.isEmpty { return [] }
        if data.count < 256 { return [255, UInt8(data.count)] + data }
        var body: [UInt8] = [254]
        body.append(littleEndian: UInt32(data.count))
        return body + data
    }

    private static func record(
        manager: UInt8, info: UInt8, xid: UInt32, previous: LSN, body: [UInt8]
    ) -> [UInt8] {
        var record: [UInt8] = []
        record.append(littleEndian: UInt32(24 + body.count))
        record.append(littleEndian: xid)
        record.append(littleEndian: previous.position)
        record += [info, manager, 0, 0]
        record.append(littleEndian: CRC32C.checksum(record, continuing: CRC32C.checksum(body)))
        return record + body
    }

    private mutating func write(_ record: [UInt8], upTo end: Int) {
        var written = 0
        while written < end {
            if position % pageSize == 0 {
                beginPage(
                    flags: WALPageHeader.Flag.firstIsContinuation, remaining: UInt32(record.count - written))
            }
            let count = min(leftOnPage, end - written)
            bytes.replaceSubrange(position..<position + count, with: record[written..<written + count])
            written += count
            position += count
        }
        position = (position + 7) & ~7
    }

    private mutating func beginPage(flags: UInt16, remaining: UInt32) {
        let isFirst = position % Int(format.segmentSize) == 0
        var header: [UInt8] = []
        header.append(littleEndian: format.version.walPageMagic)
        header.append(littleEndian: flags | (isFirst ? WALPageHeader.Flag.longHeader : 0))
        header.append(littleEndian: timeline.number)
        header.append(littleEndian: lsn.position)
        header.append(littleEndian: remaining)
        header.append(littleEndian: UInt32(0))
        if isFirst {
            header.append(littleEndian: format.systemIdentifier.number)
            header.append(littleEndian: format.segmentSize)
            header.append(littleEndian: format.walBlockSize)
        }
        bytes += header + [UInt8](repeating: 0, count: pageSize - header.count)
        position += header.count
    }
}

// MARK: - Records that facts are made of

extension WALBuilder {
    /// A commit or abort, plain (`prepared` nil) or of a prepared transaction, with `subtransactions` in its body.
    @discardableResult
    package mutating func appendEnd(
        commit: Bool, xid: UInt32, time: Timestamp, prepared: UInt32? = nil, subtransactions: [UInt32] = []
    ) -> LSN {
        var data: [UInt8] = []
        data.append(littleEndian: time.postgresMicroseconds)
        var info: UInt8 = commit ? 0x00 : 0x20
        if prepared != nil { info = commit ? 0x30 : 0x40 }
        if prepared != nil || !subtransactions.isEmpty {
            info |= 0x80
            data.append(
                littleEndian: UInt32((prepared == nil ? 0 : 1 << 4) | (subtransactions.isEmpty ? 0 : 1 << 1)))
            if !subtransactions.isEmpty {
                data.append(littleEndian: UInt32(subtransactions.count))
                for xid in subtransactions { data.append(littleEndian: xid) }
            }
            if let prepared { data.append(littleEndian: prepared) }
        }
        return append(manager: 1, info: info, xid: xid, data: data)
    }

    @discardableResult
    package mutating func appendRestorePoint(_ name: [UInt8], time: Timestamp) -> LSN {
        var data: [UInt8] = []
        data.append(littleEndian: time.postgresMicroseconds)
        return append(manager: 0, info: 0x70, data: data + name + [UInt8](repeating: 0, count: 64 - name.count))
    }

    @discardableResult
    package mutating func appendTablespace(_ oid: UInt32, path: [UInt8]) -> LSN {
        var data: [UInt8] = []
        data.append(littleEndian: oid)
        return append(manager: 5, info: 0x00, data: data + path + [0])
    }

    @discardableResult
    package mutating func appendCheckpoint(redo: LSN, shutdown: Bool, time: Timestamp, walLevel: UInt32 = 1) -> LSN {
        var data = [UInt8](repeating: 0, count: 88)
        data.replace(at: 0, redo.position)
        data.replace(at: 8, timeline.number)
        data.replace(at: 12, timeline.number)
        data.replace(at: 20, walLevel)
        data.replace(at: 64, time.microseconds / 1_000_000)
        return append(manager: 0, info: shutdown ? 0x00 : 0x10, data: data)
    }

    @discardableResult
    package mutating func appendParameterChange(walLevel: UInt32) -> LSN {
        var data = [UInt8](repeating: 0, count: 28)
        data.replace(at: 20, walLevel)
        return append(manager: 0, info: 0x60, data: data)
    }
}

extension Array<UInt8> {
    /// Writes `number` little-endian over the bytes at `offset`.
    package mutating func replace(at offset: Int, _ number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number.littleEndian) { source in
            replaceSubrange(offset..<offset + source.count, with: source)
        }
    }
}

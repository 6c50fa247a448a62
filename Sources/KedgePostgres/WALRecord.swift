// One WAL record as it lies in its pages (src/include/access/xlogrecord.h).
//
// A record begins at a multiple of eight and runs on over page borders, where page headers interrupt it. The view maps
// an offset in the record to its place in the segment, so that nothing is copied and nothing is allocated. Whoever
// makes a view has checked the page headers in between, and that the record ends within the bytes.
package import KedgeCore

/// A view onto one complete record whose CRC fits. It must not outlive the bytes.
package struct WALRecord {
    /// Bytes of the fixed header that every record begins with.
    package static let headerSize = 24
    /// No server writes or reads more (MaxAllocSize; XLogRecordMaxSize from 16 on).
    package static let maximumLength: UInt32 = 0x3FFF_FFFF

    /// Where it begins.
    package let lsn: LSN
    /// The record's bytes, header included.
    package let bytes: SpannedBytes
    package let header: Header

    /// The record at `lsn` whose bytes, at least a header's, these are.
    @inline(__always)
    init(lsn: LSN, bytes: SpannedBytes) {
        self.lsn = lsn
        self.bytes = bytes
        header = Header(bytes)
    }

    /// The fixed header.
    package struct Header: Hashable, Sendable {
        /// Bytes of the whole record.
        package let totalLength: UInt32
        /// 0 where the record belongs to no transaction.
        package let xid: UInt32
        /// Where the record before this one begins.
        package let previous: LSN
        /// The upper four bits are the resource manager's.
        package let info: UInt8
        package let resourceManager: UInt8
        package let crc: UInt32

        /// Reads the first 24 bytes.
        @inline(__always)
        init(_ bytes: SpannedBytes) {
            totalLength = bytes.load(0)
            xid = bytes.load(4)
            previous = LSN(bytes.load(8))
            info = bytes.load(16)
            resourceManager = bytes.load(17)
            crc = bytes.load(20)
        }
    }

    /// What the record is, as its resource manager numbers it: `info` without the bits that are for every record.
    package var operation: UInt8 { header.info & 0xF0 }

    /// Resource managers whose records a walk looks into (src/include/access/rmgrlist.h).
    package enum ResourceManager {
        package static let xlog: UInt8 = 0
        package static let transaction: UInt8 = 1
        package static let tablespace: UInt8 = 5
        /// The last of PostgreSQL's own. Extensions have 128 to 255, from version 15 on.
        package static let lastBuiltIn: UInt8 = 21
        package static let firstCustom: UInt8 = 128
    }

    /// Operations of `ResourceManager.xlog` (src/include/catalog/pg_control.h).
    package enum XLOGOperation {
        package static let checkpointShutdown: UInt8 = 0x00
        package static let checkpointOnline: UInt8 = 0x10
        package static let switchSegment: UInt8 = 0x40
        package static let parameterChange: UInt8 = 0x60
        package static let restorePoint: UInt8 = 0x70
        package static let endOfRecovery: UInt8 = 0x90
        package static let overwriteContinuation: UInt8 = 0xD0
        /// From 17 on.
        package static let checkpointRedo: UInt8 = 0xE0
    }

    /// Where the main data begins, in a record without block references; it reaches to the record's end.
    ///
    /// Nil where there are block references, or where the lengths do not add up (DecodeXLogRecord).
    package func mainDataOffset() -> Int? {
        var offset = WALRecord.headerSize
        let total = bytes.count
        while offset < total {
            let id: UInt8 = bytes.load(offset)
            switch id {
            case 255:  // short main data: an 8-bit length
                guard offset + 2 <= total, offset + 2 + Int(bytes.load(offset + 1) as UInt8) == total else {
                    return nil
                }
                return offset + 2
            case 254:  // long main data: a 32-bit length
                guard offset + 5 <= total, offset + 5 + Int(bytes.load(offset + 1) as UInt32) == total else {
                    return nil
                }
                return offset + 5
            case 253: offset += 3  // replication origin
            case 252: offset += 5  // top-level xid
            default: return nil
            }
        }
        return offset == total ? total : nil
    }
}

/// A run of bytes that page headers interrupt.
package struct SpannedBytes {
    private let base: UnsafeRawPointer
    /// Bytes up to the first page header, or all of them.
    private let firstPart: Int
    /// From the first byte to the first page header.
    private let firstGap: Int
    private let pageSize: Int
    package let count: Int

    /// `count` bytes that lie in one piece.
    package init(contiguous base: UnsafeRawPointer, count: Int) {
        self.base = base
        firstPart = count
        firstGap = count
        pageSize = 0
        self.count = count
    }

    /// `count` bytes from `base` on, where `firstGap` bytes later a page of `pageSize` bytes begins with a short
    /// header.
    init(at base: UnsafeRawPointer, count: Int, firstGap: Int, pageSize: Int) {
        self.base = base
        firstPart = min(count, firstGap)
        self.firstGap = firstGap
        self.pageSize = pageSize
        self.count = count
    }

    var isContiguous: Bool { firstPart == count }

    /// The address of the byte at `offset`, and how many bytes follow it in the same piece, itself included.
    @inline(__always)
    private func piece(at offset: Int) -> (address: UnsafeRawPointer, count: Int) {
        if offset < firstPart { return (base + offset, firstPart - offset) }
        let payload = pageSize - WALPageHeader.shortSize
        let (page, inPage) = (offset - firstPart).quotientAndRemainder(dividingBy: payload)
        let address = base + (firstGap + page * pageSize + WALPageHeader.shortSize + inPage)
        return (address, min(payload - inPage, count - offset))
    }

    /// The little-endian number at `offset`, which must lie within the bytes together with the number's end.
    @inline(__always)
    package func load<Number: FixedWidthInteger>(_ offset: Int, as _: Number.Type = Number.self) -> Number {
        precondition(offset >= 0 && offset + MemoryLayout<Number>.size <= count)
        let piece = piece(at: offset)
        if piece.count >= MemoryLayout<Number>.size {
            return Number(littleEndian: piece.address.loadUnaligned(as: Number.self))
        }
        var number: Number = 0
        for index in 0..<MemoryLayout<Number>.size {
            let byte = self.piece(at: offset + index).address.load(as: UInt8.self)
            number |= Number(truncatingIfNeeded: byte) << (8 * index)
        }
        return number
    }

    /// A copy of the bytes in `range`, which must lie within them.
    package func copy(_ range: Range<Int>) -> [UInt8] {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        var copy: [UInt8] = []
        copy.reserveCapacity(range.count)
        var offset = range.lowerBound
        while offset < range.upperBound {
            let piece = piece(at: offset)
            let length = min(piece.count, range.upperBound - offset)
            copy.append(contentsOf: UnsafeRawBufferPointer(start: piece.address, count: length))
            offset += length
        }
        return copy
    }

    /// The CRC that a record with these bytes should carry (ValidXLogRecord). There are at least 24.
    @inline(__always)
    func recordCRC() -> UInt32 {
        if isContiguous { return CRC32C.walRecord(at: base, totalLength: count) }
        return spannedRecordCRC()
    }

    private func spannedRecordCRC() -> UInt32 {
        // The header without its CRC comes last, so that the CRC field itself is not in.
        checksum(0..<20, continuing: checksum(WALRecord.headerSize..<count, continuing: 0))
    }

    private func checksum(_ range: Range<Int>, continuing previous: UInt32) -> UInt32 {
        var crc = previous
        var offset = range.lowerBound
        while offset < range.upperBound {
            let piece = piece(at: offset)
            let length = min(piece.count, range.upperBound - offset)
            crc = CRC32C.checksum(UnsafeRawBufferPointer(start: piece.address, count: length), continuing: crc)
            offset += length
        }
        return crc
    }
}

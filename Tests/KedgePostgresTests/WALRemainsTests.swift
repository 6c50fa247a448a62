// What a segment in pg_wal holds: whether it is its own, where its log ends, and whether anybody's data is in it.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct WALRemainsTests {
    private let time = Timestamp(secondsSince1970: 1_795_000_000)

    /// The only segment that `fill` writes.
    private func segment(_ fill: (inout WALBuilder) -> Void) -> (builder: WALBuilder, bytes: [UInt8]) {
        var builder = WALBuilder()
        fill(&builder)
        return (builder, builder.segments[0].bytes)
    }

    private func remains(_ bytes: [UInt8], _ builder: WALBuilder) throws -> WALRemains {
        try bytes.withUnsafeBytes {
            try WALRemains(of: $0, segment: builder.segments[0].segment, format: builder.format)
        }
    }

    /// What a clean shutdown leaves, over pages that are another segment's: the file was recycled. Without records
    /// there is a page that was begun and nothing on it.
    private func shutdown(records: Int = 1) -> (builder: WALBuilder, bytes: [UInt8]) {
        var older = WALBuilder(firstSegment: 2)
        while older.leftInSegment > 9000 { older.append(manager: 10, info: 0, xid: 5, data: [1, 2, 3]) }
        var (builder, bytes) = segment {
            for _ in 0..<max(1, records) { $0.appendCheckpoint(redo: $0.lsn, shutdown: true, time: time) }
        }
        let used = Int(builder.lsn - builder.segments[0].segment.startLSN(segmentSize: 1 << 20))
        let pages = (used + 8191) / 8192 * 8192
        bytes.replaceSubrange(pages..., with: older.segments[0].bytes[pages...])
        if records == 0 { bytes.replaceSubrange(40..<pages, with: [UInt8](repeating: 0, count: pages - 40)) }
        return (builder, bytes)
    }

    @Test("only a positive list of a server's own records is bookkeeping; all other kinds are data")
    func kinds() throws {
        let own: [UInt8: Set<UInt8>] = [0: [0x00, 0x10, 0x40, 0x60, 0x80, 0xE0], 8: [0x10]]
        for manager in (0...21).map(UInt8.init) + [128, 255] {
            for operation in stride(from: UInt8(0), through: 0xF0, by: 0x10) {
                let (builder, bytes) = segment {
                    $0.appendCheckpoint(redo: $0.lsn, shutdown: false, time: time)
                    $0.append(manager: manager, info: operation, data: [1, 2, 3])
                }
                let found = try remains(bytes, builder)
                let isOwn = own[manager]?.contains(operation) == true
                #expect(found.isBookkeeping == isOwn, "\(manager) \(operation)")
                #expect(found.endsCleanly)
            }
        }
    }

    @Test("the end of a recycled file is clean; a byte behind the end, or a page of this very segment, is not")
    func ends() throws {
        for records in [0, 1, 200] {
            let (builder, bytes) = shutdown(records: records)
            let start = builder.segments[0].segment.startLSN(segmentSize: 1 << 20)
            let clean = try remains(bytes, builder)
            #expect(
                clean == WALRemains(end: records == 0 ? start : builder.lsn, endsCleanly: true, isBookkeeping: true))
            let used = max(40, Int(clean.end - start))
            let page = (used + 8191) / 8192 * 8192
            if page > used {
                var other = bytes
                other[page - 1] = 1
                #expect(try !remains(other, builder).isBookkeeping)
                #expect(try !remains(other, builder).endsCleanly)
            }
            // Somewhere behind, a page of this segment lies: what is between is lost, but there was more.
            let whole = segment { while $0.leftInSegment > 9000 { $0.append(manager: 10, info: 0, xid: 5, data: [1]) } }
            for index in [page / 8192, 70, 125] {
                var other = bytes
                other.replaceSubrange(
                    index * 8192..<index * 8192 + 24, with: whole.bytes[index * 8192..<index * 8192 + 24])
                #expect(try !remains(other, builder).isBookkeeping, "\(records), page \(index)")
            }
        }
    }

    @Test("a flipped bit in any record makes the segment data: behind it there may have been commits")
    func flips() throws {
        let (builder, bytes) = shutdown(records: 60)
        let random = SeededRandom(seed: testSeed())
        for _ in 0..<200 {
            var other = bytes
            // Between two records there are up to seven bytes that nothing covers and nobody reads.
            let record = builder.records[random.next(below: builder.records.count)]
            let start = Int(record.lsn - builder.segments[0].segment.startLSN(segmentSize: 1 << 20))
            let offset = start + random.next(below: Int(record.length))
            other[offset] ^= 1 << UInt8(random.next(below: 8))
            let found = try remains(other, builder)
            #expect(!found.isBookkeeping, "seed \(testSeed()), offset \(offset)")
        }
    }

    @Test("what carries a record on, or runs on into the next segment, is data")
    func borders() throws {
        var builder = WALBuilder()
        builder.fill(leaving: 40)
        builder.appendCheckpoint(redo: builder.lsn, shutdown: true, time: time)
        for (segment, bytes) in builder.segments {
            let found = try bytes.withUnsafeBytes {
                try WALRemains(of: $0, segment: segment, format: builder.format)
            }
            #expect(!found.isBookkeeping)
            #expect(found.endsCleanly)
        }
        let (switched, bytes) = segment {
            $0.appendCheckpoint(redo: $0.lsn, shutdown: false, time: time)
            $0.appendSwitch()
        }
        let expected = WALRemains(end: LSN(6 << 20), endsCleanly: true, isBookkeeping: true)
        #expect(try remains(bytes, switched) == expected)
    }

    @Test("a file is its own by system, address and timeline of its first page; renamed ahead it is nothing")
    func origins() throws {
        let (builder, bytes) = shutdown()
        let own = builder.segments[0].segment
        func origin(_ bytes: [UInt8], _ segment: WALSegment) -> WALRemains.Origin {
            bytes.withUnsafeBytes { WALRemains.origin($0, of: segment, format: builder.format) }
        }
        #expect(origin(bytes, own) == .own)
        #expect(origin(Array(bytes[..<40]), own) == .own)
        #expect(origin(bytes, WALSegment(timeline: TimelineID(3), number: own.number)) == .own)
        #expect(origin(bytes, own.next) == .other)
        #expect(origin([UInt8](repeating: 0, count: 8192), own) == .other)
        #expect(origin(Array(bytes[..<39]), own) == .other)
        var foreign = WALBuilder(system: SystemIdentifier(9))
        foreign.appendCheckpoint(redo: foreign.lsn, shutdown: true, time: time)
        #expect(origin(foreign.segments[0].bytes, own) == .foreign)
        var newer = WALBuilder(timeline: 2)
        newer.appendCheckpoint(redo: newer.lsn, shutdown: true, time: time)
        #expect(origin(newer.segments[0].bytes, own) == .other)
    }
}

// The walk over page and segment borders, on WAL whose every byte is known: what no real server can be made to write on
// demand. WALServerTests does the same on real WAL.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct WALReaderTests {
    /// Keeps the headers and a copy of each record's main data.
    struct Recorder: WALRecordVisitor {
        var records: [WALBuilder.Record] = []
        var data: [[UInt8]] = []

        mutating func visit(_ record: WALRecord) -> String? {
            let header = record.header
            records.append(
                .init(
                    lsn: record.lsn, manager: header.resourceManager, length: header.totalLength, xid: header.xid))
            data.append(record.mainDataOffset().map { record.bytes.copy($0..<record.bytes.count) } ?? [])
            return nil
        }
    }

    private func walk(_ builder: WALBuilder) throws -> (walks: [WALWalk], recorder: Recorder) {
        var recorder = Recorder()
        var walks: [WALWalk] = []
        for (segment, bytes) in builder.segments {
            walks.append(try walk(bytes, segment, builder.format, &recorder))
        }
        return (walks, recorder)
    }

    private func walk(
        _ bytes: [UInt8], _ segment: WALSegment, _ format: WALFormat, _ recorder: inout Recorder
    ) throws -> WALWalk {
        try bytes.withUnsafeBytes {
            try WALReader.walk($0, segment: segment, format: format, visitor: &recorder)
        }
    }

    @Test(
        "records are found wherever page borders cut them, for every page size and format",
        arguments: [1024, 8192, 65_536] as [UInt32], PostgresVersion.allCases)
    func borders(_ walBlockSize: UInt32, _ version: PostgresVersion) throws {
        var builder = WALBuilder(version: version, walBlockSize: walBlockSize)
        var expected: [[UInt8]] = []
        // Lengths that shift the next record by eight bytes a page, so that borders fall on each place of a header.
        for index in 0..<700 {
            let data = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: index * 131 % 4000)
            expected.append(data)
            builder.append(manager: 10, info: 0x10, xid: UInt32(index), data: data)
        }
        let (walks, recorder) = try walk(builder)
        #expect(walks.count >= 2)
        let crossing = Set(walks.compactMap(\.unfinished?.lsn))
        let whole = zip(builder.records, expected).filter { !crossing.contains($0.0.lsn) }
        #expect(recorder.records == whole.map(\.0))
        #expect(recorder.data == whole.map(\.1))
        for (earlier, later) in zip(walks, walks.dropFirst()) {
            #expect(earlier.defect == nil)
            #expect(earlier.remaining == later.continued?.remaining ?? 0)
        }
        #expect(walks.last?.defect?.reason == "There is no record")
        #expect(walks.last?.end == builder.lsn)
    }

    @Test("every header place at a page border is met: after 8, 16 and 24 bytes", arguments: [8, 16, 24, 32])
    func headerAtBorder(_ left: Int) throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, body: WALBuilder.body([UInt8](repeating: 7, count: 4000)))
        // A record that ends exactly `left` bytes before the page's end.
        builder.append(
            manager: 10, info: 0, xid: 2,
            body: WALBuilder.body([UInt8](repeating: 8, count: builder.leftOnPage - left - 24 - 5)))
        #expect(builder.leftOnPage == left)
        builder.append(manager: 1, info: 0x50, xid: 3, data: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        builder.append(manager: 10, info: 0, xid: 4, data: [1])
        let (walks, recorder) = try walk(builder)
        #expect(recorder.records == builder.records)
        #expect(recorder.data[2] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        #expect(walks[0].records == 4)
    }

    @Test("a record that fills segments from end to end is skipped in all of them")
    func longRecord() throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, data: [1])
        let long = builder.append(manager: 21, info: 0, xid: 2, data: [UInt8](repeating: 3, count: 3 << 20))
        builder.append(manager: 10, info: 0, xid: 3, data: [2])
        let (walks, recorder) = try walk(builder)
        #expect(recorder.records.map(\.xid) == [1, 3])
        #expect(walks.map(\.records) == [1, 0, 0, 1])
        #expect(walks[0].unfinished?.lsn == long)
        #expect(walks[1].unfinished == nil && walks[1].end == nil && walks[1].defect == nil)
        for (earlier, later) in zip(walks, walks.dropFirst()) {
            #expect(earlier.remaining > 0 && earlier.remaining == later.continued?.remaining)
        }
        // What is not small enough to be joined later keeps just what completes a header.
        #expect(walks[0].unfinished?.bytes.count == 24)
        #expect(walks[1].continued?.bytes.count == 24)
    }

    @Test("after a SWITCH the rest of the segment is not looked at, whatever it holds")
    func afterSwitch() throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, data: [1])
        let end = Int(builder.lsn - LSN(5 << 20)) + 24
        builder.appendSwitch()
        let (segment, clean) = builder.segments[0]
        var recorder = Recorder()
        let expected = try walk(clean, segment, builder.format, &recorder)
        #expect(expected.endsWithSwitch && expected.defect == nil && expected.records == 2)
        #expect(expected.end == LSN(6 << 20))
        let garbage = clean[..<end] + [UInt8](repeating: 0xA5, count: clean.count - end)
        #expect(try walk(Array(garbage), segment, builder.format, &recorder) == expected)
    }

    @Test("a record that was given up is dropped, and its place taken by the one that says so", arguments: [1, 2, 3])
    func overwritten(_ pages: Int) throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, data: [1])
        let lost = builder.appendAbandoned(length: 40_000, pages: pages)
        builder.appendOverwrite(of: lost)
        builder.append(manager: 10, info: 0, xid: 5, data: [2])
        let (walks, recorder) = try walk(builder)
        #expect(recorder.records == builder.records)
        #expect(recorder.records.count == 3)
        #expect(walks[0].defect?.lsn == builder.lsn)
    }

    @Test("a record may be given up at the start of the next segment")
    func overwrittenAtBorder() throws {
        var builder = WALBuilder()
        builder.fill(leaving: 104)
        let lost = builder.appendAbandoned(length: 40_000, pages: 1)
        builder.appendOverwrite(of: lost)
        builder.append(manager: 10, info: 0, xid: 5, data: [2])
        let (walks, recorder) = try walk(builder)
        #expect(walks.count == 2)
        #expect(walks[0].unfinished?.lsn == lost)
        #expect(walks[1].overwritesPrevious && walks[1].continued == nil)
        #expect(recorder.records == builder.records)
    }

    @Test("a page that gives a record up must be followed by a record that names it")
    func overwriteOfAnother() throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, data: [1])
        let lost = builder.appendAbandoned(length: 40_000, pages: 1)
        let overwrite = builder.appendOverwrite(of: LSN(lost.position + 8))
        let (walks, _) = try walk(builder)
        #expect(
            walks[0].defect
                == .init(lsn: overwrite, reason: "The record before was given up, but the one here does not say so"))
    }

    @Test("the first segment of a new timeline begins with pages of the old one")
    func timelineSwitch() throws {
        var builder = WALBuilder(timeline: 1)
        for _ in 0..<30 { builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 1, count: 800)) }
        builder.timeline = TimelineID(2)
        for _ in 0..<30 { builder.append(manager: 10, info: 0, xid: 1, data: [UInt8](repeating: 1, count: 800)) }
        let (walks, recorder) = try walk(builder)
        #expect(recorder.records == builder.records)
        #expect((walks[0].firstPageTimeline, walks[0].lastPageTimeline) == (TimelineID(1), TimelineID(2)))
    }

    @Test("resource managers of extensions exist from version 15 on", arguments: PostgresVersion.allCases)
    func customManager(_ version: PostgresVersion) throws {
        var builder = WALBuilder(version: version)
        builder.append(manager: 200, info: 0, xid: 1, data: [1])
        let (walks, _) = try walk(builder)
        #expect(walks[0].records == (version >= .v15 ? 1 : 0))
        if version < .v15 {
            #expect(walks[0].defect?.reason == "A record names the unknown resource manager 200")
        }
    }

    @Test("bytes that are not a whole segment are our own mistake, and an error")
    func wrongSize() throws {
        let builder = WALBuilder()
        var recorder = Recorder()
        let error = #expect(throws: KedgeError.self) {
            try walk([1, 2, 3], WALSegment(timeline: TimelineID(1), number: 5), builder.format, &recorder)
        }
        #expect(error?.code == .defect)
    }

    // MARK: Damage

    struct Damage: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Where the walk must end, from the segment's start.
        let at: Int
        let reason: String
        let change: @Sendable (inout [UInt8]) -> Void
    }

    /// The log that the rows below damage: a record of 34 bytes at 40, one of 20,029 at 80 that begins page 1 and 2
    /// with its rest, then small ones.
    private static func log() -> WALBuilder {
        var builder = WALBuilder(timeline: 3)
        builder.append(manager: 10, info: 0, xid: 1, data: [1, 2, 3, 4, 5, 6, 7, 8])
        builder.append(manager: 10, info: 0, xid: 2, data: [UInt8](repeating: 9, count: 20_000))
        for _ in 0..<500 { builder.append(manager: 10, info: 0, xid: 3, data: [1, 2, 3, 4, 5, 6]) }
        return builder
    }

    static let damages = [
        Damage(testDescription: "first page's magic", at: 0, reason: "The page begins with 0xD111 and not with 0xD110")
        {
            $0[0] = 0x11
        },
        Damage(testDescription: "first page's system identifier", at: 0, reason: "The first page is of another cluster")
        {
            $0[24] ^= 1
        },
        Damage(testDescription: "page magic", at: 8192, reason: "The page begins with 0x0 and not with 0xD110") {
            $0.replace(at: 8192, UInt16(0))
        },
        Damage(testDescription: "page flags", at: 8192, reason: "The page has the unknown flags 0x81") {
            $0[8194] |= 0x80
        },
        Damage(
            testDescription: "long header in the middle", at: 8192,
            reason: "The page has the header of a segment's first page"
        ) { $0[8194] |= 2 },
        Damage(testDescription: "page address", at: 8192, reason: "The page says that it begins at 0/502001") {
            $0[8200] = 1
        },
        Damage(
            testDescription: "newer page", at: 8192, reason: "The page is of timeline 4, the segment of timeline 3"
        ) { $0[8196] = 4 },
        Damage(testDescription: "older page", at: 8192, reason: "The page is of timeline 2 after one of timeline 3") {
            $0[8196] = 2
        },
        Damage(
            testDescription: "other remaining length", at: 8192,
            reason: "The page carries on a record with 11925 bytes left, but 11917 are"
        ) { $0[8208] += 8 },
        Damage(
            testDescription: "not carried on", at: 8192,
            reason: "The page does not carry on the record before it, of which 11917 bytes are missing"
        ) { $0[8194] = 0 },
        Damage(testDescription: "length of zero", at: 40, reason: "There is no record") { $0[40] = 0 },
        Damage(testDescription: "length too small", at: 40, reason: "A record claims a length of 23 bytes") {
            $0[40] = 23
        },
        Damage(testDescription: "length too large", at: 40, reason: "A record claims a length of 4278190114 bytes") {
            $0[43] = 0xFF
        },
        Damage(testDescription: "unknown manager", at: 40, reason: "A record names the unknown resource manager 22") {
            $0[57] = 22
        },
        Damage(
            testDescription: "first previous link", at: 40,
            reason: "A record says that the one before it is at 0/500000, but that is before 0/500000"
        ) { $0.replace(at: 48, UInt64(0x50_0000)) },
        Damage(
            testDescription: "previous link", at: 80,
            reason: "A record says that the one before it is at 0/500020, but that is at 0/500028"
        ) { $0.replace(at: 88, UInt64(0x50_0020)) },
        Damage(testDescription: "body", at: 40, reason: "The CRC of a record does not fit its content") { $0[70] ^= 1 },
        Damage(testDescription: "body over pages", at: 80, reason: "The CRC of a record does not fit its content") {
            $0[16_400 + 300] ^= 1
        },
    ]

    @Test("what does not fit ends the walk there, and the reason says what was found", arguments: damages)
    func damaged(_ damage: Damage) throws {
        let builder = WALReaderTests.log()
        let (segment, clean) = builder.segments[0]
        var recorder = Recorder()
        #expect(try walk(clean, segment, builder.format, &recorder).records == 502)
        var bytes = clean
        damage.change(&bytes)
        recorder = Recorder()
        let walk = try walk(bytes, segment, builder.format, &recorder)
        #expect(walk.defect == .init(lsn: LSN(5 << 20 + UInt64(damage.at)), reason: damage.reason))
        #expect(recorder.records == Array(builder.records.prefix(damage.at == 80 || damage.at == 8192 ? 1 : 0)))
    }
}

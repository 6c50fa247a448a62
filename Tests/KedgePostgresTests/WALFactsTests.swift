// What is learned from a segment, how it is written down, and the record that two segments share.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct WALFactsTests {
    private func facts(_ builder: WALBuilder, partial: Bool = false) throws -> [WALFacts] {
        try builder.segments.map { segment, bytes in
            try bytes.withUnsafeBytes {
                try WALFacts(of: $0, segment: segment, isPartial: partial, format: builder.format)
            }
        }
    }

    private func time(_ second: Int64) -> Timestamp {
        Timestamp(microseconds: 1_800_000_000_000_000 + second * 1_000_001)
    }

    private func roundTrip(_ facts: WALFacts) throws -> WALFacts {
        try WALFacts(JSONRecord(parsing: Array(facts.jsonValue.compactText.utf8), what: "WAL facts"))
    }

    /// Every kind of event, clocks that run backwards, and the end of the log in the middle of the segment.
    private func eventful(_ version: PostgresVersion = .v15) -> WALBuilder {
        var builder = WALBuilder(version: version)
        builder.appendEnd(commit: false, xid: 10, time: time(5))
        builder.appendEnd(commit: true, xid: 12, time: time(7))
        builder.appendRestorePoint(Array("before".utf8), time: time(8))
        builder.appendEnd(commit: true, xid: 0, time: time(9), prepared: 11, subtransactions: [13, 14, 15])
        builder.appendTablespace(16_400, path: Array("/srv/ts".utf8))
        builder.appendRestorePoint([0x66, 0xFC, 0x72], time: time(10))
        builder.appendCheckpoint(redo: LSN(0x50_0028), shutdown: false, time: time(0))
        builder.appendEnd(commit: true, xid: 16, time: time(3), subtransactions: [17])
        builder.appendEnd(commit: false, xid: 0, time: time(11), prepared: 9)
        return builder
    }

    @Test(
        "commits, aborts, prepared transactions, restore points and tablespaces are found",
        arguments: PostgresVersion.allCases)
    func events(_ version: PostgresVersion) throws {
        let builder = eventful(version)
        let lsns = builder.records.map(\.lsn)
        let events = try facts(builder)[0].events
        #expect((events.commits, events.aborts) == (3, 2))
        #expect(events.firstCommit == TransactionEnd(lsn: lsns[1], time: time(7), xid: 12))
        #expect(events.lastCommit == TransactionEnd(lsn: lsns[7], time: time(3), xid: 16))
        #expect(events.firstEnd == TransactionEnd(lsn: lsns[0], time: time(5), xid: 10))
        #expect(events.lastEnd == TransactionEnd(lsn: lsns[8], time: time(11), xid: 9))
        #expect((events.earliestTime, events.latestTime) == (time(3), time(11)))
        #expect(events.endedTransactions?.count == 5)
        for xid in 5...20 as ClosedRange<UInt32> {
            // Subtransactions (13, 14, 15, 17) can't be recovery targets.
            #expect(events.endedTransactions?.contains(xid) == [9, 10, 11, 12, 16].contains(xid), "\(xid)")
        }
        #expect(events.restorePoints.map(\.name) == ["before", RawPath(bytes: [0x66, 0xFC, 0x72])])
        #expect(events.tablespaces == [CreatedTablespace(lsn: lsns[4], oid: 16_400, path: "/srv/ts")])
        #expect(events.checkpoints == 1 && events.lastCheckpoint?.redo == LSN(0x50_0028))
        #expect(!events.hasMinimalWAL)
    }

    @Test("facts survive being written down, and their text is this")
    func text() throws {
        let facts = try facts(eventful())[0]
        #expect(try roundTrip(facts) == facts)
        #expect(
            facts.jsonValue.compactText == """
                {"format":1,"timeline":1,"partial":false,"startLSN":"0/500000","pageTimelines":[1,1],"records":9,\
                "firstRecordLSN":"0/500028","lastRecordLSN":"0/500258","endLSN":"0/500288",\
                "walkEnded":{"lsn":"0/500288","reason":"There is no record"},"commits":3,"aborts":2,\
                "firstCommit":{"lsn":"0/500050","time":"2027-01-15T08:00:07.000007Z","xid":12},\
                "lastCommit":{"lsn":"0/500228","time":"2027-01-15T08:00:03.000003Z","xid":16},\
                "firstTransactionEnd":{"lsn":"0/500028","time":"2027-01-15T08:00:05.000005Z","xid":10},\
                "lastTransactionEnd":{"lsn":"0/500258","time":"2027-01-15T08:00:11.000011Z","xid":9},\
                "earliestTime":"2027-01-15T08:00:03.000003Z","latestTime":"2027-01-15T08:00:11.000011Z",\
                "endedTransactions":{"count":5,"oldest":9,"newest":16,"runs":"00030300"},\
                "restorePoints":[{"lsn":"0/500078","time":"2027-01-15T08:00:08.000008Z","name":"before"},\
                {"lsn":"0/500148","time":"2027-01-15T08:00:10.000010Z","name":{"hex":"66fc72"}}],\
                "tablespaces":[{"lsn":"0/500120","oid":16400,"path":"/srv/ts"}],"checkpoints":1,\
                "lastCheckpoint":{"lsn":"0/5001B0","redo":"0/500028","timeline":1,"shutdown":false,\
                "time":"2027-01-15T08:00:00Z"}}
                """)
    }

    @Test("a full segment that ends too early is suspect; a partial one is not")
    func suspect() throws {
        let builder = eventful()
        #expect(try facts(builder)[0].suspect == .init(lsn: builder.lsn, reason: "There is no record"))
        #expect(try facts(builder, partial: true)[0].suspect == nil)
        #expect(try facts(builder, partial: true)[0].endLSN == builder.lsn)
    }

    @Test("wal_level = minimal is seen in every record that tells it")
    func minimal() throws {
        var parameter = WALBuilder(version: .v14)
        parameter.appendParameterChange(walLevel: 1)
        #expect(try !facts(parameter)[0].events.hasMinimalWAL)
        parameter.appendParameterChange(walLevel: 0)
        #expect(try facts(parameter)[0].events.hasMinimalWAL)

        var checkpoint = WALBuilder(version: .v17)
        checkpoint.appendCheckpoint(redo: LSN(1), shutdown: true, time: time(0), walLevel: 0)
        #expect(try facts(checkpoint)[0].events.hasMinimalWAL)
        // Before 17 the same bytes are padding.
        var older = WALBuilder(version: .v16)
        older.appendCheckpoint(redo: LSN(1), shutdown: true, time: time(0), walLevel: 0)
        #expect(try !facts(older)[0].events.hasMinimalWAL)

        var redo = WALBuilder(version: .v18)
        redo.append(manager: 0, info: 0xE0, data: [0, 0, 0, 0])
        #expect(try facts(redo)[0].events.hasMinimalWAL)
    }

    @Test("the end of a recovery is kept with both timelines")
    func endOfRecovery() throws {
        var builder = WALBuilder(timeline: 5)
        var data: [UInt8] = []
        data.append(littleEndian: time(1).postgresMicroseconds)
        data.append(littleEndian: UInt32(5))
        data.append(littleEndian: UInt32(3))
        let lsn = builder.append(manager: 0, info: 0x90, data: data)
        let facts = try facts(builder)[0]
        #expect(
            facts.events.lastEndOfRecovery
                == EndOfRecovery(lsn: lsn, time: time(1), timeline: TimelineID(5), previousTimeline: TimelineID(3)))
        #expect(try roundTrip(facts) == facts)
    }

    // MARK: Content that does not parse

    private static let commitTime: [UInt8] = {
        var data: [UInt8] = []
        data.append(littleEndian: Timestamp(microseconds: 1_800_000_000_000_000).postgresMicroseconds)
        return data
    }()

    struct Nonsense: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let manager: UInt8
        let info: UInt8
        let body: [UInt8]
        let what: String
    }

    static let nonsense = [
        Nonsense(testDescription: "empty commit", manager: 1, info: 0, body: [], what: "commit"),
        Nonsense(
            testDescription: "short commit", manager: 1, info: 0, body: WALBuilder.body([1, 2, 3]), what: "commit"),
        Nonsense(
            testDescription: "impossible time", manager: 1, info: 0x20,
            body: WALBuilder.body([UInt8](repeating: 0xFF, count: 7) + [0x7F]), what: "abort"),
        Nonsense(
            testDescription: "block reference", manager: 1, info: 0, body: [0, 0, 0, 0] + commitTime, what: "commit"),
        Nonsense(
            testDescription: "lengths that do not add up", manager: 1, info: 0, body: [255, 9] + commitTime,
            what: "commit"),
        Nonsense(
            testDescription: "huge length", manager: 1, info: 0, body: [254, 255, 255, 255, 255] + commitTime,
            what: "commit"),
        Nonsense(
            testDescription: "prepared without information", manager: 1, info: 0x30, body: WALBuilder.body(commitTime),
            what: "commit prepared"),
        Nonsense(
            testDescription: "prepared without its id", manager: 1, info: 0xB0,
            body: WALBuilder.body(commitTime + [0, 0, 0, 0]), what: "commit prepared"),
        Nonsense(
            testDescription: "huge list", manager: 1, info: 0xC0,
            body: WALBuilder.body(commitTime + [0x12, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0]),
            what: "rollback prepared"),
        Nonsense(
            testDescription: "restore point", manager: 0, info: 0x70, body: WALBuilder.body([1]),
            what: "restore point"),
        Nonsense(
            testDescription: "checkpoint", manager: 0, info: 0x10,
            body: WALBuilder.body([UInt8](repeating: 0, count: 87)),
            what: "checkpoint"),
        Nonsense(
            testDescription: "unknown wal_level", manager: 0, info: 0x60,
            body: WALBuilder.body([UInt8](repeating: 3, count: 28)), what: "parameter change"),
        Nonsense(
            testDescription: "end of recovery", manager: 0, info: 0x90,
            body: WALBuilder.body(commitTime + [UInt8](repeating: 0, count: 8)), what: "end of recovery"),
        Nonsense(
            testDescription: "tablespace", manager: 5, info: 0, body: WALBuilder.body([1, 2]), what: "create tablespace"
        ),
    ]

    @Test("content that is not understood makes the segment suspect at that record", arguments: nonsense)
    func notUnderstood(_ nonsense: Nonsense) throws {
        var builder = WALBuilder()
        builder.append(manager: 10, info: 0, xid: 1, data: [1])
        let lsn = builder.append(manager: nonsense.manager, info: nonsense.info, xid: 3, body: nonsense.body)
        builder.appendEnd(commit: true, xid: 4, time: time(1))
        let facts = try facts(builder)[0]
        #expect(
            facts.suspect
                == .init(lsn: lsn, reason: "The content of a \(nonsense.what) record is not understood"))
        #expect(facts.events.commits == 0)
    }

    // MARK: Bounds

    @Test("thousands of restore points and tablespaces are counted, and the record stays small")
    func bounded() throws {
        var builder = WALBuilder()
        for index in 0..<2000 {
            builder.appendRestorePoint([UInt8](repeating: 1, count: 60), time: time(Int64(index)))
            if index < 100 { builder.appendTablespace(UInt32(index), path: [UInt8](repeating: 0x22, count: 900)) }
            builder.appendEnd(commit: true, xid: UInt32(index) * 100_000 + 3, time: time(1))
        }
        let events = try facts(builder)[0].events
        #expect(events.restorePoints.count > 20 && events.restorePointsOmitted > 1000)
        #expect(events.restorePoints.count + events.restorePointsOmitted == 2000)
        #expect(events.tablespaces.count + events.tablespacesOmitted == 100)
        for facts in try facts(builder) {
            let text = facts.jsonValue.compactText
            #expect(text.utf8.count < 64 << 10)
            #expect(try roundTrip(facts) == facts)
        }
    }

    // MARK: The record between two segments

    @Test("a commit cut by the border is known from the two halves, wherever it is cut")
    func straddlingCommit() throws {
        let subtransactions = (0..<40).map { UInt32($0 + 100) }
        // The record is 206 bytes long.
        for left in stride(from: 8, to: 208, by: 8) {
            var builder = WALBuilder()
            builder.fill(leaving: left)
            let lsn = builder.appendEnd(
                commit: true, xid: 0, time: time(5), prepared: 77, subtransactions: subtransactions)
            builder.appendEnd(commit: true, xid: 78, time: time(6))
            let facts = try facts(builder)
            try #require(facts.count == 2)
            #expect(facts[0].walk.unfinished?.lsn == lsn)
            #expect(facts[1].events.commits == 1)
            let joined = WALFacts.straddling(try roundTrip(facts[0]), try roundTrip(facts[1]), version: .v15)
            guard case .events(let events) = joined else {
                Issue.record("\(left) bytes before the border: \(joined)")
                continue
            }
            #expect(events.firstCommit == TransactionEnd(lsn: lsn, time: time(5), xid: 77))
            #expect(events.endedTransactions?.contains(77) == true)
        }
    }

    @Test(
        "a large record without events is nothing, a large commit is unknown",
        arguments: [
            (8, 10, 0x20), (16, 10, 0x20), (24, 10, 0x20), (4000, 10, 0x20), (8, 1, 0x80), (24, 1, 0x80),
            (4000, 1, 0x80),
        ] as [(Int, UInt8, UInt8)])
    func largeStraddling(_ left: Int, _ manager: UInt8, _ info: UInt8) throws {
        var builder = WALBuilder()
        builder.fill(leaving: left)
        builder.append(manager: manager, info: info, xid: 3, data: [UInt8](repeating: 2, count: 9000))
        let facts = try facts(builder)
        let straddling = WALFacts.straddling(facts[0], facts[1], version: .v15)
        #expect(straddling == (manager == 1 ? .unknown : .nothing))
    }

    @Test("segments that do not fit each other are told")
    func mismatch() throws {
        var one = WALBuilder()
        one.fill(leaving: 64)
        one.append(manager: 1, info: 0, xid: 3, data: [UInt8](repeating: 2, count: 100))
        var other = WALBuilder()
        other.fill(leaving: 64)
        other.append(manager: 1, info: 0, xid: 3, data: [UInt8](repeating: 2, count: 108))
        let facts = (try facts(one), try facts(other))
        guard case .mismatch(let reason) = WALFacts.straddling(facts.0[0], facts.1[1], version: .v15) else {
            Issue.record("the segments were taken to fit")
            return
        }
        #expect(reason.hasPrefix("The segment at 0/600000 carries on a record with "))
    }

    @Test("a record that was given up at the border is nothing")
    func givenUp() throws {
        var builder = WALBuilder()
        builder.fill(leaving: 104)
        let lost = builder.appendAbandoned(length: 400, pages: 1)
        builder.appendOverwrite(of: lost)
        let facts = try facts(builder)
        #expect(WALFacts.straddling(facts[0], facts[1], version: .v15) == .nothing)
    }

    // MARK: Records from outside

    @Test("facts of a newer format are refused as such, and damaged ones as damaged")
    func refused() throws {
        let text = try facts(eventful())[0].jsonValue.compactText
        func read(_ text: String) throws -> WALFacts {
            try WALFacts(JSONRecord(parsing: Array(text.utf8), what: "WAL facts"))
        }
        for (from, to, code) in [
            ("\"format\":1", "\"format\":2", ErrorCode.formatUnknown), ("\"records\":9", "\"records\":-1", .damaged),
            ("\"runs\":\"00030300\"", "\"runs\":\"0003\"", .damaged),
            ("\"runs\":\"00030300\"", "\"runs\":\"00ffffffff0f0300\"", .damaged),
            ("\"count\":5", "\"count\":6", .damaged), ("0/500028", "0/x", .damaged),
            ("\"xid\":12", "\"xid\":-1", .damaged),
            ("\"pageTimelines\":[1,1]", "\"pageTimelines\":[1]", .damaged),
            ("2027-01-15T08:00:07.000007Z", "yesterday", .damaged),
        ] {
            let changed = text.replacing(from, with: to)
            try #require(changed != text)
            #expect(throws: KedgeError.self) { try read(changed) }
            let error = #expect(throws: KedgeError.self) { try read(changed) }
            #expect(error?.code == code, "\(to)")
        }
    }
}

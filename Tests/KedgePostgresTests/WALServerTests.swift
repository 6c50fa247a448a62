// The walk and its facts against real WAL of every installed version, record by record with pg_waldump where the
// version has one, and against what SQL says of the same transactions.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct WALServerTests {
    /// Keeps what pg_waldump prints too.
    private struct Recorder: WALRecordVisitor {
        var records: [LSN: WALRecord.Header] = [:]

        mutating func visit(_ record: WALRecord) -> String? {
            records[record.lsn] = record.header
            return nil
        }
    }

    private func walk(
        _ workload: WALWorkload, _ segment: WALSegment, _ recorder: inout Recorder
    ) throws -> WALFacts {
        let bytes = try workload.bytes(of: segment)
        let name = segment.fileName(segmentSize: UInt64(workload.format.segmentSize))
        return try bytes.withUnsafeBytes { buffer in
            let fileName = try #require(WALFileName(name))
            try WALFileCheck.check(
                name: fileName, firstPage: buffer, sizeBytes: UInt64(buffer.count), format: workload.format)
            _ = try WALReader.walk(buffer, segment: segment, format: workload.format, visitor: &recorder)
            return try WALFacts(of: buffer, segment: segment, isPartial: false, format: workload.format)
        }
    }

    /// Small segments have many borders; 16 MiB is what everybody uses.
    private static let cases = PostgresInstallation.all.map { ($0, 1) } + [(PostgresInstallation.standard, 16)]

    @Test(
        "the walk finds each record that pg_waldump finds, and the facts agree with it",
        arguments: cases)
    func agreesWithWaldump(_ installation: PostgresInstallation, segmentMiB: Int) throws {
        let workload = try WALWorkload(installation, segmentMiB: segmentMiB)
        var recorder = Recorder()
        var facts: [WALFacts] = []
        for segment in workload.segments { facts.append(try walk(workload, segment, &recorder)) }

        try checkShape(facts, workload)
        if installation.has("pg_waldump") {
            let dumped = try DumpedRecord.all(of: workload)
            checkRecords(recorder, facts, dumped)
            try checkFacts(facts, dumped, workload)
            try checkBorders(facts, dumped, workload)
        }
        try checkAgainstSQL(facts, workload)
    }

    /// Every segment is walked to its end, the last one to the shutdown checkpoint that pg_control names.
    private func checkShape(_ facts: [WALFacts], _ workload: WALWorkload) throws {
        for facts in facts.dropLast() {
            #expect(facts.suspect == nil, "segment at \(facts.startLSN)")
            let inMiddleOfRecord = facts.walk.remaining > 0
            let full = LSN(facts.startLSN.position + UInt64(workload.format.segmentSize))
            #expect(inMiddleOfRecord || facts.endLSN == full, "segment at \(facts.startLSN)")
        }
        let last = try #require(facts.last)
        #expect(last.walk.lastRecord == workload.control.checkpoint)
        #expect(last.events.lastCheckpoint?.isShutdown == true)
        #expect(last.events.lastCheckpoint?.redo == workload.control.redo)
        // pg_switch_wal() twice; the message of 5 MiB fills some segments of 1 MiB from end to end.
        #expect(facts.count { $0.walk.endsWithSwitch } == 2)
        let within = facts.count { $0.walk.records == 0 && $0.walk.remaining > 0 }
        #expect(workload.format.segmentSize == 1 << 20 ? within >= 4 : within <= 1)
    }

    /// Ids and times as the server itself knows them.
    private func checkAgainstSQL(_ facts: [WALFacts], _ workload: WALWorkload) throws {
        try workload.server.start()
        defer { try? workload.server.stop() }
        let ended = facts.compactMap(\.events.endedTransactions).flatMap { set in
            (set.runs ?? []).flatMap { run in (0..<run.length).map { run.first &+ $0 } }
        }
        let commits = facts.reduce(0) { $0 + $1.events.commits }
        let aborts = facts.reduce(0) { $0 + $1.events.aborts }
        #expect(commits > 3500 && aborts > 100)
        let states = try workload.server.psql(
            "SELECT pg_xact_status(x::text::xid8), count(*) FROM unnest('{\(list(ended))}'::bigint[]) x "
                + "WHERE x > 800 GROUP BY 1 ORDER BY 1")
        #expect(states.map { $0[0] } == ["aborted", "committed"])
        for commit in facts.flatMap({ [$0.events.firstCommit, $0.events.lastCommit] }).compactMap({ $0 })
        where commit.xid > 800 {
            let time = try workload.server.value(
                "SELECT (extract(epoch FROM pg_xact_commit_timestamp('\(commit.xid)'::xid)) * 1000000)::bigint")
            #expect(time == String(commit.time.microseconds), "transaction \(commit.xid)")
        }
    }

    private func list(_ xids: [UInt32]) -> String { xids.map { String($0) }.joined(separator: ",") }

    private func checkRecords(_ recorder: Recorder, _ facts: [WALFacts], _ dumped: [DumpedRecord]) {
        let crossing = Set(facts.compactMap(\.walk.unfinished?.lsn))
        var missed: Set<LSN> = []
        var different: [LSN] = []
        for record in dumped {
            guard let header = recorder.records[record.lsn] else {
                missed.insert(record.lsn)
                continue
            }
            if (header.resourceManager, header.totalLength, header.xid, header.previous)
                != (record.manager, record.length, record.xid, record.previous)
            {
                different.append(record.lsn)
            }
        }
        #expect(missed == crossing)
        #expect(different == [])
        #expect(recorder.records.count + missed.count == dumped.count)
        #expect(Set(dumped.map(\.manager)).isSuperset(of: [0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21]))
    }

    private func checkFacts(_ facts: [WALFacts], _ dumped: [DumpedRecord], _ workload: WALWorkload) throws {
        let crossing = Set(facts.compactMap(\.walk.unfinished?.lsn))
        let size = UInt64(workload.format.segmentSize)
        let bySegment = Dictionary(grouping: dumped.filter { !crossing.contains($0.lsn) }) { $0.lsn.position / size }
        for facts in facts {
            let here = bySegment[facts.startLSN.position / size] ?? []
            let ends = here.compactMap(\.transactionEnd)
            let commits = ends.filter(\.isCommit).map(\.end)
            let events = facts.events
            #expect((events.commits, events.aborts) == (commits.count, ends.count - commits.count))
            #expect((events.firstCommit, events.lastCommit) == (commits.first, commits.last))
            #expect((events.firstEnd, events.lastEnd) == (ends.first?.end, ends.last?.end))
            #expect(events.earliestTime == ends.map(\.end.time).min())
            #expect(events.latestTime == ends.map(\.end.time).max())
            #expect(events.endedTransactions?.count ?? 0 == Set(ends.map(\.end.xid).filter { $0 != 0 }).count)
            let missing = ends.map(\.end.xid).filter { $0 != 0 && events.endedTransactions?.contains($0) != true }
            #expect(missing == [])
            #expect(
                events.restorePoints.map { "RESTORE_POINT \($0.name)" }
                    == here.filter { $0.manager == 0 && $0.description.hasPrefix("RESTORE_POINT") }
                    .map { $0.description })
            #expect(
                events.tablespaces.map { "CREATE \($0.oid) \"\($0.path)\"" }
                    == here.filter { $0.manager == 5 && $0.description.hasPrefix("CREATE") }.map { $0.description })
            #expect(
                events.checkpoints
                    == here.count {
                        $0.manager == 0 && $0.description.hasPrefix("CHECKPOINT_")
                            && !$0.description.hasPrefix("CHECKPOINT_REDO")
                    })
            let text = Array(facts.jsonValue.compactText.utf8)
            #expect(text.count < 64 << 10)
            #expect(try WALFacts(JSONRecord(parsing: text, what: "facts")) == facts)
        }
        let points = facts.flatMap(\.events.restorePoints).map(\.name.description)
        #expect(points == ["between", "vor dem Löschen \"t\"", "end"])
        #expect(facts.flatMap(\.events.tablespaces).count == 2)
    }

    /// What crosses a border is known from the two halves, if it matters.
    private func checkBorders(_ facts: [WALFacts], _ dumped: [DumpedRecord], _ workload: WALWorkload) throws {
        let records = Dictionary(uniqueKeysWithValues: dumped.map { ($0.lsn, $0) })
        for (earlier, later) in zip(facts, facts.dropFirst()) {
            let straddling = WALFacts.straddling(earlier, later, version: workload.format.version)
            guard let unfinished = earlier.walk.unfinished else {
                #expect(straddling == .nothing)
                continue
            }
            let record = try #require(records[unfinished.lsn])
            #expect(record.length == unfinished.length)
            guard let (end, isCommit) = record.transactionEnd else {
                // A checkpoint is an event without a transaction.
                #expect(straddling == .nothing || record.manager == 0 && record.description.hasPrefix("CHECKPOINT"))
                continue
            }
            guard case .events(let events) = straddling else {
                #expect(straddling == .unknown && Int(record.length) > WALReader.keptBytes, "\(record)")
                continue
            }
            #expect((events.commits, events.aborts) == (isCommit ? 1 : 0, isCommit ? 0 : 1))
            #expect(events.firstEnd == end)
        }
    }
}

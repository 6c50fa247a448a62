// Sets of transaction ids: exact in little space, right across the wraparound, bounded, and safe to decode.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct TransactionIDSetTests {
    /// The set of these ids, after a trip through a record.
    private func set(_ xids: [UInt32], batch: Int = 16) throws -> TransactionIDSet {
        var collector = TransactionIDCollector(batch: batch)
        for xid in xids { collector.insert(xid) }
        var events = WALEvents()
        events.endedTransactions = collector.finish()
        let facts = WALFacts(
            timeline: TimelineID(1), startLSN: LSN(1 << 24), isPartial: false, walk: WALWalk(), events: events)
        let text = Array(facts.jsonValue.compactText.utf8)
        return try #require(try WALFacts(JSONRecord(parsing: text, what: "facts")).events.endedTransactions)
    }

    @Test("ids in any order, some of them twice, become runs")
    func runs() throws {
        let set = try set([8, 5, 6, 5, 100, 7, 102, 101])
        #expect(set.runs == [.init(first: 5, length: 4), .init(first: 100, length: 3)])
        #expect((set.count, set.oldest, set.newest) == (7, 5, 102))
        #expect(
            [4, 5, 8, 9, 99, 100, 102, 103].map { set.contains($0) }
                == [false, true, true, false, false, true, true, false])
    }

    @Test("ids on both sides of the wraparound are in order")
    func wraparound() throws {
        let set = try set([UInt32.max - 1, 3, UInt32.max, 5])
        #expect((set.oldest, set.newest) == (UInt32.max - 1, 5))
        #expect(set.contains(UInt32.max) == true && set.contains(3) == true && set.contains(5) == true)
        #expect(set.contains(4) == false && set.contains(1000) == false && set.contains(UInt32.max - 2) == false)
    }

    @Test("more ids than a batch holds are all kept", arguments: [1, 2, 7, 100, 5000])
    func batches(_ batch: Int) throws {
        // Some ids are subtransactions' and missing; the order is stirred, as concurrency does.
        var xids = (0..<5000).filter { !$0.isMultiple(of: 70) }.map { UInt32($0) + 1_000_000 }
        for index in stride(from: 0, to: xids.count - 800, by: 5) { xids.swapAt(index, index + index % 800) }
        let set = try set(xids, batch: batch)
        #expect(set.count == xids.count)
        #expect(xids.allSatisfy { set.contains($0) == true })
        #expect(set.contains(1_000_070) == false)
    }

    @Test("where there would be too many runs only the range is kept, and the answer is: unknown")
    func inexact() throws {
        let set = try set((0..<20_000).map { $0 * 3 + 10 }, batch: 3000)
        #expect(set.runs == nil)
        #expect((set.oldest, set.newest, set.count) == (10, 60_007, 20_000))
        #expect(set.contains(13) == nil && set.contains(12) == nil)
        #expect(set.contains(9) == false && set.contains(60_008) == false)
    }

    @Test("an empty collection is no set")
    func empty() {
        var collector = TransactionIDCollector()
        #expect(collector.finish() == nil)
    }
}

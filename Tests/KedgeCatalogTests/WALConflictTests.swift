// What two contents of one WAL file mean, in generated cases: where they part and which of them goes on from there.
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeCatalog

@Suite struct WALConflictTests {
    private func copy(_ bytes: [UInt8], recordsEnd: LSN?) -> WALConflict.Copy {
        let facts = WALFileFacts(
            file: .segment("000000010000000000000001"), length: UInt64(bytes.count),
            tag: bytes.withBytes { ContentHash(of: $0) }, archivedAt: Timestamp(secondsSince1970: 1_795_000_000),
            hostName: "db1", segment: nil)
        var copy = WALConflict.Copy(facts, storedAt: Timestamp(secondsSince1970: 1_795_000_001))
        copy.recordsEnd = recordsEnd
        return copy
    }

    @Test("the first difference and its meaning follow from the bytes and the ends of the records")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        let start = LSN(1 << 20)
        var seen: [WALConflict.Meaning: Int] = [:]
        for _ in 0..<2000 {
            let one = random.bytes(1 + random.next(below: 300))
            var other = one
            if random.next(below: 4) == 0 { other.removeLast(random.next(below: other.count)) }
            if !other.isEmpty, random.next(below: 3) > 0 { other[random.next(below: other.count)] ^= 1 }
            func end(_ bytes: [UInt8]) -> LSN? {
                random.next(below: 8) == 0 ? nil : start + UInt64(random.next(below: bytes.count + 1))
            }
            let (first, second) = (copy(one, recordsEnd: end(one)), copy(other, recordsEnd: end(other)))
            let conflict = WALConflict(
                .segment("000000010000000000000001"), first, one, second, other, segmentStart: start)
            guard let conflict else {
                #expect(one == other)
                continue
            }
            #expect(one != other)
            #expect(one.prefix(conflict.offset) == other.prefix(conflict.offset))
            let rests = (one.dropFirst(conflict.offset).first, other.dropFirst(conflict.offset).first)
            #expect(rests.0 != rests.1)
            #expect(conflict.lsn == start + UInt64(conflict.offset))
            #expect(conflict.place == "The two first differ at LSN \(start + UInt64(conflict.offset)) of timeline 1.")
            seen[conflict.meaning, default: 0] += 1
            guard let a = first.recordsEnd, let b = second.recordsEnd, let lsn = conflict.lsn else {
                #expect(conflict.meaning == .unknown && conflict.explanation("a", "b") == nil)
                continue
            }
            switch conflict.meaning {
            case .sameRecords: #expect(a <= lsn && b <= lsn)
            case .continued(let bySecond): #expect(bySecond ? b > lsn && a <= lsn : a > lsn && b <= lsn)
            case .parted: #expect(a > lsn && b > lsn)
            case .unknown: Issue.record("both ends are known")
            }
            #expect(conflict.explanation("a", "b") != nil)
        }
        #expect(seen.count == 5 && seen.values.allSatisfy { $0 > 20 }, "\(seen)")
    }

    @Test("who wrote a copy is told in one sentence")
    func sentence() {
        var one = copy([1], recordsEnd: LSN(1 << 20))
        one.lastEnd = Timestamp(secondsSince1970: 1_794_999_999)
        #expect(
            WALConflict.sentence("The stored one", one)
                == "The stored one was archived by host \"db1\" at 2026-11-18T11:06:40Z (2026-11-18T11:06:41Z by the "
                + "store's clock), its records end at 0/100000, its last transaction at 2026-11-18T11:06:39Z.")
    }
}

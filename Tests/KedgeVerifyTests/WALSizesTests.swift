// That the sizes of WAL segments are told as proofs keep them: of neighbours in one block, none of which is missing.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct WALSizesTests {
    private func segment(_ number: UInt64) -> WALSegment { WALSegment(timeline: TimelineID(3), number: number) }

    @Test("200 random archives: ranges hold what is there and nothing else, and each size counts")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        for round in 0..<200 {
            var sizes = WALSizes()
            var present: [UInt64: UInt64] = [:]
            for _ in 0..<random.next(below: 200) {
                let number = 1_000_000 + UInt64(random.next(below: 300))
                guard present[number] == nil else { continue }
                present[number] = UInt64(1 + random.next(below: 1 << 30))
                sizes.add(segment(number), bytes: present[number] ?? 0)
            }
            #expect(sizes.ranges.flatMap { Array($0.first...$0.last) } == present.keys.sorted(), "round \(round)")
            for range in sizes.ranges {
                #expect(range.timeline == TimelineID(3) && range.first / 64 == range.last / 64)
                #expect(range.sizes != nil && range.sizes == sizes.checksum(range.timeline, range.first...range.last))
                let victim = range.first + UInt64(random.next(below: Int(range.last - range.first) + 1))
                var others = WALSizes()
                for number in range.first...range.last {
                    let bytes = present[number] ?? 0
                    others.add(segment(number), bytes: number == victim ? bytes ^ (1 << random.next(below: 40)) : bytes)
                }
                #expect(others.checksum(range.timeline, range.first...range.last) != range.sizes, "round \(round)")
            }
        }
    }

    @Test("there is no checksum over a hole, an empty object, the border of a block, or two objects of one segment")
    func none() throws {
        var sizes = WALSizes()
        for number in UInt64(0)..<130 where number != 7 { sizes.add(segment(number), bytes: number == 9 ? 0 : 50) }
        func checksum(_ numbers: ClosedRange<UInt64>) -> ContentHash? { sizes.checksum(TimelineID(3), numbers) }
        #expect(checksum(10...63) == ContentHash(of: (10...63).flatMap { _ in [50, 0, 0, 0, 0, 0, 0, 0] as [UInt8] }))
        for numbers in [6...8, 7...7, 8...9, 63...64, 0...129, 129...130, 200...201, 0...UInt64.max] {
            #expect(checksum(numbers) == nil, "\(numbers)")
        }
        #expect(sizes.checksum(TimelineID(4), 10...63) == nil)
        let before = try #require(checksum(10...12))
        sizes.add(segment(11), bytes: 50)
        #expect(checksum(10...12) != before)
    }
}

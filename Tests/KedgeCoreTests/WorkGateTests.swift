// That a gate never lets more through at once than its limit, and everybody in the end.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct WorkGateTests {
    @Test("what is under way at once never counts more than the limit, and more than the limit passes alone")
    func limit() throws {
        let gate = WorkGate(limit: 10)
        let random = SeededRandom(seed: testSeed())
        let counts = (0..<400).map { _ in 1 + random.next(below: 14) }
        let (inside, most, passed) = (Monitor(0), Monitor(0), Monitor(0))
        try parallelFor(
            count: counts.count, threads: 6, name: "gate", makeState: { () throws(KedgeError) in 0 },
            body: { (_, number) throws(KedgeError) in
                try gate.pass(counting: counts[number]) { () throws(KedgeError) in
                    let share = min(counts[number], 10)
                    let now = inside.update { inside in
                        inside += share
                        return inside
                    }
                    most.update { $0 = max($0, now) }
                    sched_yield()
                    passed.update { $0 += 1 }
                    inside.update { $0 -= share }
                }
            })
        #expect(most.update { $0 } <= 10 && passed.update { $0 } == counts.count)
    }
}

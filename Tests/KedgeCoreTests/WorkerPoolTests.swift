// Worker threads: states of their own, a bounded queue, and an error that reaches whoever submits.
import KedgeCore
import Testing

@Suite struct WorkerPoolTests {
    private static let failure = KedgeError(.damaged, "cannot do item")

    @Test("every item is done once, and each worker finishes its own state", arguments: [1, 2, 5])
    func allItems(workers: Int) throws {
        let sums = Monitor([Int]())
        try WorkerPool.run(1...1000, name: "test", workers: workers) { (_: Int) in
            0
        } body: { (sum: inout Int, item: Int) in
            sum += item
        } finishState: { (sum: consuming Int) in
            let sum = sum
            sums.update { $0.append(sum) }
        }
        let results = sums.update { $0 }
        #expect(results.count == workers)
        #expect(results.reduce(0, +) == 500_500)
    }

    @Test("the first error ends the run, no state is finished, and what follows is not done")
    func firstError() throws {
        let done = Monitor(0)
        let finished = Monitor(0)
        let error = #expect(throws: KedgeError.self) {
            try WorkerPool.run(1...100_000, name: "test", workers: 3) { (_: Int) in
                ()
            } body: { (_: inout Void, item: Int) throws(KedgeError) in
                if item == 10 { throw Self.failure }
                done.update { $0 += 1 }
            } finishState: { (_: consuming Void) in
                finished.update { $0 += 1 }
            }
        }
        #expect(error?.code == .damaged)
        #expect(done.update { $0 } < 100)
        #expect(finished.update { $0 } == 0)
    }

    @Test("an error of a state's making or finishing is the run's error", arguments: [true, false])
    func stateError(inMaking: Bool) {
        #expect(throws: KedgeError.self) {
            try WorkerPool.run(0..<3, name: "test", workers: 2) { (_: Int) throws(KedgeError) in
                if inMaking { throw Self.failure }
            } body: { (_: inout Void, _: Int) in
            } finishState: { (_: consuming Void) throws(KedgeError) in
                throw Self.failure
            }
        }
    }

    @Test("submit waits while the queue is full")
    func boundedQueue() throws {
        let gate = Monitor(false)
        let submitted = Monitor(0)
        let pool = try WorkerPool<Int>(name: "test", workers: 1, queueLimit: 2) { (_: Int) in
            ()
        } body: { (_: inout Void, _: Int) in
            let _: Bool = gate.wait { $0 ? true : nil }
        } finishState: { (_: consuming Void) in
        }
        let producer = try Thread(name: "producer") {
            do {
                for item in 0..<10 {
                    try pool.submit(item)
                    submitted.update { $0 += 1 }
                }
            } catch {
                Issue.record("submit failed: \(error)")
            }
        }
        // One item is in the worker's hands and two are queued; the fourth waits for the gate.
        let reached: Int = submitted.wait { $0 >= 3 ? $0 : nil }
        #expect(reached == 3)
        #expect(submitted.update { $0 } == 3)
        gate.update { $0 = true }
        producer.join()
        try pool.finish()
        #expect(submitted.update { $0 } == 10)
    }

    @Test("a pool that is given up drops what is queued and ends its threads")
    func givenUp() throws {
        let done = Monitor(0)
        let gate = Monitor(false)
        do {
            let pool = try WorkerPool<Int>(name: "test", workers: 1, queueLimit: 100) { (_: Int) in
                ()
            } body: { (_: inout Void, _: Int) in
                let _: Bool = gate.wait { $0 ? true : nil }
                done.update { $0 += 1 }
            } finishState: { (_: consuming Void) in
            }
            for item in 0..<50 { try pool.submit(item) }
            gate.update { $0 = true }
        }
        // Whatever was done, the threads have been joined: nothing changes any more.
        #expect(done.update { $0 } <= 50)
    }

    @Test("a parallel loop does every number once, with no more states than threads", arguments: [0, 1, 2, 16, 100])
    func loop(count: Int) throws {
        let seen = Monitor([Int]())
        let states = Monitor(0)
        try parallelFor(count: count, threads: 4, name: "loop") {
            states.update { $0 += 1 }
        } body: { (_: inout Void, number) in
            seen.update { $0.append(number) }
        }
        #expect(seen.update { $0 }.sorted() == Array(0..<count))
        #expect(states.update { $0 } <= min(count, 4))
    }

    @Test("a parallel loop throws the error of the lowest number and stops early")
    func loopError() {
        let seen = Monitor(0)
        let error = #expect(throws: KedgeError.self) {
            try parallelFor(count: 100_000, threads: 4, name: "loop") {
            } body: { (_: inout Void, number) throws(KedgeError) in
                seen.update { $0 += 1 }
                if number >= 7 { throw KedgeError(.damaged, "cannot do \(number)") }
            }
        }
        #expect(error?.message == "cannot do 7")
        #expect(seen.update { $0 } <= 16)
    }
}

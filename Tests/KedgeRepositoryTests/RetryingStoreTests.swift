// When a call is tried again and when not, how long that takes at most, and what a lost answer comes to.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct RetryingStoreTests {
    private let time = ManualTime()
    private let memory = MemoryStore()

    private func store(
        _ policy: RetryPolicy = RetryPolicy(), interruption: Interruption = Interruption(),
        code: ErrorCode = .repositoryUnavailable, plan: @escaping @Sendable (StoreOperation) -> Fault?
    ) -> (RetryingStore, FaultyStore) {
        let faulty = FaultyStore(memory, code: code, plan: plan)
        let store = RetryingStore(
            faulty, policy: policy, time: time, random: SeededRandom(seed: 3), interruption: interruption)
        return (store, faulty)
    }

    @Test("a retryable error is tried again until it succeeds, with waits below a doubling bound")
    func retried() throws {
        memory.plant("a", [1])
        let (store, faulty) = store { $0.number <= 4 ? .failBefore : nil }
        #expect(try store.readAll("a", limit: 1) == [1])
        #expect(faulty.operations.count == 5)
        let waited = time.sleeps.reduce(0, +)
        #expect(waited > 0 && waited <= 200_000_000 + 400_000_000 + 800_000_000 + 1_600_000_000)
    }

    @Test("other errors are not tried again", arguments: [ErrorCode.permission, .damaged, .noSpace, .inputOutput])
    func notRetried(_ code: ErrorCode) {
        let (store, faulty) = store(code: code) { _ in .failBefore }
        let error = #expect(throws: KedgeError.self) { try store.status(of: "a") }
        #expect(error?.code == code)
        #expect(faulty.operations.count == 1)
    }

    @Test("an absent object is an answer, not an error to retry")
    func absent() throws {
        let (store, faulty) = store { _ in nil }
        #expect(throws: KedgeError.self) { try store.readAll("a", limit: 1) }
        #expect(faulty.operations.count == 1)
    }

    @Test("a gateway that refuses connections while it restarts is waited for, up to a minute", arguments: 1...20)
    func restartingGateway(seed: UInt64) throws {
        for (seconds, isWaitedFor) in [(1, true), (30, true), (59, true), (61, false)] as [(UInt64, Bool)] {
            let (time, start) = (ManualTime(), ManualTime().monotonicNanoseconds())
            let faulty = FaultyStore(memory, code: .repositoryUnavailable) { _ in
                time.monotonicNanoseconds() < start + seconds * 1_000_000_000 ? .failBefore : nil
            }
            let store = RetryingStore(
                faulty, time: time, random: SeededRandom(seed: seed), interruption: Interruption())
            if isWaitedFor {
                #expect(try store.status(of: "a") == nil)
            } else {
                #expect(throws: KedgeError.self) { try store.status(of: "a") }
                #expect(time.monotonicNanoseconds() - start == 60_000_000_000)
                #expect(faulty.operations.count < 100, "it is asked too often")
            }
        }
    }

    @Test("attempts are bounded for whom somebody waits, and the error says how many there were")
    func bounded() {
        let (store, faulty) = store(.brief) { _ in .failBefore }
        let error = #expect(throws: KedgeError.self) { try store.status(of: "a") }
        #expect(error?.code == .repositoryUnavailable)
        #expect(faulty.operations.count == 6)
        #expect(error?.detail?.contains("It was tried 6 times within ") == true)
    }

    @Test("no attempt begins after the deadline, but there are always two (lesson 22)", arguments: [0, 50_000_000])
    func deadline(_ nanoseconds: UInt64) {
        var policy = RetryPolicy()
        policy.deadlineNanoseconds = nanoseconds
        let (store, faulty) = store(policy) { _ in .failBefore }
        #expect(throws: KedgeError.self) { try store.status(of: "a") }
        #expect(faulty.operations.count >= 2)
        #expect(time.sleeps.reduce(0, +) <= nanoseconds)
    }

    @Test("operations that share a deadline have it together, and two attempts each behind it (lesson 22)")
    func sharedDeadline() {
        let begin = time.monotonicNanoseconds()
        var policy = RetryPolicy()
        policy.startNanoseconds = begin
        let (store, faulty) = store(policy) { _ in .failBefore }
        #expect(throws: KedgeError.self) { try store.status(of: "a") }
        #expect(time.monotonicNanoseconds() - begin == 60_000_000_000)
        let first = faulty.operations.count
        #expect(first > 6)
        for number in 1...3 {
            let error = #expect(throws: KedgeError.self) { try store.status(of: "b") }
            #expect(faulty.operations.count == first + 2 * number)
            #expect(error?.detail?.hasSuffix("It was tried 2 times within 1 s.") == true, "\(error?.detail ?? "")")
        }
        #expect(time.monotonicNanoseconds() - begin == 60_000_000_000)
    }

    @Test("an interruption ends the waiting")
    func interrupted() {
        let interruption = Interruption()
        interruption.request(signal: 15)
        let (store, faulty) = store(interruption: interruption) { _ in .failBefore }
        let error = #expect(throws: KedgeError.self) { try store.status(of: "a") }
        #expect(error?.code == .interrupted)
        #expect(faulty.operations.count == 1)
    }

    @Test("a put whose answer was lost is still .created")
    func lostAnswer() throws {
        let (store, faulty) = store { $0.number == 1 ? .failAfter : nil }
        #expect(try store.put("a", ObjectBody([[1, 2], [3]]), .createOnly) == .created)
        #expect(memory.contents["a"] == [1, 2, 3])
        #expect(faulty.operations.map(\.kind) == [.put, .put, .status, .read, .read, .makeDurable])
    }

    @Test(
        "a put that failed and finds another's object is .alreadyExists", arguments: [[9, 9, 9], [1, 2]] as [[UInt8]])
    func lostRace(_ other: [UInt8]) throws {
        memory.plant("a", other)
        let (store, _) = store { $0.number == 1 ? .failBefore : nil }
        #expect(try store.put("a", ObjectBody([1, 2, 3]), .createOnly) == .alreadyExists)
        #expect(memory.contents["a"] == other)
    }

    @Test("a first put that finds its own bytes there is .alreadyExists: nothing was lost on the way")
    func equalObject() throws {
        memory.plant("a", [1])
        let (store, _) = store { _ in nil }
        #expect(try store.put("a", ObjectBody([1]), .createOnly) == .alreadyExists)
    }

    @Test(
        "an upload survives failures of each of its calls, and no byte is there twice",
        arguments: [Fault.failBefore, .failAfter])
    func upload(_ fault: Fault) throws {
        let (store, faulty) = store { $0.number.isMultiple(of: 2) ? nil : fault }
        let upload = try store.beginUpload("a", expectedBytes: 6)
        try upload.append([1, 2, 3])
        try upload.append([4, 5, 6])
        #expect(try upload.finish() == .created)
        #expect(memory.contents["a"] == [1, 2, 3, 4, 5, 6])
        #expect(faulty.faultCount == 4)
    }

    @Test("objects that cannot be removed are named, and only those with a retryable error are tried again")
    func remove() throws {
        for name in ["a", "b", "c"] as [ObjectName] { memory.plant(name, [1]) }
        memory.refuseRemoval(of: "a", KedgeError(.timeout, "could not remove object \"a\""), times: 2)
        memory.refuseRemoval(of: "b", KedgeError(.permission, "could not remove object \"b\""), times: 100)
        let (store, faulty) = store { _ in nil }
        let failures = try store.remove(["a", "b", "c"])
        #expect(failures.map(\.name) == ["b"])
        #expect(failures.map(\.error.code) == [.permission])
        #expect(memory.names == ["b"])
        #expect(faulty.operations.map(\.name) == ["a b c", "a", "a"])
    }

    @Test("objects that stay after the last attempt are named with their errors")
    func removeInVain() throws {
        memory.plant("a", [1])
        memory.refuseRemoval(of: "a", KedgeError(.timeout, "could not remove object \"a\""), times: 100)
        let (store, faulty) = store(.brief) { _ in nil }
        #expect(try store.remove(["a", "b"]).map(\.error.code) == [.timeout])
        #expect(faulty.operations.count == 6)
    }
}

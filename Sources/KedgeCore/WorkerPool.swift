// A fixed number of threads for blocking work, each with its own buffers and contexts.
//
//   submit ─▶ bounded queue ─▶ worker: makeState · body for each item · finishState
//
// 1. The queue holds at most `queueLimit` items: `submit` waits, so memory is bounded by what is in flight.
// 2. A worker's state is made, used and ended on the worker's own thread; it need not be Sendable.
// 3. The first error stops the rest: queued items are dropped, workers stop before their next item, no state is
//    finished any more (its deinit cleans up), and `submit` and `finish` throw that error.

/// Worker threads that take items from a queue.
package final class WorkerPool<Item: Sendable>: Sendable {
    private let queue: WorkQueue<Item>
    private let threads: [Thread]

    /// Starts `workers` threads.
    ///
    /// `makeState` gets the worker's number, from 0. `finishState` runs after the last item when nothing failed.
    package init<State: ~Copyable>(
        name: String, workers: Int, queueLimit: Int,
        makeState: @escaping @Sendable (Int) throws(KedgeError) -> State,
        body: @escaping @Sendable (inout State, Item) throws(KedgeError) -> Void,
        finishState: @escaping @Sendable (consuming State) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        precondition(workers > 0 && queueLimit > 0, "a pool has at least one worker and room for one item")
        let queue = WorkQueue<Item>(limit: queueLimit)
        var threads: [Thread] = []
        for number in 0..<workers {
            do throws(KedgeError) {
                let thread = try Thread(name: "\(name)-\(number)") {
                    do throws(KedgeError) {
                        var state = try makeState(number)
                        while let item = queue.take() { try body(&state, item) }
                        if !queue.hasFailed { try finishState(state) }
                    } catch {
                        queue.fail(error)
                    }
                }
                threads.append(thread)
            } catch {
                queue.fail(error)
                for thread in threads { thread.join() }
                throw error
            }
        }
        self.queue = queue
        self.threads = threads
    }

    /// Frees the threads of a pool that was given up: what is queued is dropped.
    deinit {
        if queue.close(dropping: true) { for thread in threads { thread.join() } }
    }

    /// Queues an item; waits while the queue is full. Throws the first error of any worker.
    package func submit(_ item: Item) throws(KedgeError) { try queue.put(item) }

    /// Waits until all is done and all states are finished. Throws the first error of any worker. To be called once.
    package func finish() throws(KedgeError) {
        if queue.close(dropping: false) { for thread in threads { thread.join() } }
        if let error = queue.error { throw error }
    }

    /// Runs all of `items` through a pool of its own and waits for the end.
    package static func run<State: ~Copyable>(
        _ items: some Sequence<Item>, name: String, workers: Int,
        makeState: @escaping @Sendable (Int) throws(KedgeError) -> State,
        body: @escaping @Sendable (inout State, Item) throws(KedgeError) -> Void,
        finishState: @escaping @Sendable (consuming State) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        let pool = try WorkerPool(
            name: name, workers: workers, queueLimit: 2 * workers, makeState: makeState, body: body,
            finishState: finishState)
        for item in items { try pool.submit(item) }
        try pool.finish()
    }
}

/// The queue between whoever submits and the workers.
private final class WorkQueue<Item: Sendable>: Sendable {
    private struct State {
        var items: [Item] = []
        /// Items before this position were taken; the array is compacted now and then.
        var head = 0
        var isClosed = false
        var error: KedgeError?

        var count: Int { items.count - head }

        mutating func drop() {
            items.removeAll()
            head = 0
        }
    }

    private let limit: Int
    private let monitor = Monitor(State())

    init(limit: Int) { self.limit = limit }

    var error: KedgeError? { monitor.update { $0.error } }
    var hasFailed: Bool { error != nil }

    func put(_ item: Item) throws(KedgeError) {
        let failure: KedgeError?? = monitor.wait { state in
            if let error = state.error { return .some(error) }
            precondition(!state.isClosed, "no item may follow finish()")
            guard state.count < limit else { return nil }
            state.items.append(item)
            return .some(nil)
        }
        if case .some(.some(let error)) = failure { throw error }
    }

    /// The next item; nil when there will be none.
    func take() -> Item? {
        let item: Item?? = monitor.wait { state in
            if state.error != nil { return .some(nil) }
            guard state.count > 0 else { return state.isClosed ? .some(nil) : nil }
            let item = state.items[state.head]
            state.head += 1
            if state.head >= limit {
                state.items.removeFirst(state.head)
                state.head = 0
            }
            return item
        }
        return item ?? nil
    }

    func fail(_ error: KedgeError) {
        monitor.update { state in
            if state.error == nil { state.error = error }
            state.drop()
        }
    }

    /// Returns whether it was open until now.
    func close(dropping: Bool) -> Bool {
        monitor.update { state in
            if dropping { state.drop() }
            defer { state.isClosed = true }
            return !state.isClosed
        }
    }
}

/// Calls `body` for every number below `count`, on at most `threads` threads of which the calling one is the first.
///
/// Only as many extra threads are started as there is work for, so one item costs nothing more than a call. Every
/// thread makes a state of its own. After an error no new number is begun; of several the lowest number's is thrown.
package func parallelFor<State: ~Copyable>(
    count: Int, threads: Int, name: String,
    makeState: @escaping @Sendable () throws(KedgeError) -> State,
    body: @escaping @Sendable (inout State, Int) throws(KedgeError) -> Void
) throws(KedgeError) {
    let progress = Monitor(LoopProgress())
    @Sendable func work() {
        // A thread that comes too late to do anything makes no state.
        guard var number = progress.update({ $0.begin(count) }) else { return }
        do throws(KedgeError) {
            var state = try makeState()
            while true {
                try body(&state, number)
                guard let next = progress.update({ $0.begin(count) }) else { return }
                number = next
            }
        } catch {
            progress.update { $0.fail(number, error) }
        }
    }
    var started: [Thread] = []
    for index in 1..<max(1, min(threads, count)) {
        do throws(KedgeError) {
            started.append(try Thread(name: "\(name)-\(index)", work))
        } catch {
            // Fewer threads do the same work.
            break
        }
    }
    work()
    for thread in started { thread.join() }
    if let error = progress.update({ $0.error }) { throw error }
}

/// Which numbers of a parallel loop were begun, and what failed.
private struct LoopProgress {
    private var next = 0
    private var failedNumber = Int.max
    private(set) var error: KedgeError?

    mutating func begin(_ count: Int) -> Int? {
        guard error == nil, next < count else { return nil }
        defer { next += 1 }
        return next
    }

    mutating func fail(_ number: Int, _ error: KedgeError) {
        guard number < failedNumber else { return }
        failedNumber = number
        self.error = error
    }
}

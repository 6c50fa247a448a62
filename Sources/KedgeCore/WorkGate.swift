// A limit on how much of one kind of work is done at the same time.

/// Lets a fixed number of threads, or of whatever else `pass` counts, through at once; the others wait.
package final class WorkGate: Sendable {
    private let limit: Int
    private let free: Monitor<Int>

    /// A gate for `limit` threads, or bytes; 1 or more.
    package init(limit: Int) {
        precondition(limit > 0, "a gate lets at least one through")
        self.limit = limit
        free = Monitor(limit)
    }

    /// Runs `body` as soon as there is room for `count`; for more than the limit, as soon as nothing else is under way.
    package func pass<Result>(
        counting count: Int = 1, _ body: () throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        let count = min(max(1, count), limit)
        free.wait { free -> Void? in
            guard free >= count else { return nil }
            free -= count
            return ()
        }
        defer { free.update { $0 += count } }
        return try body()
    }
}

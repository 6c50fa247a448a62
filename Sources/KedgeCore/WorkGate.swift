// A limit on how many threads do one kind of work at the same time.

/// Lets a fixed number of threads through at once; the others wait.
package final class WorkGate: Sendable {
    private let free: Monitor<Int>

    /// A gate for `limit` threads; 1 or more.
    package init(limit: Int) {
        precondition(limit > 0, "a gate lets at least one through")
        free = Monitor(limit)
    }

    /// Runs `body` as soon as there is room.
    package func pass<Result>(_ body: () throws(KedgeError) -> Result) throws(KedgeError) -> Result {
        free.wait { free -> Void? in
            guard free > 0 else { return nil }
            free -= 1
            return ()
        }
        defer { free.update { $0 += 1 } }
        return try body()
    }
}

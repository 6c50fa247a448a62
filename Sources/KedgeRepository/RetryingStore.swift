// Bounded retries around any store.
//
// 1. Only errors whose code is retryable are tried again, by the very same call with the very same bytes.
// 2. Between attempts it waits a random time below a bound that doubles (full jitter): clients that failed together
//    do not come back together.
// 3. One deadline covers an operation with all its attempts, or several operations together; nothing below this layer
//    retries, so waits don't multiply. Even when the deadline has passed there are two attempts (lesson 22).
// 4. A put that failed may have succeeded. When a later attempt then finds the name taken, the bytes decide: equal ones
//    are ours (a sealed object never repeats another's bytes), so the answer is still "created".

package import KedgeCore

/// How often and how long to try.
package struct RetryPolicy: Hashable, Sendable {
    /// For those who do not want to use the whole time.
    package var maximumAttempts = Int.max
    /// The bound of the first wait; it doubles from attempt to attempt up to `longestDelayNanoseconds`.
    package var firstDelayNanoseconds: UInt64 = 200_000_000
    package var longestDelayNanoseconds: UInt64 = 10_000_000_000
    /// No attempt but the second is begun later than this after the start of the first, and the last one then: a store
    /// that restarts refuses connections at once, and a few attempts would be over in seconds.
    package var deadlineNanoseconds: UInt64 = 60_000_000_000
    /// From which moment of the monotonic clock the deadline counts for all operations together; nil: for each from
    /// its own start.
    package var startNanoseconds: UInt64?

    package init() {}

    /// For somebody who waits to be told that a repository can't be reached: some seconds where it refuses at once.
    package static let brief = {
        var policy = RetryPolicy()
        policy.maximumAttempts = 6
        return policy
    }()

    /// For those who have another repository to turn to: once more at once, to get past a connection that broke.
    package static let hasty = {
        var policy = RetryPolicy()
        policy.maximumAttempts = 2
        policy.deadlineNanoseconds = 5_000_000_000
        return policy
    }()

    /// The bound of the wait after attempt number `attempt`, from 1.
    func longestDelay(after attempt: Int) -> UInt64 {
        let doublings = UInt64(min(attempt - 1, 40))
        let (delay, overflow) = firstDelayNanoseconds.multipliedReportingOverflow(by: 1 << doublings)
        return overflow ? longestDelayNanoseconds : min(delay, longestDelayNanoseconds)
    }
}

/// A store that tries again what another store could not do.
package final class RetryingStore: ObjectStore {
    private let store: any ObjectStore
    private let retries: Retries

    package init(
        _ store: any ObjectStore, policy: RetryPolicy = RetryPolicy(), time: any TimeSource,
        random: any RandomSource, interruption: Interruption
    ) {
        self.store = store
        retries = Retries(policy: policy, time: time, random: random, interruption: interruption)
    }

    package var capabilities: StoreCapabilities { store.capabilities }
    package var location: String { store.location }

    package func space() throws(KedgeError) -> FileSystemSpace? {
        try retries.run { _ throws(KedgeError) in try store.space() }
    }

    package func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? {
        try retries.run { _ throws(KedgeError) in try store.status(of: name) }
    }

    package func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        try retries.run { _ throws(KedgeError) in try store.read(name, at: offset, into: buffer) }
    }

    package func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        try retries.run { _ throws(KedgeError) in try store.readPrefix(name, limit: limit) }
    }

    package func put(
        _ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition
    ) throws(KedgeError) -> PutOutcome {
        try retries.run { attempt throws(KedgeError) in
            let outcome = try store.put(name, body, condition)
            guard outcome == .alreadyExists, attempt > 1, try holds(name, body) else { return outcome }
            try store.makeDurable(name)
            return .created
        }
    }

    /// Whether the object's bytes are those of `body`.
    private func holds(_ name: ObjectName, _ body: ObjectBody) throws(KedgeError) -> Bool {
        guard try store.status(of: name)?.sizeBytes == UInt64(body.sizeBytes) else { return false }
        var offset: UInt64 = 0
        for part in body.parts {
            let end = offset + UInt64(part.count)
            guard try store.read(name, range: offset..<end) == part else { return false }
            offset = end
        }
        return true
    }

    package func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        let upload = try retries.run { _ throws(KedgeError) in
            try store.beginUpload(name, expectedBytes: expectedBytes)
        }
        return RetryingUpload(upload, retries)
    }

    package func makeDurable(_ name: ObjectName) throws(KedgeError) {
        try retries.run { _ throws(KedgeError) in try store.makeDurable(name) }
    }

    package func list(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> ListPage {
        try retries.run { _ throws(KedgeError) in try store.list(below: directory, after: after, limit: limit) }
    }

    package func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        try retries.run { _ throws(KedgeError) in
            try store.listDirectories(below: directory, after: after, limit: limit)
        }
    }

    package func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        var remaining = names
        var refused: [RemoveFailure] = []
        var retryable: [RemoveFailure] = []
        do throws(KedgeError) {
            try retries.run { _ throws(KedgeError) in
                retryable = []
                let failures = try store.remove(remaining)
                refused += failures.filter { !$0.error.code.isRetryable }
                retryable = failures.filter(\.error.code.isRetryable)
                remaining = retryable.map(\.name)
                if let first = retryable.first { throw first.error }
            }
        } catch {
            // The last attempt told of each name what became of it; otherwise nothing is known, and that is an error.
            if retryable.isEmpty { throw error }
        }
        return (refused + retryable).sorted { $0.name < $1.name }
    }

    package func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try retries.run { _ throws(KedgeError) in try store.removeAbandonedWrites(before: moment) }
    }
}

/// An upload whose calls are tried again; the protocol says that each may be.
private final class RetryingUpload: ObjectUpload {
    private let upload: any ObjectUpload
    private let retries: Retries

    init(_ upload: any ObjectUpload, _ retries: Retries) {
        self.upload = upload
        self.retries = retries
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        try retries.run { _ throws(KedgeError) in try upload.append(bytes) }
    }

    func finish() throws(KedgeError) -> PutOutcome {
        try retries.run { _ throws(KedgeError) in try upload.finish() }
    }

    func abort() { upload.abort() }
}

/// The loop that all operations share.
private struct Retries: Sendable {
    let policy: RetryPolicy
    let time: any TimeSource
    let random: any RandomSource
    let interruption: Interruption

    /// Calls `operation` with the attempt's number, from 1, until it succeeds or there is no more reason to try.
    func run<Result>(_ operation: (Int) throws(KedgeError) -> Result) throws(KedgeError) -> Result {
        let start = time.monotonicNanoseconds()
        var attempt = 1
        while true {
            do throws(KedgeError) {
                return try operation(attempt)
            } catch  where error.code.isRetryable {
                let now = time.monotonicNanoseconds()
                let elapsed = now - (policy.startNanoseconds ?? start)
                let isLate = elapsed >= policy.deadlineNanoseconds
                let left = isLate ? 0 : policy.deadlineNanoseconds - elapsed
                let delay = min(random.next() % (policy.longestDelay(after: attempt) + 1), left)
                if attempt >= policy.maximumAttempts || (isLate && attempt >= 2) {
                    throw told(error, attempts: attempt, nanoseconds: now - start)
                }
                if !isLate { try time.sleep(nanoseconds: delay, unless: interruption) }
                attempt += 1
            }
        }
    }

    private func told(_ error: KedgeError, attempts: Int, nanoseconds: UInt64) -> KedgeError {
        guard attempts > 1 else { return error }
        var error = error
        let sentence = "It was tried \(attempts) times within \(nanoseconds / 1_000_000_000 + 1) s."
        error.detail = error.detail.map { "\($0) \(sentence)" } ?? sentence
        return error
    }
}

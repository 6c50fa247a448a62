// Renews a lease beside long work, and remembers what went wrong for the work's summary. It never stops the work.

package import KedgeCore
import Synchronization

/// Keeps a lease until `end`.
package final class LeaseKeeper: Sendable {
    /// How often a lease is renewed: ten times before it expires.
    package static let standardInterval = Duration.seconds(30)

    private let renewals: Renewals
    /// Nil where there is no thread: then only `beat` renews.
    private let heartbeat: Heartbeat?

    /// Renews `lease` every `interval`; nil: only when `beat` is called.
    package init(
        _ lease: Lease, showing progress: WorkProgress, every interval: Duration? = standardInterval
    ) throws(KedgeError) {
        let renewals = Renewals(lease, progress)
        self.renewals = renewals
        if let interval {
            heartbeat = try Heartbeat(name: "lease", every: interval) { renewals.beat() }
        } else {
            heartbeat = nil
        }
    }

    /// Renews once, unless it is lost.
    package func beat() { renewals.beat() }

    /// Ends the renewals and gives the lease back. Returns a sentence for each thing that somebody should know. To be
    /// called exactly once.
    package func end() -> [String] {
        heartbeat?.stop()
        return renewals.end()
    }
}

/// What the thread and the keeper share.
private final class Renewals: Sendable {
    private struct State {
        var failures = 0
        var lastError: KedgeError?
        var lostTo: LeaseRecord?
        var isLost = false
    }

    private let lease: Lease
    private let progress: WorkProgress
    private let state = Mutex(State())

    init(_ lease: Lease, _ progress: WorkProgress) {
        self.lease = lease
        self.progress = progress
    }

    func beat() {
        guard !state.withLock({ $0.isLost }) else { return }
        do throws(KedgeError) {
            guard case .lost(let other) = try lease.renew(progress.snapshot) else { return }
            state.withLock { state in
                state.isLost = true
                state.lostTo = other
            }
        } catch {
            state.withLock { state in
                state.failures += 1
                state.lastError = error
            }
        }
    }

    func end() -> [String] {
        let state = state.withLock { $0 }
        let what = "The lease \"\(lease.record.operation)\""
        var warnings: [String] = []
        if let error = state.lastError {
            warnings.append("\(what) could not be renewed \(state.failures) time(s), at last: \(error.message).")
        }
        if state.isLost {
            let other = state.lostTo.map { "process \($0.process.processID) of host \"\($0.process.hostName)\"" }
            warnings.append(
                "\(what) was taken over by \(other ?? "another kedge"), which took this process for dead: the same "
                    + "work may have been done twice.")
            return warnings
        }
        do throws(KedgeError) {
            try lease.release()
        } catch {
            warnings.append("\(what) was not given back, and expires by itself: \(error.message).")
        }
        return warnings
    }
}

// Being asked to stop: SIGINT, SIGTERM and SIGHUP only set a flag; long work looks at it at its checkpoints, cleans up
// and unwinds with the error `interrupted`, and `main` ends as the command's rule says.
//
// A thread may hang in a system call that no signal ends: a mount whose server does not answer. So a thread of its own
// waits for the signals. It ends the process by force at a second one that comes a second or more after the first, or
// when the first has had no effect for some seconds. Nothing is cleaned up then, as after SIGKILL, and every write here
// is made so that this does no harm.

import CSystem
import Synchronization

/// A request to stop that every thread can see.
package final class Interruption: Sendable {
    private let requested = Atomic<Int32>(0)
    private let seesSignals: Bool
    private let parent: Interruption?
    private let hasFailed = Atomic<Bool>(false)
    private let failure = Mutex<KedgeError?>(nil)

    /// One that only `request(signal:)` raises, for tests and for work that ends with its scope.
    package convenience init() { self.init(seesSignals: false, parent: nil) }

    /// One for a part of what `parent` can stop: what stops the whole stops the part, and `stop(because:)` stops the
    /// part alone.
    package convenience init(within parent: Interruption) { self.init(seesSignals: false, parent: parent) }

    private init(seesSignals: Bool, parent: Interruption?) {
        self.seesSignals = seesSignals
        self.parent = parent
    }

    /// The one that SIGINT, SIGTERM and SIGHUP raise after `catchSignals()`.
    package static let process = Interruption(seesSignals: true, parent: nil)

    /// Makes SIGINT, SIGTERM and SIGHUP raise `process` unless our caller has them ignored, and SIGPIPE and SIGXFSZ
    /// harmless: writing to a closed pipe, or beyond the limit of file sizes, is an error like others. To be called
    /// once, by main, before any thread is started.
    package static func catchSignals() throws(KedgeError) {
        guard csystem_catch_interruptions() == 0 else {
            throw KedgeError(
                .defect, "cannot install signal handlers",
                hint: "Please report this with the system's name and version.")
        }
    }

    /// How this process ends by force: so long after the first signal, with `status`, or by that signal where it is
    /// nil.
    package static func endByForce(afterMilliseconds milliseconds: Int32, status: Int32?) {
        csystem_end_by_force_after(milliseconds, status ?? -1)
    }

    /// Makes this process exit with `status` where it would die of a fault of its own: for `archive-push`, at whose
    /// death by a signal the archiver itself exits (src/backend/postmaster/pgarch.c, pgarch_archiveXlog).
    package static func exitOnCrash(status: Int32) { _ = csystem_exit_on_crash(status) }

    /// Ends this process by `signal`, with nothing run afterwards. For main only.
    package static func endProcess(by signal: Int32) -> Never { csystem_die_by(signal) }

    /// The signal that asked to stop, nil while nobody did.
    package var signal: Int32? {
        let own = requested.load(ordering: .relaxed)
        if own != 0 { return own }
        if let inherited = parent?.signal { return inherited }
        guard seesSignals else { return nil }
        let caught = csystem_caught_interruption()
        return caught == 0 ? nil : caught
    }

    /// Asks to stop as if `signal` had arrived. The first request counts.
    package func request(signal: Int32) {
        _ = requested.compareExchange(expected: 0, desired: signal, ordering: .relaxed)
    }

    /// Stops the work with `error`: it has become of no use. The first reason counts, and a signal comes before it.
    package func stop(because error: KedgeError) {
        failure.withLock { failure in if failure == nil { failure = error } }
        hasFailed.store(true, ordering: .releasing)
    }

    /// Whether the work is to stop, for whichever reason.
    package var isRequested: Bool { signal != nil || reason != nil }

    private var reason: KedgeError? {
        if hasFailed.load(ordering: .acquiring) { return failure.withLock { $0 } }
        return parent?.reason
    }

    /// Throws `interrupted` once somebody asked to stop, or the reason that `stop(because:)` was given. Cheap enough
    /// for every frame.
    package func checkpoint() throws(KedgeError) {
        guard let signal else {
            if let reason { throw reason }
            return
        }
        throw KedgeError(
            .interrupted, "interrupted by signal \(signal)", detail: "The work was stopped at a safe point.",
            hint: "Run the command again: what it had finished is kept, or removed if it was of no use alone.")
    }
}

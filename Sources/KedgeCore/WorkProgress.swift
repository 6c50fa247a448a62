// How far long work has come: written by the workers, read by whoever shows it to people.

import Synchronization

/// Counters that workers raise and a display reads, at any time and from any thread.
package final class WorkProgress: Sendable {
    /// What a display sees.
    package struct Snapshot: Hashable, Sendable {
        /// What is being done, such as `copying`; empty before the first step.
        package let step: String
        /// Counts the steps begun, so that two steps of the same name differ.
        package let number: Int
        package let doneBytes: UInt64
        /// Nil: nobody knows yet.
        package let totalBytes: UInt64?

        package init(step: String, number: Int, doneBytes: UInt64, totalBytes: UInt64?) {
            self.step = step
            self.number = number
            self.doneBytes = doneBytes
            self.totalBytes = totalBytes
        }
    }

    private struct Step {
        var name = ""
        var number = 0
        var totalBytes: UInt64?
        /// What `done` showed when the step began: it never goes back, so workers need no lock.
        var startBytes: UInt64 = 0
    }

    private let step = Mutex(Step())
    private let done = Atomic<UInt64>(0)

    package init() {}

    /// Begins a step, from zero. `name` is a participle in small letters, such as `copying`.
    package func begin(_ name: String, totalBytes: UInt64? = nil) {
        step.withLock {
            $0.name = name
            $0.number += 1
            $0.totalBytes = totalBytes
            $0.startBytes = done.load(ordering: .relaxed)
        }
    }

    /// So many bytes of the present step are done. Cheap enough for every frame.
    package func advance(_ bytes: some BinaryInteger) {
        done.wrappingAdd(UInt64(clamping: bytes), ordering: .relaxed)
    }

    /// The present state.
    package var snapshot: Snapshot {
        step.withLock { step in
            Snapshot(
                step: step.name, number: step.number,
                doneBytes: done.load(ordering: .relaxed) &- step.startBytes, totalBytes: step.totalBytes)
        }
    }
}

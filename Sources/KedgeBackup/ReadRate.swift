// A limit on how fast all workers together read the data directory.

package import KedgeCore
import Synchronization

/// Lets so many bytes a second pass. Shared by all workers.
package final class ReadRate: Sendable {
    private let bytesPerSecond: UInt64
    private let time: any TimeSource
    /// When the bytes granted so far will have passed, in monotonic nanoseconds.
    private let busyUntil = Mutex<UInt64>(0)

    /// `bytesPerSecond` is at least 1.
    package init(bytesPerSecond: UInt64, time: any TimeSource) {
        precondition(bytesPerSecond > 0, "a rate of 0 would never end")
        self.bytesPerSecond = bytesPerSecond
        self.time = time
    }

    /// Waits until `bytes` more may be read. Throws `interrupted`.
    package func take(_ bytes: Int, unless interruption: Interruption) throws(KedgeError) {
        let present = time.monotonicNanoseconds()
        let cost = UInt64(bytes) * 1_000_000_000 / bytesPerSecond
        let start = busyUntil.withLock { busyUntil in
            // What was not used in idle times is not saved up.
            let start = max(busyUntil, present)
            busyUntil = start + cost
            return start
        }
        if start > present { try time.sleep(nanoseconds: start - present, unless: interruption) }
    }
}

// Time comes in as an argument, so that tests decide what time it is and wait for nothing.

// `timespec` belongs to whichever C module the compiler meets first.
import CSystem
import Glibc

/// A clock.
package protocol TimeSource: Sendable {
    /// The present time of day; it may jump.
    func now() -> Timestamp

    /// Nanoseconds since some fixed moment; never goes back. For measuring how long something took.
    func monotonicNanoseconds() -> UInt64

    /// Blocks the calling thread. May return early when a signal arrives.
    func sleep(nanoseconds: UInt64)
}

extension TimeSource {
    /// Sleeps in slices and throws `interrupted` as soon as somebody asked to stop.
    package func sleep(nanoseconds: UInt64, unless interruption: Interruption) throws(KedgeError) {
        let end = monotonicNanoseconds().addingReportingOverflow(nanoseconds)
        let deadline = end.overflow ? UInt64.max : end.partialValue
        while true {
            try interruption.checkpoint()
            let present = monotonicNanoseconds()
            guard present < deadline else { return }
            sleep(nanoseconds: min(deadline - present, 100_000_000))
        }
    }
}

/// The operating system's clocks.
package struct SystemTimeSource: TimeSource {
    package init() {}

    package func now() -> Timestamp {
        let time = read(CLOCK_REALTIME)
        return Timestamp(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000)
    }

    package func monotonicNanoseconds() -> UInt64 {
        let time = read(CLOCK_MONOTONIC)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    package func sleep(nanoseconds: UInt64) {
        var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        nanosleep(&time, nil)
    }

    private func read(_ clock: clockid_t) -> timespec {
        var time = timespec()
        clock_gettime(clock, &time)
        return time
    }
}

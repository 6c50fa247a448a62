// A clock that only the test moves, and random bits that a seed repeats.
import Glibc
package import KedgeCore
import Synchronization

/// Time that stands still until somebody sleeps or advances it. Sleeping takes no time at all.
package final class ManualTime: TimeSource {
    private struct State {
        var now: Timestamp
        var monotonicNanoseconds: UInt64 = 1_000_000_000
        var sleeps: [UInt64] = []
        var onSleep: (@Sendable () -> Void)?
    }

    private let state: Mutex<State>

    /// A clock that begins at `now`.
    package init(now: Timestamp = Timestamp(secondsSince1970: 1_795_226_400)) {
        state = Mutex(State(now: now))
    }

    package func now() -> Timestamp { state.withLock { $0.now } }

    package func monotonicNanoseconds() -> UInt64 { state.withLock { $0.monotonicNanoseconds } }

    package func sleep(nanoseconds: UInt64) {
        let action = state.withLock { state in
            state.sleeps.append(nanoseconds)
            state.monotonicNanoseconds += nanoseconds
            state.now = Timestamp(microseconds: state.now.microseconds + Int64(nanoseconds / 1000))
            return state.onSleep
        }
        action?()
    }

    /// Runs `action` in every sleep: what goes on in the world meanwhile.
    package func onSleep(_ action: @escaping @Sendable () -> Void) { state.withLock { $0.onSleep = action } }

    /// Moves both clocks on.
    package func advance(seconds: Int64) {
        state.withLock { state in
            state.monotonicNanoseconds += UInt64(seconds) * 1_000_000_000
            state.now = state.now.adding(seconds: seconds)
        }
    }

    /// Sets the time of day alone, as an administrator would.
    package func set(_ now: Timestamp) { state.withLock { $0.now = now } }

    /// How long each sleep was, in nanoseconds.
    package var sleeps: [UInt64] { state.withLock { $0.sleeps } }
}

/// Random bits that the same seed gives again: SplitMix64.
package final class SeededRandom: RandomSource {
    private let state: Mutex<UInt64>

    package init(seed: UInt64) { state = Mutex(seed) }

    package func next() -> UInt64 {
        state.withLock { state in
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    /// A number below `bound`, which is not 0.
    package func next(below bound: Int) -> Int { Int(next() % UInt64(bound)) }

    /// `count` bytes.
    package func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next() >> 32) } }
}

/// The seed of this run: KEDGE_TEST_SEED, or 1 where it is not set.
package func testSeed() -> UInt64 { getenv("KEDGE_TEST_SEED").flatMap { UInt64(String(cString: $0)) } ?? 1 }

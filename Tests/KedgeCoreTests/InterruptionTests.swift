// Proves that a part of the work can be stopped for a reason of its own, that a request to stop the whole reaches it,
// and that what is done beside the work ends when it is told to.
import Glibc
import KedgeCore
import Synchronization
import Testing

@Suite struct InterruptionTests {
    private func reason(_ interruption: Interruption) -> ErrorCode? {
        do throws(KedgeError) {
            try interruption.checkpoint()
            return nil
        } catch {
            return error.code
        }
    }

    @Test("a part is stopped by its own reason, and by a signal for the whole")
    func parts() {
        let whole = Interruption()
        let part = Interruption(within: whole)
        let within = Interruption(within: part)
        #expect(reason(within) == nil && !within.isRequested)
        part.stop(because: KedgeError(.databaseUnavailable, "first"))
        part.stop(because: KedgeError(.noSpace, "second"))
        #expect(reason(part) == .databaseUnavailable && reason(within) == .databaseUnavailable)
        #expect(part.isRequested && within.isRequested && part.signal == nil)
        #expect(reason(whole) == nil && !whole.isRequested)
        whole.request(signal: SIGTERM)
        #expect(reason(part) == .interrupted && within.signal == SIGTERM)
        #expect(reason(whole) == .interrupted)
    }

    @Test("a heartbeat goes on until it is stopped, and stop waits for the call that has begun")
    func heartbeat() throws {
        let calls = Monitor(0)
        let inside = Mutex(false)
        let heartbeat = try Heartbeat(name: "test", every: .milliseconds(1)) {
            inside.withLock { $0 = true }
            calls.update { $0 += 1 }
            inside.withLock { $0 = false }
        }
        _ = calls.wait { $0 >= 3 ? true : nil }
        heartbeat.stop()
        let count = calls.update { $0 }
        #expect(!inside.withLock { $0 })
        #expect(calls.wait(atMost: .milliseconds(20)) { $0 > count ? true : nil } == nil)
        // One that waits for long ends at once.
        try Heartbeat(name: "test", every: .seconds(3_000_000_000_000)) {}.stop()
    }
}

// Something that is done every so often, beside long work, on a thread of its own.
//
// It waits in real time, whatever clock the work goes by: what it does is for others (another host, a server), whose
// time passes by itself.

/// Does something every so often until it is stopped.
package final class Heartbeat: Sendable {
    private let isStopped: Monitor<Bool>
    private let thread: Thread

    /// Calls `body` for the first time after `interval`, and then again that long after each call's end.
    package init(name: String, every interval: Duration, _ body: @escaping @Sendable () -> Void) throws(KedgeError) {
        let isStopped = Monitor(false)
        self.isStopped = isStopped
        thread = try Thread(name: name) {
            while isStopped.wait(atMost: interval, { $0 ? true : nil }) == nil { body() }
        }
    }

    /// Ends it, and waits for a call that has begun. To be called exactly once.
    package func stop() {
        isStopped.update { $0 = true }
        thread.join()
    }
}

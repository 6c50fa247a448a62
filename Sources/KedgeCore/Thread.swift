// Threads for blocking work.

import CSystem
import Glibc

/// A running thread, to be joined once by its owner.
///
/// All signals are masked in it but those of a fault of its own: others have their places (`Interruption`).
package final class Thread: Sendable {
    private let handle: pthread_t

    /// Starts `body` on a thread that `ps -L` shows as `name` (cut to 15 bytes). Throws where the system gives no more
    /// threads.
    package init(name: String, _ body: @escaping @Sendable () -> Void) throws(KedgeError) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, Thread.stackBytes)

        // A new thread inherits the mask of its maker.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        for fault in [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] { sigdelset(&all, fault) }
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }

        // The box is given to the thread, which releases it; to nobody when there is no thread.
        let box = Unmanaged.passRetained(ThreadStart(name: name, body: body))
        var handle = pthread_t()
        let failure = pthread_create(&handle, &attributes, { runThread($0) }, box.toOpaque())
        guard failure == 0 else {
            box.release()
            throw KedgeError(
                .inputOutput, "could not start thread \"\(name)\"",
                detail: "The system gives no more threads (error \(failure)).",
                hint: "Raise the limit of processes (ulimit -u), or lower process-max.")
        }
        self.handle = handle
    }

    /// Waits until the thread has ended. To be called exactly once.
    package func join() { pthread_join(handle, nil) }

    /// Starts a thread that nobody waits for; what it uses must live as long as it does, or be its own.
    package static func detach(name: String, _ body: @escaping @Sendable () -> Void) throws(KedgeError) {
        pthread_detach(try Thread(name: name, body).handle)
    }

    private static let stackBytes = 4 << 20
}

private final class ThreadStart: Sendable {
    let name: String
    let body: @Sendable () -> Void

    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

private func runThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    let start = Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
    csystem_name_thread(start.name)
    start.body()
    return nil
}

// Looks after the backup's database session while files are copied, whatever the workers are busy with (lesson 40).
//
// A session that is lost stops the workers at their next frame: whatever they copied from then on would be of no use.
//
//   every second: has the server said something unasked? then ask it      (the backend was ended, the server stopped)
//   every ten seconds: ask it                                             (the network is gone, the backend hangs)

import KedgeCore
import KedgePostgres
import Synchronization

/// Watches one session between `init` and `stop`. The session is used by nobody else meanwhile.
final class SessionWatch: Sendable {
    /// How often a session is looked after.
    struct Intervals: Sendable {
        var look = Duration.seconds(1)
        /// Every so many looks the server is asked.
        var looksPerPing = 10
    }

    /// `@unchecked Sendable`: the thread of the heartbeat alone uses it, until `stop` has waited for its end.
    private struct Session: @unchecked Sendable {
        let online: OnlineBackup
    }

    /// What the thread leaves for whoever stops it.
    private final class Result: Sendable {
        let failure = Mutex<KedgeError?>(nil)
    }

    private let heartbeat: Heartbeat
    private let result: Result

    /// `interruption` is stopped with the reason when the session is lost.
    init(_ online: OnlineBackup, _ intervals: Intervals, stopping interruption: Interruption) throws(KedgeError) {
        let session = Session(online: online)
        let result = Result()
        let looks = Mutex(0)
        self.result = result
        heartbeat = try Heartbeat(name: "session", every: intervals.look) {
            guard result.failure.withLock({ $0 == nil }) else { return }
            let isDue = looks.withLock { looks in
                looks += 1
                return looks % intervals.looksPerPing == 0
            }
            guard isDue || session.online.hasUnaskedInput else { return }
            do throws(KedgeError) {
                try session.online.ping()
            } catch {
                result.failure.withLock { $0 = error }
                interruption.stop(because: error)
            }
        }
    }

    /// Ends the watch. Returns why the session was lost, if it was. To be called exactly once.
    func stop() -> KedgeError? {
        heartbeat.stop()
        return result.failure.withLock { $0 }
    }
}

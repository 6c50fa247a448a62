// The end of a push that hangs while too much waits.
//
// The limit is looked at when a push begins, and PostgreSQL begins the next one when this one has ended. A repository
// that neither answers nor fails would let pg_wal fill the disk behind it. So a push that takes long is ended once more
// waits than may: it fails, PostgreSQL asks again, and that push gives the file up.
//
// One that is slow while no more waits than may goes on for as long as it takes.

package import KedgeCore

/// Looks at the limit beside a push.
package struct QueueWatch: Sendable {
    /// When, and how, a push is ended.
    package struct Rule: Sendable {
        /// How long a push may take whatever waits.
        package var patience = Duration.seconds(60)
        /// How often is looked after that.
        package var interval = Duration.seconds(5)
        /// Ends this process as archive-push may end; called from another thread.
        package var end: @Sendable () -> Void

        package init(end: @escaping @Sendable () -> Void) { self.end = end }
    }

    private let heartbeat: Heartbeat

    /// Begins to look. `tell` is given how many bytes wait, just before the end. Both are called at most once. Throws
    /// where there is no thread.
    package init(
        _ limit: QueueLimit, path: RawPath, dataDirectory: RawPath, _ rule: Rule,
        tell: @escaping @Sendable (UInt64) -> Void
    ) throws(KedgeError) {
        let state = Monitor((waited: Duration.zero, isOver: false))
        heartbeat = try Heartbeat(name: "queue-watch", every: rule.interval) {
            let isDue = state.update { state in
                state.waited += rule.interval
                return state.waited >= rule.patience && !state.isOver
            }
            guard isDue else { return }
            do throws(KedgeError) {
                guard let waiting = try limit.excess(beside: path, dataDirectory: dataDirectory) else { return }
                state.update { $0.isOver = true }
                tell(waiting)
                rule.end()
            } catch {
                // What waits is not known; the next look may tell.
            }
        }
    }

    /// Ends looking. To be called exactly once.
    package func stop() { heartbeat.stop() }
}

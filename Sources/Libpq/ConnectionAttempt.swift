// Connecting, with an eye on requests to stop.
//
// libpq connects on a thread of its own, by the blocking call, and we wait for the thread in slices. PQconnectStart and
// PQconnectPoll would not do: they leave connect_timeout, which counts for each host and address of a list anew, to
// whoever calls them without a way to go on with the next host, and they look names up in a call that blocks. The
// thread of an attempt that was given up lives until libpq gives up too, by connect_timeout, and closes what it got.

import CLibpq
import KedgeCore

/// One attempt to connect.
enum ConnectionAttempt {
    private enum State {
        case running
        /// The handle, nil where libpq had no memory for one. Whoever takes it owns it.
        case done(Handle)
        /// Nobody waits any more.
        case abandoned
    }

    /// `@unchecked Sendable`: handed from the thread that connected to the one that waited for it, and used by neither
    /// before nor after.
    private struct Handle: @unchecked Sendable {
        let pointer: OpaquePointer?
    }

    /// The handle of the attempt, to be freed by PQfinish, connected or not. Throws `interrupted`.
    static func run(
        _ parameters: [(keyword: String, value: String)], unless interruption: Interruption?
    ) throws(DatabaseFailure) -> OpaquePointer? {
        guard let interruption else { return connect(parameters) }
        let state = Monitor(State.running)
        do throws(KedgeError) {
            // Never joined: it ends by itself, and frees its own memory.
            try Thread.detach(name: "connect") {
                let handle = Handle(pointer: connect(parameters))
                let isAbandoned = state.update { state in
                    if case .abandoned = state { return true }
                    state = .done(handle)
                    return false
                }
                if isAbandoned, let pointer = handle.pointer { clibpq_finish(pointer) }
            }
        } catch {
            throw DatabaseFailure(kind: .disconnected, message: error.message)
        }
        while true {
            let finished = state.wait(atMost: .milliseconds(100)) { state -> Handle? in
                guard case .done(let handle) = state else { return nil }
                return handle
            }
            if let finished { return finished.pointer }
            guard interruption.isRequested else { continue }
            let late: Handle? = state.update { state in
                if case .done(let handle) = state { return handle }
                state = .abandoned
                return nil
            }
            if let pointer = late?.pointer { clibpq_finish(pointer) }
            throw interrupted(interruption)
        }
    }

    private static func connect(_ parameters: [(keyword: String, value: String)]) -> OpaquePointer? {
        // expand_dbname stays off: a dbname that is a connection string could carry a password.
        withCStrings(parameters.map(\.keyword)) { keywords in
            withCStrings(parameters.map(\.value)) { values in clibpq_connectdbParams(keywords, values, 0) }
        }
    }
}

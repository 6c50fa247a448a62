// System calls that fail where a test wants it: the disk is full, the medium fails, the file system lacks a feature.
// The kernel itself asks (seccomp(2), user notification), so nothing of the product knows of it.
import CTestSupport
import Glibc
package import KedgeCore

/// A system call that changes something, as a plan sees it.
package struct SystemCall: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: Hashable, Sendable {
        case create, createUnnamed, write, sync, rename, renameWithoutReplacing, link, unlink, makeDirectory
        case changeMode, truncate, symlink, setTimes

        fileprivate init?(_ call: ctest_call) {
            switch call {
            case CTEST_CREATE: self = .create
            case CTEST_CREATE_UNNAMED: self = .createUnnamed
            case CTEST_WRITE: self = .write
            case CTEST_SYNC: self = .sync
            case CTEST_RENAME: self = .rename
            case CTEST_RENAME_NOREPLACE: self = .renameWithoutReplacing
            case CTEST_LINK: self = .link
            case CTEST_UNLINK: self = .unlink
            case CTEST_MAKE_DIRECTORY: self = .makeDirectory
            case CTEST_CHANGE_MODE: self = .changeMode
            case CTEST_TRUNCATE: self = .truncate
            case CTEST_SYMLINK: self = .symlink
            case CTEST_SET_TIMES: self = .setTimes
            default: return nil
            }
        }

        /// Whether it can run out of space.
        package var takesSpace: Bool {
            switch self {
            case .create, .createUnnamed, .write, .sync, .rename, .renameWithoutReplacing, .link, .makeDirectory: true
            case .symlink: true
            case .unlink, .changeMode, .truncate, .setTimes: false
            }
        }
    }

    /// From 1, in the order in which calls began.
    package let number: Int
    package let kind: Kind

    package var description: String { "call \(number): \(kind)" }
}

/// Runs code whose system calls fail as planned.
package enum SystemCallFaults {
    /// What a supervised run made of it.
    package struct Run<Value: Sendable>: Sendable {
        package let result: Result<Value, KedgeError>
        package let calls: [SystemCall]
        /// How many of them were made to fail.
        package let faultCount: Int
    }

    /// Whether the kernel lets us: containers may forbid it.
    package static let isAvailable: Bool = {
        do {
            _ = try run({ _ in nil }, { () throws(KedgeError) in })
            return true
        } catch {
            return false
        }
    }()

    /// Runs `body` on a thread of its own. Each call that changes something, of that thread and those that it starts,
    /// fails with the error number that `plan` gives for it, or happens where that is nil.
    ///
    /// Throws where the kernel allows no supervision.
    package static func run<Value: Sendable>(
        _ plan: (SystemCall) -> Int32?, _ body: @escaping @Sendable () throws(KedgeError) -> Value
    ) throws(KedgeError) -> Run<Value> {
        let state = Monitor(State<Value>())
        let thread = try Thread(name: "supervised") {
            let supervisor = ctest_supervise_calls()
            let failure = errno
            state.update { $0.supervisor = supervisor < 0 ? .failure(failure) : .success(supervisor) }
            guard supervisor >= 0 else { return }
            let result = Result { () throws(KedgeError) in try body() }
            state.update { $0.result = result }
        }
        defer { thread.join() }
        let supervisor: Supervision = state.wait { $0.supervisor }
        guard case .success(let descriptor) = supervisor else {
            throw KedgeError(.notSupported, "could not supervise system calls", detail: "\(supervisor)")
        }
        // Kept open until every supervised thread has ended: without it all their calls would fail.
        let owner = FileDescriptor(owning: descriptor, path: "(seccomp)")
        var calls: [SystemCall] = []
        var faultCount = 0
        while true {
            var id: UInt64 = 0
            var call = CTEST_OTHER
            let count = ctest_next_call(owner.number, 20, &id, &call)
            if count > 0 {
                var error: Int32?
                if let kind = SystemCall.Kind(call) {
                    calls.append(SystemCall(number: calls.count + 1, kind: kind))
                    error = plan(calls[calls.count - 1])
                }
                if error != nil { faultCount += 1 }
                ctest_answer_call(owner.number, id, error ?? 0)
            } else if let result = state.update({ $0.result }) {
                return Run(result: result, calls: calls, faultCount: faultCount)
            }
        }
    }

    private enum Supervision: Sendable {
        case success(Int32)
        case failure(Int32)
    }

    private struct State<Value: Sendable> {
        var supervisor: Supervision?
        var result: Result<Value, KedgeError>?
    }
}

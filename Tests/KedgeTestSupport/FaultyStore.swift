// A store that fails or dies at chosen operations. Sweeps run a use case with a fault at operation 1, 2, 3 … until a
// run sees none, and look each time at what the wrapped store holds.
package import KedgeCore
package import KedgeRepository
import Synchronization

/// What goes wrong at one operation.
package enum Fault: Hashable, Sendable, CaseIterable {
    /// It has no effect and throws.
    case failBefore
    /// It takes effect and throws all the same: a lost answer. An append has no effect when it throws.
    case failAfter
    /// The process dies before it: it and everything later throws.
    case crashBefore
    /// The process dies in the middle: half of the names are removed, half of the bytes appended; elsewhere as before.
    case crashMidway
    /// The process dies after it took effect.
    case crashAfter
    /// The process dies between making an object visible and making it durable: a `MemoryStore` loses the object in
    /// the next `losePower`, unless somebody makes it durable before. As `crashAfter` for all but `put` and `finish`.
    case crashBeforeSync

    var isCrash: Bool { self != .failBefore && self != .failAfter }
}

/// A call of the protocol, as a fault plan sees it.
package struct StoreOperation: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        case status, read, readPrefix, put, beginUpload, append, finish, makeDurable, list, listDirectories, remove
        case removeAbandonedWrites

        /// Whether it can change what the store holds.
        package var isWriting: Bool {
            switch self {
            case .status, .read, .readPrefix, .list, .listDirectories: false
            default: true
            }
        }
    }

    /// From 1, in the order in which calls began.
    package let number: Int
    package let kind: Kind
    package let name: String

    package var description: String { "operation \(number): \(kind.rawValue) \(name)" }
}

/// A store around another one whose operations go wrong as planned.
///
/// After a crash every call throws, uploads that were open stay open in the wrapped store for as long as this value
/// lives, and nothing is cleaned up, as when a process is killed.
package final class FaultyStore: ObjectStore {
    private struct State {
        var operations: [StoreOperation] = []
        var hasCrashed = false
        var hitCount = 0
        var uploads: [any ObjectUpload] = []
    }

    private let store: any ObjectStore
    private let plan: @Sendable (StoreOperation) -> Fault?
    private let code: ErrorCode
    private let state = Monitor(State())

    /// A store whose operations go wrong where `plan` says so, with errors of `code`.
    package init(
        _ store: any ObjectStore, code: ErrorCode = .inputOutput,
        plan: @escaping @Sendable (StoreOperation) -> Fault?
    ) {
        self.store = store
        self.plan = plan
        self.code = code
    }

    /// A store where `fault` happens at operation `number` alone.
    package convenience init(
        _ store: any ObjectStore, _ fault: Fault, atOperation number: Int, code: ErrorCode = .inputOutput
    ) {
        self.init(store, code: code) { $0.number == number ? fault : nil }
    }

    /// A store where of every `interval` operations about one fails, before or after its effect, as `seed` has it.
    package convenience init(
        _ store: any ObjectStore, oneIn interval: Int, seed: UInt64, code: ErrorCode = .repositoryUnavailable
    ) {
        let random = SeededRandom(seed: seed)
        self.init(store, code: code) { _ in
            guard random.next(below: interval) == 0 else { return nil }
            return random.next(below: 2) == 0 ? .failBefore : .failAfter
        }
    }

    /// All operations so far.
    package var operations: [StoreOperation] { state.update { $0.operations } }

    /// How many operations went wrong as planned. A sweep ends with the first run where this is 0.
    package var faultCount: Int { state.update { $0.hitCount } }

    package var capabilities: StoreCapabilities { store.capabilities }
    package var location: String { store.location }
    /// Told without a fault: whoever asks gives advice and does not rely on it.
    package func space() throws(KedgeError) -> FileSystemSpace? { try store.space() }

    /// Counts an operation and lets it happen, fail or crash. `midway` is what a crash in the middle does.
    fileprivate func run<Result>(
        _ kind: StoreOperation.Kind, _ name: String,
        midway: () throws(KedgeError) -> Void = { () throws(KedgeError) in },
        _ body: () throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        let operation: StoreOperation? = state.update { state in
            if state.hasCrashed { return nil }
            let operation = StoreOperation(number: state.operations.count + 1, kind: kind, name: name)
            state.operations.append(operation)
            return operation
        }
        guard let operation else { throw failure("after the crash", kind.rawValue + " " + name, isCrash: true) }
        guard let fault = plan(operation) else { return try body() }
        state.update { state in
            state.hitCount += 1
            if fault.isCrash { state.hasCrashed = true }
        }
        switch fault {
        case .failBefore, .crashBefore: break
        // An append that throws has taken nothing: so says the protocol.
        case .failAfter where kind == .append: break
        case .failAfter, .crashAfter: _ = try body()
        case .crashBeforeSync: try leaveUnsynced(kind, name, body)
        case .crashMidway: try midway()
        }
        throw failure("\(fault)", operation.description, isCrash: fault.isCrash)
    }

    private func leaveUnsynced<Result>(
        _ kind: StoreOperation.Kind, _ name: String, _ body: () throws(KedgeError) -> Result
    ) throws(KedgeError) {
        let outcome = try body()
        guard kind == .put || kind == .finish, outcome as? PutOutcome == .created, let name = ObjectName(name),
            let memory = store as? MemoryStore
        else { return }
        memory.forgetDurability(of: name)
    }

    private func failure(_ fault: String, _ operation: String, isCrash: Bool) -> KedgeError {
        KedgeError(
            isCrash ? .inputOutput : code, "could not do \(operation)", detail: "The test planned it: \(fault).",
            hint: "This is part of a test.")
    }

    // MARK: The protocol

    package func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? {
        try run(.status, name.text) { () throws(KedgeError) in try store.status(of: name) }
    }

    package func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        try run(.read, name.text) { () throws(KedgeError) in try store.read(name, at: offset, into: buffer) }
    }

    package func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        try run(.readPrefix, name.text) { () throws(KedgeError) in try store.readPrefix(name, limit: limit) }
    }

    package func put(
        _ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition
    ) throws(KedgeError) -> PutOutcome {
        try run(.put, name.text) { () throws(KedgeError) in try store.put(name, body, condition) }
    }

    package func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        let upload = try run(.beginUpload, name.text) { () throws(KedgeError) in
            let upload = try store.beginUpload(name, expectedBytes: expectedBytes)
            state.update { $0.uploads.append(upload) }
            return upload
        }
        return FaultyUpload(upload, name: name, store: self)
    }

    package func makeDurable(_ name: ObjectName) throws(KedgeError) {
        try run(.makeDurable, name.text) { () throws(KedgeError) in try store.makeDurable(name) }
    }

    package func list(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> ListPage {
        try run(.list, directory?.text ?? "") { () throws(KedgeError) in
            try store.list(below: directory, after: after, limit: limit)
        }
    }

    package func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        try run(.listDirectories, directory?.text ?? "") { () throws(KedgeError) in
            try store.listDirectories(below: directory, after: after, limit: limit)
        }
    }

    package func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        try run(.remove, names.map(\.text).joined(separator: " ")) { () throws(KedgeError) in
            _ = try store.remove(Array(names.prefix(names.count / 2)))
        } _: { () throws(KedgeError) in
            try store.remove(names)
        }
    }

    package func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try run(.removeAbandonedWrites, "") { () throws(KedgeError) in
            try store.removeAbandonedWrites(before: moment)
        }
    }

    fileprivate func close(_ upload: any ObjectUpload, thenAbort: Bool) {
        let hasCrashed = state.update { state in
            if !state.hasCrashed { state.uploads.removeAll { $0 === upload } }
            return state.hasCrashed
        }
        if thenAbort && !hasCrashed { upload.abort() }
    }
}

private final class FaultyUpload: ObjectUpload {
    private let upload: any ObjectUpload
    private let name: ObjectName
    private let store: FaultyStore
    private var outcome: PutOutcome?

    init(_ upload: any ObjectUpload, name: ObjectName, store: FaultyStore) {
        self.upload = upload
        self.name = name
        self.store = store
    }

    deinit { store.close(upload, thenAbort: false) }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        try store.run(.append, name.text) { () throws(KedgeError) in
            try upload.append(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)]))
        } _: { () throws(KedgeError) in
            try upload.append(bytes)
        }
    }

    func finish() throws(KedgeError) -> PutOutcome {
        try store.run(.finish, name.text) { () throws(KedgeError) in
            // After a lost answer the same call says what became of the first one.
            if let outcome { return outcome }
            let outcome = try upload.finish()
            self.outcome = outcome
            return outcome
        }
    }

    func abort() { store.close(upload, thenAbort: true) }
}

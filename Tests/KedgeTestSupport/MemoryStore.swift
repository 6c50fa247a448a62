// An honest store in memory: it keeps every promise, on a clock of the test's own. What tests do to it behind its back
// (damage, loss of what was not durable, unreachability) has methods of its own.
package import KedgeCore
package import KedgeRepository
import Synchronization

/// Objects in memory.
package final class MemoryStore: ObjectStore {
    private struct Object {
        var bytes: [UInt8]
        var modified: Timestamp
        var isDurable = true
    }

    private struct State {
        var objects: [ObjectName: Object] = [:]
        var uploads: [Int: Timestamp] = [:]
        var nextUpload = 0
        var isReachable = true
        var refusals: [ObjectName: (error: KedgeError, times: Int)] = [:]
    }

    private let state = Mutex(State())
    private let time: any TimeSource

    /// An empty store. `time` is the store's own clock.
    package init(time: any TimeSource = ManualTime(), hasConditionalPut: Bool = true) {
        self.time = time
        capabilities = StoreCapabilities(hasConditionalPut: hasConditionalPut)
    }

    package let capabilities: StoreCapabilities
    package var location: String { "memory store" }

    /// Runs `body` on the state unless the store is unreachable.
    private func access<Result>(
        _ body: (inout State) throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        var failure: KedgeError?
        let result: Result? = state.withLock { state in
            guard state.isReachable else {
                failure = KedgeError(
                    .repositoryUnavailable, "could not reach memory store", hint: "This is part of a test.")
                return nil
            }
            do throws(KedgeError) {
                return try body(&state)
            } catch {
                failure = error
                return nil
            }
        }
        if let failure { throw failure }
        guard let result else { throw KedgeError(.defect, "cannot happen: neither result nor error") }
        return result
    }

    private func object(_ name: ObjectName) throws(KedgeError) -> Object {
        let found = try access { state throws(KedgeError) in state.objects[name] }
        guard let found else {
            throw KedgeError(.notFound, "could not read object \"\(name)\" of memory store", hint: "Check the name.")
        }
        return found
    }

    // MARK: The protocol

    package func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? {
        try access { state throws(KedgeError) in state.objects[name].map(MemoryStore.status) }
    }

    private static func status(_ object: Object) -> ObjectStatus {
        ObjectStatus(sizeBytes: UInt64(object.bytes.count), modified: object.modified)
    }

    package func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        let bytes = try object(name).bytes
        guard offset <= UInt64(bytes.count), buffer.count <= bytes.count - Int(offset) else {
            throw KedgeError(
                .damaged, "cannot read object \"\(name)\" of memory store",
                detail: "The object ends before byte \(offset &+ UInt64(buffer.count)).", hint: "Check the range.")
        }
        bytes.withUnsafeBytes {
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)...].prefix(buffer.count)))
        }
    }

    package func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        Array(try object(name).bytes.prefix(limit))
    }

    package func put(
        _ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition
    ) throws(KedgeError) -> PutOutcome {
        let bytes = Array(body.parts.joined())
        return try access { state throws(KedgeError) in
            if condition == .createOnly && state.objects[name] != nil { return .alreadyExists }
            state.objects[name] = Object(bytes: bytes, modified: time.now())
            return .created
        }
    }

    package func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        let number = try access { state throws(KedgeError) in
            state.nextUpload += 1
            state.uploads[state.nextUpload] = time.now()
            return state.nextUpload
        }
        return MemoryUpload(store: self, name: name, number: number)
    }

    package func makeDurable(_ name: ObjectName) throws(KedgeError) {
        _ = try object(name)
        try access { state throws(KedgeError) in state.objects[name]?.isDurable = true }
    }

    package func list(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> ListPage {
        let found = try access { state throws(KedgeError) in
            state.objects.filter { name, _ in name.isBelow(directory) && (after.map { name > $0 } ?? true) }
        }
        let entries = found.sorted { $0.key < $1.key }.prefix(limit).map {
            ListEntry(name: $0.key, status: MemoryStore.status($0.value))
        }
        return ListPage(entries: entries, next: found.count > limit ? entries.last?.name : nil)
    }

    package func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        let depth = directory?.components.count ?? 0
        let names = try access { state throws(KedgeError) in state.objects.keys.filter { $0.isBelow(directory) } }
        let texts = names.map(\.components).filter { $0.count > depth + 1 }
            .map { $0.prefix(depth + 1).joined(separator: "/") }
        let found = Set(texts).filter { text in after.map { text + "/" > $0.text + "/" } ?? true }
            .sorted { $0 + "/" < $1 + "/" }
        let page = found.prefix(limit).compactMap { ObjectName($0) }
        return DirectoryPage(directories: page, next: found.count > limit ? page.last : nil)
    }

    package func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        try access { state throws(KedgeError) in
            var failures: [RemoveFailure] = []
            for name in names {
                if let refusal = state.refusals[name], refusal.times > 0 {
                    state.refusals[name]?.times -= 1
                    failures.append(RemoveFailure(name: name, error: refusal.error))
                } else {
                    state.objects[name] = nil
                }
            }
            return failures
        }
    }

    package func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try access { state throws(KedgeError) in
            let old = state.uploads.filter { $0.value < moment }
            for number in old.keys { state.uploads[number] = nil }
            return old.count
        }
    }

    fileprivate func finish(_ number: Int, _ name: ObjectName, _ bytes: [UInt8]) throws(KedgeError) -> PutOutcome {
        let isOpen = try access { state throws(KedgeError) in state.uploads.removeValue(forKey: number) != nil }
        guard isOpen else {
            throw KedgeError(
                .inputOutput, "could not finish upload of object \"\(name)\"", detail: "It was removed as abandoned.",
                hint: "Start over.")
        }
        return try put(name, ObjectBody(bytes), .createOnly)
    }

    fileprivate func abort(_ number: Int) { state.withLock { _ = $0.uploads.removeValue(forKey: number) } }

    // MARK: Behind its back

    /// All objects and their bytes.
    package var contents: [ObjectName: [UInt8]] { state.withLock { $0.objects.mapValues(\.bytes) } }

    /// The names of all objects, sorted.
    package var names: [ObjectName] { contents.keys.sorted() }

    /// How many uploads were begun and neither finished nor aborted.
    package var openUploads: Int { state.withLock { $0.uploads.count } }

    /// Changes an object's bytes, as a bad disk or an attacker would.
    package func damage(_ name: ObjectName, _ change: (inout [UInt8]) -> Void) {
        state.withLock { state in
            precondition(state.objects[name] != nil, "there is no object \"\(name)\" to damage")
            change(&state.objects[name]!.bytes)
        }
    }

    /// Stores bytes under any name without a trace of who did it.
    package func plant(_ name: ObjectName, _ bytes: [UInt8]) {
        state.withLock { $0.objects[name] = Object(bytes: bytes, modified: time.now()) }
    }

    /// Makes an object one that a power failure loses: its writer died between publishing it and syncing.
    package func forgetDurability(of name: ObjectName) { state.withLock { $0.objects[name]?.isDurable = false } }

    /// A power failure: what nobody made durable is gone.
    package func losePower() { state.withLock { $0.objects = $0.objects.filter(\.value.isDurable) } }

    /// Makes the next removals of an object fail, as under object lock.
    package func refuseRemoval(of name: ObjectName, _ error: KedgeError, times: Int) {
        state.withLock { $0.refusals[name] = (error, times) }
    }

    /// Whether calls get an answer at all.
    package func setReachable(_ isReachable: Bool) { state.withLock { $0.isReachable = isReachable } }

    /// Another store with the same objects.
    package func copy() -> MemoryStore {
        let copy = MemoryStore(time: time, hasConditionalPut: capabilities.hasConditionalPut)
        let objects = state.withLock { $0.objects }
        copy.state.withLock { $0.objects = objects }
        return copy
    }
}

private final class MemoryUpload: ObjectUpload {
    private let store: MemoryStore
    private let name: ObjectName
    private let number: Int
    private var bytes: [UInt8] = []

    init(store: MemoryStore, name: ObjectName, number: Int) {
        self.store = store
        self.name = name
        self.number = number
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) { self.bytes += bytes }

    func finish() throws(KedgeError) -> PutOutcome { try store.finish(number, name, bytes) }

    func abort() { store.abort(number) }
}

// Every promise of a store, on each store and wrapper that we have; and proof that the promises can be broken.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ObjectStoreContractTests {
    private static let base: ObjectName = "contract/c1"

    @Test("local store: ", arguments: ObjectStoreContract.promises)
    func localStore(_ promise: StorePromise) throws {
        let directory = try TemporaryDirectory()
        let store = try LocalStore(at: directory.path, marker: nil, random: SystemRandomSource())
        try promise.verify(on: store, below: Self.base)
        #expect(try Directory.entries(at: RawPath(directory.path)).isEmpty, "something is left behind")
    }

    @Test("local store with other objects around: ", arguments: ObjectStoreContract.promises)
    func localStoreInUse(_ promise: StorePromise) throws {
        let directory = try TemporaryDirectory()
        let store = try LocalStore(at: directory.path, random: SystemRandomSource())
        for name in ["kedge.json", "contract/c0", "contract/c10/x", "contract/c1-/x", "a", "z/z"] as [ObjectName] {
            _ = try store.put(name, ObjectBody([1]), .createOnly)
        }
        try promise.verify(on: store, below: Self.base)
        #expect(try store.list(below: nil, after: nil, limit: 100).entries.count == 6)
    }

    @Test("memory store: ", arguments: ObjectStoreContract.promises)
    func memoryStore(_ promise: StorePromise) throws {
        let store = MemoryStore()
        try promise.verify(on: store, below: Self.base)
        #expect(store.names.isEmpty)
        #expect(store.openUploads <= 1, "only the upload that was dropped may be left")
    }

    @Test("retries over a store that fails every third time: ", arguments: ObjectStoreContract.promises)
    func retryingStore(_ promise: StorePromise) throws {
        let time = ManualTime()
        let faulty = FaultyStore(MemoryStore(time: time), oneIn: 3, seed: 42)
        var policy = RetryPolicy()
        policy.maximumAttempts = 40
        policy.deadlineNanoseconds = .max
        let store = RetryingStore(
            faulty, policy: policy, time: time, random: SeededRandom(seed: 1), interruption: Interruption())
        try promise.verify(on: store, below: Self.base)
        #expect(faulty.faultCount > 0 || faulty.operations.count < 10)
    }

    @Test("a store that breaks its promises is found out")
    func brokenStore() {
        var broken: [String] = []
        for promise in ObjectStoreContract.promises {
            do {
                try promise.verify(on: BrokenStore(), below: Self.base)
            } catch {
                #expect(error.code == .notSupported)
                broken.append(promise.title)
            }
        }
        #expect(
            broken == [
                "an object that exists is not replaced unless asked",
                "of many that create one object at once exactly one succeeds",
                "an upload does not replace an object that exists",
                "a listing is complete at any depth, and each directory's objects are in byte order",
                "a listing holds only what lies below its directory",
                "what exists is listed exactly once while others write and remove",
            ])
    }
}

/// Replaces what exists, and forgets about `after` when it lists.
private final class BrokenStore: ObjectStore {
    private let store = MemoryStore()

    var capabilities: StoreCapabilities { store.capabilities }
    var location: String { "broken store" }

    func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? { try store.status(of: name) }

    func read(_ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(KedgeError) {
        try store.read(name, at: offset, into: buffer)
    }

    func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        try store.readPrefix(name, limit: limit)
    }

    func put(_ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition) throws(KedgeError) -> PutOutcome {
        try store.put(name, body, .replace)
    }

    func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        BrokenUpload(try store.beginUpload(name, expectedBytes: expectedBytes))
    }

    func makeDurable(_ name: ObjectName) throws(KedgeError) { try store.makeDurable(name) }

    func list(below directory: ObjectName?, after: ObjectName?, limit: Int) throws(KedgeError) -> ListPage {
        try store.list(below: directory, after: limit < 1000 ? after?.parent : after, limit: limit)
    }

    func listDirectories(below directory: ObjectName?, after: ObjectName?, limit: Int) throws(KedgeError)
        -> DirectoryPage
    {
        try store.listDirectories(below: directory, after: after, limit: limit)
    }

    func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] { try store.remove(names) }

    func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try store.removeAbandonedWrites(before: moment)
    }
}

private final class BrokenUpload: ObjectUpload {
    private let upload: any ObjectUpload

    init(_ upload: any ObjectUpload) { self.upload = upload }

    func append(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) { try upload.append(bytes) }

    func finish() throws(KedgeError) -> PutOutcome {
        _ = try upload.finish()
        return .created
    }

    func abort() { upload.abort() }
}

// The faulty store itself: a sweep proves nothing unless its faults do what they say.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct FaultyStoreTests {
    private let memory = MemoryStore()

    private func put(_ store: FaultyStore, _ name: ObjectName) -> Bool {
        do {
            return try store.put(name, ObjectBody([1]), .createOnly) == .created
        } catch {
            return false
        }
    }

    @Test(
        "a fault hits the operation it was planned for, and only a crash hits what follows",
        arguments: [
            (Fault.failBefore, ["a", "c"] as [ObjectName]), (.failAfter, ["a", "b", "c"]), (.crashBefore, ["a"]),
            (.crashMidway, ["a"]), (.crashAfter, ["a", "b"]), (.crashBeforeSync, ["a", "b"]),
        ])
    func faults(_ fault: Fault, _ stored: [ObjectName]) {
        let store = FaultyStore(memory, fault, atOperation: 2)
        #expect([put(store, "a"), put(store, "b"), put(store, "c")] == [true, false, stored.contains("c")])
        #expect(memory.names == stored)
        #expect(store.faultCount == 1)
        #expect(store.operations.map(\.description).prefix(2) == ["operation 1: put a", "operation 2: put b"])
    }

    @Test("beyond the last operation nothing is hit: there a sweep ends")
    func end() {
        let store = FaultyStore(memory, .crashBefore, atOperation: 2)
        #expect(put(store, "a"))
        #expect(store.faultCount == 0)
    }

    @Test("an object whose writer died before the sync is lost with the power, unless it was made durable")
    func power() throws {
        for name in ["a", "b"] as [ObjectName] {
            #expect(!put(FaultyStore(memory, .crashBeforeSync, atOperation: 1), name))
        }
        #expect(memory.names == ["a", "b"])
        try memory.makeDurable("a")
        memory.losePower()
        #expect(memory.names == ["a"])
    }

    @Test("a crash leaves an open upload behind, which nobody sees", arguments: 1...4)
    func upload(_ number: Int) throws {
        let store = FaultyStore(memory, .crashMidway, atOperation: number)
        #expect(throws: KedgeError.self) {
            let upload = try store.beginUpload("a", expectedBytes: 2)
            try upload.append([1])
            try upload.append([2])
            _ = try upload.finish()
        }
        #expect(memory.names.isEmpty)
        let expected = number == 1 ? 0 : 1
        #expect(memory.openUploads == expected)
        #expect(try memory.removeAbandonedWrites(before: ManualTime().now().adding(seconds: 1)) == expected)
        #expect(memory.openUploads == 0)
        withExtendedLifetime(store) {}
    }

    @Test("a crash in the middle of a removal leaves some objects")
    func remove() {
        for name in ["a", "b", "c", "d"] as [ObjectName] { memory.plant(name, []) }
        let store = FaultyStore(memory, .crashMidway, atOperation: 1)
        #expect(throws: KedgeError.self) { try store.remove(["a", "b", "c", "d"]) }
        #expect(memory.names == ["c", "d"])
    }

    @Test("an unreachable memory store answers nothing")
    func unreachable() {
        memory.setReachable(false)
        let error = #expect(throws: KedgeError.self) { try memory.status(of: "a") }
        #expect(error?.code == .repositoryUnavailable)
    }
}

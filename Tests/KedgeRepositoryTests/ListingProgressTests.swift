// That a store which goes in circles is found out by whoever lists it.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ListingProgressTests {
    @Test("a store whose listing does not advance is an error, not an endless loop (lesson 19)")
    func circles() throws {
        let store = CirclingStore()
        _ = try store.memory.put("a/1", ObjectBody([1]), .createOnly)
        for list in [
            { try store.forEachObject(below: nil) { _ in } }, { _ = try store.directories(below: nil) },
        ] as [() throws -> Void] {
            let error = #expect(throws: KedgeError.self) { try list() }
            #expect(error?.code == .repositoryUnavailable)
            #expect(error?.detail?.hasPrefix("The store's list does not advance beyond \"a") == true)
        }
        #expect(store.memory.contents.count == 1)
    }

    @Test("a listing that goes in a circle of several pages is an error (lesson 19)")
    func circlesOfPages() throws {
        // Pages lead from "a" to "b" to "c" and back to "a"; nobody asks for ever.
        let paper = try PaperObjectStore { request, number in
            guard number < 20 else { return .answer(403) }
            let keys = ["continuation-token", "key-marker", "start-after"]
            let old = ["a", "b", "c"].firstIndex { token in
                keys.contains { request.target.contains("\($0)=\(token)") }
            }
            let next = ["a", "b", "c"][old.map { ($0 + 1) % 3 } ?? 0]
            let (root, tokens) =
                request.target.contains("uploads")
                ? (
                    "ListMultipartUploadsResult",
                    "<NextKeyMarker>\(next)</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"
                )
                : (
                    "ListBucketResult",
                    "<NextContinuationToken>\(next)</NextContinuationToken><Contents><Key>\(next)</Key></Contents>"
                )
            return .answer(
                200, headers: [("content-type", "application/xml")],
                body: Array("<\(root)><IsTruncated>true</IsTruncated>\(tokens)</\(root)>".utf8))
        }
        let store = S3Store(try paper.settings(prefix: "p"), conditionalPut: true)
        for list in [
            { _ = try store.listDirectories(below: nil, after: nil, limit: 5) },
            { _ = try store.list(below: nil, after: nil, limit: 5) },
            { _ = try store.removeAbandonedWrites(before: Timestamp(microseconds: 0)) },
        ] as [() throws -> Void] {
            let error = #expect(throws: KedgeError.self) { try list() }
            #expect(error?.detail == "The store says that there are more but does not show them.")
        }
        #expect(paper.requests.count == 12)
    }
}

/// Says of every page that there is another one after the same name.
private final class CirclingStore: ObjectStore {
    let memory = MemoryStore()
    let next: ObjectName = "a"

    var capabilities: StoreCapabilities { memory.capabilities }
    var location: String { memory.location }

    func list(below directory: ObjectName?, after: ObjectName?, limit: Int) throws(KedgeError) -> ListPage {
        ListPage(entries: try memory.list(below: directory, after: nil, limit: limit).entries, next: next)
    }

    func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        DirectoryPage(directories: [next], next: next)
    }

    func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? { try memory.status(of: name) }
    func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) { try memory.read(name, at: offset, into: buffer) }
    func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        try memory.readPrefix(name, limit: limit)
    }
    func put(_ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition) throws(KedgeError) -> PutOutcome {
        try memory.put(name, body, condition)
    }
    func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        try memory.beginUpload(name, expectedBytes: expectedBytes)
    }
    func makeDurable(_ name: ObjectName) throws(KedgeError) { try memory.makeDurable(name) }
    func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] { try memory.remove(names) }
    func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try memory.removeAbandonedWrites(before: moment)
    }
}

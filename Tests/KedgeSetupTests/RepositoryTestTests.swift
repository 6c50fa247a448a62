// What `check` says about one repository: each thing that can be wrong with it is a finding of its own, and trying a
// store leaves nothing behind.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeSetup

@Suite struct RepositoryTestTests {
    private func findings(
        _ source: Result<RepositorySource, KedgeError>, cluster: String = "main"
    ) throws -> (findings: [CheckFinding], opened: ClusterRepository?) {
        var report = CheckReport()
        let test = RepositoryTest(
            repository: Check.Options.RepositoryUnderTest(name: "main", source: source, directory: nil),
            clusterName: cluster, dataDirectory: "/nowhere", control: nil, random: SeededRandom(seed: 1),
            interruption: Interruption())
        let opened = try test.run(&report)
        return (report.findings, opened)
    }

    private func texts(_ findings: [CheckFinding]) -> [String] {
        findings.map { finding in
            switch finding.verdict {
            case .ok(let text): "\(finding.subject.rawValue) ok: \(text)"
            case .warning(let error): "\(finding.subject.rawValue) warning: \(error.message)"
            case .failed(let error): "\(finding.subject.rawValue) \(error.code.rawValue): \(error.message)"
            }
        }
    }

    @Test("a good repository is opened and tried, and holds afterwards just what it held before")
    func good() throws {
        let memory = try MemoryRepository()
        let before = memory.store.contents
        let (found, opened) = try findings(.success(memory.source))
        #expect(
            texts(found) == [
                "repository ok: opened memory store, id \(memory.identity.id)",
                "storage ok: the store keeps all \(ObjectStoreContract.promises.count) promises",
                "registration ok: cluster \"main\" is registered: PostgreSQL 15, system identifier 7",
            ])
        #expect(opened != nil)
        #expect(memory.store.contents == before)
    }

    @Test("a store that breaks a promise is named with that promise, and the rest is looked at all the same")
    func brokenPromise() throws {
        let memory = try MemoryRepository()
        // It forgets that it must not replace: every put of the probe's "object" succeeds.
        let store = ReplacingStore(memory.store)
        let source = RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
        let (found, opened) = try findings(.success(source))
        let failed = found.filter(\.hasFailed)
        #expect(!failed.isEmpty && failed.allSatisfy { $0.subject == .storage })
        for finding in failed {
            guard case .failed(let error) = finding.verdict else { continue }
            #expect(error.message.hasPrefix("cannot rely on memory store: it breaks the promise that "))
            #expect(error.hint == "Use another store, or ask its maker about this promise.")
        }
        #expect(found.last?.subject == .registration)
        #expect(opened != nil)
        #expect(!memory.store.names.contains { $0.text.contains("probe") })
    }

    @Test("a secret that could not be read is the only finding")
    func noSecret() throws {
        let error = KedgeError(.keyUnsafe, "cannot use key file \"/k\": other users have access to it")
        let (found, opened) = try findings(.failure(error))
        #expect(texts(found) == ["repository key-unsafe: cannot use key file \"/k\": other users have access to it"])
        #expect(opened == nil)
    }

    @Test("a store that is out of reach, a wrong secret and an unknown cluster are told apart")
    func unusable() throws {
        let memory = try MemoryRepository()
        let stranger = try MemoryRepository()
        #expect(
            texts(try findings(.success(memory.source(with: stranger.secret))).findings).first?.hasPrefix(
                "repository key-wrong: ") == true)
        let (other, opened) = try findings(.success(memory.source), cluster: "other")
        #expect(
            texts(other).last
                == "registration not-found: could not open cluster \"other\" in repository \"main\"")
        #expect(opened == nil)
        memory.store.setReachable(false)
        let unreachable = try findings(.success(memory.source)).findings
        #expect(unreachable.count == 1)
        #expect(texts(unreachable).first?.hasPrefix("repository repository-unavailable: ") == true)
    }

    struct Space: Sendable {
        let free: UInt64
        let total: UInt64
        let isScarce: Bool
    }

    @Test(
        "space is scarce below a twentieth and below 1 GiB",
        arguments: [
            Space(free: 1 << 30, total: 10 << 30, isScarce: false),
            Space(free: (1 << 30) - 1, total: 10 << 30, isScarce: true),
            Space(free: 5 << 30, total: 100 << 30, isScarce: false),
            Space(free: (5 << 30) - 1, total: 100 << 30, isScarce: true),
            Space(free: 0, total: 0, isScarce: true),
        ])
    func space(_ row: Space) {
        #expect(RepositoryTest.isScarce(free: row.free, of: row.total) == row.isScarce)
    }
}

/// A store that replaces what is there, whatever it is asked.
private final class ReplacingStore: ObjectStore {
    private let store: MemoryStore

    init(_ store: MemoryStore) { self.store = store }

    var capabilities: StoreCapabilities { store.capabilities }
    var location: String { store.location }

    func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? { try store.status(of: name) }

    func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) { try store.read(name, at: offset, into: buffer) }

    func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        try store.readPrefix(name, limit: limit)
    }

    func put(_ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition) throws(KedgeError) -> PutOutcome {
        try store.put(name, body, .replace)
    }

    func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        try store.beginUpload(name, expectedBytes: expectedBytes)
    }

    func makeDurable(_ name: ObjectName) throws(KedgeError) { try store.makeDurable(name) }

    func list(below directory: ObjectName?, after: ObjectName?, limit: Int) throws(KedgeError) -> ListPage {
        try store.list(below: directory, after: after, limit: limit)
    }

    func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        try store.listDirectories(below: directory, after: after, limit: limit)
    }

    func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] { try store.remove(names) }

    func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try store.removeAbandonedWrites(before: moment)
    }
}

// When init writes a new key file and when it takes it back: never a repository without its key on disk, never a key
// file that opens nothing; and that what is refused is refused before anything is made.
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeSetup

@Suite struct InitKeyTests {
    private let fixture: ArchiveFixture
    private let directory: TemporaryDirectory

    init() throws {
        fixture = try ArchiveFixture()
        directory = try TemporaryDirectory()
    }

    private var keyPath: RawPath { RawPath(directory("k.key")) }

    private func keyExists() throws -> Bool { try FileSystem.exists(keyPath) }

    /// What is in the key file.
    private func savedKey() throws -> KeyEncryptionSecret {
        try KeyEncryptionSecret(
            parsingKeyFile: FileDescriptor.open(keyPath, [.read]).readAll(limit: 100), what: "key file")
    }

    /// Runs `init --generate-key`: with the key in the file where there is one, else with a new one.
    private func initialize(
        _ stores: [any ObjectStore], plain: [any ObjectStore] = [], in fixture: ArchiveFixture? = nil,
        forgetting: @escaping @Sendable () throws(KedgeError) -> Void = {}
    ) throws {
        let newKey = try NewKeyFile(at: keyPath, random: SystemRandomSource())
        let secret = try newKey?.secret ?? savedKey()
        var sources = stores.enumerated().map {
            ArchiveFixture.source($0.element, secret: secret, name: "r\($0.offset)")
        }
        sources += plain.enumerated().map { ArchiveFixture.source($0.element, name: "p\($0.offset)") }
        var options = Init.Options(
            clusterName: "main", pgdata: (fixture ?? self.fixture).path("."), repositories: sources)
        options.newKey = newKey
        options.forgetNotes = forgetting
        _ = try Init(options, random: SystemRandomSource(), time: ManualTime()).run()
    }

    private func open(_ store: any ObjectStore) throws {
        _ = try ArchiveFixture.source(store, secret: savedKey()).openCluster("main", for: .write)
    }

    @Test("one new key serves all repositories that are made with it, and is never written again")
    func several() throws {
        let stores = [MemoryStore(), MemoryStore()]
        try initialize(stores)
        for store in stores { try open(store) }
        let third = MemoryStore()
        try initialize(stores + [third])
        for store in stores + [third] { try open(store) }
        try FileSystem.removeFile(at: keyPath)
        let error = #expect(throws: KedgeError.self) { try initialize([MemoryStore(), third]) }
        #expect(error?.code == .keyMissing)
        #expect(error?.message.contains("repository \"r1\" exists") == true)
        #expect(try !keyExists())
    }

    @Test("what is refused is refused before anything is made, forgotten or written")
    func refusedFirst() throws {
        let (new, old) = (MemoryStore(), MemoryStore())
        try initialize([], plain: [old])
        let forgotten = Mutex(0)
        let (other, before) = (try ArchiveFixture(system: SystemIdentifier(8)), old.contents)
        let error = #expect(throws: KedgeError.self) {
            try initialize([new], plain: [old], in: other) { forgotten.withLock { $0 += 1 } }
        }
        #expect(error?.code == .walForeign)
        #expect(new.names.isEmpty && old.contents == before)
        #expect(try !keyExists())
        #expect(forgotten.withLock { $0 } == 0)
        // And notes are forgotten while there is nothing yet that they could be taken to be about.
        try initialize([new]) { forgotten.withLock { $0 += new.names.isEmpty ? 1 : 100 } }
        #expect(forgotten.withLock { $0 } == 1)
    }

    @Test("a repository that another host makes at any moment is not taken for one of the new key, which is taken back")
    func race() throws {
        for kind in StoreOperation.Kind.allCases {
            let store = MemoryStore()
            let identity = RepositoryIdentity(
                id: RandomID(high: 1, low: 2), createdAt: ManualTime().now(), createdBy: "other")
            let isMade = Mutex(false)
            let racing = FaultyStore(store) { operation in
                let isFirst = isMade.withLock { made in
                    defer { made = made || operation.kind == kind }
                    return operation.kind == kind && !made
                }
                guard isFirst else { return nil }
                do throws(KedgeError) {
                    _ = try store.put(
                        RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.prettyText.utf8)), .createOnly)
                } catch {
                    Issue.record(error)
                }
                return nil
            }
            do {
                try initialize([racing])
                // It came too late.
                try open(store)
                try FileSystem.removeFile(at: keyPath)
            } catch {
                #expect(try !keyExists(), "\(kind): \(error)")
            }
        }
    }

    @Test("whatever fails or dies, no repository is without its key, and a repetition completes it")
    func sweep() throws {
        for fault in [Fault.failBefore, .failAfter, .crashBefore, .crashAfter] {
            var number = 0
            while true {
                number += 1
                let store = MemoryStore()
                let faulty = FaultyStore(store, fault, atOperation: number)
                do {
                    try initialize([faulty])
                    try open(store)
                    try FileSystem.removeFile(at: keyPath)
                    if faulty.faultCount > 0 { continue }
                    #expect(number > 5)
                    break
                } catch {
                    if try store.status(of: RepositoryLayout.marker) != nil { #expect(try keyExists(), "\(number)") }
                    if fault == .failBefore, !store.names.contains(where: { $0.isBelow(RepositoryLayout.keys) }) {
                        #expect(try !keyExists(), "\(number)")
                    }
                }
                try initialize([store])
                try open(store)
                try FileSystem.removeFile(at: keyPath)
            }
        }
    }

    @Test("a key file that comes in between is not replaced, and nothing is made with the key that it is not")
    func fileInBetween() throws {
        let store = MemoryStore()
        let path = keyPath
        let error = #expect(throws: KedgeError.self) {
            try initialize([store]) { () throws(KedgeError) in
                _ = try DurableFile.write(Array("theirs".utf8), to: path, mode: 0o600, random: SystemRandomSource())
            }
        }
        #expect(error?.code == .alreadyExists)
        #expect(store.names.isEmpty)
        #expect(try FileDescriptor.open(keyPath, [.read]).readAll(limit: 100) == Array("theirs".utf8))
    }
}

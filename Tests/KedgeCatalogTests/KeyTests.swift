// That a repository opens with every secret that was added, with no other, and that adding twice changes nothing.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@Suite struct KeyTests {
    let store = MemoryStore()
    let first = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    let second = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    let fixture: ArchiveFixture
    let source: RepositorySource

    init() throws {
        fixture = try ArchiveFixture()
        source = try fixture.makeRepository(in: store, secret: first)
    }

    func add(_ secret: KeyEncryptionSecret, to source: RepositorySource) throws(KedgeError) -> KeyAdd.Outcome {
        try KeyAdd(source, secret: secret, label: "second", random: SystemRandomSource(), time: ManualTime()).run()
    }

    @Test("after key add the repository opens with the old and the new secret, and with no third one")
    func addKey() throws {
        #expect(try add(second, to: source).added.count == 1)
        for secret in [first, second] {
            let opened = ArchiveFixture.source(store, secret: secret)
            #expect(try opened.openCluster("main", for: .read).registrations.count == 1)
            #expect(try KeyList(opened).run().slots.map(\.label).sorted() == ["main", "second"])
        }
        let third = ArchiveFixture.source(store, secret: .newKeyFile(random: SystemRandomSource()))
        let error = #expect(throws: KedgeError.self) { try third.open(for: .read) }
        #expect(error?.code == .keyWrong)
    }

    @Test("adding the same secret again changes nothing, and a passphrase can be added")
    func again() throws {
        _ = try add(second, to: source)
        let before = store.contents
        let repeated = try add(second, to: source)
        #expect(repeated.added.isEmpty && repeated.alreadyOpen == 1)
        #expect(store.contents == before)
        let passphrase = try KeyEncryptionSecret(parsingPassphrase: Array("correct horse".utf8), what: "passphrase")
        #expect(try add(passphrase, to: source).added.count == 1)
        #expect(try ArchiveFixture.source(store, secret: passphrase).open(for: .read).slots.count == 3)
    }

    @Test("an unencrypted repository takes no key, and says why")
    func plain() throws {
        let plain = try fixture.makeRepository(in: MemoryStore())
        let error = #expect(throws: KedgeError.self) { try add(second, to: plain) }
        #expect(error?.message == "cannot add a key to repository \"main\": it is not encrypted")
    }

    @Test("who opened the repository before a rotation reads what is sealed after it; an outage is no missing key")
    func rotationMeanwhile() throws {
        let isAway = Atomic(false)
        let failing = FaultyStore(store) { _ in isAway.load(ordering: .relaxed) ? .failBefore : nil }
        let before = try ArchiveFixture.source(failing, secret: first).openCluster("main", for: .read)
        _ = try KeyRotate(source, random: SystemRandomSource(), time: ManualTime()).run()
        let after = try source.openCluster("main", for: .write)
        let name: ObjectName = "catalog/intent/x"
        let (_, sealed) = try after.putRecord(["format": 1], .intent, name)

        isAway.store(true, ordering: .relaxed)
        let outage = #expect(throws: KedgeError.self) {
            try before.repository.keyRing.key(#require(after.repository.keyRing.newest).id)
        }
        #expect(outage?.code == .inputOutput)
        isAway.store(false, ordering: .relaxed)
        #expect(try before.readRecord(.intent, name, what: "intent").sealed == sealed)
        // What it writes itself is sealed with the key that it began with.
        #expect(before.repository.keyRing.newest?.sequence == 1)
        let stranger = #expect(throws: KedgeError.self) { try before.repository.keyRing.key(RandomID(high: 1, low: 1)) }
        #expect(stranger?.code == .keyMissing)
    }
}

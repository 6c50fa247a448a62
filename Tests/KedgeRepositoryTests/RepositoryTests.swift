// That a repository opens with its own secret and no other, and that records come back as they went in, or not at all.

import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct RepositoryTests {
    let store = MemoryStore()
    let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())

    func settings(_ secret: KeyEncryptionSecret?) -> RepositorySettings {
        RepositorySettings(
            name: "main", cipher: secret == nil ? .none : .aes256GCM, compression: .standard, secret: secret)
    }

    func create(_ secret: KeyEncryptionSecret?) throws {
        let identity = RepositoryIdentity(
            id: RandomID(high: 1, low: 2), createdAt: Timestamp(secondsSince1970: 0), createdBy: Version.writer)
        if let secret {
            let key = DataKey(sequence: 1, random: SystemRandomSource())
            try Repository.putKeySlot(
                KeySlot.wrap(
                    key, with: secret, repositoryID: identity.id, label: "main", createdAt: identity.createdAt,
                    random: SystemRandomSource()), in: store)
        }
        #expect(
            try store.put(
                RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.prettyText.utf8)), .createOnly) == .created
        )
    }

    static func registration(_ system: UInt64 = 7) -> Registration {
        Registration(
            clusterID: RandomID(from: SystemRandomSource()), name: "main", systemIdentifier: SystemIdentifier(system),
            postgresVersion: 15, catalogVersion: 202_209_061, walSegmentSize: 16 << 20, blockSize: 8192,
            walBlockSize: 8192, relationSegmentBlocks: 131_072,
            createdAt: Timestamp(secondsSince1970: Int64(system)), createdBy: Version.writer)
    }

    @Test("slots that were planted cost bounded work, and the refusal says what happened")
    func plantedSlots() throws {
        let (own, other) = (
            try KeyEncryptionSecret(parsingPassphrase: Array("own".utf8), what: "passphrase"),
            try KeyEncryptionSecret(parsingPassphrase: Array("other".utf8), what: "passphrase")
        )
        try create(own)
        // Four cost what may be spent, one of them as much as two.
        var planted: [KeySlot] = []
        func plant(cost: UInt64 = KeySlot.standardScryptCost) throws {
            let slot = try KeySlot.wrap(
                DataKey(sequence: UInt64(planted.count) + 2, random: SystemRandomSource()), with: other,
                repositoryID: RandomID(high: 1, low: 2), label: "planted", createdAt: Timestamp(secondsSince1970: 0),
                random: SystemRandomSource(), scryptCost: cost)
            try Repository.putKeySlot(slot, in: store)
            planted.append(slot)
        }
        try plant(cost: 2 * KeySlot.standardScryptCost)
        for _ in 0..<2 { try plant() }
        var settings = settings(own)
        settings.slotWork = 4 * KeySlot.standardScryptCost
        #expect(try Repository.open(store, settings, for: .write).keyRing.newest?.version.sequence == 1)
        try plant()
        // Also where the own slot was opened before: the newest key might be the one that was not tried.
        let error = #expect(throws: KedgeError.self) { try Repository.open(store, settings, for: .write) }
        #expect(error?.code == .damaged)
        #expect(error?.message == "cannot open repository \"main\": too many of its key slots do not open")
        #expect(error?.detail?.contains("as much as 4 of the usual slots") == true)
        #expect(error?.detail?.contains("\"planted\"") == true)
    }

    @Test("no more than a thousand slots are read, whatever lies there")
    func slotCount() throws {
        try create(secret)
        for number in 1..<1000 { store.plant(try #require(ObjectName("key/00/\(number)")), [1]) }
        #expect(try Repository.open(store, settings(secret), for: .read).unusableSlots.count == 999)
        store.plant("key/00/1000", [1])
        let faulty = FaultyStore(store, code: .inputOutput) { _ in nil }
        for (store, secret) in [(faulty, secret), (faulty, nil)] as [(FaultyStore, KeyEncryptionSecret?)] {
            let error = #expect(throws: KedgeError.self) { try Repository.open(store, settings(secret), for: .read) }
            #expect(error?.message == "cannot open repository \"main\": it has more than 1000 key slots")
        }
        #expect(faulty.operations.filter { $0.kind == .readPrefix }.count < 2010)
    }

    @Test(
        "records of a registered cluster are read as they were written, encrypted and plain", arguments: [true, false])
    func records(encrypted: Bool) throws {
        let secret = encrypted ? secret : nil
        try create(secret)
        let repository = try Repository.open(store, settings(secret), for: .write)
        let (cluster, isNew) = try ClusterRepository.register(Self.registration(), in: repository)
        #expect(isNew)
        let json: JSONValue = ["kedge": "intent", "n": 1]
        try cluster.putRecord(json, .intent, "catalog/intent/x")
        #expect(try cluster.readRecord(.intent, "catalog/intent/x", what: "intent").record.string("kedge") == "intent")
        // The same bytes under another name, or as another kind, are not the same record.
        let sealed = try store.readAll("main/catalog/intent/x", limit: 1 << 20)
        _ = try store.put("main/catalog/intent/y", ObjectBody(sealed), .createOnly)
        for (kind, name) in [(ObjectKind.intent, "catalog/intent/y"), (.commitRecord, "catalog/intent/x")] {
            let error = #expect(throws: KedgeError.self) {
                try cluster.readRecord(kind, #require(ObjectName(name)), what: "record")
            }
            #expect(error?.code == .damaged)
        }
    }

    @Test("another secret, or none, does not open a repository")
    func wrongSecret() throws {
        try create(secret)
        let other = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let wrong = #expect(throws: KedgeError.self) { try Repository.open(store, settings(other), for: .read) }
        #expect(wrong?.code == .keyWrong)
        let passphrase = try KeyEncryptionSecret(parsingPassphrase: Array("x".utf8), what: "passphrase")
        let missing = #expect(throws: KedgeError.self) { try Repository.open(store, settings(passphrase), for: .read) }
        #expect(missing?.code == .keyMissing)
        let (cluster, _) = try ClusterRepository.register(
            Self.registration(), in: Repository.open(store, settings(secret), for: .write))
        #expect(cluster.registrations.count == 1)
        let plain = #expect(throws: KedgeError.self) { try Repository.open(store, settings(nil), for: .read) }
        #expect(plain?.code == .configuration)
    }

    @Test("an unencrypted object is damage where encryption is configured")
    func unencryptedReplacement() throws {
        try create(secret)
        let repository = try Repository.open(store, settings(secret), for: .write)
        let (cluster, _) = try ClusterRepository.register(Self.registration(), in: repository)
        let forged = try SealedObject.seal(
            .intent, name: cluster.scoped("catalog/intent/x"), contents: Array("{}".utf8), keyRing: .plain,
            random: SystemRandomSource())
        _ = try store.put("main/catalog/intent/x", ObjectBody(forged), .createOnly)
        let error = #expect(throws: KedgeError.self) {
            try cluster.readRecord(.intent, "catalog/intent/x", what: "intent")
        }
        #expect(error?.code == .damaged)
    }

    @Test("registering again changes nothing, and a system after pg_upgrade joins the same cluster")
    func registerTwice() throws {
        try create(secret)
        let repository = try Repository.open(store, settings(secret), for: .write)
        let (first, _) = try ClusterRepository.register(Self.registration(7), in: repository)
        let (again, isNew) = try ClusterRepository.register(Self.registration(7), in: repository)
        #expect(!isNew && again.clusterID == first.clusterID && again.registrations.count == 1)
        let (upgraded, isUpgradeNew) = try ClusterRepository.register(Self.registration(8), in: repository)
        #expect(isUpgradeNew && upgraded.clusterID == first.clusterID)
        #expect(upgraded.newestRegistration.systemIdentifier == SystemIdentifier(8))
        #expect(throws: KedgeError.self) { try upgraded.registration(of: SystemIdentifier(9)) }
    }

    @Test("of two systems that are registered at once under one name one gives way, and the cluster stays usable")
    func registeredAtOnce() throws {
        try create(secret)
        let (settings, store) = (settings(secret), store)
        // What another host stores between our look and our put.
        let racing = FaultyStore(store) { operation in
            if operation.kind == .put, operation.name == "main/system/7" {
                let other = try? Repository.open(store, settings, for: .write)
                _ = other.map { try? ClusterRepository.register(Self.registration(8), in: $0) }
            }
            return nil
        }
        let own = try Repository.open(racing, settings, for: .write)
        let error = #expect(throws: KedgeError.self) {
            try ClusterRepository.register(Self.registration(7), in: own)
        }
        #expect(error?.code == .walForeign)
        let repository = try Repository.open(store, settings, for: .write)
        let cluster = try ClusterRepository.open(repository, clusterName: "main")
        #expect(cluster.registrations.map(\.systemIdentifier.number) == [8])
        // By itself it joins the other, as every later one does.
        let (joined, isNew) = try ClusterRepository.register(Self.registration(7), in: repository)
        #expect(isNew && joined.clusterID == cluster.clusterID)
    }

    @Test("the system that is registered last is the newest, whatever the clocks of the hosts say")
    func registeredByAnotherClock() throws {
        try create(secret)
        let repository = try Repository.open(store, settings(secret), for: .write)
        var ahead = Self.registration(7)
        ahead.createdAt = ahead.createdAt.adding(seconds: 30 * 86_400)
        _ = try ClusterRepository.register(ahead, in: repository)
        for system in UInt64(1)...3 {
            let (cluster, isNew) = try ClusterRepository.register(Self.registration(system), in: repository)
            #expect(isNew && cluster.newestRegistration.systemIdentifier == SystemIdentifier(system))
        }
        let reopened = try ClusterRepository.open(repository, clusterName: "main")
        #expect(reopened.registrations.map(\.systemIdentifier.number) == [7, 1, 2, 3])
        #expect(reopened.registrations.first?.createdAt == ahead.createdAt)
    }

    @Test("a place without kedge.json is no repository, and says so")
    func noRepository() {
        let error = #expect(throws: KedgeError.self) { try Repository.open(store, settings(nil), for: .read) }
        #expect(error?.code == .notFound)
    }

    @Test("a damaged kedge.json says what it is and what to do")
    func damagedMarker() throws {
        try create(nil)
        for bytes in [
            [], Array("{}".utf8), Array("{\"kedge\":\"repository\",\"format\":\"0-draft\"}".utf8), [0, 1, 2],
        ] {
            store.damage("kedge.json") { $0 = bytes }
            let error = #expect(throws: KedgeError.self) { try Repository.open(store, settings(nil), for: .read) }
            #expect(error?.code == .damaged)
            #expect(error?.hint?.hasPrefix("Its kedge.json is damaged") == true, "\(String(describing: error))")
        }
    }

    @Test(
        "an unknown feature refuses just the operations that need it", arguments: [RepositoryUse.read, .write, .expire])
    func features(_ use: RepositoryUse) throws {
        try create(nil)
        let feature: JSONValue = ["kedge": "feature", "name": "later", "neededTo": ["write"]]
        _ = try store.put("feature/later", ObjectBody(Array(feature.compactText.utf8)), .createOnly)
        guard use == .write else {
            _ = try Repository.open(store, settings(nil), for: use)
            return
        }
        let error = #expect(throws: KedgeError.self) { try Repository.open(store, settings(nil), for: use) }
        #expect(error?.code == .featureUnknown)
    }
}

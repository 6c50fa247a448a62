// That key add, rotate, rewrap and remove survive the failure of, and the death after, every single store operation:
// what was sealed before, by us or by a bystander in that very moment, is readable with a secret that the user still
// has, also after a power failure; and repeating the command finishes it.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

/// A repository with two data keys, each with an object that it sealed, and what becomes of it.
private struct KeySweep {
    let first = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    let second = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    let third = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    let original = MemoryStore()

    /// `secrets`: how many of them open the repository.
    init(secrets: Int) throws {
        let fixture = try ArchiveFixture()
        _ = try fixture.makeRepository(in: original, secret: first)
        try put("before", original, first)
        if secrets > 1 { try add(second, to: original, as: first) }
        try rotate(original, with: secrets > 1 ? [second] : [])
        try put("after", original, first)
    }

    func source(_ store: any ObjectStore, _ secret: KeyEncryptionSecret) -> RepositorySource {
        ArchiveFixture.source(store, secret: secret)
    }

    func put(_ name: String, _ store: any ObjectStore, _ secret: KeyEncryptionSecret) throws(KedgeError) {
        let cluster = try source(store, secret).openCluster("main", for: .write)
        let relative = try objectName(name)
        guard try cluster.putRecord(["kedge": "intent", "name": .string(name)], .intent, relative).outcome == .created
        else { throw KedgeError(.alreadyExists, "cannot put \(name)") }
    }

    private func objectName(_ name: String) throws(KedgeError) -> ObjectName {
        if let relative = ObjectName("catalog/intent/" + name) { return relative }
        throw KedgeError(.defect, "bad name")
    }

    /// Whether this secret alone reads all objects that are there.
    func readsAll(_ store: any ObjectStore, _ secret: KeyEncryptionSecret) throws -> Bool {
        do throws(KedgeError) {
            let cluster = try source(store, secret).openCluster("main", for: .read)
            try cluster.forEachObject(below: "catalog/intent") { (name, _) throws(KedgeError) in
                _ = try cluster.readRecord(.intent, name, what: "intent")
            }
            return true
        } catch {
            guard error.code == .keyWrong || error.code == .keyMissing else { throw error }
            return false
        }
    }

    func add(
        _ secret: KeyEncryptionSecret, to store: any ObjectStore, as own: KeyEncryptionSecret
    ) throws(KedgeError) {
        _ = try KeyAdd(
            source(store, own), secret: secret, label: "second", random: SystemRandomSource(), time: ManualTime()
        ).run()
    }

    func rotate(_ store: any ObjectStore, with secrets: [KeyEncryptionSecret]) throws(KedgeError) {
        _ = try KeyRotate(
            source(store, first), secrets: secrets.map { NamedSecret($0, what: "second") },
            random: SystemRandomSource(), time: ManualTime()
        ).run()
    }

    @discardableResult
    func rewrap(_ store: any ObjectStore, as own: KeyEncryptionSecret) throws(KedgeError) -> KeyRewrap.Outcome {
        try KeyRewrap(
            source(store, own), secret: NamedSecret(third, what: "third"), random: SystemRandomSource(),
            time: ManualTime()
        ).run()
    }

    func removeSecond(_ store: any ObjectStore) throws(KedgeError) {
        do throws(KedgeError) {
            _ = try KeyRemove(source(store, first), .label("second"), time: ManualTime()).run()
        } catch {
            // An earlier attempt removed all of them.
            guard error.code == .notFound else { throw error }
        }
    }

    /// Runs `command` with `fault` at operation 1, 2, 3 … until none is left. Each time a bystander seals an object in
    /// between, with whichever of `holders` opens the repository then; after a power failure, once before the command
    /// is repeated and once after, one of `holders` reads everything. Then `isDone` must hold. Returns the points.
    func sweep(
        _ fault: Fault, holders: [KeyEncryptionSecret],
        _ command: (any ObjectStore, KeyEncryptionSecret) throws(KedgeError) -> Void,
        isDone: (MemoryStore) throws -> Bool
    ) throws -> Int {
        for number in 1... {
            var hadFault = true
            for losesPowerFirst in [true, false] {
                let store = original.copy()
                let faulty = FaultyStore(store, fault, atOperation: number)
                do throws(KedgeError) {
                    try command(faulty, holders[0])
                } catch {
                    // Not acknowledged: the user would try again.
                }
                let bystander = try #require(try holders.first { try readsAll(store, $0) }, "\(fault) \(number)")
                try put("meanwhile", store, bystander)
                if losesPowerFirst {
                    store.losePower()
                    #expect(try holders.contains { try readsAll(store, $0) }, "\(fault) \(number)")
                }
                // With whichever secret opens it: both must be able to finish.
                let usable = try holders.filter { try readsAll(store, $0) }
                let again = try #require(number.isMultiple(of: 2) ? usable.first : usable.last)
                try command(store, again)
                store.losePower()
                #expect(try isDone(store), "\(fault) \(number) \(losesPowerFirst)")
                #expect(try holders.contains { try readsAll(store, $0) }, "\(fault) \(number)")
                hadFault = faulty.faultCount > 0
            }
            if !hadFault { return number - 1 }
        }
        return 0
    }
}

@Suite struct KeySweepTests {
    @Test("a key add that fails or dies at any store operation loses nothing", arguments: Fault.allCases)
    func add(_ fault: Fault) throws {
        let sweep = try KeySweep(secrets: 1)
        let points = try sweep.sweep(fault, holders: [sweep.first]) { (store, own) throws(KedgeError) in
            try sweep.add(sweep.second, to: store, as: own)
        } isDone: { store in
            try sweep.readsAll(store, sweep.second)
        }
        #expect(points >= 10)
        print("key add sweep, \(fault): \(points) points")
    }

    @Test("a key rotate that fails or dies at any store operation loses nothing", arguments: Fault.allCases)
    func rotate(_ fault: Fault) throws {
        let sweep = try KeySweep(secrets: 2)
        let before = try KeyList(sweep.source(sweep.original, sweep.first)).run().newest
        let points = try sweep.sweep(fault, holders: [sweep.first]) { (store, _) throws(KedgeError) in
            try sweep.rotate(store, with: [sweep.second])
        } isDone: { store in
            let newest = try KeyList(sweep.source(store, sweep.second)).run().newest
            return try newest != before && newest == KeyList(sweep.source(store, sweep.first)).run().newest
                && sweep.readsAll(store, sweep.second)
        }
        #expect(points >= 12)
        print("key rotate sweep, \(fault): \(points) points")
    }

    @Test("a key rewrap that fails or dies at any store operation loses nothing", arguments: Fault.allCases)
    func rewrap(_ fault: Fault) throws {
        let sweep = try KeySweep(secrets: 1)
        let holders = [sweep.first, sweep.third]
        let points = try sweep.sweep(fault, holders: holders) { (store, own) throws(KedgeError) in
            try sweep.rewrap(store, as: own)
        } isDone: { store in
            // The old secret opens nothing any more.
            try sweep.readsAll(store, sweep.third) && !sweep.readsAll(store, sweep.first)
                && KeyList(sweep.source(store, sweep.third)).run().slots.count == 2
        }
        #expect(points >= 20)
        print("key rewrap sweep, \(fault): \(points) points")
    }

    @Test("a key remove that fails or dies at any store operation loses nothing", arguments: Fault.allCases)
    func remove(_ fault: Fault) throws {
        let sweep = try KeySweep(secrets: 2)
        let points = try sweep.sweep(fault, holders: [sweep.first]) { (store, _) throws(KedgeError) in
            try sweep.removeSecond(store)
        } isDone: { store in
            try !sweep.readsAll(store, sweep.second)
        }
        #expect(points >= 8)
        print("key remove sweep, \(fault): \(points) points")
    }

    @Test("a rewrap and a remove rely on no slot that a power failure takes away")
    func durable() throws {
        for command in ["remove", "rewrap"] {
            let sweep = try KeySweep(secrets: 2)
            let store = sweep.original
            if command == "rewrap" { try sweep.add(sweep.third, to: store, as: sweep.first) }
            let kept = command == "rewrap" ? sweep.third : sweep.first
            for slot in try sweep.source(store, kept).open(for: .read).slots {
                guard (try? slot.unwrap(with: kept)) != nil else { continue }
                store.forgetDurability(of: try #require(RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID)))
            }
            if command == "rewrap" { try sweep.rewrap(store, as: sweep.first) } else { try sweep.removeSecond(store) }
            store.losePower()
            #expect(try sweep.readsAll(store, kept), "\(command)")
        }
    }
}

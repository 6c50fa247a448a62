// Proves that what somebody with a key (or, with cipher none, anybody) puts among the objects of a cluster is refused
// or passed over: records beyond the limits, names in the wrong place, numbers that do not fit each other.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct HostileRecordTests {
    private static func code(_ body: () throws -> Void) throws -> ErrorCode? {
        do { try body() } catch let error as KedgeError { return error.code }
        return nil
    }

    @Test(
        "a cluster is opened only under the name it was registered with, unless the configuration accepts the old one")
    func clusterNames() throws {
        let repository = try MemoryRepository(walSegmentSize: 1 << 20)
        let store = repository.store
        for name in store.names where name.text.hasPrefix("main/") {
            let moved = try #require(ObjectName("prod/" + name.text.dropFirst(5)))
            store.plant(moved, try store.readAll(name, limit: 1 << 20))
            _ = try store.remove([name])
        }
        let error = #expect(throws: KedgeError.self) { try repository.source.openCluster("prod", for: .read) }
        #expect(
            error?.description == """
                cannot use cluster "prod" in repository "main"
                code: configuration
                detail: What lies there was registered as "main", and "prod" is expected: either the directory was \
                renamed, \
                or it is that of another cluster.
                hint: If you renamed it, set registered-as = main in [cluster prod].  If not, find out who can \
                write to \
                the repository.
                """)
        let settings = RepositorySettings(
            name: "main", cipher: .aes256GCM, compression: .standard, secret: repository.secret,
            registeredNames: ["prod": "main"])
        let opened = try Repository.open(store, settings, for: .write)
        #expect(try ClusterRepository.open(opened, clusterName: "prod").registrations.count == 1)
        // A system that is registered after the rename is accepted by the same configuration.
        var registration = repository.registration
        registration.name = "prod"
        registration.systemIdentifier = SystemIdentifier(8)
        registration.createdAt = registration.createdAt.adding(seconds: 1000)
        #expect(try ClusterRepository.register(registration, in: opened).isNew)
        #expect(try ClusterRepository.open(opened, clusterName: "prod").registrations.map(\.name) == ["main", "main"])
        // Nothing is registered in a directory that may be another cluster's.
        let before = store.names
        registration.systemIdentifier = SystemIdentifier(9)
        #expect(throws: KedgeError.self) { try ClusterRepository.register(registration, in: repository.open()) }
        #expect(store.names == before)
    }

    @Test("a registration counts under its own name only")
    func registrationAliases() throws {
        let repository = try MemoryRepository(encrypted: false)
        let bytes = try repository.store.readAll("main/system/7", limit: 1 << 20)
        for name in ["main/system/07", "main/system/x/7"] as [ObjectName] { repository.store.plant(name, bytes) }
        #expect(try repository.cluster().registrations.count == 1)
    }

    @Test(
        "WAL objects in directories that are not theirs are strangers, and stop no listing", arguments: [true, false])
    func misplacedWAL(encrypted: Bool) throws {
        let repository = try MemoryRepository(encrypted: encrypted, walSegmentSize: 1 << 20)
        try repository.archive(5...6)
        try repository.archiveHistory(2, [(1, LSN(7 << 20))])
        let archive = try WALArchive(repository.cluster(), repository.registration)
        let right = try archive.inventory()
        for name in [
            // Out of order, which once made the inventory trap.
            "main/wal/7/00000001/00000000/x/000000010000000000000001",
            "main/wal/7/00000001/00000001/000000010000000000000002",
            "main/wal/7/history/000000010000000000000003", "main/wal/7/history/x/00000003.history",
            "main/wal/7/00000001/00000000/00000004.history",
            // Beyond what any server reaches.
            "main/wal/7/00000001/FFFFFFFF/00000001FFFFFFFF00000FFF",
        ] as [ObjectName] { repository.store.plant(name, [1, 2, 3]) }
        let found = try archive.inventory()
        #expect(found.timelines == right.timelines && found.histories == right.histories)
        #expect(found.strangers.count == 6)
        #expect(try archive.histories().read.keys.sorted() == [TimelineID(2)])
        #expect(try archive.histories().unreadable.isEmpty)
    }

    @Test("an inventory takes what comes out of order for strangers")
    func outOfOrder() {
        var inventory = WALInventory(segmentSize: 1 << 20)
        for name in ["000000010000000000000005", "000000010000000000000004", "000000010000000000000006"] {
            inventory.add(objectNamed: name, storedBytes: 1)
        }
        #expect(inventory.timelines.map(\.runs) == [[5...6]])
        #expect(inventory.strangers == ["000000010000000000000004"])
    }

    @Test("a record larger than readers accept is neither written nor read")
    func recordLimit() throws {
        let repository = try MemoryRepository(encrypted: false)
        let cluster = try repository.cluster()
        let text = String(repeating: "x", count: ClusterRepository.recordLimit)
        #expect(
            try Self.code { try cluster.putRecord(["kedge": .string(text)], .intent, "catalog/intent/x") }
                == .notSupported)
        // 65 MiB that compress to a few hundred bytes.
        let bomb = try SealedObject.seal(
            .intent, name: cluster.scoped("catalog/intent/y"),
            contents: [UInt8](repeating: 0x20, count: ClusterRepository.recordLimit + (1 << 20)), keyRing: .plain,
            random: SystemRandomSource())
        #expect(bomb.count < 1 << 20)
        repository.store.plant("main/catalog/intent/y", bomb)
        #expect(try Self.code { _ = try cluster.readRecord(.intent, "catalog/intent/y", what: "intent") } == .damaged)
    }

    @Test("JSON has a limit on values, since one byte of text can take forty of memory")
    func jsonValues() throws {
        let most = (1 << 22) - 1
        let text =
            Array("[".utf8) + [UInt8](repeating: 0x30, count: 1) + (0..<most).flatMap { _ in [0x2C, 0x30] as [UInt8] }
            + Array("]".utf8)
        let error = #expect(throws: KedgeError.self) { try JSONValue(parsing: text, what: "text") }
        #expect(error?.detail?.hasSuffix("there are too many values.") == true)
    }

    @Test(
        "facts whose times or counts do not fit each other are damage",
        arguments: [
            (#""latestTime":"2026-11-21T02:00:00Z""#, #""latestTime":"2026-11-21T01:00:00Z""#),
            (#""earliestTime":"2026-11-21T02:00:00Z","#, ""),
            (#""commits":1"#, #""commits":9223372036854775807"#), (#""commits":1"#, #""commits":-1"#),
        ])
    func facts(_ change: (old: String, new: String)) throws {
        let text = """
            {"format":1,"timeline":1,"partial":false,"startLSN":"0/500000","pageTimelines":[1,1],"records":1,\
            "commits":1,\
            "aborts":0,"earliestTime":"2026-11-21T02:00:00Z","latestTime":"2026-11-21T02:00:00Z"}
            """
        func parse(_ text: String) throws(KedgeError) -> WALFacts {
            try WALFacts(JSONRecord(parsing: Array(text.utf8), what: "facts"))
        }
        _ = try parse(text)
        let parts = text.split(separator: change.old, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2)
        #expect(try Self.code { _ = try parse(parts[0] + change.new + parts[1]) } == .damaged)
    }

    @Test(
        "a commit record whose pages or relation files have a size that no server has is damage, and divides nothing",
        arguments: [
            (8192, 131_072, true), (1024, 1, true), (32768, 1, true), (0, 131_072, false), (1, 131_072, false),
            (512, 131_072, false), (8191, 131_072, false), (12288, 131_072, false), (65536, 131_072, false),
            (8192, 0, false),
        ] as [(UInt32, UInt32, Bool)])
    func pageSizes(_ blockSize: UInt32, _ segmentBlocks: UInt32, _ isRight: Bool) throws {
        var record = CommitRecord.sample(
            try #require(Label(HostileManifestTests.label)), start: LSN(40), stop: LSN(400))
        record.server.blockSize = blockSize
        record.server.relationSegmentBlocks = segmentBlocks
        let text = record.jsonValue.prettyText
        let code = try Self.code { _ = try CommitRecord(JSONRecord(parsing: text.utf8, what: "commit record")) }
        #expect(code == (isRight ? nil : .damaged))
    }

    @Test("a pack with more frames, and a file with more extents, than a reader takes are refused before memory is")
    func counts() throws {
        var table: [UInt8] = [1]
        table.append(varint: UInt(PackTable.maximumFrames + 1))
        table += [UInt8](repeating: 0, count: 3 * (PackTable.maximumFrames + 1))
        #expect(try Self.code { _ = try PackTable(decoding: table, what: "pack") } == .damaged)

        var part: [UInt8] = [1, 0, 1, 0, 1, 0x61, 1, 0, 0]
        part.append(varint: UInt(FileContent.maximumExtents + 1))
        part += [0] + [UInt8](repeating: 0, count: (FileContent.maximumExtents + 1 + (8 << 20) - 1) / (8 << 20))
        part.append(varint: UInt(FileContent.maximumExtents + 1))
        part += (0...FileContent.maximumExtents).flatMap { _ in [1, 0] as [UInt8] }
        let error = #expect(throws: KedgeError.self) {
            try part.withBytes { (part) throws(KedgeError) in
                var decoder = try ManifestPartDecoder(part, what: "part")
                _ = try decoder.next()
            }
        }
        #expect(error?.detail?.hasSuffix("a file has too many extents.") == true)
    }

    @Test("checksums of regions that do not exist are damage")
    func leftoverBits() throws {
        // One file of one region without a checksum; seven bits are left over.
        for (bits, isRight) in [(0, true), (2, false), (128, false)] as [(UInt8, Bool)] {
            let part: [UInt8] = [1, 0, 1, 0, 1, 0x61, 1, 0, 0, 5, 0, bits, 1, 5, 0]
            let code = try Self.code {
                try part.withBytes { (part) throws(KedgeError) in
                    var decoder = try ManifestPartDecoder(part, what: "part")
                    _ = try decoder.next()
                }
            }
            #expect((code == nil) == isRight, "\(bits)")
        }
    }
}

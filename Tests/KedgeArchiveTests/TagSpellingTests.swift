// A segment's object carries its content tag in its name or not, as the store that it was first put in can do. Two
// contents of one segment are a conflict whichever spelling their names have, and one content in two spellings is none.
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct TagSpellingTests {
    let fixture: ArchiveFixture
    let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
    /// One repository in two stores: names carry tags in the first alone.
    let tagging = MemoryStore(hasConditionalPut: false)
    let plain = MemoryStore()
    let name: String
    let bytes: [UInt8]
    let twin: [UInt8]

    init() throws {
        fixture = try ArchiveFixture()
        _ = try fixture.makeRepository(in: tagging, secret: secret)
        name = try fixture.writeSegments(count: 1)[0]
        bytes = try FileDescriptor.open(fixture.path("pg_wal/" + name), .read).readAll(limit: 1 << 20)
        var twin = bytes
        twin[500_000] ^= 1
        self.twin = twin
        mirror()
    }

    /// Copies what the first store has to the second, as any tool would.
    private func mirror() {
        for (name, bytes) in tagging.contents { plain.plant(name, bytes) }
    }

    private func harness(_ store: MemoryStore) -> ArchiveHarness {
        ArchiveHarness(fixture: fixture, repositories: [ArchiveFixture.source(store, secret: secret)])
    }

    private func push(_ content: [UInt8], to store: MemoryStore) throws -> [PutOutcome] {
        try fixture.write("pg_wal/" + name, content)
        return try harness(store).push(name).stored.map(\.outcome)
    }

    private func segments(_ store: MemoryStore) -> Int { store.names.count { $0.text.contains(name) } }

    private func expectConflict(_ store: MemoryStore, _ body: () throws -> Void) {
        let before = store.contents
        let error = #expect(throws: KedgeError.self) { try body() }
        #expect(error?.code == .archiveConflict, "\(text(error))")
        #expect(store.contents == before)
    }

    private func conflicts(_ store: MemoryStore) throws -> Int? {
        let source = ArchiveFixture.source(store, secret: secret)
        let cluster = try source.openCluster("main", for: .read, random: SystemRandomSource())
        let inventory = try WALArchive(cluster, cluster.newestRegistration).inventory()
        return inventory.timelines.first?.segmentConflicts.count
    }

    @Test("a put finds other content under a name with a tag, and the same content")
    func putBesideTagged() throws {
        #expect(try push(bytes, to: tagging) == [.created])
        mirror()
        expectConflict(plain) { _ = try push(twin, to: plain) }
        #expect(try push(bytes, to: plain) == [.alreadyExists])
        #expect(segments(plain) == 1)
        #expect(try harness(plain).get(name) == .fetched(repository: "main"))
        #expect(try harness(plain).fetched() == bytes)
        // On the store where both would have a tag.
        expectConflict(tagging) { _ = try push(twin, to: tagging) }
        #expect(try push(bytes, to: tagging) == [.alreadyExists])
    }

    @Test("two contents are a conflict for everybody where one name has a tag and the other none")
    func mixedSpellings() throws {
        #expect(try push(bytes, to: plain) == [.created])
        #expect(try push(twin, to: tagging) == [.created])
        mirror()
        #expect(segments(plain) == 2)
        expectConflict(plain) { _ = try harness(plain).get(name) }
        for content in [bytes, twin] {
            expectConflict(plain) { _ = try push(content, to: plain) }
            expectConflict(plain) { try harness(plain).rehearse(name) }
        }
        #expect(try conflicts(plain) == 1)
    }

    @Test("one content in two spellings is served, and pushed again without a word")
    func sameContent() throws {
        #expect(try push(bytes, to: plain) == [.created])
        #expect(try push(bytes, to: tagging) == [.created])
        mirror()
        #expect(segments(plain) == 2)
        #expect(try harness(plain).get(name) == .fetched(repository: "main"))
        #expect(try harness(plain).fetched() == bytes)
        #expect(try push(bytes, to: plain) == [.alreadyExists])
        expectConflict(plain) { _ = try push(twin, to: plain) }
        // Nobody calls that a conflict.
        #expect(try conflicts(plain) == 0)
        #expect(try messages(plain).map { text($0) } == [])
    }

    @Test("one content under two names beside a conflict of the partial segment is none")
    func besidePartialConflict() throws {
        _ = try twoSpellings()
        let directory = try #require(plain.names.first { $0.text.hasSuffix(name) }?.parent)
        for digit in 1...2 {
            let tag = String(repeating: "0", count: 31) + "\(digit)"
            plain.plant(try #require(ObjectName("\(directory)/\(name).partial-\(tag)")), [1])
        }
        #expect(try conflicts(plain) == 0)
        let told = try messages(plain)
        #expect(told.map(\.code) == [.archiveConflict], "\(told.map { text($0) })")
        #expect(told.first?.message.contains("\(name).partial") == true)
    }

    /// One content in two spellings in the plain store. Returns the names of their objects.
    private func twoSpellings() throws -> (untagged: ObjectName, tagged: ObjectName) {
        #expect(try push(bytes, to: plain) == [.created])
        #expect(try push(bytes, to: tagging) == [.created])
        mirror()
        return (
            try #require(plain.names.first { $0.text.hasSuffix(name) }),
            try #require(plain.names.first { $0.text.contains(name + "-") })
        )
    }

    private func messages(_ store: MemoryStore) throws -> [KedgeError] {
        let source = ArchiveFixture.source(store, secret: secret)
        let cluster = try source.openCluster("main", for: .read, random: SystemRandomSource())
        return InfoMessage.aboutWAL(
            try RepositorySurvey(cluster: cluster, interruption: Interruption()).run())
    }

    @Test("an object that can't be read is not taken for a copy of the other, but told as what is damaged")
    func damagedTwin() throws {
        let (untagged, tagged) = try twoSpellings()
        plain.damage(untagged) { $0 = Array($0.prefix(100)) }
        let before = plain.contents
        let error = try #require(throws: KedgeError.self) { try harness(plain).get(name) }
        #expect(error.code == .damaged)
        #expect(error.cause?.message == "cannot use WAL file \"\(name)\": object \"\(untagged)\" cannot be read")
        let detail = "\"\(tagged)\" holds that file as well, but nobody can tell whether both were the same."
        #expect(error.cause?.detail?.hasSuffix(detail) == true, "\(text(error))")
        #expect(error.hint?.hasPrefix("Put a good copy of the object back") == true, "\(text(error))")
        #expect(error.hint?.contains("who stored \"\(tagged)\"") == true)
        let told = try messages(plain)
        #expect(told.map(\.code) == [.damaged] && told.map(\.hint) == [error.hint], "\(told.map { text($0) })")
        #expect(plain.contents == before)
        // Beside two known contents it does not matter what the third was.
        plain.plant(try #require(ObjectName(untagged.text + "-00000000000000000000000000000001")), [1])
        expectConflict(plain) { _ = try harness(plain).get(name) }
    }

    @Test("of two objects that are known to hold the same the one that can be read is served, and the other told")
    func damagedCopy() throws {
        let (untagged, tagged) = try twoSpellings()
        for (damaged, isTold) in [(untagged, true), (tagged, false)] {
            let sound = plain.contents
            // What a short read finds in front is whole.
            plain.damage(damaged) { $0[$0.count - 1000] ^= 1 }
            var warnings: [String] = []
            #expect(try harness(plain).get(name, warn: { warnings.append($0) }) == .fetched(repository: "main"))
            #expect(try harness(plain).fetched() == bytes)
            #expect(warnings.count == (isTold ? 1 : 0), "\(warnings)")
            #expect(
                warnings.allSatisfy {
                    $0.hasPrefix("another object of the same content was used, \"\(tagged)\": ")
                }, "\(warnings)")
            for (name, bytes) in sound { plain.plant(name, bytes) }
        }
        for object in [untagged, tagged] { plain.damage(object) { $0[$0.count - 1000] ^= 1 } }
        let error = #expect(throws: KedgeError.self) { try harness(plain).get(name) }
        #expect(error?.code == .damaged)
    }

    @Test("what is found of a file is what its directory holds of it, whatever lies around")
    func generated() throws {
        let directory = try TemporaryDirectory()
        let random = SeededRandom(seed: testSeed())
        let tags = ["", "-00000000000000000000000000000001", "-ffffffffffffffffffffffffffffffff"]
        for round in 0..<20 {
            try LocalStore.createRoot(at: directory("repo\(round)"))
            let local = try LocalStore(at: directory("repo\(round)"), marker: nil, random: random)
            let memory = MemoryStore()
            for (name, bytes) in tagging.contents {
                memory.plant(name, bytes)
                _ = try local.put(name, ObjectBody(bytes), .createOnly)
            }
            let numbers = [0, 1, 8, 9, 10, 15, 16, 17, 255].filter { _ in random.next(below: 3) > 0 }
            func files(_ number: Int) -> [WALFileName] {
                let hex = (number < 16 ? "0" : "") + String(number, radix: 16, uppercase: true)
                let name = "0000000100000000000000" + hex
                return [.segment(name), .partial(name + ".partial")]
            }
            for file in numbers.flatMap(files) {
                for tag in tags where random.next(below: 2) == 0 {
                    let hash = tag.isEmpty ? nil : ContentHash(hex: tag.dropFirst())
                    let relative = ClusterLayout.walFile(file, of: fixture.system, tag: hash)
                    let object = try #require(ObjectName("main/\(relative)"))
                    memory.plant(object, [1])
                    _ = try local.put(object, ObjectBody([1]), .createOnly)
                    guard random.next(below: 4) == 0 else { continue }
                    // Strangers: behind it in the order of names, and in a directory of its own.
                    for text in ["\(object)zz", "\(object)x/\(file.text)"] {
                        memory.plant(try #require(ObjectName(text)), [1])
                        _ = try local.put(#require(ObjectName(text)), ObjectBody([1]), .createOnly)
                    }
                }
            }
            for store in [memory, local] as [any ObjectStore] {
                let cluster = try ArchiveFixture.source(store, secret: secret).openCluster(
                    "main", for: .read, random: SystemRandomSource())
                let archive = WALArchive(cluster, cluster.newestRegistration)
                for file in [0, 1, 8, 9, 10, 15, 16, 17, 254, 255].flatMap(files) {
                    let copies = try archive.copies(of: file).map(\.archived)
                    // What lies in a directory below is no copy.
                    let expected = copies.filter {
                        ClusterLayout.walFile(file, of: fixture.system, tag: $0.tag) == $0.name
                    }
                    #expect(copies == expected, "\(file) in \(store.location)")
                    #expect(try archive.find(file) == copies, "\(file) in \(store.location)")
                }
            }
        }
    }
}

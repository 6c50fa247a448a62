// What init refuses before it registers anything: repositories in the way of the database, two names of one repository,
// and a living database's name.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeSetup

@Suite struct InitTests {
    private func initialize(
        _ fixture: ArchiveFixture, _ stores: [MemoryStore], kept: [KeptPath] = [],
        replacing: SystemIdentifier? = nil
    ) throws(KedgeError) -> Init.Outcome {
        var options = Init.Options(
            clusterName: "main", pgdata: fixture.path("."),
            repositories: stores.enumerated().map { ArchiveFixture.source($0.element, name: "r\($0.offset)") })
        options.keptPaths = kept
        options.replacedSystem = replacing
        return try Init(options, random: SystemRandomSource(), time: ManualTime()).run()
    }

    // MARK: Places

    @Test(
        "a repository in the data directory, its WAL or a tablespace is refused, and so is a database in a repository")
    func places() throws {
        let fixture = try ArchiveFixture()
        let other = try TemporaryDirectory()
        for name in ["ts", "ts/PG_15_202209061", "wal"] { _ = try Directory.create(at: RawPath(other(name))) }
        _ = try Directory.create(at: fixture.path("pg_tblspc"))
        try FileSystem.createSymbolicLink(at: fixture.path("pg_tblspc/16384"), target: RawPath(other("ts")))
        let refused = [
            fixture.directory.path, fixture.directory("kedge"), fixture.directory("base/kedge"),
            other("ts/PG_15_202209061/kedge"), RawPath(fixture.directory.path).parent.description,
        ]
        for path in refused {
            let store = MemoryStore()
            let error = #expect(throws: KedgeError.self, "\(path)") {
                try initialize(fixture, [store], kept: [KeptPath(.repository, "repository \"r0\"", at: RawPath(path))])
            }
            #expect(error?.code == .configuration, "\(path)")
            #expect(error?.message == "cannot use a repository that shares a directory with the database")
            #expect(store.names.isEmpty)
        }
        // A key there is for check to warn of; beside the version's directory nothing of this cluster is cleared.
        for kept in [
            KeptPath(.other, "the key file", at: fixture.path("k.key")),
            KeptPath(.repository, "repository \"r0\"", at: RawPath(other("ts/kedge"))),
            KeptPath(.repository, "repository \"r0\"", at: RawPath(fixture.directory.path + "2")),
        ] {
            _ = try initialize(fixture, [MemoryStore()], kept: [kept])
        }
        let control = try ControlFile.read(dataDirectory: fixture.path("."), time: ManualTime())
        let found = try PlaceCheck(
            dataDirectory: fixture.path("."), control: control,
            kept: [KeptPath(.other, "the key file", at: fixture.path("k.key"))]
        ).run()
        #expect(found.refusal == nil)
        #expect(found.warning?.detail?.hasPrefix("The key file, at ") == true)
    }

    @Test("one repository under two names is refused before anything is registered")
    func twins() throws {
        let fixture = try ArchiveFixture()
        let (one, other) = (MemoryStore(), MemoryStore())
        let error = #expect(throws: KedgeError.self) { try initialize(fixture, [one, other, one]) }
        #expect(error?.message == "cannot use repositories \"r0\" and \"r2\": they are the same")
        #expect(!one.names.contains { $0.text.hasPrefix("main/") })
        #expect(try initialize(fixture, [one, other]).repositories.map(\.registered) == [true, true])
    }

    @Test("generated lists of repositories: the first two of one id, or none", arguments: 1...50)
    func twinsGenerated(_ seed: UInt64) {
        let dice = SeededRandom(seed: seed)
        let ids = (0..<dice.next(below: 6)).map { _ in RandomID(high: 1, low: UInt64(dice.next(below: 8))) }
        let found = RepositoryTwin.find(
            ids.enumerated().map { RepositoryTwin.Member(name: "\($0.offset)", id: $0.element, location: "l") })
        #expect((found == nil) == (Set(ids).count == ids.count))
        guard let found, let first = Int(found.first), let second = Int(found.second) else { return }
        #expect(first < second && ids[first] == ids[second])
        #expect(Set(ids[..<second]).count == second)
    }

    // MARK: Systems

    @Test("a second database takes a registered one's name only where the old one is named (lesson 44)")
    func systems() throws {
        let (first, second) = (try ArchiveFixture(), try ArchiveFixture(system: SystemIdentifier(8)))
        let store = MemoryStore()
        _ = try initialize(first, [store])
        let before = store.contents
        let old = WALBuilder.system
        for named in [nil, SystemIdentifier(8), SystemIdentifier(9)] {
            let error = #expect(throws: KedgeError.self) { try initialize(second, [store], replacing: named) }
            #expect(error?.code == .walForeign)
            #expect(error?.hint?.hasSuffix("add \"--replace-system \(old)\".") == true)
            #expect(store.contents == before)
        }
        #expect(try initialize(second, [store], replacing: old).repositories.map(\.registered) == [true])
        // Safe to repeat, for both: an upgrade may be undone.
        #expect(try initialize(second, [store], replacing: old).repositories.map(\.registered) == [false])
        #expect(try initialize(first, [store]).repositories.map(\.registered) == [false])
        let cluster = try ArchiveFixture.source(store).openCluster("main", for: .read)
        func warning(_ fixture: ArchiveFixture) throws -> KedgeError? {
            SystemSuccession.warning(
                cluster, present: try ControlFile.read(dataDirectory: fixture.path("."), time: ManualTime()))
        }
        #expect(cluster.registrations.count == 2)
        let later = cluster.newestRegistration.systemIdentifier
        #expect(try warning(later == old ? first : second) == nil)
        #expect(try warning(later == old ? second : first)?.code == .walForeign)
    }

    @Test("generated registrations: nothing but an upgrade goes on unasked", arguments: 1...100)
    func decided(_ seed: UInt64) {
        let dice = SeededRandom(seed: seed)
        func system() -> SystemSuccession.System {
            .init(identifier: SystemIdentifier(UInt64(1 + dice.next(below: 5))), version: 13 + dice.next(below: 3))
        }
        for _ in 0..<100 {
            let (present, registered) = (system(), (0..<dice.next(below: 4)).map { _ in system() })
            let named = dice.next(below: 2) == 0 ? nil : system().identifier
            let decision = SystemSuccession.decide(present, registered: registered, replacing: named)
            let isKnown = registered.contains { $0.identifier == present.identifier }
            switch decision {
            case .plain: #expect(isKnown || registered.isEmpty)
            case .upgraded: #expect(!isKnown && named == nil && present.version > registered.last?.version ?? .max)
            case .confirmed: #expect(!isKnown && named != nil && named == registered.last?.identifier)
            case .refused:
                #expect(!isKnown && !registered.isEmpty && named != registered.last?.identifier)
                #expect(named != nil || present.version <= registered.last?.version ?? 0)
            }
        }
    }
}

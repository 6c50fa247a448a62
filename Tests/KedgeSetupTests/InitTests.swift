// What init refuses before it registers anything: repositories in the way of the database.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeSetup

@Suite struct InitTests {
    private func initialize(
        _ fixture: ArchiveFixture, _ stores: [MemoryStore], kept: [KeptPath] = []
    ) throws(KedgeError) -> Init.Outcome {
        var options = Init.Options(
            clusterName: "main", pgdata: fixture.path("."),
            repositories: stores.enumerated().map { ArchiveFixture.source($0.element, name: "r\($0.offset)") })
        options.keptPaths = kept
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
}

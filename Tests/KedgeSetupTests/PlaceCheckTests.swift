// That check says what restore would refuse: directories that something above them makes part of another cluster.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeSetup

@Suite struct PlaceCheckTests {
    /// A cluster with a tablespace, pg_wal elsewhere and a drill-directory, each below a directory of its own.
    private func world() throws -> (fixture: TemporaryDirectory, places: PlaceCheck) {
        let world = try TemporaryDirectory()
        for name in [
            "data", "data/main", "data/main/global", "data/main/pg_tblspc", "wals", "wals/wal",
            "wals/wal/archive_status",
            "ts", "ts/one", "ts/one/PG_15_202209061", "drills", "drills/drill",
        ] {
            _ = try Directory.createPlain(at: RawPath(world(name)), mode: 0o700)
        }
        let cluster = try ArchiveFixture()
        let control = try ControlFile.read(dataDirectory: cluster.path("."), time: ManualTime())
        for name in ["PG_VERSION", "postmaster.pid"] { try write(world("data/main/" + name)) }
        try FileSystem.createSymbolicLink(at: RawPath(world("data/main/pg_wal")), target: RawPath(world("wals/wal")))
        try FileSystem.createSymbolicLink(
            at: RawPath(world("data/main/pg_tblspc/16384")), target: RawPath(world("ts/one")))
        return (
            world,
            PlaceCheck(
                dataDirectory: RawPath(world("data/main")), control: control, kept: [],
                drillDirectory: RawPath(world("drills/drill")))
        )
    }

    private func write(_ path: String) throws {
        let file = try FileDescriptor.open(RawPath(path), [.write, .create], mode: 0o600)
        try file.write([0x31], at: 0)
    }

    @Test("a stray file above a directory that restore or drill writes to is told, with what to remove")
    func stray() throws {
        for (directory, name) in [
            ("data", "the data directory"), ("wals", "the directory of the WAL"),
            ("ts", "the directory of tablespace 16384"), ("drills", "the drill-directory"),
        ] {
            for mark in ["PG_VERSION", "postmaster.pid", "kedge_restore.json"] {
                let (world, places) = try world()
                #expect(try places.enclosed().isEmpty)
                let path = world("\(directory)/\(mark)")
                try write(path)
                let errors = try places.enclosed()
                #expect(errors.count == 1, "\(path)")
                let error = try #require(errors.first)
                #expect(error.message.hasPrefix("nothing could be restored to \(name) \""), "\(error)")
                #expect(error.detail?.contains("a PostgreSQL data directory: it holds \"\(mark)\"") == true, "\(error)")
                #expect(error.hint?.contains("something left \"\(path)\" there: remove that now.") == true, "\(error)")
            }
        }
        // A drill is as little welcome in what is a data directory itself.
        let (world, places) = try world()
        try write(world("drills/drill/PG_VERSION"))
        #expect(try places.enclosed().count == 1)
    }

    @Test("check tells of it as a warning")
    func warned() throws {
        let (world, places) = try world()
        try write(world("data/PG_VERSION"))
        try write(world("drills/PG_VERSION"))
        var database = DatabaseSettings()
        database.host = world("nothing")
        var options = Check.Options(
            clusterName: "main", dataDirectory: places.dataDirectory, database: database, repositories: [],
            archiveTimeout: .seconds(1), prepareWorkDirectory: { () throws(KedgeError) in })
        options.drillDirectory = places.drillDirectory
        let outcome = try Check(
            options, random: SystemRandomSource(), time: ManualTime(), interruption: Interruption()
        ).run()
        let warnings = outcome.findings.filter(\.isWarning).compactMap { finding -> String? in
            guard case .warning(let error) = finding.verdict else { return nil }
            return error.message.split(separator: "\"").first.map(String.init)
        }
        #expect(
            warnings == [
                "nothing could be restored to the data directory ", "nothing could be restored to the drill-directory ",
            ])
    }
}

// That a restore never writes where it must not: overlapping or living tablespaces, directories in use, manifests that
// try to lead out of the data directory.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestoreSafetyTests {
    static let version = "PG_15_202209061"

    private func placements(
        _ mapping: [UInt32: RawPath], created: [CreatedTablespace] = [], links: [RawPath: RawPath] = [:]
    ) throws(KedgeError) -> [TablespacePlacement] {
        try placements(
            of: [16385: "/srv/data2", 16384: "/srv/data"], created: created, mapping: mapping, links: links)
    }

    /// `links` are paths that lead elsewhere.
    private func placements(
        of recorded: [UInt32: RawPath], created: [CreatedTablespace] = [], mapping: [UInt32: RawPath] = [:],
        pgdata: RawPath = "/pg/main", isConfigured: Bool = false, links: [RawPath: RawPath] = [:]
    ) throws(KedgeError) -> [TablespacePlacement] {
        let placer = TablespacePlacer(
            pgdata: pgdata, isConfigured: isConfigured, versionDirectory: Self.version,
            resolve: { (path) throws(KedgeError) in links[path] ?? path })
        let linked = recorded.sorted { $0.key > $1.key }.map {
            CommitRecord.Tablespace(oid: $0.key, path: $0.value, inPlace: false)
        }
        return try placer.decide(
            linked + [.init(oid: 16386, path: "pg_tblspc/16386", inPlace: true)], created: created, mapping: mapping)
    }

    // MARK: Placement

    @Test("tablespaces go where they were, or where they are mapped; similar names do not overlap (lesson 31)")
    func placement() throws {
        let found = try placements([16384: "/other"])
        #expect(found.map(\.target) == ["/other", "/srv/data2"])
        #expect(found.map(\.isMapped) == [true, false])
        #expect(try placements([:]).map(\.target) == ["/srv/data", "/srv/data2"])
    }

    @Test(
        "directories that overlap are refused",
        arguments: ["/pg/main", "/pg/main/x", "/pg", "/srv/data2", "/srv/data2/below", "/"] as [RawPath])
    func overlaps(_ path: RawPath) {
        let error = #expect(throws: KedgeError.self) { _ = try placements([16384: path]) }
        #expect(error?.code == .usage)
    }

    @Test("paths that lead to the same directory by links overlap as well (lesson 31)")
    func overlapsByLinks() throws {
        #expect(throws: KedgeError.self) {
            _ = try placements([16384: "/other"], links: ["/srv/data2": "/other"])
        }
        #expect(throws: KedgeError.self) { _ = try placements([:], links: ["/srv/data2": "/pg/main/base"]) }
        #expect(try placements([:], links: ["/srv/data": "/a", "/srv/data2": "/b"]).map(\.target).count == 2)
    }

    @Test(
        "tablespaces in one another, as the original had them, are restored so, but nothing among the files of another")
    func nesting() throws {
        #expect(try placements(of: [1: "/a", 2: "/a/b"]).map(\.target) == ["/a", "/a/b"])
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/a", 2: RawPath("/a/\(Self.version)/5")]) }
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/a", 2: "/a"]) }
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/x", 2: "/a/b"], mapping: [1: "/a"]) }
        // The configured data directory may lie in a tablespace, never the other way round.
        #expect(try placements(of: [1: "/pg"], isConfigured: true).count == 1)
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/pg"]) }
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/pg"], mapping: [1: "/"], isConfigured: true) }
        #expect(throws: KedgeError.self) { _ = try placements(of: [1: "/pg/main/ts"], isConfigured: true) }
    }

    @Test("what recovery creates stays out of mapped directories and of the data directory")
    func createdInTheWay() throws {
        func created(_ path: RawPath, oid: UInt32 = 16390) -> [CreatedTablespace] {
            [CreatedTablespace(lsn: LSN(0x200), oid: oid, path: path)]
        }
        #expect(throws: KedgeError.self) { _ = try placements([16384: "/other"], created: created("/other")) }
        #expect(throws: KedgeError.self) { _ = try placements([:], created: created("/pg/main/ts")) }
        // After a drop, the same place may be used again.
        #expect(try placements([:], created: created("/srv/data")).count == 2)
        #expect(try placements([16384: "/other"], created: created("/srv/data")).count == 2)
        // In place: within the data directory that is restored.
        #expect(try placements([:], created: created("")).count == 2)
    }

    @Test(
        "a tablespace of the backup that recovery creates again can't be mapped: it would lead its link to the old path"
    )
    func createdAgain() throws {
        let created = [CreatedTablespace(lsn: LSN(0x200), oid: 16384, path: "/srv/data")]
        let error = #expect(throws: KedgeError.self) { _ = try placements([16384: "/other"], created: created) }
        #expect(
            error?.description == """
                cannot map tablespace 16384: it was created while the backup was taken
                code: usage
                detail: Recovery creates it again at "/srv/data", the path that is in the WAL, and would write there.
                hint: Restore another backup, or leave out its mapping where that path is not in use.
                """)
        #expect(try placements([:], created: created).count == 2)
    }

    @Test("a mapping for no tablespace, or for one that only recovery creates, is refused with the reason")
    func unknownMapping() {
        let unknown = #expect(throws: KedgeError.self) { _ = try placements([7: "/other"]) }
        #expect(
            unknown?.description == """
                cannot map tablespace 7: the backup has no such tablespace
                code: usage
                detail: It has: 16385 (/srv/data2), 16384 (/srv/data).
                hint: Give the number that pg_tablespace shows as oid.
                """)
        let created = CreatedTablespace(lsn: LSN(0x200), oid: 16390, path: "/srv/new")
        let late = #expect(throws: KedgeError.self) { _ = try placements([16390: "/other"], created: [created]) }
        #expect(
            late?.description == """
                cannot map tablespace 16390: it was created after the backup
                code: usage
                detail: Recovery will create it at "/srv/new", the path that is in the WAL.
                hint: Leave out its mapping; for a mapped restore make a new backup, or recover to a point before LSN \
                0/200.
                """)
    }

    // MARK: The target

    private func check(
        _ directory: TemporaryDirectory, isConfigured: Bool = false, tablespace: RawPath? = nil, isMapped: Bool = true,
        created: RawPath? = nil
    ) throws(KedgeError) {
        let placements = tablespace.map {
            [TablespacePlacement(oid: 16384, recorded: isMapped ? "/elsewhere" : $0, target: $0)]
        }
        let created = created.map { [CreatedTablespace(lsn: LSN(0x200), oid: 16390, path: $0)] }
        try TargetCheck(
            pgdata: RawPath(directory("pgdata")), isConfigured: isConfigured, placements: placements ?? [],
            created: created ?? [], versionDirectory: Self.version
        ).run()
    }

    private func write(_ text: String, to path: String) throws {
        try Directory.createWithParents(at: RawPath(path).parent)
        let file = try FileDescriptor.open(RawPath(path), [.write, .create])
        try file.write(Array(text.utf8), at: 0)
    }

    @Test("an absent or an empty directory is accepted, anything else in it is refused")
    func dataDirectory() throws {
        let directory = try TemporaryDirectory()
        try check(directory)
        _ = try Directory.create(at: RawPath(directory("pgdata")))
        try check(directory)
        try write("x", to: directory("pgdata/PG_VERSION"))
        let error = #expect(throws: KedgeError.self) { try check(directory) }
        let path = directory("pgdata")
        #expect(
            error?.description == """
                cannot restore into directory "\(path)": it is not empty
                code: not-empty
                detail: It holds "PG_VERSION".
                hint: Move what is there away, or restore into another directory with "--pgdata".
                """)
    }

    @Test("a directory with a living server is refused as such, a stale postmaster.pid is not")
    func runningServer() throws {
        let directory = try TemporaryDirectory()
        try write("1\n/x\n", to: directory("pgdata/postmaster.pid"))
        let error = #expect(throws: KedgeError.self) { try check(directory) }
        let path = directory("pgdata")
        #expect(
            error?.description == """
                cannot restore into directory "\(path)": a server runs there
                code: server-running
                detail: Its postmaster.pid names process 1, which is alive.
                hint: Stop that server and move its directory away, or restore into another with "--pgdata".
                """)
        try write("2147483646\n", to: directory("pgdata/postmaster.pid"))
        let stale = #expect(throws: KedgeError.self) { try check(directory) }
        #expect(stale?.code == .notEmpty)
    }

    @Test("a tablespace directory must be empty; the configured cluster's own may hold other versions (lesson 32)")
    func tablespaceDirectory() throws {
        let directory = try TemporaryDirectory()
        let tablespace = RawPath(directory("ts"))
        try check(directory, tablespace: tablespace)
        try write("x", to: directory("ts/PG_14_202107181/1"))
        #expect(throws: KedgeError.self) { try check(directory, tablespace: tablespace) }
        #expect(throws: KedgeError.self) { try check(directory, tablespace: tablespace, isMapped: false) }
        try check(directory, isConfigured: true, tablespace: tablespace, isMapped: false)
        try write("x", to: directory("ts/\(Self.version)/1"))
        let error = #expect(throws: KedgeError.self) {
            try check(directory, isConfigured: true, tablespace: tablespace, isMapped: false)
        }
        #expect(error?.code == .notEmpty)
    }

    @Test("a living directory where recovery would create a tablespace is refused, an unused one is not")
    func createdTablespace() throws {
        let directory = try TemporaryDirectory()
        let path = RawPath(directory("new"))
        try check(directory, created: path)
        try write("x", to: directory("new/PG_14_202107181/1"))
        try check(directory, created: path)
        try write("x", to: directory("new/\(Self.version)/1"))
        let error = #expect(throws: KedgeError.self) { try check(directory, created: path) }
        #expect(
            error?.description == """
                cannot restore: recovery would write into tablespace directory "\(path)"
                code: not-empty
                detail: Tablespace 16390 was created after the backup, at LSN 0/200, so recovery creates it at that \
                path; it \
                holds "PG_15_202209061", which may belong to a living cluster.
                hint: Restore on another host, recover to a point before the tablespace was created, or make a new \
                backup \
                and restore that one with "--tablespace".
                """)
    }

    // MARK: Manifests

    private func survey(
        _ entries: [(String, ManifestEntry.Kind)], mode: UInt32? = nil
    ) throws(KedgeError) -> ManifestSurvey {
        var backup = modelBackup(
            number: 1, timeline: TimelineID(1), start: LSN(1), stop: LSN(2), stopTime: RestorePlanTests.time(0),
            tablespaces: [.init(oid: 16384, path: "/ts", inPlace: false)])
        backup.dataDirectoryMode = mode
        var survey = ManifestSurvey(of: backup, versionDirectory: "PG_15")
        for (path, kind) in entries {
            try survey.add(ManifestEntry(path: ManifestPath(path), mode: 0o750, modificationTime: 0, kind: kind))
        }
        try survey.finish()
        return survey
    }

    private func file(_ size: UInt64) -> ManifestEntry.Kind {
        .file(FileContent(size: size, identity: nil, regions: [], extents: []))
    }

    @Test("a survey adds up what each file system has to take, and takes the mode from the cluster")
    func surveying() throws {
        let found = try survey([
            ("backup_label", file(200)), ("base", .directory), ("base/1", .directory), ("base/1/1259", file(8192)),
            ("global", .directory), ("global/pg_control", file(8192)), ("pg_tblspc", .directory),
            ("pg_tblspc/16384", .symbolicLink(Array("/ts".utf8))), ("pg_tblspc/16384/PG_15", .directory),
            ("pg_tblspc/16384/PG_15/7", file(100)),
            (
                "/etc/postgresql.conf",
                .extraFile(
                    FileContent(
                        size: 9, identity: nil, regions: [], extents: []))
            ),
        ])
        #expect(found.files == 4)
        #expect(found.bytes == [nil: 16584, 16384: 100])
        #expect(found.directoryMode == 0o750)
        #expect(found.extraFiles == ["/etc/postgresql.conf"])
    }

    @Test("the data directory gets the mode that it had, as far as the server accepts it")
    func directoryMode() throws {
        let entries: [(String, ManifestEntry.Kind)] = [
            ("backup_label", file(200)), ("base", .directory), ("global", .directory),
            ("global/pg_control", file(8192)),
        ]
        for (kept, restored) in [(0o700, 0o700), (0o750, 0o750), (0o710, 0o710), (0o775, 0o750), (0o2750, 0o750)] {
            #expect(try survey(entries, mode: UInt32(kept)).directoryMode == UInt32(restored))
        }
        // Without it, that of base serves, which is 0750 here.
        #expect(try survey(entries).directoryMode == 0o750)
    }

    @Test("a manifest that leads out of the data directory, or lacks what every backup has, is refused")
    func hostileManifests() {
        let end: [(String, ManifestEntry.Kind)] = [("global", .directory), ("global/pg_control", file(8192))]
        let label: [(String, ManifestEntry.Kind)] = [("backup_label", file(1))]
        let link = ManifestEntry.Kind.symbolicLink(Array("/etc".utf8))
        let tablespace: [(String, ManifestEntry.Kind)] = [("pg_tblspc", .directory), ("pg_tblspc/16384", link)]
        let cases: [([(String, ManifestEntry.Kind)], ErrorCode)] = [
            (label + [("base", link)] + end, .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/99", link)], .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/016384", link)], .unsafePath),
            (label + end + tablespace + [("pg_tblspc/16384/x", file(1))], .unsafePath),
            (label + end + tablespace + [("pg_tblspc/16384/PG_14", .directory)], .unsafePath),
            (label + end + tablespace + [("pg_tblspc/16384/PG_15x", .directory)], .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/16384", .directory)], .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/16384", file(1))], .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/016384", .directory)], .unsafePath),
            (label + [("base/1", file(1))] + end, .unsafePath),
            (label + [("base", .directory), ("base2/1", file(1))] + end, .unsafePath),
            (end, .damaged), (label, .damaged),
            (label + end + [("pg_wal", file(1))], .unsafePath), (label + end + [("pg_wal", link)], .unsafePath),
            (label + end + [("tablespace_map", file(1))], .unsafePath),
            (label + end + [("tablespace_map", .directory)], .unsafePath),
            ([("backup_label", .directory)] + end, .unsafePath),
            (label + [("global", .directory), ("global/pg_control", .directory)], .unsafePath),
            (label + end + [("postgresql.auto.conf", .directory)], .unsafePath),
            (label + end + [("recovery.signal", .directory)], .unsafePath),
            ([("backup_label", file(1 << 30))] + end, .damaged),
        ]
        for (entries, code) in cases {
            let error = #expect(throws: KedgeError.self) { _ = try survey(entries) }
            #expect(error?.code == code, "\(entries.map(\.0))")
        }
    }
}

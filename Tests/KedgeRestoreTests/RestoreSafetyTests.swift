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
        _ mapping: [UInt32: RawPath], created: [CreatedTablespace] = []
    ) throws(KedgeError) -> [TablespacePlacement] {
        try TablespacePlacement.decide(
            [
                .init(oid: 16385, path: "/srv/data2", inPlace: false),
                .init(oid: 16384, path: "/srv/data", inPlace: false),
                .init(oid: 16386, path: "", inPlace: true),
            ], created: created, mapping: mapping, pgdata: "/pg/main")
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

    private func survey(_ entries: [(String, ManifestEntry.Kind)]) throws(KedgeError) -> ManifestSurvey {
        var survey = ManifestSurvey(
            of: modelBackup(
                number: 1, timeline: TimelineID(1), start: LSN(1), stop: LSN(2), stopTime: RestorePlanTests.time(0),
                tablespaces: [.init(oid: 16384, path: "/ts", inPlace: false)]))
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

    @Test("a manifest that leads out of the data directory, or lacks what every backup has, is refused")
    func hostileManifests() {
        let end: [(String, ManifestEntry.Kind)] = [("global", .directory), ("global/pg_control", file(8192))]
        let label: [(String, ManifestEntry.Kind)] = [("backup_label", file(1))]
        let link = ManifestEntry.Kind.symbolicLink(Array("/etc".utf8))
        let cases: [([(String, ManifestEntry.Kind)], ErrorCode)] = [
            (label + [("base", link)] + end, .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/99", link)], .unsafePath),
            (label + end + [("pg_tblspc", .directory), ("pg_tblspc/016384", link)], .unsafePath),
            (label + [("base/1", file(1))] + end, .unsafePath),
            (label + [("base", .directory), ("base2/1", file(1))] + end, .unsafePath),
            (end, .damaged), (label, .damaged),
            ([("backup_label", file(1 << 30))] + end, .damaged),
        ]
        for (entries, code) in cases {
            let error = #expect(throws: KedgeError.self) { _ = try survey(entries) }
            #expect(error?.code == code, "\(entries.map(\.0))")
        }
    }
}

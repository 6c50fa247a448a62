// That no restore writes into a cluster that is there already, however its directories are named: into its data
// directory, its WAL, or its part of a tablespace.

import KedgeCore
import KedgePostgres
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct EnclosingClusterTests {
    private static let version = "PG_15_202209061"

    private func find(_ path: RawPath, orIs: Bool = false, _ present: Set<RawPath>) -> EnclosingCluster? {
        let find = { (path: RawPath) throws(KedgeError) in present.contains(path) }
        do throws(KedgeError) {
            return try EnclosingCluster.find(around: path, orIs: orIs, exists: find)
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    @Test("what shows a cluster, above a target and in it")
    func marks() {
        let live: Set<RawPath> = ["/live/PG_VERSION", "/live/base/1/PG_VERSION", "/wal/archive_status"]
        let data = EnclosingCluster(.dataDirectory, "/live", mark: "PG_VERSION")
        #expect(find("/live/pg_wal", live) == data)
        #expect(find("/live/base", live) == data)
        #expect(find("/live/sub/deeper", live) == data)
        #expect(find("/live", live) == nil)
        #expect(find("/live", orIs: true, live) == data)
        #expect(find("/live/base/1/x", live)?.directory == "/live/base/1")
        #expect(find("/live2/sub", live) == nil)
        #expect(find("/", orIs: true, live) == nil)
        #expect(find("/wal/x", live) == EnclosingCluster(.walDirectory, "/wal", mark: "archive_status"))
        for mark in ["postmaster.pid", "kedge_restore.json"] {
            #expect(find("/a/b", [RawPath("/a/" + mark)])?.part == .dataDirectory)
        }
        #expect(
            find("/ts/PG_15_202209061/5", []) == EnclosingCluster(.tablespace, "/ts/PG_15_202209061", mark: nil))
        #expect(find("/ts/PG_15_202209061", orIs: true, []) != nil)
        for name in ["PG_15", "PG_15_2022", "PG__202209061", "PG_15_20220906x", "XPG_15_202209061", "PG_1_202209061_1"]
        {
            #expect(find(RawPath("/ts/\(name)/5"), []) == nil, "\(name)")
        }
    }

    @Test("generated trees: a target is refused if and only if a directory of a cluster lies on its way")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        let names = ["a", "b", Self.version, "a2"]
        let marks = ["PG_VERSION", "postmaster.pid", "archive_status", "kedge_restore.json", "global", "base"]
        var refused = 0
        for _ in 0..<2000 {
            func place(_ most: Int) -> [String] {
                (0..<random.next(below: most + 1)).map { _ in
                    names[random.next(below: random.next(below: 8) == 0 ? names.count : 2)]
                }
            }
            let clusters = (0..<random.next(below: 4)).map { _ in (place(3), marks[random.next(below: marks.count)]) }
            let (target, orIs) = (place(5), random.next(below: 2) == 0)
            let present = Set(clusters.map { RawPath("/" + ($0.0 + [$0.1]).joined(separator: "/")) })
            // The model knows components, not paths.
            let way = orIs ? target : Array(target.dropLast())
            let wanted =
                way.contains(Self.version)
                || clusters.contains { place, mark in
                    !["global", "base"].contains(mark) && way.starts(with: place)
                }
            let found = find(RawPath("/" + target.joined(separator: "/")), orIs: orIs, present)
            #expect((found != nil) == wanted, "\(target) \(orIs) \(clusters)")
            refused += wanted ? 1 : 0
        }
        #expect(refused > 300 && refused < 1700)
    }

    // MARK: - A restore

    private func write(_ path: String) throws {
        try Directory.createWithParents(at: RawPath(path).parent)
        try FileDescriptor.open(RawPath(path), [.write, .create]).write(Array("x".utf8), at: 0)
    }

    private func check(
        _ pgdata: String, waldir: String? = nil, tablespace: String? = nil, configured: Bool = false,
        isMapped: Bool = true, created: String? = nil
    ) -> KedgeError? {
        do throws(KedgeError) {
            try TargetCheck(
                pgdata: RawPath(pgdata), isConfigured: configured, walDirectory: waldir.map { RawPath($0) },
                placements: tablespace.map {
                    [
                        TablespacePlacement(
                            oid: 16384, recorded: isMapped ? "/elsewhere" : RawPath($0), target: RawPath($0))
                    ]
                } ?? [],
                created: created.map { [CreatedTablespace(lsn: LSN(0x200), oid: 16390, path: RawPath($0))] } ?? [],
                versionDirectory: Self.version
            ).run()
            return nil
        } catch {
            return error
        }
    }

    @Test("no directory of a restore may lie in a live cluster, also where it is empty or absent, or behind a link")
    func liveCluster() throws {
        let directory = try TemporaryDirectory()
        let (live, free) = (directory("live"), directory("free"))
        for file in [
            "/live/PG_VERSION", "/live/global/pg_control", "/live/base/5/1", "/wal/archive_status/x",
            "/ts/\(Self.version)/5/1",
        ] {
            try write(directory(String(file.dropFirst())))
        }
        _ = try Directory.create(at: RawPath(live + "/empty"))
        try FileSystem.createSymbolicLink(at: RawPath(directory("link")), target: RawPath(live + "/empty"))
        #expect(check(free, waldir: directory("w"), tablespace: directory("t"), created: directory("c")) == nil)
        for inside in [
            live + "/empty", live + "/new", live + "/pg_wal", directory("link"), directory("link") + "/x",
            directory("wal/x"), directory("ts/\(Self.version)/6"),
        ] {
            for configured in [false, true] {
                #expect(check(inside, configured: configured)?.code == .usage, "\(inside)")
                #expect(check(free, waldir: inside, configured: configured)?.code == .usage, "\(inside)")
                #expect(check(free, tablespace: inside, configured: configured)?.code == .usage, "\(inside)")
                #expect(
                    check(free, tablespace: inside, configured: configured, isMapped: false)?.code == .usage)
                #expect(check(free, configured: configured, created: inside)?.code == .usage, "\(inside)")
            }
        }
        // Not among its files, but with them beside: the configured tablespace's directory may hold other things.
        #expect(check(free, tablespace: live, configured: true, isMapped: false)?.code == .usage)
        #expect(
            check(free, waldir: live + "/pg_wal")?.description == """
                cannot restore: pg_wal would go to "\(live)/pg_wal", into another cluster
                code: usage
                detail: That lies in "\(live)", which is a PostgreSQL data directory: it holds "PG_VERSION".
                hint: Name a directory outside of every cluster with "--waldir DIR".
                """)
    }

    @Test("pg_wal goes into no other directory of the same restore, whatever links lead there")
    func nested() throws {
        let directory = try TemporaryDirectory()
        let (data, tablespace) = (directory("data"), directory("ts"))
        _ = try Directory.create(at: RawPath(tablespace))
        try FileSystem.createSymbolicLink(at: RawPath(directory("link")), target: RawPath(tablespace))
        // The recorded path of a tablespace may be a link, and what recovery creates lies somewhere as well.
        for waldir in [tablespace, tablespace + "/x", data, data + "/pg_wal2", directory("c"), directory("c/x")] {
            let error = check(
                data, waldir: waldir, tablespace: directory("link"), configured: true, isMapped: false,
                created: directory("c"))
            #expect(error?.code == .usage, "\(waldir)")
        }
        #expect(
            check(
                data, waldir: directory("w"), tablespace: directory("link"), configured: true, isMapped: false,
                created: directory("c")) == nil)
    }
}

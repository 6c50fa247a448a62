// `info` with 100,000 archived segments in a real object store: how often it lists, and what memory it takes.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(
    .serialized,
    .enabled(
        if: PostgresInstallation.serversAreEnabled && PostgresInstallation.soakIsEnabled && !S3TestServer.all.isEmpty,
        "needs PostgreSQL, object stores and time: scripts/test.sh --soak"))
struct LargeArchiveTests {
    private static let segments = 100_000

    @Test(
        "info lists 1,000 objects a request and stays below 64 MiB",
        arguments: S3TestServer.all.filter(\.hasConditionalPut))
    func info(_ store: S3TestServer) throws {
        let cluster = try ProtectedCluster(store: store)
        let server = cluster.server
        // Room before the first backup for WAL that nobody reads any more, and that is listed all the same.
        try server.stop()
        try server.tool("pg_resetwal", ["-f", "-l", "000000010000002000000000", server.dataDirectory])
        try server.start()
        try cluster.kedge(["backup"])
        try cluster.archiveEverything()
        let before = try lists(of: cluster, store)
        try plant(in: cluster, store)
        let after = try lists(of: cluster, store)
        #expect(after.segments == before.segments + UInt64(Self.segments))
        #expect(after.lists <= before.lists + Self.segments / 1000, "\(before.lists), then \(after.lists)")
        #expect(after.peakKiB < 64 << 10)
        print(
            "\(store): info on \(after.segments) segments: \(after.lists) list requests, \(before.lists) without "
                + "them; \(after.requests) requests in all; \(after.peakKiB) KiB")
    }

    /// Something small under the names of segments.
    private func plant(in cluster: ProtectedCluster, _ server: S3TestServer) throws {
        let text = try #require(readTextFile(cluster.configuration))
        var access = S3TestServer.Access()
        access.prefix = try #require(
            text.split(separator: "\n").first { $0.hasPrefix("prefix = ") }.map { String($0.dropFirst(9)) })
        let identifier = try #require(
            UInt64(try cluster.server.value("select system_identifier from pg_control_system()")))
        let store = RetryingStore(
            try server.store(access), time: SystemTimeSource(), random: SystemRandomSource(),
            interruption: Interruption())
        try parallelFor(count: Self.segments, threads: 16, name: "plant") {
        } body: { (_: inout Void, number) throws(KedgeError) in
            let segment = WALSegment(timeline: TimelineID(1), number: UInt64(number + 100))
            let file = WALFileName.segment(segment.fileName(segmentSize: 1 << 20))
            let relative = ClusterLayout.walFile(file, of: SystemIdentifier(identifier), tag: nil)
            guard let name = ObjectName("main/" + relative.text) else { return }
            _ = try store.put(name, ObjectBody([1]), .createOnly)
        }
    }

    private struct Measured {
        var lists = 0
        var requests = 0
        var segments: UInt64 = 0
        var peakKiB = 0
    }

    /// What `info` asks of the store, and what it takes.
    private func lists(of cluster: ProtectedCluster, _ store: S3TestServer) throws -> Measured {
        let port = try #require(store.endpoint.split(separator: ":").last.flatMap { UInt16($0) })
        let proxy = try FaultProxy(to: port, seed: 1, percent: 0, faults: [])
        let measure = """
            import resource, subprocess, sys
            out = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True).stdout
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            sys.stdout.write(out.decode())
            """
        let output = try ServerUser.run(
            [
                "/usr/bin/python3", "-c", measure, KedgeBinary.path(), "--config", cluster.configuration, "--endpoint",
                proxy.endpoint, "--json", "info",
            ])
        let lines = output.split(separator: "\n", maxSplits: 1)
        let json = try JSONRecord(parsing: Array(lines[1].utf8), what: "info")
        let wal = try json.records("clusters").first?.records("wal")
        return Measured(
            lists: proxy.requests["LIST", default: 0], requests: proxy.requests.values.reduce(0, +),
            segments: try (wal ?? []).reduce(0) { try $0 + $1.integer("segments") },
            peakKiB: try #require(Int(lines[0])))
    }
}

// What a month of nightly deltas costs: 30 deltas of 1 % of the pages, one on the other, what each stores of data and
// of its manifest, and what reading the last back costs beside a full backup of the same moment. Sizes decide; of times
// the ratio is printed.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DeltaChainTests {
    private let nights = 30

    /// The whole size of what lies in the repository, in bytes.
    private func repositoryBytes(_ cluster: ProtectedCluster, _ directory: String) throws -> Int {
        try ServerUser.run(["find", cluster.repository + "/main/" + directory, "-type", "f", "-printf", "%s\\n"])
            .split(separator: "\n").reduce(0) { $0 + (Int($1) ?? 0) }
    }

    /// The manifest of a backup: raw bytes of all its parts, and of those that lie in packs which were not there
    /// before.
    private func manifest(
        _ cluster: ProtectedCluster, _ label: String, _ known: inout Set<String>
    ) throws -> (all: Int, new: Int) {
        let root = try JSONRecord(
            parsing: try cluster.kedge(["cat", "main/backup/\(label)/manifest"]).utf8, what: "manifest")
        var (all, new) = (0, 0)
        for part in try root.records("parts") {
            let length: Int = try part.integer("length")
            all += length
            if try !known.contains(part.string("pack")) { new += length }
        }
        for pack in try root.records("packs") { known.insert(try pack.string("id")) }
        return (all, new)
    }

    @Test(
        "30 deltas of 1 %: the nightly manifest stays in proportion, and the last one restores",
        .enabled(if: PostgresInstallation.soakIsEnabled, "takes minutes: scripts/test.sh --soak"))
    func month() throws {
        let cluster = try ProtectedCluster(
            walSegmentMiB: 16, configuration: ["autovacuum = off", "max_wal_size = 4GB", "shared_buffers = 512MB"])
        let server = cluster.server
        try server.psql(
            """
            create table t (i int, v text) with (fillfactor = 70);
            insert into t select i, md5(i::text) || md5((i * 7)::text) || repeat('x', 40)
            from generate_series(1, 1300000) i;
            """)
        try server.psql("vacuum (freeze, analyze) t")
        try server.psql("checkpoint")
        func backUp(_ type: String) throws -> (label: String, stored: Int, size: Int) {
            let record = try JSONRecord(
                parsing: try cluster.kedge(["backup", "--type", type, "--json"]).utf8, what: "backup")
            return (
                try record.string("label"), try record.integer("storedBytes"), try record.integer("databaseBytes")
            )
        }
        var known: Set<String> = []
        let first = try backUp("full")
        let firstManifest = try manifest(cluster, first.label, &known)
        print("month: full of \(first.size) bytes: stored \(first.stored), manifest \(firstManifest.all)")
        var last = first
        var (deltas, manifests, firstNight) = (0, 0, 0)
        for night in 1...nights {
            // Other pages every night, spread over the table.
            try server.psql(
                """
                update t set v = v where ctid in (
                    select format('(%s,1)', b)::tid
                    from generate_series(\(night * 3 % 100), (pg_relation_size('t') / 8192 - 1)::int, 100) b);
                checkpoint
                """)
            last = try backUp("delta")
            let found = try manifest(cluster, last.label, &known)
            print(
                "month: night \(night): stored \(last.stored), manifest \(found.all), of it new \(found.new) bytes raw")
            deltas += last.stored
            manifests += found.new
            if night == 1 { firstNight = last.stored }
        }
        // As many pages changed as in the first night; what is added is the longer list of where they lie.
        #expect(last.stored * 10 <= firstNight * 13, "\(last.stored), and \(firstNight) in the first night")
        print("month: deltas stored \(deltas) bytes, their manifests \(manifests) bytes raw")
        let full = try backUp("full")
        let times = try [last.label, full.label].map { label in try restoreTimes(cluster, label, bytes: last.size) }
        print(
            "month: restoring \(nights) deltas deep takes \(times[0]) s of CPU and wall, of the full backup "
                + "\(times[1]); ratio \(times[0].0 / times[1].0) of CPU, \(times[0].1 / times[1].1) of wall")
        // Both are the server's content.
        let sum = "select count(*), sum(hashtext(t::text)::bigint) from t"
        let copies = try [last.label, full.label].map { label in
            let copy = cluster.scratch("copy-\(label)")
            try cluster.kedge([
                "restore", "--backup", label, "--pgdata", copy, "--target-immediate", "--target-action", "promote",
            ])
            let restored = try PostgresTestServer(dataDirectory: copy)
            try restored.start()
            try restored.wait(until: "select not pg_is_in_recovery()")
            defer { _ = try? Subprocess(["rm", "-rf", copy]).run() }
            let rows = try restored.psql(sum)
            try restored.stop()
            return rows
        }
        #expect(try copies == [server.psql(sum), server.psql(sum)])
    }

    /// Seconds of CPU and of the clock for restoring a backup; the least of three.
    private func restoreTimes(_ cluster: ProtectedCluster, _ label: String, bytes: Int) throws -> (Double, Double) {
        func cpu() -> Double {
            var usage = rusage()
            getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
            func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
            return seconds(usage.ru_utime) + seconds(usage.ru_stime)
        }
        var best = (Double.infinity, Double.infinity)
        for number in 1...3 {
            let copy = cluster.scratch("timed-\(label)-\(number)")
            let (begin, before) = (ContinuousClock.now, cpu())
            try cluster.kedge([
                "restore", "--backup", label, "--pgdata", copy, "--target-immediate", "--target-action", "promote",
            ])
            let wall = (ContinuousClock.now - begin) / .seconds(1)
            best = (min(best.0, cpu() - before), min(best.1, wall))
            try ServerUser.run(["rm", "-rf", copy])
        }
        return best
    }
}

// That whatever a server does to its files at exactly the worst moment of the copy, replay makes good: truncation and
// growth over the border of a relation's files, databases and relations that come and go, in both strategies.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct ChangesWhileCopyingTests {
    /// Runs each statement once, just before the file whose path ends with its key is opened.
    private func hooks(_ cluster: BackupTestCluster, _ statements: [String: [String]]) -> (
        ChangingFiles, @Sendable () -> Int
    ) {
        let psql = cluster.psql
        let left = Mutex(statements)
        let done = DoneCount()
        let files = ChangingFiles { (path, moment) throws(KedgeError) in
            guard case .open = moment else { return }
            let found = left.withLock { left in
                left.keys.first { path.description.hasSuffix($0) }.flatMap { left.removeValue(forKey: $0) }
            }
            for sql in found ?? [] { try psql(sql) }
            if found != nil { done.increment() }
        }
        return (files, { done.count })
    }

    private final class DoneCount: Sendable {
        private let value = Mutex(0)
        func increment() { value.withLock { $0 += 1 } }
        var count: Int { value.withLock { $0 } }
    }

    private func dump(_ server: PostgresTestServer) throws -> String {
        try server.tool("pg_dumpall", server.connectionArguments + ["-l", "postgres", "--no-sync"])
            .split(separator: "\n").filter { !$0.contains("restrict ") && !$0.hasPrefix("CREATE TABLESPACE") }
            .joined(separator: "\n")
    }

    @Test(
        "truncated, regrown, dropped, rewritten and made while copied; databases in both strategies (lessons 2, 9, 10)",
        arguments: PostgresInstallation.all)
    func changes(_ installation: PostgresInstallation) throws {
        let cluster = try BackupTestCluster(installation)
        let server = cluster.server
        try ServerUser.run(["mkdir", cluster.scratch("late")])
        try server.psql(
            """
            create table shrinks as select i, md5(i::text) v from generate_series(1, 30000) i;
            create table grows as select i, md5(i::text) v from generate_series(1, 3000) i;
            create table goes as table shrinks; create table rewritten as table shrinks;
            create table empties as table grows;
            create database dropped; create database kept; checkpoint
            """)
        func path(_ table: String) throws -> String { try server.value("select pg_relation_filepath('\(table)')") }
        func databasePath(_ name: String) throws -> String {
            "base/" + (try server.value("select oid from pg_database where datname = '\(name)'")) + "/PG_VERSION"
        }
        let fileCopy = installation.version >= 15 ? "strategy file_copy" : ""
        let statements = [
            // Vacuum cuts the file's end off under the same name; then it grows beyond where it was.
            try path("shrinks"): [
                "delete from shrinks where i > 100", "vacuum (truncate) shrinks",
                "insert into shrinks select i, 'again' from generate_series(200, 40000) i",
            ],
            try path("grows"): ["insert into grows select i, 'more' from generate_series(3001, 40000) i"],
            try path("goes"): ["drop table goes"],
            try path("rewritten"): ["vacuum full rewritten", "update rewritten set v = 'new' where i % 3 = 0"],
            try path("empties"): ["delete from empties", "vacuum (truncate) empties"],
            try databasePath("dropped"): ["drop database dropped"],
            try databasePath("kept"): [
                "create database by_file \(fileCopy)", "create database by_log", "create table made as table shrinks",
                "create tablespace late location '\(cluster.scratch("late"))'",
                "create table in_late tablespace late as table grows",
            ],
        ]
        let (files, count) = hooks(cluster, statements)
        let outcome = try cluster.backUp(files: files)
        #expect(count() == statements.count)
        #expect(outcome.record.health.damagedPageCount == 0)
        let expected = try dump(server)
        // What replay creates lies at its recorded path: the original must not be there.
        try server.stop()
        try ServerUser.run(["mv", cluster.scratch("late"), cluster.scratch("away")])
        try ServerUser.run(["mkdir", cluster.scratch("late")])
        let restored = try cluster.restore(outcome.record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        #expect(try dump(restored) == expected)
        try restored.stop()
        if installation.has("pg_checksums") {
            try restored.tool("pg_checksums", ["--check", "-D", restored.dataDirectory])
        }
    }

    @Test(
        "a relation of more than one file is truncated and grows again while its second file is copied (lesson 34)",
        .enabled(if: PostgresInstallation.soakIsEnabled, "needs 3 GiB"), arguments: PostgresInstallation.all)
    func secondFile(_ installation: PostgresInstallation) throws {
        let cluster = try BackupTestCluster(installation)
        let server = cluster.server
        try server.psql("create table big (i int, v text); insert into big values (0, 'first'); checkpoint")
        let node = try server.value("select pg_relation_filepath('big')")
        try server.stop()
        // Pages that were never written are valid; sparse, they cost no room.
        let file = server.dataDirectory + "/" + node
        try ServerUser.run(["truncate", "-s", "1G", file])
        try ServerUser.run(["truncate", "-s", "8M", file + ".1"])
        try server.start()
        try server.psql("insert into big select i, md5(i::text) from generate_series(1, 5000) i; checkpoint")
        #expect(try server.value("select max((ctid::text::point)[0]) >= 131072 from big") == "t")
        let (files, count) = hooks(
            cluster,
            [
                node + ".1": [
                    "delete from big where i > 0", "vacuum (truncate) big",
                    "insert into big select i, 'again' from generate_series(1, 50000) i",
                ]
            ])
        let outcome = try cluster.backUp(files: files)
        #expect(count() == 1)
        #expect(outcome.record.health.damagedPageCount == 0)
        let query =
            "select count(*) || ' ' || sum(i) || ' ' || count(distinct v) || ' ' || pg_relation_size('big') from big"
        let expected = try server.value(query)
        try server.stop()
        let restored = try cluster.restore(outcome.record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        #expect(try restored.value(query) == expected)
        try restored.stop()
        if installation.has("pg_checksums") {
            try restored.tool("pg_checksums", ["--check", "-D", restored.dataDirectory])
        }
    }
}

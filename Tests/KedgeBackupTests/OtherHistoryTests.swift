// That a backup takes no other server's WAL for its own, and believes no page LSN that a restart may have made a lie.
import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct OtherHistoryTests {
    @Test("a data directory that was put back is not backed up onto the WAL that it wrote before")
    func putBack() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i from generate_series(1, 1000) i")
        _ = try cluster.backUp()
        try server.stop()
        let copy = cluster.scratch("copy")
        try ServerUser.run(["cp", "-a", server.dataDirectory, copy])
        try server.start()
        try server.psql("insert into t select i from generate_series(1, 50) i")
        let first = try cluster.backUp().record
        // The same server, the same timeline, the same positions: other WAL.
        try server.stop()
        try ServerUser.run(["rm", "-rf", server.dataDirectory])
        try ServerUser.run(["cp", "-a", copy, server.dataDirectory])
        try server.start()
        try server.psql("insert into t select -i from generate_series(1, 70) i")
        let error = #expect(throws: KedgeError.self) { try cluster.backUp() }
        #expect(error?.code == .archiveConflict, "\(String(describing: error))")
        #expect(error?.message.contains("holds other content for segment") == true)
        #expect(error?.detail?.contains("The two first differ at LSN") == true, "\(error?.detail ?? "")")
        let catalog = try BackupCatalog(cluster.cluster())
        #expect(try catalog.list().backups.last?.label == first.label)
        #expect(try catalog.intents().isEmpty)
    }

    @Test("the first page of an SP-GiST index, which changes without a new LSN, is never taken from the parent")
    func spGiSTMetaPage() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql(
            """
            create table t (p point);
            insert into t select point(i, i % 50) from generate_series(1, 20000) i;
            create index on t using spgist (p)
            """)
        try server.psql("checkpoint")
        _ = try cluster.backUp(.full)
        for round in 1...3 {
            // Many in one corner: pages are added, and the first page notes them.
            try server.psql("insert into t select point(\(round)00000 + i, 1) from generate_series(1, 2000) i")
            try server.psql("checkpoint")
            let record = try cluster.delta()
            #expect(record.health.fallbacks == [])
            try cluster.compareWithServer(record, "insertion \(round)")
        }
    }

    @Test("checksums that were off for a while between two backups cost the delta whole regions, never its pages")
    func checksumsOffMeanwhile() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        // Nothing has set a hint bit yet.
        try server.psql(
            "create table t (i int, v text); insert into t select i, md5(i::text) from generate_series(1, 10000) i")
        try server.psql("checkpoint")
        _ = try cluster.backUp(.full)
        func restart(_ mode: String) throws {
            try server.stop()
            try server.tool("pg_checksums", [mode, "--no-sync", "-D", server.dataDirectory])
            try server.start()
        }
        try restart("--disable")
        try server.psql("select count(*) from t; checkpoint")
        try restart("--enable")
        try server.psql("update t set i = -i where i = 5000; checkpoint")
        let record = try cluster.delta()
        let reason = record.health.fallbacks.first ?? ""
        #expect(reason.contains("stored whole: the server was started again since"), "\(reason)")
        try cluster.compareWithServer(record, "checksums off and on")
        // The next one has a parent that this run of the server made.
        #expect(try cluster.delta().health.fallbacks == [])
    }
}

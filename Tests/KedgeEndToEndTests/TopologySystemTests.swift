// That one cluster's name may stand for several database systems, one after the other, as pg_upgrade makes them: each
// with its own backups and WAL, and none ever taken for another (lesson 44).
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TopologySystemTests {
    @Test("a new database system in the place of an old one, and back again (lesson 44)")
    func upgrade() throws {
        var layout = TopologyCluster.Layout()
        layout.installation = try #require(PostgresInstallation.all.min { $0.version < $1.version })
        let old = try TopologyCluster(layout)
        try old.server.psql("create table t as select 'old' as v")
        let oldLabel = try old.backUp()
        try old.server.psql("insert into t values ('later')")
        try old.archiveEverything()
        let oldDump = try old.dump(old.server)
        try old.server.stop()

        layout.installation = try #require(PostgresInstallation.all.max { $0.version < $1.version })
        layout.dataName = "new"
        layout.walSegmentMiB = 2
        let new = try TopologyCluster(layout, of: old)
        try new.server.psql("create table t as select 'new' as v")
        try new.archiveEverything()
        // Without a backup of its own, the new system has nothing that the old one's could be taken for.
        let early = try new.attempt(["restore", "--pgdata", new.place("early")])
        #expect(early.status == .exited(1))
        #expect(
            early.errorText.hasPrefix(
                "kedge: error: cannot restore: the repository holds no backup of the present database system\n"))
        #expect(early.errorText.contains("hint: Run \"kedge backup\" first, or give \"--backup \(oldLabel)\""))
        #expect(access(new.place("early"), F_OK) != 0)

        let newLabel = try new.backUp()
        try new.server.psql("insert into t values ('later')")
        try new.archiveEverything()
        let info = try JSONRecord(parsing: try new.kedge(["info", "--json"]).utf8, what: "info")
        let cluster = try #require(try info.records("clusters").first)
        #expect(try cluster.records("backups").map { try $0.string("label") } == [oldLabel, newLabel])
        #expect(try cluster.integer("postgresVersion") as Int == new.installation.version)
        #expect(try cluster.string("status") == "ok")

        let newCopy = try new.restore(to: new.place("copy-new"))
        try new.expectSame(newCopy)
        try newCopy.stop()
        // The old one by its label, to the end of its own WAL, with its own server.
        func restoreOld(_ name: String) throws {
            let copy = try old.restore(["--backup", oldLabel], to: old.place(name))
            #expect(try old.dump(copy) == oldDump)
            try old.check(copy)
            try copy.stop()
        }
        try restoreOld("copy-old")
        // A moment before the upgrade: said where it lies.
        let past = try new.attempt(["restore", "--pgdata", new.place("early"), "--target-time", "2020-01-01 00:00:00Z"])
        #expect(past.status == .exited(1))
        #expect(past.errorText.contains("backups of an earlier database system"), "\(past.errorText)")
        #expect(past.errorText.contains(oldLabel))

        // The upgrade is undone: the old system runs, archives and is backed up again.
        try new.server.stop()
        try old.configure()
        try old.kedge(["init"])
        try old.server.start()
        try old.archiveEverything()
        try restoreOld("copy-undone")
        let againLabel = try old.backUp()
        try old.server.psql("insert into t values ('again')")
        try old.archiveEverything()
        let unsure = try old.attempt(["restore", "--pgdata", old.place("early")])
        #expect(unsure.status == .exited(1))
        #expect(unsure.errorText.contains("code: target-ambiguous"), "\(unsure.errorText)")
        #expect(unsure.errorText.contains("hint: Give \"--backup \(againLabel)\" or \"--backup \(newLabel)\"."))
        let copy = try old.restore(["--backup", againLabel], to: old.place("copy-again"))
        #expect(try copy.value("select string_agg(v, ',') from t") == "old,later,again")
    }

    /// The oldest and the newest version that pg_upgrade can take for its old and its new one.
    private static let upgradable: [PostgresInstallation] = {
        let complete = PostgresInstallation.all.filter { installation in
            ["pg_upgrade", "pg_controldata", "pg_resetwal", "pg_dumpall", "vacuumdb"].allSatisfy(installation.has)
        }.sorted { $0.version < $1.version }
        return complete.count > 1 ? [complete[0], complete[complete.count - 1]] : []
    }()

    @Test(
        "pg_upgrade with tablespaces: both systems of one name come back, each with its own files (lessons 32, 44)",
        .enabled(if: PostgresInstallation.soakIsEnabled && !upgradable.isEmpty, "needs two versions with pg_upgrade"),
        arguments: [[], ["--link"]])
    func pgUpgrade(_ mode: [String]) throws {
        let versions = try (#require(Self.upgradable.first), #require(Self.upgradable.last))
        var layout = TopologyCluster.Layout()
        layout.installation = versions.0
        let old = try TopologyCluster(layout)
        try old.shell("mkdir ts")
        try old.server.psql(
            """
            create tablespace ts location '\(old.place("ts"))';
            create table t tablespace ts as select i, md5(i::text) v from generate_series(1, 5000) i
            """)
        let oldLabel = try old.backUp()
        try old.server.psql("update t set v = 'before the upgrade' where i % 3 = 0")
        try old.archiveEverything()
        let oldDump = try old.dump(old.server)
        let oid = try old.server.value("select oid from pg_tablespace where spcname = 'ts'")
        try old.server.stop()

        layout.installation = versions.1
        layout.dataName = "new"
        let new = try TopologyCluster(layout, of: old) { cluster in
            let arguments = [
                versions.1.program("pg_upgrade"), "-b", versions.0.binDirectory, "-B", versions.1.binDirectory, "-d",
                old.dataDirectory, "-D", cluster.dataDirectory, "-U", "postgres", "-s", cluster.place.path,
            ]
            var command = ServerUser.command(arguments + mode)
            command.workingDirectory = cluster.place("work")
            try ServerUser.run(command)
        }
        try new.archiveEverything()
        // The WAL's positions go on from the old system's, but it is another system's WAL.
        let early = try new.attempt(["restore", "--pgdata", new.place("early")])
        #expect(early.status == .exited(1))
        #expect(
            early.errorText.hasPrefix(
                "kedge: error: cannot restore: the repository holds no backup of the present database system\n"))
        try new.backUp()
        try new.server.psql("update t set v = 'after the upgrade' where i % 5 = 0")
        try new.archiveEverything()

        func restore(_ cluster: TopologyCluster, _ name: String, _ arguments: [String]) throws -> PostgresTestServer {
            let space = cluster.place(name + "-ts")
            let copy = try cluster.restore(
                ["--tablespace", "\(try cluster === new ? newOID() : oid)=\(space)"] + arguments,
                to: cluster.place(name))
            let directories = try cluster.shell("ls \"$1\"", space).split(separator: "\n")
            #expect(directories.count == 1)
            #expect(directories.first?.hasPrefix("PG_\(cluster.installation.version)_") == true)
            return copy
        }
        func newOID() throws -> String { try new.server.value("select oid from pg_tablespace where spcname = 'ts'") }
        let newCopy = try restore(new, "copy-new", [])
        try new.expectSame(newCopy)
        let oldCopy = try restore(old, "copy-old", ["--backup", oldLabel])
        #expect(try old.dump(oldCopy) == oldDump)
        try old.check(oldCopy)
    }
}

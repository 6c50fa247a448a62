// That tablespaces of every kind come back, mapped or not, and that the directories of the living original are never
// touched by a copy on the same host: hashed before the restore, and after the copy recovered, wrote and ran.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TopologyTablespaceTests {
    /// Makes a directory and a tablespace in it with a table of some rows.
    private func tablespace(_ cluster: TopologyCluster, _ name: String, in directory: String) throws {
        try ServerUser.run(["mkdir", "-p", directory])
        try cluster.server.psql(
            """
            create tablespace \(name) location '\(directory)';
            create table in_\(name) (i int primary key using index tablespace \(name), t text) tablespace \(name);
            insert into in_\(name) select i, md5(i::text) from generate_series(1, 3000) i;
            """)
    }

    private func oid(_ cluster: TopologyCluster, _ name: String) throws -> String {
        try cluster.server.value("select oid from pg_tablespace where spcname = '\(name)'")
    }

    /// `--tablespace OID=DIR` for each linked tablespace, to a new directory below the cluster's place.
    private func mapped(_ cluster: TopologyCluster, _ prefix: String) throws -> [String] {
        try cluster.server.psql(
            "select oid from pg_tablespace where pg_tablespace_location(oid) like '/%' order by oid"
        ).flatMap { ["--tablespace", "\($0[0])=\(cluster.place("\(prefix)-\($0[0])"))"] }
    }

    @Test(
        "tablespaces by relative links, links to links, similar names and nested places; live ones stay as they are",
        arguments: PostgresInstallation.all)
    func links(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        let cluster = try TopologyCluster(layout)
        let place = cluster.place
        // Lesson 31: one name is the start of another, one lies in another, one is reached over two links.
        try tablespace(cluster, "one", in: place("space"))
        try tablespace(cluster, "two", in: place("space2"))
        try tablespace(cluster, "nested", in: place("space/below"))
        try cluster.shell("mkdir -p far/real; ln -s far/real near; ln -s near nearer")
        try tablespace(cluster, "linked", in: place("nearer"))
        // Lesson 49: names that broke the serialisations of other tools. The server itself refuses a quote.
        try tablespace(cluster, "odd", in: place("a=b \\c#[d] é\t"))
        // Lesson 32: what another version left in the same directory is not ours.
        try cluster.shell("mkdir space/PG_9.6_201608131; echo other > space/PG_9.6_201608131/other")
        try cluster.server.psql(
            """
            create database elsewhere tablespace two;
            alter system set temp_tablespaces = 'one';
            """)
        try cluster.server.psql(
            "create table t tablespace one as select i, md5(i::text) from generate_series(1, 2000) i",
            database: "elsewhere")
        // A link may be relative, where somebody moved a cluster with its tablespaces.
        try cluster.server.stop()
        let one = try cluster.shell(
            "for l in data/pg_tblspc/*; do if test \"$(readlink $l)\" = \"$PWD/space2\"; then echo $l; fi; done")
        try cluster.shell("ln -snf ../../space2 \"$1\"", String(one.dropLast()))
        try cluster.server.start()

        let label = try cluster.backUp()
        try cluster.server.psql("insert into in_linked select i, 'later' from generate_series(3001, 4000) i")
        try cluster.archiveEverything()

        // A relative link cannot be followed from elsewhere: it has to be mapped.
        let refused = try cluster.attempt(["restore", "--pgdata", cluster.place("refused")])
        #expect(refused.status == .exited(3))
        #expect(refused.errorText.contains("it is not one that leads where it seems to."), "\(refused.errorText)")
        // Without a mapping the living directories are in the way, and nothing is written.
        let two = try oid(cluster, "two")
        let alive = try cluster.attempt([
            "restore", "--pgdata", cluster.place("refused"), "--tablespace", "\(two)=\(cluster.place("free"))",
        ])
        #expect(alive.status == .exited(1))
        #expect(alive.errorText.hasSuffix("code: not-empty\n"), "\(alive.errorText)")
        #expect(access(cluster.place("refused"), F_OK) != 0)
        #expect(access(cluster.place("free"), F_OK) != 0)

        try cluster.server.psql("checkpoint")
        let dump = try cluster.dump(cluster.server)
        try cluster.server.stop()
        let live = ["space", "space2", "far", "nearer", "a=b \\c#[d] é\t", "data"].map { place($0) }
        let before = try cluster.fingerprint(live)
        let copy = try cluster.restore(mapped(cluster: cluster, oids: try linkOIDs(cluster), "copy"))
        #expect(try cluster.dump(copy) == dump)
        try cluster.check(copy)
        // It writes, makes and drops in each of them.
        try copy.psql(
            """
            update in_one set t = 'copy'; update in_two set t = 'copy'; update in_nested set t = 'copy';
            update in_linked set t = 'copy'; update in_odd set t = 'copy';
            create table more tablespace two as select generate_series(1, 1000);
            drop table in_nested; drop tablespace nested;
            alter table in_one set tablespace linked; checkpoint
            """)
        #expect(try copy.value("select count(*) from in_linked where t = 'copy'") == "4000")
        try copy.stop()
        #expect(try cluster.fingerprint(live) == before)

        // The original goes on, and restores in its own place once that is free, as it was.
        try cluster.shell("mkdir away; mv data space2 a=b* away; rm -rf space/PG_1* space/below; mv far/real away")
        let dangling = try cluster.attempt([
            "restore", "--backup", label, "--tablespace", "\(two)=\(place("space2"))",
        ])
        #expect(dangling.status == .exited(1))
        #expect(
            dangling.errorText.contains("\"\(place("nearer"))\" is a link that leads nowhere"), "\(dangling.errorText)")
        #expect(access(cluster.dataDirectory, F_OK) != 0)
        try cluster.shell("mkdir far/real")
        try cluster.kedge([
            "restore", "--backup", label, "--target-action", "promote", "--tablespace", "\(two)=\(place("space2"))",
        ])
        try cluster.server.start()
        try cluster.server.wait(until: "select not pg_is_in_recovery()")
        #expect(try cluster.dump(cluster.server) == dump)
        #expect(try cluster.shell("cat space/PG_9.6_201608131/other") == "other\n")
    }

    private func linkOIDs(_ cluster: TopologyCluster) throws -> [String] {
        try cluster.shell("ls data/pg_tblspc").split(separator: "\n").map { String($0) }
    }

    private func mapped(cluster: TopologyCluster, oids: [String], _ prefix: String) -> [String] {
        oids.flatMap { ["--tablespace", "\($0)=\(cluster.place("\(prefix)-\($0)"))"] }
    }

    @Test(
        "a tablespace that replay creates: free it is made where it was, in use it is refused, and dropped ones go",
        arguments: PostgresInstallation.all)
    func createdInTheWAL(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        let cluster = try TopologyCluster(layout)
        let place = cluster.place
        try tablespace(cluster, "old", in: place("old"))
        try cluster.backUp()
        // Made and dropped in the WAL, then another one in the same place; and one in the place of a dropped one.
        try tablespace(cluster, "brief", in: place("brief"))
        try cluster.server.psql("drop table in_brief; drop tablespace brief; drop table in_old; drop tablespace old")
        try tablespace(cluster, "again", in: place("old"))
        try tablespace(cluster, "new", in: place("new"))
        try cluster.archiveEverything()
        let dump = try cluster.dump(cluster.server)

        let oid = try oid(cluster, "new")
        let early = try cluster.attempt([
            "restore", "--pgdata", place("refused"), "--tablespace", "\(oid)=\(place("x"))",
        ])
        #expect(early.status == .exited(2))
        #expect(
            early.errorText.contains("cannot map tablespace \(oid): it was created after the backup"),
            "\(early.errorText)")
        // The backup's own tablespace is mapped; the living one in its old place must still not be written to.
        let dropped = try #require(try backedUpTablespaces(cluster).first)
        let arguments = ["--tablespace", "\(dropped)=\(place("mapped"))"]
        let before = try cluster.fingerprint([place("old"), place("new")])
        let inUse = try cluster.attempt(["restore", "--pgdata", place("refused")] + arguments)
        #expect(inUse.status == .exited(1))
        #expect(inUse.errorText.hasSuffix("code: not-empty\n"), "\(inUse.errorText)")
        #expect(inUse.errorText.contains("recovery would write into tablespace directory \"\(place("old"))\""))
        #expect(access(place("refused"), F_OK) != 0)
        #expect(try cluster.fingerprint([place("old"), place("new")]) == before)

        // The original is gone from this host: replay makes them where they were, directories and all.
        try cluster.server.stop()
        try cluster.shell("mkdir away; mv old new brief away")
        let copy = try cluster.restore(arguments)
        #expect(try cluster.dump(copy) == dump)
        #expect(try copy.value("select pg_tablespace_location(\(oid))") == place("new"))
        try cluster.check(copy)
        #expect(try cluster.shell("ls mapped brief").split(separator: "\n") == ["brief:", "mapped:"])
    }

    /// The tablespaces of the newest backup.
    private func backedUpTablespaces(_ cluster: TopologyCluster) throws -> [UInt32] {
        let objects = try cluster.shell("ls repository/main/catalog/backup").split(separator: "\n")
        let text = try cluster.kedge(["cat", "main/catalog/backup/" + (objects.last.map { String($0) } ?? "")])
        let record = try JSONRecord(parsing: text.utf8, what: "commit record")
        return try record.records("tablespaces").map { try $0.integer("oid") }
    }

    @Test(
        "a tablespace of a path that is no UTF-8 is restored to exactly that path, and mapped (lesson 49)",
        arguments: PostgresInstallation.all)
    func paths(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        let cluster = try TopologyCluster(layout)
        try cluster.server.psql(
            "create database latin template template0 encoding 'LATIN1' locale 'C'")
        try cluster.shell("mkdir \"$(printf 'caf\\351')\" 'back\\slash'")
        try cluster.server.psql(
            """
            set client_encoding = 'UTF8';
            create tablespace latin location '\(cluster.place("café"))';
            create table t tablespace latin as select generate_series(1, 2000) i;
            """, database: "latin")
        try tablespace(cluster, "slash", in: cluster.place("back\\slash"))
        try cluster.backUp()
        let sum = "select count(*) || ' ' || sum(i) from t"
        let copy = try cluster.restore(mapped(cluster: cluster, oids: try linkOIDs(cluster), "copy"))
        #expect(try copy.value(sum, database: "latin") == "2000 2001000")
        try copy.stop()
        try cluster.server.stop()
        try cluster.shell("mkdir away; mv data caf* back* away")
        try cluster.kedge(["restore", "--target-action", "promote"])
        try cluster.verify(cluster.dataDirectory)
        try cluster.server.start()
        try cluster.server.wait(until: "select not pg_is_in_recovery()")
        #expect(try cluster.server.value(sum, database: "latin") == "2000 2001000")
        #expect(try cluster.server.value("select count(*) from in_slash") == "3000")
        // The very same bytes, and no look-alikes beside them.
        let names = "printf '%s\\n' caf* back* | od -c"
        #expect(try cluster.shell(names) == cluster.shell("cd away; " + names))
    }

    @Test(
        "tablespaces in place, before the backup and in the WAL",
        arguments: PostgresInstallation.all.filter { $0.version >= 15 })
    func inPlace(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        layout.configuration = ["allow_in_place_tablespaces = on"]
        let cluster = try TopologyCluster(layout)
        try cluster.server.psql(
            """
            create tablespace here location '';
            create table h tablespace here as select generate_series(1, 5000) i;
            create unlogged table u (i int) tablespace here;
            insert into u values (1)
            """)
        try cluster.backUp()
        try cluster.server.psql(
            """
            create tablespace late location ''; create table l tablespace late as select generate_series(1, 5000) i;
            create tablespace gone location ''; create table g tablespace gone as select 1; drop table g;
            drop tablespace gone; update h set i = i + 1
            """)
        try cluster.archiveEverything()
        let copy = try cluster.restore()
        #expect(try copy.value("select count(*) from u") == "0")
        try cluster.expectSame(copy)
    }

    @Test("a tablespace that appears between the backup's start and its listing is in the backup and in the WAL")
    func createdWhileCopying() throws {
        let cluster = try TopologyCluster()
        // The archiver is held back, so the backup waits after its start until the tablespace is there.
        try cluster.shell("touch hold")
        let command =
            "while test -e \(cluster.place("hold")); do sleep 0.05; done; \(try KedgeBinary.path()) --config "
            + "\(cluster.configuration) archive-push %p"
        try cluster.server.psql("alter system set archive_command = '\(command)'; select pg_reload_conf()")
        try cluster.server.psql("create table before as select 1")
        var backup = try KedgeBinary.command(
            ["--config", cluster.configuration, "backup"], workingDirectory: cluster.place.path
        ).start(output: .discarded, errors: .file(cluster.place("errors")))
        try cluster.server.wait(
            until: """
                select count(*) > 0 from pg_stat_activity
                where query ~ 'pg_stat_archiver' and application_name <> 'psql'
                """
        )
        try tablespace(cluster, "during", in: cluster.place("during"))
        try cluster.shell("rm hold")
        #expect(try backup.wait(timeout: .seconds(120)) == .exited(0), "\(readTextFile(cluster.place("errors")) ?? "")")
        try cluster.archiveEverything()
        let oid = try oid(cluster, "during")
        #expect(try backedUpTablespaces(cluster).map { "\($0)" } == [oid])

        // Mapped, replay would lead its link to the living directory all the same.
        let before = try cluster.fingerprint([cluster.place("during")])
        let mapped = ["--tablespace", "\(oid)=\(cluster.place("mapped"))"]
        let refused = try cluster.attempt(["restore", "--pgdata", cluster.place("refused")] + mapped)
        #expect(refused.status == .exited(2))
        #expect(
            refused.errorText.contains("cannot map tablespace \(oid): it was created while the backup was taken"),
            "\(refused.errorText)")
        let unmapped = try cluster.attempt(["restore", "--pgdata", cluster.place("refused")])
        #expect(unmapped.status == .exited(1))
        #expect(access(cluster.place("refused"), F_OK) != 0)
        #expect(try cluster.fingerprint([cluster.place("during")]) == before)
        try cluster.server.psql("checkpoint")
        let dump = try cluster.dump(cluster.server)
        try cluster.server.stop()
        try cluster.shell("mv during away")
        let copy = try cluster.restore()
        #expect(try cluster.dump(copy) == dump)
        try cluster.check(copy)
    }
}

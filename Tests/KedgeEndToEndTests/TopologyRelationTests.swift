// That relations of every kind come back as a restore may bring them back, whatever happens to them while they are
// copied: unlogged and temporary ones, prepared transactions, large objects, databases that come and go.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TopologyRelationTests {
    @Test(
        "unlogged relations come back empty, temporary ones not at all, prepared transactions do (lessons 10, 33, 34)",
        arguments: PostgresInstallation.all)
    func kinds(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        layout.configuration = ["max_prepared_transactions = 5"]
        let cluster = try TopologyCluster(layout)
        let server = cluster.server
        try cluster.shell("mkdir ts")
        try server.psql(
            """
            create tablespace ts location '\(cluster.place("ts"))';
            create unlogged table u (i int primary key, v text);
            insert into u select i, md5(i::text) from generate_series(1, 5000) i;
            create unlogged table u_ts (i int primary key using index tablespace ts) tablespace ts;
            insert into u_ts select generate_series(1, 5000); create index on u_ts using gin ((array[i])) tablespace ts;
            \(installation.version >= 15 ? "create unlogged sequence us; select nextval('us'), nextval('us');" : "")
            create table empty (); create table t (i int primary key, v text);
            insert into t select i, md5(i::text) from generate_series(1, 5000) i;
            vacuum u, u_ts, t; checkpoint;
            select lo_from_bytea(4711, repeat('large object', 100000)::bytea);
            begin; insert into t values (-1, 'prepared'); prepare transaction 'before';
            begin; insert into t values (-2, 'rolled back'); prepare transaction 'never';
            create sequence s; select nextval('s') from generate_series(1, 100);
            create materialized view mv as select count(*) from t;
            """)
        for number in 1...(PostgresInstallation.soakIsEnabled ? 30 : 3) {
            try server.psql("create database \"d\(number)=#'[ ]\\\"")
        }
        let session = try ServerUser.command(
            [installation.program("psql"), "-Xq"] + server.connectionArguments
                + [
                    "-c", "create temp table temporary as select generate_series(1, 20000) i", "-c",
                    "create temp table elsewhere tablespace ts as select 1", "-c", "select pg_sleep(600)", "postgres",
                ]
        ).start(output: .discarded, errors: .discarded)
        try server.wait(until: "select count(*) > 0 from pg_stat_activity where query = 'select pg_sleep(600)'")
        let prepared = try server.value("select count(*) from pg_prepared_xacts")
        #expect(prepared == "2")
        let temporary = "find data/base data/pg_tblspc/*/PG_* -name 't[0-9]*_*' | wc -l"
        #expect(try cluster.shell(temporary) != "0\n")
        try cluster.backUp()
        session.kill(SIGTERM)
        // Unlogged content changes after the backup; one becomes logged, and one logged becomes unlogged.
        try server.psql(
            """
            insert into u select i, 'x' from generate_series(5001, 9000) i;
            create unlogged table turned (i int); insert into turned select generate_series(1, 3000);
            alter table turned set logged; create table back as select generate_series(1, 3000) i;
            alter table back set unlogged;
            commit prepared 'before'; rollback prepared 'never';
            begin; insert into t values (-3, 'late'); prepare transaction 'late'
            """)
        try cluster.archiveEverything()
        let directory = cluster.newCopyName()
        let oid = try server.value("select oid from pg_tablespace where spcname = 'ts'")
        let copy = try cluster.restore(
            ["--tablespace", "\(oid)=\(directory)-ts"], to: directory, settings: ["autovacuum = off"]
        ) { directory in
            let find =
                "find \"$1\" -name 't[0-9]*_*' -o -name 'pgsql_tmp*' -o -name 'pg_internal.init*'"
            #expect(try cluster.shell(find, directory) == "")
            // Of an unlogged relation just the initialisation fork.
            let node = try server.value("select pg_relation_filepath('u')")
            #expect(try cluster.shell("cd \"$1\"; echo $2*", directory, node) == "\(node)_init\n")
        }
        #expect(try copy.value("select count(*) from u") == "0")
        #expect(try copy.value("select count(*) from u_ts") == "0")
        #expect(try copy.value("select count(*) from back") == "0")
        #expect(try copy.value("select count(*) from turned") == "3000")
        if installation.version >= 15 { #expect(try copy.value("select nextval('us')") == "1") }
        try copy.psql("insert into u values (1, 'works'); insert into u_ts values (1)")
        #expect(try copy.psql("select gid from pg_prepared_xacts") == [["late"]])
        #expect(try copy.value("select string_agg(v, ',' order by i desc) from t where i < 0") == "prepared")
        #expect(try copy.value("select length(lo_get(4711))") == "1200000")
        for each in [server, copy] { try each.psql("commit prepared 'late'; drop table if exists back") }
        if installation.version >= 15 { for each in [server, copy] { try each.psql("drop sequence us") } }
        try cluster.expectSame(copy)
    }

    @Test(
        "databases and relations that come, go, shrink and grow under load while they are copied (lessons 2, 9, 10)",
        arguments: PostgresInstallation.all)
    func underLoad(_ installation: PostgresInstallation) throws {
        var layout = TopologyCluster.Layout()
        layout.installation = installation
        let cluster = try TopologyCluster(layout)
        let server = cluster.server
        try server.psql(
            """
            create table t (i int, v text); insert into t select i, md5(i::text) from generate_series(1, 30000) i;
            create table other as table t; create database keep;
            """)
        let strategy = installation.version >= 15 ? "strategy = file_copy" : ""
        try cluster.write(
            cluster.place("load.sh"),
            """
            psql() { "$PSQL" -Xq -v ON_ERROR_STOP=1 "$@"; }
            n=0
            while test ! -e "$STOP"; do
                n=$((n + 1))
                psql -c "create database a$n \(strategy)" -c "create database b$n template keep" postgres
                psql -c "create table x as select generate_series(1, 3000) i" "a$n"
                psql -c "drop database if exists \\"a$((n - 2))\\"" -c "drop database if exists \\"b$((n - 3))\\"" \\
                    postgres
                psql -c "truncate other" -c "insert into other select i, 'n$n' from generate_series(1, 9000) i" \\
                    -c "delete from t where i > 1000" -c "vacuum t" \\
                    -c "insert into t select i, 'n$n' from generate_series(1001, 20000 + $n) i" \\
                    -c "create table brief as table t" -c "vacuum full other" -c "drop table brief" postgres
                echo $n > "$STOP.rounds"
            done
            """)
        var command = ServerUser.command(["sh", "-eu", cluster.place("load.sh")])
        command.environment["PSQL"] = installation.program("psql")
        command.environment["STOP"] = cluster.place("stop")
        for (name, value) in [("PGHOST", server.directory.path), ("PGPORT", "\(server.port)"), ("PGUSER", "postgres")] {
            command.environment[name] = value
        }
        var load = try command.start(output: .discarded, errors: .file(cluster.place("load.log")))
        var labels: [String] = []
        for _ in 0..<(PostgresInstallation.soakIsEnabled ? 20 : 1) { labels.append(try cluster.backUp()) }
        try cluster.shell("touch stop")
        let status = try load.wait(timeout: .seconds(60))
        #expect(status == .exited(0), "\(readTextFile(cluster.place("load.log")) ?? "")")
        try cluster.archiveEverything()
        for label in labels {
            let copy = try cluster.restore(["--backup", label])
            try cluster.expectSame(copy)
            try copy.stop()
            try cluster.shell("rm -rf \"$1\"", copy.dataDirectory)
        }
    }
}

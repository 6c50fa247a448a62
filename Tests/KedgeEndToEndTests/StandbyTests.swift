// That several servers of one cluster can archive into one repository, and that none of them is led astray by what
// another one archived: standbys with archive_mode = always, promoted ones, twins of one timeline, pg_rewind.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct StandbyTests {
    private static let noneReady = """
        select not exists (select from pg_ls_archive_statusdir() where name like '%.ready')
        """

    private func standby(
        of cluster: ProtectedCluster, _ name: String, streaming: Bool = true
    ) throws -> PostgresTestServer {
        let directory = cluster.scratch(name)
        try cluster.kedge(["restore", "--pgdata", directory, "--standby", "--archiving", "keep"])
        let standby = try PostgresTestServer(dataDirectory: directory, installation: cluster.server.installation)
        if streaming {
            let source = "host=\(cluster.server.directory.path) port=\(cluster.server.port) user=postgres"
            try standby.appendConfiguration(["primary_conninfo = '\(source)'"])
        }
        return standby
    }

    private func promote(_ server: PostgresTestServer) throws {
        try server.psql("select pg_promote()")
        try server.wait(until: "select not pg_is_in_recovery()")
    }

    /// Names of archived files that begin with `prefix`, each as often as it is there.
    private func archived(_ cluster: ProtectedCluster, _ prefix: String) throws -> [String] {
        try ServerUser.run(["find", cluster.repository + "/main/wal", "-type", "f", "-name", prefix + "*"])
            .split(separator: "\n").compactMap { $0.split(separator: "/").last.map(String.init) }.sorted()
    }

    private func checksums(_ cluster: ProtectedCluster) throws -> String {
        try ServerUser.run(["sh", "-c", "find \(cluster.repository)/main/wal -type f -exec md5sum {} + | sort -k 2"])
    }

    @Test(
        "with archive_mode = always both push the same segments: each is there once, and nobody fails",
        arguments: PostgresInstallation.all)
    func always(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(
            installation, configuration: ["archive_mode = always", "wal_retrieve_retry_interval = 100ms"])
        let primary = cluster.server
        try primary.psql("create table t (number int, filler text)")
        try cluster.kedge(["backup"])
        let standby = try standby(of: cluster, "standby")
        try standby.start()
        for number in 1...12 {
            try primary.psql(
                """
                insert into t select \(number), md5(g::text) from generate_series(1, 3000) g;
                select pg_switch_wal();
                """)
        }
        let position = try primary.value("select pg_current_wal_insert_lsn()")
        try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(position)'")
        for server in [primary, standby] {
            try server.wait(until: Self.noneReady)
            #expect(try server.value("select failed_count from pg_stat_archiver") == "0")
            #expect(!server.log.contains("archive command failed") && !server.log.contains("kedge: error"))
        }
        let segments = try archived(cluster, "00000001")
        #expect(segments.count == Set(segments).count && segments.count >= 12)

        // The standby takes over; the old primary goes on, and archives the old timeline's last segment whole.
        try primary.psql("insert into t values (0, 'shared')")
        let shared = try primary.value("select pg_current_wal_insert_lsn()")
        try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(shared)'")
        try promote(standby)
        try standby.wait(until: Self.noneReady)
        #expect(try archived(cluster, "00000002.history") == ["00000002.history"])
        let before = try checksums(cluster)
        try primary.psql("insert into t values (-1, 'the twin only'); select pg_switch_wal()")
        try primary.psql("insert into t values (-2, 'the twin only'); select pg_switch_wal()")
        try primary.wait(
            until: "select failed_count > 0 or not exists (select from pg_ls_archive_statusdir() "
                + "where name like '%.ready') from pg_stat_archiver")
        try standby.psql("insert into t values (-3, 'new'); select pg_switch_wal()")
        try standby.wait(until: Self.noneReady)
        let after = try checksums(cluster)
        let lines = Set(after.split(separator: "\n"))
        #expect(before.split(separator: "\n").allSatisfy { lines.contains($0) }, "something was overwritten")
        // Restored along the new timeline nothing of the twin's is there; along the old one nothing of the new.
        try primary.stop()
        try standby.stop()
        let copy = try restore(cluster, "copy", [])
        #expect(try copy.value("select count(*) from t where number <= 0") == "2")
        #expect(try copy.value("select count(*) from t where number < 0 and filler <> 'new'") == "0")
    }

    private func restore(
        _ cluster: ProtectedCluster, _ name: String, _ arguments: [String]
    ) throws -> PostgresTestServer {
        let directory = cluster.scratch(name)
        try cluster.kedge(["restore", "--pgdata", directory, "--target-action", "promote"] + arguments)
        let server = try PostgresTestServer(dataDirectory: directory, installation: cluster.server.installation)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        return server
    }

    @Test(
        "a twin that writes other content under the same names is refused, and nothing is overwritten",
        arguments: PostgresInstallation.all)
    func twin(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(installation)
        let primary = cluster.server
        try primary.psql("create table t (number int)")
        try cluster.archiveEverything()
        try primary.stop()
        let copy = cluster.scratch("twin")
        try ServerUser.run(["cp", "-a", primary.dataDirectory, copy])
        try primary.start()
        try primary.psql("insert into t values (1)")
        try cluster.archiveEverything()
        let before = try checksums(cluster)
        let twin = try PostgresTestServer(dataDirectory: copy, installation: installation)
        try twin.start()
        try twin.psql("insert into t values (2), (3); select pg_switch_wal()")
        try twin.wait(until: "select failed_count > 1 from pg_stat_archiver")
        #expect(twin.log.contains("holds other content under this name"))
        #expect(twin.log.contains("code: archive-conflict"))
        #expect(try checksums(cluster) == before)
        // The one that is in the right goes on.
        try primary.psql("insert into t values (4)")
        try cluster.archiveEverything()
        #expect(try primary.value("select failed_count from pg_stat_archiver") == "0")
    }

    @Test(
        "a standby of a restored cluster replays nothing from behind the switch, although the archive has it",
        arguments: PostgresInstallation.all)
    func standbyOfRestored(_ installation: PostgresInstallation) throws {
        let world = try TimelineWorld(installation)
        for _ in 0..<2 { try world.writeTransaction() }
        let target = TimelineTarget(moment: .lsn(world.head.events[1].end), line: .number(1))
        for _ in 0..<2 {
            for _ in 0..<2 { try world.writeTransaction() }
            try world.switchSegment()
        }
        let verdict = try TimelineCheck(world: world, seed: 0).run(target, archiving: "keep")
        try world.adopt(try #require(verdict.server), events: verdict.events)
        try world.writeTransaction()
        // Timeline 2 has archived nothing but its history; segments of timeline 1 go on behind the switch point.
        let directory = world.scratch()
        try world.cluster.kedge(["restore", "--pgdata", directory, "--standby"])
        let standby = try PostgresTestServer(dataDirectory: directory, installation: installation)
        try standby.start()
        let left = try #require(world.head.ancestors.last).switchPoint
        try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(left)'")
        #expect(try TimelineWorld.rows(standby) == [1, 2])
        try world.switchSegment()
        try standby.wait(until: "select count(*) = 3 from journal")
        #expect(try TimelineWorld.rows(standby) == TimelineWorld.rows(world.head.server))
        // Along the old timeline all of it is there.
        let old = try TimelineCheck(world: world, seed: 0).run(TimelineTarget(moment: .latest, line: .number(1)))
        #expect(try TimelineWorld.rows(try #require(old.server)) == Set(1...6))
    }

    @Test(
        "a standby replays nothing from behind the switch, although a .partial that has to be used has it",
        arguments: PostgresInstallation.all)
    func standbyFromPartial(_ installation: PostgresInstallation) throws {
        let world = try TimelineWorld(installation)
        for _ in 0..<2 { try world.writeTransaction() }
        let target = TimelineTarget(moment: .lsn(world.head.events[1].end), line: .number(1))
        // Timeline 2 takes over from timeline 1, of which only a .partial holds the third row.
        try world.failOver()
        try world.backUp()
        let verdict = try TimelineCheck(world: world, seed: 0).run(target, archiving: "keep")
        try world.adopt(try #require(verdict.server), events: verdict.events)
        try world.writeTransaction()
        let directory = world.scratch()
        try world.cluster.kedge(["restore", "--pgdata", directory, "--standby", "--target-timeline", "3"])
        let standby = try PostgresTestServer(dataDirectory: directory, installation: installation)
        try standby.start()
        let left = try #require(world.head.ancestors.last).switchPoint
        try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(left)'")
        try world.switchSegment()
        try standby.wait(until: "select count(*) = 3 from journal")
        #expect(try TimelineWorld.rows(standby) == [1, 2, 4])
    }

    @Test(
        "a standby that is past the point where a newer timeline left goes on along its own",
        arguments: PostgresInstallation.all)
    func newerTimelineBehindStandby(_ installation: PostgresInstallation) throws {
        let world = try TimelineWorld(installation)
        for _ in 0..<2 { try world.writeTransaction() }
        let target = TimelineTarget(moment: .lsn(world.head.events[1].end), line: .number(1))
        for _ in 0..<2 { try world.writeTransaction() }
        try world.switchSegment()
        let directory = world.scratch()
        try world.cluster.kedge(["restore", "--pgdata", directory, "--standby"])
        let standby = try PostgresTestServer(dataDirectory: directory, installation: installation)
        try standby.start()
        try standby.wait(until: "select count(*) = 4 from journal")
        // A copy of an earlier state becomes timeline 2, and archives its history.
        let verdict = try TimelineCheck(world: world, seed: 0).run(target, archiving: "keep")
        #expect(verdict.events.count == 2)
        try standby.wait(forLog: "it has seen the other timeline") { $0.contains("before current recovery point") }
        for _ in 0..<2 {
            try world.writeTransaction()
            try world.switchSegment()
        }
        try standby.wait(until: "select count(*) = 6 from journal")
    }

    @Test(
        "pg_rewind fetches what it needs with restore_command, and changes nothing during an outage",
        arguments: PostgresInstallation.all.filter { $0.has("pg_rewind") })
    func rewind(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(
            installation, configuration: ["wal_keep_size = 0", "wal_log_hints = on", "full_page_writes = on"])
        let old = cluster.server
        try old.psql("create table t (number int)")
        try cluster.kedge(["backup"])
        let new = try standby(of: cluster, "new")
        try new.start()
        try old.psql("insert into t values (1)")
        let position = try old.value("select pg_current_wal_insert_lsn()")
        try new.wait(until: "select pg_last_wal_replay_lsn() >= '\(position)'")
        try promote(new)
        try new.psql("insert into t values (2); checkpoint")
        // The old primary goes on, and loses from its pg_wal what lies behind the point where the two part.
        for number in 10...14 { try old.psql("insert into t values (\(number)); select pg_switch_wal(); checkpoint") }
        try old.wait(until: Self.noneReady)
        try old.stop()
        let binary = try KedgeBinary.path()
        try old.appendConfiguration([
            "restore_command = '\(binary) --config \(cluster.configuration) archive-get %f \"%p\"'"
        ])
        let source = "host=\(new.directory.path) port=\(new.port) user=postgres dbname=postgres"
        let command = [
            installation.program("pg_rewind"), "--restore-target-wal", "--target-pgdata", old.dataDirectory,
            "--source-server", source,
        ]
        let control = try ServerUser.run(["md5sum", old.dataDirectory + "/global/pg_control"])
        try ServerUser.run(["mv", cluster.repository, cluster.repository + ".away"])
        let refused = try ServerUser.command(command).run()
        #expect(!refused.status.isSuccess)
        #expect(refused.errorText.contains("restore_command") || refused.errorText.contains("from archive"))
        #expect(try ServerUser.run(["md5sum", old.dataDirectory + "/global/pg_control"]) == control)
        try ServerUser.run(["mv", cluster.repository + ".away", cluster.repository])
        try ServerUser.run(ServerUser.command(command))
        // It comes back as a standby of the new primary.
        try ServerUser.run(["touch", old.dataDirectory + "/standby.signal"])
        try old.appendConfiguration(["primary_conninfo = '\(source)'"])
        try old.start()
        try new.psql("insert into t values (3)")
        try old.wait(until: "select count(*) = 3 from t")
        #expect(try old.psql("select number from t order by 1").map(\.[0]) == ["1", "2", "3"])
    }
}

// That no outage of the repository ends a recovery early, on real servers: a recovery stops with a message and
// completes when all is back, a standby waits and goes on by itself, and a promotion takes no timeline number that the
// server could know (lessons 28 and 29). What single calls answer is OutageStatusTests' matter.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct OutageTests {
    /// A backup, and after it a row of `t` in each of a few segments.
    private final class Archived {
        let cluster: ProtectedCluster
        private(set) var names: [String] = []
        private var directories = 0

        init(_ installation: PostgresInstallation, segments: Int = 5) throws {
            cluster = try ProtectedCluster(installation, configuration: ["wal_retrieve_retry_interval = 100ms"])
            try ServerUser.run(["sh", "-c", "echo 'archive-get-timeout = 0s' >> \(cluster.configuration)"])
            try cluster.server.psql("create table t (number int)")
            try cluster.kedge(["backup"])
            for _ in 0..<segments { try addSegment() }
        }

        func addSegment() throws {
            try cluster.server.psql("insert into t values (1)")
            let name = try cluster.server.value("select pg_walfile_name(pg_switch_wal())")
            try cluster.server.wait(until: "select last_archived_wal >= '\(name)' from pg_stat_archiver")
            names.append(name)
        }

        var rows: String { String(names.count) }

        func restore(_ arguments: [String] = []) throws -> PostgresTestServer {
            directories += 1
            let copy = cluster.scratch("copy-\(directories)")
            try cluster.kedge(["restore", "--pgdata", copy] + arguments)
            return try PostgresTestServer(dataDirectory: copy, installation: cluster.server.installation)
        }

        func sh(_ script: String) throws {
            var command = Subprocess(["sh", "-c", script])
            command.workingDirectory = cluster.directory.path
            let outcome = try command.run()
            guard outcome.status.isSuccess else { throw KedgeError(.defect, "\(script): \(outcome.errorText)") }
        }

        /// What can go wrong with the segment `name`: what to do, how to undo it, and what the server's log says.
        func breakages(_ name: String) -> [(damage: String, mend: String, message: String)] {
            let object = "$(find repository -name '\(name)')"
            return [
                ("mv repository away", "mv away repository", "could not open repository directory"),
                ("chmod 0 repository", "chmod 700 repository", "code: permission"),
                ("mv main.key away", "mv away main.key", "main.key"),
                ("mv kedge.conf away", "mv away kedge.conf", "could not read configuration file"),
                (
                    "cp -p \(object) away; printf X | dd of=\(object) bs=1 seek=3000 conv=notrunc status=none",
                    "cp -p away \(object); rm away", "code: damaged"
                ),
                (
                    "o=\(object); echo $o > where; mv $o away", "mv away $(cat where)",
                    "it is missing in the middle of the archived WAL"
                ),
            ]
        }
    }

    private func isPromoted(_ server: PostgresTestServer) -> Bool {
        server.log.contains("selected new timeline ID") || access(server.dataDirectory + "/recovery.signal", F_OK) != 0
    }

    @Test(
        "a recovery stops at every kind of outage, says why, and completes after a restart when all is back",
        arguments: PostgresInstallation.all)
    func recovery(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation)
        let server = try archived.restore()
        for (damage, mend, message) in archived.breakages(archived.names[2]) {
            try archived.sh(damage)
            try server.startWithoutWaiting()
            let status = try server.waitForExit()
            try archived.sh(mend)
            #expect(status != nil && status?.isSuccess == false, "\(damage)")
            #expect(server.log.contains(message), "\(damage): \(server.log)")
            #expect(!isPromoted(server), "\(damage)")
        }
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from t") == archived.rows)
        // A crash recovery asks for nothing: there is no signal file any more.
        try archived.sh("mv repository away")
        try server.psql("insert into t values (1)")
        try server.kill()
        try server.start()
        #expect(try server.value("select count(*) from t") == String(archived.names.count + 1))
        try archived.sh("mv away repository")
    }

    @Test("a standby waits through every kind of outage and goes on by itself", arguments: PostgresInstallation.all)
    func standby(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation, segments: 1)
        let server = try archived.restore(["--standby"])
        try server.start()
        for number in 0..<archived.breakages("").count {
            try server.wait(until: "select count(*) = \(archived.rows) from t")
            let before = archived.rows
            try server.stop()
            try archived.addSegment()
            try archived.addSegment()
            let (damage, mend, message) = archived.breakages(archived.names[archived.names.count - 2])[number]
            try archived.sh(damage)
            let said = server.log.components(of: message)
            try server.start()
            try server.wait(forLog: message) { $0.components(of: message) > said + 1 }
            #expect(try server.value("select pg_is_in_recovery() and count(*) = \(before) from t") == "t", "\(damage)")
            try archived.sh(mend)
            try server.wait(until: "select count(*) = \(archived.rows) from t")
        }
        #expect(!server.log.contains("selected new timeline ID"))
    }

    /// Where the risk that is left begins: a timeline that nobody could tell a standby of is taken a second time. What
    /// comes of it is refused when it is archived, and changes nothing.
    @Test(
        "a promotion in an outage takes no timeline that is known; one that is not is taken twice, and refused later",
        arguments: PostgresInstallation.all)
    func promotion(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation, segments: 2)
        let standbys = try (0..<4).map { _ in try archived.restore(["--standby", "--archiving", "keep"]) }
        let caughtUp = "select count(*) = \(archived.rows) from t"
        for standby in standbys[...1] + standbys[3...] {
            try standby.start()
            try standby.wait(until: caughtUp)
        }
        try archived.cluster.server.stop()
        try archived.sh("mv repository away")
        try promote(standbys[0])
        try promote(standbys[1])
        #expect(try timeline(standbys[0]) == "00000002")
        #expect(try timeline(standbys[1]) == "00000002")
        try standbys[1].stop()
        // Told to fail rather than guess, a standby ends the next time that it asks, promoted or not.
        try archived.sh("cp -p kedge.conf whole; echo 'on-unavailable = abort' >> kedge.conf")
        #expect(try standbys[3].waitForExit()?.isSuccess == false)
        #expect(!standbys[3].log.contains("selected new timeline ID"))
        try archived.sh("mv whole kedge.conf; mv away repository")

        // What the first one wrote is archived, and stays what it is.
        try standbys[0].psql("insert into t values (1)")
        let name = try standbys[0].value("select pg_walfile_name(pg_switch_wal())")
        try standbys[0].wait(until: "select last_archived_wal >= '\(name)' from pg_stat_archiver")
        let stored = "cd repository && find . -name '00000002*' -type f -exec md5sum {} + | sort > ../stored"
        try archived.sh(stored)
        try standbys[1].start()
        try standbys[1].psql("insert into t values (2)")
        try standbys[1].wait(until: "select failed_count > 0 from pg_stat_archiver")
        try standbys[1].wait(forLog: "the twin is refused") { $0.contains("holds other content under this name") }
        try archived.sh("cp stored before && " + stored + " && cmp ../stored ../before")

        // One that has followed the new timeline knows it.
        try standbys[2].start()
        try standbys[2].wait(until: "select count(*) = \(archived.names.count + 1) from t")
        try standbys[0].stop()
        try archived.sh("mv repository away")
        try promote(standbys[2])
        #expect(try timeline(standbys[2]) == "00000003")
        try archived.sh("mv away repository")
    }

    private func promote(_ server: PostgresTestServer) throws {
        try server.psql("select pg_promote()")
        try server.wait(until: "select not pg_is_in_recovery()")
    }

    private func timeline(_ server: PostgresTestServer) throws -> String {
        String(try server.value("select pg_walfile_name(pg_current_wal_lsn())").prefix(8))
    }
}

extension String {
    /// How often `text` occurs.
    fileprivate func components(of text: String) -> Int {
        var (count, rest) = (0, self[...])
        while let found = rest.firstRange(of: text) {
            count += 1
            rest = rest[found.upperBound...]
        }
        return count
    }
}

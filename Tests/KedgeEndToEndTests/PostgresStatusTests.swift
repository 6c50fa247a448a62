// That PostgreSQL draws the right conclusions from the exit statuses of archive-get and archive-push: it never takes a
// repository that is away, or a hole in the archived WAL, for the end of the WAL (lesson 29).
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct PostgresStatusTests {
    /// A backup, and after it WAL in several segments, each with one more row of `t`, all archived.
    private final class Archived {
        static let segments = 6

        let cluster: ProtectedCluster
        let copy: String
        /// The names of the segments that were ended, in order.
        private(set) var names: [String] = []

        init(_ installation: PostgresInstallation, getTimeout: String) throws {
            cluster = try ProtectedCluster(installation)
            copy = cluster.scratch("copy")
            try ServerUser.run([
                "sh", "-c", "echo 'archive-get-timeout = \(getTimeout)' >> \(cluster.configuration)",
            ])
            try cluster.server.psql("create table t (number int)")
            try cluster.kedge(["backup"])
            for number in 1...Archived.segments {
                try cluster.server.psql("insert into t values (\(number))")
                names.append(try cluster.server.value("select pg_walfile_name(pg_switch_wal())"))
            }
            try cluster.server.wait(
                until: "select last_archived_wal >= '\(names[names.count - 1])' from pg_stat_archiver")
        }

        /// Restores to the end of the WAL. The server is not started.
        func restore() throws -> PostgresTestServer {
            try cluster.kedge(["restore", "--pgdata", copy])
            return try PostgresTestServer(dataDirectory: copy, installation: cluster.server.installation)
        }

        /// Gives the copy the WAL up to the end of `last` in its own pg_wal: whoever is told that no more is archived
        /// can come up there, and has lost what followed.
        func copyWAL(through last: String) throws {
            let wal = cluster.server.dataDirectory + "/pg_wal/"
            let names = try Directory.entries(at: RawPath(wal)).map(\.name.description)
                .filter { $0.utf8.count == 24 && $0 <= last }
            try ServerUser.run(["cp"] + names.map { wal + $0 } + [copy + "/pg_wal"])
        }

        /// The file that holds the copy's restore_command.
        var settings: String { copy + "/postgresql.auto.conf" }

        /// Where the object of a segment lies.
        func object(_ name: String) throws -> String {
            let found = try ServerUser.run(["find", cluster.repository + "/main/wal", "-name", name + "*"])
                .split(separator: "\n")
            return String(try #require(found.count == 1 ? found.first : nil))
        }

        /// Lets the server start, which must end by itself with `text` in its log and must not have been promoted.
        func expectRefusal(_ server: PostgresTestServer, saying text: String) throws {
            let before = server.log.utf8.count
            try server.startWithoutWaiting()
            let status = try server.waitForExit()
            #expect(status != nil && status?.isSuccess == false)
            let log = Substring(server.log.utf8.dropFirst(before))
            #expect(log.contains("FATAL:  could not restore file") && log.contains(text), "\(log)")
            expectNotPromoted(server)
        }

        func expectNotPromoted(_ server: PostgresTestServer) {
            #expect(access(copy + "/pg_wal/00000002.history", F_OK) != 0)
            #expect(access(copy + "/recovery.signal", F_OK) == 0)
            #expect(!server.log.contains("selected new timeline ID"))
        }

        /// Lets the server start, which must recover every row.
        func expectRecovery(_ server: PostgresTestServer) throws {
            try server.start()
            try server.wait(until: "select not pg_is_in_recovery()")
            #expect(try server.value("select count(*) from t") == String(Archived.segments))
        }
    }

    @Test(
        "recovery stops when restore_command is mistyped or the repository is away, and completes when all is well",
        arguments: PostgresInstallation.all)
    func absentRepository(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation, getTimeout: "0s")
        let server = try archived.restore()
        try archived.copyWAL(through: archived.names[1])
        let settings = archived.cluster.scratch("settings")
        try ServerUser.run(["cp", archived.settings, settings])
        // As a DBA writes it: without the target by which the server sees that too little was recovered.
        let slip = ["-e", "s/ archive-get / archive-gett /", "-e", "s/^recovery_target_lsn/#&/"]
        try ServerUser.run(["sed", "-i"] + slip + [archived.settings])
        try archived.expectRefusal(server, saying: "unknown command \"archive-gett\"")
        try ServerUser.run(["cp", settings, archived.settings])
        let repository = archived.cluster.repository
        try ServerUser.run(["mv", repository, repository + ".away"])
        try archived.expectRefusal(server, saying: "code: repository-unavailable")
        // An empty directory, as where its file system is not mounted, is no repository either.
        try ServerUser.run(["mkdir", repository])
        try archived.expectRefusal(server, saying: "there is no kedge.json")
        try ServerUser.run(["rmdir", repository])
        try ServerUser.run(["mv", repository + ".away", repository])
        try archived.expectRecovery(server)
    }

    @Test("a hole in the archived WAL is never taken for its end", arguments: PostgresInstallation.all)
    func hole(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation, getTimeout: "1s")
        let server = try archived.restore()
        let object = try archived.object(archived.names[2])
        try ServerUser.run(["mv", object, archived.cluster.scratch("hidden")])
        try archived.expectRefusal(server, saying: "it is missing in the middle of the archived WAL")
        #expect(server.log.contains("restored log file \"\(archived.names[1])\" from archive"))
        try ServerUser.run(["mv", archived.cluster.scratch("hidden"), object])
        try archived.expectRecovery(server)
    }

    @Test(
        "a fast stop while archive-get waits for a missing segment is a clean one",
        arguments: PostgresInstallation.all)
    func stopWhileWaiting(_ installation: PostgresInstallation) throws {
        let archived = try Archived(installation, getTimeout: "300s")
        let server = try archived.restore()
        let name = archived.names[2]
        let object = try archived.object(name)
        try ServerUser.run(["mv", object, archived.cluster.scratch("hidden")])
        try server.startWithoutWaiting()
        let process = try #require(try waitForGet(name, archived.cluster.configuration))
        let begin = ContinuousClock.now
        let postmaster = try #require(server.processID)
        // What "pg_ctl stop -m fast" sends.
        Glibc.kill(postmaster, SIGINT)
        #expect(try server.waitForExit() == .exited(0))
        #expect(ContinuousClock.now - begin < .seconds(20))
        // The startup process does not wait for its command, so that may end after the server.
        let end = ContinuousClock.now + .seconds(20)
        func isRunning() -> Bool { readTextFile("/proc/\(process)/cmdline")?.contains("archive-get") == true }
        while isRunning(), ContinuousClock.now < end { usleep(50_000) }
        #expect(!isRunning())
        #expect(server.log.contains("database system is shut down"))
        #expect(!server.log.contains("could not restore file"))
        archived.expectNotPromoted(server)
        try ServerUser.run(["mv", archived.cluster.scratch("hidden"), object])
        try archived.expectRecovery(server)
    }

    /// The process that fetches the segment, once there is one.
    private func waitForGet(_ name: String, _ configuration: String) throws -> Int32? {
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            for entry in try Directory.entries(at: "/proc") {
                guard let process = Int32(entry.name.description) else { continue }
                let line = readTextFile("/proc/\(process)/cmdline") ?? ""
                let words = line.split(separator: "\0").map { String($0) }
                // Not the shell that PostgreSQL starts, whose one argument is the whole command.
                if words.contains("archive-get"), words.contains(name), words.contains(configuration) {
                    return process
                }
            }
            poll(nil, 0, 20)
        }
        return nil
    }

    @Test(
        "an archive-push that fails is counted, leaves the archiver alive and is tried again",
        // 13 does not show its archiver as a process.
        arguments: PostgresInstallation.all.filter { $0.version > 13 })
    func failingPush(_ installation: PostgresInstallation) throws {
        let cluster = try ProtectedCluster(installation)
        let server = cluster.server
        try server.psql("create table t (number int)")
        try cluster.archiveEverything()
        let pid = "select pid from pg_stat_activity where backend_type = 'archiver'"
        let archiver = try server.value(pid)
        try ServerUser.run(["mv", cluster.repository, cluster.repository + ".away"])
        try server.psql("insert into t values (1)")
        let name = try server.value("select pg_walfile_name(pg_switch_wal())")
        // More than one attempt: the archiver does not die of the first.
        try server.wait(until: "select failed_count > 1 and last_failed_wal = '\(name)' from pg_stat_archiver")
        #expect(try server.value(pid) == archiver)
        #expect(try server.value("select last_archived_wal < '\(name)' from pg_stat_archiver") == "t")
        #expect(server.log.contains("archive command failed with exit code"))
        try ServerUser.run(["mv", cluster.repository + ".away", cluster.repository])
        try server.psql("insert into t values (2)")
        // Another segment wakes an archiver that has given up for a minute.
        try cluster.archiveEverything()
        #expect(try server.value(pid) == archiver)
        let found = try ServerUser.run(["find", cluster.repository, "-name", name])
        #expect(!found.isEmpty)
    }
}

// That a full disk is named with what is needed and what is free, leaves nothing half done and nothing that takes up
// space, and costs nothing once there is room again: repository, work directory, restored cluster, pg_wal.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(
    .serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"),
    .enabled(if: SmallFileSystem.isAvailable, "needs root and the right to mount a tmpfs"))
struct DiskFullTests {
    /// `archive_command` of a cluster whose test pushes by itself: the last one in postgresql.conf counts.
    private static let idleArchiver = ["archive_command = '/bin/false'"]

    private func expectFull(
        _ outcome: Subprocess.Outcome, status: Int32, at mount: String, _ parts: [String],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let text = outcome.errorText
        #expect(outcome.status == .exited(status), "\(text)", sourceLocation: sourceLocation)
        #expect(text.contains("code: no-space\n"), "\(text)", sourceLocation: sourceLocation)
        #expect(text.contains("The file system at \"\(mount)\" has "), "\(text)", sourceLocation: sourceLocation)
        for part in parts { #expect(text.contains(part), "\(part): \(text)", sourceLocation: sourceLocation) }
    }

    @Test("archive-push into a full repository fails with 1, and succeeds when there is room (wish 10)")
    func push() throws {
        let cluster = try ProtectedCluster(configuration: Self.idleArchiver)
        let disk = try cluster.moveRepository(to: "size=8m,nr_inodes=200")
        let segment = "pg_wal/" + (try cluster.endedSegment())
        try disk.fill(leaving: 0)
        let before = try asRoot(["find", disk.path, "-type", "f"])
        let full = try cluster.attemptInDataDirectory(["archive-push", segment])
        expectFull(
            full, status: 1, at: disk.path,
            ["could not store object \"main/wal/", "It needs ", " bytes free.", "Free space there or make it larger"])
        #expect(try disk.leftovers() == "")

        // The same for inodes: bytes are free, files are not.
        try disk.freeAll()
        let used = try UInt64(
            asRoot(["sh", "-c", "df --output=iused \"$1\" | tail -n 1", "sh", disk.path]).filter(\.isNumber))
        try disk.remount("nr_inodes=\(try #require(used))")
        let crowded = try cluster.attemptInDataDirectory(["archive-push", segment])
        expectFull(crowded, status: 1, at: disk.path, ["none of its ", "give the file system more inodes"])
        let after = try asRoot(["find", disk.path, "-type", "f"])
        // Directories on the way may stay, the next attempt needs them; objects and temporary files do not.
        #expect(Set(after.split(separator: "\n")).subtracting(before.split(separator: "\n")).isEmpty)

        try disk.remount("nr_inodes=1000")
        let done = try cluster.attemptInDataDirectory(["archive-push", segment])
        #expect(done.status == .exited(0), "\(done.errorText)")
        let name = String(segment.dropFirst("pg_wal/".count))
        try cluster.kedge(["archive-get", name, cluster.scratch("fetched")])
        try ServerUser.run(["cmp", cluster.scratch("fetched"), cluster.server.dataDirectory + "/" + segment])
    }

    @Test("a backup into a full repository warns, fails, leaves no backup and no intent, and succeeds with room")
    func backup() throws {
        let cluster = try ProtectedCluster()
        let disk = try cluster.moveRepository(to: "size=64m")
        try disk.fill(leaving: 2 << 20)
        let full = try cluster.attempt(["backup"])
        expectFull(full, status: 1, at: disk.path, ["could not store object \"main/pack/", " more are needed now."])
        #expect(full.errorText.contains("warn: repository \"main\" has probably too little room: this backup needs"))
        #expect(try disk.leftovers() == "")
        #expect(try asRoot(["find", disk.path, "-path", "*/catalog/*", "-type", "f"]) == "")
        #expect(try !cluster.hasBackupSession())

        try disk.freeAll()
        try cluster.kedge(["backup"])
        try cluster.kedge(["restore", "--pgdata", cluster.scratch("copy"), "--target-immediate"])

        // With a precedent the forecast knows how far the cluster compresses.
        try disk.fill(leaving: 2 << 20)
        let again = try cluster.attempt(["backup", "--type", "full"])
        expectFull(again, status: 1, at: disk.path, ["the last full backup stored "])
        #expect(try cluster.kedge(["info"]).contains("full"))
    }

    @Test("a full work directory fails a backup and a restore, with the setting that moves it")
    func workDirectory() throws {
        let cluster = try ProtectedCluster()
        try cluster.kedge(["backup"])
        let work = try SmallFileSystem(at: cluster.directory("work"), "size=32k")
        let backup = try cluster.attempt(["backup"])
        expectFull(
            backup, status: 1, at: work.path, ["(scratch file)", "The setting work-directory names another place"])
        try work.fill(leaving: 0)
        let target = cluster.scratch("copy")
        let restore = try cluster.attempt(["restore", "--pgdata", target, "--target-immediate"])
        expectFull(restore, status: 1, at: work.path, ["are missing.", "work-directory", "Nothing was written."])
        #expect(access(target, F_OK) != 0)
        #expect(try !cluster.hasBackupSession())
        try work.freeAll()
        try work.remount("size=8m")
        try cluster.kedge(["restore", "--pgdata", target, "--target-immediate"])
        try cluster.kedge(["backup"])
        #expect(try asRoot(["find", work.path, "-name", "*kedge*"]) == "")
    }

    @Test("a restore says what is missing on which file system before it writes, tablespaces and inodes included")
    func restore() throws {
        let cluster = try ProtectedCluster()
        let tablespace = cluster.scratch("tablespace")
        try ServerUser.run(["mkdir", tablespace])
        try cluster.server.psql("create tablespace space location '\(tablespace)'")
        try cluster.server.psql("create table far tablespace space as select generate_series(1, 100000) as number")
        let oid = try cluster.server.value("select oid from pg_tablespace where spcname = 'space'")
        try cluster.kedge(["backup"])
        let (target, elsewhere) = (cluster.scratch("small"), cluster.scratch("other"))
        try ServerUser.run(["mkdir", target, elsewhere])
        let map = ["--tablespace", "\(oid)=\(elsewhere)/space"]
        let restore =
            ["restore", "--pgdata", target + "/data", "--target-immediate", "--target-action", "promote"] + map

        let disk = try SmallFileSystem(at: target, "size=8m")
        expectFull(
            try cluster.attempt(restore), status: 1, at: target,
            ["cannot restore into \"\(target)/data\"", "are missing.", "with \"--pgdata\"", "Nothing was written."])
        try disk.remount("size=256m,nr_inodes=100")
        expectFull(try cluster.attempt(restore), status: 1, at: target, [" inodes (files and directories) free"])
        try disk.remount("nr_inodes=10000")
        let other = try SmallFileSystem(at: elsewhere, "size=1m")
        expectFull(
            try cluster.attempt(restore), status: 1, at: elsewhere,
            ["cannot restore into \"\(elsewhere)/space\"", "with \"--tablespace \(oid)=DIR\""])
        for place in [target, elsewhere] { #expect(try Directory.entries(at: RawPath(place)).isEmpty) }

        try other.remount("size=64m")
        try cluster.kedge(restore)
        let server = try PostgresTestServer(dataDirectory: target + "/data")
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        #expect(try server.value("select count(*) from far") == "100000")
        try server.stop()
    }

    @Test("archive-get into a full pg_wal fails with 126, leaves nothing there, and succeeds when there is room")
    func get() throws {
        let cluster = try ProtectedCluster()
        let name = try cluster.archivedSegment()
        let place = cluster.scratch("pg_wal")
        try ServerUser.run(["mkdir", place])
        let disk = try SmallFileSystem(at: place, "size=2m")
        try disk.fill(leaving: 256 << 10)
        let full = try cluster.attempt(["archive-get", name, place + "/RECOVERYXLOG"])
        expectFull(
            full, status: 126, at: place,
            [" bytes free.", "could not write WAL file \"\(name)\" to its destination \"\(place)/RECOVERYXLOG\""])
        #expect(!full.errorText.contains("in repository"), "\(full.errorText)")
        try disk.freeAll()
        #expect(try Directory.entries(at: RawPath(place)).isEmpty)
        try cluster.kedge(["archive-get", name, place + "/RECOVERYXLOG"])
        #expect(try Directory.entries(at: RawPath(place)).map(\.name) == ["RECOVERYXLOG"])
    }
}

// That a repository which can't be used is never taken for one that lacks a file: read-only, not mounted, renamed,
// forbidden, behind a dead mount. Each has a message of its own, and what only reads goes on where it can.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(
    .serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"),
    .enabled(if: SmallFileSystem.isAvailable, "needs root and the right to mount a tmpfs"))
struct FaultRepositoryTests {
    /// A cluster with a backup, a repository on a mount of its own, an archived segment and one that is not.
    private final class Scene {
        let cluster: ProtectedCluster
        let disk: SmallFileSystem
        let archived: String
        let waiting: String

        init() throws {
            cluster = try ProtectedCluster()
            try cluster.kedge(["backup"])
            archived = try cluster.archivedSegment()
            try cluster.server.psql("alter system set archive_command = '/bin/false'")
            try cluster.server.psql("select pg_reload_conf()")
            disk = try cluster.moveRepository(to: "size=64m")
            waiting = "pg_wal/" + (try cluster.endedSegment())
        }

        /// The commands that need the repository: what they are called, and how they end when it can't be used.
        func commands() -> [(words: [String], status: Int32)] {
            [
                (["archive-push", waiting], 1), (["archive-get", archived, cluster.scratch("got")], 126),
                (["archive-get", "00000001000000990000000A", cluster.scratch("got")], 126),
                (["archive-get", "00000009.history", cluster.scratch("got")], 126),
                (["restore", "--pgdata", cluster.scratch("copy"), "--target-immediate"], 1), (["backup"], 1),
                (["info"], 1), (["key", "list"], 1),
            ]
        }

        /// Each command fails in its way, and says `text`.
        func expectFailures(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            for (words, status) in commands() {
                let outcome = try cluster.attemptInDataDirectory(words)
                let said = outcome.errorText + outcome.outputText
                #expect(outcome.status == .exited(status), "\(words): \(said)", sourceLocation: sourceLocation)
                #expect(said.contains(text), "\(words): \(said)", sourceLocation: sourceLocation)
                #expect(access(cluster.scratch("got"), F_OK) != 0, sourceLocation: sourceLocation)
                #expect(access(cluster.scratch("copy"), F_OK) != 0, sourceLocation: sourceLocation)
            }
            let check = try cluster.attempt(["check"])
            #expect(check.status == .exited(1), "\(check.outputText)", sourceLocation: sourceLocation)
        }

        /// All is well again.
        func expectSuccess() throws {
            try cluster.kedge(["archive-get", archived, cluster.scratch("again")])
            let push = try cluster.attemptInDataDirectory(["archive-push", waiting])
            #expect(push.status == .exited(0), "\(push.errorText)")
            try ServerUser.run(["rm", cluster.scratch("again")])
        }
    }

    @Test("a repository that is read-only serves get, info and restore; push and backup say so")
    func readOnly() throws {
        let scene = try Scene()
        let cluster = scene.cluster
        try scene.disk.remount("ro")
        for words in [["archive-push", scene.waiting], ["backup"]] {
            let outcome = try cluster.attemptInDataDirectory(words)
            #expect(outcome.status == .exited(1), "\(words): \(outcome.errorText)")
            #expect(outcome.errorText.contains("Read-only file system (EROFS)"), "\(words): \(outcome.errorText)")
            #expect(outcome.errorText.contains("for writing."), "\(words): \(outcome.errorText)")
            #expect(outcome.errorText.contains("code: permission\n"), "\(words): \(outcome.errorText)")
        }
        #expect(try !cluster.hasBackupSession())
        try cluster.kedge(["archive-get", scene.archived, cluster.scratch("got")])
        #expect(try cluster.kedge(["info"]).contains("full"))
        try cluster.kedge(["restore", "--pgdata", cluster.scratch("copy"), "--target-immediate"])
        // Absence is still proven: the repository was read.
        let absent = try cluster.attempt(["archive-get", "00000009.history", cluster.scratch("none")])
        #expect(absent.status == .exited(1), "\(absent.errorText)")
        try scene.disk.remount("rw")
        try scene.expectSuccess()
    }

    @Test("an empty mount point, a renamed and a forbidden directory are told apart and never taken for absence")
    func away() throws {
        let scene = try Scene()
        let repository = scene.cluster.repository
        // The directory below the mount is empty.
        try asRoot(["mount", "--move", repository, try makeDirectory(scene, "moved")])
        try scene.expectFailures("Check that its file system is mounted")
        // It must not be filled with what belongs on the disk.
        #expect(try Directory.entries(at: RawPath(repository)).isEmpty)
        try ServerUser.run(["mv", repository, repository + ".away"])
        try scene.expectFailures("There is no such directory.")
        try ServerUser.run(["sh", "-c", "echo x > \(repository)"])
        try scene.expectFailures("(ENOTDIR)")
        try ServerUser.run(["rm", repository])
        try ServerUser.run(["mv", repository + ".away", repository])
        try asRoot(["mount", "--move", scene.cluster.scratch("moved"), repository])
        try asRoot(["chmod", "0", repository])
        try scene.expectFailures("Permission denied (EACCES)")
        try asRoot(["chmod", "0700", repository])
        try scene.expectSuccess()
    }

    @Test(
        "a mount whose server has died is out of reach, and nothing in it is absent",
        .enabled(if: StalledFileSystem.isAvailable, "needs /dev/fuse"))
    func deadMount() throws {
        let scene = try Scene()
        do {
            let dead = try StalledFileSystem(at: scene.cluster.repository)
            dead.breakConnection()
            try scene.expectFailures("it is out of reach")
        }
        try scene.expectSuccess()
    }

    private func makeDirectory(_ scene: Scene, _ name: String) throws -> String {
        let path = scene.cluster.scratch(name)
        try ServerUser.run(["mkdir", path])
        return path
    }
}

// Which history a server follows: what can't be read is an error and not "nothing is known", for then a server would be
// given WAL of a branch that it does not follow.
import KedgeCore
import KedgePostgres
import Testing

@testable import KedgeCommand

struct FollowedTimelineTests {
    /// A standby that was told to follow timeline 3, and the files that it has.
    private static let files = [
        "standby.signal": "", "postgresql.auto.conf": "recovery_target_timeline = '3'\n",
        "pg_wal/00000003.history": "1\t0/300000\tno reason\n2\t0/500000\tno reason\n",
    ]

    /// As the tool would find it; `unreadable` names a file that is there and can't be read.
    private func followed(
        _ files: [String: String], unreadable: String? = nil
    ) -> FollowedTimeline {
        let read = reader(files.filter { $0.key != unreadable })
        let surroundings = Surroundings(
            environment: [], host: testHost, readFile: read, runShell: Surroundings.real.runShell,
            fileExists: { files[$0] != nil }, listDirectory: { _ in nil },
            writeOutput: { (_: [UInt8]) throws(KedgeError) in }, writeErrorLine: { _ in }, time: FixedTime(),
            random: SystemRandomSource(), interruption: Interruption())
        return FollowedTimeline(surroundings, dataDirectory: "/nowhere", asked: nil)
    }

    @Test("the history of the timeline that is configured")
    func configured() throws {
        let history = try followed(Self.files).history()
        #expect(history?.timeline == TimelineID(3))
        #expect(history?.limit(of: TimelineID(2)) == LSN("0/500000"))
    }

    @Test("nothing is known where no file says it")
    func unknown() throws {
        #expect(try followed([:]).history() == nil)
        #expect(try followed(Self.files.filter { $0.key != "pg_wal/00000003.history" }).history() == nil)
        #expect(try followed(["recovery.signal": ""]).history() == nil)
    }

    @Test(
        "a file that is there and can't be read is an error",
        arguments: ["postgresql.auto.conf", "pg_wal/00000003.history"])
    func unreadable(_ path: String) {
        #expect(throws: KedgeError.self) { try followed(Self.files, unreadable: path).history() }
    }

    @Test("so is a history that does not parse, and a pg_wal that can't be listed")
    func damaged() {
        var files = Self.files
        files["pg_wal/00000003.history"] = "2\t0/500000\n1\tx\n"
        #expect(throws: KedgeError.self) { try followed(files).history() }
        #expect(throws: KedgeError.self) { try followed(["standby.signal": ""]).history() }
    }
}

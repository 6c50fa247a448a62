// That a drill which is ended at any moment leaves no process behind, no directory after the next run, and the original
// as it was: by SIGKILL, after which only the kernel and the next drill can act, and by SIGINT and SIGTERM.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DrillKillTests {
    @Test("random kills leave no process at once and no directory after the next drill")
    func kills() throws {
        let wanted = PostgresInstallation.soakIsEnabled ? 50 : 4
        let random = SeededRandom(seed: testSeed())
        let drills = try DrillCluster()
        let cluster = drills.cluster
        try cluster.server.psql("insert into t select g, 'more' from generate_series(1, 20000) g")
        try cluster.archiveEverything()
        let begin = ContinuousClock.now
        _ = try drills.proof()
        let whole = ContinuousClock.now - begin
        // Stopped, the original changes nothing by itself: whatever differs afterwards a drill did.
        try cluster.server.stop()
        func listing() throws -> String {
            try ServerUser.run(["find", cluster.server.dataDirectory, "-printf", "%p %i %s %T@ %C@\\n"])
        }
        let before = try listing()
        var ended: [Int32: Int] = [:]
        var attempts = 0
        while ended.values.reduce(0, +) < wanted, attempts < 3 * wanted {
            attempts += 1
            let signal = [SIGKILL, SIGKILL, SIGTERM, SIGINT][random.next(below: 4)]
            let moment = whole * random.next(below: 1000) / 1000
            var process = try KedgeBinary.command(
                ["--config", cluster.configuration, "--log-level", "warn", "drill"] + drills.arguments,
                workingDirectory: cluster.directory.path
            ).start(output: .discarded, errors: .file(cluster.scratch("errors")))
            if try process.wait(timeout: moment) == nil { process.kill(signal) }
            let status = try process.wait(timeout: .seconds(60))
            let comment = "signal \(signal) after \(moment), seed \(testSeed()): "
            guard status != .exited(0) else { continue }
            ended[signal, default: 0] += 1
            if signal == SIGKILL {
                #expect(status == .signalled(SIGKILL), "\(comment)")
                try waitForProcesses(drills, comment)
            } else if status != .signalled(signal) {
                // Not so early that there was no handler yet.
                #expect(status == .exited(130), "\(comment)\(readTextFile(cluster.scratch("errors")) ?? "")")
                try drills.expectNothingLeft(comment)
            }
        }
        #expect(ended.values.reduce(0, +) >= wanted, "\(ended)")
        // The next one cleans up, and works.
        _ = try drills.proof()
        try drills.expectNothingLeft("at the end, seed \(testSeed())")
        #expect(try listing() == before)
        try cluster.server.start()
        #expect(try cluster.server.value("select count(*) from t") == "25000")
        print(
            "drills ended by signal: \(ended.sorted { $0.key < $1.key }), a whole one took \(whole), seed \(testSeed())"
        )
    }

    /// The kernel tells the server to stop; it may take a moment.
    private func waitForProcesses(_ drills: DrillCluster, _ comment: String) throws {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            let left = try ProcessTable.entries().filter { process in
                process.workingDirectory.map { $0.bytes.starts(with: Array(drills.scratch.utf8)) } ?? false
            }
            if left.isEmpty { return }
            poll(nil, 0, 20)
        }
        Issue.record("\(comment)processes are left")
    }
}

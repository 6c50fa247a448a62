// That a drill waits for WAL that is just being archived, and for nothing else.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct DrillPlanTests {
    private let directory: TemporaryDirectory
    private let memory: MemoryRepository
    private let time = ManualTime()

    /// A backup in segment 2.
    init() throws {
        directory = try TemporaryDirectory()
        memory = try MemoryRepository(encrypted: false, walSegmentSize: 1 << 20)
        try memory.archive(1...3)
        let label = try #require(Label("20261121T020000Z-full-aaaa"))
        let start = LSN(2 << 20 + 40)
        try PaperBackup(memory.cluster()).commit(
            PaperEntry.minimal(), as: .sample(label, start: start, stop: start + 400))
        for name in ["drills", "work"] { _ = try Directory.create(at: RawPath(directory(name)), mode: 0o700) }
    }

    /// Drills on a host without PostgreSQL: a plan that is made ends with that.
    private func drill() throws(KedgeError) -> Drill.Outcome {
        var options = Drill.Options(
            clusterName: "main", wish: .given(RestoreRequest()), drillDirectory: RawPath(directory("drills")),
            binDirectory: RawPath(directory("bin")), configuredPgdata: "/pg", users: ["postgres"],
            database: "postgres", amcheck: .off, assertions: [], settings: [], recoveryTimeObjective: nil,
            recoveryPointObjective: nil, restoreCommand: RestoreCommandLine(words: ["false"]), processMax: 1,
            workDirectory: RawPath(directory("work")), isKept: false, hostName: "db1", processID: getpid())
        options.gapPatience = .seconds(60)
        let tools = Drill.Tools(
            time: time, random: SystemRandomSource(), interruption: Interruption(), progress: WorkProgress())
        return try Drill(memory.source, options, tools).run()
    }

    private func expectsPlan() {
        let error = #expect(throws: KedgeError.self) { try drill() }
        #expect(error?.message.hasPrefix("cannot drill: there is no PostgreSQL 15 on this host") == true)
        #expect(memory.store.names.allSatisfy { !$0.text.contains("/proof/") })
    }

    @Test("a segment that arrives after a later one is waited for, and its absence is no proof until then")
    func pushUnderWay() throws {
        expectsPlan()
        #expect(time.sleeps.isEmpty)
        try memory.archive(5...5)
        let begin = time.monotonicNanoseconds()
        let outcome = try drill()
        #expect(outcome.proof.result == .failed)
        #expect(outcome.proof.checks.map(\.name) == ["plan"])
        #expect(time.monotonicNanoseconds() - begin >= 60_000_000_000)
        let proof = try #require(memory.store.names.first { $0.text.contains("/proof/") })
        _ = try memory.store.remove([proof])
        let late = memory
        time.onSleep { try? late.archive(4...4) }
        expectsPlan()
    }

    @Test("a hole far from the end, and a segment that holds damage, are not waited for")
    func oldHole() throws {
        try memory.archive(5...69)
        #expect(try drill().proof.result == .failed)
        #expect(time.sleeps.isEmpty)
        try memory.archive(4...4, damaged: [4])
        #expect(try drill().proof.result == .failed)
        #expect(time.sleeps.count < 50)
    }
}

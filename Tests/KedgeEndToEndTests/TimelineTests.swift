// That the planner's word about timelines is what real servers do: on histories that branch, fail over, crash and go
// back to older timelines, made by real servers at random, and on those that are known to be difficult.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TimelineTests {
    // MARK: Random histories

    /// Where the numbers of the histories that are tried begin, and how many there are.
    private static var seeds: [UInt64] {
        let count = getenv("KEDGE_TEST_HISTORIES").flatMap { UInt64(String(cString: $0)) }
        return Array((0..<(count ?? (PostgresInstallation.soakIsEnabled ? 50 : 2))).map { testSeed() &+ $0 })
    }

    @Test(
        "random histories: what is planned is reached with the right rows, what is refused is out of reach (lesson 3)",
        arguments: PostgresInstallation.all)
    func randomHistories(_ installation: PostgresInstallation) throws {
        var outcomes: [String: Int] = [:]
        var branches = 0
        for seed in Self.seeds {
            do {
                let world = try randomHistory(installation, seed, &outcomes)
                branches += world.heads.count - 1
            } catch {
                Issue.record("\(installation), seed \(seed): \(error)")
            }
        }
        let counts = outcomes.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        print("\(installation): \(Self.seeds.count) histories from seed \(testSeed()), \(branches) branches: \(counts)")
    }

    /// Makes one history and tries targets on it.
    private func randomHistory(
        _ installation: PostgresInstallation, _ seed: UInt64, _ outcomes: inout [String: Int]
    ) throws -> TimelineWorld {
        let random = SeededRandom(seed: seed &* 1_000_003 &+ UInt64(installation.version))
        let world = try TimelineWorld(installation)
        let check = TimelineCheck(world: world, seed: seed)
        if random.next(below: 2) == 0 { try world.addOldTimelines(upTo: 9) }
        for _ in 0..<(7 + random.next(below: 6)) { try step(world, check, random) }
        try world.switchSegment()
        for _ in 0..<6 {
            let verdict = try check.run(TimelineTarget.random(in: world, random))
            try verdict.server?.stop(.immediate)
            outcomes[verdict.outcome, default: 0] += 1
        }
        return world
    }

    /// One thing that happens to the cluster.
    private func step(_ world: TimelineWorld, _ check: TimelineCheck, _ random: SeededRandom) throws {
        switch random.next(below: 12) {
        case 0...3: try world.write(1 + random.next(below: 5), random)
        case 4: try world.switchSegment()
        case 5: try world.backUp()
        case 6: try world.crash()
        case 7: try resume(world, random)
        case 8:
            let newest = world.heads.keys.max()
            let backups = world.backups.filter(world.head.contains)
            guard newest == world.head.timeline, !backups.isEmpty else { return try resume(world, random) }
            try world.failOver()
        default:
            try world.write(1 + random.next(below: 3), random)
            try branch(world, check, random)
        }
    }

    private func resume(_ world: TimelineWorld, _ random: SeededRandom) throws {
        let timelines = world.heads.keys.sorted()
        try world.resume(timelines[random.next(below: timelines.count)])
        try world.writeTransaction()
    }

    /// Restores to a random target and goes on from there.
    private func branch(_ world: TimelineWorld, _ check: TimelineCheck, _ random: SeededRandom) throws {
        if random.next(below: 2) == 0 { try world.switchSegment() }
        let verdict = try check.run(TimelineTarget.random(in: world, random), archiving: "keep")
        guard let server = verdict.server else { return }
        try world.adopt(server, events: verdict.events)
        try world.writeTransaction()
    }
}

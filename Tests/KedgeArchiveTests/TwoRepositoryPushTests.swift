// That a repository that is away keeps the others from nothing: they get the file and those that wait behind it, and
// nothing is acknowledged by that.
import KedgeArchive
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct TwoRepositoryPushTests {
    let fixture: ArchiveFixture
    let main = MemoryStore()
    let offsite = MemoryStore()
    let counting: FaultyStore
    let sources: [RepositorySource]
    let names: [String]
    /// Its source is "main" alone; its spool and its clock are those of all pushes.
    let harness: SpoolHarness

    init() throws {
        fixture = try ArchiveFixture()
        let first = try fixture.makeRepository(in: main)
        _ = try fixture.makeRepository(in: offsite)
        counting = FaultyStore(main) { _ in nil }
        sources = [ArchiveFixture.source(counting), ArchiveFixture.source(offsite, name: "offsite")]
        harness = SpoolHarness(fixture, first)
        names = try fixture.writeSegments(count: 8)
        try harness.makeReady(names)
    }

    var destination: PushDestination {
        PushDestination(
            text: "both", places: ["main", "offsite"].map { PushDestination.Place(repository: $0, openStore: nil) })
    }

    func push(_ name: String, to asked: [RepositorySource]? = nil, ahead: Int = 3) -> ArchivePush {
        var options = ArchivePush.Options(
            path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
            repositories: asked ?? sources, threads: 1, refusesDamagedWAL: false, hostName: "db1")
        options.spool = harness.spool
        options.destination = destination
        options.ahead = PushAheadLimits(segments: ahead, inFlight: 1)
        options.leavesOut = asked != nil
        options.notesAway = true
        return ArchivePush(options, random: SystemRandomSource(), time: harness.time)
    }

    func acknowledged(_ name: String) -> Bool {
        AcknowledgedPush(
            path: fixture.path("pg_wal/" + name), dataDirectory: fixture.path("."), spool: harness.spool,
            destination: destination, time: harness.time
        ).run() != nil
    }

    func holds(_ store: MemoryStore) -> [String] {
        names.filter { name in store.contents.keys.contains { $0.text.hasSuffix("/" + name) } }
    }

    func isAway(_ repository: String) -> Bool { harness.spool.isAway(repository, at: harness.time.now()) }

    func failure(_ body: () throws -> Void) -> KedgeError? { #expect(throws: KedgeError.self) { try body() } }

    @Test("each push that fails for one repository brings the other further, and acknowledges nothing")
    func fed() throws {
        offsite.setReachable(false)
        for count in [4, 7, 8, 8] {
            let before = counting.operations.count { $0.kind == .put }
            #expect(failure { _ = try push(names[0]).run() }?.code == .repositoryUnavailable)
            #expect(holds(main) == Array(names[..<count]))
            // What it has is not put again, nor read.
            let puts = counting.operations.count { $0.kind == .put } - before
            #expect(puts <= 4)
        }
        #expect(!names.contains(where: acknowledged))
        #expect(isAway("offsite") && !isAway("main"))
        // Back again: it gets all, and only then is anything acknowledged.
        offsite.setReachable(true)
        let outcome = try push(names[0], ahead: 100).run()
        #expect(outcome.stored.map(\.outcome) == [.alreadyExists, .created])
        #expect(outcome.ahead.stored == 7 && outcome.ahead.failure == nil)
        #expect(holds(offsite) == names)
        #expect(names.allSatisfy(acknowledged))
        #expect(!isAway("offsite"))
    }

    @Test("the first may be the one that is away, and a history that was put off does not hold the other up")
    func historyPutOff() throws {
        let branch = try fixture.writeSegments(count: 2, first: 20, timeline: 2)
        try fixture.write("pg_wal/00000002.history", Array("1\t0/600000\tx\n".utf8))
        try harness.makeReady(branch + ["00000002.history"])
        let limit = QueueLimit(limitBytes: 1 << 20, spool: harness.spool, hostName: "db1", time: harness.time)
        #expect(try limit.putOff(fixture.path("pg_wal/00000002.history"), dataDirectory: fixture.path(".")) != nil)
        main.setReachable(false)
        #expect(failure { _ = try push(branch[0]).run() }?.code == .repositoryUnavailable)
        for name in branch + ["00000002.history"] {
            #expect(offsite.contents.keys.contains { $0.text.hasSuffix("/" + name) }, "\(name)")
        }
        #expect(harness.putOffFiles == ["00000002.history"])
        main.setReachable(true)
        #expect(try push(branch[0]).run().leftBehind.isEmpty)
        #expect(harness.putOffFiles.isEmpty)
        #expect(main.contents.keys.contains { $0.text.hasSuffix("/00000002.history") })
    }

    @Test("what was stored without asking all repositories is not acknowledged, and tells nobody of what was given up")
    func leftOut() throws {
        let limit = QueueLimit(limitBytes: 1 << 20, spool: harness.spool, hostName: "db1", time: harness.time)
        let given = try limit.giveUp(
            fixture.path("pg_wal/" + names[0]), dataDirectory: fixture.path("."), storedIn: ["main"])
        #expect(given?.storedIn == ["main"])
        let attempt = try push(names[1], to: [sources[0]]).attempt()
        #expect(attempt.failure == nil && !attempt.isEverywhere)
        #expect(attempt.outcome.stored.map(\.repository) == ["main"])
        #expect(holds(main) == Array(names[1...4]) && holds(offsite).isEmpty)
        #expect(!names.contains(where: acknowledged))
        #expect(harness.spool.givenUpSegments().map(\.storedIn) == [["main"]])
        #expect(try push(names[1]).run().leftBehind.isEmpty)
        #expect(harness.spool.givenUpSegments().isEmpty)
    }

    @Test("a repository is away while it is asked and for ten minutes after it failed, and not when it answered")
    func away() throws {
        offsite.setReachable(false)
        #expect(failure { _ = try push(names[0]).run() } != nil)
        #expect(isAway("offsite") && !isAway("main"))
        harness.time.set(harness.time.now().adding(seconds: 599))
        #expect(isAway("offsite"))
        harness.time.set(harness.time.now().adding(seconds: 1))
        #expect(!isAway("offsite"))
        // Another content is an answer.
        offsite.setReachable(true)
        _ = try push(names[7], ahead: 0).run()
        var bytes = try harness.local(names[7])
        bytes[2 * 8192 + 30] ^= 1
        try fixture.write("pg_wal/" + names[7], bytes)
        #expect(failure { _ = try push(names[7]).run() }?.code == .archiveConflict)
        #expect(!isAway("offsite") && !isAway("main"))
        // One that hangs is away while it is asked.
        let seen = Monitor([Bool]())
        let (spool, now) = (harness.spool, harness.time.now())
        let hanging = FaultyStore(offsite) { _ in
            seen.update { $0.append(spool.isAway("offsite", at: now)) }
            return nil
        }
        _ = try push(names[0], to: [ArchiveFixture.source(hanging, name: "offsite")]).attempt()
        let during = seen.update { $0 }
        #expect(during.first == true && !isAway("offsite"))
    }

    @Test("above the limit by less than 1 GiB repositories are asked first, and no further")
    func leeway() {
        let limit = QueueLimit(limitBytes: 1 << 30, spool: harness.spool, hostName: "db1", time: harness.time)
        #expect(limit.asksFirst(waitingBytes: (1 << 30) + 1))
        #expect(limit.asksFirst(waitingBytes: (2 << 30) - 1))
        #expect(!limit.asksFirst(waitingBytes: 2 << 30))
        #expect(!limit.asksFirst(waitingBytes: .max))
    }
}

// Proves what a delta builds on: the newest backup of the server's own ancestry, if its pages can be compared at all.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeBackup

struct ParentChoiceTests {
    private static let now = Timestamp(secondsSince1970: 1_795_000_000)
    private static let week = Duration.seconds(7 * 86_400)

    private func label(_ number: Int, _ type: BackupType = .full) throws -> Label {
        try #require(Label("2026112\(number)T020000Z-\(type.rawValue)-aaa\(number)"))
    }

    private func record(
        _ number: Int, _ type: BackupType = .full, timeline: UInt32 = 1, stop: UInt64? = nil, daysAgo: Int64 = 1,
        system: UInt64 = 7
    ) throws -> CommitRecord {
        let stop = stop ?? UInt64(number) << 24
        var record = CommitRecord.sample(
            try label(number, type), timeline: timeline, start: LSN(stop - 1000), stop: LSN(stop),
            stopTime: Self.now.adding(seconds: -daysAgo * 86_400), system: system)
        record.type = type
        return record
    }

    private func server(_ change: (inout ParentChoice.Server) -> Void = { _ in }) -> ParentChoice.Server {
        var server = ParentChoice.Server(
            systemIdentifier: SystemIdentifier(7), postgresVersion: 15, dataChecksums: true, blockSize: 8192,
            walSegmentSize: 1 << 20, relationSegmentBlocks: 131_072, history: TimelineHistory(root: TimelineID(1)),
            lsn: LSN(1 << 40), time: Self.now)
        change(&server)
        return server
    }

    private func decide(
        _ backups: [CommitRecord], _ request: BackupRequest = .delta, condemned: Set<Label> = [],
        _ change: (inout ParentChoice.Server) -> Void = { _ in }
    ) -> ParentChoice {
        ParentChoice.decide(request, backups: backups, condemned: condemned, server: server(change))
    }

    @Test("the parent is the newest by LSN, full or delta, in whatever order the records come")
    func newest() throws {
        let backups = try [record(2), record(3, .delta), record(1)]
        for order in [backups, backups.reversed()] {
            #expect(decide(order).parent == backups[1].label)
            #expect(decide(order, .auto(fullEvery: Self.week)).parent == backups[1].label)
            let full = decide(order, .full)
            #expect(full.parent == nil && !full.isFallback)
        }
    }

    @Test("auto takes a full backup when the last one is old, was never taken, or lies in the future")
    func due() throws {
        let auto = BackupRequest.auto(fullEvery: Self.week)
        let reasons = [
            decide(try [record(1, daysAgo: 8), record(2, .delta)], auto),
            decide(try [record(2, .delta)], auto), decide(try [record(1, daysAgo: -1)], auto),
        ]
        for choice in reasons { #expect(choice.parent == nil && !choice.isFallback, "\(choice)") }
        #expect(reasons[0].reason.hasSuffix("and full-every has passed"))
        #expect(reasons[1].reason == "there is no full backup on the history of this timeline")
        #expect(reasons[2].reason.hasSuffix("ahead of the server's clock"))
        #expect(decide(try [record(1, daysAgo: 6), record(2, .delta)], auto).parent != nil)
        #expect(!decide([], auto).isFallback && decide([]).isFallback)
        // Asked for by name it is a delta all the same.
        #expect(decide(try [record(1, daysAgo: 80)]).parent != nil)
        // A full backup of an abandoned timeline does not count.
        let abandoned = try record(1, timeline: 2)
        #expect(decide([abandoned, try record(2, .delta)], auto).parent == nil)
    }

    @Test("a second too early is due as well, and so is the run after the clocks went forward; a run too early is not")
    func nearlyDue() throws {
        let auto = BackupRequest.auto(fullEvery: Self.week)
        func isDue(secondsEarly: Int64, lastBackup secondsAgo: Int64) throws -> Bool {
            var (full, delta) = (try record(1), try record(2, .delta))
            full.span.startTime = Self.now.adding(seconds: secondsEarly - 7 * 86_400)
            delta.span.startTime = Self.now.adding(seconds: -secondsAgo)
            return decide([full, delta], auto).parent == nil
        }
        for early in [Int64(0), 1, 3600, 3661, 7200] {
            #expect(try isDue(secondsEarly: early, lastBackup: 86_400), "\(early)")
        }
        #expect(try !isDue(secondsEarly: 7201, lastBackup: 86_400))
        // Where backups are frequent, half the way to the next one.
        #expect(try isDue(secondsEarly: 1800, lastBackup: 3600))
        #expect(try !isDue(secondsEarly: 1801, lastBackup: 3600))
        #expect(try !isDue(secondsEarly: 1, lastBackup: -5))
    }

    @Test("generated timers: whatever their jitter, and when the clocks change, each n-th backup is a full one")
    func timers() throws {
        let random = SeededRandom(seed: testSeed())
        let periods: [Int64] = [900, 3600, 21_600, 86_400, 604_800]
        for _ in 0..<100 {
            let period = periods[random.next(below: periods.count)]
            let every = 1 + random.next(below: 9)
            let jitter = Int(min(1500, period / 8))
            // The clocks go forward, and back.
            let forward = period < 21_600 ? Int.max : 5 + random.next(below: 10)
            let back = 20 + random.next(below: 10)
            var sinceFull: [CommitRecord] = []
            for run in 0..<40 {
                let shift: Int64 = run >= forward && run < back ? -3600 : 0
                let now = Self.now.adding(
                    seconds: Int64(run) * period + shift + Int64(random.next(below: jitter)))
                let choice = decide(sinceFull, .auto(fullEvery: .seconds(Int64(every) * period))) { $0.time = now }
                let isFull = choice.parent == nil
                #expect(isFull == (run % every == 0), "run \(run) of every \(period) s, full every \(every)")
                if isFull { sinceFull = [] }
                let type = isFull ? BackupType.full : .delta
                var record = CommitRecord.sample(
                    Label(time: now, type: type, random: random), start: LSN(UInt64(run + 1) << 24),
                    stop: LSN(UInt64(run + 1) << 24 + 1000), stopTime: now.adding(seconds: 30))
                record.type = type
                sinceFull.append(record)
            }
        }
    }

    @Test("single pages come from a parent only where their LSNs show each change: not on another timeline")
    func distrust() throws {
        var parent = try record(1)
        let earlier = parent.span.startTime.adding(seconds: -1)
        #expect(parent.distrustOfPages(on: parent.span.timeline, runningSince: earlier) == nil)
        // Checksums can be switched off and on again while the server is down.
        let restarted = parent.distrustOfPages(on: parent.span.timeline, runningSince: parent.span.startTime)
        #expect(restarted?.hasPrefix("the server was started again since") == true)
        let moved = parent.distrustOfPages(
            on: TimelineID(parent.span.timeline.number + 1), runningSince: earlier)
        #expect(moved?.hasPrefix("the server has gone from timeline 1 to 2 since") == true)
        parent.health.damagedPageCount = 1
        #expect(
            parent.distrustOfPages(on: parent.span.timeline, runningSince: earlier)
                == "the parent has more damaged pages than it lists")
        parent.server.dataChecksums = false
        #expect(
            parent.distrustOfPages(on: parent.span.timeline, runningSince: earlier)?.hasPrefix("without data checksums")
                == true)
    }

    @Test("each thing that must be the same, is: else full, with the reason")
    func differences() throws {
        let parent = try record(1)
        var standby = parent
        standby.server.fromStandby = true
        let cases: [(ParentChoice, String)] = [
            (decide([]), "the repository has no backup of this database system yet"),
            (decide(try [record(1, system: 8)]), "the repository has no backup of this database system yet"),
            (
                decide(try [record(1, timeline: 2)]),
                "no backup in the repository lies on the history of timeline 1 up to LSN 100/0"
            ),
            (
                decide([parent]) { $0.lsn = LSN(5) },
                "no backup in the repository lies on the history of timeline 1 up to LSN 0/5"
            ),
            (
                decide([parent]) { $0.dataChecksums = false },
                "\(parent.label) cannot be its parent: data checksums were on then"
            ),
            (
                decide([parent]) { $0.blockSize = 4096 },
                "\(parent.label) cannot be its parent: its blocks have 8192 bytes"
            ),
            (
                decide([parent]) { $0.walSegmentSize = 1 << 24 },
                "\(parent.label) cannot be its parent: its WAL segments have 1048576 bytes"
            ),
            (
                decide([parent]) { $0.relationSegmentBlocks = 2 },
                "\(parent.label) cannot be its parent: its relation files have 131072 blocks"
            ),
            (
                decide([parent]) { $0.postgresVersion = 16 },
                "\(parent.label) cannot be its parent: it is one of PostgreSQL 15, not 16"
            ),
            (decide([standby]), "\(parent.label) cannot be its parent: it was taken from a standby"),
            (
                decide([parent], condemned: [parent.label]),
                "the newest backup, \(parent.label), is about to be removed"
            ),
        ]
        for (choice, reason) in cases {
            #expect(choice.parent == nil && choice.isFallback)
            #expect(choice.reason.hasSuffix(reason), "\(choice.reason)")
        }
    }

    @Test("a parent's timeline must have been left after its end, as its own history says (lesson 6)")
    func ancestry() throws {
        func choose(_ backups: [CommitRecord], switchAt lsn: UInt64) throws -> Label? {
            let history = try TimelineHistory(
                timeline: TimelineID(3), ancestors: [(TimelineID(1), LSN(0x100)), (TimelineID(2), LSN(lsn))])
            return decide(backups) { $0.history = history }.parent
        }
        var parent = try record(1, timeline: 2, stop: 0x5000)
        parent.span.history = [.init(timeline: TimelineID(1), switchLSN: LSN(0x100))]
        #expect(try choose([parent], switchAt: 0x5000) == parent.label)
        #expect(try choose([parent], switchAt: 0x4FFF) == nil)
        // Two promotions may have taken one number.
        parent.span.history = [.init(timeline: TimelineID(1), switchLSN: LSN(0x180))]
        #expect(try choose([parent], switchAt: 0x6000) == nil)
    }

    @Test("generated catalogues: a parent is always one that fits, and the newest of those on the ancestry")
    func generated() throws {
        let random = SeededRandom(seed: testSeed())
        var choices = 0
        for _ in 0..<2000 {
            var backups: [CommitRecord] = []
            for number in 0..<random.next(below: 8) {
                var backup = try record(
                    number + 1, random.next(below: 2) == 0 ? .full : .delta,
                    timeline: UInt32(1 + random.next(below: 2)),
                    stop: UInt64(2000 + random.next(below: 5) * 1000), daysAgo: Int64(random.next(below: 12)),
                    system: random.next(below: 5) == 0 ? 8 : 7)
                if random.next(below: 6) == 0 { backup.server.dataChecksums = false }
                backups.append(backup)
            }
            let condemned = Set(backups.filter { _ in random.next(below: 8) == 0 }.map(\.label))
            let lsn = LSN(UInt64(2000 + random.next(below: 5) * 1000))
            let choice = decide(backups, condemned: condemned) { $0.lsn = lsn }
            guard let parent = backups.first(where: { $0.label == choice.parent }) else {
                #expect(choice.isFallback)
                continue
            }
            choices += 1
            #expect(parent.span.timeline == TimelineID(1) && parent.span.stopLSN <= lsn && parent.server.dataChecksums)
            #expect(parent.server.systemIdentifier == SystemIdentifier(7) && !condemned.contains(parent.label))
            for other in backups
            where other.span.timeline == TimelineID(1) && other.server.systemIdentifier == SystemIdentifier(7) {
                #expect(other.span.stopLSN <= parent.span.stopLSN || other.span.stopLSN > lsn)
            }
        }
        #expect(choices > 200)
    }
}

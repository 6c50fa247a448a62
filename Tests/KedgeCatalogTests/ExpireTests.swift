// What expire, unexpire, pin and unpin do to a repository, run after run.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ExpireTests {
    private func label(_ number: UInt64, _ type: BackupType = .full) -> Label { ExpireHarness.label(number, type) }

    @Test("a backup is condemned, can be taken back for the grace period, and is then removed with what only it needed")
    func lifecycle() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        let before = harness.memory.store.names
        let forecast = try harness.expire(isDryRun: true)
        #expect(harness.memory.store.names == before, "a dry run writes nothing")
        #expect(forecast.condemned == [label(1), label(2)])
        #expect(forecast.windows.before.map(\.backups) == [3])
        #expect(forecast.windows.after.map(\.backups) == [1])

        let first = try harness.expire()
        #expect(first.condemned == [label(1), label(2)])
        #expect(first.removed == [] && first.swept.isEmpty)
        #expect(try harness.shown() == [label(1), label(2), label(3)])
        harness.time.advance(seconds: 80_000)
        let second = try harness.expire()
        #expect(second.pending.map(\.seconds) == [6400, 6400])
        #expect(second.removed == [] && harness.segments() == Array(3...11))

        #expect(try harness.pinning().unexpire(label(2)) == .done(endedRemoval: true))
        harness.time.advance(seconds: 10_000)
        let third = try harness.expire()
        #expect(third.removed == [label(1)])
        #expect(third.condemned == [label(2)], "what was taken back is condemned again unless it is pinned")
        #expect(third.swept.packs == 2 && third.swept.walFiles == 3)
        #expect(try harness.shown() == [label(2), label(3)])
        #expect(harness.segments() == Array(6...11))
        #expect(harness.names("backup").count == 2)
        #expect(harness.names("catalog/removing") == [])

        harness.time.advance(seconds: 90_000)
        #expect(try harness.expire().removed == [label(2)])
        #expect(harness.names("pack").count == 2 && harness.segments() == Array(9...11))
        #expect(harness.names("catalog/condemned") == [] && harness.names("probe") == [])
        #expect(try harness.expire().swept.isEmpty)
    }

    @Test("packs that a kept backup refers to stay when the backup that stored them goes")
    func sharedPacks() throws {
        var harness = try ExpireHarness()
        try harness.backup(1)
        try harness.backup(2, base: 1)
        try harness.backup(3)
        harness.rules = RetentionRules(keepFull: 1, graceSeconds: 0)
        harness.time.advance(seconds: 90_000)
        _ = try harness.pinning().pin(label(2, .delta))
        #expect(try harness.expire().removed == [], "the base of a pinned delta")
        // A base is kept for its own sake too; but its packs must not depend on that.
        let cluster = try harness.cluster()
        try RetentionCatalog(cluster).removeCommitRecord(label(1))
        let outcome = try harness.expire()
        #expect(outcome.swept.packs == 1, "its manifest's pack alone")
        #expect(try harness.shown() == [label(2, .delta), label(3)])
    }

    @Test("a pin ends a pending removal and keeps the backup with its WAL")
    func pin() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        try harness.expire()
        #expect(try harness.pinning().pin(label(1)) == .done(endedRemoval: true))
        #expect(try harness.pinning().pin(label(1)) == .nothingToDo)
        harness.time.advance(seconds: 90_000)
        let outcome = try harness.expire()
        #expect(outcome.removed == [label(2)])
        #expect(try harness.shown() == [label(1), label(3)])
        #expect(harness.segments() == Array(3...11))
        try harness.pinning().unpin(label(1))
        #expect(try harness.expire().condemned == [label(1)])
        let missing = #expect(throws: KedgeError.self) { try harness.pinning().unpin(label(1)) }
        #expect(missing?.code == .notFound)
        #expect(throws: KedgeError.self) { try harness.pinning().pin(label(9)) }
        #expect(harness.names("catalog/pin") == [])
    }

    @Test("a rule that changed takes marks away again")
    func rulesChange() throws {
        var harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        try harness.expire()
        harness.rules = RetentionRules(keepFull: 2)
        harness.time.advance(seconds: 90_000)
        let outcome = try harness.expire()
        #expect(outcome.withdrawn.map(\.label) == [label(2)])
        #expect(outcome.removed == [label(1)])
        #expect(try harness.shown() == [label(2), label(3)])
    }

    @Test(
        "a window that ends where a newer backup shows that WAL is missing is no end of the archive, before and after")
    func windowBeforeHole() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        let whole = try harness.expire(isDryRun: true).windows
        #expect(whole.before.map(\.endsInHole) == [false] && whole.after.map(\.endsInHole) == [false])
        for number in 6...8 {
            let name = try #require(ObjectName("main/wal/7/00000001/00000000/00000001000000000000000\(number)"))
            #expect(try harness.memory.store.contains(name))
            _ = try harness.memory.store.remove([name])
        }
        let windows = try harness.expire(isDryRun: true).windows
        #expect(windows.before.map(\.to) == [LSN(6 << 20)] && windows.after.map(\.to) == [LSN(6 << 20)])
        #expect(windows.before.map(\.endsInHole) == [true] && windows.after.map(\.endsInHole) == [true])
    }

    @Test("a backup that is named goes whatever the rules say, unless it is needed")
    func byHand() throws {
        var harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        harness.rules = RetentionRules()
        let refused = #expect(throws: KedgeError.self) { try harness.expire(byHand: label(3)) }
        #expect(refused?.code == .notSupported)
        #expect(refused?.detail == "It is the newest backup.")
        #expect(throws: KedgeError.self) { try harness.expire(byHand: label(8)) }
        #expect(try harness.expire(byHand: label(2)).condemned == [label(2)])
        harness.time.advance(seconds: 90_000)
        // A later run knows that it was asked for.
        #expect(try harness.expire().removed == [label(2)])
        #expect(try harness.shown() == [label(1), label(3)])
    }

    @Test("a backup that a rule has condemned before and that is named is not let off by later rules")
    func byHandAfterRule() throws {
        var harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        #expect(try harness.expire().condemned == [label(1), label(2)])
        harness.time.advance(seconds: 80_000)
        harness.rules = RetentionRules(keepFull: 9)
        let dry = try harness.expire(byHand: label(2), isDryRun: true)
        let named = try harness.expire(byHand: label(2))
        for outcome in [dry, named] {
            #expect(outcome.condemned == [label(2)] && outcome.withdrawn.map(\.label) == [label(1)])
            // Whoever asked has the whole grace period to change his mind.
            #expect(outcome.pending.map(\.label) == [label(2)] && outcome.pending.map(\.seconds) == [86_400])
        }
        #expect(try harness.expire().withdrawn.isEmpty)
        #expect(try harness.expire(byHand: label(2)).condemned == [], "asked for twice is asked for once")
        #expect(try harness.pinning().unexpire(label(2)) == .done(endedRemoval: true))
        #expect(try harness.expire().pending.isEmpty)
        _ = try harness.expire(byHand: label(2))
        harness.time.advance(seconds: 90_000)
        #expect(try harness.expire().removed == [label(2)])
        #expect(try harness.shown() == [label(1), label(3)])
    }

    @Test("nothing of a running backup goes, however long it takes while its lease is renewed (lesson 24)")
    func runningBackup() throws {
        var harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        harness.rules.graceSeconds = 0
        try harness.dieInBackup(4)
        let cluster = try harness.cluster()
        harness.time.advance(seconds: 30 * 86_400)
        var request = LeaseRequest(
            operation: "backup", process: .current(hostName: "db1"), label: label(4).text)
        request.expiresAfterSeconds = 300
        let lease = try Lease.take(request, in: cluster, progress: WorkProgress().snapshot, time: harness.time)
        let outcome = try harness.expire()
        #expect(outcome.removed == [label(1)])
        #expect(outcome.swept.intents == [] && outcome.swept.packs == 0 && outcome.swept.manifests == 0)
        try lease.release()
        // Dead: its intent goes first, what it stored in the next run.
        let second = try harness.expire()
        #expect(second.swept.intents == [label(4)] && second.swept.packs == 0)
        let third = try harness.expire()
        #expect(third.swept.packs == 3 && third.swept.manifests == 1)
        #expect(try harness.shown() == [label(2)])
    }

    @Test("an intent, a pack and a manifest that are not old stay, with a lease or without")
    func youngRemains() throws {
        var harness = try ExpireHarness()
        try harness.backup(1)
        harness.rules.graceSeconds = 3600
        try harness.dieInBackup(4)
        harness.time.advance(seconds: 80_000)
        #expect(try harness.expire().swept.isEmpty)
        harness.time.advance(seconds: 7_000)
        #expect(try harness.expire().swept.intents == [label(4)])
    }

    @Test("where all commit records are lost, nothing that they refer to goes")
    func lostCommitRecords() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        let store = harness.memory.store
        let records = store.names.filter { $0.text.hasPrefix("main/catalog/backup/") }
        let saved = try records.map { ($0, try store.readPrefix($0, limit: 1 << 20)) }
        #expect(try store.remove(records).isEmpty)
        let before = store.names
        for _ in 0..<3 {
            harness.time.advance(seconds: 4000 * 86_400)
            #expect(try harness.expire().swept.isEmpty)
        }
        #expect(store.names == before)
        for (name, bytes) in saved { store.plant(name, bytes) }
        #expect(try harness.shown() == [label(1), label(2)])
    }

    @Test("objects of unknown kinds and names are never removed")
    func strangers() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        let store = harness.memory.store
        let strangers: [ObjectName] = [
            "main/pack/ab/notes", "main/pack/ff/00000000000000000000000000000001", "main/backup/x/manifest",
            "main/backup/20261121T020000Z-full-7k3q/notes", "main/catalog/condemned/x", "main/catalog/new/x",
            "main/wal/7/00000001/00000000/000000010000000000000001.odd", "main/wal/7/new/x", "main/digest/x",
            "main/wal/7/00000001/00000001/000000010000000000000001", "main/catalog/intent/x", "main/new",
            "main/wal/7/history/00000001.history.x", "main/catalog/proof/x/y",
        ]
        for name in strangers { store.plant(name, [1]) }
        harness.time.advance(seconds: 4000 * 86_400)
        try harness.expire()
        harness.time.advance(seconds: 4000 * 86_400)
        #expect(try harness.expire().removed == [label(1)])
        harness.time.advance(seconds: 4000 * 86_400)
        try harness.expire()
        #expect(Set(strangers).isSubset(of: Set(store.names)))
    }

    @Test("a damaged commit record or mark stops what depends on it, and is told")
    func damage() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        try harness.expire()
        harness.time.advance(seconds: 90_000)
        let store = harness.memory.store
        let mark = try #require(store.names.first { $0.text.hasPrefix("main/catalog/condemned/") })
        store.damage(mark) { $0[$0.count / 2] ^= 1 }
        let outcome = try harness.expire()
        #expect(outcome.removed == [label(2)])
        #expect(outcome.plan.item(label(1))?.text == "kept: its condemned mark cannot be read")
        let record = try #require(store.names.first { $0.text.hasPrefix("main/catalog/backup/") })
        store.damage(record) { $0[$0.count / 2] ^= 1 }
        harness.time.advance(seconds: 90_000)
        let before = store.names
        let blocked = try harness.expire()
        #expect(blocked.plan.blocks.count == 1 && blocked.plan.isBlockedByDamage)
        #expect(store.names == before)
    }

    @Test("a second expire at the same time is refused with who is at it")
    func twoAtOnce() throws {
        let harness = try ExpireHarness()
        try harness.backup(1)
        let other = ProcessIdentity(hostName: "db2", processID: 5, bootID: nil, namespace: nil, startTicks: nil)
        let lease = try Lease.take(
            LeaseRequest(operation: "expire", process: other, label: nil), in: harness.cluster(),
            progress: WorkProgress().snapshot, time: harness.time)
        let refused = #expect(throws: KedgeError.self) { try harness.expire() }
        #expect(refused?.code == .locked)
        try lease.release()
        try harness.expire()
        #expect(harness.names("lease") == [])
    }

    @Test("what the store refuses to remove is not told as removed")
    func refusedRemoval() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        try harness.expire()
        harness.time.advance(seconds: 90_000)
        let held = KedgeError(.inputOutput, "could not remove an object", hint: "This is a test.")
        let segment = try #require(harness.memory.store.names.first { $0.text.hasSuffix("000000010000000000000003") })
        let cluster = try harness.cluster()
        let pack = cluster.name(ClusterLayout.pack(RandomID(high: 0xDA7A, low: 1)))
        for name in [segment, pack] { harness.memory.store.refuseRemoval(of: name, held, times: 10) }
        let outcome = try harness.expire()
        #expect(outcome.failures.map(\.name).sorted { $0.text < $1.text } == [pack, segment])
        #expect(outcome.swept.packs == 1 && outcome.swept.walFiles == 2)
    }

    @Test("a gap is told until somebody acknowledges it")
    func gaps() throws {
        let harness = try ExpireHarness()
        for number in UInt64(1)...3 { try harness.backup(number) }
        _ = try harness.pinning().pin(label(1))
        try harness.expire()
        harness.time.advance(seconds: 90_000)
        try harness.expire()
        #expect(harness.segments() == Array(3...11))
        func messages() throws -> [String] {
            let survey = RepositorySurvey(cluster: try harness.cluster(), interruption: Interruption())
            return InfoMessage.aboutWAL(try survey.run()).map(\.message)
        }
        #expect(try messages() == [])
        let lost = try #require(harness.memory.store.names.first { $0.text.hasSuffix("0000000A") })
        _ = try harness.memory.store.remove([lost])
        #expect(
            try messages() == ["1 WAL segment(s) are missing on timeline 1: 00000001000000000000000A"])
        let cluster = try harness.cluster()
        let gap = try GapAcknowledgement.acknowledge(
            "00000001000000000000000A", in: cluster, hostName: "db1", time: harness.time,
            interruption: Interruption())
        #expect(gap == ("00000001000000000000000A", "00000001000000000000000A"))
        #expect(try messages() == [])
        let windows = try RepositorySurvey(cluster: cluster, interruption: Interruption()).run().windows
        #expect(windows.count == 1, "what can be reached is computed around it")
        let there = #expect(throws: KedgeError.self) {
            try GapAcknowledgement.acknowledge(
                "00000001000000000000000B", in: cluster, hostName: "db1", time: harness.time,
                interruption: Interruption())
        }
        #expect(there?.code == .notFound)
        // When nothing lies before them any more they are forgotten.
        try harness.pinning().unpin(label(1))
        try harness.expire()
        harness.time.advance(seconds: 90_000)
        #expect(try harness.expire().removed == [label(1)])
        #expect(harness.names("catalog/gap").count == 1)
    }

    @Test("the first segments of a timeline that were given up are told until somebody acknowledges that")
    func givenUpAtTheBeginning() throws {
        var harness = try ExpireHarness()
        harness.rules = RetentionRules(keepFull: 1, graceSeconds: 0)
        try harness.backup(1)
        try harness.backup(2)
        // A fail-over while the repository was away.
        try harness.memory.archiveHistory(2, [(timeline: 1, end: LSN(8 << 20 + 0x100))])
        let cluster = try harness.cluster()
        try PaperBackup(cluster).archive(10...11, timeline: 2)
        let archive = WALArchive(cluster, cluster.newestRegistration)
        try archive.put(
            KnownGap(
                systemIdentifier: SystemIdentifier(7), timeline: TimelineID(2), numbers: 8...9, reason: .givenUp,
                createdAt: harness.time.now(), hostName: "db1"))
        func messages() throws -> [String] {
            let survey = RepositorySurvey(cluster: try harness.cluster(), interruption: Interruption())
            return InfoMessage.aboutWAL(try survey.run()).map(\.message).filter { $0.contains("given up") }
        }
        let told = [
            "2 WAL segment(s) were given up on timeline 2: 000000020000000000000008 to 000000020000000000000009"
        ]
        for _ in 0..<2 {
            #expect(try messages() == told)
            harness.time.advance(seconds: 90_000)
            try harness.expire()
        }
        #expect(try messages() == told)
        let gap = try GapAcknowledgement.acknowledge(
            "000000020000000000000009", in: cluster, hostName: "db1", time: harness.time,
            interruption: Interruption())
        #expect(gap == ("000000020000000000000008", "000000020000000000000009"))
        for _ in 0..<2 {
            #expect(try messages() == [])
            harness.time.advance(seconds: 90_000)
            try harness.expire()
        }
        #expect(try archive.knownGaps().count == 2)
        // With the last backup that needs them both records go, once timeline 1 is no longer in use.
        harness.time.advance(seconds: 8 * 86_400)
        let start = LSN(12 << 20 + 40)
        try PaperBackup(cluster).archive(12...12, timeline: 2)
        var record = CommitRecord.sample(
            label(3), timeline: 2, start: start, stop: start + 400, stopTime: harness.time.now())
        record.span.history = [.init(timeline: TimelineID(1), switchLSN: LSN(8 << 20 + 0x100))]
        try PaperBackup(cluster).commit(PaperEntry.minimal(), as: record, number: 3)
        for _ in 0..<2 {
            harness.time.advance(seconds: 90_000)
            try harness.expire()
        }
        #expect(try harness.shown() == [label(3)])
        #expect(try archive.knownGaps() == [])
        #expect(try messages() == [])
    }

    @Test("proofs outlive their backups for so long as keep-proofs says")
    func proofs() throws {
        var harness = try ExpireHarness()
        harness.rules = RetentionRules(keepFull: 1, graceSeconds: 0, keepProofsSeconds: 10 * 86_400)
        let first = try harness.backup(1)
        for number in UInt64(2)...3 { try harness.backup(number) }
        let cluster = try harness.cluster()
        try ProofCatalog(cluster).put(
            .sample(
                of: first, in: cluster.repository.identity.id, result: .failed, finished: harness.time.now()))
        #expect(try harness.expire().removed == [label(1), label(2)])
        harness.time.advance(seconds: 9 * 86_400)
        #expect(try harness.expire().swept.proofs == 0)
        harness.time.advance(seconds: 2 * 86_400)
        #expect(try harness.expire().swept.proofs == 1)
    }
}

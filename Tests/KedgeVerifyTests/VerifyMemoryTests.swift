// What a verification relies on that it did not read itself, and what ends that.

import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct VerifyMemoryTests {
    @Test("what changed its size since it was read is read again, and nothing is once all is as it was")
    func changedSize() throws {
        var harness = try VerifyHarness()
        try harness.backUp()
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        _ = try harness.verify(week)
        let pack = try #require(harness.store.names.first { $0.text.hasPrefix("main/pack/") })
        // One that the backup itself needs, and one behind it.
        let directory = "main/wal/7/00000001/00000000/"
        let names = [
            pack, try #require(ObjectName(directory + "000000010000000000000003")),
            try #require(ObjectName(directory + "000000010000000000000007")),
        ]
        let changes: [(inout [UInt8]) -> Void] = [
            { $0 = [] }, { $0.removeLast($0.count - 10) }, { $0.removeLast() }, { $0.append(0) },
        ]
        for name in names {
            for change in changes {
                harness.time.advance(seconds: 3600)
                let before = try harness.store.readAll(name, limit: 64 << 20)
                harness.store.damage(name, change)
                #expect(try harness.verify(week).findings.map(\.object) == [name.text])
                harness.time.advance(seconds: 3600)
                harness.store.damage(name) { $0 = before }
                #expect(try harness.verify(week).findings.isEmpty)
            }
        }
        harness.time.advance(seconds: 3600)
        let last = try harness.verify(week)
        #expect(last.totals.packs.read + last.totals.walFiles.read == 0)
    }

    @Test("proofs of WAL without its sizes, as they were once, spare no reading")
    func proofWithoutSizes() throws {
        var harness = try VerifyHarness()
        try harness.backUp()
        var proof = try #require(try harness.verify().backups.first?.proof)
        let catalog = ProofCatalog(try harness.memory.cluster())
        _ = try harness.store.remove([try harness.memory.cluster().name(ClusterLayout.proof(proof.name))])
        proof.verified?.wal = [.init(timeline: TimelineID(1), first: 2, last: 8)]
        try catalog.put(proof)
        harness.time.advance(seconds: 3600)
        let verification = try harness.verify(.notWithin(.seconds(7 * 86_400)))
        #expect(verification.totals.packs.read == 0 && verification.totals.walFiles.read == 7)
    }

    @Test("after a failed drill all that its backup needs is read again, and only that answers it")
    func failedDrill() throws {
        var harness = try VerifyHarness()
        let older = try harness.backUp()
        // It starts behind the older one, and shares no pack with it.
        let drilled = try harness.backUp("8zzz", segment: 5)
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        _ = try harness.verify(week)
        let catalog = ProofCatalog(try harness.memory.cluster())
        func standing(_ record: CommitRecord) throws -> ProofStanding {
            try catalog.standing(of: record, catalog.names(record.label)).standing
        }
        func drill(_ result: ProofResult) throws {
            harness.time.advance(seconds: 3600)
            let identity = try harness.memory.cluster().repository.identity.id
            try catalog.put(
                .sample(of: drilled, in: identity, level: .drilled, result: result, finished: harness.time.now()))
        }
        let pack = try #require(drilled.packs.first.map { ClusterLayout.pack($0.id) })
        let name = try harness.memory.cluster().name(pack)
        harness.store.damage(name) { $0[$0.count / 2] ^= 1 }
        try drill(.failed)
        #expect(try standing(drilled).proof == nil)
        harness.time.advance(seconds: 3600)
        // A verification of another backup is no answer, and reads nothing.
        let other = try harness.verify(week, labels: [older.label])
        #expect(other.totals.packs.read + other.totals.walFiles.read == 0 && other.backups.first?.restores == true)
        harness.time.advance(seconds: 3600)
        let verification = try harness.verify(week)
        #expect(verification.findings.map(\.object) == [name.text])
        #expect(verification.totals.packs.read == UInt64(drilled.packs.count))
        #expect(verification.totals.walFiles.read == 4)
        #expect(verification.backups.map(\.restores) == [true, false])
        harness.store.damage(name) { $0[$0.count / 2] ^= 1 }
        harness.time.advance(seconds: 3600)
        #expect(try harness.verify(week).totals.packs.read == 1)
        #expect(try standing(drilled).proof?.level == .verified)
        #expect(try standing(drilled).failure?.level == .drilled)
        // Of a run that relies on a reading before the drill, such as one that began before its end, nobody knows.
        var early = try #require(try standing(drilled).verified)
        early.readSince = early.started.adding(seconds: -86_400)
        early.finished = early.finished.adding(seconds: 60)
        try catalog.put(early)
        #expect(try standing(drilled).proof == nil)
        try drill(.passed)
        #expect(try standing(drilled).proof?.level == .drilled && standing(drilled).verified != nil)
    }

    @Test("a host whose clock is wrong hides no damage: what is stored later counts as later", arguments: [-1, 1])
    func wrongClock(_ sign: Int64) throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        // Another one, whose proofs say nothing about the first but that what they share was read.
        let twin = try harness.backUp("8zzz")
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        let right = harness.time.now()
        let wrong = right.adding(seconds: sign * 3 * 86_400)
        let catalog = ProofCatalog(try harness.memory.cluster())
        func standing(_ record: CommitRecord) throws -> ProofStanding {
            try catalog.standing(of: record, catalog.names(record.label)).standing
        }
        // Sound by the later of the two clocks, damaged by the earlier one.
        harness.time.set(max(right, wrong))
        _ = try harness.verify()
        #expect(try standing(record).verified != nil)
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000002"
        harness.store.damage(segment) { $0[$0.count / 2] ^= 1 }
        harness.time.set(min(right, wrong))
        #expect(try harness.verify(labels: [record.label]).backups.first?.restores == false)
        #expect(try standing(record).proof == nil && standing(record).failures.count == 1)
        // By the right clock again it is not remembered as sound, by whatever backup's proof.
        harness.time.set(max(right, wrong).adding(seconds: 3600))
        for label in [record.label, twin.label] {
            #expect(try harness.verify(week, labels: [label]).findings.map(\.object) == [segment.text])
        }
        // What was mended is seen to be, though the failure may be of a day that is to come.
        harness.store.damage(segment) { $0[$0.count / 2] ^= 1 }
        harness.time.set(min(right, wrong).adding(seconds: 7200))
        _ = try harness.verify()
        #expect(try standing(record).failures.isEmpty && standing(record).verified != nil)
    }

    @Test("a name that anybody can make dates no proof: what is found damaged is seen to be")
    func forgedName() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let cluster = try harness.memory.cluster()
        let catalog = ProofCatalog(cluster)
        _ = try harness.verify()
        for year in ["2099", "9999"] {
            let name = try #require(ProofName(label: record.label, "\(year)1231T235959Z-verified-passed"))
            harness.memory.store.plant(cluster.name(ClusterLayout.proof(name)), [1, 2, 3])
        }
        harness.time.advance(seconds: 3600)
        harness.store.damage("main/wal/7/00000001/00000000/000000010000000000000002") { $0[$0.count / 2] ^= 1 }
        #expect(try harness.verify().backups.first?.restores == false)
        let standing = try catalog.standing(of: record, catalog.names(record.label)).standing
        #expect(standing.proof == nil && standing.failures.count == 1)
        #expect(standing.failure.map { $0.finished <= harness.time.now() } == true)
    }

    @Test("what a drill failed on that cannot be told any more may be anything", arguments: ProofResult.allCases)
    func unreadableDrill(_ result: ProofResult) throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        _ = try harness.verify(week)
        harness.time.advance(seconds: 3600)
        let cluster = try harness.memory.cluster()
        let proof = try ProofCatalog(cluster).put(
            .sample(
                of: record, in: cluster.repository.identity.id, level: .drilled, result: result,
                finished: harness.time.now()))
        harness.store.damage(cluster.name(ClusterLayout.proof(proof.name))) { $0[$0.count / 2] ^= 1 }
        harness.time.advance(seconds: 3600)
        let totals = try harness.verify(week).totals
        #expect(totals.packs.read + totals.walFiles.read == (result == .passed ? 0 : UInt64(record.packs.count) + 7))
    }

    @Test("a proof is as old as the oldest reading that it relies on, however often it is made")
    func readSince() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        let first = try #require(try harness.verify(week).backups.first?.proof)
        #expect(first.readSince == nil && first.asOf == first.finished)
        for day in 1...7 {
            harness.time.advance(seconds: 86_400)
            if day == 3 { try harness.memory.archive(9...10) }
            let verification = try harness.verify(week)
            #expect(verification.totals.packs.read == 0 && verification.totals.walFiles.read == (day == 3 ? 2 : 0))
            #expect(verification.backups.first?.proof?.readSince == first.started, "day \(day)")
        }
        let newer = try harness.backUp("8zzz", segment: 9)
        harness.time.advance(seconds: 3600)
        let last = try harness.verify(week).backups
        #expect(last.map(\.record.label) == [record.label, newer.label])
        // Of the older backup all was read anew but the segments of day 3, which are all that the newer one relies on.
        let third = first.started.adding(seconds: 3 * 86_400)
        #expect(last.map { $0.proof?.readSince } == [third, third])
        harness.time.advance(seconds: 8 * 86_400)
        #expect(try harness.verify(week).backups.allSatisfy { $0.proof?.readSince == nil })
    }
}

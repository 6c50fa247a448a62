// That the plan reads what it must, in generated histories, against a model that asks the proofs one by one.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct VerifyPlanTests {
    private static let now = Timestamp(secondsSince1970: 1_795_226_400)
    private static let system = SystemIdentifier(7)
    private static let repository = RandomID(high: 1, low: 1)

    private func pack(_ number: Int) -> RandomID { RandomID(high: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, low: 5) }

    /// The checksum of what these segments occupy.
    private func sizes(_ numbers: ClosedRange<UInt64>, more: UInt64 = 0) -> ContentHash {
        ContentHash(of: numbers.flatMap { [UInt8(100 + $0 + more), 1, 0, 0, 0, 0, 0, 0] })
    }

    private var stored: [SystemIdentifier: WALSizes] {
        var sizes = WALSizes()
        for timeline in [TimelineID(1), TimelineID(2)] {
            for number in UInt64(0)..<28 {
                sizes.add(WALSegment(timeline: timeline, number: number), bytes: 256 + 100 + number)
            }
        }
        return [Self.system: sizes]
    }

    private func proofs(_ random: SeededRandom, _ backup: CommitRecord) -> [ProofRecord] {
        (0..<random.next(below: 7)).map { _ in
            var proof = ProofRecord.sample(
                of: backup, in: random.next(below: 6) == 0 ? RandomID(high: 9, low: 9) : Self.repository,
                level: random.next(below: 6) == 0 ? .drilled : .verified,
                result: random.next(below: 3) == 0 ? .failed : .passed,
                finished: Self.now.adding(seconds: Int64(random.next(below: 24) - 20) * 43_200))
            proof.verified = .init(
                systemIdentifier: random.next(below: 6) == 0 ? SystemIdentifier(8) : Self.system,
                packs: (0..<12).filter { _ in random.next(below: 2) == 0 }.map {
                    .init(id: pack($0), bytes: random.next(below: 8) == 0 ? 99 : 100)
                },
                wal: (0..<random.next(below: 3)).map { _ in
                    let first = UInt64(random.next(below: 20))
                    let last = first + UInt64(random.next(below: 8))
                    // As it is, as it was before a segment was replaced, and as proofs once were.
                    let sizes = [sizes(first...last), sizes(first...last, more: 1), nil][random.next(below: 9) % 3]
                    return .init(
                        timeline: TimelineID(UInt32(1 + random.next(below: 2))), first: first, last: last, sizes: sizes)
                }, partsPerMillion: random.next(below: 4) == 0 ? 50_000 : 1_000_000)
            proof.checks = [.init(name: "wal", result: .warning, subject: nil)]
            if random.next(below: 4) == 0 {
                let number = random.next(below: 12)
                proof.checks.append(
                    .init(name: "damaged", result: .failed, subject: "old-name/pack/00/\(pack(number).hex)"))
                proof.verified?.packs.removeAll { $0.id == pack(number) }
            }
            if random.next(below: 4) == 0 {
                let file = WALSegment(timeline: TimelineID(1), number: UInt64(random.next(below: 28)))
                    .fileName(segmentSize: 16 << 20)
                proof.checks.append(
                    .init(name: "missing", result: .warning, subject: "main/wal/7/00000001/00000000/\(file)"))
            }
            return proof
        }
    }

    @Test("what is read, and what is remembered, is what a model says")
    func model() throws {
        let random = SeededRandom(seed: testSeed())
        let backup = CommitRecord.sample(
            try #require(Label("20261121T020000Z-full-7k3q")), start: LSN(0x100028), stop: LSN(0x100200))
        var seen: Set<String> = []
        for round in 0..<400 {
            let proofs = proofs(random, backup)
            let since = Self.now.adding(seconds: -86_400 * Int64(random.next(below: 9)))
            var memory = VerifyMemory(segmentSizes: [Self.system: 16 << 20], stored: stored)
            for proof in proofs { memory.add(proof, repositoryID: Self.repository, now: Self.now) }
            let plan = VerifyPlan(.due(since: since), memory: memory, packs: (0..<12).map(pack))
            let full = VerifyPlan(.full, memory: memory, packs: (0..<12).map(pack))
            let own = proofs.filter { $0.level == .verified && $0.repositoryID == Self.repository }
            let telling = own.filter { $0.started <= Self.now }
            for number in 0..<12 {
                let decision = plan.decision(pack: pack(number), bytes: 100)
                // The last time that somebody read it, and how large it was then.
                let readings = telling.flatMap { proof in
                    (proof.verified?.packs ?? []).filter { $0.id == pack(number) }.map { (proof.started, $0.bytes) }
                }.sorted { $0.0 < $1.0 }
                var last = readings.last
                if let time = last?.0, time < doubt(own, "/" + pack(number).hex) ?? time {
                    last = nil
                    seen.insert("doubt")
                }
                let sameTime = readings.filter { $0.0 == last?.0 }.map(\.1)
                switch decision {
                case .remembered(let time):
                    #expect(time == last?.0 && time >= since && sameTime.contains(100), "round \(round)")
                    seen.insert("remembered")
                case .read(.neverRead): #expect(last == nil, "round \(round)")
                case .read(.changed):
                    #expect(sameTime.contains(99), "round \(round)")
                    seen.insert("changed")
                case .read(.readBefore(let time)):
                    #expect(time == last?.0 && time < since, "round \(round)")
                    seen.insert("before")
                default: Issue.record("round \(round): \(decision)")
                }
                guard case .read = full.decision(pack: pack(number), bytes: 100) else {
                    Issue.record("round \(round): a full run leaves a pack out")
                    continue
                }
            }
            try compareWAL(plan, telling, own, since, round)
        }
        #expect(seen == ["remembered", "changed", "before", "doubt"])
    }

    /// When a proof last said that something is wrong with an object.
    private func doubt(_ proofs: [ProofRecord], _ suffix: String) -> Timestamp? {
        proofs.filter { $0.checks.contains { $0.subject?.hasSuffix(suffix) == true } }.map(\.finished).max()
    }

    @Test("what a proof that does not name all leaves open is read again")
    func manyDamages() throws {
        let backup = CommitRecord.sample(
            try #require(Label("20261121T020000Z-full-7k3q")), start: LSN(0x100028), stop: LSN(0x100200))
        func proof(_ result: ProofResult, secondsAgo: Int64, _ damages: Int) -> ProofRecord {
            var proof = ProofRecord.sample(
                of: backup, in: Self.repository, level: .verified, result: result,
                finished: Self.now.adding(seconds: -secondsAgo))
            if damages == 0 {
                proof.verified?.packs = [.init(id: pack(1), bytes: 100), .init(id: pack(2), bytes: 100)]
            }
            proof.checks = (0..<damages).map {
                .init(name: "damaged", result: .failed, subject: "main/backup/\($0)/manifest")
            }
            return proof
        }
        func decision(_ damages: Int) -> VerifyPlan.Decision {
            var memory = VerifyMemory()
            memory.add(proof(.passed, secondsAgo: 9000, 0), repositoryID: Self.repository, now: Self.now)
            memory.add(proof(.failed, secondsAgo: 3000, damages), repositoryID: Self.repository, now: Self.now)
            return VerifyPlan(.due(since: Self.now.adding(seconds: -86_400)), memory: memory, packs: [pack(1)])
                .decision(pack: pack(1), bytes: 100)
        }
        #expect(decision(99) != .read(.neverRead))
        #expect(decision(100) == .read(.neverRead))
    }

    private func compareWAL(
        _ plan: VerifyPlan, _ telling: [ProofRecord], _ own: [ProofRecord], _ since: Timestamp, _ round: Int
    ) throws {
        for timeline in [TimelineID(1), TimelineID(2)] {
            for number in UInt64(0)..<28 {
                let segment = WALSegment(timeline: timeline, number: number)
                let times = telling.filter { proof in
                    proof.verified?.systemIdentifier == Self.system
                        && proof.verified?.wal.contains {
                            $0.timeline == timeline && $0.first <= number && number <= $0.last
                                && $0.sizes == sizes($0.first...$0.last)
                        } == true
                }.map(\.started)
                var last = times.max()
                if let time = last, time < doubt(own, "/" + segment.fileName(segmentSize: 16 << 20)) ?? time {
                    last = nil
                }
                let expected: VerifyPlan.Decision =
                    switch last {
                    case nil: .read(.neverRead)
                    case let time? where time >= since: .remembered(since: time)
                    case let time?: .read(.readBefore(time))
                    }
                #expect(
                    plan.decision(segment: segment, isPartial: false, isLast: false, of: Self.system) == expected,
                    "round \(round), \(segment)")
                #expect(
                    plan.decision(segment: segment, isPartial: true, isLast: false, of: Self.system)
                        == .read(.neverRead))
            }
        }
    }

    @Test("a sample has the share that was asked for, rounded up, and another seed chooses others")
    func sample() {
        let packs = (0..<200).map(pack)
        func chosen(_ parts: UInt32, _ seed: UInt64) -> Set<RandomID> {
            let plan = VerifyPlan(.sample(partsPerMillion: parts, seed: seed), memory: VerifyMemory(), packs: packs)
            return Set(packs.filter { plan.decision(pack: $0, bytes: 1) == .read(.sample) })
        }
        #expect(chosen(50_000, 1).count == 10)
        #expect(chosen(51_000, 1).count == 11)
        #expect(chosen(1, 1).count == 1)
        #expect(chosen(50_000, 1) == chosen(50_000, 1))
        #expect(chosen(50_000, 1) != chosen(50_000, 2))
        // Over many nights all are read.
        let all = (0..<200).reduce(into: Set<RandomID>()) { $0.formUnion(chosen(50_000, UInt64($1))) }
        #expect(all.count == 200)
    }
}

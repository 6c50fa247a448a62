// Proves that a backup whose data proved broken is nothing to build on, and that what says nothing of its data is.
import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeBackup

struct ParentEvidenceTests {
    private static let now = Timestamp(secondsSince1970: 1_795_000_000)

    private func backup(_ number: Int, parent: Label? = nil, packs: [Int] = []) throws -> CommitRecord {
        let label = try #require(Label("2026112\(number)T020000Z-\(parent == nil ? "full" : "delta")-aaa\(number)"))
        var record = CommitRecord.sample(label, start: LSN(1), stop: LSN(UInt64(number) << 24))
        record.parent = parent
        record.packs = packs.map { PackUse(id: RandomID(high: 1, low: UInt64($0)), liveBytes: 1) }
        return record
    }

    private func failure(
        _ level: ProofLevel, _ checks: [String], passed: [String] = [], minute: Int64 = 0
    ) throws -> ProofRecord {
        var proof = ProofRecord.sample(
            of: try backup(1), in: RandomID(high: 1, low: 1), level: level, result: .failed,
            finished: Self.now.adding(seconds: minute * 60))
        proof.checks =
            passed.map { .init(name: $0, result: .passed) } + checks.map { .init(name: $0, result: .failed) }
        return proof
    }

    @Test("failures of the data speak against a parent; those of the user's own checks, or of WAL alone, do not")
    func failures() throws {
        let counting: [(ProofLevel, [String])] = [
            (.verified, ["files"]), (.verified, ["manifest"]), (.verified, ["pages"]), (.verified, []),
            (.verified, ["wal", "files"]), (.verified, ["wal", "pack-damaged"]), (.drilled, ["fetch"]),
            (.drilled, ["plan"]), (.drilled, ["target-reached"]), (.drilled, ["assertion", "amcheck"]), (.drilled, []),
            (.drilled, ["wal"]), (.verified, ["assertion"]),
        ]
        for (level, checks) in counting {
            #expect(
                ParentEvidence.objection([try failure(level, checks, passed: ["assertion"])]) != nil,
                "\(level) \(checks)")
        }
        #expect(ParentEvidence.objection([]) == nil)
        #expect(
            ParentEvidence.objection([try failure(.drilled, ["assertion", "assertion"], passed: ["fetch"])]) == nil)
        #expect(ParentEvidence.objection([try failure(.verified, ["wal"], passed: ["files"])]) == nil)
        // A newer harmless failure does not hide an older one that counts.
        let why = ParentEvidence.objection([
            try failure(.drilled, ["assertion"], minute: 5), try failure(.verified, ["files", "pages"]),
        ])
        let label = try backup(1).label
        #expect(why == "backup \(label) failed its verification at 2026-11-18T11:06:40Z (files; pages)")
    }

    @Test("what counts are the failures of the parent, of all that it builds on, and of those that share its packs")
    func relations() throws {
        let random = SeededRandom(seed: testSeed())
        var seen = (related: 0, strange: 0)
        for _ in 0..<200 {
            var backups: [CommitRecord] = []
            for number in 1...6 {
                let parent = random.next(below: 2) == 0 ? nil : backups.randomLabel(random)
                let packs = (0..<random.next(below: 3)).map { _ in random.next(below: 9) }
                backups.append(try backup(number, parent: parent, packs: packs))
            }
            // Some of them were removed since.
            backups.removeAll { _ in random.next(below: 5) == 0 }
            guard let parent = backups.last else { continue }
            let related = Set(ParentEvidence.related(to: parent, among: backups).map(\.label))
            var ancestors: [Label] = []
            var next: CommitRecord? = parent
            while let record = next {
                ancestors.append(record.label)
                next = record.parent.flatMap { label in backups.first { $0.label == label } }
            }
            for other in backups {
                let shares = other.packs.contains { pack in parent.packs.contains { $0.id == pack.id } }
                let expected = ancestors.contains(other.label) || shares
                #expect(related.contains(other.label) == expected)
                if expected { seen.related += 1 } else { seen.strange += 1 }
            }
        }
        #expect(seen.related > 200 && seen.strange > 100, "\(seen)")
    }
}

extension [CommitRecord] {
    fileprivate func randomLabel(_ random: SeededRandom) -> Label? {
        isEmpty ? nil : self[random.next(below: count)].label
    }
}

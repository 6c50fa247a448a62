// That a verification whose reads fail never passes what is damaged and never calls damaged what is sound; and that one
// object that can't be read hides nothing of the others.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct VerifyFaultTests {
    /// The proofs in a store that `before` lacks.
    private func newProofs(_ harness: VerifyHarness, _ store: MemoryStore, _ before: Set<ObjectName>) throws
        -> [ProofRecord]
    {
        let cluster = try harness.source(store).openCluster("main", for: .read, random: SeededRandom(seed: 1))
        let catalog = ProofCatalog(cluster)
        let listing = try catalog.open(catalog.names().proofs.values.flatMap { $0 })
        #expect(listing.unreadable.isEmpty)
        return listing.proofs.filter { !before.contains(cluster.name(ClusterLayout.proof($0.name))) }
    }

    /// Every number with KEDGE_TEST_SOAK, else so many by chance and the last ones.
    private func numbers(upTo count: Int, _ sampled: Int) -> [Int] {
        if PostgresInstallation.soakIsEnabled { return Array(1...count) }
        let random = SeededRandom(seed: testSeed())
        return Set((0..<sampled).map { _ in 1 + random.next(below: count) } + [1, count - 1, count]).sorted()
    }

    private func operations(_ harness: VerifyHarness, _ store: MemoryStore) throws -> Int {
        let counted = FaultyStore(store.copy()) { _ in nil }
        _ = try harness.run(harness.options(source: harness.source(counted)))
        return counted.operations.count
    }

    @Test(
        "a sound repository whose store fails at any one operation is never damaged and never wholly verified",
        arguments: [
            (Fault.failBefore, ErrorCode.inputOutput), (.failBefore, .repositoryUnavailable),
            (.failAfter, .permission), (.crashBefore, .inputOutput),
        ])
    func soundSweep(_ fault: Fault, _ code: ErrorCode) throws {
        let harness = try VerifyTests.full(true)
        let before = Set(harness.store.names)
        // Threads share what they look up: a run may take a few operations more or fewer.
        for number in numbers(upTo: try operations(harness, harness.store), 25) {
            let copy = harness.store.copy()
            let faulty = FaultyStore(copy, fault, atOperation: number, code: code)
            let outcome = try harness.run(harness.options(source: harness.source(faulty)))
            guard faulty.faultCount > 0 else { continue }
            let what = "\(String(describing: faulty.operations.first { $0.number == number })): \(outcome)"
            #expect(!outcome.isDamaged, "\(what)")
            #expect(!outcome.isComplete, "\(what)")
            let added = Set(copy.names).subtracting(before)
            #expect(added.allSatisfy { $0.text.hasPrefix("main/catalog/proof/") }, "\(what)")
            // What was proven is true: everything is sound.
            #expect(try newProofs(harness, copy, before).allSatisfy { $0.result == .passed }, "\(what)")
        }
    }

    @Test(
        "a damaged repository whose store fails at any one operation never passes, and nothing sound is blamed",
        arguments: [ErrorCode.inputOutput, .repositoryUnavailable])
    func damagedSweep(_ code: ErrorCode) throws {
        let harness = try VerifyTests.full(true)
        let cluster = try harness.memory.cluster()
        let pack = try #require(try BackupCatalog(cluster).list().backups.first?.packs.first)
        let packName = cluster.name(ClusterLayout.pack(pack.id))
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000006"
        for name in [packName, segment] { harness.store.damage(name) { $0[$0.count / 2] ^= 1 } }
        let whole = try harness.verify()
        let damaged = Set(whole.findings.filter(\.kind.isDamage).map(\.object))
        #expect(damaged == [packName.text, segment.text])
        let limits = Dictionary(uniqueKeysWithValues: whole.backups.map { ($0.record.label, $0.latest?.lsn) })
        let before = Set(harness.store.names)
        for number in numbers(upTo: try operations(harness, harness.store), 25) {
            let copy = harness.store.copy()
            let faulty = FaultyStore(copy, .failBefore, atOperation: number, code: code)
            let outcome = try harness.run(harness.options(source: harness.source(faulty)))
            guard faulty.faultCount > 0 else { continue }
            let what = "\(String(describing: faulty.operations.first { $0.number == number })): \(outcome)"
            #expect(!outcome.isComplete, "\(what)")
            for proof in try newProofs(harness, copy, before) where proof.result == .passed {
                // No backup passes that does not, and none is said to go further than it does.
                let limit = try #require(limits[proof.label] ?? nil, "\(what)")
                #expect(try #require(proof.covers).toLSN <= limit, "\(what)")
                #expect(proof.verified?.packs.contains { $0.id == pack.id } == false, "\(what)")
            }
            guard case .success(let verification)? = outcome.repositories.first?.result else { continue }
            let blamed = Set(verification.findings.filter(\.kind.isDamage).map(\.object))
            #expect(blamed.isSubset(of: damaged), "\(what)")
        }
    }

    @Test("a damaged pack of which some can't be read either is damaged, and not all is verified")
    func damagedAndUnreadable() throws {
        let harness = try VerifyTests.full(true)
        let cluster = try harness.memory.cluster()
        let pack = cluster.name(
            ClusterLayout.pack(try #require(try BackupCatalog(cluster).list().backups.first?.packs.first).id))
        harness.store.damage(pack) { $0[$0.count / 2] ^= 1 }
        let whole = try harness.verify()
        #expect(whole.isDamaged && whole.isComplete)
        // Frames and the manifest's parts are read in several reads; each fails once.
        var failures = 0
        while true {
            let left = Monitor(failures)
            let faulty = FaultyStore(harness.store) { operation in
                guard !operation.kind.isWriting, operation.name == pack.text else { return nil }
                return left.update { count in
                    count -= 1
                    return count == -1 ? .failBefore : nil
                }
            }
            let outcome = try harness.run(harness.options(source: harness.source(faulty)))
            guard faulty.faultCount > 0 else { break }
            failures += 1
            #expect(!outcome.isComplete, "read \(failures): \(outcome)")
        }
        #expect(failures > 3)
    }

    @Test("of one object damage counts more than an error of reading, in either order, and no error is forgotten")
    func damageAndErrors() throws {
        let damage = KedgeError(.damaged, "is not what was written")
        let failure = KedgeError(.inputOutput, "could not read")
        for errors in [[damage, failure], [failure, damage]] {
            let findings = Findings()
            for error in errors { findings.add(VerifyFinding(kind: .init(of: error), object: "a", error: error)) }
            let found = findings.all.findings
            #expect(found.map(\.kind) == [.damaged] && found.map(\.error.code) == [.damaged])
            #expect(findings.hasUnread)
        }
        let findings = Findings()
        for number in 0..<VerifyFinding.limit {
            findings.add(VerifyFinding(kind: .surplus, object: "\(number)", error: KedgeError(.notFound, "surplus")))
        }
        #expect(!findings.hasUnread)
        findings.add(VerifyFinding(kind: .unreadable, object: "a", error: failure))
        #expect(findings.hasUnread && findings.all.dropped == 1)
    }

    /// Verifies with some objects that can't be read.
    private func verify(
        _ harness: VerifyHarness, unreadable: Set<ObjectName>
    ) throws -> (outcome: Verify.Outcome, verification: RepositoryVerification) {
        let faulty = FaultyStore(harness.store) { operation in
            operation.kind.isWriting || !unreadable.contains { $0.text == operation.name } ? nil : .failBefore
        }
        let outcome = try harness.run(harness.options(source: harness.source(faulty)))
        return (outcome, try #require(outcome.repositories.first).result.get())
    }

    @Test(
        "a pack that can't be read leaves its backup unjudged, and others are verified and found damaged all the same")
    func unreadablePack() throws {
        var harness = try VerifyHarness()
        let first = try harness.backUp()
        let second = try harness.backUp("bbbb")
        let third = try harness.backUp("cccc")
        let cluster = try harness.memory.cluster()
        func pack(_ record: CommitRecord) throws -> ObjectName {
            cluster.name(ClusterLayout.pack(try #require(record.packs.first).id))
        }
        let lost = try pack(third)
        harness.store.damage(lost) { $0.removeLast(9) }
        let (outcome, verification) = try verify(harness, unreadable: [try pack(first)])
        #expect(outcome.isDamaged && !outcome.isComplete)
        #expect(verification.backups.map(\.state) == [.unknown, .restores, .lost])
        #expect(verification.backups.map { $0.proof?.result } == [nil, .passed, .failed])
        let unknown = try #require(verification.findings.first { $0.kind == .unreadable })
        #expect(unknown.object == (try pack(first)).text && unknown.error.code == .inputOutput)
        #expect(unknown.costs == ["Nobody can tell whether backup \(first.label) restores."])
        #expect(Set(try harness.proofs().map(\.label)) == [second.label, third.label])
    }

    @Test("manifests, commit records, histories and WAL that can't be read cost what rests on them, and no more")
    func unreadableOthers() throws {
        let harness = try VerifyTests.full(false)
        let backups = try BackupCatalog(try harness.memory.cluster()).list().backups
        #expect(backups.count == 2)
        let manifest = try #require(ObjectName("main/backup/\(backups[0].label)/manifest"))
        var (outcome, verification) = try verify(harness, unreadable: [manifest])
        #expect(!outcome.isDamaged && !outcome.isComplete)
        #expect(verification.backups.map(\.state) == [.unknown, .restores])
        let commit = try #require(ObjectName("main/catalog/backup/\(backups[0].label)"))
        (outcome, verification) = try verify(harness, unreadable: [commit])
        #expect(!outcome.isDamaged && !outcome.isComplete)
        #expect(verification.backups.map(\.record.label) == [backups[1].label])
        #expect(verification.findings.map(\.object) == [commit.text])
        // Without the history nobody can tell anything of timeline 2; timeline 1 is whole.
        let history: ObjectName = "main/wal/7/history/00000002.history"
        (outcome, verification) = try verify(harness, unreadable: [history])
        #expect(!outcome.isDamaged && !outcome.isComplete)
        #expect(verification.findings.filter { $0.kind == .unreadable }.map(\.object) == [history.text])
        #expect(verification.backups.allSatisfy { $0.reach.map(\.timeline) == [TimelineID(1)] && $0.restores })
        // The first backup needs segment 3; the second begins in segment 5.
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000003"
        (outcome, verification) = try verify(harness, unreadable: [segment])
        #expect(!outcome.isDamaged && !outcome.isComplete)
        #expect(verification.findings.map(\.object).contains(segment.text))
        #expect(verification.backups.map(\.state) == [.unknown, .restores])
        // Behind the end of both it only ends what is proven.
        let later: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000008"
        (outcome, verification) = try verify(harness, unreadable: [later])
        #expect(!outcome.isDamaged && !outcome.isComplete)
        #expect(verification.backups.allSatisfy { $0.restores && $0.proof?.covers?.toLSN == LSN(8 << 20) })
    }

    @Test("where too much can't be read, or the repository does not answer, the work on it ends")
    func givesUp() throws {
        let store = MemoryStore()
        store.plant("kedge.json", [1])
        let failure = KedgeError(.inputOutput, "could not read", hint: "Check the disk.")
        let errors = ReadErrors(store)
        for _ in 0..<ReadErrors.limit { #expect(try errors.tolerate(failure).code == .inputOutput) }
        #expect(throws: KedgeError.self) { try errors.tolerate(failure) }
        let others = ReadErrors(store)
        for code in [ErrorCode.interrupted, .defect, .locked, .noSpace] {
            #expect(throws: KedgeError.self) { try others.tolerate(KedgeError(code, "no")) }
        }
        store.setReachable(false)
        #expect(throws: KedgeError.self) { try others.tolerate(failure) }
        #expect(try others.tolerate(KedgeError(.damaged, "no")).code == .damaged)
    }

    @Test("damage is told also where the proof of it can't be stored")
    func proofsCannotBeStored() throws {
        let harness = try VerifyTests.full(true)
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000003"
        harness.store.damage(segment) { $0[$0.count / 2] ^= 1 }
        let faulty = FaultyStore(harness.store, code: .permission) { $0.kind == .put ? .failBefore : nil }
        let outcome = try harness.run(harness.options(source: harness.source(faulty)))
        let verification = try #require(outcome.repositories.first).result.get()
        #expect(outcome.isDamaged && !outcome.isComplete)
        #expect(verification.proofError?.code == .permission)
        #expect(verification.backups.allSatisfy { $0.proof == nil })
    }
}

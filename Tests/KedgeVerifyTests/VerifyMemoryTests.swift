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
}

// What `verify` learns from small objects: backups that show which WAL existed, and records that hold what is no record.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct VerifyEvidenceTests {
    @Test("WAL behind the last archived segment that a newer backup, or its history file, shows is missing")
    func missingEnd() throws {
        var harness = try VerifyHarness()
        let older = try harness.backUp()
        let newer = try harness.backUp("8zzz", segment: 7)
        let last: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000008"
        let outcome = try harness.verifyCopy { store in _ = try store.remove([last]) }
        let verification = try #require(outcome.repositories.first).result.get()
        let finding = try #require(verification.findings.first { $0.object == last.text })
        #expect(finding.kind == .missing)
        #expect(finding.error.detail == "There is, or was, WAL behind it.")
        #expect(
            finding.costs == [
                "Backup \(older.label) restores no further than 0/800000 on this timeline.",
                "Backup \(newer.label) cannot become consistent.",
            ])
        #expect(try !harness.verify().isDamaged)
        let paper = PaperBackup(try harness.memory.cluster())
        try paper.archive(.backup("000000010000000000000009.00000028.backup"), Array("START\n".utf8))
        let next = try harness.verify().findings
        #expect(next.map(\.object) == ["main/wal/7/00000001/00000000/000000010000000000000009"])
        #expect(next.map(\.backups) == [[older.label, newer.label]])
    }
}

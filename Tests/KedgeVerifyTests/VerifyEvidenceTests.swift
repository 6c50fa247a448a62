// What `verify` learns from small objects: backups that show which WAL existed, and what records hold that is none.

import KedgeCatalog
import KedgeCodec
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

    @Test(
        "a segment that can't be read beside one in another spelling is damage of that object, and two are a conflict")
    func damagedSpelling() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let untagged: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000005"
        let tagged = try #require(ObjectName("\(untagged)-\(ContentHash(of: [1]))"))
        let cases: [(isDamaged: Bool, kind: VerifyFinding.Kind, code: ErrorCode)] = [
            (true, .damaged, .damaged), (false, .conflict, .archiveConflict),
        ]
        for (isDamaged, kind, code) in cases {
            let outcome = try harness.verifyCopy { store in
                store.plant(tagged, [1])
                if isDamaged { store.damage(untagged) { $0 = Array($0.prefix(100)) } }
            }
            let verification = try #require(outcome.repositories.first).result.get()
            let finding = try #require(verification.findings.first { $0.object == untagged.text })
            #expect(finding.kind == kind && finding.backups == [record.label], "\(finding)")
            #expect(finding.error.code == code)
            #expect(finding.error.message.contains("object \"\(untagged)\" cannot be read") == isDamaged)
        }
    }

    @Test("of more damaged pages than are remembered none is taken for sound, and recorded ones take no room")
    func manyPages() throws {
        var harness = try VerifyHarness()
        func files(_ blocks: [Int]) -> [VerifyHarness.File] {
            var files = VerifyHarness.files()
            for block in blocks {
                files[1].bytes.replaceSubrange(
                    block * 8192..<(block + 1) * 8192,
                    with: VerifyHarness.page(lsn: 100, block: UInt32(block), isDamaged: true))
            }
            return files
        }
        let path = ManifestPath(bytes: Array("base/5/16384".utf8))
        try harness.backUp(
            "aaaa", files: files([1, 2, 3]),
            health: .init(damagedPages: [1, 2, 3].map { .init(path: path, block: $0) }, damagedPageCount: 3))
        let bad = try harness.backUp("bbbb", files: files([4, 5]))
        var options = harness.options()
        options.pageLimit = 2
        var verification = try #require(try harness.run(options).repositories.first).result.get()
        #expect(verification.backups.map(\.state) == [.restores, .lost])
        #expect(
            verification.findings.filter { $0.backups == [bad.label] }.map(\.error.message) == [
                "backup \"\(bad.label)\" holds 2 damaged page(s)"
            ])
        options.pageLimit = 1
        verification = try #require(try harness.run(options).repositories.first).result.get()
        #expect(verification.backups.map(\.state) == [.restores, .lost])
        // What was read a moment ago is not read again; but the failure stands.
        options.reading = .notWithin(.seconds(86_400))
        verification = try #require(try harness.run(options).repositories.first).result.get()
        #expect(verification.backups.map(\.state) == [.restores, .lost])
        options.reading = .full
        options.pageLimit = 0
        verification = try #require(try harness.run(options).repositories.first).result.get()
        #expect(verification.backups.map(\.state) == [.restores, .unknown])
        #expect(verification.backups.last?.proof == nil)
        #expect(verification.isDamaged)
    }

    @Test("a copy of a key slot in a commit record that is none is a finding")
    func slotCopy() throws {
        var harness = try VerifyHarness()
        var record = try harness.backUp()
        #expect(try !record.keySlots.isEmpty && !harness.verify().isDamaged)
        let name = try #require(ObjectName("main/catalog/backup/\(record.label)"))
        _ = try harness.store.remove([name])
        record.keySlots.append(["kedge": "key-slot"])
        try BackupCatalog(harness.memory.cluster()).commit(record)
        let verification = try harness.verify()
        #expect(verification.isDamaged)
        #expect(verification.findings.map(\.object) == [name.text], "\(verification.findings)")
    }
}

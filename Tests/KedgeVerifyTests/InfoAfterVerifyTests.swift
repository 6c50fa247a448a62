// That `info`, which reads few facts, never calls more recoverable than the last verification did: the stretch between
// damaged WAL and a later backup belongs to no window.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct InfoAfterVerifyTests {
    private func lsn(_ segment: UInt64, _ offset: UInt64 = 0) -> LSN { LSN(segment << 20 + offset) }

    private func info(_ harness: VerifyHarness) throws -> RepositoryInfo {
        try RepositorySurvey(cluster: harness.memory.cluster(), interruption: Interruption()).run()
    }

    private func name(_ segment: UInt64) throws -> ObjectName {
        try #require(
            ObjectName(
                "main/wal/7/00000001/00000000/"
                    + WALSegment(timeline: TimelineID(1), number: segment).fileName(segmentSize: 1 << 20)))
    }

    /// WAL is what this is about.
    private static let files = [
        VerifyHarness.File(path: "backup_label", bytes: Array("START WAL LOCATION\n".utf8)),
        VerifyHarness.File(path: "global/pg_control", bytes: [UInt8](repeating: 7, count: 8192)),
    ]

    enum Damage: CaseIterable { case records, minimal, object }

    @Test(
        "behind damaged WAL a window ends and the next backup begins another, once it was verified",
        arguments: Damage.allCases)
    func betweenBackups(_ damage: Damage) throws {
        var harness = try VerifyHarness()
        try harness.memory.archive(
            9...9, damaged: damage == .records ? [9] : [], minimal: damage == .minimal ? [9] : [])
        try harness.memory.archive(10...13)
        let older = try harness.backUp(files: Self.files)
        let newer = try harness.backUp("bbbb", files: Self.files, segment: 11)
        if damage == .object { harness.store.damage(try name(9)) { $0[$0.count - 1] ^= 1 } }
        // Facts are read behind the newest backup alone: nobody has seen it yet.
        #expect(try info(harness).windows.map { $0.backups.map(\.label) } == [[older.label, newer.label]])
        let verified = try harness.verify()
        #expect(verified.backups.allSatisfy { $0.restores }, "\(verified.findings)")
        let reach = try #require(verified.backups.first { $0.record.label == older.label }?.latest)
        #expect(reach.lsn >= lsn(9) && reach.lsn < lsn(10) && reach.end?.number == 9)
        let windows = try info(harness).windows
        #expect(windows.map { $0.backups.map(\.label) } == [[older.label], [newer.label]])
        #expect(windows.first.map { $0.to.lsn <= reach.lsn && $0.to.lsn > lsn(8) } == true)
        #expect(windows.last?.to.lsn == lsn(13, 0x70))
        // It is no news: there is a backup behind it.
        #expect(try info(harness).suspects.isEmpty)
        guard damage == .object else { return }
        // Put right and read again, it is one window as before.
        harness.store.damage(try name(9)) { $0[$0.count - 1] ^= 1 }
        harness.time.advance(seconds: 60)
        _ = try harness.verify(labels: [older.label])
        #expect(try info(harness).windows.map { $0.backups.map(\.label) } == [[older.label, newer.label]])
    }

    @Test("damage behind the newest backup that only reading the whole object shows is told once it was verified")
    func behindNewest() throws {
        var harness = try VerifyHarness()
        try harness.backUp(files: Self.files)
        harness.store.damage(try name(6)) { $0[$0.count - 1] ^= 1 }
        #expect(try info(harness).suspects.isEmpty)
        _ = try harness.verify()
        let told = try info(harness)
        #expect(told.suspects.map(\.file) == ["000000010000000000000006"] && told.suspects.map(\.lsn) == [lsn(6)])
        #expect(told.windows.map { $0.to.lsn < lsn(6) } == [true])
        // A backup behind it ends the warning.
        try harness.backUp("bbbb", files: Self.files, segment: 7)
        #expect(try info(harness).suspects.isEmpty)
    }

    @Test("a later proof that leads across the place ends what an earlier one said of it")
    func outdated() throws {
        var harness = try VerifyHarness()
        let older = try harness.backUp(files: Self.files)
        let newer = try harness.backUp("bbbb", files: Self.files, segment: 4)
        harness.store.damage(try name(7)) { $0[$0.count - 1] ^= 1 }
        _ = try harness.verify()
        #expect(try info(harness).windows.map { $0.to.lsn < lsn(7) } == [true])
        harness.store.damage(try name(7)) { $0[$0.count - 1] ^= 1 }
        harness.time.advance(seconds: 60)
        // Of the newer one alone: the older one leads through the same WAL.
        _ = try harness.verify(labels: [newer.label])
        #expect(try info(harness).windows.map(\.to.lsn) == [lsn(8, 0x70)])
        #expect(try info(harness).windows.first?.backups.first?.label == older.label)
    }

    @Test("generated damage: no window leads a backup further than its verification did")
    func generated() throws {
        let random = SeededRandom(seed: testSeed())
        var shorter = 0
        let worlds = PostgresInstallation.soakIsEnabled ? 20 : 3
        for _ in 0..<worlds {
            var harness = try VerifyHarness(encrypted: false)
            let last = UInt64(12 + random.next(below: 6))
            let odd = (UInt64(9)...last).filter { $0 == 10 || random.next(below: 4) == 0 }
            for number in UInt64(9)...last {
                let kind = odd.contains(number) ? random.next(below: 3) : -1
                try harness.memory.archive(
                    number...number, damaged: kind == 0 ? [number] : [], minimal: kind == 1 ? [number] : [])
                if kind == 2 { harness.store.damage(try name(number)) { $0[$0.count - 1] ^= 1 } }
            }
            try harness.backUp(files: Self.files)
            for (index, number) in (UInt64(3)..<last - 1).filter({ _ in random.next(below: 4) == 0 }).enumerated() {
                try harness.backUp("bbb\(index)", files: Self.files, segment: number)
            }
            let verified = try harness.verify()
            let windows = try info(harness).windows
            for backup in verified.backups where backup.restores {
                let reach = try #require(backup.latest)
                if reach.lsn < lsn(last) { shorter += 1 }
                for window in windows where window.backups.contains(where: { $0.label == backup.record.label }) {
                    #expect(window.to.lsn <= reach.lsn, "\(backup.record.label): \(odd), \(window)")
                }
            }
        }
        #expect(shorter >= worlds)
    }
}

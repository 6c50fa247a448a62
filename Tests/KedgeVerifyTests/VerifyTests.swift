// That verification finds each damage to each kind of object and names it with what it costs; that nothing sound is
// called damaged, whatever goes on meanwhile; and that only reading everything proves anything.

import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@testable import KedgeVerify

@Suite struct VerifyTests {
    @Test(
        "a sound repository passes, says up to where it restores, and gets nothing but a proof",
        arguments: [true, false])
    func sound(_ encrypted: Bool) throws {
        var harness = try VerifyHarness(encrypted: encrypted)
        let record = try harness.backUp()
        let before = Set(harness.store.names)
        let verification = try harness.verify()
        #expect(verification.findings.isEmpty, "\(verification.findings)")
        let backup = try #require(verification.backups.first)
        #expect(backup.restores)
        #expect(
            backup.reach == [.init(timeline: TimelineID(1), lsn: LSN(9 << 20), time: MemoryRepository.commitTime(8))])
        #expect(verification.totals.packs.read == UInt64(record.packs.count))
        #expect(record.packs.count > 1)
        #expect(verification.totals.walFiles.read == 7)
        let stored = try harness.memory.cluster().name(ClusterLayout.proof(try #require(backup.proof).name))
        #expect(Set(harness.store.names).subtracting(before) == [stored])
        let proof = try #require(try harness.proofs().first)
        #expect(proof == backup.proof)
        #expect(proof.result == .passed && !proof.isSample)
        #expect(proof.checks.allSatisfy { $0.result == .passed }, "\(proof.checks)")
        #expect(proof.covers?.toLSN == LSN(9 << 20))
        #expect(proof.verified?.packs.map(\.id) == record.packs.map(\.id))
        let range = try #require(proof.verified?.wal.first)
        #expect(range.first == 2 && range.last == 8 && range.sizes != nil)
        #expect(proof.verified?.wal.count == 1)
    }

    // MARK: - Damage

    enum Damage: CaseIterable {
        case flip, cut, longer, empty, swap

        func apply(_ bytes: inout [UInt8], other: [UInt8], _ random: SeededRandom) {
            switch self {
            case .flip: bytes[random.next(below: bytes.count)] ^= UInt8(1 << random.next(below: 8))
            case .cut: bytes.removeLast(1 + random.next(below: bytes.count))
            case .longer: bytes += random.bytes(1 + random.next(below: 70))
            case .empty: bytes = [0]
            case .swap: bytes = other
            }
        }
    }

    /// A repository with every kind of object that there is.
    static func full(_ encrypted: Bool) throws -> VerifyHarness {
        var harness = try VerifyHarness(encrypted: encrypted)
        try harness.memory.archive(9...9, isPartial: true)
        try harness.memory.archiveHistory(2, [(timeline: 1, end: LSN(9 << 20 + 300))])
        try harness.memory.archive(9...11, timeline: 2)
        try harness.backUp()
        try harness.backUp("bbbb", segment: 5)
        let catalog = BackupCatalog(try harness.memory.cluster())
        try catalog.begin(
            Intent(
                label: try #require(Label("20261121T040000Z-full-cccc")), type: .full, parent: nil,
                systemIdentifier: SystemIdentifier(7), timeline: TimelineID(1), startLSN: LSN(8 << 20),
                startedAt: harness.time.now(), hostName: "h", processID: 1, createdBy: "kedge"))
        _ = try harness.verify()
        return harness
    }

    @Test("each kind of damage to each object is found, and the object is named", arguments: [true, false])
    func damageTable(_ encrypted: Bool) throws {
        let harness = try Self.full(encrypted)
        let sound = try harness.verifyCopy { _ in }
        #expect(!sound.isDamaged && sound.isComplete)
        let random = SeededRandom(seed: testSeed())
        // Segment 1 lies before every backup; what is plain has no checksum: nothing rests on it.
        let names = harness.store.names.filter { $0 != "kedge.json" && !$0.text.hasSuffix("000000010000000000000001") }
        for name in names {
            for damage in Damage.allCases {
                let kind = name.components.dropFirst().first.map { String($0) } ?? ""
                let others = names.filter { $0 != name && $0.components.dropFirst().first.map { String($0) } == kind }
                guard damage != .swap || !others.isEmpty else { continue }
                let other =
                    harness.store.contents[others.isEmpty ? name : others[random.next(below: others.count)]] ?? []
                let outcome = try harness.verifyCopy { store in
                    store.damage(name) { damage.apply(&$0, other: other, random) }
                }
                let isNamed: Bool
                switch try #require(outcome.repositories.first).result {
                case .success(let verification):
                    isNamed = verification.findings.contains { $0.object == name.text && $0.kind == .damaged }
                    for finding in verification.findings where finding.kind.isDamage {
                        // One object is damaged, and none besides is called so.
                        #expect(finding.object == name.text, "\(damage) of \(name): \(finding)")
                    }
                case .failure(let error):
                    // What opens the repository names itself.
                    isNamed = ["key", "system"].contains(name.components.first.map { String($0) }) || kind == "system"
                    #expect(
                        error.message.contains(name.lastComponent) || error.message.contains("key")
                            || error.message.contains("secret"), "\(error)")
                }
                // A changed slot looks like one of another secret.
                let isSlot = name.components.first == "key"
                #expect(outcome.isDamaged || isSlot && !outcome.isComplete, "\(damage) of \(name)")
                #expect(isNamed, "\(damage) of \(name)")
            }
        }
    }

    @Test("what is missing is named with the backups that it costs", arguments: [true, false])
    func missing(_ encrypted: Bool) throws {
        let harness = try Self.full(encrypted)
        for name in harness.store.names {
            let parts = name.components.map { String($0) }
            let outcome = try harness.verifyCopy { store in _ = try store.remove([name]) }
            let isNeeded =
                parts.count > 2
                && (parts[1] == "pack" || parts[1] == "backup"
                    || (parts[1] == "wal" && !parts[parts.count - 1].hasSuffix("000000010000000000000001")
                        && parts[parts.count - 1] != "00000002000000000000000B"
                        && !parts[parts.count - 1].contains("partial")))
            // Losing the last segment moves the end, and losing a record loses what it says: nobody can tell.
            guard isNeeded else { continue }
            let verification = try #require(outcome.repositories.first).result.get()
            let finding = verification.findings.first { $0.object == name.text }
            #expect(finding?.kind == .missing, "\(name): \(verification.findings)")
            #expect(finding?.costs.isEmpty == false, "\(name)")
            #expect(outcome.isDamaged)
        }
    }

    @Test("damage in a pack costs the files in it, and damage in later WAL only the moments behind it")
    func costs() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000006"
        harness.store.damage(segment) { $0[$0.count / 2] ^= 1 }
        var verification = try harness.verify()
        var backup = try #require(verification.backups.first)
        #expect(backup.restores)
        #expect(backup.latest?.lsn == LSN(6 << 20))
        #expect(backup.proof?.result == .passed)
        #expect(backup.proof?.covers?.toLSN == LSN(6 << 20))
        #expect(
            verification.findings.first?.costs
                == ["Backup \(record.label) restores no further than 0/600000 on timeline 1."])
        #expect(verification.isDamaged)
        // The first segment, in the middle of which the backup starts, is needed like the last.
        for number in [VerifyHarness.start, VerifyHarness.start + 1] {
            let needed = try #require(ObjectName("main/wal/7/00000001/00000000/00000001000000000000000\(number)"))
            let outcome = try harness.verifyCopy { $0.damage(needed) { $0[$0.count / 2] ^= 1 } }
            verification = try #require(outcome.repositories.first).result.get()
            backup = try #require(verification.backups.first)
            #expect(!backup.restores)
            #expect(backup.proof?.result == .failed && backup.proof?.covers == nil)
            #expect(verification.findings.first?.costs == ["Backup \(record.label) cannot become consistent."])
        }
    }

    @Test("what was found damaged is never remembered as sound, and once mended it is read again")
    func damageIsRemembered() throws {
        var harness = try VerifyHarness()
        try harness.backUp()
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        _ = try harness.verify(week)
        let pack = try #require(harness.store.names.first { $0.text.hasPrefix("main/pack/") })
        let segment: ObjectName = "main/wal/7/00000001/00000000/000000010000000000000006"
        for name in [pack, segment] {
            harness.time.advance(seconds: 3600)
            harness.store.damage(name) { $0[$0.count / 2] ^= 1 }
            // Read not long ago, it is not looked at.
            #expect(!(try harness.verify(week).isDamaged))
            harness.time.advance(seconds: 3600)
            #expect(try harness.verify(.full).findings.map(\.object) == [name.text])
            for _ in 0..<3 {
                harness.time.advance(seconds: 3600)
                let verification = try harness.verify(week)
                #expect(verification.findings.map(\.object) == [name.text])
                // Nothing but what is damaged is read again.
                #expect(verification.totals.packs.read + verification.totals.walFiles.read == 1)
            }
            harness.time.advance(seconds: 3600)
            harness.store.damage(name) { $0[$0.count / 2] ^= 1 }
            let mended = try harness.verify(week)
            #expect(mended.findings.isEmpty && mended.backups.first?.proof?.result == .passed)
            #expect(mended.totals.packs.read + mended.totals.walFiles.read == 1)
            #expect(try harness.verify(week).totals.packs.read == 0)
        }
    }

    @Test("segments stored with damaged records are told, and end what can be reached")
    func suspectWAL() throws {
        var harness = try VerifyHarness()
        try harness.memory.archive(9...9, damaged: [9])
        try harness.memory.archive(10...10)
        try harness.backUp()
        let verification = try harness.verify()
        #expect(verification.findings.map(\.kind) == [.recorded])
        #expect(verification.backups.first?.latest.map { $0.lsn > LSN(9 << 20) && $0.lsn < LSN(10 << 20) } == true)
        // It is never remembered as sound.
        #expect(verification.backups.first?.proof?.verified?.wal.map(\.last) == [8, 10])
    }

    @Test("WAL of wal_level = minimal ends what can be reached, and is told until there is a backup behind it")
    func minimalWAL() throws {
        var harness = try VerifyHarness()
        try harness.memory.archive(9...9, minimal: [9])
        try harness.memory.archive(10...12)
        try harness.backUp()
        for _ in 0..<2 {
            let verification = try harness.verify()
            #expect(verification.findings.map(\.kind) == [.recorded])
            #expect(verification.findings.first?.error.message.hasPrefix("recovery ends in WAL segment") == true)
            #expect(verification.backups.first?.latest.map { $0.lsn > LSN(9 << 20) && $0.lsn < LSN(10 << 20) } == true)
            #expect(verification.backups.first?.proof?.result == .passed)
        }
        try harness.backUp("bbbb", segment: 10)
        let later = try harness.verify()
        #expect(later.findings.isEmpty && !later.isDamaged)
        #expect(later.backups.map { $0.latest.map { $0.lsn < LSN(10 << 20) } } == [true, false])
    }

    @Test("pages: recorded damage is told and still restores, what replay repairs is none, all else is damage")
    func pages() throws {
        func findings(
            _ lsn: UInt64, _ health: CommitRecord.BackupHealth = .init()
        ) throws -> RepositoryVerification {
            var harness = try VerifyHarness()
            var files = VerifyHarness.files()
            files[1].bytes.replaceSubrange(
                150 * 8192..<151 * 8192, with: VerifyHarness.page(lsn: lsn, block: 150, isDamaged: true))
            try harness.backUp(files: files, health: health)
            return try harness.verify()
        }
        let unrecorded = try findings(100)
        #expect(unrecorded.findings.map(\.error.code) == [.pageDamaged])
        #expect(unrecorded.findings.map(\.kind) == [.damaged])
        #expect(unrecorded.backups.first?.proof?.result == .failed)
        let repaired = try findings(VerifyHarness.start << 20 + 1000)
        #expect(repaired.findings.isEmpty)
        let recorded = try findings(
            100,
            .init(damagedPages: [.init(path: ManifestPath("base/5/16384"), block: 150)], damagedPageCount: 1))
        #expect(recorded.findings.map(\.kind) == [.recorded])
        #expect(recorded.isDamaged)
        #expect(recorded.backups.first?.proof?.result == .passed)
    }

    @Test("a region in several pieces is put together, and a manifest that lies about one is damage")
    func pieces() throws {
        var harness = try VerifyHarness()
        let first = try harness.backUp()
        let old = VerifyHarness.files()[1].bytes
        let extents = try extents(of: "base/5/16384", first, harness)
        guard case .pack(let pack, let frame, _)? = extents.first?.source else { return }
        // The first region, with its second page taken from elsewhere in it.
        let content = Array(old[0..<8192] + old[16384..<24576] + old[16384..<(1 << 20)])
        let file = VerifyHarness.File(
            path: "base/5/16390", bytes: content,
            extents: [
                Extent(length: 8192, source: .pack(pack, frame: frame, offset: 0)),
                Extent(length: 8192, source: .pack(pack, frame: frame, offset: 16384)),
                Extent(length: UInt64((1 << 20) - 16384), source: .pack(pack, frame: frame, offset: 16384)),
            ])
        var files = VerifyHarness.files()
        files.insert(file, at: 2)
        // Pages of another place have another number, and so another checksum: the backup says so.
        let second = try harness.backUp("bbbb", files: files)
        var verification = try harness.verify(labels: [second.label])
        #expect(verification.backups.first?.restores == true, "\(verification.findings)")
        #expect(
            verification.backups.first?.proof?.checks.first { $0.name == "files" }?.detail?.contains("1 of them put")
                == true)
        var lie = file
        lie.bytes[5] ^= 1
        files[2] = lie
        let third = try harness.backUp("cccc", files: files)
        verification = try harness.verify(labels: [third.label])
        #expect(verification.backups.first?.restores == false)
        #expect(verification.findings.map(\.object) == ["main/backup/\(third.label)/manifest"])
        // Beyond the end of the pack.
        files[2].extents = [Extent(length: UInt64(content.count), source: .pack(pack, frame: frame, offset: 1 << 20))]
        let fourth = try harness.backUp("dddd", files: files)
        #expect(try harness.verify(labels: [fourth.label]).isDamaged)
    }

    private func extents(of path: String, _ record: CommitRecord, _ harness: VerifyHarness) throws -> [Extent] {
        let cluster = try harness.memory.cluster()
        var reader = ManifestReader(
            try BackupCatalog(cluster).manifest(of: record), reader: PackReader(PackDirectories(cluster)))
        while let entry = try reader.next() {
            if entry.path == ManifestPath(path) { return entry.content?.extents ?? [] }
        }
        return []
    }

    @Test("what nobody refers to is information, and so is what nobody knows")
    func surplus() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let commit = try #require(ClusterLayout.commitRecord(label: record.label.text))
        _ = try harness.store.remove([try harness.memory.cluster().name(commit)])
        harness.store.plant("main/what/is/this", [1])
        harness.store.plant("main/pack/zz/README", [1])
        try harness.backUp("bbbb")
        let verification = try harness.verify()
        #expect(!verification.isDamaged)
        #expect(verification.findings.filter { $0.kind == .surplus }.count == record.packs.count + 1)
        #expect(
            verification.findings.filter { $0.kind == .foreign }.map(\.object) == [
                "main/pack/zz/README", "main/what/is/this",
            ])
    }

    // MARK: - What is no damage

    @Test("interrupted at each single operation, it ends as such and leaves no proof")
    func interruptions() throws {
        let harness = try Self.full(true)
        let random = SeededRandom(seed: testSeed())
        let count = try readings(harness) - 3
        for number in Set([1, 2, count] + (0..<40).map { _ in 1 + random.next(below: count) }) {
            let copy = harness.store.copy()
            let before = Set(copy.names)
            let interruption = Interruption()
            let watched = FaultyStore(copy) { operation in
                if operation.number == number { interruption.request(signal: 15) }
                return nil
            }
            do {
                _ = try harness.run(harness.options(source: harness.source(watched)), interruption: interruption)
                Issue.record("operation \(number) was not interrupted")
            } catch let error as KedgeError {
                #expect(error.code == .interrupted)
            }
            #expect(Set(copy.names) == before, "operation \(number)")
        }
    }

    /// About how many operations a verification takes up to the first proof: threads share what they look up.
    private func readings(_ harness: VerifyHarness) throws -> Int {
        let counted = FaultyStore(harness.store.copy()) { _ in nil }
        _ = try harness.run(harness.options(source: harness.source(counted)))
        return try #require(counted.operations.first { $0.kind.isWriting }).number - 1
    }

    /// About how many operations a verification takes.
    private func operations(_ harness: VerifyHarness) throws -> Int {
        let counted = FaultyStore(harness.store.copy()) { _ in nil }
        _ = try harness.run(harness.options(source: harness.source(counted)))
        return counted.operations.count
    }

    @Test("a backup that expires, or is committed, at any moment meanwhile is no damage")
    func concurrency() throws {
        var harness = try VerifyHarness()
        let old = try harness.backUp()
        try harness.backUp("bbbb")
        let random = SeededRandom(seed: testSeed())
        let count = try operations(harness)
        for number in (0..<30).map({ _ in 1 + random.next(below: count) }) {
            let copy = harness.store.copy()
            let watched = FaultyStore(copy) { operation in
                guard operation.number == number else { return nil }
                // The order of expire: the commit record, the manifest, the packs.
                for name in copy.names where name.text.hasSuffix(old.label.text) && !name.text.contains("proof") {
                    _ = try? copy.remove([name])
                }
                _ = try? copy.remove(copy.names.filter { $0.text.contains("backup/\(old.label)") })
                _ = try? copy.remove(old.packs.compactMap { ObjectName("main/\(ClusterLayout.pack($0.id))") })
                return nil
            }
            let outcome = try harness.run(harness.options(source: harness.source(watched)))
            #expect(!outcome.isDamaged, "operation \(number): \(outcome)")
            #expect(outcome.isComplete, "operation \(number): \(outcome)")
        }
        var later = harness
        let before = harness.store.copy()
        try later.backUp("cccc")
        let whole = harness.store.contents
        for number in (0..<30).map({ _ in 1 + random.next(below: count) }) {
            let copy = before.copy()
            let watched = FaultyStore(copy) { operation in
                guard operation.number == number else { return nil }
                for (name, bytes) in whole.sorted(by: { $0.key < $1.key }) where before.contents[name] == nil {
                    copy.plant(name, bytes)
                }
                return nil
            }
            let outcome = try harness.run(harness.options(source: harness.source(watched)))
            #expect(!outcome.isDamaged && outcome.isComplete, "operation \(number): \(outcome)")
        }
    }

    @Test("a segment that arrives after a later one is waited for")
    func latePush() throws {
        var harness = try VerifyHarness()
        try harness.memory.archive(10...10)
        try harness.backUp()
        let memory = harness.memory
        var options = harness.options()
        options.gapPatience = .seconds(60)
        #expect(try harness.run(options).isDamaged)
        harness.time.onSleep { try? memory.archive(9...9) }
        let outcome = try harness.run(options)
        #expect(!outcome.isDamaged)
        #expect(try outcome.repositories[0].result.get().backups.first?.latest?.lsn == LSN(11 << 20))
    }

    // MARK: - Memory and samples

    @Test("what was read is remembered as long as asked for, but for what changed; --full reads it all")
    func memory() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let week = Verify.Reading.notWithin(.seconds(7 * 86_400))
        #expect(try harness.verify(week).totals.packs.read == UInt64(record.packs.count))
        harness.time.advance(seconds: 6 * 86_400)
        try harness.memory.archive(9...9)
        let second = try harness.verify(week)
        #expect(second.totals.packs.read == 0 && second.totals.packs.remembered == UInt64(record.packs.count))
        #expect(second.totals.walFiles.read == 1 && second.totals.walFiles.remembered == 7)
        #expect(second.backups.first?.proof?.result == .passed)
        #expect(second.backups.first?.reach.first?.lsn == LSN(10 << 20))
        #expect(try harness.verify(.full).totals.packs.read == UInt64(record.packs.count))
        // Being read again on the second day put nothing off: what the first run read is due now.
        var other = try VerifyHarness()
        try other.backUp()
        _ = try other.verify(week)
        other.time.advance(seconds: 6 * 86_400)
        _ = try other.verify(week)
        other.time.advance(seconds: 2 * 86_400)
        #expect(try other.verify(week).totals.packs.remembered == 0)
        // A pack that is cut is found at once.
        let pack = try #require(other.store.names.first { $0.text.hasPrefix("main/pack/") })
        other.store.damage(pack) { $0.removeLast() }
        #expect(try other.verify(week).findings.map(\.object) == [pack.text])
    }

    @Test("a sample finds what it reads, proves nothing, and its failure withdraws a proof")
    func sample() throws {
        var harness = try VerifyHarness()
        let record = try harness.backUp()
        let sample = Verify.Reading.sample(partsPerMillion: 300_000)
        let verification = try harness.verify(sample)
        #expect(verification.totals.packs.read >= 1 && verification.totals.packs.notInSample >= 1)
        #expect(verification.totals.walFiles.read >= 1)
        let catalog = ProofCatalog(try harness.memory.cluster())
        func standing() throws -> ProofStanding {
            try catalog.standing(of: record, catalog.names(record.label)).standing
        }
        #expect(try standing() == ProofStanding())
        harness.time.advance(seconds: 10)
        _ = try harness.verify()
        #expect(try standing().verified != nil)
        for name in harness.store.names where name.text.hasPrefix("main/pack/") {
            harness.store.damage(name) { $0[$0.count / 2] ^= 1 }
        }
        harness.time.advance(seconds: 10)
        #expect(try harness.verify(sample).isDamaged)
        #expect(try standing().verified == nil)
        #expect(try standing().failure?.isSample == true)
    }

    @Test("one backup alone is verified, and an unknown one is an error")
    func oneBackup() throws {
        var harness = try VerifyHarness()
        let first = try harness.backUp()
        try harness.backUp("bbbb", segment: 5)
        let verification = try harness.verify(labels: [first.label])
        #expect(verification.backups.map(\.record.label) == [first.label])
        #expect(verification.findings.isEmpty)
        #expect(try harness.proofs().map(\.label) == [first.label])
        let unknown = try #require(Label("20261121T020000Z-full-zzzz"))
        let outcome = try harness.run(harness.options(labels: [unknown]))
        guard case .failure(let error)? = outcome.repositories.first?.result else {
            Issue.record("an unknown backup was verified")
            return
        }
        #expect(error.code == .notFound)
    }
}

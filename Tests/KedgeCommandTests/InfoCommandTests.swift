// What `info` prints: whole texts and whole JSON of repositories that are sound, damaged in each way that it tells of,
// empty and out of reach.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct InfoCommandTests {
    private func label(_ text: String) throws -> Label { try #require(Label(text)) }

    private func lsn(_ segment: UInt64, _ offset: UInt64 = 0) -> LSN { LSN(segment << 20 + offset) }

    /// A backup whose stop lies in the segment after its start, at the time of that segment's commit.
    private func backup(
        _ text: String, segment: UInt64, timeline: UInt32 = 1, health: CommitRecord.BackupHealth = .init()
    ) throws -> CommitRecord {
        CommitRecord.sample(
            try label(text), timeline: timeline, start: lsn(segment, 40), stop: lsn(segment + 1, 400),
            stopTime: MemoryRepository.commitTime(segment + 1), health: health)
    }

    private func info(_ repositories: [ConfiguredRepository]) throws -> CommandResult {
        let info = Info(
            [Info.Cluster(name: "main", repositories: repositories)], time: ManualTime(),
            random: SeededRandom(seed: 1),
            interruption: Interruption())
        return InfoCommand.result(try info.run())
    }

    private func configured(_ memory: MemoryRepository) -> ConfiguredRepository {
        ConfiguredRepository(name: memory.settings.name, source: .success(memory.source))
    }

    private func text(_ result: CommandResult) -> String {
        // How well WAL compresses is nobody's business here.
        String(decoding: OutputRenderer.output(result, asJSON: false), as: UTF8.self)
            .replacing(/\ +[0-9.]+ kB/, with: "  SIZE")
    }

    /// Two backups, a promotion, and the partial segment that it left.
    private func sound() throws -> MemoryRepository {
        let memory = try MemoryRepository(walSegmentSize: 1 << 20)
        try memory.archive(1...5)
        try memory.archive(6...6, isPartial: true)
        try memory.archiveHistory(2, [(timeline: 1, end: lsn(6, 200))])
        try memory.archive(6...8, timeline: 2)
        let catalog = BackupCatalog(try memory.cluster())
        try catalog.commit(backup("20261121T020000Z-full-7k3q", segment: 2))
        try catalog.commit(backup("20261121T020500Z-full-aaaa", segment: 6, timeline: 2))
        return memory
    }

    @Test("a sound repository is shown on one screen, the newest last")
    func soundText() throws {
        let result = try info([configured(sound())])
        #expect(result.status == 0)
        #expect(
            text(result)
                == """
                cluster main: PostgreSQL 15, system identifier 7: ok

                repository main: memory store

                  backup                      type  ended                 database  stored   frees  timeline  LSN
                  20261121T020000Z-full-7k3q  full  2026-11-18T11:09:40Z    1.5 GB  400 MB  1 byte         1  0/300190
                  20261121T020500Z-full-aaaa  full  2026-11-18T11:13:40Z    1.5 GB  400 MB  1 byte         2  0/700190

                  recoverable  from                            to                              backups
                  timeline 1   2026-11-18T11:09:40Z  0/300190  2026-11-18T11:12:40Z  0/600070        1
                  timeline 2   2026-11-18T11:09:40Z  0/300190  2026-11-18T11:14:40Z  0/800070        2

                  WAL         first                     last                              segments  stored
                  timeline 1  000000010000000000000001  000000010000000000000006.partial         5  SIZE
                  timeline 2  000000020000000000000006  000000020000000000000008                 3  SIZE

                """)
    }

    @Test("the JSON has every key that others build on")
    func soundJSON() throws {
        let result = try info([configured(sound())])
        let json = try JSONRecord(result.json, what: "info")
        let cluster = try #require(try json.records("clusters").first)
        #expect(try cluster.string("name") == "main")
        #expect(try cluster.string("systemIdentifier") == "7")
        #expect(try cluster.integer("postgresVersion") == 15)
        #expect(try cluster.string("status") == "ok")
        #expect(try cluster.array("messages") == [])
        #expect(
            try cluster.array("backups").first == [
                "label": "20261121T020000Z-full-7k3q", "type": "full", "parent": .null, "repository": "main",
                "startTime": "2026-11-18T11:09:10Z", "stopTime": "2026-11-18T11:09:40Z", "startLSN": "0/200028",
                "stopLSN": "0/300190", "timeline": 1, "databaseBytes": 1_610_612_736, "storedBytes": 419_430_400,
                "deltaBytes": 1_610_612_736, "pinned": false,
                "proof": [
                    "level": "none", "time": .null, "coversLSN": .null, "coversTime": .null, "drilled": .null,
                    "verified": .null, "failed": .null, "lastDrilled": .null, "lastVerified": .null,
                ],
                "walFrom": "000000010000000000000002", "walTo": "000000010000000000000003", "hasItsWAL": true,
                "systemIdentifier": "7", "damagedPageCount": 0, "postgresVersion": 15, "host": "db1",
                "condemnedAt": .null, "removalHasBegun": false, "deltas": [], "ownBytes": 1, "dependents": [],
                "freedBytes": 1,
            ])
        #expect(
            try cluster.array("recoverable") == [
                [
                    "repository": "main", "timeline": 1, "from": ["lsn": "0/300190", "time": "2026-11-18T11:09:40Z"],
                    "to": ["lsn": "0/600070", "time": "2026-11-18T11:12:40Z"],
                    "newestBackup": "20261121T020000Z-full-7k3q", "backups": 1,
                ],
                [
                    "repository": "main", "timeline": 2, "from": ["lsn": "0/300190", "time": "2026-11-18T11:09:40Z"],
                    "to": ["lsn": "0/800070", "time": "2026-11-18T11:14:40Z"],
                    "newestBackup": "20261121T020500Z-full-aaaa", "backups": 2,
                ],
            ])
        let wal = try cluster.records("wal")
        #expect(try wal.map { try $0.string("first") } == ["000000010000000000000001", "000000020000000000000006"])
        #expect(
            try wal.map { try $0.string("last") } == ["000000010000000000000006.partial", "000000020000000000000008"])
        #expect(try wal.map { try $0.integer("segments") } == [5, 3])
        #expect(try wal.map { try $0.array("partial") } == [["000000010000000000000006"], []])
    }

    @Test("proofs show with their age, a failed one warns, and --proofs lists each with its checks")
    func proofs() throws {
        let memory = try sound()
        let cluster = try memory.cluster()
        let backups = try BackupCatalog(cluster).list().backups
        let now = ManualTime().now()
        func put(_ backup: CommitRecord, _ level: ProofLevel, _ result: ProofResult, daysAgo days: Int64) throws {
            var proof = ProofRecord.sample(
                of: backup, in: memory.identity.id, level: level, result: result,
                finished: now.adding(seconds: -days * 86_400))
            proof.checks = [.init(name: "rows", result: result == .passed ? .passed : .failed, subject: "postgres")]
            try ProofCatalog(cluster).put(proof)
        }
        try put(backups[0], .drilled, .passed, daysAgo: 2)
        try put(backups[1], .verified, .passed, daysAgo: 3)
        try put(backups[1], .verified, .failed, daysAgo: 1)
        let plain = try info([configured(memory)])
        #expect(text(plain).contains("proof: drilled 2 d ago"))
        #expect(text(plain).contains("FAILED: verified 1 d ago (passed: verified 3 d ago)"))
        #expect(text(plain).contains("failed its verify at 2026-11-20T02:00:00Z\n         detail: rows: postgres.\n"))
        #expect(plain.status == 0)
        let listed = Info(
            [Info.Cluster(name: "main", repositories: [configured(memory)])], listsProofs: true, time: ManualTime(),
            random: SeededRandom(seed: 1), interruption: Interruption())
        let result = InfoCommand.result(try listed.run())
        #expect(text(result).contains("proof 20261119T020000Z-drilled-passed of \(backups[0].label)"))
        #expect(text(result).contains("  failed rows: postgres"))
        // A name alone proves nothing.
        let forged = ProofName(label: backups[1].label, time: now, level: .drilled, result: .passed)
        memory.store.plant(cluster.name(ClusterLayout.proof(forged)), [1, 2, 3])
        #expect(text(try info([configured(memory)])).contains("FAILED: verified 1 d ago"))
    }

    @Test("another repository than the one that this host knows is shown, and is not \"ok\"")
    func stranger() throws {
        var source = try sound().source
        source.settings.placeMemory = StrangePlace()
        let shown = text(try info([ConfiguredRepository(name: "main", source: .success(source))]))
        #expect(shown.contains("20261121T020500Z-full-aaaa"))
        #expect(shown.contains("ERROR    main: cannot rely on what is missing in repository \"main\""), "\(shown)")
    }

    @Test("evidence that is a month old is told, and evidence that is yet to come")
    func oldProof() throws {
        let memory = try sound()
        let cluster = try memory.cluster()
        let backups = try BackupCatalog(cluster).list().backups
        try ProofCatalog(cluster).put(
            .sample(
                of: backups[0], in: memory.identity.id, finished: ManualTime().now().adding(seconds: -31 * 86_400)))
        #expect(text(try info([configured(memory)])).contains("no backup was proven to restore since 2026-10-21"))
        // While the newest one is of a day to come, that would never be told.
        try ProofCatalog(cluster).put(
            .sample(of: backups[0], in: memory.identity.id, finished: ManualTime().now().adding(seconds: 300)))
        #expect(!text(try info([configured(memory)])).contains("proven to restore since"))
        #expect(!text(try info([configured(memory)])).contains("yet to come"))
        try ProofCatalog(cluster).put(
            .sample(of: backups[0], in: memory.identity.id, finished: ManualTime().now().adding(seconds: 3 * 86_400)))
        #expect(text(try info([configured(memory)])).contains("the newest proof is of 2026-11-24"))
    }

    @Test("whatever is wrong is told with what to do, and hides nothing else")
    func damaged() throws {
        let memory = try MemoryRepository(walSegmentSize: 1 << 20)
        let catalog = BackupCatalog(try memory.cluster())
        try memory.archive(1...4)
        try memory.archive(6...9, damaged: [9])
        for text in ["20261121T010000Z-full-1111", "20261121T020000Z-full-2222"] {
            try catalog.commit(backup(text, segment: text.contains("1111") ? 2 : 4))
        }
        let health = CommitRecord.BackupHealth(
            damagedPages: [.init(path: ManifestPath(bytes: Array("base/5/16384".utf8)), block: 7)],
            damagedPageCount: 1)
        try catalog.commit(backup("20261121T030000Z-full-3333", segment: 6, health: health))
        try catalog.commit(backup("20261121T040000Z-full-4444", segment: 7))
        memory.store.damage("main/catalog/backup/20261121T040000Z-full-4444") { $0[$0.count / 2] ^= 1 }
        memory.store.plant("main/wal/7/00000001/00000000/notes.txt", [1])
        try catalog.begin(
            Intent(
                label: label("20261121T050000Z-full-5555"), type: .full, parent: nil,
                systemIdentifier: SystemIdentifier(7), timeline: TimelineID(1), startLSN: lsn(9, 40),
                startedAt: Timestamp(microseconds: 1_795_010_000_123_456), hostName: "db1", processID: 42,
                createdBy: "kedge"))
        let result = try info([configured(memory)])
        #expect(result.status == 0)
        #expect(
            text(result) == """
                cluster main: PostgreSQL 15, system identifier 7: error

                repository main: memory store

                  backup                      type  ended                 database  stored   frees  timeline  LSN
                  20261121T010000Z-full-1111  full  2026-11-18T11:09:40Z    1.5 GB  400 MB  1 byte         1  0/300190
                  20261121T020000Z-full-2222  full  2026-11-18T11:11:40Z    1.5 GB  400 MB  1 byte         1  \
                0/500190  WAL missing
                  20261121T030000Z-full-3333  full  2026-11-18T11:13:40Z    1.5 GB  400 MB  1 byte         1  \
                0/700190  1 damaged page(s)

                  interrupted, or under way without a lease: 20261121T050000Z-full-5555, begun 2026-11-18T13:53:20Z \
                by host "db1", process 42

                  recoverable  from                            to                              backups
                  timeline 1   2026-11-18T11:09:40Z  0/300190  2026-11-18T11:10:40Z  0/400070        1
                  timeline 1   2026-11-18T11:13:40Z  0/700190  2026-11-18T11:15:40Z  0/900028        1

                  WAL         first                     last                      segments  stored
                  timeline 1  000000010000000000000001  000000010000000000000009         8  SIZE  1 missing between

                ERROR    main: cannot read commit record "catalog/backup/20261121T040000Z-full-4444"
                         detail: data frame 0 is not what was written here.
                         hint: Use another repository for what needs it, and take a new backup.
                ERROR    main: backup "20261121T020000Z-full-2222" cannot become consistent
                         detail: WAL that it needs, from 000000010000000000000004 to 000000010000000000000005, is \
                missing or damaged.
                         hint: Restore it from another repository, or archive the missing segments from the server's \
                pg_wal with "kedge archive-push".  Take a new backup if it is the newest.
                warning  main: the newest backup holds 1 damaged page(s)
                         detail: The checksum does not fit in base/5/16384, block 7.
                         hint: Check the server's disk, and keep an older backup without them.
                warning  main: WAL segment "000000010000000000000009" is suspect: recovery may not get beyond 0/900050
                         detail: The CRC of a record does not fit its content.
                         hint: Check the disk under pg_wal.  Take a new backup now: it matters until there is one \
                that began after 0/900050.
                warning  main: 1 WAL segment(s) are missing on timeline 1: 000000010000000000000005
                         detail: No moment from there to the next backup can be reached.
                         hint: If the server still has them in pg_wal, archive them with "kedge archive-push"; \
                otherwise take a new backup.  "kedge info --acknowledge-gap" with one of these names ends this warning.
                warning  main: 1 object(s) among the WAL are not kedge's, such as "notes.txt"
                         hint: Find out who put them there; kedge does not remove them.

                """)
    }

    /// What `info` says of timeline 1.
    private struct Told: Equatable {
        var warnings: [String] = []
        /// The end of the line of the WAL.
        var shown = ""
        /// What the JSON says is missing, and acknowledged.
        var json: [[JSONValue]]
        /// Where the window ends.
        var end: String
    }

    private func told(_ memory: MemoryRepository) throws -> Told {
        let result = try info([configured(memory)])
        let shown = try #require(try JSONRecord(result.json, what: "info").records("clusters").first)
        let wal = try #require(try shown.records("wal").first)
        let window = try #require(try shown.records("recoverable").first)
        let messages = try shown.records("messages").map { try $0.string("message") }
        #expect(try shown.string("status") == (messages.isEmpty ? "ok" : "warning"))
        let line = text(result).split(separator: "\n").first { $0.hasPrefix("  timeline 1  0000") }
        return Told(
            warnings: messages,
            shown: (line?.split(separator: "SIZE", omittingEmptySubsequences: false).last).map(String.init) ?? "",
            json: [try wal.array("missing"), try wal.array("acknowledged")],
            end: try window.record("to").string("lsn"))
    }

    @Test("what is lost at the end of a timeline is told until somebody acknowledges it, and shown for ever")
    func lostEnd() throws {
        let memory = try MemoryRepository(walSegmentSize: 1 << 20)
        try memory.archive(1...7)
        let cluster = try memory.cluster()
        try BackupCatalog(cluster).commit(backup("20261121T020000Z-full-7k3q", segment: 1))
        let paper = PaperBackup(cluster)
        try paper.archive(.backup("000000010000000000000007.00000028.backup"), Array("START\n".utf8))
        func remove(_ number: Int) throws {
            _ = try memory.store.remove([#require(ObjectName("main/wal/7/00000001/00000000/\(segment(number))"))])
        }
        func segment(_ number: Int) -> String { "00000001000000000000000\(number)" }
        func acknowledge(_ number: Int) throws -> (first: String, last: String) {
            try GapAcknowledgement.acknowledge(
                segment(number), in: cluster, hostName: "db1", time: ManualTime(), interruption: Interruption())
        }
        #expect(try told(memory) == Told(json: [[], []], end: "0/700070"))
        for number in [6, 7] { try remove(number) }
        let range: JSONValue = .string("\(segment(6))-\(segment(7))")
        let lost = "2 WAL segment(s) are missing at the end of timeline 1: \(segment(6)) to \(segment(7))"
        #expect(
            try told(memory)
                == Told(warnings: [lost], shown: "  2 missing at the end", json: [[range], []], end: "0/500070"))
        for number in [5, 8] {
            #expect(throws: KedgeError.self) { try acknowledge(number) }
        }
        #expect(try acknowledge(7) == (segment(6), segment(7)))
        #expect(
            try told(memory)
                == Told(shown: "  2 missing at the end (acknowledged)", json: [[range], [range]], end: "0/500070"))
        // What is lost later is news.
        try remove(5)
        let next = try told(memory)
        #expect(next.warnings == ["1 WAL segment(s) are missing at the end of timeline 1: \(segment(5))"])
        #expect(next.shown == "  3 missing at the end (2 acknowledged)")
        #expect(next.json == [[.string("\(segment(5))-\(segment(7))")], [range]])
        // So is a loss behind what was acknowledged.
        try paper.archive(.backup("000000010000000000000009.00000028.backup"), Array("START\n".utf8))
        #expect(
            try told(memory).warnings == [
                "1 WAL segment(s) are missing at the end of timeline 1: \(segment(5))",
                "2 WAL segment(s) are missing at the end of timeline 1: \(segment(8)) to \(segment(9))",
            ])
        #expect(try acknowledge(9) == (segment(5), segment(9)))
        #expect(try told(memory).warnings == [])
        // It stays known once the timeline goes on.
        try memory.archive(10...10)
        #expect(try told(memory).warnings == [])
        #expect(try told(memory).shown == "  5 missing between (acknowledged)")
    }

    @Test("two contents of one WAL file are told with who stored which, where they part and what that means")
    func conflict() throws {
        let memory = try sound()
        // The same partial segment from a twin, whose second record is not whole.
        try memory.archive(6...6, damaged: [6], isPartial: true)
        let result = try info([configured(memory)])
        let told = text(result).replacing(/[0-9a-f]{32}/, with: "TAG")
            .replacing(/\d{4}-\d\d-\d\dT[0-9:.]+Z/, with: "TIME")
        let begin = try #require(told.firstRange(of: "warning  main: WAL file"))
        #expect(
            told[begin.lowerBound...].split(separator: "\n").prefix(3).joined(separator: "\n").hasPrefix(
                """
                warning  main: WAL file "000000010000000000000006.partial" was archived several times with different \
                content
                         detail: Recovery cannot use any of them until it is known which is right.  The two first \
                differ at LSN 0/60006B of timeline 1.  No. 1, with the tag TAG, was archived by host "
                """), "\(told)")
        #expect(told.contains(" (TIME by the store's clock), its records end at 0/6000"))
        #expect(told.contains(" holds whole records, "))
        #expect(told.contains("hint: A standby with archive_mode = always"))
    }

    @Test("work under way is told with how far it is, from any host")
    func underWay() throws {
        let memory = try sound()
        let cluster = try memory.cluster()
        let progress = WorkProgress()
        progress.begin("copying files", totalBytes: 4 << 30)
        progress.advance(1 << 30)
        let process = ProcessIdentity(hostName: "db2", processID: 4711)
        let label = try label("20261121T050000Z-full-5555")
        let start = Timestamp(secondsSince1970: 1_795_010_000)
        try BackupCatalog(cluster).begin(
            Intent(
                label: label, type: .full, parent: nil, systemIdentifier: SystemIdentifier(7),
                timeline: TimelineID(2), startLSN: lsn(8), startedAt: start, hostName: "db2", processID: 4711,
                createdBy: "kedge"))
        for operation in ["backup", "expire"] {
            _ = try Lease.take(
                LeaseRequest(
                    operation: operation, process: process, label: operation == "backup" ? label.text : nil),
                in: cluster, progress: progress.snapshot, time: ManualTime(now: start))
        }
        memory.store.plant("main/lease/drill", [1])
        let result = try info([configured(memory)])
        let told = text(result)
        #expect(
            told.contains(
                """
                  under way: 20261121T050000Z-full-5555, begun 2026-11-18T13:53:20Z by host "db2", process 4711: \
                copying files, 25 %, 1 GB of 4 GB at 2026-11-21T02:00:00Z
                  under way: expire, begun 2026-11-18T13:53:20Z by host "db2", process 4711: copying files, 25 %, 1 GB \
                of 4 GB at 2026-11-21T02:00:00Z

                """), "\(told)")
        #expect(told.contains("warning  main: lease \"drill\" cannot be read\n"), "\(told)")
        let json = try JSONRecord(result.json, what: "info")
        let shown = try #require(try json.records("clusters").first)
        let backup = try #require(try shown.records("underWay").first)
        #expect(try backup.record("progress").integer("doneBytes", as: UInt64.self) == 1 << 30)
        #expect(try shown.records("leases").map { try $0.bool("readable") } == [true, false, true])
    }

    @Test("a repository without backups says what to do")
    func empty() throws {
        let result = try info([configured(try MemoryRepository(walSegmentSize: 1 << 20))])
        #expect(
            text(result) == """
                cluster main: PostgreSQL 15, system identifier 7: warning

                repository main: memory store

                  no backups

                  nothing can be restored

                  no WAL

                warning  main: there is no backup
                         detail: Without one the archived WAL restores nothing.
                         hint: Run "kedge backup".

                """)
        #expect(result.status == 0)
    }

    @Test("a repository that can't be read is told, the others are shown, and the status is 1")
    func unreachable() throws {
        let (near, far) = (try sound(), try MemoryRepository(name: "far", walSegmentSize: 1 << 20))
        far.store.setReachable(false)
        let noKey = ConfiguredRepository(
            name: "third",
            source: .failure(
                KedgeError(.keyUnsafe, "cannot use key file \"/k\": other users have access to it", hint: "Run chmod."))
        )
        let result = try info([configured(far), configured(near), noKey])
        #expect(result.status == 1)
        let lines = text(result).split(separator: "\n")
        #expect(lines.first == "cluster main: PostgreSQL 15, system identifier 7: error")
        #expect(lines.contains { $0.hasPrefix("repository far can't be read: ") })
        #expect(lines.contains("repository main: memory store"))
        #expect(
            lines.contains(
                "repository third can't be read: cannot use key file \"/k\": other users have access to it"))
        #expect(
            lines.suffix(2) == [
                "ERROR    third: cannot use key file \"/k\": other users have access to it",
                "         hint: Run chmod.",
            ])
        let cluster = try #require(try JSONRecord(result.json, what: "info").records("clusters").first)
        #expect(try cluster.string("status") == "error")
        #expect(try cluster.records("repositories").map { try $0.bool("readable") } == [false, true, false])
        #expect(
            try cluster.records("messages").map { try $0.string("code") } == ["repository-unavailable", "key-unsafe"])
        #expect(try cluster.array("backups").count == 2)
    }
}

// What the planner says, word for word, on histories made by hand: which backup and why, what is proven, and for each
// refusal what is missing and which moment can be reached instead.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestorePlanTests {
    static let mega: UInt64 = 1 << 20

    /// A record of 0x1000 bytes at `offset` in segment `number`.
    static func record(
        _ id: Int, _ number: UInt64, _ offset: UInt64, _ kind: ModelRecord.Kind, length: UInt64 = 0x1000
    ) -> ModelRecord {
        let start = number * mega + offset
        return ModelRecord(id: id, start: LSN(start), end: LSN(start + length), kind: kind)
    }

    /// Second `second` of a day in November.
    static func time(_ second: Int64) -> Timestamp { Timestamp(secondsSince1970: 1_795_226_400 + second) }

    /// Segment 1: a backup from 0x1000 to 0x3000. Then transactions 701, 702 in segment 2 and 703 in segment 3, ten
    /// seconds
    /// apart, with a restore point after 702.
    static func trunk(_ backups: [CommitRecord]? = nil, archived: Set<UInt64> = [1, 2, 3]) throws -> HistoryModel {
        try HistoryModel([1: trunkRecords], archived: [1: archived], backups: backups ?? [backup()])
    }

    static let trunkRecords = [
        record(1, 1, 0x1000, .other), record(2, 1, 0x2000, .other), record(3, 1, 0x3000, .other, length: 0xFD000),
        record(4, 2, 0x0, .end(xid: 701, time: time(10))), record(5, 2, 0x1000, .end(xid: 702, time: time(20))),
        record(6, 2, 0x2000, .point("before_drop", time(21))), record(7, 2, 0x3000, .other, length: 0xFD000),
        record(8, 3, 0x0, .end(xid: 703, time: time(30))),
    ]

    static func backup(
        number: Int = 0, timeline: UInt32 = 1, stopTime: Int64 = 0, snapshot: String = "701:701:"
    ) -> CommitRecord {
        modelBackup(
            number: number, timeline: TimelineID(timeline), start: LSN(mega + 0x1000), stop: LSN(mega + 0x3000),
            stopTime: time(stopTime), snapshot: snapshot)
    }

    private func plan(_ model: HistoryModel, _ request: RestoreRequest) throws(KedgeError) -> RestorePlan {
        try RestorePlanner(request, backups: model.backups, archive: model.archive, knowledge: model).plan()
    }

    private func refusal(_ model: HistoryModel, _ request: RestoreRequest) throws -> String {
        let error = #expect(throws: KedgeError.self) { _ = try plan(model, request) }
        return try #require(error).description
    }

    // MARK: wal_level = minimal

    @Test("WAL of wal_level = minimal ends the plan where it begins, and what lies before stays within reach")
    func minimalWAL() throws {
        let memory = try MemoryRepository(walSegmentSize: 1 << 20)
        try memory.archive(1...6, minimal: [5])
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        let backup = CommitRecord.sample(
            label, start: LSN(2 << 20 + 40), stop: LSN(3 << 20 + 400), stopTime: MemoryRepository.commitTime(3))
        let cluster = try memory.cluster()
        let archive = WALArchive(cluster, cluster.newestRegistration)
        let planner = { (target: RecoveryTarget, named: Label?) throws in
            RestorePlanner(
                RestoreRequest(backup: named, target: target), backups: [backup],
                archive: ArchivedWAL(inventory: try archive.inventory(), histories: [:]),
                knowledge: try ArchiveKnowledge([archive], histories: [:], threads: 1))
        }
        for (target, named) in [
            (.latest, nil), (.latest, label), (.transaction(706, exclusive: false), label),
            (.lsn(LSN(6 << 20 + 40), exclusive: false), nil),
            (.time(MemoryRepository.commitTime(6), exclusive: true), nil),
        ] as [(RecoveryTarget, Label?)] {
            let error = #expect(throws: KedgeError.self) { _ = try planner(target, named).plan() }
            #expect(error?.code == .targetUnreachable, "\(target)")
            #expect(error?.detail?.contains("wal_level = minimal") == true, "\(error?.description ?? "")")
        }
        let last = try planner(.time(MemoryRepository.commitTime(5), exclusive: false), nil).plan()
        guard case .lsn(let lsn, false) = last.target else { Issue.record("\(last.target)"); return }
        #expect(lsn > LSN(5 << 20) && lsn < LSN(6 << 20) && last.lastRecord == lsn)
        #expect(try planner(.transaction(705, exclusive: false), nil).plan().stop?.record == lsn)
        #expect(try planner(.immediate, nil).plan().target == .immediate)
    }

    // MARK: Plans

    @Test("a time between two commits stops before the later one, and the plan names it")
    func timeTarget() throws {
        let found = try plan(Self.trunk(), RestoreRequest(target: .time(Self.time(15), exclusive: false)))
        #expect(found.stop?.record == LSN(2 * Self.mega + 0x1000))
        #expect(found.target == .time(Self.time(15), exclusive: false))
        #expect(
            found.proofs == [
                "WAL files 000000010000000000000001 to 000000010000000000000002 are archived without a gap.",
                "Recovery stops before the end of transaction 702 at 2026-11-21T02:00:20Z, LSN 0/201000, in "
                    + "000000010000000000000002.",
            ])
    }

    @Test("a time at a commit takes that commit in, exclusively not")
    func timeOfACommit() throws {
        let inclusive = try plan(Self.trunk(), RestoreRequest(target: .time(Self.time(20), exclusive: false)))
        #expect(inclusive.stop?.record == LSN(3 * Self.mega))
        let exclusive = try plan(Self.trunk(), RestoreRequest(target: .time(Self.time(20), exclusive: true)))
        #expect(exclusive.stop?.record == LSN(2 * Self.mega + 0x1000))
    }

    @Test("a time at the last commit goes to the last record: the server would wait for a later commit in vain")
    func timeOfTheLastCommit() throws {
        let found = try plan(Self.trunk(), RestoreRequest(target: .time(Self.time(30), exclusive: false)))
        #expect(found.target == .lsn(LSN(3 * Self.mega), exclusive: false))
        #expect(
            found.proofs.last
                == "The latest archived transaction ended at 2026-11-21T02:00:30Z. Nothing later is archived, so "
                + "recovery goes to the last record.")
    }

    @Test("a later backup of a primary shows that nothing was committed between; one of a standby does not")
    func laterBackupAsWitness() throws {
        let request = RestoreRequest(target: .time(Self.time(50), exclusive: false))
        var witness = Self.backup()
        witness.span.afterStopTime = Self.time(60)
        witness.span.afterStopLSN = LSN(3 * Self.mega)
        let found = try plan(Self.trunk([witness]), request)
        #expect(found.proofs.last?.hasPrefix("Backup \(witness.label) saw the WAL position 0/300000 at") == true)
        // It had replayed so far when its primary's clock showed that, and its primary may have gone on long before.
        witness.server.fromStandby = true
        let text = try refusal(Self.trunk([witness]), request)
        #expect(text.contains("code: target-unreachable"), "\(text)")
    }

    @Test("the end of the archive is a number (ask 2)")
    func latest() throws {
        let found = try plan(Self.trunk(), RestoreRequest())
        #expect(found.target == .lsn(LSN(3 * Self.mega), exclusive: false))
        #expect(
            found.proofs.last
                == "The last archived record begins at LSN 0/300000; the latest transaction in it ended at "
                + "2026-11-21T02:00:30Z.")
        #expect(try plan(Self.trunk(), RestoreRequest(standby: true)).target == .none)
    }

    @Test("a backup that ended behind the archived WAL makes its end a hole: latest is refused, a moment before is not")
    func backupBehindTheEnd() throws {
        let older = Self.backup(number: 0)
        var newer = Self.backup(number: 1, stopTime: 25)
        newer.span.startLSN = LSN(2 * Self.mega + 0x3000)
        newer.span.stopLSN = LSN(3 * Self.mega)
        let model = try Self.trunk([older, newer], archived: [1])
        #expect(try refusal(model, RestoreRequest()).contains("backup \"\(newer.label)\" cannot become consistent"))
        let text = try refusal(model, RestoreRequest(backup: older.label))
        #expect(text.contains("the archived WAL has a hole"), "\(text)")
        #expect(
            text.contains(
                "WAL file 000000010000000000000002 is missing, while backup \(newer.label) ended behind it."), "\(text)"
        )
        #expect(text.contains("give \"--target-lsn "), "\(text)")
        let immediate = try plan(model, RestoreRequest(backup: older.label, target: .immediate))
        #expect(immediate.backup.label == older.label)
        // Without the newer one nothing shows that there was more.
        #expect(try plan(Self.trunk([older], archived: [1]), RestoreRequest()).backup.label == older.label)
        #expect(try plan(Self.trunk([older, newer]), RestoreRequest()).backup.label == newer.label)
    }

    @Test("a backup history file that names a later segment makes the end of the archive a hole as well")
    func backupHistoryBehindTheEnd() throws {
        let model = try Self.trunk(archived: [1, 2])
        func planner(_ number: Int) -> RestorePlanner {
            var inventory = model.archive.inventory
            inventory.add(objectNamed: "00000001000000000000000\(number).00000028.backup", storedBytes: 1)
            return RestorePlanner(
                RestoreRequest(), backups: model.backups, archive: model.archive.holding(inventory), knowledge: model)
        }
        #expect(try planner(2).plan().chain.endsInHole == false)
        let error = #expect(throws: KedgeError.self) { _ = try planner(3).plan() }
        #expect(
            error?.detail
                == "Recovery would end before it: WAL file 000000010000000000000003 is missing, while "
                + "000000010000000000000003.00000028.backup says that a base backup began there or behind it.")
    }

    @Test("a base backup that began before a fork shows nothing about the branch, one of the branch does")
    func backupHistoryBeforeAFork() throws {
        let whole = try Self.branched()
        let model = try HistoryModel(
            [1: Self.trunkRecords, 2: Self.trunkRecords],
            ancestors: [2: [(timeline: TimelineID(1), switchPoint: LSN(2 * Self.mega + 0x1000))]],
            archived: [1: [1, 2], 2: []], backups: whole.backups)
        func planner(_ timeline: Int) -> RestorePlanner {
            var inventory = model.archive.inventory
            inventory.add(objectNamed: "0000000\(timeline)0000000000000002.00000028.backup", storedBytes: 1)
            return RestorePlanner(
                RestoreRequest(), backups: model.backups, archive: model.archive.holding(inventory), knowledge: model)
        }
        #expect(try planner(1).plan().timeline == TimelineID(2))
        let error = #expect(throws: KedgeError.self) { _ = try planner(2).plan() }
        #expect(error?.detail?.contains("000000020000000000000002 is missing") == true, "\(String(describing: error))")
    }

    @Test("a transaction that the backup's snapshot shows as ended needs an older backup")
    func transactionInSnapshot() throws {
        let older = Self.backup(number: 0)
        var newer = Self.backup(number: 1, stopTime: 25, snapshot: "702:703:702")
        newer.span.startLSN = LSN(2 * Self.mega + 0x3000)
        newer.span.stopLSN = LSN(3 * Self.mega)
        let model = try Self.trunk([older, newer])
        let ended = try plan(model, RestoreRequest(target: .transaction(701, exclusive: false)))
        #expect(ended.backup.label == older.label)
        // 702 was still running when the newer backup was taken, but it ended before it in the log: nothing finds it.
        let later = try plan(model, RestoreRequest(target: .transaction(703, exclusive: false)))
        #expect(later.backup.label == newer.label)
        // With an epoch, as pg_current_xact_id() prints it.
        let epoch = try plan(
            try Self.trunk([Self.backup(snapshot: "4294967997:4294967997:")]),
            RestoreRequest(target: .transaction(4_294_967_296 + 702, exclusive: false)))
        #expect(epoch.stop?.record == LSN(2 * Self.mega + 0x1000))
    }

    @Test("a transaction of another epoch is not the one in the WAL, whose low 32 bits are the same")
    func otherEpoch() throws {
        let epochs: [UInt64] = [1, 2, 7, UInt64(UInt32.max)]
        for epoch in epochs {
            for exclusive in [false, true] {
                let text = try refusal(
                    Self.trunk(), RestoreRequest(target: .transaction(epoch << 32 + 702, exclusive: exclusive)))
                #expect(text.contains("its epoch is 0, not \(epoch)") && text.contains("--target-xid 702"), "\(text)")
            }
        }
        let third = try Self.trunk([Self.backup(snapshot: "12884902589:12884902589:")])
        let target = UInt64(3) << 32 + 702
        #expect(
            try plan(third, RestoreRequest(target: .transaction(target, exclusive: false))).stop?.record
                == LSN(2 * Self.mega + 0x1000))
        // Without an epoch the nearest is meant, as for the server.
        #expect(
            try plan(third, RestoreRequest(target: .transaction(702, exclusive: false))).stop?.record
                == LSN(2 * Self.mega + 0x1000))
        for epoch in epochs where epoch > 3 {
            let text = try refusal(third, RestoreRequest(target: .transaction(epoch << 32 + 702, exclusive: false)))
            #expect(text.contains("--target-xid \(target)"), "\(text)")
        }
    }

    @Test("recovery to the end of a backup stays on the backup's own timeline (lesson 43)")
    func immediate() throws {
        let found = try plan(Self.branched(), RestoreRequest(target: .immediate))
        #expect(found.timeline == TimelineID(1))
        #expect(found.target == .immediate)
        let latest = try plan(Self.branched(), RestoreRequest())
        #expect(latest.timeline == TimelineID(2))
    }

    @Test("a partial segment is used where the whole one is missing, and the plan says which")
    func partial() throws {
        let model = try HistoryModel(
            [1: Self.trunkRecords], archived: [1: [1, 2]], partials: [1: [3]], backups: [Self.backup()])
        let found = try plan(model, RestoreRequest(target: .transaction(703, exclusive: false)))
        #expect(found.partial == WALSegment(timeline: TimelineID(1), number: 3))
        let before = try plan(model, RestoreRequest(target: .transaction(702, exclusive: false)))
        #expect(before.partial == nil)
    }

    // MARK: Branches

    /// Timeline 2 leaves the trunk after transaction 701 and commits 702 at second 100.
    static func branched() throws -> HistoryModel {
        let fork = LSN(2 * mega + 0x1000)
        let branch =
            trunkRecords.prefix(4) + [
                record(11, 2, 0x1000, .other), record(12, 2, 0x2000, .end(xid: 702, time: time(100))),
                record(13, 2, 0x3000, .end(xid: 703, time: time(110))),
            ]
        return try HistoryModel(
            [1: trunkRecords, 2: Array(branch)], ancestors: [2: [(timeline: TimelineID(1), switchPoint: fork)]],
            archived: [1: [1, 2, 3], 2: [2]], backups: [backup()])
    }

    @Test("a time between a fork and the new branch's first commit is refused with both branches")
    func ambiguousTime() throws {
        let text = try refusal(try Self.branched(), RestoreRequest(target: .time(Self.time(25), exclusive: false)))
        #expect(
            text == """
                cannot tell which state of time 2026-11-21T02:00:25Z is meant: the timelines part before it
                code: target-ambiguous
                detail: Timeline 2 branched off at LSN 0/201000 and its first transaction ended at \
                2026-11-21T02:01:40Z. Timeline 1 went on there with a transaction that ended at 2026-11-21T02:00:20Z.
                hint: For the state on the branch add "--target-timeline 2"; for what timeline 1 held then add \
                "--target-timeline 1".
                """)
    }

    @Test("a time before the fork, or after the new branch's first commit, is not ambiguous")
    func unambiguousTimes() throws {
        let model = try Self.branched()
        for second in [5, 15, 105] as [Int64] {
            let found = try plan(model, RestoreRequest(target: .time(Self.time(second), exclusive: false)))
            #expect(found.timeline == TimelineID(2))
        }
        let asked = RestoreRequest(
            target: .time(Self.time(25), exclusive: false), timeline: .number(TimelineID(1)))
        #expect(try plan(model, asked).stop?.record == LSN(3 * Self.mega))
    }

    @Test("archived WAL of a newer timeline without its history is never passed over in silence")
    func missingHistory() throws {
        let model = try HistoryModel(
            [1: Self.trunkRecords, 2: Self.trunkRecords], archived: [1: [1, 2, 3], 2: [3]], backups: [Self.backup()])
        let text = try refusal(model, RestoreRequest())
        let message = "cannot restore to the end of the archived WAL: the history of timeline 2 is not archived"
        #expect(text.hasPrefix(message))
        #expect(try plan(model, RestoreRequest(timeline: .number(TimelineID(1)))).timeline == TimelineID(1))
    }

    @Test("a backup of another timeline of the same number is not taken for one of the archive's")
    func twinTimeline() throws {
        let model = try Self.branched()
        var twin = Self.backup(number: 5, timeline: 2)
        twin.span.startLSN = LSN(2 * Self.mega + 0x2000)
        twin.span.stopLSN = LSN(2 * Self.mega + 0x3000)
        func chosen(switchLSN: LSN) throws -> Label {
            twin.span.history = [.init(timeline: TimelineID(1), switchLSN: switchLSN)]
            let planner = RestorePlanner(
                RestoreRequest(), backups: model.backups + [twin], archive: model.archive, knowledge: model)
            return try planner.plan().backup.label
        }
        #expect(try chosen(switchLSN: LSN(2 * Self.mega + 0x2000)) == Self.backup().label)
        #expect(try chosen(switchLSN: LSN(2 * Self.mega + 0x1000)) == twin.label)
    }

    @Test("a target that only another timeline reaches is refused with that timeline's number")
    func otherTimeline() throws {
        let text = try refusal(try Self.branched(), RestoreRequest(target: .name("before_drop")))
        #expect(text.contains("hint: It can be reached on timeline 1: add \"--target-timeline 1\"."))
    }

    // MARK: Refusals

    @Test("each refusal says what is missing and what can be reached instead (ask 2)")
    func refusals() throws {
        let label = Self.backup().label
        let trunk = try Self.trunk()
        #expect(
            try refusal(trunk, RestoreRequest(target: .time(Self.time(60), exclusive: false))) == """
                cannot restore to time 2026-11-21T02:01:00Z: recovery would not get there
                code: target-unreachable
                detail: No transaction in the WAL from backup \(label) on ended later: the archive ends before WAL \
                file \
                000000010000000000000004. The latest transaction in it ended at 2026-11-21T02:00:30Z.
                hint: The nearest moment that can be reached is the end of what is archived: leave out the target.
                """)
        #expect(
            try refusal(trunk, RestoreRequest(target: .time(Self.time(-60), exclusive: false))) == """
                cannot restore to time 2026-11-21T01:59:00Z: it lies before the end of the oldest backup
                code: target-unreachable
                detail: The oldest backup on the way to timeline 1, \(label), ended at 2026-11-21T02:00:00Z, LSN \
                0/103000.
                hint: The nearest moment that can be reached is the end of that backup: give "--backup \(label) \
                --target-immediate" instead of the target.
                """)
        #expect(
            try refusal(trunk, RestoreRequest(target: .name("nope"))) == """
                cannot restore to restore point "nope": recovery would not get there
                code: target-unreachable
                detail: It is not in the WAL from backup \(label) on: the archive ends before WAL file \
                000000010000000000000004. The latest transaction in it ended at 2026-11-21T02:00:30Z. The latest \
                restore \
                points in it: "before_drop".
                hint: Check how the name is written: it has to be the same, letter by letter.  Or give the moment that \
                you want with "--target-time".
                """)
        #expect(
            try refusal(
                trunk, RestoreRequest(backup: label, target: .lsn(LSN(Self.mega + 0x2800), exclusive: false))) == """
                    cannot restore to LSN 0/102800: it lies before the end of backup "\(label)"
                    code: target-unreachable
                    detail: Recovery would stop at LSN 0/102800, but the backup is consistent only from LSN 0/103000 on.
                    hint: Leave out "--backup" to have an older one chosen, or give "--target-immediate" for the end \
                    of this \
                    one.
                    """)
        #expect(
            try refusal(trunk, RestoreRequest(timeline: .number(TimelineID(9)))) == """
                cannot restore to the end of the archived WAL: the history of timeline 9 is not archived
                code: target-unreachable
                detail: Without file 00000009.history PostgreSQL follows no timeline but 1. The archive can serve \
                timeline \
                1.
                hint: Archive that file from pg_wal of a server on that timeline, or choose another with \
                "--target-timeline".
                """)
    }

    @Test("a hole in the WAL is refused, with the last record before it")
    func hole() throws {
        let model = try Self.trunk(archived: [1, 3])
        let text = try refusal(model, RestoreRequest())
        #expect(
            text == """
                cannot restore to the end of the archived WAL: the archived WAL has a hole
                code: target-unreachable
                detail: Recovery would end before it: WAL file 000000010000000000000002 is missing, while \
                000000010000000000000003 is archived.
                hint: Look for the missing file in pg_wal of the server or in another repository and archive it with \
                "kedge archive-push". To recover up to there, give "--target-lsn 0/103000".
                """)
        let upTo = RestoreRequest(target: .lsn(LSN(Self.mega + 0x3000), exclusive: false))
        #expect(try plan(model, upTo).stop != nil)
    }

    @Test("from PostgreSQL 15 on the server must not read ahead where WAL is missing behind the target")
    func readingAhead() throws {
        let upTo = RestoreRequest(target: .lsn(LSN(Self.mega + 0x3000), exclusive: false))
        for request in [upTo, RestoreRequest(target: .immediate)] {
            #expect(try !plan(Self.trunk(archived: [1, 3]), request).mayReadAhead)
            // The end of the archive is no hole, and older servers do not look ahead.
            #expect(try plan(Self.trunk(archived: [1, 2, 3]), request).mayReadAhead)
            #expect(try plan(Self.trunk(archived: [1]), request).mayReadAhead)
            var older = Self.backup()
            older.server.postgresVersion = 14
            #expect(try plan(Self.trunk([older], archived: [1, 3]), request).mayReadAhead)
        }
        // A standby goes on when the file is there again.
        #expect(try plan(Self.trunk(archived: [1, 3]), RestoreRequest(standby: true)).mayReadAhead)
    }

    @Test("a backup whose own WAL is missing is refused")
    func backupWithoutWAL() throws {
        let model = try Self.trunk(archived: [2, 3])
        #expect(
            try refusal(model, RestoreRequest()) == """
                cannot restore to the end of the archived WAL: backup "\(Self.backup().label)" cannot become consistent
                code: target-unreachable
                detail: It needs the WAL up to LSN 0/103000, and WAL file 000000010000000000000001 is missing, while \
                000000010000000000000002 is archived.
                hint: Look for the missing file in pg_wal of the server or in another repository and archive it with \
                "kedge archive-push", or choose another backup.
                """)
    }

    @Test("without any backup, or without the one that was named, there is nothing to restore")
    func noBackup() throws {
        let error = #expect(throws: KedgeError.self) { _ = try plan(Self.trunk([]), RestoreRequest()) }
        #expect(error?.code == .notFound)
        let label = try #require(Label("20200101T000000Z-full-zzzz"))
        let text = try refusal(Self.trunk(), RestoreRequest(backup: label))
        #expect(
            text.hasPrefix("cannot restore backup \"\(label)\": the repository holds no such backup\ncode: not-found"))
    }
}

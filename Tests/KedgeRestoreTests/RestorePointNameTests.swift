// Which of several restore points of one name a plan stops at, and that nobody gets one for another unawares.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRestore
import Testing

@Suite struct RestorePointNameTests {
    private typealias Base = RestorePlanTests

    /// Restore points "nightly" in segments 2, 3 and 4, ten seconds apart, and a backup before each of `backups`.
    private func model(_ backups: [Int]) throws -> HistoryModel {
        var records = [
            Base.record(1, 1, 0x1000, .other), Base.record(2, 1, 0x2000, .other),
            Base.record(3, 1, 0x3000, .other, length: 0xFD000),
        ]
        for segment in UInt64(2)...4 {
            let time = Base.time(Int64(segment) * 10)
            records.append(Base.record(Int(segment) * 10, segment, 0, .other, length: 0x2000))
            records.append(Base.record(Int(segment) * 10 + 1, segment, 0x2000, .point("nightly", time)))
            records.append(
                Base.record(Int(segment) * 10 + 2, segment, 0x3000, .end(xid: UInt32(700 + segment), time: time)))
            records.append(Base.record(Int(segment) * 10 + 3, segment, 0x4000, .other, length: 0xFC000))
        }
        return try HistoryModel([1: records], archived: [1: [1, 2, 3, 4]], backups: backups.map(backup))
    }

    /// From the beginning of a segment to just before its restore point.
    private func backup(_ segment: Int) -> CommitRecord {
        if segment == 1 { return Base.backup(number: 1) }
        let start = UInt64(segment) * Base.mega
        return modelBackup(
            number: segment, timeline: TimelineID(1), start: LSN(start), stop: LSN(start + 0x2000),
            stopTime: Base.time(Int64(segment) * 10 - 5))
    }

    private func plan(_ model: HistoryModel, _ label: Label? = nil, name: String = "nightly") throws(KedgeError)
        -> RestorePlan
    {
        try planner(model, label, name, knowledge: model).plan()
    }

    private func planner(
        _ model: HistoryModel, _ label: Label? = nil, _ name: String = "nightly", knowledge: any WALKnowledge,
        limit: Int? = nil
    ) -> RestorePlanner {
        var planner = RestorePlanner(
            RestoreRequest(backup: label, target: .name(name)), backups: model.backups, archive: model.archive,
            knowledge: knowledge)
        if let limit { planner.namesakeLimit = limit }
        return planner
    }

    /// Counts the segments that are asked for; those in `unreadable` cannot be read.
    private final class Counted: WALKnowledge {
        let model: HistoryModel
        let unreadable: Set<UInt64>
        private(set) var asked: [UInt64] = []

        init(_ model: HistoryModel, unreadable: Set<UInt64> = []) {
            self.model = model
            self.unreadable = unreadable
        }

        func summary(of link: WALLink) throws(KedgeError) -> WALSummary {
            asked.append(link.segment.number)
            if unreadable.contains(link.segment.number) {
                throw KedgeError(.damaged, "segment \(link.segment.number) is damaged", hint: "x")
            }
            return try model.summary(of: link)
        }

        func detail(of link: WALLink, upTo limit: LSN) throws(KedgeError) -> WALDetail {
            try model.detail(of: link, upTo: limit)
        }
    }

    private func point(_ segment: UInt64) -> LSN { LSN(segment * Base.mega + 0x2000) }

    @Test("behind one backup recovery stops at the first, and the plan names the next with its moment")
    func first() throws {
        let model = try model([1])
        for label in [nil, model.backups[0].label] {
            let found = try plan(model, label)
            #expect(found.stop?.record == point(2))
            #expect(
                found.warnings == [
                    "Restore point \"nightly\" was made more than once: recovery stops at the first that it meets, and "
                        + "another was made at 2026-11-21T02:00:30Z, LSN 0/302000.  For that one give \"--target-lsn "
                        + "0/302000\" instead."
                ])
        }
        // What the warning says leads there, and just there.
        let other = RestoreRequest(target: .lsn(point(3), exclusive: false))
        let found = try RestorePlanner(other, backups: model.backups, archive: model.archive, knowledge: model).plan()
        #expect(found.stop?.record == point(3))
    }

    @Test("where the backup decides which is meant the restore is refused, with a backup for each")
    func ambiguous() throws {
        let model = try model([1, 3])
        let error = #expect(throws: KedgeError.self) { _ = try plan(model) }
        let (older, newer) = (model.backups[0].label, model.backups[1].label)
        #expect(
            error?.description == """
                cannot tell which restore point "nightly" is meant: it was made more than once
                code: target-ambiguous
                detail: One was made at 2026-11-21T02:00:20Z, LSN 0/202000, after backup \(older); another at \
                2026-11-21T02:00:30Z, LSN 0/302000, after backup \(newer).  Recovery stops at the first that it meets.
                hint: For the newer one add "--backup \(newer)"; for the older one add "--backup \(older)".
                """)
        #expect(try plan(model, older).stop?.record == point(2))
        let chosen = try plan(model, newer)
        #expect(chosen.stop?.record == point(3))
        #expect(chosen.warnings.count == 1)
    }

    @Test("the newest alone is no second one, and neither is one that only a backup that cannot be used would reach")
    func single() throws {
        // The first two lie before the only backup.
        let model = try model([4])
        #expect(try plan(model).stop?.record == point(4))
        #expect(try plan(model).warnings.isEmpty)
        let two = try self.model([1, 4])
        #expect(throws: KedgeError.self) { _ = try plan(two) }
        var inventory = WALInventory(segmentSize: Base.mega)
        for number in [UInt64(4)] {
            let segment = WALSegment(timeline: TimelineID(1), number: number)
            inventory.add(objectNamed: segment.fileName(segmentSize: Base.mega), storedBytes: 1)
        }
        let planner = RestorePlanner(
            RestoreRequest(target: .name("nightly")), backups: two.backups, archive: two.archive.holding(inventory),
            knowledge: two)
        #expect(try planner.plan().stop?.record == point(4))
    }

    @Test("a second one is looked for in so many segments, and beyond them the plan says that it is not known")
    func limit() throws {
        // Behind the stop: the segment of the stop itself is the first.
        let forward = try model([1])
        let few = Counted(forward)
        let found = try planner(forward, knowledge: few, limit: 1).plan()
        #expect(found.stop?.record == point(2))
        #expect(few.asked == [1, 2, 2])
        #expect(
            found.warnings == [
                "It is not known whether a later restore point has the same name: only 1 WAL segments were searched "
                    + "for one."
            ])
        #expect(try planner(forward, knowledge: forward, limit: 2).plan().warnings.count == 1)
        // Before the backup: segments 1 to 4, of which the last is looked at up to the backup's stop.
        let backward = try model([1, 4])
        for limit in [0, 1] {
            let few = Counted(backward)
            let found = try planner(backward, knowledge: few, limit: limit).plan()
            #expect(found.stop?.record == point(4))
            #expect(few.asked.filter { $0 < 4 }.count == limit)
            #expect(
                found.warnings.last
                    == "It is not known whether an earlier restore point has the same name: only \(limit) WAL segments "
                    + "were searched for one.")
        }
        #expect(throws: KedgeError.self) { _ = try planner(backward, knowledge: backward, limit: 2).plan() }
        // What is before the backup and cannot be read.
        let damaged = try planner(backward, knowledge: Counted(backward, unreadable: [1])).plan()
        #expect(
            damaged.warnings == [
                "It is not known whether an earlier restore point has the same name: segment 1 is damaged."
            ])
    }

    @Test("looking for an earlier one does not look on behind it")
    func earlierOnly() throws {
        let model = try model([1, 3])
        let counted = Counted(model)
        #expect(throws: KedgeError.self) { _ = try planner(model, knowledge: counted).plan() }
        #expect(counted.asked == [3, 3, 4, 1, 2])
    }

    @Test("a name that nobody gave is never answered with a way to recover beyond it")
    func unknown() throws {
        for segments in [[1], [1, 3], [4]] {
            let model = try model(segments)
            let error = #expect(throws: KedgeError.self) { _ = try plan(model, name: "nigthly") }
            #expect(error?.code == .targetUnreachable)
            #expect(error?.detail?.contains("\"nightly\"") == true, "\(error?.detail ?? "")")
            #expect(error?.hint?.hasPrefix("Check how the name is written") == true)
            let transaction = RestoreRequest(target: .transaction(9999, exclusive: false))
            let other = #expect(throws: KedgeError.self) {
                _ = try RestorePlanner(
                    transaction, backups: model.backups, archive: model.archive, knowledge: model
                ).plan()
            }
            #expect(other?.hint?.contains("leave out") == false, "\(other?.hint ?? "")")
        }
    }
}

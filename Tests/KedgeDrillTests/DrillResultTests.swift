// That a drill proves no more of the log than it has replayed, and nothing where it did not end where it should.
import KedgeCatalog
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct DrillResultTests {
    private let noon = Timestamp(secondsSince1970: 1_795_262_400)

    private func result(
        _ target: RecoveryTarget, timeline: UInt32? = 2, replayed: UInt64?, isReached: Bool = true
    ) throws -> DrillResult {
        let backup = CommitRecord.sample(
            try #require(Label("20261121T000001Z-full-aaaa")), start: LSN(0x300_0028), stop: LSN(0x300_0100))
        let end = replayed.map { RecoveryEnd(replayLSN: backup.span.stopLSN + $0, lastTransactionTime: noon) }
        return DrillResult(
            backup: backup, target: target, timeline: timeline.map { TimelineID($0) }, end: end, isReached: isReached)
    }

    @Test("the WAL between the backup's end and the end of replay is proven, on the timeline of the plan")
    func coverage() throws {
        let result = try result(.latest, replayed: 0x1234)
        let stop = result.backup.span.stopLSN
        #expect(
            result.coverage
                == .init(timeline: TimelineID(2), fromLSN: stop, toLSN: stop + 0x1234, toTime: noon))
        #expect(try self.result(.immediate, replayed: 0).coverage?.toLSN == stop)
    }

    @Test("nothing is proven where the target was not reached, replay did not end, or nothing was planned")
    func noCoverage() throws {
        #expect(try result(.latest, replayed: 0x1234, isReached: false).coverage == nil)
        #expect(try result(.latest, replayed: nil).coverage == nil)
        #expect(try result(.latest, timeline: nil, replayed: 0x1234).coverage == nil)
        let short = try result(.immediate, replayed: 0)
        let early = DrillResult(
            backup: short.backup, target: .immediate, timeline: TimelineID(2),
            end: RecoveryEnd(replayLSN: LSN(short.backup.span.stopLSN.position - 1)), isReached: true)
        #expect(early.coverage == nil)
    }

    @Test("the proof names what was asked for and, where replay ended, the place")
    func target() throws {
        let kinds: [(RecoveryTarget, String, String?)] = [
            (.latest, "latest", nil), (.immediate, "immediate", nil), (.time(noon, exclusive: true), "time", "\(noon)"),
            (.transaction(812, exclusive: false), "xid", "812"),
            (.lsn(LSN(0x300_1000), exclusive: false), "lsn", "0/3001000"),
            (.name("before"), "name", "before"),
        ]
        for (target, kind, value) in kinds {
            let reached = try result(target, replayed: 8).provenTarget
            #expect(reached.kind == kind && reached.value == value)
            #expect(reached.reachedTimeline == TimelineID(2) && reached.reachedTime == noon)
            #expect(try result(target, replayed: nil).provenTarget == .init(kind: kind, value: value))
        }
    }
}

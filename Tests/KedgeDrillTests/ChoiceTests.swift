// That random choices stay within what can be recovered, and that a verdict follows from the record alone.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRestore
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct ChoiceTests {
    private func label(_ number: Int) throws -> Label {
        let digits = String(number)
        return try #require(Label("20261121T\(String(repeating: "0", count: 6 - digits.count))\(digits)Z-full-aaaa"))
    }

    /// Windows as `info` gives them: in each, backups lie before its end.
    private func windows(_ random: SeededRandom) throws -> [DrillWindow] {
        var windows: [DrillWindow] = []
        var number = 0
        for timeline in 1...(1 + random.next(below: 3)) {
            for part in 0..<random.next(below: 3) {
                let base = UInt64(timeline * 1000 + part * 300) << 24
                var backups: [DrillWindow.Backup] = []
                for index in 0..<(1 + random.next(below: 3)) {
                    number += 1
                    backups.append(
                        .init(
                            label: try label(number), stopLSN: LSN(base + UInt64(index) << 24),
                            stopTime: Timestamp(secondsSince1970: Int64(1_000_000 + number * 100))))
                }
                let last = backups[backups.count - 1]
                let hasTime = random.next(below: 4) > 0
                windows.append(
                    DrillWindow(
                        timeline: TimelineID(UInt32(timeline)),
                        toLSN: last.stopLSN + UInt64(random.next(below: 3)) << 20,
                        toTime: hasTime ? last.stopTime.adding(seconds: Int64(random.next(below: 50))) : nil,
                        backups: backups))
            }
        }
        return windows
    }

    @Test("5000 random choices lie in the newest window that can serve them, after the backup")
    func choices() throws {
        let random = SeededRandom(seed: testSeed())
        var kinds: Set<String> = []
        for _ in 0..<5000 {
            let windows = try windows(random)
            let wish: DrillWish =
                switch random.next(below: 3) {
                case 0: .random
                case 1: .randomTarget(nil)
                default: .randomTarget(windows.last?.backups.first?.label)
                }
            guard !windows.isEmpty else {
                #expect(throws: KedgeError.self) { try wish.request(in: windows, random: random) }
                continue
            }
            let request = try wish.request(in: windows, random: random)
            guard case .number(let timeline) = request.timeline else {
                Issue.record("no timeline")
                continue
            }
            let serving = windows.filter { window in
                request.backup.map { label in window.backups.contains { $0.label == label } } ?? true
            }
            let window = try #require(serving.max { ($0.timeline, $0.toLSN) < ($1.timeline, $1.toLSN) })
            #expect(window.timeline == timeline)
            let first = try #require(
                request.backup.map { label in window.backups.first { $0.label == label } } ?? window.backups.first)
            switch request.target {
            case .time(let time, exclusive: false):
                kinds.insert("time")
                #expect(time >= first.stopTime && time <= (window.toTime ?? time))
                #expect(window.toTime != nil)
            case .lsn(let lsn, exclusive: false):
                kinds.insert("lsn")
                #expect(lsn >= first.stopLSN && lsn <= window.toLSN)
            case .immediate:
                kinds.insert("immediate")
                #expect(window.toLSN == first.stopLSN)
            default: Issue.record("\(request.target)")
            }
            #expect(!request.standby)
        }
        #expect(kinds == ["time", "lsn", "immediate"])
    }

    @Test("what was asked for is drilled, not something random")
    func given() throws {
        let request = RestoreRequest(target: .name("before"))
        #expect(try DrillWish.given(request).request(in: [], random: SeededRandom(seed: 1)) == request)
    }

    // MARK: - Verdict

    private func proof(
        _ checks: [ProofRecord.Check.Result], _ objectives: ProofRecord.Objectives?
    ) throws -> ProofRecord {
        let list = CheckList(time: SystemTimeSource())
        for check in checks {
            switch check {
            case .passed: list.add("a", .passed())
            case .failed: list.add("a", .failed("wrong"))
            case .skipped: list.add("a", .skipped("no"))
            case .warning: list.add("a", .warning("hm"))
            }
        }
        return ProofRecord(
            label: try label(1), level: .drilled, result: list.hasFailed ? .failed : .passed, repositoryName: "main",
            repositoryID: .zero, manifest: .init(length: 1, checksum: ContentHash(of: [])),
            started: Timestamp(secondsSince1970: 1), finished: Timestamp(secondsSince1970: 2), hostName: "h",
            createdBy: "k", checks: list.checks, objectives: objectives)
    }

    @Test("a failed check is status 3, a missed objective 1, warnings and skipped checks are 0")
    func verdicts() throws {
        let random = SeededRandom(seed: testSeed())
        for _ in 0..<2000 {
            let checks = (0..<random.next(below: 6)).map { _ in
                ProofRecord.Check.Result.allCases[random.next(below: 4)]
            }
            func goal() -> UInt64? { random.next(below: 2) == 0 ? nil : UInt64(random.next(below: 10)) }
            let objectives = ProofRecord.Objectives(
                rtoSeconds: goal(), measuredSeconds: UInt64(random.next(below: 10)), rpoSeconds: goal(),
                lagSeconds: goal())
            let isSlow = objectives.rtoSeconds.map { $0 < objectives.measuredSeconds } ?? false
            let isOld = objectives.rpoSeconds.map { goal in objectives.lagSeconds.map { $0 > goal } ?? true } ?? false
            let expected: Int32 = checks.contains(.failed) ? 3 : isSlow || isOld ? 1 : 0
            #expect(DrillVerdict(try proof(checks, objectives)).exitStatus == expected)
        }
        #expect(DrillVerdict(try proof([.passed], nil)) == .proven)
    }

    @Test("the record of a thousand databases stays short, and keeps every failure's name up to a limit")
    func manyChecks() {
        let list = CheckList(time: SystemTimeSource())
        for number in 0..<1000 { list.add("connect", on: "db\(number)", .passed()) }
        #expect(list.checks.count == 1)
        #expect(!list.hasFailed)
        for number in 0..<1000 { list.add("amcheck", on: "i\(number)", .failed("bad")) }
        #expect(list.checks.count == 102)
        #expect(list.hasFailed)
    }

    @Test("no number of warnings hides a failure, nor the name of what failed")
    func failureBehindWarnings() throws {
        let random = SeededRandom(seed: testSeed())
        for others in [0, 99, 100, 101, 1000] {
            let list = CheckList(time: SystemTimeSource())
            for number in 0..<others {
                list.add("amcheck", on: "i\(number)", random.next(below: 2) == 0 ? .warning("hm") : .skipped("no"))
            }
            #expect(!list.hasFailed)
            list.add("amcheck", on: "heap", .failed("bad"))
            for _ in 0..<others { list.add("amcheck", .warning("hm")) }
            #expect(list.hasFailed, "\(others) others")
            #expect(list.checks.filter { $0.result == .failed }.map(\.subject) == ["heap"], "\(others) others")
            #expect(list.checks.count <= 203)
        }
    }
}

// The statuses that PostgreSQL acts on: every outcome in every situation, against the rules of design.md section 5
// written down a second time, as a table.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct ExitStatusTests {
    @Test("archive-get says 1 only for proven absence, or where the server asks again (lesson 29)")
    func archiveGet() {
        // (situation, override) → what every failure but an interruption ends with
        let rows: [(RecoverySituation, UnavailableAnswer?, Int32)] = [
            (.noSignalFile, nil, 126), (.noSignalFile, .abort, 126), (.noSignalFile, .absent, 1),
            (.recovery, nil, 126), (.recovery, .abort, 126), (.recovery, .absent, 1),
            (.standby, nil, 1), (.standby, .abort, 126), (.standby, .absent, 1),
        ]
        for (situation, answer, expected) in rows {
            func status(_ outcome: ArchiveGetAnswer) -> Int32 {
                ExitStatus.archiveGet(outcome, in: situation, onUnavailable: answer)
            }
            #expect(status(.found) == 0)
            #expect(status(.provenAbsent) == 1)
            for code in ErrorCode.allCases {
                #expect(status(.failed(code)) == (code == .interrupted ? 130 : expected), "\(code) \(situation)")
            }
        }
    }

    @Test("archive-push stays at 125 or below and is never 0 for an error (lesson 29)")
    func archivePush() {
        for code in ErrorCode.allCases {
            #expect((1...125).contains(ExitStatus.archivePush(code)))
        }
        #expect(ExitStatus.archivePush(.interrupted) == 1)
        #expect(ExitStatus.archivePush(.configuration) == 2)
    }

    @Test("other commands use the few statuses of the manual")
    func other() {
        let expected: [ErrorCode: Int32] = [
            .usage: 2, .configuration: 2, .notSupported: 2, .damaged: 3, .pageDamaged: 3, .unsafePath: 3, .locked: 4,
            .interrupted: 130,
        ]
        for code in ErrorCode.allCases { #expect(ExitStatus.other(code) == expected[code] ?? 1, "\(code)") }
    }

    @Test("the signal file of the data directory decides, and standby.signal wins")
    func situation() {
        func detect(_ files: Set<String>) -> RecoverySituation { .detect { files.contains($0) } }
        #expect(detect([]) == .noSignalFile)
        #expect(detect(["recovery.signal"]) == .recovery)
        #expect(detect(["standby.signal"]) == .standby)
        #expect(detect(["standby.signal", "recovery.signal"]) == .standby)
    }
}

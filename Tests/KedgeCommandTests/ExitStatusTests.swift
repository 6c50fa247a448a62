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

    @Test("a standby is never told that a timeline which is known to exist has no history")
    func historyOnStandby() {
        func status(_ history: LocalTimeline, _ answer: UnavailableAnswer? = nil) -> Int32 {
            ExitStatus.archiveGet(
                .failed(.repositoryUnavailable), in: .standby, onUnavailable: answer, history: history)
        }
        #expect(status(.exists) == 126)
        #expect(status(.unknown) == 1)
        #expect(status(.hasHistory) == 1)
        #expect(status(.hasHistory, .abort) == 1)
        #expect(status(.exists, .absent) == 1)
        #expect(status(.unknown, .abort) == 126)
        for history in LocalTimeline.allCases {
            #expect(
                ExitStatus.archiveGet(.provenAbsent, in: .standby, onUnavailable: nil, history: history) == 1)
            // The end of a recovery asks for what the server has, with and without a signal file.
            for situation in [RecoverySituation.recovery, .noSignalFile] {
                let status = ExitStatus.archiveGet(
                    .failed(.damaged), in: situation, onUnavailable: nil, history: history)
                #expect(status == (history == .hasHistory ? 1 : 126))
            }
        }
    }

    @Test("which timelines exist is read off the names in pg_wal")
    func localTimelines() {
        let names = ["00000003.history", "000000020000000000000001", "archive_status", "xlogtemp.7"]
        func look(_ number: UInt32) -> LocalTimeline { .look(up: TimelineID(number), in: names) }
        #expect(look(2) == .exists)
        #expect(look(3) == .hasHistory)
        #expect(look(4) == .unknown)
        #expect(look(1) == .hasHistory)
        #expect(LocalTimeline.look(up: TimelineID(2), in: []) == .unknown)
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

    @Test("what is ended by force ends as its caller can bear: archive-push by no signal, archive-get by its own")
    func forcedEnd() {
        for words in [["archive-push", "x"], ["--config", "y", "archive-push"]] {
            let push = ForcedEnd(words: words)
            #expect(push.status == 1 && push.crashStatus == 1)
        }
        let get = ForcedEnd(words: ["archive-get", "x", "y"])
        #expect(get.status == nil && get.crashStatus == nil && get.milliseconds == 2000)
        // 1 would be "absent".
        #expect(get.failureStatus == 126)
        let backup = ForcedEnd(words: ["backup"])
        #expect(backup.status == 130 && backup.crashStatus == nil && backup.milliseconds == 10_000)
    }
}

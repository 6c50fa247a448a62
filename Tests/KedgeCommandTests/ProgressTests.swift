// What people see while they wait.
import KedgeCore
import Synchronization
import Testing

@testable import KedgeCommand

@Suite struct ProgressTests {
    private func snapshot(_ done: UInt64, of total: UInt64?, step: Int = 1) -> WorkProgress.Snapshot {
        WorkProgress.Snapshot(step: "copying", number: step, doneBytes: done, totalBytes: total)
    }

    @Test("when nothing moves for ten seconds it says that it waits, and for how long, until something moves")
    func stall() {
        var meter = ProgressMeter()
        let second: UInt64 = 1_000_000_000
        _ = meter.view(snapshot(50, of: 100), at: 100 * second)
        #expect(!meter.view(snapshot(50, of: 100), at: 109 * second).sentence.contains("waiting"))
        let view = meter.view(snapshot(50, of: 100), at: 112 * second)
        #expect(view.sentence == "copying: 50 %, 50 bytes of 100 bytes, waiting: nothing moved for 12 s")
        #expect(!meter.view(snapshot(51, of: 100), at: 113 * second).sentence.contains("waiting"))
        // Done is not stalled, and a step whose size nobody knows is a wait in itself.
        #expect(!meter.view(snapshot(100, of: 100), at: 140 * second).sentence.contains("waiting"))
        #expect(!meter.view(snapshot(100, of: nil), at: 160 * second).sentence.contains("waiting"))
    }

    @Test("a view says how much is done, how fast, and how long it will take")
    func view() {
        let view = ProgressView(snapshot: snapshot(300 << 20, of: 1 << 30), bytesPerSecond: 104_857_600)
        #expect(view.sentence == "copying: 29 %, 300 MB of 1 GB, 100 MB/s, 8 s left")
        #expect(
            view.bar(columns: 100)
                == "copying [###########-----------------------------] 29 %  300 MB of 1 GB  100 MB/s  8 s left")
        #expect(view.bar(columns: 72).count == 71)
        #expect(view.bar(columns: 72).hasPrefix("copying [####"))
        #expect(view.bar(columns: 60) == "copying  29 %  300 MB of 1 GB  100 MB/s  8 s left")
        #expect(view.bar(columns: 20) == "copying  29 %  300 ")
        #expect(view.bar(columns: 0) == "")
    }

    @Test("what is not known is left out")
    func unknown() {
        #expect(ProgressView(snapshot: snapshot(5, of: nil), bytesPerSecond: nil).sentence == "copying: 5 bytes")
        let stalled = ProgressView(snapshot: snapshot(5, of: 10), bytesPerSecond: 0)
        #expect(stalled.sentence == "copying: 50 %, 5 bytes of 10 bytes, 0 bytes/s")
        #expect(
            ProgressView(snapshot: snapshot(0, of: 0), bytesPerSecond: nil).sentence == "copying: 0 bytes of 0 bytes")
        let grown = ProgressView(snapshot: snapshot(20, of: 10), bytesPerSecond: 7)
        #expect(grown.sentence == "copying: 100 %, 20 bytes of 10 bytes, 7 bytes/s")
        let slow = ProgressView(snapshot: snapshot(0, of: UInt64.max), bytesPerSecond: 1)
        #expect(slow.sentence == "copying: 0 %, 0 bytes of 16 EB, 1 byte/s, 462 d 23 h left")
    }

    @Test("the rate is that of the last ten seconds, and starts anew with each step")
    func rate() {
        var meter = ProgressMeter()
        func second(_ number: UInt64) -> UInt64 { 5_000_000_000 + number * 1_000_000_000 }
        #expect(meter.view(snapshot(0, of: nil), at: second(0)).bytesPerSecond == nil)
        #expect(meter.view(snapshot(100, of: nil), at: second(1)).bytesPerSecond == 100)
        for number in 2...12 as ClosedRange<UInt64> { _ = meter.view(snapshot(100, of: nil), at: second(number)) }
        #expect(meter.view(snapshot(100, of: nil), at: second(13)).bytesPerSecond == 0)
        #expect(meter.view(snapshot(700, of: nil), at: second(43)).bytesPerSecond == 20)
        #expect(meter.view(snapshot(9, of: nil, step: 2), at: second(44)).bytesPerSecond == nil)
    }

    @Test("log lines appear above the status line, which is written again")
    func statusLine() {
        let written = Mutex("")
        let status = StatusLine { text in written.withLock { $0 += text } }
        status.writeLine("a")
        status.show("1 %")
        status.show("1 %")
        status.writeLine("b")
        status.show("")
        #expect(written.withLock { $0 } == "a\n\r\u{1B}[K1 %\r\u{1B}[Kb\n1 %\r\u{1B}[K")
    }

    @Test("the display draws five times a second on a terminal, logs every 30 s elsewhere, and ends with the work")
    func display() throws {
        for (onTerminal, expected) in [
            (true, "\r\u{1B}[Kcopying  5 bytes\r\u{1B}[K"), (false, "kedge: info: copying: 5 bytes\n"),
        ] {
            let written = Mutex("")
            let append: @Sendable (String) -> Void = { text in written.withLock { $0 += text } }
            let time = SteppingTime(until: onTerminal ? 210_000_000 : 30_010_000_000)
            var surroundings = Surroundings.real
            surroundings.time = time
            surroundings.terminal = onTerminal ? Terminal(status: StatusLine(write: append)) { 80 } : nil
            let context = CommandContext(
                arguments: ParsedArguments(), surroundings: surroundings,
                log: Log(level: .info) { append($0 + "\n") }, wantsJSON: false)
            let progress = WorkProgress()
            progress.begin("copying")
            progress.advance(5)
            let result = try context.showing(progress) { () throws(KedgeError) in
                time.waitUntilAllIsShown()
                return 7
            }
            #expect(result == 7)
            #expect(written.withLock { $0 } == expected)
        }
    }

    @Test("under --log-level warn nothing is shown")
    func quiet() throws {
        let context = CommandContext(
            arguments: ParsedArguments(), surroundings: .real, log: Log(level: .warn) { _ in }, wantsJSON: false)
        #expect(try context.showing(WorkProgress()) { () throws(KedgeError) in 1 } == 1)
    }
}

/// A clock that runs 10 ms at each look, up to a moment, and then stands still.
private final class SteppingTime: TimeSource {
    private let state = Monitor<(now: UInt64, looksAtEnd: Int)>((0, 0))
    private let end: UInt64

    init(until end: UInt64) { self.end = end }

    func now() -> Timestamp { Timestamp(secondsSince1970: 0) }

    func monotonicNanoseconds() -> UInt64 {
        state.update { state in
            if state.now == end { state.looksAtEnd += 1 }
            state.now = min(end, state.now + 10_000_000)
            return state.now
        }
    }

    func sleep(nanoseconds: UInt64) {}

    /// Until the display has looked at the clock again after the last moment: so it has shown what that moment asks
    /// for.
    func waitUntilAllIsShown() { _ = state.wait { $0.looksAtEnd > 1 ? true : nil } }
}

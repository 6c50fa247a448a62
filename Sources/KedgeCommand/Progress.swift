// How far long work is: a bar on a terminal, redrawn at most five times a second; elsewhere a log line every 30 s.
//
// Workers only raise the counters of `WorkProgress`; one thread of the display reads them. `ProgressMeter` and
// `ProgressView` are pure, so tests need neither a terminal nor a clock.
package import KedgeCore
import Synchronization

/// What is shown at one moment.
package struct ProgressView: Hashable, Sendable {
    package let snapshot: WorkProgress.Snapshot
    /// Nil while there is nothing to tell it from.
    package let bytesPerSecond: Double?
    /// For how many seconds nothing has moved although there is work; nil while it goes on.
    package var stalledSeconds: UInt64?

    /// The part that is done, from 0 to 1; nil where nobody knows the whole.
    private var part: Double? {
        guard let total = snapshot.totalBytes, total > 0 else { return nil }
        return min(1, Double(snapshot.doneBytes) / Double(total))
    }

    private var timeLeft: Duration? {
        guard let total = snapshot.totalBytes, let rate = bytesPerSecond, rate >= 1, snapshot.doneBytes < total else {
            return nil
        }
        // More than a year says no more than "long", and must not overflow.
        return .seconds(Int64(min(Double(total - snapshot.doneBytes) / rate, 4e7).rounded(.up)))
    }

    private var facts: [String] {
        var facts: [String] = []
        if let part { facts.append("\(Int(part * 100)) %") }
        let done = HumanText.size(snapshot.doneBytes)
        facts.append(snapshot.totalBytes.map { "\(done) of \(HumanText.size($0))" } ?? done)
        if let stalledSeconds {
            // Neither a rate nor a time left would be true.
            return facts + ["waiting: nothing moved for \(HumanText.duration(.seconds(Int64(stalledSeconds))))"]
        }
        if let bytesPerSecond { facts.append(HumanText.rate(bytesPerSecond: bytesPerSecond)) }
        if let timeLeft { facts.append(HumanText.duration(timeLeft) + " left") }
        return facts
    }

    /// `copying: 30 %, 1.2 GB of 4 GB, 118 MB/s, 24 s left`.
    package var sentence: String { "\(snapshot.step): " + facts.joined(separator: ", ") }

    /// `copying [######--------------] 30 %  1.2 GB of 4 GB  118 MB/s  24 s left`, shorter than `columns`.
    package func bar(columns: Int) -> String {
        let text = facts.joined(separator: "  ")
        let room = columns - 1
        let width = min(40, room - snapshot.step.unicodeScalars.count - text.unicodeScalars.count - 4)
        guard let part, width >= 10 else {
            return String("\(snapshot.step)  \(text)".unicodeScalars.prefix(max(0, room)))
        }
        let filled = Int(part * Double(width))
        let bar = String(repeating: "#", count: filled) + String(repeating: "-", count: width - filled)
        return "\(snapshot.step) [\(bar)] \(text)"
    }
}

/// Tells the present rate from snapshots: the average of the last ten seconds, or since the last look where that is
/// longer.
package struct ProgressMeter: Sendable {
    private var samples: [(nanoseconds: UInt64, bytes: UInt64)] = []
    private var step = 0
    /// When the last byte was seen to be done, and how many there were.
    private var lastMove: (nanoseconds: UInt64, bytes: UInt64) = (0, 0)
    private static let window: UInt64 = 10_000_000_000

    package init() {}

    /// What to show for a snapshot that was taken at a moment of the monotonic clock.
    package mutating func view(_ snapshot: WorkProgress.Snapshot, at nanoseconds: UInt64) -> ProgressView {
        if snapshot.number != step {
            step = snapshot.number
            samples = []
            lastMove = (nanoseconds, snapshot.doneBytes)
        }
        if snapshot.doneBytes != lastMove.bytes { lastMove = (nanoseconds, snapshot.doneBytes) }
        samples.append((nanoseconds, snapshot.doneBytes))
        while samples.count > 2, nanoseconds - samples[1].nanoseconds >= ProgressMeter.window { samples.removeFirst() }
        let first = samples[0]
        let elapsed = nanoseconds - first.nanoseconds
        let rate = elapsed == 0 ? nil : Double(snapshot.doneBytes &- first.bytes) / (Double(elapsed) / 1e9)
        var view = ProgressView(snapshot: snapshot, bytesPerSecond: rate)
        let still = nanoseconds - lastMove.nanoseconds
        // A step of an unknown size is a wait in itself, and its name says for what.
        if still >= ProgressMeter.window, let total = snapshot.totalBytes, snapshot.doneBytes < total {
            view.stalledSeconds = still / 1_000_000_000
        }
        return view
    }
}

/// The last line of a terminal, shared by progress and log lines.
package final class StatusLine: Sendable {
    private let shown = Mutex("")
    private let write: @Sendable (String) -> Void
    private static let erase = "\r\u{1B}[K"

    /// `write` gets text for the terminal as it is.
    package init(write: @escaping @Sendable (String) -> Void) { self.write = write }

    /// Replaces the line; an empty text removes it.
    package func show(_ text: String) {
        shown.withLock { shown in
            guard shown != text else { return }
            shown = text
            write(StatusLine.erase + text)
        }
    }

    /// Writes a line above it.
    package func writeLine(_ line: String) {
        shown.withLock { shown in
            write(shown.isEmpty ? line + "\n" : StatusLine.erase + line + "\n" + shown)
        }
    }
}

/// Standard error where it is a terminal.
package struct Terminal: Sendable {
    package let status: StatusLine
    /// Its width now.
    package let columns: @Sendable () -> Int

    package init(status: StatusLine, columns: @escaping @Sendable () -> Int) {
        self.status = status
        self.columns = columns
    }
}

extension CommandContext {
    /// Runs `body` while showing how far it is. Throws what `body` throws.
    package func showing<Result>(
        _ progress: WorkProgress, while body: () throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        guard log.level >= .info else { return try body() }
        let ticker = ProgressTicker(progress, log: log, surroundings: surroundings)
        let thread = try Thread(name: "progress") { ticker.run() }
        defer {
            ticker.stop()
            thread.join()
        }
        return try body()
    }
}

/// Looks at the counters again and again until it is stopped.
private final class ProgressTicker: Sendable {
    private let progress: WorkProgress
    private let log: Log
    private let surroundings: Surroundings
    private let isStopped = Atomic<Bool>(false)

    init(_ progress: WorkProgress, log: Log, surroundings: Surroundings) {
        self.progress = progress
        self.log = log
        self.surroundings = surroundings
    }

    func stop() { isStopped.store(true, ordering: .relaxed) }

    func run() {
        var meter = ProgressMeter()
        let time = surroundings.time
        let interval: UInt64 = surroundings.terminal == nil ? 30_000_000_000 : 200_000_000
        var next = time.monotonicNanoseconds() + interval
        while !isStopped.load(ordering: .relaxed) {
            // Short, because the command waits for this thread at its end.
            time.sleep(nanoseconds: 20_000_000)
            let now = time.monotonicNanoseconds()
            guard now >= next else { continue }
            next = now + interval
            let snapshot = progress.snapshot
            guard snapshot.number > 0 else { continue }
            let view = meter.view(snapshot, at: now)
            if let terminal = surroundings.terminal {
                terminal.status.show(view.bar(columns: terminal.columns()))
            } else {
                log.info(view.sentence)
            }
        }
        surroundings.terminal?.status.show("")
    }
}

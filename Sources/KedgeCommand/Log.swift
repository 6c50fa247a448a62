// Log lines on standard error.
//
// Nothing secret can get here: secrets are `Secret` values, which print as <redacted>.
import KedgeCore

/// How much is logged: a level shows itself and those before it.
package enum LogLevel: String, Sendable, CaseIterable, Comparable {
    case error, warn, info, debug

    package static func < (left: LogLevel, right: LogLevel) -> Bool {
        allCases.firstIndex(of: left) ?? 0 < allCases.firstIndex(of: right) ?? 0
    }
}

/// Writes log lines of a level and those that matter more.
package struct Log: Sendable {
    package let level: LogLevel
    private let write: @Sendable (String) -> Void
    private let told = Monitor(Set<String>())

    /// `write` gets whole lines without their newline; it may be called by several threads at once.
    package init(level: LogLevel, write: @escaping @Sendable (String) -> Void) {
        self.level = level
        self.write = write
    }

    /// Something to look at although the command goes on.
    package func warn(_ text: @autoclosure () -> String) { log(.warn, text) }

    /// The same, unless this very text was given before: what several parts of a command find out, each for itself.
    package func warnOnce(_ text: String) {
        if told.update({ $0.insert(text).inserted }) { warn(text) }
    }

    /// What a user follows while the command works.
    package func info(_ text: @autoclosure () -> String) { log(.info, text) }

    /// What a developer wants to know.
    package func debug(_ text: @autoclosure () -> String) { log(.debug, text) }

    private func log(_ level: LogLevel, _ text: () -> String) {
        guard level <= self.level else { return }
        for line in text().split(separator: "\n", omittingEmptySubsequences: false) {
            write("kedge: \(level.rawValue): \(line)")
        }
    }
}

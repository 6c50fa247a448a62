// WAL that is missing behind the last archived segment of a timeline: no later segment shows it, but a backup does, or
// the history file that the server archived of one.

package import KedgeCore

extension RepositoryInfo {
    /// The segments behind the last archived one that a committed backup of this timeline reached into, or in which any
    /// base backup began; nil where none did.
    ///
    /// A begin counts only where a present backup begins at or before it and is recovered along this timeline. The
    /// `.backup` files stay for ever: once all backups of a branch that was left are expired, its WAL went with them.
    package func missingBehindEnd(of timeline: WALInventory.Timeline) -> ClosedRange<UInt64>? {
        guard let last = timeline.runs.last?.upperBound else { return nil }
        let ends = backups.filter { $0.hasItsWAL != nil }.map(\.record.span).filter { $0.timeline == timeline.id }
            .map { (max($0.stopLSN.position, 1) - 1) / inventory.segmentSize }
        let oldest = windows.filter { $0.timeline == timeline.id }.flatMap(\.backups).map(\.span.startLSN).min()
        let starts = (inventory.backupStarts[timeline.id] ?? [:]).keys.filter { start in
            oldest.map { $0.position / inventory.segmentSize <= start } ?? false
        }
        guard let end = (ends + starts).max(), end > last else { return nil }
        return last + 1...end
    }

    /// All that is missing behind the last archived segment, for lists: also what was given up there, in order.
    package func missingAtEnd(of timeline: WALInventory.Timeline) -> [ClosedRange<UInt64>] {
        guard let last = timeline.runs.last?.upperBound else { return [] }
        let shown = [missingBehindEnd(of: timeline)].compactMap(\.self)
        let givenUp = knownGaps.filter { $0.timeline == timeline.id && $0.reason == .givenUp }.map(\.numbers)
        let behind = WALInventory.remainder(of: givenUp, without: [0...last] + shown)
        return (shown + behind).sorted { $0.lowerBound < $1.lowerBound }
    }

    /// What of these missing segments of a timeline somebody acknowledged as lost, in order.
    package func acknowledged(
        _ missing: [ClosedRange<UInt64>], on timeline: TimelineID
    ) -> [ClosedRange<UInt64>] {
        let known = knownGaps.filter { $0.timeline == timeline && $0.reason == .acknowledged }.map(\.numbers)
        let news = WALInventory.remainder(of: missing, without: known)
        return WALInventory.remainder(of: missing, without: news)
    }
}

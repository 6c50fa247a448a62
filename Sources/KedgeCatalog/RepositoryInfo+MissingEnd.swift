// WAL that is missing behind the last archived segment of a timeline: no later segment shows it, but a backup does, or
// the history file that the server archived of one.

import KedgeCore

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
}

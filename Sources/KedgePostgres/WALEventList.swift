// Every event of a segment by itself, in WAL order: for the few segments in which a recovery target has to be found
// exactly.
package import KedgeCore

/// Something in the WAL that a recovery target can name.
package enum WALEvent: Hashable, Sendable {
    case transactionEnd(TransactionEnd)
    case restorePoint(RestorePoint)

    /// Where its record begins.
    package var lsn: LSN {
        switch self {
        case .transactionEnd(let end): end.lsn
        case .restorePoint(let point): point.lsn
        }
    }
}

/// Collects the events of one walk.
package struct WALEventList: WALRecordVisitor {
    private let version: PostgresVersion
    package private(set) var events: [WALEvent] = []
    package private(set) var tablespaces: [CreatedTablespace] = []

    package init(version: PostgresVersion) { self.version = version }

    package mutating func visit(_ record: WALRecord) -> String? {
        guard WALEventCollector.mayHoldEvent(record.header) else { return nil }
        var collector = WALEventCollector(version: version)
        if let reason = collector.visit(record) { return reason }
        add(collector.finish())
        return nil
    }

    /// Adds what a single record holds, such as the one that crosses the border of two segments.
    package mutating func add(_ events: WALEvents) {
        if let end = events.firstEnd { self.events.append(.transactionEnd(end)) }
        self.events += events.restorePoints.map(WALEvent.restorePoint)
        tablespaces += events.tablespaces
    }
}

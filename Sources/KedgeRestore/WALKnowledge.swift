// What planning has to know about archived WAL, as values and one narrow protocol.
//
// A record belongs to the segment in which it *ends*: only then can it be replayed. So what crosses a border belongs to
// the second segment, and whoever implements `WALKnowledge` has to look at both.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// What is known of one segment without reading it whole.
package struct WALSummary: Hashable, Sendable {
    /// Where the last record that ends in it begins; nil if none does.
    package var lastRecord: LSN?
    /// Earliest and latest time of its transaction ends. They need not be in log order: a backend takes the time
    /// before it writes the record.
    package var times: ClosedRange<Timestamp>?
    /// Covers the ids of all transactions that end in it; may hold others.
    package var transactions: [TransactionIDSet.Run]
    package var restorePoints: [RestorePoint]
    package var tablespaces: [CreatedTablespace]
    /// Where replay ends, if that is before the segment's end.
    package var ending: Ending?
    /// Why there may be more in it than this value says; nil if there is not.
    package var unknown: String?

    /// An end of the WAL within a segment.
    package struct Ending: Hashable, Sendable {
        package let lsn: LSN
        /// False where it is the natural end, as in a partial segment.
        package let isDamage: Bool
        /// Why nothing behind it can be recovered, where that is not that the record cannot be read: a full sentence
        /// without the full stop.
        package let reason: String?

        package init(lsn: LSN, isDamage: Bool, reason: String? = nil) {
            self.lsn = lsn
            self.isDamage = isDamage
            self.reason = reason
        }
    }

    package init(
        lastRecord: LSN? = nil, times: ClosedRange<Timestamp>? = nil, transactions: [TransactionIDSet.Run] = [],
        restorePoints: [RestorePoint] = [], tablespaces: [CreatedTablespace] = [], ending: Ending? = nil,
        unknown: String? = nil
    ) {
        self.lastRecord = lastRecord
        self.times = times
        self.transactions = transactions
        self.restorePoints = restorePoints
        self.tablespaces = tablespaces
        self.ending = ending
        self.unknown = unknown
    }
}

/// The records of one segment that planning cares about, read from the segment itself.
package struct WALDetail: Hashable, Sendable {
    /// In log order.
    package var events: [WALEvent]
    package var tablespaces: [CreatedTablespace]
    package var lastRecord: LSN?
    /// Why there may be more than this; nil if it is all.
    package var unknown: String?

    package init(
        events: [WALEvent], tablespaces: [CreatedTablespace] = [], lastRecord: LSN?, unknown: String? = nil
    ) {
        self.events = events
        self.tablespaces = tablespaces
        self.lastRecord = lastRecord
        self.unknown = unknown
    }
}

/// Where planning learns what lies in archived WAL. Links are asked for in the order of the chain.
package protocol WALKnowledge {
    /// What the segment's facts say: one short read.
    func summary(of link: WALLink) throws(KedgeError) -> WALSummary

    /// The records that end in the segment, at `limit` or before: reads the segment, so ask for few.
    func detail(of link: WALLink, upTo limit: LSN) throws(KedgeError) -> WALDetail
}

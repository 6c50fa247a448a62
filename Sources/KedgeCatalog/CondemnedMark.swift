// Marks on backups that are about to be removed (docs/design.md section 4, "Removal").
//
//   none ──expire: condemned/<label>──▶ pending ──grace is over: removing/<label>, then look again──▶ removing ──▶ gone
//   pending ──unexpire, a pin, a running backup that needs it, or a rule that keeps it: the mark goes──▶ none
//   removing ──whoever was seen to need it in that last look: both marks go──▶ none
//
// `removing` is written before the last look, so that of an expire and an unexpire or pin at the same moment at least
// one sees the other. While it is there nobody knows whether the expire that wrote it goes on; if it does not, the next
// one looks again, and what pin or unexpire did by then counts.

package import KedgeCore
import KedgeRepository

/// A mark on a backup.
package struct CondemnedMark: Hashable, Sendable {
    /// How far the removal is.
    package enum Stage: String, Sendable, CaseIterable {
        /// Announced; `unexpire` takes it back.
        case pending
        /// Begun.
        case removing

        var directory: ObjectName { self == .pending ? ClusterLayout.condemned : ClusterLayout.removing }
    }

    package var label: Label
    package var stage: Stage
    /// Whether a person named this backup; then rules do not take the mark away again.
    package var isByHand: Bool
    /// Why, as the plan said it.
    package var reason: String
    /// By the clock of the host that wrote it: for people. Ages are the store's.
    package var condemnedAt: Timestamp
    package var hostName: String
    package var createdBy: String

    package init(
        label: Label, stage: Stage = .pending, isByHand: Bool = false, reason: String, condemnedAt: Timestamp,
        hostName: String, createdBy: String = Version.writer
    ) {
        self.label = label
        self.stage = stage
        self.isByHand = isByHand
        self.reason = reason
        self.condemnedAt = condemnedAt
        self.hostName = hostName
        self.createdBy = createdBy
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "condemned", "label": .string(label.text), "stage": .string(stage.rawValue),
            "byHand": .bool(isByHand), "reason": .string(reason), "condemnedAt": .string(condemnedAt.description),
            "hostName": .string(hostName), "createdBy": .string(createdBy),
        ]
    }

    /// The mark that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("condemned")
        label = try record.parsed("label") { Label($0) }
        stage = try record.parsed("stage") { Stage(rawValue: $0) }
        isByHand = try record.bool("byHand")
        reason = try record.string("reason")
        condemnedAt = try record.parsed("condemnedAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        createdBy = try record.string("createdBy")
    }
}

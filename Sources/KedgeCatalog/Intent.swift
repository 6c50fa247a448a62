// The intent: says that a backup is under way, so that nothing it will need is removed.

package import KedgeCore

/// A backup under way. Written right after the server's backup start, removed after the commit record is durable.
package struct Intent: Hashable, Sendable {
    package var label: Label
    package var type: BackupType
    package var parent: Label?
    package var systemIdentifier: SystemIdentifier
    package var timeline: TimelineID
    package var startLSN: LSN
    package var startedAt: Timestamp
    package var hostName: String
    package var processID: Int32
    package var createdBy: String

    package init(
        label: Label, type: BackupType, parent: Label?, systemIdentifier: SystemIdentifier, timeline: TimelineID,
        startLSN: LSN, startedAt: Timestamp, hostName: String, processID: Int32, createdBy: String
    ) {
        self.label = label
        self.type = type
        self.parent = parent
        self.systemIdentifier = systemIdentifier
        self.timeline = timeline
        self.startLSN = startLSN
        self.startedAt = startedAt
        self.hostName = hostName
        self.processID = processID
        self.createdBy = createdBy
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "intent", "label": .string(label.text), "type": .string(type.rawValue),
            "parent": .optional(parent?.text), "systemIdentifier": .string(systemIdentifier.description),
            "timeline": .int(timeline.number), "startLSN": .string(startLSN.description),
            "startedAt": .string(startedAt.description), "hostName": .string(hostName),
            "processID": .int(processID), "createdBy": .string(createdBy),
        ]
    }

    /// The intent that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("intent")
        label = try record.parsed("label") { Label($0) }
        type = try record.parsed("type") { BackupType(rawValue: $0) }
        parent = try record.optionalParsed("parent") { Label($0) }
        systemIdentifier = try record.parsed("systemIdentifier") { SystemIdentifier($0) }
        timeline = TimelineID(try record.integer("timeline"))
        startLSN = try record.parsed("startLSN") { LSN($0) }
        startedAt = try record.parsed("startedAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        processID = try record.integer("processID")
        createdBy = try record.string("createdBy")
    }
}

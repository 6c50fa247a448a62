// The record of a lease: who works on what, since when, and how far it is (Catalog/FORMAT.md section 4).

package import KedgeCore

/// What a lease says.
package struct LeaseRecord: Hashable, Sendable {
    /// What is being done, such as `backup`: the last part of the lease's name.
    package var operation: String
    /// Random: tells this holder from every other, the same process's next run included.
    package var holder: RandomID
    package var process: ProcessIdentity
    /// What is worked on, such as a backup's label; nil where it has no name.
    package var label: String?
    /// When it was taken and last renewed, by the holder's clock: for people, and nothing is decided by it.
    package var takenAt: Timestamp
    package var renewedAt: Timestamp
    /// How often it was renewed.
    package var renewals: UInt64
    /// So many seconds without a renewal, by the store's clock, and others may take it over.
    package var expiresAfterSeconds: UInt64
    /// How far the work was at the last renewal; the step is empty before the first.
    package private(set) var step: String
    package private(set) var doneBytes: UInt64
    package private(set) var totalBytes: UInt64?
    package var createdBy: String

    /// Whether `other` is the very same writing of the lease.
    package func isSameRenewal(as other: LeaseRecord) -> Bool { (holder, renewals) == (other.holder, other.renewals) }

    package init(
        operation: String, holder: RandomID, process: ProcessIdentity, label: String?, takenAt: Timestamp,
        expiresAfterSeconds: UInt64, progress: WorkProgress.Snapshot, createdBy: String
    ) {
        self.operation = operation
        self.holder = holder
        self.process = process
        self.label = label
        self.takenAt = takenAt
        self.renewedAt = takenAt
        self.renewals = 0
        self.expiresAfterSeconds = expiresAfterSeconds
        self.step = progress.step
        self.doneBytes = progress.doneBytes
        self.totalBytes = progress.totalBytes
        self.createdBy = createdBy
    }

    /// The same a renewal later.
    package func renewed(at time: Timestamp, _ progress: WorkProgress.Snapshot) -> LeaseRecord {
        var next = self
        next.renewals &+= 1
        next.renewedAt = time
        next.step = progress.step
        next.doneBytes = progress.doneBytes
        next.totalBytes = progress.totalBytes
        return next
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "lease", "operation": .string(operation), "holder": .string(holder.hex),
            "hostName": .string(process.hostName), "processID": .int(process.processID),
            "bootID": .optional(process.bootID), "pidNamespace": .optional(process.namespace),
            "startTicks": process.startTicks.map { .int($0) } ?? .null, "label": .optional(label),
            "takenAt": .string(takenAt.description), "renewedAt": .string(renewedAt.description),
            "renewals": .int(renewals), "expiresAfter": .int(expiresAfterSeconds), "step": .string(step),
            "doneBytes": .int(doneBytes), "totalBytes": totalBytes.map { .int($0) } ?? .null,
            "createdBy": .string(createdBy),
        ]
    }

    /// The lease that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("lease")
        operation = try record.string("operation")
        holder = try record.parsed("holder") { RandomID(hex: $0) }
        process = ProcessIdentity(
            hostName: try record.string("hostName"), processID: try record.integer("processID"),
            bootID: try record.optionalString("bootID"), namespace: try record.optionalString("pidNamespace"),
            startTicks: try record.optionalInteger("startTicks"))
        label = try record.optionalString("label")
        takenAt = try record.parsed("takenAt") { Timestamp(record: $0) }
        renewedAt = try record.parsed("renewedAt") { Timestamp(record: $0) }
        renewals = try record.integer("renewals")
        expiresAfterSeconds = try record.integer("expiresAfter")
        step = try record.string("step")
        doneBytes = try record.integer("doneBytes")
        totalBytes = try record.optionalInteger("totalBytes")
        createdBy = try record.string("createdBy")
    }
}

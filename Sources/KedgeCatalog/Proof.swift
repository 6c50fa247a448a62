// Proofs: dated evidence that a backup could be read back, or was restored for real (docs/design.md section 4).
//
// A proof is an object of its own, written once, and outlives its backup. Its name tells level and result, so that
// proofs can be listed without opening any; but a name proves nothing: only a record that was opened is evidence.

package import KedgeCore

/// How a backup was tried.
package enum ProofLevel: String, Sendable, CaseIterable {
    /// Every byte was read back and checked (`kedge verify`).
    case verified
    /// It was restored, started and recovered (`kedge drill`).
    case drilled
}

/// What came of it.
package enum ProofResult: String, Sendable, CaseIterable {
    case passed
    /// The backup, or WAL that it needs, is damaged or did not restore. An outage is no result and makes no proof.
    case failed
}

/// What the last two components of a proof's name say.
package struct ProofName: Hashable, Sendable {
    package let label: Label
    /// When the proof was finished, in whole seconds.
    package let time: Timestamp
    package let level: ProofLevel
    package let result: ProofResult

    package init(label: Label, time: Timestamp, level: ProofLevel, result: ProofResult) {
        self.label = label
        self.time = time
        self.level = level
        self.result = result
    }

    /// Parses `<time>-<level>-<result>`. Nil for anything that `text` does not print.
    package init?(label: Label, _ text: some StringProtocol) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { String($0) }
        guard parts.count == 3, let time = Self.time(parts[0]), let level = ProofLevel(rawValue: parts[1]),
            let result = ProofResult(rawValue: parts[2])
        else { return nil }
        self.init(label: label, time: time, level: level, result: result)
    }

    /// The last component of the object's name: `20261121T030000Z-drilled-passed`.
    package var text: String { "\(time.labelText)-\(level.rawValue)-\(result.rawValue)" }

    private static func time(_ text: String) -> Timestamp? {
        let bytes = Array(text.utf8)
        guard bytes.count == 16, bytes.allSatisfy({ $0 < 0x80 }) else { return nil }
        func part(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }
        let time = Timestamp(
            record: "\(part(0..<4))-\(part(4..<6))-\(part(6..<8))T\(part(9..<11)):\(part(11..<13)):\(part(13..<15))Z")
        return time?.labelText == text ? time : nil
    }
}

/// One proof.
package struct ProofRecord: Hashable, Sendable {
    package var label: Label
    package var level: ProofLevel
    package var result: ProofResult
    /// The repository that was read.
    package var repositoryName: String
    package var repositoryID: RandomID
    /// The manifest of the backup that was tried, so that a proof says nothing about another of the same label.
    package var manifest: CommitRecord.ManifestSeal
    package var started: Timestamp
    /// When the earliest run began whose readings this one relies on; nil where it read everything itself.
    package var readSince: Timestamp?
    /// By the clock of the host that tried it. The object's name holds its whole second.
    package var finished: Timestamp
    package var hostName: String
    package var createdBy: String
    /// Of a drill: the version of the PostgreSQL server that recovered, as it prints it.
    package var serverVersion: String?
    /// Of a drill: where recovery was told to end, and where it did.
    package var target: Target?
    /// Up to which moment the backup is proven to restore. Nil where it does not restore at all.
    package var covers: Coverage?
    package var checks: [Check]
    /// In the order in which they ran.
    package var phases: [Phase]
    package var objectives: Objectives?
    /// What this run read back and found sound. Later runs need not read it again for a while.
    package var verified: VerifiedObjects?

    package init(
        label: Label, level: ProofLevel, result: ProofResult, repositoryName: String, repositoryID: RandomID,
        manifest: CommitRecord.ManifestSeal, started: Timestamp, finished: Timestamp, hostName: String,
        createdBy: String, readSince: Timestamp? = nil, serverVersion: String? = nil, target: Target? = nil,
        covers: Coverage? = nil, checks: [Check] = [], phases: [Phase] = [], objectives: Objectives? = nil,
        verified: VerifiedObjects? = nil
    ) {
        self.label = label
        self.level = level
        self.result = result
        self.repositoryName = repositoryName
        self.repositoryID = repositoryID
        self.manifest = manifest
        self.started = started
        self.readSince = readSince
        self.finished = finished
        self.hostName = hostName
        self.createdBy = createdBy
        self.serverVersion = serverVersion
        self.target = target
        self.covers = covers
        self.checks = checks
        self.phases = phases
        self.objectives = objectives
        self.verified = verified
    }

    /// Whether only a random part was read: such a proof can fail, but it never proves a backup.
    package var isSample: Bool {
        (verified?.partsPerMillion ?? VerifiedObjects.everything) < VerifiedObjects.everything
    }

    /// How old the evidence is: of a pass that of its oldest reading, since a run that read nothing has seen nothing.
    package var asOf: Timestamp { result == .passed ? readSince ?? finished : finished }

    /// A recovery target, as it was asked for and as it was reached.
    package struct Target: Hashable, Sendable {
        /// `time`, `lsn`, `xid`, `name`, `immediate` or `latest`.
        package var kind: String
        package var value: String?
        package var reachedTimeline: TimelineID?
        package var reachedLSN: LSN?
        /// The last commit that was replayed, by the database server's clock.
        package var reachedTime: Timestamp?

        package init(
            kind: String, value: String? = nil, reachedTimeline: TimelineID? = nil, reachedLSN: LSN? = nil,
            reachedTime: Timestamp? = nil
        ) {
            self.kind = kind
            self.value = value
            self.reachedTimeline = reachedTimeline
            self.reachedLSN = reachedLSN
            self.reachedTime = reachedTime
        }
    }

    /// A stretch of the log along the ancestry of `timeline`.
    package struct Coverage: Hashable, Sendable {
        package var timeline: TimelineID
        package var fromLSN: LSN
        package var toLSN: LSN
        /// The last commit before `toLSN`, by the database server's clock.
        package var toTime: Timestamp?

        package init(timeline: TimelineID, fromLSN: LSN, toLSN: LSN, toTime: Timestamp? = nil) {
            self.timeline = timeline
            self.fromLSN = fromLSN
            self.toLSN = toLSN
            self.toTime = toTime
        }
    }

    /// One thing that was looked at.
    package struct Check: Hashable, Sendable {
        package enum Result: String, Sendable, CaseIterable {
            case passed, failed, skipped, warning
        }

        package var name: String
        package var result: Result
        /// What it was about, such as a database or an object.
        package var subject: String?
        package var detail: String?
        package var milliseconds: UInt64

        package init(
            name: String, result: Result, subject: String? = nil, detail: String? = nil, milliseconds: UInt64 = 0
        ) {
            self.name = name
            self.result = result
            self.subject = subject
            self.detail = detail
            self.milliseconds = milliseconds
        }
    }

    /// How long one phase took, and how many raw bytes went through it.
    package struct Phase: Hashable, Sendable {
        /// Such as `select`, `fetch`, `start`, `replay`, `checks`.
        package var name: String
        package var milliseconds: UInt64
        package var bytes: UInt64?

        package init(name: String, milliseconds: UInt64, bytes: UInt64? = nil) {
            self.name = name
            self.milliseconds = milliseconds
            self.bytes = bytes
        }
    }

    /// What was promised and what was measured, in seconds.
    package struct Objectives: Hashable, Sendable {
        /// The most that a restore may take.
        package var rtoSeconds: UInt64?
        /// What this one took.
        package var measuredSeconds: UInt64
        /// The most that may be lost.
        package var rpoSeconds: UInt64?
        /// What would have been lost: how far the last restorable commit lay behind. Nil where nobody could tell.
        package var lagSeconds: UInt64?

        package init(
            rtoSeconds: UInt64? = nil, measuredSeconds: UInt64, rpoSeconds: UInt64? = nil, lagSeconds: UInt64? = nil
        ) {
            self.rtoSeconds = rtoSeconds
            self.measuredSeconds = measuredSeconds
            self.rpoSeconds = rpoSeconds
            self.lagSeconds = lagSeconds
        }
    }

    /// Objects that were read from the first to the last byte.
    package struct VerifiedObjects: Hashable, Sendable {
        /// Whose WAL it was.
        package var systemIdentifier: SystemIdentifier
        /// Sorted by id. `bytes` as stored.
        package var packs: [Pack]
        package var wal: [WALRange]
        /// Which share of the packs and WAL was to be read: a million is all.
        package var partsPerMillion: UInt32

        package static let everything: UInt32 = 1_000_000

        package init(
            systemIdentifier: SystemIdentifier, packs: [Pack], wal: [WALRange], partsPerMillion: UInt32 = everything
        ) {
            self.systemIdentifier = systemIdentifier
            self.packs = packs
            self.wal = wal
            self.partsPerMillion = partsPerMillion
        }

        package struct Pack: Hashable, Sendable {
            package var id: RandomID
            package var bytes: UInt64

            package init(id: RandomID, bytes: UInt64) {
                self.id = id
                self.bytes = bytes
            }
        }

        /// Segments of one timeline, the last one included.
        package struct WALRange: Hashable, Sendable {
            package var timeline: TimelineID
            package var first: UInt64
            package var last: UInt64
            /// The checksum of their sizes as stored, 8 bytes each in order, little-endian. Without it nobody can tell
            /// whether what lies there now is what was read.
            package var sizes: ContentHash?

            package init(timeline: TimelineID, first: UInt64, last: UInt64, sizes: ContentHash? = nil) {
                self.timeline = timeline
                self.first = first
                self.last = last
                self.sizes = sizes
            }
        }
    }

    /// What names the object.
    package var name: ProofName {
        let second = finished.microseconds - (finished.microseconds % 1_000_000 + 1_000_000) % 1_000_000
        return ProofName(label: label, time: Timestamp(microseconds: second), level: level, result: result)
    }
}

// The commit record: written last, it is what makes a backup exist.

package import KedgeCore

/// Everything that is known of a committed backup without reading its manifest.
package struct CommitRecord: Hashable, Sendable {
    package var label: Label
    package var type: BackupType
    package var parent: Label?
    package var clusterName: String
    package var server: ServerFacts
    package var span: BackupSpan
    package var tablespaces: [Tablespace]
    /// The server's data directory, as it called it.
    package var dataDirectory: RawPath
    /// The permission bits of the data directory itself, which has no entry in the manifest: 0o700, or 0o750 where
    /// the group may read it. Nil in records of before they were kept.
    package var dataDirectoryMode: UInt32?
    /// Where `pg_wal` led, if it was a symbolic link, as the link held it. The manifest has a directory in its place.
    package var walDirectory: RawPath?
    /// Configuration files from outside the data directory that the backup holds as extra files.
    package var configurationFiles: [RawPath]
    package var sizes: BackupSizes
    /// What interrupted backups had stored and this one uses, in the order of their labels.
    package var takenOver: [TakenOver]
    /// Every pack that the manifest refers to, sorted by id.
    package var packs: [PackUse]
    package var manifest: ManifestSeal
    package var health: BackupHealth
    /// The key slots (as JSON objects) of each data key that the backup's objects are sealed with.
    package var keySlots: [JSONValue]
    package var hostName: String
    package var createdBy: String
    /// Milliseconds by phase, in the order in which the phases ran.
    package var durations: [PhaseDuration]

    package init(
        label: Label, type: BackupType, parent: Label?, clusterName: String, server: ServerFacts, span: BackupSpan,
        tablespaces: [Tablespace], dataDirectory: RawPath, dataDirectoryMode: UInt32? = nil,
        walDirectory: RawPath? = nil, configurationFiles: [RawPath], sizes: BackupSizes,
        takenOver: [TakenOver] = [], packs: [PackUse], manifest: ManifestSeal, health: BackupHealth,
        keySlots: [JSONValue], hostName: String, createdBy: String, durations: [PhaseDuration]
    ) {
        self.label = label
        self.type = type
        self.parent = parent
        self.clusterName = clusterName
        self.server = server
        self.span = span
        self.tablespaces = tablespaces
        self.dataDirectory = dataDirectory
        self.dataDirectoryMode = dataDirectoryMode
        self.walDirectory = walDirectory
        self.configurationFiles = configurationFiles
        self.sizes = sizes
        self.takenOver = takenOver
        self.packs = packs
        self.manifest = manifest
        self.health = health
        self.keySlots = keySlots
        self.hostName = hostName
        self.createdBy = createdBy
        self.durations = durations
    }

    /// What a backup tells of the server that it was taken from.
    package struct ServerFacts: Hashable, Sendable {
        package var systemIdentifier: SystemIdentifier
        /// The major version.
        package var postgresVersion: Int
        /// The server's own version text.
        package var serverVersion: String
        package var fromStandby: Bool
        package var dataChecksums: Bool
        package var blockSize: UInt32
        package var walSegmentSize: UInt64
        /// Blocks in one file of a relation.
        package var relationSegmentBlocks: UInt32

        package init(
            systemIdentifier: SystemIdentifier, postgresVersion: Int, serverVersion: String, fromStandby: Bool,
            dataChecksums: Bool, blockSize: UInt32, walSegmentSize: UInt64, relationSegmentBlocks: UInt32
        ) {
            self.systemIdentifier = systemIdentifier
            self.postgresVersion = postgresVersion
            self.serverVersion = serverVersion
            self.fromStandby = fromStandby
            self.dataChecksums = dataChecksums
            self.blockSize = blockSize
            self.walSegmentSize = walSegmentSize
            self.relationSegmentBlocks = relationSegmentBlocks
        }
    }

    /// Where in the log and in time a backup lies. All times are the database server's.
    package struct BackupSpan: Hashable, Sendable {
        package var timeline: TimelineID
        package var startLSN: LSN
        package var stopLSN: LSN
        package var checkpointLSN: LSN
        package var startTime: Timestamp
        package var stopTime: Timestamp
        /// The first and the last WAL segment that recovery to consistency reads.
        package var walFrom: String
        package var walTo: String
        /// The ancestors of `timeline`, oldest first.
        package var history: [TimelineSwitch]
        /// `pg_current_snapshot()` after the stop: a transaction visible there can't be a recovery target.
        package var snapshot: String
        /// The server's clock and WAL position when that snapshot was taken. Of a standby: the later of its clock and
        /// its primary's, and what it had replayed. These two belong to different moments then, and prove nothing.
        package var afterStopTime: Timestamp
        package var afterStopLSN: LSN

        package init(
            timeline: TimelineID, startLSN: LSN, stopLSN: LSN, checkpointLSN: LSN, startTime: Timestamp,
            stopTime: Timestamp, walFrom: String, walTo: String, history: [TimelineSwitch], snapshot: String,
            afterStopTime: Timestamp, afterStopLSN: LSN
        ) {
            self.timeline = timeline
            self.startLSN = startLSN
            self.stopLSN = stopLSN
            self.checkpointLSN = checkpointLSN
            self.startTime = startTime
            self.stopTime = stopTime
            self.walFrom = walFrom
            self.walTo = walTo
            self.history = history
            self.snapshot = snapshot
            self.afterStopTime = afterStopTime
            self.afterStopLSN = afterStopLSN
        }
    }

    /// The end of one timeline in the ancestry of another.
    package struct TimelineSwitch: Hashable, Sendable {
        package var timeline: TimelineID
        /// The first LSN that no longer belongs to it.
        package var switchLSN: LSN

        package init(timeline: TimelineID, switchLSN: LSN) {
            self.timeline = timeline
            self.switchLSN = switchLSN
        }
    }

    /// A tablespace of the cluster, besides `pg_default` and `pg_global`.
    package struct Tablespace: Hashable, Sendable {
        package var oid: UInt32
        /// What the link held; for one in place `pg_tblspc/OID`.
        package var path: RawPath
        /// A plain directory below `pg_tblspc` instead of a link (`allow_in_place_tablespaces`).
        package var inPlace: Bool

        package init(oid: UInt32, path: RawPath, inPlace: Bool) {
            self.oid = oid
            self.path = path
            self.inPlace = inPlace
        }
    }

    /// Sizes in bytes.
    package struct BackupSizes: Hashable, Sendable {
        /// Restored size of all files.
        package var databaseBytes: UInt64
        /// What this backup added to the repository, as stored.
        package var storedBytes: UInt64
        /// Raw bytes that this backup stored anew.
        package var deltaBytes: UInt64
        package var files: UInt64

        package init(databaseBytes: UInt64, storedBytes: UInt64, deltaBytes: UInt64, files: UInt64) {
            self.databaseBytes = databaseBytes
            self.storedBytes = storedBytes
            self.deltaBytes = deltaBytes
            self.files = files
        }
    }

    /// What was taken over from one interrupted backup.
    package struct TakenOver: Hashable, Sendable {
        package var label: Label
        /// Raw bytes of files, not counted in `deltaBytes`.
        package var bytes: UInt64

        package init(label: Label, bytes: UInt64) {
            self.label = label
            self.bytes = bytes
        }
    }

    /// Ties the manifest to the commit record.
    package struct ManifestSeal: Hashable, Sendable {
        /// Bytes of the manifest object as stored, and their checksum.
        package var length: UInt64
        package var checksum: ContentHash

        package init(length: UInt64, checksum: ContentHash) {
            self.length = length
            self.checksum = checksum
        }
    }

    /// What was found to be wrong while the backup was taken.
    package struct BackupHealth: Hashable, Sendable {
        /// Pages whose checksum failed twice and that are not newer than the start; at most 1000 are listed.
        package var damagedPages: [DamagedPage]
        package var damagedPageCount: UInt64
        package var walSuspect: [SuspectWAL]
        /// Why something was stored whole, or a delta became a full backup.
        package var fallbacks: [String]

        package init(
            damagedPages: [DamagedPage] = [], damagedPageCount: UInt64 = 0, walSuspect: [SuspectWAL] = [],
            fallbacks: [String] = []
        ) {
            self.damagedPages = damagedPages
            self.damagedPageCount = damagedPageCount
            self.walSuspect = walSuspect
            self.fallbacks = fallbacks
        }

        package static let maximumListedPages = 1000
    }

    /// A page that fails its checksum.
    package struct DamagedPage: Hashable, Sendable {
        package var path: ManifestPath
        /// Relative to the file, not to the relation.
        package var block: UInt32

        package init(path: ManifestPath, block: UInt32) {
            self.path = path
            self.block = block
        }
    }

    /// An archived segment with records that fail their checks.
    package struct SuspectWAL: Hashable, Sendable {
        package var file: String
        package var lsn: LSN
        package var reason: String

        package init(file: String, lsn: LSN, reason: String) {
            self.file = file
            self.lsn = lsn
            self.reason = reason
        }
    }

    /// How long one phase took.
    package struct PhaseDuration: Hashable, Sendable {
        package var phase: String
        package var milliseconds: UInt64

        package init(phase: String, milliseconds: UInt64) {
            self.phase = phase
            self.milliseconds = milliseconds
        }
    }
}

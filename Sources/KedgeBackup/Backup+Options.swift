// What a backup is told, what it works with, and what comes of it.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

extension Backup {
    /// What to back up, and where to.
    package struct Options: Sendable {
        package var clusterName: String
        package var dataDirectory: RawPath
        package var database: DatabaseSettings
        /// Where the primary is, should `database` be a standby. Nil: its WAL is waited for.
        package var primary: DatabaseSettings?
        package var repository: RepositorySource
        /// An existing directory of our own, for scratch files and the lock.
        package var workDirectory: RawPath
        /// Directories of Kedge's own, which are not backed up should they lie inside the data directory.
        package var ownDirectories: [RawPath]
        package var workers: Int
        /// How long to wait for WAL while none arrives.
        package var archiveTimeout: Duration
        /// Nil: no limit.
        package var readRateBytes: UInt64?
        package var hostName: String
        package var processID: Int32
        package var packLimits = PackLimits.standard
        package var request = BackupRequest.full
        /// Renews the lease and looks after the session; tests shorten it.
        package var watching = Watching()
        /// What `kedge archive-push` would say about a file of pg_wal; nil where that can't be tried.
        package var explainPush: (@Sendable (String) -> String?)?
        /// Who the lease says that we are; nil: this process.
        package var leaseHolder: ProcessIdentity?

        /// How often what runs beside the copy is done.
        package struct Watching: Sendable {
            var session = SessionWatch.Intervals()
            /// How long the server may take for an answer once the backup was started.
            var answerLimit = Duration.seconds(120)
            /// Nil: the lease is not renewed.
            package var leaseInterval: Duration? = LeaseKeeper.standardInterval
        }

        package init(
            clusterName: String, dataDirectory: RawPath, database: DatabaseSettings, repository: RepositorySource,
            workDirectory: RawPath, ownDirectories: [RawPath], workers: Int, archiveTimeout: Duration,
            readRateBytes: UInt64?, hostName: String, processID: Int32
        ) {
            self.clusterName = clusterName
            self.dataDirectory = dataDirectory
            self.database = database
            self.repository = repository
            self.workDirectory = workDirectory
            self.ownDirectories = ownDirectories
            self.workers = workers
            self.archiveTimeout = archiveTimeout
            self.readRateBytes = readRateBytes
            self.hostName = hostName
            self.processID = processID
        }
    }

    /// What a backup works with besides the server and the repository.
    package struct Tools: Sendable {
        package var time: any TimeSource
        package var random: any RandomSource
        package var interruption: Interruption
        package var progress: WorkProgress
        package var files: any FileSource
        /// Takes sentences that matter now and not only at the end.
        package var warn: @Sendable (String) -> Void

        package init(
            time: any TimeSource = SystemTimeSource(), random: any RandomSource = SystemRandomSource(),
            interruption: Interruption, progress: WorkProgress = WorkProgress(),
            files: any FileSource = SystemFileSource(), warn: @escaping @Sendable (String) -> Void = { _ in }
        ) {
            self.time = time
            self.random = random
            self.interruption = interruption
            self.progress = progress
            self.files = files
            self.warn = warn
        }
    }

    /// A committed backup.
    package struct Outcome: Sendable {
        package let record: CommitRecord
        package let repositoryName: String
        /// Why it is a full or a delta backup, as a sentence without its full stop.
        package let reason: String
        /// Sentences about what was left out of it.
        package var warnings: [String]
        /// Something is wrong after the commit that does not touch the backup.
        package let afterCommit: KedgeError?

        package init(
            record: CommitRecord, repositoryName: String, reason: String = "it was asked for", warnings: [String] = [],
            afterCommit: KedgeError? = nil
        ) {
            self.record = record
            self.repositoryName = repositoryName
            self.reason = reason
            self.warnings = warnings
            self.afterCommit = afterCommit
        }
    }
}

// Restore: a data directory out of a backup, ready to recover to a moment.
//
//   plan → survey of the manifest → checks of the target → directories → files → sync → configuration, signal file,
//   backup_manifest → sync → pg_control
//
// 1. Nothing is written before the plan is proven, the manifest was read to its end and the target is known to be free.
// 2. `global/pg_control` is written last, after all else is durable: no server starts without it, so a restore that was
//    interrupted at any point leaves nothing that could be taken for a cluster.
// 3. In it the checkpoint location is impossible. Recovery takes the real one from backup_label; where somebody deletes
//    that, the server refuses to start instead of running on an inconsistent copy (lesson 37).

package import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Restores one backup of one cluster.
package struct Restore {
    /// What to restore, where, and what the restored server is told.
    package struct Options: Sendable {
        package var clusterName: String
        package var request: RestoreRequest
        /// Absolute.
        package var pgdata: RawPath
        /// The directory of the original, as the configuration has it.
        package var configuredPgdata: RawPath
        package var tablespaces: [UInt32: RawPath]
        /// Where `pg_wal` will lead, absolute and without links; nil for a plain directory.
        package var walDirectory: RawPath?
        /// Where each tablespace that is not mapped goes, below its OID; nil: to its recorded path.
        package var tablespaceDirectory: RawPath?
        /// The cluster will be recovered where it is written, so there has to be room for WAL as well.
        package var recoversAtOnce = false
        package var action: TargetAction
        /// Nil: keep into the configured pgdata, off anywhere else.
        package var archiving: Archiving?
        package var restoreCommand: RestoreCommandLine
        /// Where the backup's extra files go, each below its own path; nil leaves them out.
        package var extraFilesDirectory: RawPath?
        package var processMax: Int
        package var workDirectory: RawPath
        package var isDryRun: Bool
        /// Put right what is there instead of writing into an empty directory.
        package var isDelta = false
        /// With `isDelta`: the other database system whose data directory may be overwritten.
        package var replacedSystem: ReplacedSystem?
        /// With `isDelta`: what becomes of WAL in pg_wal that no repository has; nil: it is refused.
        package var unarchivedWAL: UnarchivedWALChoice?
        /// `on-unavailable = absent`: archive-get answers for repositories that it can't rely on.
        package var takesUnavailableForAbsent = false
        /// What must not lie where this restore removes things: repositories, keys and their like.
        package var keptPaths: [KeptPath] = []

        package init(
            clusterName: String, request: RestoreRequest, pgdata: RawPath, configuredPgdata: RawPath,
            tablespaces: [UInt32: RawPath] = [:], walDirectory: RawPath? = nil, action: TargetAction = .pause,
            archiving: Archiving? = nil,
            restoreCommand: RestoreCommandLine, extraFilesDirectory: RawPath? = nil, processMax: Int,
            workDirectory: RawPath, isDryRun: Bool = false
        ) {
            self.clusterName = clusterName
            self.request = request
            self.pgdata = pgdata
            self.configuredPgdata = configuredPgdata
            self.tablespaces = tablespaces
            self.walDirectory = walDirectory
            self.action = action
            self.archiving = archiving
            self.restoreCommand = restoreCommand
            self.extraFilesDirectory = extraFilesDirectory
            self.processMax = processMax
            self.workDirectory = workDirectory
            self.isDryRun = isDryRun
        }
    }

    /// What was decided and done.
    package struct Outcome: Sendable {
        package let plan: RestorePlan
        package let repository: String
        package let pgdata: RawPath
        package let placements: [TablespacePlacement]
        /// Where `pg_wal` leads; nil for a plain directory.
        package let walDirectory: RawPath?
        package let settings: RecoverySettings
        package let files: UInt64
        package let totalBytes: UInt64
        /// Configuration files of the original that lay outside its data directory.
        package let extraFiles: [RawPath]
        package let extraFilesDirectory: RawPath?
        /// Commit records and timeline histories that could not be read.
        package let unreadable: [UnreadableRecord]
        /// The repositories that the recovery asks, where others could not be read; nil: all.
        package let recoveryReads: [String]?
        /// The repositories that could not be read.
        package let awayRepositories: [String]
        /// What a restore with --delta found, or would do; nil for another.
        package let delta: DeltaOutcome?
        /// Whether everything was given to the owner of the data directory that was there.
        package let isOwnerKept: Bool
        /// False for a dry run.
        package let isWritten: Bool
        package let milliseconds: UInt64
    }

    private let source: RepositorySource
    private let walSources: [RepositorySource]
    private let options: Options
    private let progress: WorkProgress
    private let time: any TimeSource
    private let random: any RandomSource
    private let interruption: Interruption

    /// `walSources` are the repositories that the restored server's restore_command reads, in its order; empty:
    /// `source` alone.
    package init(
        _ source: RepositorySource, _ options: Options, walSources: [RepositorySource] = [],
        progress: WorkProgress = WorkProgress(),
        time: any TimeSource = SystemTimeSource(), random: any RandomSource = SystemRandomSource(),
        interruption: Interruption = Interruption()
    ) {
        self.source = source
        self.walSources = walSources
        self.options = options
        self.progress = progress
        self.time = time
        self.random = random
        self.interruption = interruption
    }

    /// Plans, checks, and, unless it is a dry run, writes. `approve` gets the plan as soon as it is made; what it
    /// throws ends the restore there. `beforeWriting` is called when all checks are done and the first byte is written
    /// next.
    ///
    /// Throws `target-unreachable`, `target-ambiguous`, `not-empty`, `locked`, `server-running`, `unarchived-wal`,
    /// `no-space`, `damaged`, `interrupted`, `key-outdated` or `repository-unavailable` where the server could not
    /// recover with the repository (OutdatedRepository.swift), and what reading and writing throw. After an error
    /// during the writing the directory cannot be started.
    package func run(
        approving approve: (RestorePlan) throws(KedgeError) -> Void = { _ in }, beforeWriting: () -> Void = {}
    ) throws(KedgeError) -> Outcome {
        let start = time.monotonicNanoseconds()
        let cluster = try source.openCluster(options.clusterName, for: .read, random: random)
        try options.requireAbsenceProven(by: cluster.repository)
        progress.begin("planning")
        let preparation = try RestorePreparation(
            cluster, options, walSources: walSources, approving: approve, random: random, interruption: interruption)
        let writer = try RestoreWriter(
            preparation, options, progress: progress, random: random, interruption: interruption)
        if !options.isDryRun { beforeWriting() }
        // No second restore comes near the directory before the end.
        defer { withExtendedLifetime(preparation.lock) {} }
        let delta = options.isDryRun ? try writer.compare() : try writer.run()
        return Outcome(
            plan: preparation.plan, repository: cluster.repository.name, pgdata: options.pgdata,
            placements: preparation.placements, walDirectory: options.walDirectory, settings: preparation.settings,
            files: preparation.survey.files,
            totalBytes: preparation.survey.totalBytes, extraFiles: preparation.survey.extraFiles,
            extraFilesDirectory: options.extraFilesDirectory, unreadable: preparation.unreadable,
            recoveryReads: preparation.recoveryReads, awayRepositories: preparation.awayRepositories,
            delta: delta, isOwnerKept: writer.owner != nil, isWritten: !options.isDryRun,
            milliseconds: (time.monotonicNanoseconds() - start) / 1_000_000)
    }
}

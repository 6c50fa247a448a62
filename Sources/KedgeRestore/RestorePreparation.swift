// Everything that is decided and checked before the first byte of a restore is written.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// A restore that may begin.
struct RestorePreparation {
    let cluster: ClusterRepository
    let archive: WALArchive
    let plan: RestorePlan
    /// The partial segment that the plan needs; it was read once.
    let partial: PartialSegment?
    let root: ManifestRoot
    let survey: ManifestSurvey
    let placements: [TablespacePlacement]
    let settings: RecoverySettings
    let unreadable: [UnreadableRecord]
    /// The repositories that the recovery asks, where it does not ask all; nil where it does.
    let recoveryReads: [String]?
    /// The repositories that could not be read.
    let awayRepositories: [String]
    /// `PG_15_202209061`: the directory of this version in each tablespace (GetTablespaceVersionDirectory).
    let versionDirectory: String
    /// With --delta: what may be changed outside the data directory. Nil where there was nothing in it.
    let grant: DeltaGrant?
    /// WAL that only the data directory has; nil where there is none.
    let unarchived: UnarchivedWALOutcome?
    /// Held until the restore is done. A dry run takes none: it changes nothing.
    let lock: TargetLock

    /// Plans and checks. Throws as `Restore.run` does.
    init(
        _ cluster: ClusterRepository, _ options: Restore.Options, walSources: [RepositorySource],
        approving approve: (RestorePlan) throws(KedgeError) -> Void, random: any RandomSource,
        interruption: Interruption
    ) throws(KedgeError) {
        self.cluster = cluster
        let catalog = BackupCatalog(cluster)
        let listing = try catalog.list()
        try RestorePreparation.requireReadable(options.request.backup, in: listing)
        let wanted = listing.backups.first { $0.label == options.request.backup }
        let system = try SystemChoice(cluster.newestRegistration, listing.backups).system(of: wanted)
        let backups = listing.backups.filter { $0.server.systemIdentifier == system }
        archive = WALArchive(cluster, try RestorePreparation.registration(of: system, wanted, cluster))
        let wal = try ReachableWAL(archive, walSources, for: options, random: random, interruption: interruption)
        unreadable = listing.unreadable + wal.unreadable
        // A standby waits for a repository that is away; a recovery would end.
        (recoveryReads, awayRepositories) = (options.request.standby ? nil : wal.readable, wal.unreadableRepositories)
        let made: RestorePlan
        do throws(KedgeError) {
            made = try RestorePreparation.makePlan(options, backups, wal, archive)
        } catch {
            guard wanted == nil else { throw error }
            throw SystemChoice.naming(listing.backups.filter { $0.server.systemIdentifier != system }, in: error)
        }
        try approve(made)
        try interruption.checkpoint()
        partial = try PartialSegment(of: made, in: wal.archives, threads: options.processMax)

        root = try catalog.manifest(of: made.backup)
        let reader = ManifestReader(root, reader: PackReader(PackDirectories(cluster)))
        versionDirectory = archive.registration.tablespaceVersionDirectory
        survey = try ManifestSurvey(reader, of: made.backup, versionDirectory: versionDirectory)
        let isConfigured = options.pgdata == options.configuredPgdata
        let placer = TablespacePlacer(
            pgdata: options.pgdata, isConfigured: isConfigured, versionDirectory: versionDirectory,
            resolve: FileSystem.resolved)
        placements = try placer.decide(
            made.backup.tablespaces, created: made.tablespaces, mapping: options.mapping(of: made.backup))
        lock = TargetLock(options.pgdata)
        if !options.isDryRun { try lock.takeIfPresent() }
        grant = try TargetCheck(
            pgdata: options.pgdata, isConfigured: isConfigured, walDirectory: options.walDirectory,
            placements: placements, created: made.tablespaces, versionDirectory: versionDirectory,
            delta: options.isDelta
                ? DeltaPermission(pgdata: options.pgdata, system: system, replaced: options.replacedSystem) : nil,
            originalWALDirectory: made.backup.walDirectory
        ).run()
        try options.requireNothingKept(placements, created: made.tablespaces, versionDirectory: versionDirectory)
        let check = UnarchivedWALCheck(
            options: options, plan: made, archives: wal.archives, coverage: WALCoverage(wal.archived, backups: backups),
            unreadable: wal.unreadableRepositories, interruption: interruption)
        unarchived = grant == nil ? nil : try check.run()
        plan = unarchived?.isReplayed == true ? made.goingOn() : made
        settings = RecoverySettings(
            target: plan.target, timeline: plan.followed, action: options.action,
            isStandby: options.request.standby,
            restoreCommand: options.restoreCommand.reading(recoveryReads).text,
            archiving: options.archiving ?? (isConfigured ? .keep : .off), readsAhead: plan.mayReadAhead)
        try checkSpace(options)
    }

    /// Throws what is wrong with the record of the backup that is asked for.
    private static func requireReadable(
        _ label: Label?, in listing: CatalogListing
    ) throws(KedgeError) {
        if let label, !listing.backups.contains(where: { $0.label == label }),
            let record = listing.unreadable.first(where: { $0.name == label.text })
        {
            throw record.error
        }
    }

    private static func registration(
        of system: SystemIdentifier, _ wanted: CommitRecord?, _ cluster: ClusterRepository
    ) throws(KedgeError) -> Registration {
        do throws(KedgeError) {
            return try cluster.registration(of: system)
        } catch  where error.code == .walForeign {
            throw KedgeError(
                .damaged,
                "cannot restore backup \"\(wanted?.label.text ?? "")\": its database system is not registered",
                detail: "Its commit record names system \(system), and the repository has no registration of it.",
                hint: "Somebody may have removed or changed objects.  Restore another backup, or this one from another "
                    + "repository.")
        }
    }

    private static func makePlan(
        _ options: Restore.Options, _ backups: [CommitRecord], _ wal: ReachableWAL, _ archive: WALArchive
    ) throws(KedgeError) -> RestorePlan {
        let knowledge = try ArchiveKnowledge(wal.archives, histories: wal.histories, threads: options.processMax)
        var planner = RestorePlanner(
            options.request, backups: backups, archive: wal.archived, knowledge: knowledge)
        planner.serverWAL = try options.serverWAL(archive)
        return try planner.plan()
    }

    /// What the cluster needs besides its files: segments that recovery fetches. The server removes them only when it
    /// replays a checkpoint, which happens at least every max_wal_size of the original: its default is taken here.
    private func walBytes(_ options: Restore.Options) -> UInt64 {
        let few = 3 * archive.registration.walSegmentSize
        guard options.recoversAtOnce else { return few }
        let end = plan.stop?.record ?? plan.lastRecord ?? plan.chain.limit
        let replayed = end > plan.backup.span.startLSN ? end - plan.backup.span.startLSN : 0
        return few + min(replayed, 1 << 30)
    }

    /// Throws `no-space` where a file system has not enough room, with its name and what is missing.
    private func checkSpace(_ options: Restore.Options) throws(KedgeError) {
        func need(
            _ path: RawPath, _ room: ManifestSurvey.Room?, _ hint: String
        ) throws(KedgeError) -> RestoreSpace.Need {
            // What is there is kept, overwritten or removed before anything is added.
            let present = grant == nil ? Directory.Usage() : try Directory.usage(at: FileSystem.resolved(path))
            func missing(_ needed: UInt64?, _ present: UInt64) -> UInt64 {
                let needed = needed ?? 0
                return needed > present ? needed - present : 0
            }
            return RestoreSpace.Need(
                path: path, bytes: missing(room?.bytes, present.bytes), inodes: missing(room?.inodes, present.inodes),
                hint: hint)
        }
        let elsewhere =
            options.recoversAtOnce
            ? "name another directory with the setting drill-directory."
            : "restore into another directory with \"--pgdata\"."
        let data = try need(options.pgdata, survey.room[nil], elsewhere)
        let wal = RestoreSpace.Need(
            path: options.walDirectory ?? options.pgdata, bytes: walBytes(options), inodes: 3,
            hint: options.walDirectory == nil
                ? elsewhere : "name another directory with \"--waldir\".")
        let tablespaces = try placements.map { (placement) throws(KedgeError) in
            try need(
                grant == nil ? placement.target : placement.target.appending(versionDirectory),
                survey.room[placement.oid],
                options.recoversAtOnce
                    ? elsewhere : "map the tablespace elsewhere with \"--tablespace \(placement.oid)=DIR\".")
        }
        // A checksum of four bytes for each file is kept in a scratch file.
        let scratch = RestoreSpace.Need(
            path: options.workDirectory, bytes: survey.files * 4, inodes: 1,
            hint: "name another place with the setting work-directory.")
        try RestoreSpace.check([data, wal] + tablespaces + [scratch]) { (path) throws(KedgeError) in
            try FileSystemSpace(near: path)
        }
    }
}

extension Restore.Options {
    /// The directories that were chosen for the tablespaces of `backup`.
    fileprivate func mapping(of backup: CommitRecord) -> [UInt32: RawPath] {
        guard let tablespaceDirectory else { return tablespaces }
        var mapping = tablespaces
        for tablespace in backup.tablespaces where !tablespace.inPlace && mapping[tablespace.oid] == nil {
            mapping[tablespace.oid] = tablespaceDirectory.appending(String(tablespace.oid))
        }
        return mapping
    }
}

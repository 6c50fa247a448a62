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
    let root: ManifestRoot
    let survey: ManifestSurvey
    let placements: [TablespacePlacement]
    let settings: RecoverySettings
    let unreadable: [UnreadableRecord]

    /// Plans and checks. Throws as `Restore.run` does.
    init(_ cluster: ClusterRepository, _ options: Restore.Options, interruption: Interruption) throws(KedgeError) {
        self.cluster = cluster
        let catalog = BackupCatalog(cluster)
        let listing = try catalog.list()
        if let label = options.request.backup, !listing.backups.contains(where: { $0.label == label }),
            let record = listing.unreadable.first(where: { $0.name == label.text })
        {
            throw record.error
        }
        // Without a label only backups of the system that was registered last come into question (lesson 44).
        let wanted = listing.backups.first { $0.label == options.request.backup }
        let system = wanted?.server.systemIdentifier ?? cluster.newestRegistration.systemIdentifier
        let backups = listing.backups.filter { $0.server.systemIdentifier == system }
        if backups.isEmpty, let other = listing.backups.last {
            throw RestorePreparation.onlyOtherSystems(system, newest: other)
        }
        archive = WALArchive(cluster, try cluster.registration(of: system))
        let histories = try archive.histories()
        unreadable = listing.unreadable + histories.unreadable
        plan = try RestorePreparation.makePlan(options, backups, archive, histories.read)
        try interruption.checkpoint()

        root = try catalog.manifest(of: plan.backup)
        let reader = ManifestReader(root, reader: PackReader(PackDirectories(cluster)))
        survey = try ManifestSurvey(reader, of: plan.backup)
        placements = try TablespacePlacement.decide(
            plan.backup.tablespaces, created: plan.tablespaces, mapping: options.tablespaces, pgdata: options.pgdata)
        let isConfigured = options.pgdata == options.configuredPgdata
        settings = RecoverySettings(
            target: plan.target, timeline: options.request.standby ? nil : plan.timeline, action: options.action,
            isStandby: options.request.standby, restoreCommand: options.restoreCommand.text,
            archiving: options.archiving ?? (isConfigured ? .keep : .off))
        let registration = archive.registration
        try TargetCheck(
            pgdata: options.pgdata, isConfigured: isConfigured, placements: placements, created: plan.tablespaces,
            versionDirectory: "PG_\(registration.postgresVersion)_\(registration.catalogVersion)"
        ).run()
        try checkSpace(options)
    }

    private static func makePlan(
        _ options: Restore.Options, _ backups: [CommitRecord], _ archive: WALArchive,
        _ histories: [TimelineID: TimelineHistory]
    ) throws(KedgeError) -> RestorePlan {
        let knowledge = try ArchiveKnowledge(archive, histories: histories, threads: options.processMax)
        let planner = RestorePlanner(
            options.request, backups: backups,
            archive: ArchivedWAL(inventory: try archive.inventory(), histories: histories), knowledge: knowledge)
        return try planner.plan()
    }

    private static func onlyOtherSystems(_ system: SystemIdentifier, newest: CommitRecord) -> KedgeError {
        KedgeError(
            .notFound, "cannot restore: the repository holds no backup of the present database system",
            detail: "The system registered last is \(system); the newest backup, \(newest.label), is of system "
                + "\(newest.server.systemIdentifier), PostgreSQL \(newest.server.postgresVersion).",
            hint: "Run \"kedge backup\" first, or give \"--backup \(newest.label)\" for the older system.")
    }

    /// What the cluster needs besides its files: segments that recovery fetches.
    private var walBytes: UInt64 { 3 * archive.registration.walSegmentSize }

    /// Throws `no-space` where a file system has not enough room, with its name and the bytes that are missing.
    private func checkSpace(_ options: Restore.Options) throws(KedgeError) {
        var places = [(path: options.pgdata, bytes: (survey.bytes[nil] ?? 0) + walBytes)]
        places += placements.map { ($0.target, survey.bytes[$0.oid] ?? 0) }
        var needed: [RawPath: UInt64] = [:]
        for (path, bytes) in places {
            let space = try FileSystemSpace(near: path)
            let sum = (needed[space.mountPoint] ?? 0) + bytes
            needed[space.mountPoint] = sum
            guard sum > space.freeBytes else { continue }
            throw KedgeError(
                .noSpace, "cannot restore into \"\(path)\": the file system has not enough room",
                detail: "The file system at \"\(space.mountPoint)\" has \(space.freeBytes) bytes free, and \(sum) are "
                    + "needed: \(sum - space.freeBytes) are missing.",
                hint: "Free space there or make it larger, or restore into another directory with \"--pgdata\" or "
                    + "\"--tablespace\".")
        }
    }
}

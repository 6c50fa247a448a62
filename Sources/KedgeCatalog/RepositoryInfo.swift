// What one repository holds of a cluster, as `info` shows it.

package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Everything that `info` knows of a cluster in one repository.
package struct RepositoryInfo: Sendable {
    package let name: String
    package let location: String
    package let registration: Registration
    /// Committed backups, oldest first. Those of an earlier database system come first.
    package let backups: [BackupInfo]
    package let unreadableBackups: [UnreadableRecord]
    /// Backups under way; an intent that can't be read has its error.
    package let intents: [(label: Label, intent: Result<Intent, KedgeError>)]
    /// Work that is being done, or whose end nobody told. A record that can't be read is nil; the time is the store's.
    package let leases: [(operation: String, record: LeaseRecord?, renewedAt: Timestamp)]
    package let inventory: WALInventory
    /// Gaps in it that are no news.
    package let knownGaps: [KnownGap]
    /// WAL files that are there with different content.
    package let conflicts: [ArchivedConflict]
    package let unreadableHistories: [UnreadableRecord]
    package let windows: [WindowInfo]
    /// Segments with damaged records, from the newest backup's start on.
    package let suspects: [CommitRecord.SuspectWAL]
    /// Segments whose facts can't be read, by file name.
    package let unreadableSegments: [UnreadableRecord]
    /// Every proof there is, oldest first, also those of backups that are gone; nil where they were not asked for.
    package let proofs: [ProofRecord]?
    /// Proofs that can't be read, and objects among them that are none. They prove nothing.
    package let unreadableProofs: [UnreadableRecord]
    /// Whether there were more segments after the newest backup than were looked at.
    package let hasUnseenSegments: Bool

    /// What the backup with this label is doing, by its lease.
    package func lease(for label: Label) -> (record: LeaseRecord, renewedAt: Timestamp)? {
        for lease in leases {
            if let record = lease.record, record.label == label.text { return (record, lease.renewedAt) }
        }
        return nil
    }

    /// A committed backup.
    package struct BackupInfo: Sendable {
        package let record: CommitRecord
        /// Whether all WAL is there that it needs to become consistent. Nil where it was not looked at: the backup is
        /// one of an earlier database system, before pg_upgrade.
        package let hasItsWAL: Bool?
        /// What its proofs say.
        package let standing: ProofStanding
        package let isPinned: Bool
        /// When it was condemned, by the store's clock; nil where it was not.
        package let condemnedAt: Timestamp?
        /// Whether an expire has begun to remove it, and may be at it.
        package let removalHasBegun: Bool
        /// The deltas that were taken from it, which keep it.
        package let bases: [Label]
        /// What its removal would free, without WAL.
        package let share: RemovalGain.Share
    }

    /// A moment in the log.
    package struct Moment: Hashable, Sendable {
        package let lsn: LSN
        /// Nil where nobody could tell without reading more than `info` should.
        package let time: Timestamp?
    }

    /// What can be reached along one timeline.
    package struct WindowInfo: Sendable {
        package let timeline: TimelineID
        package let from: Moment
        /// The last record that can be replayed, and the last commit or abort.
        package let to: Moment
        package let newestBackup: Label
        package let backupCount: Int
        /// In the order of their stop LSNs.
        package let backups: [CommitRecord]
    }
}

/// Surveys one repository.
package struct RepositorySurvey {
    let cluster: ClusterRepository
    let interruption: Interruption
    /// How many segments' facts are read at most.
    let segmentLimit: Int
    /// Whether all proofs are opened, and not just those that decide.
    let listsProofs: Bool

    package init(
        cluster: ClusterRepository, interruption: Interruption, segmentLimit: Int = 500, listsProofs: Bool = false
    ) {
        self.cluster = cluster
        self.interruption = interruption
        self.segmentLimit = segmentLimit
        self.listsProofs = listsProofs
    }

    /// Throws what reading throws where the repository itself, and not one object, is what failed.
    package func run() throws(KedgeError) -> RepositoryInfo {
        let registration = cluster.newestRegistration
        let archive = WALArchive(cluster, registration)
        let catalog = BackupCatalog(cluster)
        let intents = try readIntents(catalog)
        let listing = try catalog.list()
        let evidence = try ProofSurvey(cluster, listsAll: listsProofs).run(listing.backups)
        let relations = try BackupRelations(listing.backups, in: cluster)
        try interruption.checkpoint()
        let inventory = try archive.inventory()
        let (histories, unreadableHistories) = try archive.histories()
        let backups = listing.backups.filter { $0.server.systemIdentifier == registration.systemIdentifier }
        let archived = ArchivedWAL(inventory: inventory, histories: histories).knowing(backups)
        let survey = SegmentSurvey(archive, limit: segmentLimit, interruption: interruption)
        let proven = ProvenEnds.find(
            backups.map(evidence.standing), segmentSize: registration.walSegmentSize)
        var damage = recordedDamage(backups).merging(proven) { min($0, $1) }
        var windows = RecoverableWindows.find(backups: backups, archive: archived, damage: damage)
        // What leads to an end that a verification found, it has read.
        let unread = windows.filter { $0.damage.map { proven[$0] == nil } ?? true }
        let hasUnseen = try lookBehindNewestBackups(of: unread, survey, &damage)
        windows = RecoverableWindows.find(backups: backups, archive: archived, damage: damage)
        let harmless = Set(damage.filter { archived.isHarmless($0.value, in: $0.key) }.map(\.key))
        let newest = backups.max { ($0.span.timeline, $0.span.stopLSN) < ($1.span.timeline, $1.span.stopLSN) }
        var shown: [RepositoryInfo.WindowInfo] = []
        for window in windows { shown.append(try WindowSurvey(survey).describe(window)) }
        return RepositoryInfo(
            name: cluster.repository.name, location: cluster.repository.store.location, registration: registration,
            backups: listing.backups.filter { $0.server.systemIdentifier != registration.systemIdentifier }.map {
                relations.info($0, hasItsWAL: nil, evidence.standing(of: $0))
            }
                + backups.map {
                    relations.info(
                        $0, hasItsWAL: RecoverableWindows.canBecomeConsistent($0, archive: archived, damage: damage),
                        evidence.standing(of: $0))
                },
            unreadableBackups: listing.unreadable, intents: intents, leases: try Lease.all(in: cluster),
            inventory: inventory, knownGaps: try archive.knownGaps(),
            conflicts: try ConflictSurvey(archive: archive, interruption: interruption).run(inventory),
            unreadableHistories: unreadableHistories, windows: shown,
            suspects: try suspects(backups, damage.filter { !harmless.contains($0.key) }, proven, newest, survey),
            unreadableSegments: survey.unreadable.map { link, error in
                UnreadableRecord(name: link.segment.fileName(segmentSize: inventory.segmentSize), error: error)
            }.sorted { $0.name < $1.name }, proofs: evidence.proofs, unreadableProofs: evidence.unreadable,
            hasUnseenSegments: hasUnseen)
    }

    private func readIntents(
        _ catalog: BackupCatalog
    ) throws(KedgeError) -> [(label: Label, intent: Result<Intent, KedgeError>)] {
        var intents: [(label: Label, intent: Result<Intent, KedgeError>)] = []
        for label in try catalog.intents() {
            do throws(KedgeError) {
                intents.append((label, .success(try catalog.intent(label))))
            } catch  where error.code == .notFound {
                // The backup ended meanwhile.
            } catch {
                guard error.code.isAboutTheObject else { throw error }
                intents.append((label, .failure(error)))
            }
        }
        return intents
    }

    // MARK: - Damage

    /// What the backups' own commit records say.
    private func recordedDamage(_ backups: [CommitRecord]) -> [WALSegment: LSN] {
        var damage: [WALSegment: LSN] = [:]
        for suspect in backups.flatMap(\.health.walSuspect) {
            let segment = WALSegment(fileName: suspect.file, segmentSize: cluster.newestRegistration.walSegmentSize)
            if let segment { damage[segment] = suspect.lsn }
        }
        return damage
    }

    /// Reads the facts from each window's end back to its newest backup. Returns whether some were left out.
    private func lookBehindNewestBackups(
        of windows: [RecoverableWindow], _ survey: SegmentSurvey, _ damage: inout [WALSegment: LSN]
    ) throws(KedgeError) -> Bool {
        var hasUnseen = false
        for window in windows {
            let first = window.newest.span.startLSN.position / window.chain.segmentSize
            try window.forEachLinkBackwards { (link) throws(KedgeError) in
                guard link.segment.number >= first else { return false }
                let excerpt = try survey.excerpt(of: link)
                if let defect = excerpt?.defect { damage[link.segment] = defect.lsn }
                if excerpt == nil {
                    let key = WALLink(segment: link.segment, isPartial: link.isPartial, previous: nil)
                    guard survey.unreadable[key] != nil else {
                        hasUnseen = true
                        return false
                    }
                    // archive-get will refuse it, so recovery ends where it begins.
                    if !link.isPartial {
                        damage[link.segment] = link.segment.startLSN(segmentSize: window.chain.segmentSize)
                    }
                }
                return true
            }
        }
        return hasUnseen
    }

    /// The damage that a new backup would put behind us: from the newest backup's start on.
    private func suspects(
        _ backups: [CommitRecord], _ damage: [WALSegment: LSN], _ proven: [WALSegment: LSN],
        _ newest: CommitRecord?, _ survey: SegmentSurvey
    ) throws(KedgeError) -> [CommitRecord.SuspectWAL] {
        guard let newest else { return [] }
        let recorded = backups.flatMap(\.health.walSuspect)
        var suspects: [CommitRecord.SuspectWAL] = []
        for (segment, lsn) in damage where lsn >= newest.span.startLSN {
            let file = segment.fileName(segmentSize: cluster.newestRegistration.walSegmentSize)
            let link = WALLink(segment: segment, previous: nil)
            let excerpt = try survey.excerpt(of: link)
            // What could not be read is told as such, with its reason.
            guard survey.unreadable[link] == nil else { continue }
            var reason = recorded.first { $0.file == file }?.reason ?? excerpt?.defect?.reason
            if reason == nil, proven[segment] != nil { reason = "\"kedge verify\" found that recovery ends there" }
            suspects.append(CommitRecord.SuspectWAL(file: file, lsn: lsn, reason: reason ?? ""))
        }
        return suspects.sorted { $0.file < $1.file }
    }
}

// Takes one base backup, full or delta, of a running primary, or a full one of a standby, into one repository. `run()`
// reads as the list of steps.
//
// Order of writes (Catalog/FORMAT.md section 7):
//   0. a delta's parent is chosen and read, so that a full backup is still possible
//   1. intent, right after the server started the backup; then the parent is looked up again
//   2. packs, then the manifest's root
//   3. every WAL segment and history file that a restore needs is found in this repository
//   4. the intent still stands, and the parent and every pack are there
//   5. commit record: now the backup exists; then 4 is looked at again (BackupCommit.swift)
//   6. the intent goes
// Whatever fails before 5 leaves no backup: the session ends, which ends the server's side of it, and uploads are
// aborted. Packs that were complete stay behind unreferenced, and with them the intent, so that the next backup takes
// them over (InterruptedBackups.swift); without any the intent is removed.

import KedgeCatalog
import KedgeCodec
package import KedgeCore
import KedgePostgres
import KedgeRepository

/// One backup.
package struct Backup: Sendable {
    let options: Options
    private(set) var tools: Tools

    package init(_ options: Options, _ tools: Tools) {
        self.options = options
        self.tools = tools
        // A part of its own: the loss of the session stops this backup, and nothing else of the process.
        self.tools.interruption = Interruption(within: tools.interruption)
    }

    /// Takes the backup.
    ///
    /// Throws `locked` where another backup of this cluster runs, `not-supported`, `configuration`, `archiving-broken`,
    /// `database-unavailable`, `interrupted`, and what the repository throws. When it throws, no
    /// backup was committed, except that the fate of a commit record is unknown when storing that very object failed.
    package func run() throws(KedgeError) -> Outcome {
        var phases = Phases(tools.time)
        let lock = try takeLock()
        defer { _ = lock }
        let cluster = try options.repository.openCluster(
            options.clusterName, for: .write, random: tools.random)
        let connection = try DatabaseConnection(options.database, unless: tools.interruption)
        let server = try ServerCheck(
            connection, dataDirectory: options.dataDirectory, cluster: cluster, time: tools.time)
        let position = try connection.position()
        let primary = try primary(of: server)
        let (choice, parent) = try parentSearch(cluster).run(server, at: position)
        let label = Label(
            time: position.time, type: parent == nil ? .full : .delta, random: tools.random)
        tools.progress.begin("starting the backup")
        let lease = try BackupLease(label, in: cluster, options: options, tools: tools)
        do throws(KedgeError) {
            var outcome = try run(
                Session(
                    cluster: cluster, connection: connection, server: server, primary: primary,
                    online: OnlineBackup(on: connection, label: label.text), label: label, choice: choice,
                    parent: parent), &phases)
            outcome.warnings += lease.end()
            return outcome
        } catch {
            // Whatever there is to say about the lease, the error says more.
            _ = lease.end()
            throw error
        }
    }

    private func run(_ session: Session, _ phases: inout Phases) throws(KedgeError) -> Outcome {
        session.connection.answerLimit = options.watching.answerLimit
        do throws(KedgeError) {
            try ServerCheck.checkOwn(
                ControlFile.read(dataDirectory: options.dataDirectory, time: tools.time), session.online.start,
                options.dataDirectory)
            try putIntent(session)
            if let parent = session.parent?.record {
                try parentSearch(session.cluster).check(parent, of: session.label, startedAt: session.online.start)
            }
            try checkArchiving(session)
            phases.end("start")
            return try copyAndCommit(session, &phases)
        } catch {
            session.online.abort()
            throw givenUp(session, because: error)
        }
    }

    private func copyAndCommit(_ session: Session, _ phases: inout Phases) throws(KedgeError) -> Outcome {
        let copy = try watched(session) { () throws(KedgeError) in try self.copy(session) }
        phases.end("copy")
        tools.progress.begin("stopping the backup")
        let stop = try session.online.stop()
        try checkTimeline(session, stop)
        // Commits have the primary's times: none that the backup holds lies after this.
        let stopTime = max(stop.after.time, try session.primary?.connection.position().time ?? stop.after.time)
        let root = try copy.finish(label: session.label, backupLabel: stop.labelBytes, at: stop.after.time)
        let manifest = try session.catalog.putManifest(root)
        phases.end("manifest")
        tools.progress.begin("waiting for WAL")
        let wal = try waitForWAL(session, stop)
        phases.end("wal")
        let record = try record(session, copy, stop, stopTime, root: root, manifest: manifest, wal: wal, phases: phases)
        try tools.interruption.checkpoint()
        // Somebody may have expired things meanwhile on another host (lesson 24).
        let doubt = try BackupCommit(session.catalog, label: session.label, parent: record.parent).put(record)
        return Outcome(
            record: record, repositoryName: session.cluster.repository.name, reason: session.choice.reason,
            warnings: session.server.warnings + copy.walk.allWarnings,
            afterCommit: doubt ?? removeIntent(session))
    }

    // MARK: - Steps

    /// What the steps work on.
    struct Session {
        let cluster: ClusterRepository
        let connection: DatabaseConnection
        let server: ServerCheck
        /// Only of a standby, where it is configured.
        let primary: PrimaryServer?
        let online: OnlineBackup
        let label: Label
        let choice: ParentChoice
        /// Nil for a full backup.
        let parent: ParentBackup?
        /// What is stored by now.
        let packs = PackTally()

        var catalog: BackupCatalog { BackupCatalog(cluster) }
        var archive: WALArchive { WALArchive(cluster, server.registration) }
    }

    private func parentSearch(_ cluster: ClusterRepository) -> ParentSearch {
        ParentSearch(
            request: options.request, catalog: BackupCatalog(cluster), dataDirectory: options.dataDirectory,
            tools: tools)
    }

    private func primary(of server: ServerCheck) throws(KedgeError) -> PrimaryServer? {
        guard server.isStandby else { return nil }
        guard let primary = options.primary else {
            tools.warn(
                "This is a standby, and no primary-host is set: when the files are copied the backup waits until the "
                    + "primary has ended and archived the last segment by itself.")
            return nil
        }
        return try PrimaryServer(
            primary, of: server.settings, clusterName: options.clusterName, unless: tools.interruption)
    }

    private func takeLock() throws(KedgeError) -> FileLock {
        try FileLock(
            at: options.workDirectory.appending("backup-\(options.clusterName).lock"),
            purpose: "backup of cluster \(options.clusterName)", time: tools.time)
    }

    private func putIntent(_ session: Session) throws(KedgeError) {
        let start = session.online.start
        try session.catalog.begin(
            Intent(
                label: session.label, type: session.label.type, parent: session.parent?.record.label,
                systemIdentifier: session.server.settings.systemIdentifier, timeline: start.timeline,
                startLSN: start.lsn, startedAt: start.time, hostName: options.hostName, processID: options.processID,
                createdBy: Version.writer))
    }

    /// Says now, and not when the repository is full, that it evidently can't take the backup.
    private func warnOfLittleRoom(_ session: Session, databaseBytes: UInt64) throws(KedgeError) {
        let repository = session.cluster.repository
        // What a delta needs depends on what has changed.
        guard session.parent == nil else { return }
        // Where all of it fits as it is, nothing has to be guessed.
        guard let space = try repository.store.space(), databaseBytes > space.freeBytes || space.lacksInodes else {
            return
        }
        let last = try session.catalog.list().backups.last { $0.type == .full }
        let precedent = last.map {
            RoomForecast.Precedent(databaseBytes: $0.sizes.databaseBytes, storedBytes: $0.sizes.storedBytes)
        }
        let warning = RoomForecast.warning(
            databaseBytes: databaseBytes, precedent: precedent,
            compresses: repository.settings.compression.codec != .none, space: space,
            repository: repository.name)
        if let warning { tools.warn(warning) }
    }

    /// What earlier backups of this cluster stored and never committed.
    private func takenOver(_ session: Session) throws(KedgeError) -> TakenOverPacks? {
        let interrupted = try InterruptedBackups(
            in: session.catalog, besides: session.label, of: session.server.settings.systemIdentifier)
        guard !interrupted.labels.isEmpty else { return nil }
        tools.progress.begin("reading the packs of interrupted backups")
        return try TakenOverPacks(
            interrupted, in: session.cluster, workDirectory: options.workDirectory, unless: tools.interruption,
            log: tools.warn)
    }

    private func copy(_ session: Session) throws(KedgeError) -> BackupCopy {
        let copy = try BackupCopy(
            session.server, startLSN: session.online.start.lsn, parent: session.parent,
            packs: ClusterPacks(
                cluster: session.cluster, limits: options.packLimits, label: session.label, tally: session.packs),
            takenOver: try takenOver(session), options: options, tools: tools)
        try warnOfLittleRoom(session, databaseBytes: copy.listing.totals.bytes)
        try copy.copyFiles()
        try copy.copyControlFile(session.online.start, time: tools.time)
        return copy
    }

    /// Runs `body` while the session is looked after. A dead session is a failed backup: whatever is copied from then
    /// on would be of no use (lesson 40).
    private func watched<Result>(
        _ session: Session, while body: () throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        let watch = try SessionWatch(session.online, options.watching.session, stopping: tools.interruption)
        let result: Result
        do throws(KedgeError) {
            result = try body()
        } catch {
            // A ping that hangs must not keep us. What it says then is not why we stop.
            tools.interruption.stop(because: error)
            let loss = watch.stop()
            throw loss?.code == .databaseUnavailable ? loss ?? error : error
        }
        if let loss = watch.stop() { throw loss }
        return result
    }

    /// The label has the last word on a standby's timeline. All of the backup's WAL must be of one.
    private func checkTimeline(_ session: Session, _ stop: OnlineBackup.Stop) throws(KedgeError) {
        let start = session.online.start
        guard start.isFromStandby else { return }
        guard stop.after.isInRecovery, stop.label.startTimeline == start.timeline,
            stop.after.timeline == start.timeline
        else {
            throw KedgeError(
                .databaseRefused, "the backup has failed: the standby went to another timeline while it was taken",
                detail: "It began on timeline \(start.timeline); the server is on timeline \(stop.after.timeline).",
                hint: "Run the backup again.")
        }
    }

    private func removeIntent(_ session: Session) -> KedgeError? {
        do throws(KedgeError) {
            try session.catalog.end(session.label)
            return nil
        } catch {
            return error.wrapped("could not remove the intent of backup \"\(session.label)\", which is committed")
        }
    }

    /// False only where it is known to be gone.
    private func mayHaveIntent(_ session: Session) -> Bool {
        do throws(KedgeError) {
            _ = try session.catalog.intent(session.label)
            return true
        } catch {
            return error.code != .notFound
        }
    }

    /// The error of a backup that failed. Its intent is removed, unless it protects packs that the next one can use;
    /// where the repository is full they must not keep an expire from making room.
    private func givenUp(_ session: Session, because error: KedgeError) -> KedgeError {
        if session.packs.count > 0, error.code != .noSpace, mayHaveIntent(session) {
            var error = error
            let note =
                "\(session.packs.bytes) bytes in \(session.packs.count) pack(s) were stored, which the next backup "
                + "takes over where the data is still the same."
            error.detail = error.detail.map { "\($0) \(note)" } ?? note
            return error
        }
        do throws(KedgeError) {
            try session.catalog.end(session.label)
            return error
        } catch let second {
            var error = error
            let note = "The intent \"\(session.label)\" could not be removed either: \(second.message)."
            error.detail = error.detail.map { "\($0) \(note)" } ?? note
            return error
        }
    }
}

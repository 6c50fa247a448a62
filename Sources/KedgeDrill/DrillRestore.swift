// The first half of a drill: which backup, to which end, and all of its files into the scratch directory.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore

/// Restores for a drill. Used by one thread, once.
final class DrillRestore {
    private let source: RepositorySource
    private let cluster: ClusterRepository
    private let scratch: ScratchDirectory
    private let options: Drill.Options
    private let tools: Drill.Tools
    private let checks: CheckList
    private let clock: PhaseClock

    /// What was asked for, with what was chosen at random.
    private(set) var request = RestoreRequest()
    /// Nil until there is one that can be carried out.
    private(set) var plan: RestorePlan?
    /// The backup that this drill is about: what is planned, or what there is no plan for.
    private(set) var backup: CommitRecord?
    /// Of the backup's version; there once there is a plan.
    private(set) var programs: ServerPrograms?
    private(set) var warnings: [String] = []
    private var survey: RepositoryInfo?

    init(
        _ source: RepositorySource, _ cluster: ClusterRepository, _ scratch: ScratchDirectory,
        _ options: Drill.Options, _ tools: Drill.Tools, checks: CheckList, clock: PhaseClock
    ) {
        self.source = source
        self.cluster = cluster
        self.scratch = scratch
        self.options = options
        self.tools = tools
        self.checks = checks
        self.clock = clock
    }

    /// Plans and writes. Nil where the backup or its WAL turned out not to do.
    func run() throws(KedgeError) -> Restore.Outcome? {
        // What can be recovered now, not what will be when the drill is over. No restore would wait for it.
        if options.recoveryPointObjective != nil { _ = try surveyed() }
        clock.begin("select")
        tools.progress.begin("planning")
        request = try selectRequest()
        var restoring = Restore.Options(
            clusterName: options.clusterName, request: request, pgdata: scratch.data,
            configuredPgdata: options.configuredPgdata, action: .pause, archiving: .off,
            restoreCommand: options.restoreCommand, extraFilesDirectory: scratch.extraFiles,
            processMax: options.processMax, workDirectory: options.workDirectory)
        restoring.tablespaceDirectory = scratch.tablespaces
        restoring.recoversAtOnce = true
        let restore = Restore(
            source, restoring, progress: tools.progress, time: tools.time, random: tools.random,
            interruption: tools.interruption)
        do throws(KedgeError) {
            let outcome = try runWhenArchived(restore)
            warnings += outcome.unreadable.map { "\"\($0.name)\" cannot be read: \($0.error.message)" }
            warnings += outcome.plan.warnings
            clock.end(bytes: outcome.totalBytes)
            checks.add("fetch", .passed("\(outcome.files) files, each byte as it was backed up"))
            return outcome
        } catch {
            clock.end()
            try note(failedRestore: error)
            return nil
        }
    }

    /// Runs it; plans again while the reason against it may be gone as soon as a push under way has ended.
    private func runWhenArchived(_ restore: Restore) throws(KedgeError) -> Restore.Outcome {
        let begin = tools.time.monotonicNanoseconds()
        let seconds = UInt64(clamping: options.gapPatience.components.seconds)
        let patience = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        // A hole that is gone when it is looked at again: the next plan may meet another, but not for ever.
        var closed = 0
        while true {
            do throws(KedgeError) {
                return try restore.run { (plan) throws(KedgeError) in try approve(plan) }
            } catch {
                guard plan == nil, error.code == .targetUnreachable, request.target == .latest,
                    tools.time.monotonicNanoseconds() - begin < (patience.overflow ? .max : patience.partialValue)
                else { throw error }
                switch try archivedHoles() {
                case .mayClose: closed = 0
                case .none where closed < 3: closed += 1
                case .none, .stay: throw error
                }
                tools.progress.begin("waiting for WAL")
                try tools.time.sleep(nanoseconds: 1_000_000_000, unless: tools.interruption)
            }
        }
    }

    /// What is missing behind the backup that would be restored.
    private func archivedHoles() throws(KedgeError) -> ArchivedWAL.Holes {
        guard let backup = try blamed() else { return .stay }
        let archive = WALArchive(cluster, try cluster.registration(of: backup.server.systemIdentifier))
        let archived = ArchivedWAL(inventory: try archive.inventory(), histories: try archive.histories().read)
        return archived.holes(after: backup)
    }

    private func selectRequest() throws(KedgeError) -> RestoreRequest {
        if case .given(let request) = options.wish { return request }
        let windows = try surveyed().windows.map { window in
            DrillWindow(
                timeline: window.timeline, toLSN: window.to.lsn, toTime: window.to.time,
                backups: window.backups.map {
                    DrillWindow.Backup(
                        label: $0.label, stopLSN: $0.span.stopLSN, stopTime: $0.span.stopTime)
                })
        }
        return try options.wish.request(in: windows, random: tools.random)
    }

    /// What `info` knows of the repository; read once.
    func surveyed() throws(KedgeError) -> RepositoryInfo {
        if let survey { return survey }
        let name = cluster.repository.name
        let info = Info(
            [.init(name: options.clusterName, repositories: [.init(name: name, source: .success(source))])],
            time: tools.time, random: tools.random, interruption: tools.interruption)
        guard let found = try info.run().first?.repositories.first?.info else {
            throw KedgeError(.defect, "could not survey repository \"\(name)\"", hint: "Please report this.")
        }
        let survey = try found.get()
        self.survey = survey
        return survey
    }

    /// What has to be right before anything is fetched.
    private func approve(_ plan: RestorePlan) throws(KedgeError) {
        self.plan = plan
        backup = plan.backup
        clock.end()
        programs = try ServerPrograms.find(
            majorVersion: plan.backup.server.postgresVersion, configured: options.binDirectory,
            interruption: tools.interruption)
        // It would be made at its recorded path, outside of the scratch directory.
        if let tablespace = plan.tablespaces.first(where: { !$0.path.bytes.isEmpty }) {
            throw KedgeError(
                .notSupported,
                "cannot drill: recovery would create tablespace \(tablespace.oid) at "
                    + "\"\(tablespace.path)\"",
                detail: "It was created after backup \(plan.backup.label), at LSN \(tablespace.lsn), and the server "
                    + "makes it at the path that is in the WAL, outside of the scratch directory.",
                hint: "Make a new backup and drill that one, or drill to a point before the tablespace was created, "
                    + "such as \"--target-immediate\".")
        }
        clock.begin("fetch")
    }

    /// Tells damage from what says nothing about the backup, which is thrown.
    private func note(failedRestore error: KedgeError) throws(KedgeError) {
        if plan != nil {
            guard error.code.exitStatus == ErrorCode.damaged.exitStatus || error.code == .archiveConflict else {
                throw error
            }
            checks.add("fetch", .failed(DrillRestore.sentence(error)))
            return
        }
        // What was asked for may be a moment that nobody ever could recover to; that all of it can be is promised.
        let isPromised = request.target == .latest || request.target == .immediate
        guard
            error.code == .damaged || error.code == .archiveConflict || (error.code == .targetUnreachable && isPromised)
        else { throw error }
        backup = try blamed()
        guard backup != nil else { throw error }
        checks.add("plan", .failed(DrillRestore.sentence(error)))
    }

    /// The backup that would have been restored.
    private func blamed() throws(KedgeError) -> CommitRecord? {
        let backups = try BackupCatalog(cluster).list().backups
        if let label = request.backup { return backups.first { $0.label == label } }
        let system = cluster.newestRegistration.systemIdentifier
        return backups.filter { $0.server.systemIdentifier == system }.max {
            ($0.span.timeline, $0.span.stopLSN) < ($1.span.timeline, $1.span.stopLSN)
        }
    }

    private static func sentence(_ error: KedgeError) -> String {
        let cause = error.cause.map { "; \(sentence($0))" } ?? "."
        return ([error.message] + (error.detail.map { ["(\($0))"] } ?? [])).joined(separator: " ") + cause
    }
}

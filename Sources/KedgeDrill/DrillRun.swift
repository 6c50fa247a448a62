// One run of a drill, step by step: restored, started, recovered, checked, and the proof of it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore

/// The steps of a drill. Used by one thread, once.
final class DrillRun {
    private let cluster: ClusterRepository
    private let scratch: ScratchDirectory
    private let options: Drill.Options
    private let tools: Drill.Tools
    private let checks: CheckList
    private let started: Timestamp
    private let clock: PhaseClock
    private let restore: DrillRestore

    private var ownWarnings: [String] = []
    private var server: ScratchServer?
    private var user = ""
    private var end: RecoveryEnd?
    private var isReached = false

    init(
        _ source: RepositorySource, _ cluster: ClusterRepository, _ scratch: ScratchDirectory,
        _ options: Drill.Options, _ tools: Drill.Tools
    ) {
        self.cluster = cluster
        self.scratch = scratch
        self.options = options
        self.tools = tools
        checks = CheckList(time: tools.time)
        started = tools.time.now()
        clock = PhaseClock(tools.time)
        restore = DrillRestore(source, cluster, scratch, options, tools, checks: checks, clock: clock)
    }

    /// Nil where nothing could be planned.
    var plan: RestorePlan? { restore.plan }

    /// What happened on the way that is no check, a sentence each.
    var warnings: [String] { restore.warnings + ownWarnings }

    /// Everything but the proof and the removal. Returns early at the first check without which no other makes sense.
    private func recoverAndCheck() throws(KedgeError) {
        guard let restored = try restore.run(), let plan, let programs = restore.programs else { return }
        let configuration = try configuration(of: restored, plan, programs)
        let server = ScratchServer(programs, scratch, interruption: tools.interruption)
        self.server = server
        guard try recover(server, configuration, plan) else { return }
        try open(server)
        // Its server is gone or still recovers: all other checks would say that too.
        guard !checks.hasFailed else { return }
        clock.begin("checks")
        tools.progress.begin("checking")
        try DatabaseChecks(
            server: server, programs: programs, user: user, amcheck: options.amcheck, checks: checks, tools: tools
        ).run()
        let unusable = try runAssertions(server, programs)
        try scanPages(server, plan.backup)
        clock.end()
        // What else is wrong is a result all the same.
        if let unusable, !checks.hasFailed { throw unusable }
    }

    // MARK: - Start and replay

    private func configuration(
        of restored: Restore.Outcome, _ plan: RestorePlan, _ programs: ServerPrograms
    ) throws(KedgeError) -> ScratchConfiguration {
        let control = try ControlFile.read(dataDirectory: scratch.data, time: tools.time)
        let original = plan.backup.dataDirectory
        let main = restored.extraFiles.first { $0.lastComponent == "postgresql.conf" }
        let settings = try RestoredSettings(
            main: main ?? original.appending("postgresql.conf"),
            .init(original: original, restored: scratch.data, extraFiles: scratch.extraFiles))
        for path in settings.missing {
            ownWarnings.append(
                "The configuration file \"\(path)\" is not in the backup: what it sets is not known to the drill.")
        }
        // Its settings would win over the scratch server's own. The timeline is for archive-get, which looks for it
        // here.
        try scratch.write(
            "# kedge drill has put its own settings elsewhere.\n"
                + RecoverySettings.line("recovery_target_timeline", plan.timeline.description) + "\n",
            to: scratch.data.appending("postgresql.auto.conf"))
        let preload =
            options.settings.last { $0.name == "shared_preload_libraries" }?.value
            ?? settings.values["shared_preload_libraries"] ?? ""
        let libraries = RestoredSettings.list(preload)
        try requireLibraries(libraries, programs)
        return ScratchConfiguration(
            data: scratch.data, directory: scratch.configuration, socketDirectory: scratch.socketDirectory,
            majorVersion: programs.majorVersion, id: scratch.name.id, limits: control.standbySettings,
            walSegmentSize: plan.backup.server.walSegmentSize, preload: libraries,
            hasInPlaceTablespaces: plan.backup.tablespaces.contains(where: \.inPlace)
                || plan.tablespaces.contains { $0.path.bytes.isEmpty },
            recovery: restored.settings.lines, overrides: options.settings)
    }

    /// Without them the server would not start.
    private func requireLibraries(_ libraries: [String], _ programs: ServerPrograms) throws(KedgeError) {
        for name in libraries {
            guard let path = programs.library(name), try !FileSystem.exists(path) else { continue }
            throw KedgeError(
                .configuration, "cannot start the restored cluster: library \"\(name)\" is not on this host",
                detail: "The cluster's shared_preload_libraries names it, and there is no file \"\(path)\".",
                hint: "Install the package that holds it, or leave it out with "
                    + "\"--drill-set shared_preload_libraries=…\" if the data can do without.")
        }
    }

    /// False where the target was not reached.
    private func recover(
        _ server: ScratchServer, _ configuration: ScratchConfiguration, _ plan: RestorePlan
    ) throws(KedgeError) -> Bool {
        let expected = ExpectedEnd(plan)
        let start = plan.backup.span.startLSN
        let goal = plan.stop?.record ?? plan.lastRecord ?? plan.backup.span.stopLSN
        tools.progress.begin("replaying", totalBytes: goal > start ? goal - start : 0)
        clock.begin("start")
        let watch = RecoveryWatch(
            server, scratch, configuration, expected: expected, users: options.users, isKept: options.isKept,
            tools: tools)
        let result = try watch.run()
        user = watch.user
        if !watch.raised.isEmpty {
            ownWarnings.append(
                "Replay wanted higher limits than pg_control names: \(watch.raised.joined(separator: ", ")).")
        }
        clock.split(at: watch.consistentAt, into: "replay")
        switch result {
        case .failed(let reason):
            clock.end()
            checks.add("target-reached", .failed("The server did not get to \(restore.request.target): \(reason)."))
            return false
        case .reached(let end):
            self.end = end
            let stop = plan.backup.span.stopLSN
            clock.end(bytes: end.replayLSN > stop ? end.replayLSN - stop : 0)
            let problems = expected.problems(with: end)
            isReached = problems.isEmpty
            checks.add(
                "target-reached",
                isReached ? .passed(reached(end, plan)) : .failed(problems.joined(separator: " ")))
            return isReached
        }
    }

    private func reached(_ end: RecoveryEnd, _ plan: RestorePlan) -> String {
        let last = end.lastTransactionTime.map { ", the last transaction at \($0)" } ?? ""
        return "Replay ended at LSN \(end.replayLSN) on the way to timeline \(plan.timeline)\(last)."
    }

    /// Makes a primary of it, as somebody who needs it would.
    private func open(_ server: ScratchServer) throws(KedgeError) {
        clock.begin("open")
        tools.progress.begin("opening")
        try checks.run("opens") { () throws(KedgeError) in
            let connection = try DatabaseConnection(
                server.database("template1", user: user), unless: tools.interruption)
            if try connection.isInRecovery() {
                _ = try connection.row("SELECT pg_promote(false)", attempt: "promote the scratch server")
            }
            while try connection.isInRecovery() {
                guard case .ended(let status) = try server.status(after: 20) else { continue }
                return .failed("The server ended (\(status)) when it was promoted.")
            }
            return .passed("It was promoted and takes writes.")
        }
        clock.end()
    }

    // MARK: - Checks

    /// Returns what makes the file itself unusable; nil where each check could be run.
    private func runAssertions(_ server: ScratchServer, _ programs: ServerPrograms) throws(KedgeError) -> KedgeError? {
        var unusable: KedgeError?
        let file = DatabaseChecks(
            server: server, programs: programs, user: user, amcheck: .off, checks: checks, tools: tools)
        for assertion in options.assertions {
            let database = assertion.database ?? options.database
            try checks.run("assertion", "line \(assertion.line)") { () throws(KedgeError) in
                let rows: [DatabaseRow]
                do throws(KedgeError) {
                    let connection = try file.connect(database)
                    // As a user's own session finds its tables.
                    _ = try connection.query("RESET search_path", attempt: "prepare the session")
                    rows = try connection.query(assertion.sql, attempt: "run the check in line \(assertion.line)")
                } catch {
                    guard let fault = assertion.fault(error) else { throw error }
                    unusable = unusable ?? fault
                    return .warning("It could not be run: \(fault.detail ?? fault.message)")
                }
                let value = rows.first?.text(0)
                guard rows.count == 1, value == "t" else {
                    let got = rows.count == 1 ? value ?? "null" : "\(rows.count) rows"
                    return .failed("It gave \(got) instead of true: \(assertion.sql.prefix(300))")
                }
                return .passed()
            }
        }
        return unusable
    }

    private func scanPages(_ server: ScratchServer, _ backup: CommitRecord) throws(KedgeError) {
        guard backup.server.dataChecksums else {
            checks.add("checksums", .skipped("The cluster has no data checksums."))
            return
        }
        try checks.run("checksums") { () throws(KedgeError) in
            let connection = try DatabaseConnection(
                server.database("template1", user: user), unless: tools.interruption)
            _ = try connection.query("CHECKPOINT", attempt: "write everything out")
            connection.close()
            tools.progress.begin("reading pages", totalBytes: backup.sizes.databaseBytes)
            let scan = try PageScan(
                data: scratch.data, blockSize: Int(backup.server.blockSize),
                segmentBlocks: backup.server.relationSegmentBlocks, threads: options.processMax, tools: tools
            ).run()
            guard scan.damagedCount == 0 else {
                let more = scan.damagedCount - scan.damaged.count
                return .failed(
                    "\(scan.damagedCount) page(s) have a wrong checksum: \(scan.damaged.joined(separator: "; "))"
                        + (more > 0 ? "; and \(more) more." : "."))
            }
            return .passed("\(scan.bytes) bytes of pages")
        }
    }

    // MARK: - The end

    /// Recovers and checks. Throws where a check may have failed because of what was done to this drill while it ran.
    ///
    /// A server that a check brought down (amcheck over a damaged page) can't be asked anything more: that check has
    /// failed, and the others are left out.
    func recoverAndCheckUndisturbed() throws(KedgeError) {
        var loss: KedgeError?
        do throws(KedgeError) {
            try recoverAndCheck()
        } catch  where error.code == .databaseUnavailable {
            clock.end()
            loss = error
        }
        if loss != nil || checks.hasFailed, let error = try disturbance() { throw error }
        if let loss, !checks.hasFailed { throw loss }
    }

    private func disturbance() throws(KedgeError) -> KedgeError? {
        guard let server, let plan else { return nil }
        _ = try server.status(after: 100)
        return try Disturbance(of: scratch, server, walSegmentSize: plan.backup.server.walSegmentSize).error
    }

    /// What is to be stored.
    func proof() throws(KedgeError) -> ProofRecord {
        guard let backup = restore.backup else {
            throw KedgeError(.defect, "no backup was chosen", hint: "Please report this.")
        }
        let result = DrillResult(
            backup: backup, target: restore.request.target, timeline: plan?.timeline, end: end, isReached: isReached)
        let finished = tools.time.now()
        return ProofRecord(
            label: backup.label, level: .drilled, result: checks.hasFailed ? .failed : .passed,
            repositoryName: cluster.repository.name, repositoryID: cluster.repository.identity.id,
            manifest: backup.manifest, started: started, finished: finished, hostName: options.hostName,
            createdBy: "kedge \(Version.text)", serverVersion: restore.programs?.version,
            target: result.provenTarget, covers: result.coverage, checks: checks.checks, phases: clock.phases,
            objectives: try objectives())
    }

    private func objectives() throws(KedgeError) -> ProofRecord.Objectives {
        var lag: UInt64?
        if options.recoveryPointObjective != nil {
            let recoverable = try restore.surveyed().windows.max { ($0.timeline, $0.to.lsn) < ($1.timeline, $1.to.lsn) }
            lag = recoverable?.to.time.map { DrillRun.seconds(from: $0, to: started) }
        } else if restore.request.target == .latest {
            lag = end?.lastTransactionTime.map { DrillRun.seconds(from: $0, to: started) }
        }
        func seconds(_ duration: Duration?) -> UInt64? { duration.map { UInt64(clamping: $0.components.seconds) } }
        return ProofRecord.Objectives(
            rtoSeconds: seconds(options.recoveryTimeObjective),
            measuredSeconds: (clock.restoreMilliseconds + 999) / 1000,
            rpoSeconds: seconds(options.recoveryPointObjective), lagSeconds: lag)
    }

    private static func seconds(from: Timestamp, to: Timestamp) -> UInt64 {
        UInt64(clamping: (to.microseconds - from.microseconds) / 1_000_000)
    }

    /// Leaves everything where it is.
    func keep() throws(KedgeError) -> Drill.KeptServer {
        try scratch.keep()
        var isRunning = false
        if let server, case .connectable = try server.status(after: 0) { isRunning = true }
        server?.release()
        return Drill.KeptServer(
            directory: scratch.path, data: scratch.data, socketDirectory: scratch.socketDirectory,
            port: ScratchDirectory.port, user: user, binDirectory: restore.programs?.directory ?? "",
            isRunning: isRunning)
    }

    func remove() throws(KedgeError) {
        tools.progress.begin("removing")
        try server?.stopNow(time: tools.time)
        server = nil
        try scratch.remove(time: tools.time)
    }

    /// Removes everything after an error, which is returned; if that fails too, its hint says so.
    func removing(after error: KedgeError) -> KedgeError {
        do throws(KedgeError) {
            try remove()
            return error
        } catch let failure {
            var error = error
            error.hint =
                (error.hint.map { $0 + "  " } ?? "")
                + "The scratch directory \"\(scratch.path)\" could not be removed (\(failure.message)); the next drill "
                + "tries again."
            return error
        }
    }
}

// Drill: a restore for real, thrown away afterwards, and the record of how it went.
//
//   sweep → select → fetch → start → replay → open → checks → proof → stop and remove
//
// 1. Everything lies below a directory of its own (ScratchDirectory.swift), tablespaces too. It goes whatever happens,
//    if not by us, then by the next drill.
// 2. A check that fails is a result: a proof says so, and the exit status is 3. What only kept the drill from being run
//    (no room, no repository, no PostgreSQL of that version) is an error and leaves no proof.
// 3. The original is not needed, and nothing of it is touched.

package import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRepository
package import KedgeRestore

/// Drills one backup of one cluster.
package struct Drill {
    /// What to drill, where and how.
    package struct Options: Sendable {
        package var clusterName: String
        package var wish: DrillWish
        /// Exists, and belongs to us.
        package var drillDirectory: RawPath
        /// Nil: where the system's packages put it.
        package var binDirectory: RawPath?
        /// The original's, for which the path of a tablespace is compared.
        package var configuredPgdata: RawPath
        /// Roles that may be superusers of the cluster, in the order in which they are tried.
        package var users: [String]
        /// Where assertions without \connect run.
        package var database: String
        package var amcheck: AmcheckMode
        package var assertions: [Assertion]
        package var settings: [DrillSetting]
        package var recoveryTimeObjective: Duration?
        package var recoveryPointObjective: Duration?
        package var restoreCommand: RestoreCommandLine
        package var processMax: Int
        package var workDirectory: RawPath
        /// Leave the server running.
        package var isKept: Bool
        package var hostName: String
        package var processID: Int32
        /// How long a segment is waited for that is missing near the end of the archive: a push that is under way.
        package var gapPatience = Duration.zero

        package init(
            clusterName: String, wish: DrillWish, drillDirectory: RawPath, binDirectory: RawPath?,
            configuredPgdata: RawPath, users: [String], database: String, amcheck: AmcheckMode,
            assertions: [Assertion], settings: [DrillSetting], recoveryTimeObjective: Duration?,
            recoveryPointObjective: Duration?, restoreCommand: RestoreCommandLine, processMax: Int,
            workDirectory: RawPath, isKept: Bool, hostName: String, processID: Int32
        ) {
            self.clusterName = clusterName
            self.wish = wish
            self.drillDirectory = drillDirectory
            self.binDirectory = binDirectory
            self.configuredPgdata = configuredPgdata
            self.users = users
            self.database = database
            self.amcheck = amcheck
            self.assertions = assertions
            self.settings = settings
            self.recoveryTimeObjective = recoveryTimeObjective
            self.recoveryPointObjective = recoveryPointObjective
            self.restoreCommand = restoreCommand
            self.processMax = processMax
            self.workDirectory = workDirectory
            self.isKept = isKept
            self.hostName = hostName
            self.processID = processID
        }
    }

    /// The world outside.
    package struct Tools: Sendable {
        package let time: any TimeSource
        package let random: any RandomSource
        package let interruption: Interruption
        package let progress: WorkProgress

        package init(
            time: any TimeSource, random: any RandomSource, interruption: Interruption, progress: WorkProgress
        ) {
            self.time = time
            self.random = random
            self.interruption = interruption
            self.progress = progress
        }
    }

    /// How it went.
    package struct Outcome: Sendable {
        /// As it was stored.
        package let proof: ProofRecord
        package let plan: RestorePlan?
        /// What happened on the way that is no check, a sentence each.
        package let warnings: [String]
        /// Where the server runs that was to be kept.
        package let kept: KeptServer?
    }

    /// A server that was left running.
    package struct KeptServer: Hashable, Sendable {
        package let directory: RawPath
        package let data: RawPath
        package let socketDirectory: RawPath
        package let port: Int
        package let user: String
        package let binDirectory: RawPath
        /// False where it ended by itself: then the directory alone is left.
        package let isRunning: Bool
    }

    private let source: RepositorySource
    private let options: Options
    private let tools: Tools

    package init(_ source: RepositorySource, _ options: Options, _ tools: Tools) {
        self.source = source
        self.options = options
        self.tools = tools
    }

    /// Drills, stores the proof, and removes what it made.
    ///
    /// Throws what kept the drill from being run: nothing is left then either, and no proof was stored.
    package func run() throws(KedgeError) -> Outcome {
        let cluster = try source.openCluster(options.clusterName, for: .write, random: tools.random)
        let scratch = try ScratchDirectory(
            below: options.drillDirectory, cluster: options.clusterName, host: options.hostName,
            process: options.processID, time: tools.time, random: tools.random)
        let run = DrillRun(source, cluster, scratch, options, tools)
        do throws(KedgeError) {
            try run.recoverAndCheckUndisturbed()
            let proofs = ProofCatalog(cluster)
            let proof = try proofs.put(run.proof(), after: proofs.latestEnd())
            let kept = try options.isKept ? run.keep() : nil
            if kept == nil { try run.remove() }
            return Outcome(proof: proof, plan: run.plan, warnings: run.warnings, kept: kept)
        } catch {
            throw run.removing(after: error)
        }
    }
}

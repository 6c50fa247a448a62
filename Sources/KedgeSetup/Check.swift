// `kedge check`: whether everything that archiving and backups need works, shown by doing it.
//
// Nothing is taken for granted because something else works: each repository is opened and its store's promises are
// tried, the server is asked, and in the end one segment has to arrive in every repository on the way that all of them
// take. What fails does not stop the rest, except where nothing is left to look at.
//
// It writes nothing that stays: objects below a throwaway directory of the cluster, which are removed, and one restore
// point in the server's WAL, which makes sure that there is a segment to switch.

import KedgeCatalog
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// Tests a cluster's configuration, repositories, server and archiving.
package struct Check: Sendable {
    package struct Options: Sendable {
        /// A repository as it is configured.
        package struct RepositoryUnderTest: Sendable {
            package let name: String
            /// A failure where its secret could not be read.
            package let source: Result<RepositorySource, KedgeError>
            /// Where a local repository lies; nil for any other.
            package let directory: RawPath?

            package init(name: String, source: Result<RepositorySource, KedgeError>, directory: RawPath?) {
                self.name = name
                self.source = source
                self.directory = directory
            }
        }

        package let clusterName: String
        package let dataDirectory: RawPath
        package let database: DatabaseSettings
        package let repositories: [RepositoryUnderTest]
        /// How long a segment may take from the switch into every repository.
        package let archiveTimeout: Duration
        /// Makes the work directory, or says why it can't be used.
        package let prepareWorkDirectory: @Sendable () throws(KedgeError) -> Void
        /// What `kedge archive-push` would say about a file of pg_wal; nil where that can't be tried.
        package var explainPush: (@Sendable (String) -> String?)?
        /// What must not lie in the directories of the database.
        package var keptPaths: [KeptPath] = []
        /// Below which drills restore; nil where none is configured.
        package var drillDirectory: RawPath?
        /// What is to be said of a work directory that does not last; nil where it does.
        package var forgetfulWorkDirectory: KedgeError?
        /// What the spool holds, in a few words, and what no repository knows of yet.
        package var spool: (text: String, untold: KedgeError?)?

        package init(
            clusterName: String, dataDirectory: RawPath, database: DatabaseSettings,
            repositories: [RepositoryUnderTest], archiveTimeout: Duration,
            prepareWorkDirectory: @escaping @Sendable () throws(KedgeError) -> Void
        ) {
            self.clusterName = clusterName
            self.dataDirectory = dataDirectory
            self.database = database
            self.repositories = repositories
            self.archiveTimeout = archiveTimeout
            self.prepareWorkDirectory = prepareWorkDirectory
        }
    }

    package struct Outcome: Sendable {
        /// In the order in which they were made.
        package let findings: [CheckFinding]

        package var hasFailed: Bool { findings.contains(where: \.hasFailed) }
    }

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource
    private let interruption: Interruption

    package init(_ options: Options, random: any RandomSource, time: any TimeSource, interruption: Interruption) {
        self.options = options
        self.random = random
        self.time = time
        self.interruption = interruption
    }

    /// Looks at everything. Throws `interrupted` alone: whatever else goes wrong is a finding.
    package func run() throws(KedgeError) -> Outcome {
        var report = CheckReport()
        if try report.attempt(.workDirectory, options.prepareWorkDirectory) != nil {
            report.ok(.workDirectory, "can be used" + (options.spool.map { "; \($0.text)" } ?? ""))
            if let untold = options.spool?.untold { report.warn(.workDirectory, untold) }
        }
        if let error = options.forgetfulWorkDirectory { report.warn(.workDirectory, error) }
        let control = try checkDataDirectory(&report)
        try checkPlaces(control, &report)
        var opened: [ClusterRepository] = []
        for repository in options.repositories {
            try interruption.checkpoint()
            let test = RepositoryTest(
                repository: repository, clusterName: options.clusterName, dataDirectory: options.dataDirectory,
                control: control, random: random, interruption: interruption)
            if let cluster = try test.run(&report) {
                opened.append(cluster)
                try checkWAL(cluster, &report)
            }
        }
        if let twin = RepositoryTwin.find(opened.map(\.repository.twin)) {
            report.fail(.repository, in: twin.second, twin.error)
        }
        try checkServer(control, opened, &report)
        return Outcome(findings: report.findings)
    }

    /// Whether a restore would remove a repository or a file that is needed.
    private func checkPlaces(_ control: ControlFile?, _ report: inout CheckReport) throws(KedgeError) {
        let places = PlaceCheck(
            dataDirectory: options.dataDirectory, control: control, kept: options.keptPaths,
            drillDirectory: options.drillDirectory)
        let found = try report.attempt(.dataDirectory) { () throws(KedgeError) in
            (try places.run(), try places.enclosed())
        }
        guard let (kept, enclosed) = found else { return }
        if let refusal = kept.refusal { report.fail(.dataDirectory, refusal) }
        if let warning = kept.warning { report.warn(.dataDirectory, warning) }
        for error in enclosed { report.warn(.dataDirectory, error) }
    }

    /// What is known to be wrong with the archived WAL; each of it a warning, since archiving itself may well work.
    private func checkWAL(_ cluster: ClusterRepository, _ report: inout CheckReport) throws(KedgeError) {
        let name = cluster.repository.name
        let found = try report.attempt(.wal, in: name) { () throws(KedgeError) in
            InfoMessage.aboutWAL(try RepositorySurvey(cluster: cluster, interruption: interruption).run())
        }
        guard let found else { return }
        for error in found { report.warn(.wal, in: name, error) }
        if found.isEmpty {
            report.ok(.wal, in: name, "no segment of it is known to be damaged, missing or there twice")
        }
    }

    private func checkDataDirectory(_ report: inout CheckReport) throws(KedgeError) -> ControlFile? {
        let control = try report.attempt(.dataDirectory) { () throws(KedgeError) in
            try ControlFile.read(dataDirectory: options.dataDirectory, time: time)
        }
        if let control {
            report.ok(
                .dataDirectory,
                "\"\(options.dataDirectory)\" is a PostgreSQL \(control.version.major) cluster, system identifier "
                    + "\(control.systemIdentifier)")
        }
        return control
    }

    private func checkServer(
        _ control: ControlFile?, _ opened: [ClusterRepository], _ report: inout CheckReport
    ) throws(KedgeError) {
        let connection = try report.attempt(.connection) { () throws(KedgeError) in
            try DatabaseConnection(options.database, unless: interruption)
        }
        guard let connection else { return }
        let test = ServerTest(connection: connection, dataDirectory: options.dataDirectory, control: control)
        guard let server = try test.run(&report) else { return }
        let archiving = ArchivingTest(
            connection: connection, server: server, repositories: opened, dataDirectory: options.dataDirectory,
            timeout: options.archiveTimeout, explainPush: options.explainPush, time: time, interruption: interruption)
        try archiving.run(&report)
    }
}

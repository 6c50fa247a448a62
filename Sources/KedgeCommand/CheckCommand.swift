// `kedge check`.
import KedgeArchive
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeSetup

/// The command line of `check`.
enum CheckCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "check", summary: "test configuration, connection and archiving",
        description: [
            "Tests the configuration, permissions, the connection to the server, its archive settings and the promises "
                + "of each repository's storage, then switches to a new WAL segment and waits until the old one "
                + "arrives in every repository.",
            "Exit status 1 means that something failed; warnings alone leave it at 0.",
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let user = context.surroundings.host.userID
        var options = Check.Options(
            clusterName: cluster.name, dataDirectory: RawPath(cluster.pgdata), database: cluster.database,
            repositories: configuration.repositories(of: cluster).map { repository in
                Check.Options.RepositoryUnderTest(
                    name: repository.name, source: context.sourceOrFailure(of: repository, retries: .brief),
                    directory: repository.place.directory.map { RawPath($0) })
            },
            archiveTimeout: cluster.archiveTimeout,
            prepareWorkDirectory: { () throws(KedgeError) in
                try WorkDirectory.prepare(cluster.workDirectory, user: user)
            })
        options.explainPush = ArchivePushCommand.rehearsal(cluster, configuration, context)
        options.keptPaths = context.keptPaths(configuration)
        options.drillDirectory = cluster.drill.directory.map { RawPath(context.absolute($0)) }
        options.spool = context.spool(of: cluster).map(spoolState)
        options.forgetfulWorkDirectory = forgetful(cluster, user: user)
        let check = Check(
            options,
            random: context.surroundings.random, time: context.surroundings.time,
            interruption: context.surroundings.interruption)
        return result(try check.run(), cluster: cluster.name)
    }

    /// A warning where the work-directory is the default, below /tmp.
    private static func forgetful(_ cluster: ClusterConfiguration, user: UInt32) -> KedgeError? {
        guard cluster.workDirectory == ClusterConfiguration.defaultWorkDirectory(of: user) else { return nil }
        return KedgeError(
            .configuration, "work-directory is \"\(cluster.workDirectory)\", which a restart of the host may empty",
            detail: "Which repository lies in each place is noted there, and which data key was the newest.  Without "
                + "these notes nobody sees after a restart that a repository's file system is not mounted, or that an "
                + "older state of it was put back.",
            hint: "Set work-directory in [cluster \(cluster.name)] to a directory that lasts and belongs to the user "
                + "that runs kedge, such as \"/var/lib/kedge-work\".")
    }

    /// What the spool holds, and a warning of what was given up or put off and no repository knows of.
    private static func spoolState(_ spool: Spool) -> (text: String, untold: KedgeError?) {
        let notes = spool.noteCount
        let text = notes == 0 ? "its spool is empty" : "its spool has notes of \(notes) archived segment(s)"
        let warnings = [
            givenUp(spool.givenUpSegments()), putOff(spool), unreadable(spool.unreadableGivenUp),
        ].compactMap { $0 }
        guard let first = warnings.first else { return (text, nil) }
        return (
            text,
            KedgeError(
                first.code, warnings.map(\.message).joined(separator: "; "),
                detail: warnings.compactMap(\.detail).joined(separator: "  "),
                hint: warnings.compactMap(\.hint).joined(separator: "  "))
        )
    }

    private static func givenUp(_ segments: [GivenUpSegment]) -> KedgeError? {
        guard let first = segments.first, let last = segments.last else { return nil }
        let partly = segments.filter { !$0.storedIn.isEmpty }.count
        return KedgeError(
            .walGap, "\(segments.count) WAL segment(s) were given up, and not every repository knows of it yet",
            detail: "They are \(first.file) to \(last.file): more waited to be archived than archive-queue-limit "
                + "allows.  No moment from there to the next backup can be reached"
                + (partly == 0 ? "." : ", but with the repositories that were not away: \(partly) of them are there."),
            hint: "Find out why WAL is not archived, and take a new backup when it is.")
    }

    private static func putOff(_ spool: Spool) -> KedgeError? {
        let copies = spool.putOff
        guard !copies.isEmpty else { return nil }
        let files = copies.map { copy in
            copy.file.text + (copy.system.map { " of database system \($0)" } ?? " of a system that was not noted")
        }
        return KedgeError(
            .walGap, "\(files.count) WAL file(s) were put off, and are not in every repository yet",
            detail: "More waited to be archived than archive-queue-limit allows: \(files.joined(separator: ", ")).",
            hint: "The next archive-push that works for its database system stores each; if it can not, it says why in "
                + "the server's log.  Find out why WAL is not archived.")
    }

    private static func unreadable(_ names: [String]) -> KedgeError? {
        guard !names.isEmpty else { return nil }
        return KedgeError(
            .walGap, "\(names.count) record(s) of WAL that was given up can't be read",
            detail: "They lie in given-up, in the cluster's spool below work-directory: "
                + "\(names.joined(separator: ", ")).",
            hint: "Take a new backup, and remove them then.")
    }

    /// What a check is to people and programs.
    static func result(_ outcome: Check.Outcome, cluster: String) -> CommandResult {
        let failures = outcome.findings.filter(\.hasFailed).count
        let warnings = outcome.findings.filter(\.isWarning).count
        let status = failures > 0 ? "failed" : warnings > 0 ? "warning" : "ok"
        let summary: String
        switch (failures, warnings) {
        case (0, 0): summary = "cluster \"\(cluster)\" is ready: archiving and all that backups need works"
        case (0, _): summary = "cluster \"\(cluster)\" is ready, with \(warnings) warning(s)"
        default: summary = "cluster \"\(cluster)\" is not ready: \(failures) failed, \(warnings) warning(s)"
        }
        return CommandResult(
            lines: outcome.findings.flatMap(lines) + [summary],
            json: [
                "cluster": .string(cluster), "status": .string(status),
                "checks": .array(outcome.findings.map(json)),
            ], status: failures > 0 ? 1 : 0)
    }

    private static func lines(_ finding: CheckFinding) -> [String] {
        let subject = finding.subject.rawValue + (finding.repository.map { " \($0)" } ?? "")
        switch finding.verdict {
        case .ok(let text): return ["ok       \(subject): \(text)"]
        case .warning(let error): return problem("warning  \(subject): ", error)
        case .failed(let error): return problem("FAILED   \(subject): ", error)
        }
    }

    private static func problem(_ head: String, _ error: KedgeError) -> [String] {
        let lines = OutputRenderer.errorLines(error).dropFirst()
        return [head + error.message] + lines.filter { !$0.hasPrefix("code: ") }.map { "         " + $0 }
    }

    private static func json(_ finding: CheckFinding) -> JSONValue {
        let verdict: String
        var text: String?
        var problem: JSONValue = .null
        switch finding.verdict {
        case .ok(let seen): (verdict, text) = ("ok", seen)
        case .warning(let error): (verdict, problem) = ("warning", OutputRenderer.errorMembers(error))
        case .failed(let error): (verdict, problem) = ("failed", OutputRenderer.errorMembers(error))
        }
        return [
            "check": .string(finding.subject.rawValue), "repository": .optional(finding.repository),
            "status": .string(verdict), "text": .optional(text), "error": problem,
        ]
    }
}

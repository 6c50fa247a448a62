// `kedge expire`.
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The command line of `expire`.
enum ExpireCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "expire", summary: "apply retention",
        description: [
            "Keeps what the keep keys of the configuration ask for, and condemns the other backups. A condemned backup "
                + "is removed by a run after expire-grace, with the WAL and the data that nothing else needs; until "
                + "then \"kedge unexpire\" takes it back, and \"kedge pin\" for good. Works on all repositories of the "
                + "cluster, or on the one that --repository names.",
            "Whatever the rules say, it keeps the newest backup, the newest without a known defect, the newest that "
                + "passed a drill and the newest proven one, pinned ones, what a delta is based on, and all WAL from "
                + "the start of a backup that is being taken. A backup whose proof failed, or that lacks WAL, takes no "
                + "place that another could have. All WAL from the oldest kept backup on is kept.",
            "A clock that jumped removes nothing: days count back from the newest backup, and where the time of a "
                + "backup is ahead of the repository's clock or before that of the backup it follows, rules that go by "
                + "time are not applied until that is mended, or that backup removed with --backup.",
            "It also removes what crashed commands left behind, after the same grace period and at least a day. Exit "
                + "status 1 means that something could not be removed, or that nothing was because a record cannot be "
                + "read; 3 that a record is damaged.",
        ],
        options: [
            .flag("dry-run", "Only show what would be kept and removed, and what could be restored then."),
            .value("backup", "LABEL", "Condemn this backup, whatever the keep keys say."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        var label: Label?
        if let text = context.arguments.value("backup") { label = try RetentionLabel.parse(text) }
        // A backup lies in one repository.
        let repositories =
            try label == nil
            ? configuration.selectedRepositories(of: cluster) : [configuration.repository(of: cluster)]
        var results: [(name: String, outcome: Result<Expire.Outcome, KedgeError>)] = []
        for repository in repositories {
            do throws(KedgeError) {
                try context.surroundings.interruption.checkpoint()
                let options = Expire.Options(
                    clusterName: cluster.name, repository: try context.source(of: repository),
                    rules: cluster.retention, byHand: label, isDryRun: context.arguments.has("dry-run"),
                    process: ProcessIdentity.current(hostName: context.surroundings.host.name))
                let expire = Expire(
                    options, random: context.surroundings.random, time: context.surroundings.time,
                    interruption: context.surroundings.interruption)
                results.append((repository.name, .success(try expire.run())))
            } catch {
                // The others are no less in need of it (lesson 14).
                guard repositories.count > 1, error.code != .interrupted else { throw error }
                results.append((repository.name, .failure(error)))
            }
        }
        for case .success(let outcome) in results.map(\.outcome) {
            for warning in outcome.warnings + outcome.plan.clockWarnings { context.log.warn(warning) }
        }
        return result(results, clusterName: cluster.name)
    }

    /// What a run is to people and programs.
    static func result(
        _ results: [(name: String, outcome: Result<Expire.Outcome, KedgeError>)], clusterName: String
    ) -> CommandResult {
        var lines: [String] = []
        for (name, result) in results {
            if !lines.isEmpty { lines.append("") }
            switch result {
            case .success(let outcome): lines += ExpireText.lines(outcome, repository: name)
            case .failure(let error):
                lines +=
                    ["repository \(name): \(error.message)"]
                    + OutputRenderer.errorLines(error).dropFirst().map { "  " + $0 }
            }
        }
        return CommandResult(
            lines: lines,
            json: [
                "cluster": .string(clusterName),
                "repositories": .array(results.map { ExpireJSON.repository($0.name, $0.outcome) }),
            ], status: results.map { status($0.outcome) }.max() ?? 0)
    }

    private static func status(_ result: Result<Expire.Outcome, KedgeError>) -> Int32 {
        switch result {
        case .failure(let error): return error.code.exitStatus
        case .success(let outcome):
            if outcome.plan.blocks.isEmpty { return outcome.failures.allSatisfy { $0.error.code == .locked } ? 0 : 1 }
            return outcome.plan.isBlockedByDamage ? ErrorCode.damaged.exitStatus : 1
        }
    }
}

/// Labels as people type them.
enum RetentionLabel {
    /// Throws `usage` for what is no label.
    static func parse(_ text: String) throws(KedgeError) -> Label {
        if let label = Label(text) { return label }
        throw KedgeError(
            .usage, "cannot use \"\(text)\" as the label of a backup",
            hint: "Labels look like 20261121T020000Z-full-7k3q; \"kedge info\" lists them.")
    }
}

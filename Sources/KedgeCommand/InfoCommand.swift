// `kedge info`.
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The command line of `info`.
enum InfoCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "info", summary: "show backups, WAL and recoverable windows",
        description: [
            "Shows what the repositories hold and to which moments the cluster can be restored: all clusters and "
                + "repositories of the configuration, or those that --cluster and --repository name.",
            "A window begins where its oldest backup ended. It ends with the last record that recovery can replay; the "
                + "time is that of the last commit or abort there. Damaged WAL ends it as well: behind the newest "
                + "backup it is looked for; before that it is known from backups and from \"kedge verify\", and what "
                + "none of them has seen is not told here.",
            "A backup is proven by \"kedge verify\" (verified) or by a restore (drilled); --proofs lists every "
                + "proof with its checks and times. A verification is as old as the oldest reading that it relies on.",
            "Exit status 1 means that a repository could not be read; the others are shown all the same.",
        ],
        options: [
            .flag("proofs", "List every proof, also those of backups that are gone."),
            .value(
                "acknowledge-gap", "SEGMENT",
                "Remember that the missing segments around this one are lost, also at the end of a timeline, so that "
                    + "they are no news any more. Which moments can be reached stays as it is."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        if let file = context.arguments.value("acknowledge-gap") {
            let cluster = try configuration.cluster()
            let opened = try context.source(of: configuration.repository(of: cluster)).openCluster(
                cluster.name, for: .write, random: context.surroundings.random)
            let gap = try GapAcknowledgement.acknowledge(
                file, in: opened, hostName: context.surroundings.host.name, time: context.surroundings.time,
                interruption: context.surroundings.interruption)
            return CommandResult(
                lines: ["acknowledged: WAL segments \(gap.first) to \(gap.last) are lost"],
                json: ["acknowledged": ["first": .string(gap.first), "last": .string(gap.last)]])
        }
        var clusters: [Info.Cluster] = []
        for cluster in try configuration.selectedClusters() {
            let repositories = try configuration.selectedRepositories(of: cluster)
            let configured = repositories.map { context.configured($0, retries: .brief) }
            clusters.append(Info.Cluster(name: cluster.name, repositories: configured))
        }
        let info = Info(
            clusters, listsProofs: context.arguments.has("proofs"), time: context.surroundings.time,
            random: context.surroundings.random, interruption: context.surroundings.interruption)
        return result(try info.run())
    }

    /// What a survey is to people and programs.
    static func result(_ clusters: [Info.ClusterInfo]) -> CommandResult {
        var lines: [String] = []
        for cluster in clusters {
            if !lines.isEmpty { lines.append("") }
            lines += InfoText.lines(cluster)
        }
        return CommandResult(
            lines: lines, json: ["clusters": .array(clusters.map(InfoJSON.cluster))],
            status: clusters.allSatisfy(\.isComplete) ? 0 : 1)
    }

    /// `ok`, `warning` or `error`.
    static func word(_ status: InfoMessage.Severity?) -> String {
        switch status {
        case nil: "ok"
        case .warning?: "warning"
        case .error?: "error"
        }
    }
}

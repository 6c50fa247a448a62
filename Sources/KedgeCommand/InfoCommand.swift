// `kedge info`.
import KedgeCatalog
import KedgeCore

/// The command line of `info`.
enum InfoCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "info", summary: "show backups, WAL and recoverable windows",
        description: [
            "Shows what the repositories hold and to which moments the cluster can be restored: all clusters and "
                + "repositories of the configuration, or those that --cluster and --repository name.",
            "A window begins where its oldest backup ended. It ends with the last record that recovery can replay; the "
                + "time is that of the last commit or abort there.",
            "A backup is proven by \"kedge verify\" (verified) or by a restore (drilled); --proofs lists every "
                + "proof with its checks and times.",
            "Exit status 1 means that a repository could not be read; the others are shown all the same.",
        ],
        options: [.flag("proofs", "List every proof, also those of backups that are gone.")])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        var clusters: [Info.Cluster] = []
        for cluster in try configuration.selectedClusters() {
            let repositories = try configuration.selectedRepositories(of: cluster)
            clusters.append(Info.Cluster(name: cluster.name, repositories: repositories.map(context.configured)))
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

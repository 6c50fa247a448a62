// `kedge backup`.
import Glibc
import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The command line of `backup`.
enum BackupCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "backup", summary: "take a base backup",
        description: [
            "Copies the data directory of the running server into the repository, and waits until all WAL that the "
                + "backup needs is there too. A backup goes to one repository: the one that --repository names, or "
                + "else the cluster's first.",
            "A delta backup reads all files and stores what changed since the newest backup of the server's timeline "
                + "and its ancestors, its parent; it is restored like any other. Where no backup can be the parent, a "
                + "full one is taken instead, and the reason is said and recorded. Pages are told apart by their LSNs, "
                + "which takes data checksums; without them whole regions of 1 MiB are compared and stored.",
            "What an interrupted backup had stored is taken over where the data is still the same, byte by byte, so "
                + "that it need not be stored again.",
            "On a standby it backs the standby up, always in full. primary-host says where the primary is, which ends "
                + "the last WAL segment; without it the backup waits until the primary does so by itself.",
            "Data page checksums are checked on the way; damaged pages are listed, the backup is kept, and the exit "
                + "status is then 3. So it is where WAL that the backup needs is suspect.",
        ],
        options: [
            .choice(
                "type", ["full", "delta", "auto"],
                "The type of backup; auto is the default: full when the last full one began full-every ago, else "
                    + "delta.")
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let repository = try configuration.repositoryOrFirst(of: cluster) { name, count in
            context.log.info(
                "the backup goes to repository \"\(name)\", the first of \(count); --repository names another")
        }
        try WorkDirectory.prepare(cluster.workDirectory, user: context.surroundings.host.userID)
        let progress = WorkProgress()
        var options = options(
            cluster, configuration, repository: try context.source(of: repository), host: context.surroundings.host)
        options.request =
            switch context.arguments.value("type") {
            case "full": .full
            case "delta": .delta
            default: .auto(fullEvery: cluster.fullEvery)
            }
        options.primary = cluster.primaryDatabase
        options.packLimits.storedBytes = UInt64(clamping: cluster.packSize)
        options.explainPush = ArchivePushCommand.rehearsal(cluster, configuration, context)
        let backup = Backup(
            options,
            Backup.Tools(
                time: context.surroundings.time, random: context.surroundings.random,
                interruption: context.surroundings.interruption, progress: progress, warn: { context.log.warn($0) }))
        let outcome = try context.showing(progress) { () throws(KedgeError) in try backup.run() }
        for warning in outcome.warnings { context.log.warn(warning) }
        if let error = outcome.afterCommit {
            context.log.warn(OutputRenderer.errorLines(error).joined(separator: "\n"))
        }
        for fallback in outcome.record.health.fallbacks { context.log.warn(fallback) }
        context.log.info("it is a \(outcome.record.type.rawValue) backup: \(outcome.reason)")
        context.log.info(phases(outcome.record))
        return result(outcome)
    }

    private static func options(
        _ cluster: ClusterConfiguration, _ configuration: Configuration, repository: RepositorySource,
        host: HostFacts
    ) -> Backup.Options {
        Backup.Options(
            clusterName: cluster.name, dataDirectory: RawPath(cluster.pgdata), database: cluster.database,
            repository: repository, workDirectory: RawPath(cluster.workDirectory),
            ownDirectories: [RawPath(cluster.workDirectory)]
                + configuration.repositories.compactMap { $0.place.directory.map { RawPath($0) } },
            workers: cluster.processMax, archiveTimeout: cluster.archiveTimeout,
            readRateBytes: cluster.readRate.map { UInt64(clamping: $0) }, hostName: host.name, processID: getpid())
    }

    // MARK: - The outcome

    /// What a backup is to people and programs. Damaged pages make the exit status 3.
    static func result(_ outcome: Backup.Outcome) -> CommandResult {
        let record = outcome.record
        let isUnusable = record.health.walSuspect.contains { $0.lsn < record.span.stopLSN }
        let isDamaged = record.health.damagedPageCount > 0 || isUnusable
        var result = CommandResult(
            lines: [summary(outcome)] + takenOverLines(record) + healthLines(record), json: json(outcome),
            status: isDamaged ? ErrorCode.pageDamaged.exitStatus : 0)
        result.done = "Backup \(record.label) is committed in repository \"\(outcome.repositoryName)\"."
        return result
    }

    private static func summary(_ outcome: Backup.Outcome) -> String {
        let record = outcome.record
        return "backup \(record.label): \(HumanText.size(record.sizes.databaseBytes)) in \(record.sizes.files) files, "
            + "stored as \(HumanText.size(record.sizes.storedBytes))\(ratio(record)) in repository "
            + "\"\(outcome.repositoryName)\"; \(HumanText.duration(duration(record))), "
            + HumanText.rate(bytesPerSecond: bytesPerSecond(record))
    }

    /// ` (1:4.1)`; empty where nothing was stored.
    private static func ratio(_ record: CommitRecord) -> String {
        guard record.sizes.storedBytes > 0 else { return "" }
        let tenths = (record.sizes.databaseBytes * 10 + record.sizes.storedBytes / 2) / record.sizes.storedBytes
        return " (1:\(tenths / 10).\(tenths % 10))"
    }

    private static func takenOverLines(_ record: CommitRecord) -> [String] {
        record.takenOver.map {
            "took over \(HumanText.size($0.bytes)) of the interrupted backup \($0.label)"
        }
    }

    private static let listedPages = 10

    private static func healthLines(_ record: CommitRecord) -> [String] {
        let health = record.health
        var lines: [String] = []
        if health.damagedPageCount > 0 {
            lines.append(
                "\(health.damagedPageCount) damaged page(s): the checksum does not fit, and replay does not repair it")
            lines += health.damagedPages.prefix(listedPages).map { "  \($0.path), block \($0.block)" }
            let more = health.damagedPageCount - UInt64(min(health.damagedPages.count, listedPages))
            if more > 0 {
                lines.append("  and \(more) more; \"kedge backup --json\" and the commit record list up to 1000")
            }
        }
        for suspect in health.walSuspect {
            lines.append("suspect WAL segment \(suspect.file), at \(suspect.lsn): \(suspect.reason)")
            lines.append(
                suspect.lsn < record.span.stopLSN
                    ? "  the backup needs it up to \(record.span.stopLSN) and may not be of use: take a new one now"
                    : "  recovery may not get beyond that: it matters until there is a backup that began after it")
        }
        return lines
    }

    private static func phases(_ record: CommitRecord) -> String {
        "backup \(record.label): "
            + record.durations.map {
                "\($0.phase) \(HumanText.duration(.milliseconds(Int64(clamping: $0.milliseconds))))"
            }
            .joined(separator: ", ")
    }

    private static func duration(_ record: CommitRecord) -> Duration {
        .milliseconds(Int64(clamping: record.durations.reduce(0) { $0 + $1.milliseconds }))
    }

    /// Of the copy alone: what the rest takes has nothing to do with the size.
    private static func bytesPerSecond(_ record: CommitRecord) -> Double {
        let copy = record.durations.first { $0.phase == "copy" }?.milliseconds ?? 0
        return Double(record.sizes.databaseBytes) * 1000 / Double(max(copy, 1))
    }

    private static func json(_ outcome: Backup.Outcome) -> JSONValue {
        let record = outcome.record
        return [
            "label": .string(record.label.text), "type": .string(record.type.rawValue),
            "parent": .optional(record.parent?.text), "reason": .string(outcome.reason),
            "fallbacks": .array(record.health.fallbacks.map(JSONValue.string)),
            "resumed": .array(record.takenOver.map(\.jsonValue)),
            "cluster": .string(record.clusterName), "repository": .string(outcome.repositoryName),
            "timeline": .int(record.span.timeline.number), "startLSN": .string(record.span.startLSN.description),
            "stopLSN": .string(record.span.stopLSN.description),
            "startTime": .string(record.span.startTime.description),
            "stopTime": .string(record.span.stopTime.description), "walFrom": .string(record.span.walFrom),
            "walTo": .string(record.span.walTo), "databaseBytes": .int(record.sizes.databaseBytes),
            "storedBytes": .int(record.sizes.storedBytes), "deltaBytes": .int(record.sizes.deltaBytes),
            "files": .int(record.sizes.files), "packs": .int(record.packs.count),
            "bytesPerSecond": .int(Int64(bytesPerSecond(record))),
            "durations": .object(record.durations.map { JSONMember($0.phase, .int($0.milliseconds)) }),
            "damagedPageCount": .int(record.health.damagedPageCount),
            "damagedPages": .array(
                record.health.damagedPages.map { ["path": $0.path.jsonValue, "block": .int($0.block)] }),
            "walSuspect": .array(
                record.health.walSuspect.map {
                    ["file": .string($0.file), "lsn": .string($0.lsn.description), "reason": .string($0.reason)]
                }), "warnings": .array(outcome.warnings.map(JSONValue.string)),
        ]
    }
}

// `kedge verify`.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeVerify

/// The command line of `verify`.
enum VerifyCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "verify", summary: "read back and check backups and the WAL they need",
        description: [
            "Reads every byte of the backups and of the archived WAL from their starts to the end, checks it, and says "
                + "for each backup whether it restores and up to which moment. All backups in all repositories of the "
                + "cluster, or those that --backup and --repository name. The result is kept as a proof of each "
                + "backup; nothing else is written.",
            "What a run within verify-every has read is not read again, unless its size changed, something was found "
                + "wrong with it, or a drill of the backup failed since; --full reads all. A repository that was "
                + "copied from another holds the proofs of the original: begin with --full there.",
            "Exit status 3 means damage, and every damaged object is named with what it costs. What could not be "
                + "read is no damage: the exit status is then 1, and nothing that rests on it is proven. It is 1 also "
                + "where a repository has no backup: nothing could be restored from it. A backup that --backup names "
                + "is verified in each repository that has it, and one of them suffices.",
        ],
        options: [
            .value("backup", "LABEL", "Verify this backup only. May be repeated.", isRepeatable: true),
            .flag("full", "Read everything, also what was read not long ago."),
            .value(
                "sample", "PERCENT",
                "Read only this part, such as 5%, chosen by chance. It can find damage, but proves nothing."),
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let reading = try sample(context.arguments)
        var labels: [Label] = []
        for text in context.arguments.values("backup") { labels.append(try label(text)) }
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        let repositories = try configuration.selectedRepositories(of: cluster)
        let progress = WorkProgress()
        let options = Verify.Options(
            clusterName: cluster.name, repositories: repositories.map { context.configured($0) }, labels: labels,
            reading: reading ?? .notWithin(cluster.verifyEvery), workers: cluster.processMax,
            rateBytes: cluster.verifyRate.map { UInt64(clamping: $0) }, gapPatience: cluster.archiveTimeout,
            hostName: context.surroundings.host.name)
        let verify = Verify(
            options,
            Verify.Tools(
                time: context.surroundings.time, random: context.surroundings.random,
                interruption: context.surroundings.interruption, progress: progress))
        let outcome = try context.showing(progress) { () throws(KedgeError) in try verify.run() }
        for case (let name, .failure(let error)) in outcome.repositories {
            context.log.warn("repository \"\(name)\" could not be verified: \(error.message)")
        }
        return try result(outcome)
    }

    /// The part that `--full` or `--sample` asks for; nil where neither is given.
    private static func sample(_ arguments: ParsedArguments) throws(KedgeError) -> Verify.Reading? {
        guard let text = arguments.value("sample") else { return arguments.has("full") ? .full : nil }
        guard !arguments.has("full") else {
            throw KedgeError(.usage, "cannot read all and a sample at once", hint: "Leave out --full or --sample.")
        }
        if let parts = partsPerMillion(text) { return .sample(partsPerMillion: parts) }
        throw KedgeError(
            .usage, "cannot read \"--sample \(text)\"", hint: "Give a percentage above 0 and below 100, such as 5%.")
    }

    /// `5%`, `0.5%` or `5` as parts of a million. Nil for what is not above 0 and below 100 percent.
    static func partsPerMillion(_ text: String) -> UInt32? {
        let number = text.hasSuffix("%") ? String(text.dropLast()) : text
        let parts = number.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? parts[1] : "0"
        guard number.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == 0x2E }), let whole = UInt32(parts[0]),
            whole < 100, (1...4).contains(fraction.utf8.count), let digits = UInt32(fraction)
        else { return nil }
        let scale = (fraction.utf8.count..<4).reduce(UInt32(1)) { scale, _ in scale * 10 }
        let sum = whole * 10_000 + digits * scale
        return sum > 0 ? sum : nil
    }

    private static func label(_ text: String) throws(KedgeError) -> Label {
        if let label = Label(text) { return label }
        throw KedgeError(
            .usage, "cannot read \"--backup \(text)\": it is no backup's label",
            hint: "Run \"kedge info\" to see the backups that there are.")
    }

    // MARK: - The outcome

    /// What a verification is to people and programs. Status 3 with damage, else 1 where something was not read, or
    /// there was nothing to verify.
    static func result(_ outcome: Verify.Outcome) throws(KedgeError) -> CommandResult {
        // Of one repository alone, the reason is the command's own error.
        if outcome.repositories.count == 1, case .failure(let error) = outcome.repositories[0].result { throw error }
        var lines: [String] = []
        for (name, result) in outcome.repositories {
            switch result {
            case .success(let verification): lines += text(verification)
            case .failure(let error):
                lines.append("repository \(name): not verified")
                lines += OutputRenderer.errorLines(error).map { "  " + $0 }
            }
        }
        lines += outcome.absent.map { "no repository that could be read has backup \($0): see \"kedge info\"" }
        let status: Int32 = outcome.isDamaged ? 3 : outcome.isComplete ? 0 : 1
        return CommandResult(
            lines: lines, json: ["repositories": .array(outcome.repositories.map(json))], status: status)
    }

    // MARK: - Text

    private static func text(_ verification: RepositoryVerification) -> [String] {
        var lines = [head(verification)]
        if !verification.backups.isEmpty { lines += verification.absent.map { "  \($0) is not in this repository" } }
        lines += verification.backups.map { "  " + sentence($0, verification.scope) }
        func isTold(_ finding: VerifyFinding) -> Bool { finding.kind.isDamage || finding.kind == .unreadable }
        for finding in verification.findings where isTold(finding) { lines += text(finding) }
        if let error = verification.proofError {
            lines.append("  the proofs could not be stored:")
            lines += OutputRenderer.errorLines(error).map { "    " + $0 }
        }
        let rest = verification.findings.filter { !isTold($0) }
        for finding in rest.prefix(listedInformation) {
            lines.append("  \(finding.kind.rawValue) \(finding.object): \(finding.error.message)")
        }
        let more = max(0, rest.count - listedInformation) + verification.unlistedFindings
        if more > 0 { lines.append("  and \(more) more objects that no backup needs; --json lists them") }
        for label in verification.removed { lines.append("  \(label) was removed meanwhile") }
        return lines
    }

    private static let listedInformation = 10

    private static func head(_ verification: RepositoryVerification) -> String {
        guard verification.standing != .nothing else { return nothing(verification) }
        let totals = verification.totals
        let bytes = totals.packs.readBytes + totals.walFiles.readBytes
        let seconds = Double(max(totals.milliseconds, 1)) / 1000
        var text =
            "repository \(verification.name): \(standing(verification)); "
            + "read \(HumanText.size(bytes)) in \(totals.packs.read) pack(s) and \(totals.walFiles.read) "
            + "WAL file(s) in \(HumanText.duration(.milliseconds(Int64(clamping: totals.milliseconds)))), "
            + HumanText.rate(bytesPerSecond: Double(bytes) / seconds)
        let remembered = totals.packs.remembered + totals.walFiles.remembered
        if let oldest = [totals.packs.oldest, totals.walFiles.oldest].compactMap({ $0 }).min() {
            text += "; \(remembered) read before, since \(minutes(oldest))"
        }
        if case .sample(let parts, _) = verification.scope { text += "; a sample of \(percent(parts))" }
        return text
    }

    private static func standing(_ verification: RepositoryVerification) -> String {
        switch verification.standing {
        case .damaged: "DAMAGED"
        case .incomplete: "NOT ALL VERIFIED"
        case .nothing: "NOTHING TO VERIFY"
        case .sound: "sound"
        }
    }

    private static func nothing(_ verification: RepositoryVerification) -> String {
        if verification.lacksWhatWasAsked {
            let labels = verification.absent.map(\.text).joined(separator: ", ")
            return "repository \(verification.name): nothing verified: it has no backup \(labels)"
        }
        let reason = verification.removed.isEmpty ? "there is no backup" : "there is no backup any more"
        return "repository \(verification.name): \(standing(verification)): \(reason), and nothing can be restored "
            + "from here before \"kedge backup\" has made one"
    }

    private static func sentence(_ backup: BackupVerification, _ scope: VerifyScope) -> String {
        let label = backup.record.label
        guard backup.state != .unknown else { return "\(label) could not be verified" }
        guard backup.restores else {
            guard backup.lostFileCount > 0 else { return "\(label) DOES NOT RESTORE" }
            let files = backup.lostFiles.prefix(3).map(\.description).joined(separator: ", ")
            return "\(label) DOES NOT RESTORE: \(backup.lostFileCount) file(s) are damaged, such as \(files)"
        }
        let verb = if case .sample = scope { "seems to restore" } else { "restores" }
        guard let reach = backup.latest else { return "\(label) \(verb)" }
        let time = reach.time.map { ", \(minutes($0)) (last commit, abort or end of a backup)" } ?? ""
        let branches = backup.reach.count > 1 ? " on timeline \(reach.timeline)" : ""
        return "\(label) \(verb) up to \(reach.lsn)\(time)\(branches)"
    }

    private static func text(_ finding: VerifyFinding) -> [String] {
        var lines = ["  \(finding.kind.rawValue.uppercased()) \(finding.object): \(finding.error.message)"]
        if let detail = finding.error.detail { lines.append("    \(detail)") }
        lines += finding.costs.isEmpty ? ["    It costs no backup anything."] : finding.costs.map { "    " + $0 }
        if let hint = finding.error.hint { lines.append("    \(hint)") }
        return lines
    }

    private static func percent(_ parts: UInt32) -> String {
        let rest = parts % 10_000
        guard rest > 0 else { return "\(parts / 10_000)%" }
        let digits = String(rest)
        return "\(parts / 10_000)." + String(repeating: "0", count: 4 - digits.utf8.count) + digits + "%"
    }

    /// `2026-11-21 14:00 UTC`.
    static func minutes(_ time: Timestamp) -> String {
        let text = time.description
        return "\(text.prefix(10)) \(text.dropFirst(11).prefix(5)) UTC"
    }

    // MARK: - JSON

    private static func json(
        _ repository: (name: String, result: Result<RepositoryVerification, KedgeError>)
    ) -> JSONValue {
        switch repository.result {
        case .failure(let error):
            return [
                "name": .string(repository.name), "status": "failed", "error": OutputRenderer.errorMembers(error),
                "backups": [], "findings": [],
            ]
        case .success(let verification):
            var sample = JSONValue.null
            if case .sample(let parts, _) = verification.scope { sample = .int(parts) }
            return [
                "name": .string(verification.name),
                "status": .string(verification.standing.rawValue),
                "location": .string(verification.location), "started": .string(verification.started.description),
                "samplePartsPerMillion": sample, "backups": .array(verification.backups.map(json)),
                "findings": .array(verification.findings.map(json)),
                "unlistedFindings": .int(verification.unlistedFindings),
                "proofError": verification.proofError.map { OutputRenderer.errorMembers($0) } ?? .null,
                "removed": .array(verification.removed.map { .string($0.text) }),
                "absent": .array(verification.absent.map { .string($0.text) }),
                "packs": json(verification.totals.packs), "walFiles": json(verification.totals.walFiles),
                "milliseconds": .int(verification.totals.milliseconds),
            ]
        }
    }

    private static func json(_ count: VerifyTotals.Count) -> JSONValue {
        [
            "read": .int(count.read), "readBytes": .int(count.readBytes), "remembered": .int(count.remembered),
            "rememberedSince": .optional(count.oldest?.description), "notInSample": .int(count.notInSample),
        ]
    }

    private static func json(_ backup: BackupVerification) -> JSONValue {
        [
            "label": .string(backup.record.label.text),
            "restores": backup.state == .unknown ? .null : .bool(backup.restores),
            "reach": .array(
                backup.reach.map {
                    [
                        "timeline": .int($0.timeline.number), "lsn": .string($0.lsn.description),
                        "time": .optional($0.time?.description),
                    ]
                }), "lostFiles": .array(backup.lostFiles.map(\.jsonValue)),
            "lostFileCount": .int(backup.lostFileCount), "proof": backup.proof.map(InfoJSON.proof) ?? .null,
        ]
    }

    private static func json(_ finding: VerifyFinding) -> JSONValue {
        var members = [
            JSONMember("kind", .string(finding.kind.rawValue)), JSONMember("object", .string(finding.object)),
            JSONMember("isDamage", .bool(finding.kind.isDamage)),
            JSONMember("backups", .array(finding.backups.map { .string($0.text) })),
            JSONMember("costs", .array(finding.costs.map(JSONValue.string))),
        ]
        if case .object(let error) = OutputRenderer.errorMembers(finding.error) { members += error }
        return .object(members)
    }
}

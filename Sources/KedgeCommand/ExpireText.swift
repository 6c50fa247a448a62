// `kedge expire` for people.
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The text of `expire`.
enum ExpireText {
    /// Everything about one repository.
    static func lines(_ outcome: Expire.Outcome, repository: String) -> [String] {
        let head = "repository \(repository)" + (outcome.isDryRun ? ": what expire would do; nothing was changed" : "")
        var sections = [plan(outcome.plan, outcome.forecast)]
        if outcome.isDryRun || outcome.windows.before != outcome.windows.after { sections.append(windows(outcome)) }
        sections.append(deeds(outcome))
        return [head] + sections.filter { !$0.isEmpty }.flatMap { [""] + $0.map { "  " + $0 } }
    }

    private static func plan(_ plan: RetentionPlan, _ forecast: ExpireForecast?) -> [String] {
        guard !plan.items.isEmpty else { return ["no backups"] }
        var columns: [TextTable.Column] = [.left("backup"), .left("ended")]
        if forecast != nil { columns.append(.right("frees")) }
        var table = TextTable(columns + [.left("")])
        for item in plan.items {
            let frees: [String] = forecast.map { [$0.shares[item.label].map(share) ?? ""] } ?? []
            table.add([item.label.text, seconds(item.backup.record.span.stopTime)] + frees + [item.text])
        }
        return table.lines
    }

    /// What the removal of one backup would free: with the deltas that build on it, and alone where that differs.
    private static func share(_ share: RemovalGain.Share) -> String {
        guard !share.dependents.isEmpty else { return HumanText.size(share.bytes) }
        let own = HumanText.size(share.ownBytes)
        return "\(own); with \(share.dependents.count) delta(s) \(HumanText.size(share.bytes))"
    }

    private static func windows(_ outcome: Expire.Outcome) -> [String] {
        var table = TextTable([
            .left("recoverable"), .left("timeline"), .left("from"), .left(""), .left("to"), .right("backups"),
        ])
        for (name, windows) in [("now", outcome.windows.before), ("then", outcome.windows.after)] {
            for window in windows {
                table.add([
                    name, window.timeline.description, window.fromTime.description, window.from.description,
                    window.to.description + (window.endsInHole ? ", where WAL is missing" : ""), String(window.backups),
                ])
            }
            if windows.isEmpty { table.add([name, "", "nothing", "", "", "0"]) }
        }
        return table.lines
    }

    private static func deeds(_ outcome: Expire.Outcome) -> [String] {
        var lines = outcome.plan.blocks.map { "nothing is removed: \($0)" }
        let would = outcome.isDryRun ? "would be " : ""
        lines += outcome.condemned.map { "\(would)condemned: \($0)" }
        lines += outcome.withdrawn.map { "\(would)no longer condemned: \($0.label): \($0.why)" }
        lines += outcome.pending.filter { !outcome.condemned.contains($0.label) }.map { label, seconds in
            let left = HumanText.duration(.seconds(max(0, seconds)))
            guard outcome.begun.contains(label) else {
                return "condemned before: \(label), can be taken back for \(left)"
            }
            return "condemned before: \(label), its removal has begun and goes on in \(left); \"kedge pin\" may still "
                + "save it"
        }
        lines += outcome.removed.map { "\(would)removed: \($0)" }
        if let forecast = outcome.forecast, !outcome.plan.removed.isEmpty {
            lines.append(
                "their removal would free: \(forecast.freed.packs) pack(s) and the manifests, "
                    + "\(HumanText.size(forecast.freed.bytes)); \(forecast.walFiles) WAL file(s), "
                    + HumanText.size(forecast.walBytes))
        }
        let swept = outcome.swept
        var counts: [String] = []
        if swept.packs > 0 { counts.append("\(swept.packs) pack(s), \(HumanText.size(swept.packBytes))") }
        if swept.walFiles > 0 { counts.append("\(swept.walFiles) WAL file(s), \(HumanText.size(swept.walBytes))") }
        if swept.manifests > 0 { counts.append("\(swept.manifests) manifest(s)") }
        if swept.proofs > 0 { counts.append("\(swept.proofs) proof(s)") }
        if swept.probes > 0 { counts.append("\(swept.probes) probe(s)") }
        if swept.writes > 0 { counts.append("\(swept.writes) unfinished write(s)") }
        if !counts.isEmpty {
            lines.append((outcome.isDryRun ? "would be freed now: " : "freed: ") + counts.joined(separator: "; "))
        }
        lines += swept.intents.map { "\(would)given up: backup \($0), whose process died" }
        lines += outcome.failures.prefix(10).map { "could not be removed: \($0.name): \($0.error.message)" }
        if outcome.failures.count > 10 { lines.append("and \(outcome.failures.count - 10) more") }
        return lines.isEmpty && !outcome.isDryRun ? ["nothing to do"] : lines
    }

    private static func seconds(_ time: Timestamp) -> String {
        Timestamp(secondsSince1970: time.microseconds / 1_000_000).description
    }
}

/// The JSON of `expire`.
enum ExpireJSON {
    /// Everything about one repository.
    static func repository(_ name: String, _ result: Result<Expire.Outcome, KedgeError>) -> JSONValue {
        switch result {
        case .failure(let error): ["repository": .string(name), "error": OutputRenderer.errorMembers(error)]
        case .success(let outcome): self.outcome(name, outcome)
        }
    }

    private static func outcome(_ name: String, _ outcome: Expire.Outcome) -> JSONValue {
        let swept = outcome.swept
        return [
            "repository": .string(name), "dryRun": .bool(outcome.isDryRun),
            "backups": .array(outcome.plan.items.map { item($0, outcome.forecast) }),
            "wouldFree": outcome.forecast.map(freed) ?? .null,
            "blocks": .array(outcome.plan.blocks.map(JSONValue.string)),
            "clockWarnings": .array(outcome.plan.clockWarnings.map(JSONValue.string)),
            "daysBegin": .optional(outcome.plan.daysBegin?.description),
            "recoverable": .array(outcome.windows.before.map(window)),
            "recoverableAfter": .array(outcome.windows.after.map(window)),
            "condemned": .array(outcome.condemned.map { .string($0.text) }),
            "withdrawn": .array(
                outcome.withdrawn.map { ["label": .string($0.label.text), "reason": .string($0.why)] }),
            "pending": .array(
                outcome.pending.map { ["label": .string($0.label.text), "seconds": .int(max(0, $0.seconds))] }),
            "removed": .array(outcome.removed.map { .string($0.text) }),
            "swept": [
                "packs": .int(swept.packs), "packBytes": .int(swept.packBytes), "walFiles": .int(swept.walFiles),
                "walBytes": .int(swept.walBytes), "intents": .array(swept.intents.map { .string($0.text) }),
                "manifests": .int(swept.manifests), "proofs": .int(swept.proofs), "probes": .int(swept.probes),
                "writes": .int(swept.writes),
            ],
            "failures": .array(
                outcome.failures.map {
                    ["object": .string($0.name.text), "error": OutputRenderer.errorMembers($0.error)]
                }), "warnings": .array(outcome.warnings.map(JSONValue.string)),
        ]
    }

    private static func freed(_ forecast: ExpireForecast) -> JSONValue {
        [
            "packs": .int(forecast.freed.packs), "bytes": .int(forecast.freed.bytes),
            "walFiles": .int(forecast.walFiles), "walBytes": .int(forecast.walBytes),
        ]
    }

    private static func item(_ item: RetentionPlan.Item, _ forecast: ExpireForecast?) -> JSONValue {
        let share = forecast?.shares[item.label]
        return [
            "label": .string(item.label.text), "keep": .bool(item.isKept),
            "reasons": .array(item.reasons.map { .string($0.text) }), "keepsWALAfterIt": .bool(item.keepsWALAfterIt),
            "pinned": .bool(item.backup.isPinned), "condemned": .bool(item.backup.mark != nil),
            "ownBytes": share.map { .int($0.ownBytes) } ?? .null,
            "freedBytes": share.map { .int($0.bytes) } ?? .null,
            "dependents": .array((share?.dependents ?? []).map { .string($0.text) }),
        ]
    }

    private static func window(_ window: RetentionWindows.Window) -> JSONValue {
        [
            "systemIdentifier": .string(window.system.description), "timeline": .int(window.timeline.number),
            "from": ["lsn": .string(window.from.description), "time": .string(window.fromTime.description)],
            "to": ["lsn": .string(window.to.description)], "endsInHole": .bool(window.endsInHole),
            "backups": .int(window.backups),
        ]
    }
}

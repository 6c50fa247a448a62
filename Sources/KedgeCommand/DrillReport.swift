// What `kedge drill` prints when it is done.
import KedgeCatalog
import KedgeCore
import KedgeDrill
import KedgeRestore

/// The text and the JSON of one outcome.
struct DrillReport {
    private let outcome: Drill.Outcome
    private let repository: String
    private let verdict: DrillVerdict

    /// `repository` is the one that was drilled.
    init(_ outcome: Drill.Outcome, repository: String) {
        self.outcome = outcome
        self.repository = repository
        verdict = DrillVerdict(outcome.proof)
    }

    var result: CommandResult { CommandResult(lines: lines, json: json, status: verdict.exitStatus) }

    private var proof: ProofRecord { outcome.proof }

    private var lines: [String] {
        let total = proof.phases.reduce(0) { $0 + $1.milliseconds }
        var lines = [
            "drill of backup \(proof.label) in repository \"\(repository)\": \(word) in "
                + DrillReport.duration(total)
        ]
        if let target = proof.target {
            let reached = target.reachedLSN.map { ", reached at LSN \($0)" } ?? ", not reached"
            let time = target.reachedTime.map { ", last transaction \($0)" } ?? ""
            lines.append("target: \(target.kind)\(target.value.map { " \($0)" } ?? "")\(reached)\(time)")
        }
        lines.append("phases: " + proof.phases.map(DrillReport.phase).joined(separator: ", "))
        for check in proof.checks {
            let subject = check.subject.map { " (\($0))" } ?? ""
            let detail = check.detail.map { ": \($0)" } ?? ""
            lines.append("\(check.result.rawValue): \(check.name)\(subject)\(detail)")
        }
        if let objectives = proof.objectives {
            let lag = objectives.lagSeconds.map {
                ", the last recoverable commit was \(DrillReport.duration($0 * 1000)) old"
            }
            lines.append("a restore takes \(DrillReport.duration(objectives.measuredSeconds * 1000))\(lag ?? "")")
        }
        if case .objectiveMissed(let reasons) = verdict { lines += reasons.map { "objective missed: \($0)" } }
        if verdict == .failed { lines += ["", DrillReport.advice] }
        if let kept = outcome.kept { lines += DrillReport.lines(kept) }
        return lines
    }

    private var word: String {
        switch verdict {
        case .proven: "restored and proven"
        case .objectiveMissed: "restored and proven, but an objective was missed"
        case .failed: "FAILED"
        }
    }

    private static let advice =
        "What to do: take a new backup now (kedge backup --type full) and drill that; look at this one with "
        + "\"kedge drill --keep\", and into the repository with \"kedge verify --full\"."

    private static func phase(_ phase: ProofRecord.Phase) -> String {
        var text = "\(phase.name) \(duration(phase.milliseconds))"
        if let bytes = phase.bytes, bytes > 0, phase.milliseconds > 0 {
            let rate = Double(bytes) * 1000 / Double(phase.milliseconds)
            text += " (\(HumanText.size(bytes)), \(HumanText.rate(bytesPerSecond: rate)))"
        }
        return text
    }

    private static func duration(_ milliseconds: UInt64) -> String {
        HumanText.duration(.milliseconds(Int64(clamping: milliseconds)))
    }

    // MARK: - What was kept

    private static func lines(_ kept: Drill.KeptServer) -> [String] {
        var lines = ["", "kept: \"\(kept.directory)\""]
        if kept.isRunning { lines.append("connect: \(connectCommand(kept))") }
        return lines + ["remove: kedge drill --clean"]
    }

    private static func connectCommand(_ kept: Drill.KeptServer) -> String {
        let words = [
            kept.binDirectory.appending("psql").description, "-h", kept.socketDirectory.description, "-p",
            String(kept.port), "-U", kept.user, "postgres",
        ]
        return words.map(RestoreCommandLine.quoted).joined(separator: " ")
    }

    private var json: JSONValue {
        [
            "verdict": .string(verdict.exitStatus == 0 ? "proven" : verdict == .failed ? "failed" : "objective-missed"),
            "repository": .string(repository), "proof": proof.jsonValue,
            "warnings": .array(outcome.warnings.map(JSONValue.string)),
            "kept": outcome.kept.map { kept in
                [
                    "directory": .string(kept.directory.description), "data": .string(kept.data.description),
                    "socketDirectory": .string(kept.socketDirectory.description), "port": .int(kept.port),
                    "user": .string(kept.user), "running": .bool(kept.isRunning),
                ]
            } ?? .null,
        ]
    }
}

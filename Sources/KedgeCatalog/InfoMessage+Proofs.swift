// What `info` has to say about the evidence that backups restore. Pure.

import KedgeCore

extension InfoMessage {
    /// A proof that is older than this is no longer news of the newest backup's neighbourhood: 30 days.
    static let proofAgeSeconds: Int64 = 30 * 86_400

    /// Failures that nothing has answered, evidence that cannot be read, and evidence that is old.
    static func aboutProofs(_ info: RepositoryInfo, now: Timestamp) -> [InfoMessage] {
        (failures(info) + unreadable(info) + age(info, now)).map {
            InfoMessage(severity: .warning, repository: info.name, error: $0)
        }
    }

    private static func failures(_ info: RepositoryInfo) -> [KedgeError] {
        info.backups.compactMap { backup in
            guard let failure = backup.standing.failure else { return nil }
            let command = failure.level == .drilled ? "drill" : "verify"
            let failed = failure.checks.filter { $0.result == .failed }
            let details = failed.prefix(3).map { check in
                [check.name, check.subject, check.detail].compactMap { $0 }.joined(separator: ": ")
            }
            return KedgeError(
                .damaged, "backup \"\(backup.record.label)\" failed its \(command) at \(failure.name.time)",
                detail: details.isEmpty ? nil : details.joined(separator: "; ") + ".",
                hint: "Run \"kedge \(command)\" again once the cause is removed, and take a new backup.")
        }
    }

    private static func unreadable(_ info: RepositoryInfo) -> [KedgeError] {
        info.unreadableProofs.map { record in
            var error = record.error
            error.hint = error.hint ?? "It proves nothing: run \"kedge verify\" again."
            return error
        }
    }

    /// That nothing was proven for long, told only where something was once: whoever never verifies knows it; or that
    /// nobody can tell.
    private static func age(_ info: RepositoryInfo, _ now: Timestamp) -> [KedgeError] {
        let proofs = info.backups.compactMap(\.standing.proof)
        guard let newest = proofs.map(\.asOf).max() else { return [] }
        let seconds = (now.microseconds - newest.microseconds) / 1_000_000
        let second = Timestamp(secondsSince1970: newest.microseconds / 1_000_000)
        if seconds < -RetentionPlan.clockToleranceSeconds {
            return [
                KedgeError(
                    .configuration, "the newest proof is of \(second), which is yet to come",
                    detail: "The clock of this host is behind, or that of a host that verified or drilled was ahead.  "
                        + "Later proofs are dated behind it, so that until then nobody is told when they cease.",
                    hint: "Check the clocks of all hosts that run \"kedge verify\" and \"kedge drill\".")
            ]
        }
        guard seconds > proofAgeSeconds else { return [] }
        return [
            KedgeError(
                .notFound, "no backup was proven to restore since \(second)",
                hint: "Run \"kedge verify\", best every night.")
        ]
    }
}

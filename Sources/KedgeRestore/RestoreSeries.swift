// A restore from the first of several repositories that can serve it.
//
// A backup lies in one repository. Where that can't be read, is damaged, or has no backup for the target, the next one
// is tried, as long as nothing was written. Afterwards a failure is one of the restore; it says who else could serve.

import KedgeCatalog
package import KedgeCore
package import KedgeRepository

/// Restores from one of several repositories.
package struct RestoreSeries: Sendable {
    package struct Outcome: Sendable {
        package let restored: Restore.Outcome
        /// Where the backup came from.
        package let source: RepositorySource
        /// Those that were tried before, and why they did not serve.
        package let passedOver: [(repository: String, error: KedgeError)]
    }

    private let sources: [RepositorySource]
    private let walSources: [RepositorySource]

    /// `sources` are tried in their order; at least one. `walSources` are what the restored server's restore_command
    /// reads, in its order.
    package init(_ sources: [RepositorySource], walSources: [RepositorySource]) {
        precondition(!sources.isEmpty, "a restore needs a repository")
        self.sources = sources
        self.walSources = walSources
    }

    /// Throws as `Restore.run`; where several repositories were tried in vain, one error that names each.
    package func run(
        _ options: Restore.Options, progress: WorkProgress, time: any TimeSource, random: any RandomSource,
        interruption: Interruption
    ) throws(KedgeError) -> Outcome {
        var failures = RepositoryFailures()
        for (index, source) in sources.enumerated() {
            var hasBegun = false
            let restore = Restore(
                source, options, walSources: walSources, progress: progress, time: time, random: random,
                interruption: interruption)
            do throws(KedgeError) {
                let restored = try restore.run(beforeWriting: { hasBegun = true })
                return Outcome(restored: restored, source: source, passedOver: failures.all)
            } catch {
                guard sources.count > 1 else { throw error }
                guard !hasBegun else {
                    throw naming(
                        others(after: index, options, time, random, interruption), in: error,
                        keepsDirectory: options.isDelta)
                }
                guard RestoreSeries.mayTryNext(after: error.code) else { throw error }
                failures.add(error, of: source.settings.name)
            }
        }
        throw failures.error("could not restore cluster \"\(options.clusterName)\" from any")
            ?? KedgeError(.defect, "a restore has no repository", hint: "Report this.")
    }

    /// Whether another repository may do better. Not where the command, the target directory or this host is at fault;
    /// and what is ambiguous must not be decided by the order of repositories.
    package static func mayTryNext(after code: ErrorCode) -> Bool {
        switch code {
        case .notFound, .walForeign, .walInvalid, .walGap, .walSuspect, .archiveConflict, .targetUnreachable,
            .keyMissing, .keyWrong, .keyUnsafe, .keyOutdated, .formatUnknown, .featureUnknown, .damaged, .pageDamaged,
            .repositoryUnavailable, .permission, .inputOutput, .timeout, .configuration:
            true
        case .usage, .notSupported, .alreadyExists, .locked, .notEmpty, .serverRunning, .interrupted,
            .archivingBroken, .targetAmbiguous, .unarchivedWAL, .unsafePath, .noSpace, .databaseUnavailable,
            .databaseRefused,
            .defect:
            false
        }
    }

    // MARK: - Others that could serve

    /// Thrown by an approval to end a restore after its plan.
    private static let planned = KedgeError(.interrupted, "planned")

    /// The repositories behind number `index` that have a backup for the same request.
    private func others(
        after index: Int, _ options: Restore.Options, _ time: any TimeSource, _ random: any RandomSource,
        _ interruption: Interruption
    ) -> [(repository: String, label: Label)] {
        var found: [(repository: String, label: Label)] = []
        for (number, source) in sources.enumerated() where number != index {
            var label: Label?
            let restore = Restore(
                source.hasty, options, walSources: walSources, time: time, random: random, interruption: interruption)
            do throws(KedgeError) {
                _ = try restore.run(approving: { (plan) throws(KedgeError) in
                    label = plan.backup.label
                    throw RestoreSeries.planned
                })
            } catch {
                // Either the plan is known now, or this one is no help.
                if let label { found.append((source.settings.name, label)) }
            }
        }
        return found
    }

    /// With `keepsDirectory` what was written so far may stay: a restore over it takes what fits.
    private func naming(
        _ others: [(repository: String, label: Label)], in error: KedgeError, keepsDirectory: Bool
    ) -> KedgeError {
        let isOwnFault = [.interrupted, .locked, .serverRunning, .notEmpty].contains(error.code)
        guard let first = others.first, !isOwnFault else { return error }
        var error = error
        let told = others.map { "\"\($0.repository)\" (\($0.label))" }.joined(separator: ", ")
        let sentence =
            "These repositories have a backup for the same target: \(told).  To use one, "
            + (keepsDirectory ? "" : "remove what was written and ")
            + "run the same command with \"--repository \(first.repository)\"."
        error.hint = error.hint.map { "\($0)  \(sentence)" } ?? sentence
        return error
    }
}

// `kedge verify`: reads back and checks every byte of backups and of the WAL they need, and keeps the proof.
//
// Only damage is damage. An object that can't be read leaves the backups that need it without a judgement and without a
// proof; a repository that does not answer ends the work on it, and so does being interrupted. Proofs are all that it
// writes, and it writes them last.

import KedgeBackup
package import KedgeCatalog
package import KedgeCore
package import KedgeRepository

/// Verifies the backups of one cluster.
package struct Verify: Sendable {
    package struct Options: Sendable {
        package var clusterName: String
        /// In the order in which they are read.
        package var repositories: [ConfiguredRepository]
        /// The backups to verify, each in the repositories that have it; empty: all.
        package var labels: [Label]
        package var reading: Reading
        package var workers: Int
        /// The most bytes read in a second; nil: as fast as it goes.
        package var rateBytes: UInt64?
        /// How long to wait for a missing segment while later ones are there.
        package var gapPatience: Duration
        package var hostName: String
        /// How many pages with a wrong checksum are remembered in each repository. Behind that many, it is not known
        /// of which backups they are.
        package var pageLimit = 10_000

        package init(
            clusterName: String, repositories: [ConfiguredRepository], labels: [Label] = [],
            reading: Reading = .full, workers: Int, rateBytes: UInt64? = nil, gapPatience: Duration = .zero,
            hostName: String
        ) {
            self.clusterName = clusterName
            self.repositories = repositories
            self.labels = labels
            self.reading = reading
            self.workers = workers
            self.rateBytes = rateBytes
            self.gapPatience = gapPatience
            self.hostName = hostName
        }
    }

    /// How much to read.
    package enum Reading: Hashable, Sendable {
        case full
        /// What was not read within this time.
        case notWithin(Duration)
        /// So many of a million parts.
        case sample(partsPerMillion: UInt32)
    }

    package struct Tools: Sendable {
        package var time: any TimeSource
        package var random: any RandomSource
        package var interruption: Interruption
        package var progress: WorkProgress

        package init(
            time: any TimeSource = SystemTimeSource(), random: any RandomSource = SystemRandomSource(),
            interruption: Interruption = Interruption(), progress: WorkProgress = WorkProgress()
        ) {
            self.time = time
            self.random = random
            self.interruption = interruption
            self.progress = progress
        }
    }

    /// What is known of each repository, in the configured order; an error stands for one that could not be read.
    package struct Outcome: Sendable {
        package let repositories: [(name: String, result: Result<RepositoryVerification, KedgeError>)]

        /// Whether something is damaged.
        package var isDamaged: Bool {
            repositories.contains {
                switch $0.result {
                case .success(let verification): verification.isDamaged
                case .failure(let error): error.code.exitStatus == 3
                }
            }
        }

        /// Whether every repository had something to verify, all of which could be read, and every proof be stored. A
        /// repository that lacks a backup that was asked for is excused where another has it.
        package var isComplete: Bool {
            absent.isEmpty
                && repositories.allSatisfy {
                    if case .success(let verification) = $0.result {
                        verification.isComplete
                            && (verification.standing != .nothing || verification.lacksWhatWasAsked)
                    } else {
                        false
                    }
                }
        }

        /// The backups that were asked for and that none of the repositories has that could be read.
        package var absent: [Label] {
            let read = repositories.compactMap { if case .success(let found) = $0.result { found } else { nil } }
            return read.first?.absent.filter { label in read.allSatisfy { $0.absent.contains(label) } } ?? []
        }
    }

    private let options: Options
    private let tools: Tools

    package init(_ options: Options, _ tools: Tools) {
        self.options = options
        self.tools = tools
    }

    /// Verifies one repository after the other. Throws `interrupted` alone: the rest is part of the outcome.
    package func run() throws(KedgeError) -> Outcome {
        var repositories: [(name: String, result: Result<RepositoryVerification, KedgeError>)] = []
        let rate = options.rateBytes.map { ReadRate(bytesPerSecond: $0, time: tools.time) }
        for repository in options.repositories {
            do throws(KedgeError) {
                try tools.interruption.checkpoint()
                let cluster = try repository.source.get().openCluster(
                    options.clusterName, for: .write, random: tools.random)
                let verification = try RepositoryVerifier(cluster, options, tools, rate).run()
                repositories.append((repository.name, .success(verification)))
            } catch {
                guard error.code != .interrupted else { throw error }
                repositories.append((repository.name, .failure(error)))
            }
        }
        return Outcome(repositories: repositories)
    }
}

/// What a verification of one repository found.
package struct RepositoryVerification: Sendable {
    package let name: String
    package let location: String
    package let scope: VerifyScope
    package let started: Timestamp
    package let backups: [BackupVerification]
    /// In the order in which they were found.
    package let findings: [VerifyFinding]
    /// Findings beyond those listed, none of them damage.
    package let unlistedFindings: Int
    package let totals: VerifyTotals
    /// Whether something could not be read: an object, or part of one that is listed as damaged.
    package let hasUnread: Bool
    /// Backups that were removed while they were read.
    package let removed: [Label]
    /// Backups that were asked for and are not here, in that order. Only one of several repositories may lack some.
    package let absent: [Label]
    /// Why not all proofs could be stored; nil where they were.
    package let proofError: KedgeError?

    package var isDamaged: Bool { findings.contains { $0.kind.isDamage } }
    /// Whether everything could be read, and every proof be stored.
    package var isComplete: Bool {
        proofError == nil && !hasUnread && !backups.contains { $0.state == .unknown }
    }

    /// In a word, what a verification says of the repository: the first of these that holds.
    package enum Standing: String, Hashable, Sendable {
        case damaged
        case incomplete
        /// There was no backup to verify. Nothing is wrong with what is there, and nothing can be restored from it.
        case nothing
        case sound
    }

    /// Whether nothing was verified because none of the backups that were asked for is here.
    package var lacksWhatWasAsked: Bool { backups.isEmpty && removed.isEmpty && !absent.isEmpty }

    package var standing: Standing {
        isDamaged ? .damaged : !isComplete ? .incomplete : backups.isEmpty ? .nothing : .sound
    }
}

/// How much was read, and how much was not.
package struct VerifyTotals: Hashable, Sendable {
    package var packs = Count()
    package var walFiles = Count()
    package var milliseconds: UInt64 = 0

    package struct Count: Hashable, Sendable {
        package var read: UInt64 = 0
        /// As stored.
        package var readBytes: UInt64 = 0
        /// Read by an earlier run.
        package var remembered: UInt64 = 0
        package var notInSample: UInt64 = 0
        /// The oldest reading that is relied on.
        package var oldest: Timestamp?

        package init() {}

        mutating func add(_ decision: VerifyPlan.Decision, bytes: UInt64) {
            switch decision {
            case .read:
                read += 1
                readBytes += bytes
            case .remembered(let since):
                remembered += 1
                oldest = min(oldest ?? since, since)
            case .notInSample: notInSample += 1
            }
        }
    }

    package init() {}
}

/// What is known of one backup.
package struct BackupVerification: Sendable {
    package enum State: String, Hashable, Sendable {
        /// Every file of it is whole, and it becomes consistent.
        case restores
        /// Something that it needs is lost.
        case lost
        /// Something that it needs could not be read, and nothing is known to be lost.
        case unknown
    }

    package let record: CommitRecord
    package let state: State
    /// Up to where it restores, along each timeline that leads on from it.
    package let reach: [Reach]
    /// Files of which something is lost: the first of them, and how many.
    package let lostFiles: [ManifestPath]
    package let lostFileCount: UInt64
    /// The proof that was stored; nil where nobody could judge, or it could not be stored.
    package internal(set) var proof: ProofRecord?

    package struct Reach: Hashable, Sendable {
        package let timeline: TimelineID
        package let lsn: LSN
        /// The latest commit, abort or end of a backup there.
        package let time: Timestamp?
        /// The segment whose damage, or whose wal_level, ends it; nil where it is the end of what is archived.
        package let end: WALSegment?

        package init(timeline: TimelineID, lsn: LSN, time: Timestamp?, end: WALSegment? = nil) {
            self.timeline = timeline
            self.lsn = lsn
            self.time = time
            self.end = end
        }
    }

    package var restores: Bool { state == .restores }

    /// Where recovery to the latest moment ends: on the newest timeline.
    package var latest: Reach? { reach.max { $0.timeline < $1.timeline } }
}

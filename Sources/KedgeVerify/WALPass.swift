// All WAL that the backups need, several files at a time, each once; and what is missing of it.

import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import Synchronization

/// Reads WAL.
struct WALPass {
    /// What is known of the WAL of one database system.
    struct SystemResult: Sendable {
        let archive: WALArchive
        let archived: ArchivedWAL
        /// Files that can't be used at all.
        var unusable: [UnusableFile] = []
        /// Where the records of usable segments stop being whole.
        var damage: [WALSegment: LSN] = [:]
        /// What is left without the files that can't be used.
        var usable: ArchivedWAL
        /// What may be left: without those files alone that are known to be damaged.
        var possible: ArchivedWAL
        /// Timelines whose history could not be read.
        var unknownTimelines: Set<TimelineID> = []
        /// Read whole and found sound in this run.
        var sound = WALSizes()
        /// When segments were read that this run did not read, and the highest number of each of those times.
        var remembered: [Timestamp: UInt64] = [:]
    }

    /// A file that can't be used.
    struct UnusableFile: Hashable, Sendable {
        let segment: WALSegment
        let isPartial: Bool
        let object: String
        /// Whether it is known to be damaged.
        let isDamaged: Bool
    }

    typealias Result = [SystemIdentifier: SystemResult]

    private let verifier: RepositoryVerifier

    init(_ verifier: RepositoryVerifier) { self.verifier = verifier }

    private var cluster: ClusterRepository { verifier.cluster }
    private var findings: Findings { verifier.findings }

    /// Reads what the plan says. Throws what reading throws where no file is to blame.
    func run(
        _ backups: [CommitRecord], _ listing: RepositoryListing, _ plan: VerifyPlan, _ totals: inout VerifyTotals
    ) throws(KedgeError) -> Result {
        var result: Result = [:]
        for registration in cluster.registrations {
            let system = registration.systemIdentifier
            let own = backups.filter { $0.server.systemIdentifier == system }
            guard !own.isEmpty else { continue }
            let archive = WALArchive(cluster, registration)
            let (histories, unknown) = try readHistories(listing, archive)
            let survey = try survey(archive, own, histories, unknown)
            try report(survey)
            result[system] = try read(survey, plan, &totals)
            result[system]?.unknownTimelines = unknown
        }
        for backup in backups where result[backup.server.systemIdentifier] == nil {
            let object = ClusterLayout.commitRecord(label: backup.label.text).map(verifier.fullName)
            findings.add(
                VerifyFinding(
                    kind: .damaged, object: object ?? backup.label.text,
                    error: KedgeError(
                        .damaged, "backup \"\(backup.label)\" is of a database system that is not registered",
                        detail: "Its system identifier is \(backup.server.systemIdentifier).",
                        hint: "Somebody may have tampered with the repository."), backups: [backup.label],
                    costs: ["Backup \(backup.label) does not restore."]))
        }
        return result
    }

    // MARK: - Histories

    /// Reads every `.history` and `.backup` file of one system. `unknown` are timelines whose history can't be read.
    private func readHistories(
        _ listing: RepositoryListing, _ archive: WALArchive
    ) throws(KedgeError) -> (histories: [TimelineID: TimelineHistory], unknown: Set<TimelineID>) {
        var histories: [TimelineID: TimelineHistory] = [:]
        var unknown: Set<TimelineID> = []
        let system = archive.registration.systemIdentifier
        for (_, archived) in listing.historyFiles {
            try verifier.tools.interruption.checkpoint()
            guard ClusterLayout.walFile(archived.file, of: system, tag: nil) == archived.name else { continue }
            do throws(KedgeError) {
                let bytes = try archive.read(archived, threads: 1).bytes
                if case .history(let timeline) = archived.file {
                    histories[timeline] = try TimelineHistory(parsing: bytes, timeline: timeline)
                }
            } catch {
                let error = try verifier.errors.tolerate(error)
                let kind = VerifyFinding.Kind(of: error)
                var costs: [String] = []
                if case .history(let timeline) = archived.file {
                    if !kind.isDamage { unknown.insert(timeline) }
                    costs = ["No server follows timeline \(timeline) without it."]
                }
                findings.add(
                    VerifyFinding(kind: kind, object: verifier.fullName(archived.name), error: error, costs: costs))
            }
        }
        return (histories, unknown)
    }

    // MARK: - What is missing

    /// Lists the archive; looks again while a hole may just be a push under way.
    private func survey(
        _ archive: WALArchive, _ backups: [CommitRecord], _ histories: [TimelineID: TimelineHistory],
        _ unknown: Set<TimelineID>
    ) throws(KedgeError) -> WALSurvey {
        let (time, patience) = (verifier.tools.time, verifier.options.gapPatience)
        var survey = try WALSurvey(archive, backups: backups, histories: histories, unknown: unknown)
        let begin = time.monotonicNanoseconds()
        let limit = UInt64(clamping: patience.components.seconds).multipliedReportingOverflow(by: 1_000_000_000)
        while survey.holes.contains(where: survey.isFresh),
            time.monotonicNanoseconds() - begin < (limit.overflow ? .max : limit.partialValue)
        {
            verifier.tools.progress.begin("waiting for WAL")
            try time.sleep(nanoseconds: 1_000_000_000, unless: verifier.tools.interruption)
            survey = try WALSurvey(archive, backups: backups, histories: histories, unknown: unknown)
        }
        return survey
    }

    private func report(_ survey: WALSurvey) throws(KedgeError) {
        for hole in survey.holes {
            let object = verifier.fullName(survey.object(of: hole))
            let stop = survey.backups.first { $0.label == hole.backup }?.span.stopLSN ?? .invalid
            let isBeforeStop = hole.segment.startLSN(segmentSize: survey.archived.segmentSize) < stop
            let cost =
                switch hole.reason {
                case .neededByBackup,
                    .gap where isBeforeStop, .conflict where isBeforeStop:
                    "Backup \(hole.backup) cannot become consistent."
                case .history: "No server follows timeline \(hole.segment.timeline) without it."
                case .gap, .conflict:
                    "Backup \(hole.backup) restores no further than "
                        + "\(hole.segment.startLSN(segmentSize: survey.archived.segmentSize)) on this timeline."
                }
            let error: KedgeError
            do throws(KedgeError) {
                error = try survey.error(of: hole)
            } catch let failure {
                error = try verifier.errors.tolerate(failure)
            }
            findings.add(
                VerifyFinding(
                    kind: VerifyFinding.Kind(of: error), object: object, error: error, backups: [hole.backup],
                    costs: [cost]))
        }
    }

    // MARK: - Reading

    private struct Job: Sendable {
        let run: WALChain.Run
        /// The part of the run that one worker reads in order.
        let numbers: Range<UInt64>
    }

    /// So many neighbours are read by one worker in order: only the first needs the facts of the file before it.
    private static let chunk: UInt64 = 32
    /// Files in memory at once: each takes about twice its size.
    private static let memoryBytes: UInt64 = 64 << 20

    private func read(
        _ survey: WALSurvey, _ plan: VerifyPlan, _ totals: inout VerifyTotals
    ) throws(KedgeError) -> SystemResult {
        var jobs: [Job] = []
        for run in survey.runs {
            for start in stride(from: run.numbers.lowerBound, to: run.numbers.upperBound, by: Int(Self.chunk)) {
                jobs.append(
                    Job(run: run, numbers: start..<min(start + Self.chunk, run.numbers.upperBound)))
            }
        }
        let segmentSize = survey.archived.segmentSize
        let files = survey.runs.reduce(0) { $0 + UInt64($1.numbers.count) }
        verifier.tools.progress.begin("reading WAL", totalBytes: files.multipliedReportingOverflow(by: segmentSize).0)
        let workers = verifier.options.workers
        let atOnce = max(1, min(workers, Int(clamping: Self.memoryBytes / (2 * segmentSize))))
        let check = WALCheck(survey.archive, verifier.errors, threads: max(1, workers / atOnce))
        let state = Mutex(Tally())
        let pass = self
        let all = jobs
        try parallelFor(
            count: all.count, threads: atOnce, name: "verify-wal", makeState: { () throws(KedgeError) in 0 },
            body: { (_, index) throws(KedgeError) in try pass.read(all[index], check, plan, state) })
        return try finish(survey, check, state.withLock { $0 }, &totals)
    }

    /// What the workers found.
    fileprivate struct Tally: Sendable {
        var count = VerifyTotals.Count()
        var bad: [WALVerdict] = []
        var sound: [(segment: WALSegment, bytes: UInt64)] = []
        var remembered: [Timestamp: UInt64] = [:]
    }

    private func read(
        _ job: Job, _ check: WALCheck, _ plan: VerifyPlan, _ state: borrowing Mutex<Tally>
    ) throws(KedgeError) {
        let system = check.archive.registration.systemIdentifier
        let segmentSize = check.archive.registration.walSegmentSize
        var tally = Tally()
        var previous: WALFacts?
        func link(_ number: UInt64) -> WALLink {
            WALLink(
                segment: WALSegment(timeline: job.run.timeline, number: number), isPartial: job.run.isPartial,
                previous: nil)
        }
        for number in job.numbers {
            try verifier.tools.interruption.checkpoint()
            let decision = plan.decision(
                segment: link(number).segment, isPartial: job.run.isPartial,
                isLast: number + 1 == job.run.numbers.upperBound, of: system)
            guard case .read = decision else {
                tally.count.add(decision, bytes: 0)
                if case .remembered(let since) = decision {
                    tally.remembered[since] = max(tally.remembered[since] ?? 0, number)
                }
                previous = nil
                verifier.tools.progress.advance(segmentSize)
                continue
            }
            try verifier.rate?.take(Int(segmentSize), unless: verifier.tools.interruption)
            let earlier = number > job.run.numbers.lowerBound ? link(number - 1) : nil
            let verdict = try check.check(link(number), after: earlier, previous: &previous)
            verifier.tools.progress.advance(segmentSize)
            tally.count.add(decision, bytes: verdict.storedBytes)
            if !verdict.isSound {
                tally.bad.append(verdict)
            } else if !job.run.isPartial {
                tally.sound.append((verdict.link.segment, verdict.storedBytes))
            }
        }
        let found = tally
        state.withLock { $0.add(found) }
    }

    private func finish(
        _ survey: WALSurvey, _ check: WALCheck, _ tally: Tally, _ totals: inout VerifyTotals
    ) throws(KedgeError) -> SystemResult {
        totals.walFiles.add(tally.count)
        var result = SystemResult(
            archive: survey.archive, archived: survey.archived, usable: survey.archived, possible: survey.archived)
        for (segment, bytes) in tally.sound { result.sound.add(segment, bytes: bytes) }
        result.remembered = tally.remembered
        for backup in survey.backups {
            for suspect in backup.health.walSuspect {
                let segment = WALSegment(fileName: suspect.file, segmentSize: survey.archived.segmentSize)
                if let segment { add(suspect.lsn, suspect.reason, in: segment, nil, survey, &result) }
            }
        }
        for verdict in tally.bad.sorted(by: { $0.link.segment < $1.link.segment }) {
            let segment = verdict.link.segment
            if let error = verdict.error {
                give(up: verdict.link, verdict.object, error, survey, &result)
                continue
            }
            if let minimal = verdict.minimal { end(at: minimal, verdict, survey, &result) }
            if let defect = verdict.defect {
                add(defect.lsn, defect.reason, in: segment, verdict.object, survey, &result)
                // How far the records of a partial segment go is left out of the reckoning.
                if verdict.link.isPartial, let object = verdict.object.map(verifier.fullName) {
                    result.unusable.append(
                        UnusableFile(segment: segment, isPartial: true, object: object, isDamaged: true))
                }
            }
        }
        for crossing in survey.crossings {
            do throws(KedgeError) {
                guard let defect = try check.mismatch(crossing.earlier, crossing.later) else { continue }
                add(defect.lsn, defect.reason, in: crossing.later.segment, nil, survey, &result)
            } catch {
                give(up: crossing.later, nil, try verifier.errors.tolerate(error), survey, &result)
            }
        }
        func without(_ files: [UnusableFile]) -> ArchivedWAL {
            survey.archived.holding(
                survey.archived.inventory.without(files.lazy.map { ($0.segment, $0.isPartial) }))
        }
        result.usable = without(result.unusable)
        result.possible = without(result.unusable.filter(\.isDamaged))
        return result
    }

    /// Notes that a file can't be used.
    private func give(
        up link: WALLink, _ object: ObjectName?, _ error: KedgeError, _ survey: WALSurvey, _ result: inout SystemResult
    ) {
        let name =
            object
            ?? ClusterLayout.walFile(
                link.file(segmentSize: survey.archived.segmentSize),
                of: survey.archive.registration.systemIdentifier, tag: nil)
        let kind = VerifyFinding.Kind(of: error)
        result.unusable.append(
            UnusableFile(
                segment: link.segment, isPartial: link.isPartial, object: verifier.fullName(name),
                isDamaged: kind.isDamage))
        findings.add(VerifyFinding(kind: kind, object: verifier.fullName(name), error: error))
    }

    /// Notes that no recovery goes beyond the place where a file goes on with wal_level = minimal. That is no damage of
    /// what lies before, and told until there is a backup behind it.
    private func end(
        at minimal: WALWalk.Defect, _ verdict: WALVerdict, _ survey: WALSurvey, _ result: inout SystemResult
    ) {
        let segment = verdict.link.segment
        result.damage[segment] = min(result.damage[segment] ?? minimal.lsn, minimal.lsn)
        guard !survey.backups.contains(where: { $0.span.startLSN > minimal.lsn }) else { return }
        let file = verdict.link.file(segmentSize: survey.archived.segmentSize)
        let name =
            verdict.object
            ?? ClusterLayout.walFile(file, of: survey.archive.registration.systemIdentifier, tag: nil)
        findings.add(
            VerifyFinding(
                kind: .recorded, object: verifier.fullName(name),
                error: KedgeError(
                    .walSuspect, "recovery ends in WAL segment \"\(file.text)\", at \(minimal.lsn)",
                    detail: "\(minimal.reason).",
                    hint: "Take a new backup now: no moment behind that can be reached from the present ones.")))
    }

    /// Notes that the records of a segment are whole only up to `lsn`.
    private func add(
        _ lsn: LSN, _ reason: String, in segment: WALSegment, _ object: ObjectName?, _ survey: WALSurvey,
        _ result: inout SystemResult
    ) {
        guard !survey.archived.isHarmless(lsn, in: segment),
            survey.backups.contains(where: { lsn >= $0.span.startLSN }),
            survey.runs.contains(where: { $0.timeline == segment.timeline && $0.numbers.contains(segment.number) })
        else { return }
        result.damage[segment] = min(result.damage[segment] ?? lsn, lsn)
        let file = segment.fileName(segmentSize: survey.archived.segmentSize)
        let name =
            object
            ?? ClusterLayout.walFile(.segment(file), of: survey.archive.registration.systemIdentifier, tag: nil)
        findings.add(
            VerifyFinding(
                kind: .recorded, object: verifier.fullName(name),
                error: KedgeError(
                    .walSuspect, "WAL segment \"\(file)\" was stored with damaged records, at \(lsn)",
                    detail: reason.isEmpty ? nil : "\(reason)\(reason.hasSuffix(".") ? "" : ".")",
                    hint: "Check the disk under pg_wal, and take a new backup.")))
    }
}

extension WALPass.Tally {
    fileprivate mutating func add(_ other: WALPass.Tally) {
        count.add(other.count)
        bad += other.bad
        sound += other.sound
        remembered.merge(other.remembered) { max($0, $1) }
    }
}

extension VerifyTotals.Count {
    fileprivate mutating func add(_ other: VerifyTotals.Count) {
        read += other.read
        readBytes += other.readBytes
        remembered += other.remembered
        notInSample += other.notInSample
        oldest = [oldest, other.oldest].compactMap { $0 }.min()
    }
}

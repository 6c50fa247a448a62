// What all that was found means for each backup: whether it restores, up to which moment, and the proof of it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// Judges backups.
struct BackupJudge {
    private let verifier: RepositoryVerifier
    private let plan: VerifyPlan
    private let started: Timestamp
    private let totals: VerifyTotals
    private let packs: PackPass.Result
    private let wal: WALPass.Result
    private let walObjects: [String: [String]]

    init(
        _ verifier: RepositoryVerifier, plan: VerifyPlan, started: Timestamp, totals: VerifyTotals,
        packs: PackPass.Result, wal: WALPass.Result
    ) {
        self.verifier = verifier
        self.plan = plan
        self.started = started
        self.totals = totals
        self.packs = packs
        self.wal = wal
        walObjects = Self.walObjects(verifier.findings.all.findings)
    }

    private static let surveyedSegments = 200

    /// Throws what reading the facts of the last segments throws.
    func judge(_ record: CommitRecord, _ manifest: ManifestVerdict) throws(KedgeError) -> BackupVerification {
        let system = wal[record.server.systemIdentifier]
        var reach: [BackupVerification.Reach] = []
        var (isConsistent, isUnknown) = (false, false)
        if let system {
            isConsistent = RecoverableWindows.canBecomeConsistent(
                record, archive: system.usable, damage: system.damage)
            isUnknown =
                !isConsistent
                && (system.unknownTimelines.contains(record.span.timeline)
                    || RecoverableWindows.canBecomeConsistent(
                        record, archive: system.possible, damage: system.damage))
            reach = try self.reach(record, system)
            blame(record, system)
        }
        let isLost = manifest.isLost || !isConsistent && !isUnknown
        let state: BackupVerification.State =
            isLost ? .lost : isUnknown || manifest.isUnknown ? .unknown : .restores
        if state != .restores { reach = [] }
        // What nobody can judge gets no proof.
        let proof =
            state == .unknown ? nil : self.proof(record, manifest, isConsistent: isConsistent, state, reach: reach)
        return BackupVerification(
            record: record, state: state, reach: reach, lostFiles: manifest.files.map(\.path),
            lostFileCount: manifest.fileCount, proof: proof)
    }

    private func reach(
        _ record: CommitRecord, _ system: WALPass.SystemResult
    ) throws(KedgeError) -> [BackupVerification.Reach] {
        let windows = RecoverableWindows.find(backups: [record], archive: system.usable, damage: system.damage)
        var reach: [BackupVerification.Reach] = []
        for window in windows {
            let survey = WindowSurvey(
                system.archive, segmentLimit: Self.surveyedSegments, interruption: verifier.tools.interruption)
            var time: Timestamp?
            do throws(KedgeError) {
                time = try survey.describe(window).to.time
            } catch {
                note(try verifier.errors.tolerate(error), window, system)
            }
            reach.append(
                BackupVerification.Reach(
                    timeline: window.timeline, lsn: window.limit, time: time, end: end(of: window, system)))
        }
        return reach
    }

    /// The segment whose damage ends a window of one backup; nil where there is no more WAL, or it could not be read.
    private func end(of window: RecoverableWindow, _ system: WALPass.SystemResult) -> WALSegment? {
        if let damage = window.damage { return damage }
        let chain = WALChain(
            system.archived, along: window.chain.history,
            from: window.oldest.span.startLSN.position / system.archived.segmentSize)
        return system.unusable.first { file in
            file.isDamaged && !file.isPartial && file.segment.number == window.chain.missing.number
                && chain.reads(file.segment)
        }?.segment
    }

    /// Notes that the facts of the last segments of a window could not be read.
    private func note(_ error: KedgeError, _ window: RecoverableWindow, _ system: WALPass.SystemResult) {
        let size = system.archived.segmentSize
        let last = WALSegment(timeline: window.timeline, number: (max(window.limit.position, 1) - 1) / size)
        let name = ClusterLayout.walFile(
            .segment(last.fileName(segmentSize: size)), of: system.archive.registration.systemIdentifier, tag: nil)
        verifier.findings.add(
            VerifyFinding(kind: .init(of: error), object: verifier.fullName(name), error: error))
    }

    /// Says of each damaged WAL file what it costs this backup.
    private func blame(_ record: CommitRecord, _ system: WALPass.SystemResult) {
        let size = system.archived.segmentSize
        let first = record.span.startLSN.position / size
        for timeline in system.archived.timelines {
            guard let history = system.archived.history(of: timeline), record.lies(on: history) else { continue }
            let chain = WALChain(system.archived, along: history, from: first)
            func cost(_ lsn: LSN) -> String {
                lsn < record.span.stopLSN
                    ? "Backup \(record.label) cannot become consistent."
                    : "Backup \(record.label) restores no further than \(lsn) on timeline \(timeline)."
            }
            for file in system.unusable where chain.reads(file.segment, isPartial: file.isPartial) {
                verifier.findings.cost(of: file.object, record.label, cost(file.segment.startLSN(segmentSize: size)))
            }
            for (segment, lsn) in system.damage where lsn >= record.span.startLSN && chain.reads(segment) {
                for object in walObjects[segment.fileName(segmentSize: size)] ?? [] {
                    verifier.findings.cost(of: object, record.label, cost(lsn))
                }
            }
        }
    }

    /// The findings about WAL segments, by segment.
    private static func walObjects(_ findings: [VerifyFinding]) -> [String: [String]] {
        var objects: [String: [String]] = [:]
        for finding in findings where finding.object.contains("/wal/") {
            guard let name = ObjectName(finding.object)?.lastComponent else { continue }
            objects[String(name.prefix(24)), default: []].append(finding.object)
        }
        return objects
    }

    // MARK: - The proof

    private func proof(
        _ record: CommitRecord, _ manifest: ManifestVerdict, isConsistent: Bool, _ state: BackupVerification.State,
        reach: [BackupVerification.Reach]
    ) -> ProofRecord {
        let latest = reach.max { $0.timeline < $1.timeline }
        let repository = verifier.cluster.repository
        return ProofRecord(
            label: record.label, level: .verified, result: state == .restores ? .passed : .failed,
            repositoryName: repository.name, repositoryID: repository.identity.id, manifest: record.manifest,
            started: started, finished: verifier.tools.time.now(), hostName: verifier.options.hostName,
            createdBy: Version.writer, readSince: readSince(record, manifest),
            covers: latest.flatMap { reach in
                reach.lsn < record.span.startLSN
                    ? nil
                    : ProofRecord.Coverage(
                        timeline: reach.timeline, fromLSN: record.span.startLSN, toLSN: reach.lsn, toTime: reach.time)
            },
            checks: checks(record, manifest, isConsistent, latest),
            phases: [
                ProofRecord.Phase(
                    name: "verify", milliseconds: totals.milliseconds,
                    bytes: totals.packs.readBytes + totals.walFiles.readBytes)
            ], verified: verified(record))
    }

    /// The oldest reading of an earlier run that says something about this backup; nil where this run read all.
    private func readSince(_ record: CommitRecord, _ manifest: ManifestVerdict) -> Timestamp? {
        var times = record.packs.compactMap { packs.remembered[$0.id] }
        if manifest.regionsLeft > 0, case .remembered(let since) = plan.decision(backup: record) { times.append(since) }
        if let system = wal[record.server.systemIdentifier] {
            let first = record.span.startLSN.position / system.archived.segmentSize
            times += system.remembered.filter { $0.value >= first }.map(\.key)
        }
        return times.min()
    }

    private func verified(_ record: CommitRecord) -> ProofRecord.VerifiedObjects {
        let own = Set(record.packs.map(\.id))
        return ProofRecord.VerifiedObjects(
            systemIdentifier: record.server.systemIdentifier,
            packs: packs.sound.filter { own.contains($0.key) }.sorted { $0.key < $1.key }.map {
                ProofRecord.VerifiedObjects.Pack(id: $0.key, bytes: $0.value)
            }, wal: wal[record.server.systemIdentifier]?.sound.ranges ?? [], partsPerMillion: plan.scope.partsPerMillion
        )
    }

    private func checks(
        _ record: CommitRecord, _ manifest: ManifestVerdict, _ isConsistent: Bool, _ latest: BackupVerification.Reach?
    ) -> [ProofRecord.Check] {
        let lostPacks = record.packs.filter { packs.remarkable[$0.id].map { !$0.isSound } ?? false }.count
        let readPacks = record.packs.filter { packs.sound[$0.id] != nil }.count
        let own = verifier.findings.all.findings.filter { $0.kind.isDamage && $0.backups.contains(record.label) }
        var checks = [
            ProofRecord.Check(
                name: "packs", result: lostPacks == 0 ? .passed : manifest.isSound ? .warning : .failed,
                detail: "\(readPacks) of \(record.packs.count) read, \(lostPacks) damaged or missing"),
            ProofRecord.Check(
                name: "manifest", result: manifest.error == nil ? .passed : .failed,
                detail: manifest.error.map { OneLine.text($0) }),
            ProofRecord.Check(
                name: "files", result: manifest.fileCount == 0 ? .passed : .failed,
                detail: "\(manifest.fileCount) of \(record.sizes.files) damaged; \(manifest.regions) regions compared, "
                    + "\(manifest.regionsRead) of them put together, \(manifest.regionsLeft) left out"),
            ProofRecord.Check(
                name: "pages",
                result: !record.server.dataChecksums
                    ? .skipped
                    : manifest.pageCount > 0 ? .failed : record.health.damagedPageCount > 0 ? .warning : .passed,
                detail: record.server.dataChecksums
                    ? "\(manifest.pageCount) damaged, besides \(record.health.damagedPageCount) recorded by the backup"
                    : "the cluster has no data checksums"),
            ProofRecord.Check(
                name: ProofRecord.walCheck,
                result: !isConsistent
                    ? .failed : latest?.end != nil || own.contains { $0.object.contains("/wal/") } ? .warning : .passed,
                subject: latest?.end?.fileName(segmentSize: record.server.walSegmentSize),
                detail: latest.map { "sound up to \($0.lsn) on timeline \($0.timeline)" }
                    ?? "the backup cannot become consistent"),
        ]
        for finding in own.prefix(Self.listedFindings) {
            checks.append(
                ProofRecord.Check(
                    name: finding.kind.rawValue,
                    result: finding.kind == .recorded || finding.costs.isEmpty ? .warning : .failed,
                    subject: finding.object, detail: OneLine.text(finding.error)))
        }
        return checks
    }

    /// The most findings that a proof names. `VerifyMemory` relies on proofs with fewer naming all.
    static let listedFindings = 100
}

/// An error in one line.
enum OneLine {
    static func text(_ error: KedgeError) -> String { error.message + (error.detail.map { ": " + $0 } ?? "") }
}

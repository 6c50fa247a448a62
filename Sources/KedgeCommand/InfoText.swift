// `kedge info` for people: the newest at the end of each list, what is wrong at the end of all.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The text of `info`.
enum InfoText {
    /// Everything about one cluster.
    static func lines(_ cluster: Info.ClusterInfo) -> [String] {
        var lines = [head(cluster)]
        for (name, info) in cluster.repositories {
            lines.append("")
            switch info {
            case .success(let info): lines += repository(info, cluster.now)
            case .failure(let error): lines.append("repository \(name) can't be read: \(error.message)")
            }
        }
        guard !cluster.messages.isEmpty else { return lines }
        lines += [""] + cluster.messages.flatMap(message)
        return lines
    }

    private static func head(_ cluster: Info.ClusterInfo) -> String {
        let status = InfoCommand.word(cluster.status)
        guard let registration = cluster.registration else { return "cluster \(cluster.name): \(status)" }
        return "cluster \(cluster.name): PostgreSQL \(registration.postgresVersion), system identifier "
            + "\(registration.systemIdentifier): \(status)"
    }

    private static func repository(_ info: RepositoryInfo, _ now: Timestamp) -> [String] {
        let sections = [backups(info, now), intents(info) + leases(info), windows(info), wal(info), proofs(info)]
            .filter { !$0.isEmpty }
        return ["repository \(info.name): \(info.location)"]
            + sections.flatMap { [""] + $0.map { "  " + $0 } }
    }

    // MARK: - Sections

    private static func backups(_ info: RepositoryInfo, _ now: Timestamp) -> [String] {
        guard !info.backups.isEmpty else { return ["no backups"] }
        var table = TextTable([
            .left("backup"), .left("type"), .left("ended"), .right("database"), .right("stored"), .right("frees"),
            .right("timeline"), .left("LSN"), .left(""),
        ])
        for backup in info.backups {
            let record = backup.record
            var remarks: [String] = []
            if backup.hasItsWAL == false { remarks.append("WAL missing") }
            if backup.hasItsWAL == nil { remarks.append("earlier system \(record.server.systemIdentifier)") }
            if let proof = proof(backup.standing, now) { remarks.append(proof) }
            if backup.isPinned { remarks.append("pinned") }
            if let time = backup.condemnedAt { remarks.append("condemned \(seconds(time))") }
            if backup.removalHasBegun { remarks.append("removal has begun") }
            if !backup.bases.isEmpty { remarks.append(base(backup)) }
            if record.health.damagedPageCount > 0 {
                remarks.append("\(record.health.damagedPageCount) damaged page(s)")
            }
            table.add([
                record.label.text, record.type.rawValue, seconds(record.span.stopTime),
                HumanText.size(record.sizes.databaseBytes), HumanText.size(record.sizes.storedBytes),
                HumanText.size(backup.share.bytes), record.span.timeline.description, record.span.stopLSN.description,
                remarks.joined(separator: ", "),
            ])
        }
        return table.lines
    }

    /// What "frees" counts is told with all that goes along, so its own share is said here.
    private static func base(_ backup: RepositoryInfo.BackupInfo) -> String {
        let all = backup.share.dependents.count
        let direct = "base of \(backup.bases.count) delta(s)"
        let own = HumanText.size(backup.share.ownBytes)
        return direct + (all > backup.bases.count ? ", \(all) build on it" : "") + ", \(own) for itself"
    }

    /// `proof: drilled 2 d ago`; nil where nothing was ever tried.
    private static func proof(_ standing: ProofStanding, _ now: Timestamp) -> String? {
        if let failure = standing.failure, standing.proof == nil {
            // What passed before is no proof any more, but it tells whether the backup was ever any good.
            let before = [standing.lastDrilled, standing.lastVerified].compactMap { $0 }
            let passed = before.map { "\($0.level) \(age($0, now))" }.joined(separator: ", ")
            return "FAILED: \(failure.level) \(age(failure, now))" + (passed.isEmpty ? "" : " (passed: \(passed))")
        }
        return standing.proof.map { "proof: \($0.level) \(age($0, now))" }
    }

    /// `2 d ago`, in the largest unit.
    private static func age(_ proof: ProofRecord, _ now: Timestamp) -> String {
        let seconds = (now.microseconds - proof.asOf.microseconds) / 1_000_000
        let text =
            switch seconds {
            case ..<60: "just now"
            case ..<3600: "\(seconds / 60) min ago"
            case ..<86_400: "\(seconds / 3600) h ago"
            default: "\(seconds / 86_400) d ago"
            }
        return text
    }

    private static func proofs(_ info: RepositoryInfo) -> [String] {
        guard let proofs = info.proofs else { return [] }
        guard !proofs.isEmpty else { return ["no proofs"] }
        return proofs.flatMap { proof in
            let head =
                "proof \(proof.name.text) of \(proof.label), by kedge on host \"\(proof.hostName)\""
                + (proof.isSample ? ", of a sample" : "")
            let covers = proof.covers.map { covers in
                "  covers \(covers.fromLSN) to \(covers.toLSN) on timeline \(covers.timeline)"
                    + (covers.toTime.map { ", last commit \($0)" } ?? "")
            }
            let since = proof.readSince.map { "  relies on what was read since \($0)" }
            let phases = proof.phases.map { phase in
                "\(phase.name) \(HumanText.duration(.milliseconds(Int64(clamping: phase.milliseconds))))"
                    + (phase.bytes.map { " (\(HumanText.size($0)))" } ?? "")
            }
            let checks = proof.checks.map { check in
                "  \(check.result.rawValue) "
                    + [check.name, check.subject, check.detail].compactMap { $0 }.joined(separator: ": ")
            }
            return [head] + [covers, since].compactMap { $0 }
                + (phases.isEmpty ? [] : ["  took " + phases.joined(separator: ", ")]) + checks
        }
    }

    private static func intents(_ info: RepositoryInfo) -> [String] {
        info.intents.compactMap { label, intent in
            guard case .success(let intent) = intent, !info.backups.contains(where: { $0.record.label == label }) else {
                return nil
            }
            let begun =
                "\(label), begun \(seconds(intent.startedAt)) by host \"\(intent.hostName)\", process "
                + "\(intent.processID)"
            guard let lease = info.lease(for: label) else {
                return "interrupted, or under way without a lease: " + begun
            }
            return "under way: " + begun + progress(lease.record, lease.renewedAt)
        }
    }

    /// Work other than backups, which are told by their intents.
    private static func leases(_ info: RepositoryInfo) -> [String] {
        info.leases.compactMap { operation, record, renewedAt in
            guard let record, !info.intents.contains(where: { $0.label.text == record.label }) else { return nil }
            return "under way: \(operation), begun \(seconds(record.takenAt)) by host \"\(record.process.hostName)\", "
                + "process \(record.process.processID)" + progress(record, renewedAt)
        }
    }

    /// How far it is, as of the store's clock.
    private static func progress(_ record: LeaseRecord, _ renewedAt: Timestamp) -> String {
        let text = record.progressText
        return text.isEmpty ? "" : ": \(text) at \(seconds(renewedAt))"
    }

    private static func windows(_ info: RepositoryInfo) -> [String] {
        guard !info.windows.isEmpty else { return ["nothing can be restored"] }
        var table = TextTable([
            .left("recoverable"), .left("from"), .left(""), .left("to"), .left(""), .right("backups"),
        ])
        for window in info.windows {
            table.add([
                "timeline \(window.timeline)", time(window.from.time), window.from.lsn.description,
                time(window.to.time), window.to.lsn.description, String(window.backupCount),
            ])
        }
        return table.lines
    }

    private static func wal(_ info: RepositoryInfo) -> [String] {
        var table = TextTable([
            .left("WAL"), .left("first"), .left("last"), .right("segments"), .right("stored"), .left(""),
        ])
        var isEmpty = true
        for timeline in info.inventory.timelines {
            guard let ends = info.ends(of: timeline) else { continue }
            isEmpty = false
            let missing = [
                missingText(timeline.gaps, "between", on: timeline.id, info),
                missingText(info.missingAtEnd(of: timeline), "at the end", on: timeline.id, info),
            ]
            table.add([
                "timeline \(timeline.id)", ends.first, ends.last, String(timeline.segmentCount),
                HumanText.size(timeline.storedBytes), missing.compactMap(\.self).joined(separator: ", "),
            ])
        }
        return isEmpty ? ["no WAL"] : table.lines
    }

    /// `3 missing between (1 acknowledged)`; nil where none is.
    private static func missingText(
        _ ranges: [ClosedRange<UInt64>], _ place: String, on timeline: TimelineID, _ info: RepositoryInfo
    ) -> String? {
        func count(_ ranges: [ClosedRange<UInt64>]) -> UInt64 {
            ranges.reduce(0) { $0 + ($1.upperBound - $1.lowerBound + 1) }
        }
        let (all, known) = (count(ranges), count(info.acknowledged(ranges, on: timeline)))
        guard all > 0 else { return nil }
        let note = known == 0 ? "" : known == all ? " (acknowledged)" : " (\(known) acknowledged)"
        return "\(all) missing \(place)\(note)"
    }

    private static func message(_ message: InfoMessage) -> [String] {
        let word = message.severity == .error ? "ERROR   " : "warning "
        let details = OutputRenderer.errorLines(message.error).dropFirst().filter { !$0.hasPrefix("code: ") }
        return ["\(word) \(message.repository): \(message.error.message)"] + details.map { "         " + $0 }
    }

    // MARK: - Times

    /// Whole seconds, for lists.
    private static func seconds(_ time: Timestamp) -> String {
        Timestamp(secondsSince1970: time.microseconds / 1_000_000).description
    }

    /// Exact, since people copy it into a target.
    private static func time(_ time: Timestamp?) -> String { time?.description ?? "unknown" }
}

extension Info.ClusterInfo {
    /// The database system that the cluster is, by the first repository that could be read.
    var registration: Registration? {
        for case .success(let info) in repositories.map(\.info) { return info.registration }
        return nil
    }
}

extension RepositoryInfo {
    /// The names of a timeline's first and last file; partial segments count. Nil where there is none.
    func ends(of timeline: WALInventory.Timeline) -> (first: String, last: String)? {
        func name(_ number: UInt64) -> String {
            let segment = WALSegment(timeline: timeline.id, number: number)
            return segment.fileName(segmentSize: inventory.segmentSize)
                + (timeline.contains(number) ? "" : ".partial")
        }
        let numbers =
            [timeline.runs.first?.lowerBound, timeline.runs.last?.upperBound] + timeline.partials.map(Optional.some)
        let present = numbers.compactMap { $0 }
        guard let first = present.min(), let last = present.max() else { return nil }
        return (name(first), name(last))
    }
}

// What `info` has to say about a repository beyond its contents: each thing that is wrong, and what to do. Pure.

package import KedgeCore
import KedgePostgres
import KedgeRepository

/// Something that somebody should know or do.
package struct InfoMessage: Sendable {
    package enum Severity: Int, Comparable, Sendable {
        case warning, error

        package static func < (left: Severity, right: Severity) -> Bool { left.rawValue < right.rawValue }
    }

    package let severity: Severity
    package let repository: String
    package let error: KedgeError

    package init(severity: Severity, repository: String, error: KedgeError) {
        self.severity = severity
        self.repository = repository
        self.error = error
    }

    /// Everything about one repository, what matters most first.
    static func about(_ info: RepositoryInfo) -> [InfoMessage] {
        let errors = unreadable(info) + withoutWAL(info)
        let warnings = backups(info) + wal(info) + strangers(info) + leases(info)
        return errors.map { InfoMessage(severity: .error, repository: info.name, error: $0) }
            + warnings.map { InfoMessage(severity: .warning, repository: info.name, error: $0) }
    }

    // MARK: - Errors

    private static func unreadable(_ info: RepositoryInfo) -> [KedgeError] {
        let records = info.unreadableBackups + info.unreadableHistories + info.unreadableSegments
        let intents = info.intents.compactMap { _, intent -> KedgeError? in
            if case .failure(let error) = intent { error } else { nil }
        }
        return (records.map(\.error) + intents).map { error in
            guard error.hint == nil else { return error }
            var hinted = error
            hinted.hint = "Use another repository for what needs it, and take a new backup."
            return hinted
        }
    }

    private static func withoutWAL(_ info: RepositoryInfo) -> [KedgeError] {
        info.backups.filter { $0.hasItsWAL == false }.map { backup in
            let span = backup.record.span
            return KedgeError(
                .walGap, "backup \"\(backup.record.label)\" cannot become consistent",
                detail: "WAL that it needs, from \(span.walFrom) to \(span.walTo), is missing or damaged.",
                hint: "Restore it from another repository, or archive the missing segments from the server's pg_wal "
                    + "with \"kedge archive-push\".  Take a new backup if it is the newest.")
        }
    }

    // MARK: - Warnings

    private static func backups(_ info: RepositoryInfo) -> [KedgeError] {
        guard let newest = info.backups.last(where: { $0.hasItsWAL != nil })?.record else {
            return info.unreadableBackups.isEmpty
                ? [
                    KedgeError(
                        .notFound, "there is no backup", detail: "Without one the archived WAL restores nothing.",
                        hint: "Run \"kedge backup\".")
                ] : []
        }
        guard newest.health.damagedPageCount > 0 else { return [] }
        let pages = newest.health.damagedPages.prefix(3).map { "\($0.path), block \($0.block)" }
        return [
            KedgeError(
                .pageDamaged, "the newest backup holds \(newest.health.damagedPageCount) damaged page(s)",
                detail: "The checksum does not fit in \(pages.joined(separator: "; ")).",
                hint: "Check the server's disk, and keep an older backup without them.")
        ]
    }

    private static func wal(_ info: RepositoryInfo) -> [KedgeError] {
        var messages: [KedgeError] = info.suspects.map { suspect in
            KedgeError(
                .walSuspect, "WAL segment \"\(suspect.file)\" is suspect: recovery may not get beyond \(suspect.lsn)",
                detail: suspect.reason.isEmpty ? nil : "\(suspect.reason)\(suspect.reason.hasSuffix(".") ? "" : ".")",
                hint: (suspect.reason == WALFacts.minimalWALReason ? "" : "Check the disk under pg_wal.  ")
                    + "Take a new backup now: it matters until there is one that began after \(suspect.lsn).")
        }
        if info.hasUnseenSegments {
            messages.append(
                KedgeError(
                    .walSuspect, "not every segment after the newest backup was looked at for damage",
                    detail: "There are more than this command reads.", hint: "Take backups more often."))
        }
        messages += givenUp(info) + withoutHistory(info)
        for timeline in info.inventory.timelines {
            messages += gaps(timeline, info) + missingEnd(timeline, info)
        }
        return messages + info.conflicts.map(conflict)
    }

    private static func conflict(_ found: ArchivedConflict) -> KedgeError {
        if let damage = found.damage { return damage }
        var sentences = ["Recovery cannot use any of them until it is known which is right."]
        if let conflict = found.conflict { sentences.append(conflict.place) }
        for (number, copy) in found.copies.enumerated() {
            sentences.append(WALConflict.sentence("No. \(number + 1), with the tag \(copy.tag),", copy))
        }
        if let explanation = found.conflict?.explanation("no. 1", "no. 2") { sentences.append(explanation) }
        return KedgeError(
            .archiveConflict, "WAL file \"\(found.file.text)\" was archived several times with different content",
            detail: sentences.joined(separator: "  "),
            hint: found.conflict?.hint ?? "Run \"kedge cat\" on each to see who stored it.")
    }

    /// What is wrong with the archived WAL alone, for commands that show health besides `info`.
    package static func aboutWAL(_ info: RepositoryInfo) -> [KedgeError] {
        (unreadable(info) + wal(info)).filter { [.walSuspect, .walGap, .archiveConflict, .damaged].contains($0.code) }
    }

    /// What archive-push gave up, also at the end of the archive, where no later segment shows that it is missing.
    private static func givenUp(_ info: RepositoryInfo) -> [KedgeError] {
        let first = info.backups.filter { $0.hasItsWAL != nil }.map(\.record.span.startLSN).min()
        let start = (first?.position ?? 0) / info.inventory.segmentSize
        return info.inventory.givenUp(info.knownGaps).flatMap { gap, missing in
            missing.filter { $0.upperBound >= start }.map { run in
                let names = [run.lowerBound, run.upperBound].map {
                    WALSegment(timeline: gap.timeline, number: $0)
                        .fileName(segmentSize: info.inventory.segmentSize)
                }
                return KedgeError(
                    .walGap,
                    "\(run.count) WAL segment(s) were given up on timeline \(gap.timeline): "
                        + (run.count == 1 ? names[0] : "\(names[0]) to \(names[1])"),
                    detail: "On host \"\(gap.hostName)\" at \(gap.createdAt) more waited to be archived than "
                        + "archive-queue-limit allows.  No moment from there to the next backup can be reached.",
                    hint: "Take a new backup now, and find out why WAL was not archived.  \"kedge info "
                        + "--acknowledge-gap\" with one of these names ends this warning.")
            }
        }
    }

    /// Timelines that no server follows, since it does not learn where they began.
    private static func withoutHistory(_ info: RepositoryInfo) -> [KedgeError] {
        info.inventory.timelines.map(\.id).filter { $0 > TimelineID(1) && !info.inventory.histories.contains($0) }.map {
            KedgeError(
                .walGap, "the history file of timeline \($0) is missing, but WAL of it is there",
                detail: "Without \"\($0.hex).history\" no server follows that timeline, and nothing on it can be "
                    + "recovered.",
                hint: "Archive it with \"kedge archive-push\" from the pg_wal of a server on that timeline.")
        }
    }

    /// Gaps after the first backup: what is older is of no use anyway.
    private static func gaps(_ timeline: WALInventory.Timeline, _ info: RepositoryInfo) -> [KedgeError] {
        let present = info.backups.filter { $0.hasItsWAL != nil }
        guard let first = present.map(\.record.span.startLSN).min() else { return [] }
        let start = first.position / info.inventory.segmentSize
        return timeline.gaps(unless: info.knownGaps).filter { $0.lowerBound >= start }.map { gap in
            let names = gapText(gap, timeline.id, info)
            return KedgeError(
                .walGap, "\(gap.count) WAL segment(s) are missing on timeline \(timeline.id): \(names)",
                detail: "No moment from there to the next backup can be reached.",
                hint:
                    "If the server still has them in pg_wal, archive them with \"kedge archive-push\"; otherwise "
                    + "take a new backup.  \"kedge info --acknowledge-gap\" with one of these names ends this "
                    + "warning.")
        }
    }

    /// What a backup shows to have been there behind the last archived segment, less what is known to be missing.
    private static func missingEnd(_ timeline: WALInventory.Timeline, _ info: RepositoryInfo) -> [KedgeError] {
        guard let missing = info.missingBehindEnd(of: timeline) else { return [] }
        let known = info.knownGaps.filter { $0.timeline == timeline.id }.map(\.numbers)
        return WALInventory.remainder(of: [missing], without: known).map { run in
            KedgeError(
                .walGap,
                "\(run.count) WAL segment(s) are missing at the end of timeline \(timeline.id): "
                    + gapText(run, timeline.id, info),
                detail:
                    "A base backup ended there or began behind it, so they existed.  No moment from there on can be "
                    + "reached.",
                hint: "If the server still has them in pg_wal, archive them with \"kedge archive-push\".  Find out who "
                    + "removed them, and take a new backup now.  \"kedge info --acknowledge-gap\" with one of these "
                    + "names ends this warning.")
        }
    }

    private static func strangers(_ info: RepositoryInfo) -> [KedgeError] {
        guard let first = info.inventory.strangers.first else { return [] }
        let count = info.inventory.strangers.count
        return [
            KedgeError(
                .walForeign, "\(count) object(s) among the WAL are not kedge's, such as \"\(first)\"",
                hint: "Find out who put them there; kedge does not remove them.")
        ]
    }

    private static func leases(_ info: RepositoryInfo) -> [KedgeError] {
        info.leases.filter { $0.record == nil }.map { lease in
            KedgeError(
                .damaged, "lease \"\(lease.operation)\" cannot be read",
                detail: "It was stored at \(lease.renewedAt), by the store's clock.",
                hint: "Whoever starts such work waits five minutes for it, and then takes it over.  If that does not "
                    + "happen, remove object \"\(ClusterLayout.leases)/\(lease.operation)\" of the cluster.")
        }
    }

    private static func name(_ timeline: TimelineID, _ number: UInt64, _ info: RepositoryInfo) -> String {
        WALSegment(timeline: timeline, number: number).fileName(segmentSize: info.inventory.segmentSize)
    }

    private static func gapText(_ gap: ClosedRange<UInt64>, _ timeline: TimelineID, _ info: RepositoryInfo) -> String {
        let first = name(timeline, gap.lowerBound, info)
        return gap.count == 1 ? first : "\(first) to \(name(timeline, gap.upperBound, info))"
    }
}

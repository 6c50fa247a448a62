// What a restore with --delta does about WAL that only the data directory has, decided before anything is changed.
//
// Without a choice it refuses. With `keep` the files stay where they are: recovery fetches what the archive has and
// then reads on in pg_wal (src/backend/access/transam/xlogrecovery.c, XLogFileReadAnyTLI), as the manual tells to do by
// hand ("Recovering Using a Continuous Archive Backup"). They are found again by their content, so an interrupted
// restore that is repeated knows them too: nothing in pg_wal is ever written to.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// What was found, and what becomes of it.
package struct UnarchivedWALOutcome: Hashable, Sendable {
    package let wal: UnarchivedWAL
    package let choice: UnarchivedWALChoice
    /// Whether recovery goes on in it where the archive ends. Else it is kept and has no effect.
    package let isReplayed: Bool
}

/// The check of one restore.
struct UnarchivedWALCheck {
    let options: Restore.Options
    let plan: RestorePlan
    let archives: [WALArchive]
    let coverage: WALCoverage
    /// Names of repositories that could not be read.
    let unreadable: [String]
    let interruption: Interruption

    /// Where a pg_wal lies that the restore will clear: the plain one of the data directory, and the one outside.
    private var places: [RawPath] {
        get throws(KedgeError) {
            let plain = options.pgdata.appending("pg_wal")
            var places = [options.walDirectory].compactMap(\.self)
            if try FileSystem.exists(plain), try FileStatus(at: plain).kind == .directory { places.append(plain) }
            return places
        }
    }

    /// Nil where there is no such WAL. Throws `unarchived-wal` where there is some and nobody has said what becomes of
    /// it, and `usage` where it cannot be kept.
    func run() throws(KedgeError) -> UnarchivedWALOutcome? {
        guard let archive = archives.first else { return nil }
        let survey = LocalWALSurvey(
            archives: archives, format: try archive.segmentFormat(), threads: options.processMax,
            interruption: interruption)
        let stays = options.walDirectory ?? options.pgdata.appending("pg_wal")
        var found: [LocalWALFile] = []
        var leaves = false
        for place in try places {
            let files = try survey.files(in: place)
            found += files
            if place != stays { leaves = leaves || !UnarchivedWAL(files, coverage).files.isEmpty }
        }
        let wal = UnarchivedWAL(found, coverage)
        guard !wal.files.isEmpty else { return nil }
        guard let choice = options.unarchivedWAL else { throw refusal(wal) }
        guard choice == .keep else { return UnarchivedWALOutcome(wal: wal, choice: choice, isReplayed: false) }
        if leaves {
            throw cannotKeep(
                wal, "It lies in \"\(options.pgdata.appending("pg_wal"))\", and pg_wal is to lead elsewhere.",
                "Leave \"--waldir\" out, or copy these files away and give \"--unarchived-wal discard\".")
        }
        try requireNoPartial(wal)
        return UnarchivedWALOutcome(wal: wal, choice: choice, isReplayed: try isReplayed(wal))
    }

    private func isReplayed(_ wal: UnarchivedWAL) throws(KedgeError) -> Bool {
        guard plan.stop == nil, options.request.standby || options.request.target == .latest else { return false }
        let oldest = plan.chain.last?.timeline ?? TimelineID(0)
        let missing = plan.chain.history.entries.map(\.timeline).filter { $0 >= oldest }.map {
            WALSegment(timeline: $0, number: plan.chain.missing.number)
        }
        guard wal.goesOn(at: missing, segmentSize: plan.chain.segmentSize) else { return false }
        guard options.request.standby || options.action == .promote else {
            // How far the kept WAL reaches is known only when it is replayed, and without a target there is no stop.
            throw cannotKeep(
                wal, "The server can only \(options.action.rawValue) at a target, and the end of this WAL is none.",
                "Leave \"--target-action\" out, or give a target such as \"--target-lsn\".")
        }
        return true
    }

    /// The archived `.partial` that the plan needs is written under its segment's name.
    private func requireNoPartial(_ wal: UnarchivedWAL) throws(KedgeError) {
        guard let partial = plan.partial else { return }
        let name = partial.fileName(segmentSize: plan.chain.segmentSize)
        guard wal.files.contains(where: { $0.name == .segment(name) }) else { return }
        throw cannotKeep(
            wal, "Recovery needs the archived \"\(name).partial\" under the name \"\(name)\", which has other content.",
            "Choose another timeline with \"--target-timeline\", or copy that file away and give \"--unarchived-wal "
                + "discard\".")
    }

    private func cannotKeep(_ wal: UnarchivedWAL, _ detail: String, _ hint: String) -> KedgeError {
        KedgeError(
            .usage, "cannot keep the unarchived WAL of directory \"\(options.pgdata)\": \(wal.summary)",
            detail: detail, hint: hint)
    }

    private func refusal(_ wal: UnarchivedWAL) -> KedgeError {
        let names = unreadable.map { "\"\($0)\"" }.joined(separator: ", ")
        let away = names.isEmpty ? "" : "  What repository \(names) has is not known: it cannot be read."
        var detail = "\(wal.summary): the last commits may be there alone.\(away)"
        var hint =
            "Add \"--unarchived-wal keep\": the files stay in pg_wal, and recovery goes on in them where the archive "
            + "ends.  Only if what is in them may be lost: \"--unarchived-wal discard\"."
        if !wal.conflicts.isEmpty {
            detail +=
                "  A repository has other WAL, or what cannot be compared, under the name of "
                + "\(UnarchivedWAL.list(wal.conflicts)): two servers may have written the same timeline."
        }
        if let first = wal.holes.first {
            detail += "  The archive has a hole that is closed by \(UnarchivedWAL.list(wal.holes))."
            hint =
                "Archive what closes the hole: \"kedge archive-push "
                + "\(options.pgdata.appending("pg_wal").appending(first.name.text))\""
                + (wal.holes.count > 1 ? ", and so each of the others.  " : ".  ") + hint
        }
        return KedgeError(
            .unarchivedWAL, "cannot restore into directory \"\(options.pgdata)\": it holds WAL that no repository has",
            detail: detail, hint: hint)
    }
}

extension RestorePlan {
    /// The same plan, where recovery goes on behind the end of the archive: a position there would stop it too early.
    func goingOn() -> RestorePlan {
        RestorePlan(
            backup: backup, reason: reason, timeline: timeline, followed: followed, chain: chain, target: .none,
            stop: stop, lastRecord: lastRecord, tablespaces: tablespaces, proofs: proofs, warnings: warnings)
    }
}

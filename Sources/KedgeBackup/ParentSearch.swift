// Finds the parent of a delta, before the server starts the backup, and looks for it again afterwards.

import KedgeCatalog
import KedgeCore
import KedgePostgres

/// Chooses and reads parents.
struct ParentSearch {
    let request: BackupRequest
    let catalog: BackupCatalog
    let dataDirectory: RawPath
    let tools: Backup.Tools

    /// Decides what the backup builds on, and reads it; nil for a full backup. What cannot be read is no parent.
    func run(
        _ server: ServerCheck, at position: ServerPosition
    ) throws(KedgeError) -> (choice: ParentChoice, parent: ParentBackup?) {
        guard request != .full else {
            return (ParentChoice(parent: nil, reason: "it was asked for", isFallback: false), nil)
        }
        // Its files are others than the primary's, and its backup starts at a restartpoint of long ago.
        guard !server.isStandby else { return (.fallback("the server is a standby"), nil) }
        tools.progress.begin("reading the parent backup")
        let backups = try catalog.list().backups
        let choice = ParentChoice.decide(
            request, backups: backups, condemned: try catalog.condemnedLabels(),
            server: ParentChoice.Server(
                systemIdentifier: server.settings.systemIdentifier, postgresVersion: server.control.version.major,
                dataChecksums: server.control.hasDataChecksums, blockSize: server.control.blockSize,
                walSegmentSize: UInt64(server.control.walSegmentSize),
                relationSegmentBlocks: server.control.relationSegmentBlocks,
                history: try TimelineHistory(ofServerIn: dataDirectory, timeline: position.timeline),
                lsn: position.lsn, time: position.time))
        guard let record = backups.first(where: { $0.label == choice.parent }) else { return (choice, nil) }
        if let objection = try objection(to: record, among: backups) {
            return (.fallback("backup \(record.label) cannot be its parent: \(objection)"), nil)
        }
        do throws(KedgeError) {
            return (choice, try ParentBackup(record, for: position, in: catalog, unless: tools.interruption))
        } catch {
            // What is wrong with the parent is no matter to a full backup; what could not be looked at may be well.
            guard
                error.code.exitStatus == 3 || error.code == .notFound || error.code == .keyMissing
                    || error.code == .keyWrong || error.code == .formatUnknown
            else { throw error }
            let why = error.detail.map { "\(error.message) (\($0))" } ?? error.message
            return (.fallback("backup \(record.label) cannot be its parent: \(why)"), nil)
        }
    }

    /// What proofs have against this parent; nil for nothing.
    private func objection(to parent: CommitRecord, among backups: [CommitRecord]) throws(KedgeError) -> String? {
        let proofs = ProofCatalog(catalog.cluster)
        for backup in ParentEvidence.related(to: parent, among: backups) {
            let standing = try proofs.standing(of: backup, try proofs.names(backup.label)).standing
            if let objection = ParentEvidence.objection(standing.failures) { return objection }
        }
        return nil
    }

    /// Looks whether `parent` still serves now that the intent, which protects it, is there: of a backup and an expire
    /// at least one sees the other. And the server must still be where it was when the parent was chosen.
    ///
    /// Throws `not-found` where it does not.
    func check(
        _ parent: CommitRecord, of label: Label, startedAt start: OnlineBackup.Start
    ) throws(KedgeError) {
        let reason: String
        if let why = try BackupCommit(catalog, label: label, parent: parent.label).whyParentIsLost() {
            reason = why
        } else if parent.span.stopLSN > start.lsn {
            reason = "It ends at \(parent.span.stopLSN), and the new backup starts at \(start.lsn)."
        } else if try !parent.lies(on: TimelineHistory(ofServerIn: dataDirectory, timeline: start.timeline)) {
            reason = "The server went to another timeline meanwhile."
        } else {
            return
        }
        throw KedgeError(
            .notFound, "cannot take backup \"\(label)\": its parent \"\(parent.label)\" cannot be used any more",
            detail: reason, hint: "Run the backup again: it will choose another parent.")
    }
}

extension TimelineHistory {
    /// The ancestry as the server of this data directory knows it. A timeline without a history file has no ancestors.
    init(ofServerIn dataDirectory: RawPath, timeline: TimelineID) throws(KedgeError) {
        let path = dataDirectory.appending("pg_wal").appending(WALFileName.history(timeline).text)
        do throws(KedgeError) {
            let bytes = try FileDescriptor.open(path, .read).readAll(limit: TimelineHistory.maximumFileSize)
            self = try TimelineHistory(parsing: bytes, timeline: timeline)
        } catch  where error.code == .notFound {
            self = TimelineHistory(root: timeline)
        }
    }
}

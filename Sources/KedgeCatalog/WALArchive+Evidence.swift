// What shows that a segment existed which is not archived. Names decide where they can: this is asked at the end of
// every recovery, and again and again by a standby.
//
//   a later segment of its timeline                    names (WALArchive.firstSegment)
//   a timeline that branched off behind it             names, and the histories of newer timelines alone
//   a backup history file of its timeline, `.backup`,  names: the server archives it at the end of a base backup, and
//   that names it or a later segment                   the name begins with the segment that the backup began in
//   a committed backup that stopped in it or behind    the two newest commit records: all WAL up to the stop was listed
//                                                      before the record was written
//
// Expire removes WAL only before what a kept backup needs, so what was removed on purpose lies before one of these as
// well: it is a hole for whoever asks for it, and a recovery that stops within its backup does not ask.
//
// A timeline shows itself by anything of it: WAL, `.backup` files, a backup, a timeline that descends from it. A server
// that is told "no such history" takes the timeline's number for its own.

package import KedgeCore
import KedgePostgres
import KedgeRepository

/// What shows that all of a segment existed.
package enum WALEvidence: Hashable, Sendable {
    /// A timeline that branched off behind it.
    case branch(TimelineID)
    /// A backup history file.
    case backupHistory(String)
    /// A backup whose stop lies in it or behind it.
    case backup(Label)

    /// A clause.
    package var clause: String {
        switch self {
        case .branch(let timeline): "timeline \(timeline) branched off behind it, says \"\(timeline.hex).history\""
        case .backupHistory(let file): "a base backup began there or behind it, says \"\(file)\""
        case .backup(let label): "backup \"\(label)\" ended there or behind it"
        }
    }

    /// Whether the file with this name shows that `segment` existed.
    package static func isBackup(_ file: WALFileName, atOrBehind segment: WALSegment, segmentSize: UInt64) -> Bool {
        guard case .backup(let name) = file,
            let start = WALSegment(fileName: name.prefix(24), segmentSize: segmentSize)
        else { return false }
        return start.timeline == segment.timeline && start.number >= segment.number
    }
}

extension CommitRecord.BackupSpan {
    /// Whether the WAL of this backup reached into `segment` or beyond it, on the same timeline.
    package func reaches(_ segment: WALSegment, segmentSize: UInt64) -> Bool {
        timeline == segment.timeline && stopLSN > segment.startLSN(segmentSize: segmentSize)
    }
}

extension WALArchive {
    /// What shows that `segment`, behind which no other of its timeline is archived, existed; nil where nothing does.
    /// `countsBackups`: false where the asking server's history left the timeline before the segment, so that backups
    /// on the timeline are of another branch. Throws what reading throws.
    package func evidence(of segment: WALSegment, countsBackups: Bool) throws(KedgeError) -> WALEvidence? {
        let segmentSize = registration.walSegmentSize
        var backup: WALEvidence?
        var branch: WALEvidence?
        let directory = ClusterLayout.historyDirectory(registration.systemIdentifier)
        try cluster.forEachObject(below: directory) { (name, _) throws(KedgeError) in
            guard let file = ClusterLayout.parseWALFile(name.lastComponent)?.file else { return }
            if countsBackups, backup == nil,
                WALEvidence.isBackup(file, atOrBehind: segment, segmentSize: segmentSize)
            {
                backup = .backupHistory(file.text)
            }
            guard branch == nil, case .history(let timeline) = file, timeline > segment.timeline else { return }
            let history = try history(ArchivedFile(file: file, name: name, tag: nil), timeline)
            if history.passes(behind: segment, segmentSize: segmentSize) { branch = .branch(timeline) }
        }
        if let found = branch ?? backup { return found }
        guard countsBackups else { return nil }
        return try newBackup { $0.reaches(segment, segmentSize: segmentSize) }.map(WALEvidence.backup)
    }

    /// What shows that `timeline`, whose history is not archived, has been written all the same, as a clause; nil where
    /// nothing does. Throws what reading throws.
    package func evidence(of timeline: TimelineID) throws(KedgeError) -> String? {
        var found: String?
        let directory = ClusterLayout.walDirectory(registration.systemIdentifier, timeline: timeline)
        try cluster.repository.store.visitObjects(
            below: cluster.name(directory), pageSize: 1
        ) { (entry) throws(KedgeError) in
            found = "WAL of its timeline is archived, such as \"\(entry.name.lastComponent)\""
            return false
        }
        if let found { return found }
        let histories = ClusterLayout.historyDirectory(registration.systemIdentifier)
        try cluster.forEachObject(below: histories) { (name, _) throws(KedgeError) in
            guard found == nil, let file = ClusterLayout.parseWALFile(name.lastComponent)?.file else { return }
            switch file {
            case .backup where file.timeline == timeline:
                found = "a base backup was taken on its timeline, says \"\(file.text)\""
            case .history(let later) where later > timeline:
                let history = try history(ArchivedFile(file: file, name: name, tag: nil), later)
                if history.contains(timeline) { found = "timeline \(later) descends from it, says \"\(file.text)\"" }
            default: break
            }
        }
        if let found { return found }
        return try newBackup { span in
            span.timeline == timeline || span.history.contains { $0.timeline == timeline }
        }.map { "backup \"\($0)\" was taken on its timeline or on one that descends from it" }
    }

    /// One of the two newest backups, if its WAL is what is looked for. A commit record that can't be read is no
    /// evidence, and no reason to call anything missing either.
    private func newBackup(where isWanted: (CommitRecord.BackupSpan) -> Bool) throws(KedgeError) -> Label? {
        var labels: [Label] = []
        try cluster.forEachObject(below: ClusterLayout.commitRecords) { (name, _) throws(KedgeError) in
            if let label = Label(String(name.lastComponent)) { labels.append(label) }
        }
        let catalog = BackupCatalog(cluster)
        for label in labels.sorted(by: { $0.text > $1.text }).prefix(2) {
            do throws(KedgeError) {
                let record = try catalog.commitRecord(label)
                guard record.server.systemIdentifier == registration.systemIdentifier, isWanted(record.span)
                else { continue }
                return label
            } catch  where error.code == .notFound || error.code.isAboutTheObject {
                continue
            }
        }
        return nil
    }
}

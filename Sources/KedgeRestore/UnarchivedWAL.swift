// Which files of a data directory's pg_wal would be missed if they were removed: those with WAL that no repository has.
//
// Pure. After a crash the last commits may be in such a file and nowhere else. A file counts unless it is known that
// nothing is lost with it; whether it waits for the archive (archive_status/*.ready) only ever adds to that: a server
// has called such a file finished WAL, even if it cannot be read now.

package import KedgeCore

/// A WAL file that was found in a pg_wal, and what is known about it.
package struct LocalWALFile: Hashable, Sendable {
    package enum Content: Hashable, Sendable {
        /// Its first page is not that of the segment that it is named after.
        case nothing
        /// Nothing but what a server notes for itself.
        case bookkeeping
        /// Anything else, and histories.
        case data
    }

    package var name: WALFileName
    package var content: Content
    /// The position after the last record that can be read in it.
    package var end: LSN?
    /// Whether it waits for the archive.
    package var isReady: Bool
    /// Whether a repository that can be read has this very WAL.
    package var isArchived: Bool
    /// Whether it lies before the start of a backup whose history it is part of.
    package var isInBackup: Bool

    package init(
        name: WALFileName, content: Content, end: LSN? = nil, isReady: Bool = false, isArchived: Bool = false,
        isInBackup: Bool = false
    ) {
        self.name = name
        self.content = content
        self.end = end
        self.isReady = isReady
        self.isArchived = isArchived
        self.isInBackup = isInBackup
    }
}

/// What is to become of WAL that only the data directory has.
package enum UnarchivedWALChoice: String, Sendable, CaseIterable {
    /// It stays in pg_wal, where recovery finds what the archive does not have.
    case keep
    case discard
}

/// The WAL of a data directory that no repository has.
package struct UnarchivedWAL: Hashable, Sendable {
    /// Ordered by timeline and place in the log.
    package let files: [LocalWALFile]

    /// Takes those out of `found` that would be missed.
    ///
    /// Files without anybody's data are none unless others are: then replay needs them on the way.
    package init(_ found: [LocalWALFile]) {
        let unknown = found.filter { file in
            !file.isArchived && !file.isInBackup && (file.content != .nothing || file.isReady)
        }
        let isMissed = unknown.contains { $0.content != .bookkeeping }
        files = isMissed ? unknown.sorted { $0.name.text < $1.name.text } : []
    }

    /// The position after the last record that can be read in the last of the files.
    package var end: LSN? { files.last { $0.end != nil }?.end }

    /// `3 WAL files, 00000001000000000000000A to 00000001000000000000000C, up to LSN 0/C123456`
    package var summary: String {
        guard let first = files.first, let last = files.last else { return "no WAL" }
        let names = files.count == 1 ? first.name.text : "\(first.name.text) to \(last.name.text)"
        return (files.count == 1 ? "WAL file " : "\(files.count) WAL files, ") + names
            + (end.map { ", up to LSN \($0)" } ?? "")
    }

    /// The names below `pg_wal` of what stays there when these files are kept.
    package var keptNames: [String] {
        files.flatMap { file in
            let name = file.name.text
            return file.isReady ? [name, "archive_status/\(name).ready"] : [name]
        }
    }

    /// Whether one of the files is the very segment that recovery looks for when the archive has no more.
    package func goesOn(at missing: [WALSegment], segmentSize: UInt64) -> Bool {
        files.contains { file in
            guard case .segment(let name) = file.name else { return false }
            return missing.contains { $0.fileName(segmentSize: segmentSize) == name }
        }
    }
}

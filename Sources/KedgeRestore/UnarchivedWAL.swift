// Which files of a data directory's pg_wal would be missed if they were removed: those with WAL that no repository has.
//
// Pure. After a crash the last commits may be in such a file and nowhere else. A file counts unless it is known that
// nothing is lost with it:
//  1. A repository has the very content.
//  2. It is a recycled file: its first page is of another place, and it does not wait for the archive
//     (archive_status/*.ready). What waits a server has called finished WAL, even if it cannot be read now.
//  3. No repository has anything under its name, it does not wait, and WALCoverage proves that it is in a backup.
//  4. There is nobody's data in any of them, and none closes a hole in what is archived.

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

    /// What the repositories that can be read have under its name.
    package enum Copy: Hashable, Sendable {
        case none
        /// This very WAL.
        case same
        /// Other WAL, or what cannot be compared with it.
        case other
    }

    package var name: WALFileName
    /// The segment that it is, whole or not; nil for a history.
    package var segment: WALSegment?
    package var content: Content
    /// The position after the last record that can be read in it.
    package var end: LSN?
    /// Whether it waits for the archive.
    package var isReady: Bool
    package var copy: Copy

    package init(
        name: WALFileName, segment: WALSegment? = nil, content: Content, end: LSN? = nil, isReady: Bool = false,
        copy: Copy = .none
    ) {
        self.name = name
        self.segment = segment
        self.content = content
        self.end = end
        self.isReady = isReady
        self.copy = copy
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
    /// The whole segments among them that are missing in the middle of what is archived.
    package let holes: [LocalWALFile]
    /// Those under whose name a repository has something else.
    package var conflicts: [LocalWALFile] { files.filter { $0.copy == .other } }

    /// Takes those out of `found` that would be missed.
    ///
    /// Files without anybody's data are none unless others are, or they close a hole: then replay needs them on the
    /// way.
    package init(_ found: [LocalWALFile], _ coverage: WALCoverage) {
        let archived = found.filter { $0.copy == .same }.compactMap(\.segment)
        let unknown = found.filter { file in
            guard file.copy != .same, file.content != .nothing || file.isReady else { return false }
            guard let segment = file.segment, file.copy == .none, !file.isReady else { return true }
            return !coverage.isInBackup(segment, archived: archived)
        }
        func isHole(_ file: LocalWALFile) -> Bool {
            file.content != .nothing && file.segment.map(coverage.isHole) ?? false
        }
        let isMissed = unknown.contains { $0.content != .bookkeeping || isHole($0) }
        files = isMissed ? unknown.sorted { $0.name.text < $1.name.text } : []
        holes = files.filter { file in
            guard case .segment = file.name else { return false }
            return isHole(file)
        }
    }

    /// The position after the last record that can be read in the last of the files.
    package var end: LSN? { files.last { $0.end != nil }?.end }

    /// `3 WAL files, 00000001000000000000000A to 00000001000000000000000C, up to LSN 0/C123456`
    package var summary: String { Self.list(files) + (end.map { ", up to LSN \($0)" } ?? "") }

    /// `WAL file 00000001000000000000000A`, or how many, the first and the last.
    package static func list(_ files: [LocalWALFile]) -> String {
        guard let first = files.first, let last = files.last else { return "no WAL" }
        return files.count == 1
            ? "WAL file \(first.name.text)" : "\(files.count) WAL files, \(first.name.text) to \(last.name.text)"
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

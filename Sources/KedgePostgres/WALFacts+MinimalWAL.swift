// Where WAL is of no use to a backup from before it: wal_level = minimal.
//
// Such WAL leaves out what is in files that were made in the same transaction (src/backend/access/transam/README,
// "Skipping WAL for New RelFileLocator"), and no replay brings it back. From 14 on the server refuses to recover beyond
// the record that tells of the change; 13 warns of missing data and goes on (xlog.c, CheckRequiredParameterValues).
// While archiving is off, which minimal asks for, the files pile up in pg_wal, and are archived once it is on again
// (xlogarchive.c, XLogArchiveCheckDone): there need not be a gap.
package import KedgeCore

extension WALFacts {
    /// What is told of such a place: a full sentence without the full stop.
    package static let minimalWALReason =
        "The server went on with wal_level = minimal there: that WAL leaves out changes, and no recovery goes beyond it"

    /// Where the first record begins that tells of wal_level = minimal; nil where none does. `bytes` are the whole file
    /// of `segment`.
    ///
    /// The facts of a segment say whether there is one. Throws as `init(of:segment:isPartial:format:)`.
    package static func minimalWAL(
        in bytes: UnsafeRawBufferPointer, segment: WALSegment, format: WALFormat
    ) throws(KedgeError) -> WALWalk.Defect? {
        var finder = Finder(version: format.version)
        _ = try WALReader.walk(bytes, segment: segment, format: format, visitor: &finder)
        return finder.found.map { WALWalk.Defect(lsn: $0, reason: minimalWALReason) }
    }

    private struct Finder: WALRecordVisitor {
        let version: PostgresVersion
        var found: LSN?

        mutating func visit(_ record: WALRecord) -> String? {
            guard found == nil, WALEventCollector.mayHoldEvent(record.header) else { return nil }
            var collector = WALEventCollector(version: version)
            if let reason = collector.visit(record) { return reason }
            if collector.finish().hasMinimalWAL { found = record.lsn }
            return nil
        }
    }
}

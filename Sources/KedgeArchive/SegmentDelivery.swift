// What goes to the server of a segment, and how, wherever its bytes come from.
//
// While the first segment of a new timeline is not archived yet, the server asks for the old timeline's file of the
// same number, and would replay all of it, also what lies behind the switch point and belongs to another branch
// (xlogrecovery.c, XLogFileReadAnyTLI does not look at where a timeline was left). So where it is known which history
// the server follows, it gets no byte from behind a switch point: that part of the segment is zero, as in the first
// segment of a timeline that the server itself makes (xlog.c, XLogFileCopy), and a segment that lies there as a whole
// is refused.
//
// The file is written beside its destination and renamed: PostgreSQL never sees a part of it.

import KedgeCore
import KedgePostgres

/// Hands WAL files to the server.
struct SegmentDelivery {
    let destination: RawPath
    /// The history that the asking server follows; nil where that is not known.
    let followed: TimelineHistory?
    let random: any RandomSource

    /// How many bytes of the segment belong to the history that the server follows; nil where it is all of them, or
    /// nobody knows. Throws `wal-foreign` where it is none.
    func keptLength(of file: WALFileName, segmentSize: UInt64) throws(KedgeError) -> Int? {
        guard case .segment(let name) = file, let segment = WALSegment(fileName: name, segmentSize: segmentSize),
            let history = followed, let limit = history.limit(of: segment.timeline)
        else { return nil }
        let start = segment.startLSN(segmentSize: segmentSize)
        guard limit < segment.next.startLSN(segmentSize: segmentSize) else { return nil }
        guard limit > start else {
            throw KedgeError(
                .walForeign,
                "cannot give out WAL file \"\(name)\": it belongs to a branch that the server does not follow",
                detail:
                    "The server follows timeline \(history.timeline), which left timeline \(segment.timeline) at LSN "
                    + "\(limit), before this segment begins.",
                hint: "Nothing has to be done if the next segment of timeline \(history.timeline) is still to be "
                    + "archived.  To recover along timeline \(segment.timeline), set recovery_target_timeline = "
                    + "'\(segment.timeline)' in postgresql.auto.conf.")
        }
        return Int(limit - start)
    }

    /// Writes the file, with nothing but zeros behind its first `kept` bytes.
    func write(_ bytes: [UInt8], kept: Int?) throws(KedgeError) {
        var bytes = bytes
        if let kept { for index in min(kept, bytes.count)..<bytes.count { bytes[index] = 0 } }
        let directory = try FileDescriptor.open(destination.parent, [.read, .directory])
        let file = try DurableFile(in: directory, mode: 0o600, random: random)
        try file.file.write(bytes, at: 0)
        // A crash of the machine makes the server ask again, so nothing is synced here.
        try file.publishWithoutSync(as: destination.lastComponent)
    }

    /// PostgreSQL takes a bad page for the end of the WAL: what goes to it has the right size and the right first page.
    static func check(_ bytes: [UInt8], _ file: WALFileName, _ format: WALFormat) throws(KedgeError) {
        guard case .segment = file else { return }
        _ = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFileCheck.check(name: file, firstPage: bytes, sizeBytes: UInt64(bytes.count), format: format)
        }
    }
}

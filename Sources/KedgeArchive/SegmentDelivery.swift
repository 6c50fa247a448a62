// What goes to the server of a segment, and how, wherever its bytes come from.
//
// While the first segment of a new timeline is not archived yet, the server asks for the old timeline's file of the
// same number, and would replay all of it, also what lies behind the switch point and belongs to another branch
// (xlogrecovery.c, XLogFileReadAnyTLI does not look at where a timeline was left). So where it is known which history
// the server follows, it gets no byte from behind a switch point: that part of the segment is zero, as in the first
// segment of a timeline that the server itself makes (xlog.c, XLogFileCopy). A segment that lies there as a whole has
// nothing for it.
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

    /// What the history that the server follows has of a segment of one of its timelines.
    enum Share: Hashable {
        /// All of it, or nobody knows better.
        case whole
        /// This many first bytes.
        case start(Int)
        /// Nothing: it left that timeline before the segment begins, for this one, whose segment it should be.
        case nothing(instead: WALSegment)
    }

    func share(of file: WALFileName, segmentSize: UInt64) -> Share {
        guard case .segment(let name) = file, let segment = WALSegment(fileName: name, segmentSize: segmentSize),
            let history = followed, let limit = history.limit(of: segment.timeline)
        else { return .whole }
        let start = segment.startLSN(segmentSize: segmentSize)
        guard limit < segment.next.startLSN(segmentSize: segmentSize) else { return .whole }
        guard limit > start else {
            return .nothing(
                instead: WALSegment(timeline: history.timeline(containing: start), number: segment.number))
        }
        return .start(Int(limit - start))
    }

    /// Writes the file, with nothing but zeros behind its first `kept` bytes; nil: with all that it has.
    func write(_ bytes: [UInt8], kept: Int? = nil) throws(KedgeError) {
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

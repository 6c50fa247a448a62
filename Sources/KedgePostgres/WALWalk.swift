// What a walk over the records of one WAL segment found out (WALReader.swift).
package import KedgeCore

/// What a walk found out about a segment as a whole.
package struct WALWalk: Hashable, Sendable {
    /// Something that does not fit: the walk ended here.
    package struct Defect: Hashable, Sendable {
        package let lsn: LSN
        /// A full sentence without the full stop.
        package let reason: String

        package init(lsn: LSN, reason: String) {
            self.lsn = lsn
            self.reason = reason
        }
    }

    /// The rest of a record that began in an earlier segment.
    package struct Continued: Hashable, Sendable {
        /// How many bytes of the record were left at the start of the segment.
        package let remaining: UInt32
        /// All of them where they are few (`WALReader.keptBytes`) and in the segment; otherwise enough of them to
        /// complete a record's header.
        package let bytes: [UInt8]

        package init(remaining: UInt32, bytes: [UInt8]) {
            self.remaining = remaining
            self.bytes = bytes
        }
    }

    /// A record that runs on into the next segment. Its CRC could not be checked.
    package struct Unfinished: Hashable, Sendable {
        package let lsn: LSN
        /// Bytes of the whole record.
        package let length: UInt32
        /// How many of them are left for the next segment.
        package let remaining: UInt32
        /// The bytes that are in this segment, where the record may hold an event (or ends within its header, so that
        /// one can't tell) and they are few; otherwise only the header.
        package let bytes: [UInt8]

        package init(lsn: LSN, length: UInt32, remaining: UInt32, bytes: [UInt8]) {
            self.lsn = lsn
            self.length = length
            self.remaining = remaining
            self.bytes = bytes
        }
    }

    /// The timelines of the first and the last page that was looked at; 0 if the first header is damaged.
    package var firstPageTimeline = TimelineID(0)
    package var lastPageTimeline = TimelineID(0)
    /// Complete records that began in the segment.
    package var records = 0
    /// Where the first and the last of them begin.
    package var firstRecord: LSN?
    package var lastRecord: LSN?
    /// The position after the last record that ended in the segment, as the server counts: rounded up to a multiple of
    /// eight, and the segment's end after a SWITCH.
    package var end: LSN?
    package var continued: Continued?
    /// Whether the first page gives up the record that the segment before ended in.
    package var overwritesPrevious = false
    package var unfinished: Unfinished?
    /// How many bytes of a record the next segment must begin with: 0 where this one ends between two records, or where
    /// the walk ended before its end.
    package var remaining: UInt32 = 0
    package var endsWithSwitch = false
    package var defect: Defect?

    package init() {}
}

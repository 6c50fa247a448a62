// Names of the files in pg_wal and in the archive (src/include/access/xlog_internal.h).
//
// All numbers in them are hexadecimal: timeline 0x1A is "0000001A", never "00000026".

/// A timeline ID: 1 for a new database cluster, one more after each promotion or recovery to a target.
package struct TimelineID: Hashable, Comparable, Sendable {
    package let number: UInt32

    @inlinable
    package init(_ number: UInt32) { self.number = number }

    /// Parses exactly eight hexadecimal digits, upper case as PostgreSQL writes them. Nil for anything else and for 0.
    @inlinable
    package init?(hex text: some StringProtocol) {
        guard let number = hexWord(text), number > 0 else { return nil }
        self.init(number)
    }

    /// Eight upper-case hexadecimal digits, as in file names.
    package var hex: String { hexWordText(number) }

    package static func < (left: TimelineID, right: TimelineID) -> Bool { left.number < right.number }
}

extension TimelineID: CustomStringConvertible {
    /// Decimal, as `pg_controldata` and `recovery_target_timeline` print it.
    package var description: String { String(number) }
}

/// One WAL segment: a timeline and a segment number. Its place in the log depends on the cluster's segment size.
package struct WALSegment: Hashable, Comparable, Sendable {
    package let timeline: TimelineID
    /// The segment's number on its timeline: its start LSN divided by the segment size.
    package let number: UInt64

    @inlinable
    package init(timeline: TimelineID, number: UInt64) {
        self.timeline = timeline
        self.number = number
    }

    /// The segment that holds `lsn`.
    package init(timeline: TimelineID, containing lsn: LSN, segmentSize: UInt64) {
        self.init(timeline: timeline, number: lsn.position / segmentSize)
    }

    /// Parses the 24 digits of a segment's file name. Nil for anything else, where the low part is out of range for
    /// `segmentSize` (bytes, a power of two from 1 MiB to 1 GiB), and for a segment that lies beyond `LSN.bound`.
    @inlinable
    package init?(fileName: some StringProtocol, segmentSize: UInt64) {
        guard fileName.utf8.count == 24 else { return nil }
        let middle = fileName.index(fileName.startIndex, offsetBy: 8)
        let low = fileName.index(fileName.startIndex, offsetBy: 16)
        let perLog = 0x1_0000_0000 / segmentSize
        guard let timeline = TimelineID(hex: fileName[..<middle]), let logID = hexWord(fileName[middle..<low]),
            let segmentInLog = hexWord(fileName[low...]), UInt64(segmentInLog) < perLog, logID < 1 << 31
        else { return nil }
        self.init(timeline: timeline, number: UInt64(logID) * perLog + UInt64(segmentInLog))
    }

    /// The 24-digit file name.
    package func fileName(segmentSize: UInt64) -> String {
        let perLog = 0x1_0000_0000 / segmentSize
        return timeline.hex + hexWordText(UInt32(truncatingIfNeeded: number / perLog))
            + hexWordText(UInt32(truncatingIfNeeded: number % perLog))
    }

    /// The LSN of the segment's first byte.
    package func startLSN(segmentSize: UInt64) -> LSN { LSN(number * segmentSize) }

    /// The segment after this one on the same timeline.
    package var next: WALSegment { WALSegment(timeline: timeline, number: number + 1) }

    /// Ordered by timeline, then by number.
    package static func < (left: WALSegment, right: WALSegment) -> Bool {
        (left.timeline, left.number) < (right.timeline, right.number)
    }
}

/// The name of any file that PostgreSQL archives: a segment, a partial segment, a timeline history or a backup history
/// file.
package enum WALFileName: Hashable, Sendable {
    /// `000000010000000A00000042`
    case segment(String)
    /// `000000010000000A00000042.partial`: the last, unfinished segment of a timeline that a promotion left behind.
    case partial(String)
    /// `00000002.history`
    case history(TimelineID)
    /// `000000010000000A00000042.00000028.backup`
    case backup(String)

    /// Parses a file name without directory. Nil for a name that PostgreSQL never archives.
    package init?(_ name: String) {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        switch parts.count {
        case 1 where isSegmentName(parts[0]): self = .segment(name)
        case 2 where parts[1] == "partial" && isSegmentName(parts[0]): self = .partial(name)
        case 2 where parts[1] == "history":
            guard let timeline = TimelineID(hex: parts[0]) else { return nil }
            self = .history(timeline)
        case 3 where parts[2] == "backup" && isSegmentName(parts[0]) && hexWord(parts[1]) != nil: self = .backup(name)
        default: return nil
        }
    }

    /// The file name, as PostgreSQL writes it.
    package var text: String {
        switch self {
        case .segment(let name), .partial(let name), .backup(let name): name
        case .history(let timeline): timeline.hex + ".history"
        }
    }

    /// The timeline that the name begins with.
    package var timeline: TimelineID {
        switch self {
        case .history(let timeline): timeline
        case .segment(let name), .partial(let name), .backup(let name):
            // The initialiser accepted the first eight digits as a timeline.
            TimelineID(hex: name.prefix(8)) ?? TimelineID(0)
        }
    }
}

private func isSegmentName(_ text: Substring) -> Bool {
    text.utf8.count == 24 && TimelineID(hex: text.prefix(8)) != nil
        && text.utf8.allSatisfy { $0.isHexDigit && !(0x61...0x66).contains($0) }
}

/// Eight upper-case hexadecimal digits as a number.
@inlinable
package func hexWord(_ text: some StringProtocol) -> UInt32? {
    guard text.utf8.count == 8 else { return nil }
    var number: UInt32 = 0
    for digit in text.utf8 {
        switch digit {
        case 0x30...0x39: number = number << 4 | UInt32(digit - 0x30)
        case 0x41...0x46: number = number << 4 | UInt32(digit - 0x37)
        default: return nil
        }
    }
    return number
}

private func hexWordText(_ number: UInt32) -> String {
    let digits = String(number, radix: 16, uppercase: true)
    return String(repeating: "0", count: 8 - digits.utf8.count) + digits
}

// Two contents for one WAL file: who wrote which, where they part, and what that means. Pure: facts and bytes in,
// sentences out.

package import KedgeCore
import KedgePostgres

/// Two WAL files of one name with different content.
package struct WALConflict: Hashable, Sendable {
    /// One of them.
    package struct Copy: Hashable, Sendable {
        /// The content tag.
        package var tag: ContentHash
        /// The host that pushed it, and when by its clock.
        package var hostName: String
        package var archivedAt: Timestamp
        /// When it was stored, by the store's clock; nil for what is not stored.
        package var storedAt: Timestamp?
        /// The last commit or abort in it.
        package var lastEnd: Timestamp?
        /// Where its records end; nil where nothing is known of them.
        package var recordsEnd: LSN?

        package init(_ facts: WALFileFacts, storedAt: Timestamp?) {
            tag = facts.tag
            hostName = facts.hostName
            archivedAt = facts.archivedAt
            self.storedAt = storedAt
            lastEnd = facts.segment?.events.latestTime
            recordsEnd = facts.segment.map { $0.recordsEnd(fileLength: facts.length) }
        }
    }

    /// What the difference means.
    package enum Meaning: Hashable, Sendable {
        /// Both hold the same records; only what follows the last of them differs.
        case sameRecords
        /// One holds whole records from there on, the other none: it was filled only in part, or damaged.
        case continued(bySecond: Bool)
        /// Each has records that the other lacks.
        case parted
        /// Of one of them too little is known.
        case unknown
    }

    package let file: WALFileName
    package let first: Copy
    package let second: Copy
    /// The first byte at which they differ, from 0; the length of the shorter where that is all.
    package let offset: Int
    /// The same as a position in the log; nil for files that are no segments.
    package let lsn: LSN?

    /// Compares the contents of two files. Nil where they are equal.
    package init?(
        _ file: WALFileName, _ first: Copy, _ firstBytes: [UInt8], _ second: Copy, _ secondBytes: [UInt8],
        segmentStart: LSN?
    ) {
        let common = min(firstBytes.count, secondBytes.count)
        let position = (0..<common).first { firstBytes[$0] != secondBytes[$0] }
        guard position != nil || firstBytes.count != secondBytes.count else { return nil }
        self.file = file
        self.first = first
        self.second = second
        offset = position ?? common
        lsn = segmentStart.map { $0 + UInt64(position ?? common) }
    }

    package var meaning: Meaning {
        guard let lsn, let first = first.recordsEnd, let second = second.recordsEnd else { return .unknown }
        switch (first > lsn, second > lsn) {
        case (false, false): return .sameRecords
        case (false, true): return .continued(bySecond: true)
        case (true, false): return .continued(bySecond: false)
        case (true, true): return .parted
        }
    }

    // MARK: - Words

    /// `The two first differ at LSN 0/500040 of timeline 1.`
    package var place: String {
        let place = lsn.map { "LSN \($0) of timeline \(file.timeline)" } ?? "byte \(offset)"
        return "The two first differ at \(place)."
    }

    /// What is known of one of them, in a sentence. `name` says which, such as `The stored one`.
    package static func sentence(_ name: String, _ copy: Copy) -> String {
        var text = "\(name) was archived by host \"\(copy.hostName)\" at \(copy.archivedAt)"
        if let storedAt = copy.storedAt { text += " (\(storedAt) by the store's clock)" }
        if let end = copy.recordsEnd { text += ", its records end at \(end)" }
        if let time = copy.lastEnd { text += ", its last transaction at \(time)" }
        return text + "."
    }

    /// What the difference means, for two of which `firstName` and `secondName` say which is which.
    package func explanation(_ firstName: String, _ secondName: String) -> String? {
        switch meaning {
        case .sameRecords: "Both hold the same records: only what follows the last of them differs."
        case .continued(true): "From there on \(secondName) holds whole records, \(firstName) none."
        case .continued(false): "From there on \(firstName) holds whole records, \(secondName) none."
        case .parted: "Each holds records that the other lacks: two servers wrote this timeline."
        case .unknown: nil
        }
    }

    /// What to do. Never says to remove anything: which is right only people know.
    package var hint: String {
        switch meaning {
        case .sameRecords, .continued:
            "A standby with archive_mode = always whose primary was left, or damage of a disk, makes such a file.  Let "
                + "one server alone archive this timeline; \"kedge cat --data\" and pg_waldump show what each holds."
        case .parted, .unknown:
            "Two servers write the same timeline, or one that was put back to an earlier state: stop the one that "
                + "should not (a promoted copy must have another timeline, a restored one archive_mode = off).  Where "
                + "the one whose WAL is refused is to go on, name it as a cluster of its own in the configuration, run "
                + "\"kedge init\" and take a full backup: what is archived here stays as it is."
        }
    }
}

extension WALFacts {
    /// Up to where the file holds whole records: its end where one runs on into the next, just behind the last one's
    /// start where that is a SWITCH, since only zero bytes follow.
    fileprivate func recordsEnd(fileLength: UInt64) -> LSN {
        if walk.unfinished != nil { return startLSN + fileLength }
        if walk.endsWithSwitch, let last = walk.lastRecord { return last + 1 }
        return endLSN
    }
}

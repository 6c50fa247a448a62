// Where verifications found that recovery ends though WAL goes on, so that `info` need not read all facts to say how
// far a backup restores. Pure.
//
//  1. A verification names the segment in its check of the WAL, and the place where its coverage ends.
//  2. The newest full verification that passed counts for each backup, also where something failed since: how far it
//     restores at most stays known.
//  3. It counts no more once a later proof, of whatever backup, led across that place.

package import KedgeCore

extension ProofRecord {
    /// The name of the check that says how far the WAL leads; its subject is the file name of the segment that ends
    /// recovery, nil where that is the end of what was archived.
    package static let walCheck = "wal"

    /// The segment that ends recovery though WAL goes on, and where; nil where none does.
    fileprivate func end(segmentSize: UInt64) -> (segment: WALSegment, lsn: LSN)? {
        guard level == .verified, let covers,
            let name = checks.first(where: { $0.name == Self.walCheck && $0.subject != nil })?.subject,
            let segment = WALSegment(fileName: name, segmentSize: segmentSize)
        else { return nil }
        return (segment, covers.toLSN)
    }
}

/// Finds the ends.
package enum ProvenEnds {
    /// Where recovery ends, by the segment that ends it. `standings` are of backups of one database system.
    package static func find(_ standings: [ProofStanding], segmentSize: UInt64) -> [WALSegment: LSN] {
        let evidence = standings.flatMap { [$0.drilled, $0.verified].compactMap(\.self) }
        var ends: [WALSegment: LSN] = [:]
        for proof in standings.compactMap(\.lastVerified) {
            guard let end = proof.end(segmentSize: segmentSize), let timeline = proof.covers?.timeline else { continue }
            let isOutdated = evidence.contains { later in
                guard let covers = later.covers, later.finished > proof.finished else { return false }
                return covers.timeline == timeline && covers.fromLSN <= end.lsn && covers.toLSN > end.lsn
            }
            if !isOutdated { ends[end.segment] = min(ends[end.segment] ?? end.lsn, end.lsn) }
        }
        return ends
    }
}

// Where an archived file ends what can be recovered, though all of its records are whole.

package import KedgeCore
package import KedgePostgres
import KedgeRepository

extension WALArchive {
    /// Where the file that has these facts goes on with `wal_level = minimal`; nil where it does not. Only then the
    /// file is read whole.
    package func minimalWAL(in archived: ArchivedFile, _ facts: WALFacts) throws(KedgeError) -> WALWalk.Defect? {
        guard facts.events.hasMinimalWAL else { return nil }
        let segment = WALSegment(
            timeline: facts.timeline, containing: facts.startLSN, segmentSize: registration.walSegmentSize)
        let (format, bytes) = (try segmentFormat(), try read(archived, threads: 1).bytes)
        return try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts.minimalWAL(in: bytes, segment: segment, format: format)
        }
    }
}

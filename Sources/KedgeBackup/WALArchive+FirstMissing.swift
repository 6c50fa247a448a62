// Which of a run of WAL segments a repository lacks.

import KedgeCatalog
import KedgeCore
import KedgeRepository

extension WALArchive {
    /// The first segment that the repository lacks; nil where it has all. Listed in pages, not asked for one by one
    /// (lesson 41).
    func firstMissing(from first: WALSegment, through last: WALSegment) throws(KedgeError) -> WALSegment? {
        let size = registration.walSegmentSize
        let system = registration.systemIdentifier
        let directory = cluster.name(ClusterLayout.walDirectory(system, timeline: first.timeline))
        var expected = first
        // Listings begin after a name: that of the segment before. Its own copies with a tag come first, and are
        // skipped.
        var after: ObjectName?
        if first.number > 0 {
            let previous = WALSegment(timeline: first.timeline, number: first.number - 1)
            after = cluster.name(
                ClusterLayout.walFile(.segment(previous.fileName(segmentSize: size)), of: system, tag: nil))
        }
        while true {
            let page = try cluster.repository.store.list(
                below: directory, after: after, limit: 1000)
            for entry in page.entries {
                guard case .segment(let name)? = ClusterLayout.parseWALFile(entry.name.lastComponent)?.file,
                    let found = WALSegment(fileName: name, segmentSize: size), found >= expected
                else { continue }
                guard found == expected else { return expected }
                if expected == last { return nil }
                expected = expected.next
            }
            guard let next = page.next else { return expected }
            after = next
        }
    }
}

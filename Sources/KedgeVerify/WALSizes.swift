// The sizes of archived WAL segments, as stored: what tells cheaply that an object is still the one that was read.
//
// Objects are never changed, so one of another size is no longer what was read. A proof does not keep the size of each
// segment, since there may be 100,000, but one checksum of the sizes of up to 64 neighbours; one that was expired or
// damaged costs no more than reading its neighbours once more.

package import KedgeCatalog
import KedgeCodec
package import KedgeCore

/// Sizes of the WAL segments of one database system. Memory: 8 bytes a segment, by the block.
package struct WALSizes: Sendable {
    /// Segments share a checksum with those of their block alone, which begins at a multiple of this.
    package static let blockLength: UInt64 = 64

    /// By the first segment of the block; 0 for one that is not there. An empty object counts as none.
    private var blocks: [WALSegment: [UInt64]] = [:]

    package init() {}

    /// The first segment of the block that holds `segment`.
    package static func block(of segment: WALSegment) -> WALSegment {
        WALSegment(timeline: segment.timeline, number: segment.number - segment.number % blockLength)
    }

    /// Adds an object. Of two objects of one segment the sizes are added up: that is the size of neither.
    package mutating func add(_ segment: WALSegment, bytes: UInt64) {
        let block = Self.block(of: segment)
        let empty = [UInt64](repeating: 0, count: Int(Self.blockLength))
        blocks[block, default: empty][Int(segment.number - block.number)] &+= bytes
    }

    /// The checksum of the sizes of these neighbours: XXH3-128 of 8 bytes each, little-endian, in order. Nil where one
    /// is not there, and where they are not of one block.
    package func checksum(_ timeline: TimelineID, _ numbers: ClosedRange<UInt64>) -> ContentHash? {
        let block = Self.block(of: WALSegment(timeline: timeline, number: numbers.lowerBound))
        guard let sizes = blocks[block], numbers.upperBound - block.number < Self.blockLength else { return nil }
        let own = sizes[Int(numbers.lowerBound - block.number)...Int(numbers.upperBound - block.number)]
        guard !own.contains(0) else { return nil }
        return ContentHash(of: own.flatMap { size in (0..<8).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) } })
    }

    /// All of them as proofs record what was read: neighbours of one block together, in order.
    package var ranges: [ProofRecord.VerifiedObjects.WALRange] {
        var ranges: [ProofRecord.VerifiedObjects.WALRange] = []
        for (block, sizes) in blocks.sorted(by: { $0.key < $1.key }) {
            for run in sizes.split(separator: 0) {
                let numbers = block.number + UInt64(run.startIndex)...block.number + UInt64(run.endIndex - 1)
                ranges.append(
                    ProofRecord.VerifiedObjects.WALRange(
                        timeline: block.timeline, first: numbers.lowerBound, last: numbers.upperBound,
                        sizes: checksum(block.timeline, numbers)))
            }
        }
        return ranges
    }
}

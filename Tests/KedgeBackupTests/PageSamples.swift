// Pages that PostgreSQL would accept, for tests that need no server.
import KedgeCore
import KedgePostgres

/// One page of a made-up relation.
enum PageSamples {
    static let blockSize = 8192

    /// A page that is valid as number `block` of its fork. `filler` decides its content.
    static func page(block: UInt32, lsn: UInt64, filler: UInt64) -> [UInt8] {
        var page = pattern
        func put(_ number: some FixedWidthInteger, at offset: Int) {
            withUnsafeBytes(of: number.littleEndian) { page.replaceSubrange(offset..<offset + $0.count, with: $0) }
        }
        put(UInt32(lsn >> 32), at: 0)
        put(UInt32(truncatingIfNeeded: lsn), at: 4)
        put(UInt16(0), at: 8)
        put(UInt16(24), at: 12)
        put(UInt16(4000), at: 14)
        for place in [1000, 4096, 8000] { put(filler, at: place) }
        let checksum = page.withUnsafeBytes { PageChecksum.compute(page: $0, block: block) }
        put(checksum, at: 8)
        return page
    }

    private static let pattern = CopyHarness.bytes(blockSize)
    static let zeros = [UInt8](repeating: 0, count: blockSize)
}

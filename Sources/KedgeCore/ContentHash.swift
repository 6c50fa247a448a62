/// A 128-bit checksum of content (XXH3-128), in canonical, big-endian order. It tells pieces of content apart; it is
/// not a defence against somebody who chooses the content.
package struct ContentHash: Hashable, Sendable {
    package let high: UInt64
    package let low: UInt64

    @inlinable
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Parses exactly 32 lower-case hexadecimal digits.
    @inlinable
    package init?(hex text: some StringProtocol) {
        guard let id = RandomID(hex: text) else { return nil }
        self.init(high: id.high, low: id.low)
    }

    /// 32 lower-case hexadecimal digits, the most significant first.
    package var hex: String { RandomID(high: high, low: low).hex }

    /// Writes the 16 bytes in canonical order.
    package func append(to bytes: inout [UInt8]) {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { bytes.append(contentsOf: $0) }
    }

    /// The hash whose 16 canonical bytes these are. Nil unless there are exactly 16.
    package init?(bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 16 else { return nil }
        high = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
        low = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }
}

extension ContentHash: CustomStringConvertible {
    package var description: String { hex }
}

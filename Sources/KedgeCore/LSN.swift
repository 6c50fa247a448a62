// Positions in the write-ahead log, printed and parsed as PostgreSQL does (src/backend/utils/adt/pg_lsn.c).

/// A log sequence number: a byte position in the write-ahead log of one timeline.
package struct LSN: Hashable, Comparable, Sendable {
    /// The position in bytes since the start of the log.
    package let position: UInt64

    // What the walk over a segment's records does for each of them is compiled into it.
    @inlinable
    package init(_ position: UInt64) { self.position = position }

    @inlinable
    package static func == (left: LSN, right: LSN) -> Bool { left.position == right.position }

    /// PostgreSQL's InvalidXLogRecPtr.
    package static let invalid = LSN(0)

    /// What a text may name lies below: no server gets there, and so no sum of a position and a size overflows.
    package static let bound = LSN(1 << 63)

    /// Parses `X/Y`: two hexadecimal numbers of one to eight digits each. Returns nil for anything else, and for a
    /// position at or beyond `bound`.
    package init?(_ text: some StringProtocol) {
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, let high = LSN.half(halves[0]), let low = LSN.half(halves[1]) else { return nil }
        self.position = UInt64(high) << 32 | UInt64(low)
        guard self < LSN.bound else { return nil }
    }

    private static func half(_ text: some StringProtocol) -> UInt32? {
        guard (1...8).contains(text.utf8.count), text.utf8.allSatisfy(\.isHexDigit) else { return nil }
        return UInt32(text, radix: 16)
    }

    @inlinable
    package static func < (left: LSN, right: LSN) -> Bool { left.position < right.position }

    /// The position `bytes` further on.
    package static func + (left: LSN, bytes: UInt64) -> LSN { LSN(left.position + bytes) }

    /// The distance in bytes. `left` must not lie before `right`.
    package static func - (left: LSN, right: LSN) -> UInt64 { left.position - right.position }
}

extension LSN: CustomStringConvertible {
    /// `0/2000028`, without leading zeros, as `pg_lsn` prints it.
    package var description: String {
        String(position >> 32, radix: 16, uppercase: true) + "/"
            + String(position & 0xFFFF_FFFF, radix: 16, uppercase: true)
    }
}

extension UInt8 {
    /// Whether this byte is an ASCII hexadecimal digit of either case.
    package var isHexDigit: Bool {
        (0x30...0x39).contains(self) || (0x41...0x46).contains(self) || (0x61...0x66).contains(self)
    }
}

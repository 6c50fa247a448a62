// Identifiers that are random so that no two hosts need to agree on anything.

/// 128 random bits: the id of a repository, a cluster, a key or a pack.
package struct RandomID: Hashable, Comparable, Sendable {
    package let high: UInt64
    package let low: UInt64

    @inlinable
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// A new id from `random`.
    package init(from random: any RandomSource) {
        self.init(high: random.next(), low: random.next())
    }

    /// All bits zero: "no such id", as in the envelope of an object that no key seals.
    package static let zero = RandomID(high: 0, low: 0)

    /// Parses exactly 32 lower-case hexadecimal digits.
    ///
    /// Inlinable: the runtime needs a tenth of a millisecond to make what it is generic over, once in every process.
    @inlinable
    package init?(hex text: some StringProtocol) {
        guard text.utf8.count == 32 else { return nil }
        var (high, low) = (UInt64(0), UInt64(0))
        for digit in text.utf8 {
            let value: UInt8
            switch digit {
            case 0x30...0x39: value = digit - 0x30
            case 0x61...0x66: value = digit - 0x57
            default: return nil
            }
            high = high << 4 | low >> 60
            low = low << 4 | UInt64(value)
        }
        self.init(high: high, low: low)
    }

    /// 32 lower-case hexadecimal digits, the most significant first.
    package var hex: String { hexText(high) + hexText(low) }

    /// The 16 bytes in the order of `hex`.
    package var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            for index in 0..<8 {
                buffer[index] = UInt8(truncatingIfNeeded: high >> (56 - 8 * UInt64(index)))
                buffer[index + 8] = UInt8(truncatingIfNeeded: low >> (56 - 8 * UInt64(index)))
            }
            count = 16
        }
    }

    /// The id whose `bytes` these are. Nil unless there are exactly 16.
    package init?(bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 16 else { return nil }
        self.init(
            high: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    package static func < (left: RandomID, right: RandomID) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

extension RandomID: CustomStringConvertible {
    package var description: String { hex }
}

/// Where random bits come from; tests put a seeded one in its place.
package protocol RandomSource: Sendable {
    /// 64 bits that nobody can predict.
    func next() -> UInt64
}

extension RandomSource {
    /// `count` random bytes.
    package func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count { bytes.append(littleEndian: next()) }
        return Array(bytes.prefix(count))
    }
}

/// The kernel's generator (getrandom(2)).
package struct SystemRandomSource: RandomSource {
    package init() {}

    package func next() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }
}

private func hexText(_ number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
}

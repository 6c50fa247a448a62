// Reading and writing the binary encodings of the repository format. All numbers are little-endian.

/// A cursor over bytes that come from outside: every length is checked before it is believed.
///
/// Each read throws `damaged` when the bytes end too early; the message is the caller's business (`what` names the
/// thing being read).
package struct BinaryReader {
    private let bytes: UnsafeRawBufferPointer
    private let what: String
    /// The offset of the next byte to be read.
    package private(set) var offset = 0

    /// A reader of `bytes`, which must outlive it. `what` is named in errors, such as "manifest part".
    package init(_ bytes: UnsafeRawBufferPointer, what: String) {
        self.bytes = bytes
        self.what = what
    }

    /// How many bytes are left.
    package var remaining: Int { bytes.count - offset }

    package mutating func u8() throws(KedgeError) -> UInt8 {
        try fixed(UInt8.self)
    }

    package mutating func u16() throws(KedgeError) -> UInt16 {
        try fixed(UInt16.self)
    }

    package mutating func u32() throws(KedgeError) -> UInt32 {
        try fixed(UInt32.self)
    }

    package mutating func u64() throws(KedgeError) -> UInt64 {
        try fixed(UInt64.self)
    }

    /// An unsigned LEB128 number of at most ten bytes. An overlong or overflowing encoding is damage.
    package mutating func varint() throws(KedgeError) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), through: 63, by: 7) {
            let byte = try u8()
            if shift == 63 && byte > 1 { throw malformed("a number does not fit 64 bits") }
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 { throw malformed("a number has an overlong encoding") }
                return value
            }
        }
        throw malformed("a number does not fit 64 bits")
    }

    /// A varint that counts things of at least `itemBytes` bytes each, so it can't exceed what is left.
    package mutating func count(itemBytes: Int = 1) throws(KedgeError) -> Int {
        let value = try varint()
        guard value <= UInt64(remaining / max(itemBytes, 1)) else {
            throw malformed("a count of \(value) is more than the remaining \(remaining) bytes can hold")
        }
        return Int(value)
    }

    /// The next `count` bytes, borrowed from the buffer.
    package mutating func bytes(_ count: Int) throws(KedgeError) -> UnsafeRawBufferPointer {
        guard count >= 0, count <= remaining else {
            throw malformed("\(count) bytes are needed and \(remaining) are left")
        }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    /// A `damaged` error at the present offset.
    package func malformed(_ why: String) -> KedgeError {
        KedgeError(.damaged, "cannot read \(what)", detail: "At byte \(offset), \(why).")
    }

    private mutating func fixed<Number: FixedWidthInteger>(_: Number.Type) throws(KedgeError) -> Number {
        let size = MemoryLayout<Number>.size
        guard size <= remaining else { throw malformed("\(size) bytes are needed and \(remaining) are left") }
        defer { offset += size }
        return Number(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
}

extension Array<UInt8> {
    /// Appends `number` as little-endian bytes.
    @inlinable
    package mutating func append(littleEndian number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number.littleEndian) { append(contentsOf: $0) }
    }

    /// Appends `number` as unsigned LEB128.
    @inlinable
    package mutating func append(varint number: some UnsignedInteger) {
        var rest = UInt64(number)
        while rest >= 0x80 {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(truncatingIfNeeded: rest))
    }
}

extension Sequence<UInt8> {
    /// Two lower-case hexadecimal digits for each byte.
    package var hex: String {
        let digits: [UInt8] = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for byte in self {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}

extension Array<UInt8> {
    /// The bytes that `hex` spells, two digits a byte, of either case. Nil for anything else.
    package init?(hex: some StringProtocol) {
        let digits = Array(hex.utf8)
        guard digits.count.isMultiple(of: 2), digits.allSatisfy(\.isHexDigit) else { return nil }
        func value(_ digit: UInt8) -> UInt8 { digit <= 0x39 ? digit - 0x30 : (digit | 0x20) - 0x57 }
        self = stride(from: 0, to: digits.count, by: 2).map { value(digits[$0]) << 4 | value(digits[$0 + 1]) }
    }
}

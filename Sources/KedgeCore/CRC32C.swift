// Swift faces of CArithmetic: the checksums that PostgreSQL keeps in WAL, pg_control, backup_manifest and data pages.
import CArithmetic

/// CRC-32C (Castagnoli), as in WAL records, `pg_control` and `backup_manifest`.
package enum CRC32C {
    /// The CRC of `bytes`, or of what came before and `bytes` together where `previous` is the CRC of what came before.
    package static func checksum(_ bytes: UnsafeRawBufferPointer, continuing previous: UInt32 = 0) -> UInt32 {
        carithmetic_crc32c(previous, bytes.baseAddress, bytes.count)
    }

    /// The CRC of an array's bytes.
    package static func checksum(_ bytes: [UInt8], continuing previous: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { checksum($0, continuing: previous) }
    }

    /// The CRC of two runs of bytes one after the other, from the CRC of each and the length of the second.
    ///
    /// Several workers that write ranges of one file need it. A CRC is linear: appending zero bytes multiplies it by a
    /// power of x modulo the polynomial, and the second CRC is then added.
    package static func combine(_ first: UInt32, _ second: UInt32, secondLength: UInt64) -> UInt32 {
        // x^(8 · length) by repeated squaring, the coefficient of x^0 in the highest bit.
        var factor: UInt32 = 1 << 31
        var square: UInt32 = 1 << 23
        var rest = secondLength
        while rest > 0 {
            if rest & 1 == 1 { factor = multiply(factor, square) }
            square = multiply(square, square)
            rest >>= 1
        }
        return multiply(first, factor) ^ second
    }

    /// The product of two polynomials modulo the CRC's, all in reflected order.
    private static func multiply(_ a: UInt32, _ b: UInt32) -> UInt32 {
        var product: UInt32 = 0
        var shifted = b
        for bit in stride(from: UInt32(31), through: 0, by: -1) {
            if a & (1 << bit) != 0 { product ^= shifted }
            shifted = shifted >> 1 ^ (shifted & 1 == 1 ? 0x82F6_3B78 : 0)
            if bit == 0 { break }
        }
        return product
    }

    /// The CRC of one WAL record that lies in one piece at `record`: all but its last header field, header last
    /// (src/backend/access/transam/xlogreader.c, ValidXLogRecord). `totalLength` is at least 24.
    package static func walRecord(at record: UnsafeRawPointer, totalLength: Int) -> UInt32 {
        carithmetic_wal_record_crc32c(record, totalLength)
    }
}

/// The checksum that PostgreSQL keeps in the header of each data page.
package enum PageChecksum {
    /// What `pd_checksum` of `page` should be; 1 to 65535.
    ///
    /// `page` is one whole page: its size is a power of two from 1 KiB to 32 KiB. `block` counts from the start of the
    /// relation fork, not of its segment file.
    package static func compute(page: UnsafeRawBufferPointer, block: UInt32) -> UInt16 {
        precondition(page.count > 0 && page.count.isMultiple(of: 128))
        return carithmetic_page_checksum(page.baseAddress, page.count, block)
    }
}

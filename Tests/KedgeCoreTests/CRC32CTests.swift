// CRC32C and the page checksum: known answers, and every processor-specific variant against the plain one.
import CArithmetic
import KedgeCore
import Testing

@Suite struct CRC32CTests {
    @Test("the CRC of two runs together comes from the CRC of each")
    func combining() {
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 3) }
        for cut in [0, 1, 7, 8, 63, 64, 1000, 4999, 5000] {
            let first = CRC32C.checksum(Array(bytes[..<cut]))
            let second = CRC32C.checksum(Array(bytes[cut...]))
            let joined = CRC32C.combine(first, second, secondLength: UInt64(bytes.count - cut))
            #expect(joined == CRC32C.checksum(bytes), "cut at \(cut)")
        }
    }

    /// RFC 3720, appendix B.4.
    @Test(
        "the test vectors of RFC 3720 come out",
        arguments: [
            (Array("123456789".utf8), 0xE306_9283), ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
            ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43), ([UInt8](0..<32), 0x46DD_794E), ([], 0),
        ] as [([UInt8], UInt32)])
    func knownAnswers(_ bytes: [UInt8], _ expected: UInt32) {
        #expect(CRC32C.checksum(bytes) == expected)
        #expect(bytes.withUnsafeBytes { carithmetic_crc32c_portable(0, $0.baseAddress, $0.count) } == expected)
    }

    @Test("the fast and the portable variant agree for every length and alignment")
    func variantsAgree() {
        let bytes = pseudoRandomBytes(20_000)
        bytes.withUnsafeBytes { all in
            for length in Array(0..<1200) + [4095, 4096, 4097, 4608, 8168, 8192, 12_345, 19_980] {
                let piece = UnsafeRawBufferPointer(rebasing: all[(length % 17)..<(length % 17 + length)])
                let portable = carithmetic_crc32c_portable(0x1234_5678, piece.baseAddress, length)
                #expect(CRC32C.checksum(piece, continuing: 0x1234_5678) == portable, "\(length) bytes")
            }
        }
    }

    @Test("a CRC continues over any cut")
    func continues() {
        let bytes = pseudoRandomBytes(9000)
        let whole = CRC32C.checksum(bytes)
        for cut in [0, 1, 511, 512, 4096, 8999, 9000] {
            let first = CRC32C.checksum(Array(bytes[..<cut]))
            #expect(CRC32C.checksum(Array(bytes[cut...]), continuing: first) == whole)
        }
    }

    @Test("a WAL record's CRC covers its body and then 20 bytes of header")
    func walRecord() {
        let bytes = pseudoRandomBytes(9000)
        for length in [24, 25, 34, 600, 9000] {
            let expected = CRC32C.checksum(
                Array(bytes[..<20]), continuing: CRC32C.checksum(Array(bytes[24..<length])))
            let computed = bytes.withUnsafeBytes { buffer in
                buffer.baseAddress.map { CRC32C.walRecord(at: $0, totalLength: length) }
            }
            #expect(computed == expected)
        }
    }
}

@Suite struct PageChecksumTests {
    /// Computed step by step from the description in src/include/storage/checksum_impl.h, with 64-bit arithmetic.
    private func reference(_ page: [UInt8], block: UInt32, start: [UInt64]) -> UInt16 {
        var sums = start
        func mix(_ column: Int, _ word: UInt64) {
            let mixed = sums[column] ^ word
            sums[column] = (mixed * 16_777_619 & 0xFFFF_FFFF) ^ mixed >> 17
        }
        for (index, offset) in stride(from: 0, to: page.count, by: 4).enumerated() {
            var word: UInt64 = 0
            for byte in 0..<4 where offset + byte != 8 && offset + byte != 9 {
                word |= UInt64(page[offset + byte]) << UInt64(8 * byte)
            }
            mix(index % 32, word)
        }
        for column in 0..<64 { mix(column % 32, 0) }
        return UInt16((sums.reduce(0, ^) ^ UInt64(block)) % 65_535 + 1)
    }

    private let start: [UInt64] = [
        0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
        0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
        0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
        0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
    ]

    @Test("the page checksum follows its description for every page size", arguments: [1024, 4096, 8192, 32_768])
    func followsDescription(_ size: Int) {
        for block in [0, 1, 131_072, UInt32.max] {
            let page = pseudoRandomBytes(size)
            let expected = reference(page, block: block, start: start)
            page.withUnsafeBytes { bytes in
                #expect(PageChecksum.compute(page: bytes, block: block) == expected)
                #expect(carithmetic_page_checksum_portable(bytes.baseAddress, bytes.count, block) == expected)
            }
        }
    }
}

/// Bytes of a linear congruential generator: the same in every run.
private func pseudoRandomBytes(_ count: Int) -> [UInt8] {
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 33)
    }
}

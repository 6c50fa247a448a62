// The page header and the verdict on a page, on pages made by hand; real servers' pages are in ServerFileTests.
import KedgeCore
import KedgePostgres
import Testing

@Suite struct DataPageTests {
    /// A page with a checksum for `block`.
    private func page(block: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 8192)
        func put(_ value: UInt16, at offset: Int) {
            bytes[offset] = UInt8(truncatingIfNeeded: value)
            bytes[offset + 1] = UInt8(value >> 8)
        }
        bytes[0] = 0x0A
        bytes[4] = 0xFF
        put(28, at: 12)
        put(8000, at: 14)
        put(8176, at: 16)
        put(0x2004, at: 18)
        bytes[8100] = 7
        put(bytes.withUnsafeBytes { PageChecksum.compute(page: $0, block: block) }, at: 8)
        return bytes
    }

    private func verdict(_ bytes: [UInt8], block: UInt32) -> DataPage.Verdict {
        bytes.withUnsafeBytes { DataPage($0).verdict(block: block) }
    }

    @Test("the header's fields are read")
    func header() {
        page(block: 3).withUnsafeBytes { bytes in
            let page = DataPage(bytes)
            #expect(page.lsn == LSN("A/FF"))
            #expect((page.lower, page.upper, page.special, page.flags) == (28, 8000, 8176, 0))
            #expect(!page.isNew)
        }
    }

    @Test("a checksum fits only its own page number, counted from the start of the relation (lesson 34)")
    func blockNumber() {
        let bytes = page(block: 131_072 + 3)
        #expect(verdict(bytes, block: 131_072 + 3) == .valid)
        #expect(verdict(bytes, block: 3) != .valid)
    }

    @Test("a change of any single bit of the page is seen")
    func everyBit() {
        let original = page(block: 9)
        for bit in stride(from: 0, to: 8192 * 8, by: 37) {
            var bytes = original
            bytes[bit / 8] ^= 1 << (bit % 8)
            #expect(verdict(bytes, block: 9) != .valid, "bit \(bit)")
        }
    }

    @Test("a page of zeroes is valid; one that only looks new is not (lesson 34)")
    func newPages() {
        var bytes = [UInt8](repeating: 0, count: 8192)
        #expect(verdict(bytes, block: 0) == .valid)
        bytes[8191] = 1
        #expect(verdict(bytes, block: 0) == .newButNotEmpty)
    }
}

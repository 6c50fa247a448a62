// One page of a relation: its header, and whether its checksum fits (src/include/storage/bufpage.h).
//
// A view onto bytes that live elsewhere: nothing is copied, nothing may outlive the buffer. Page numbers count from the
// start of the relation fork: the first page of `16384.1` is number 131072 with 1 GiB segment files (lesson 34).
package import KedgeCore

/// A view onto one data page. `bytes` is the whole page and must outlive the view.
package struct DataPage {
    package let bytes: UnsafeRawBufferPointer

    /// The smallest and the largest page size that PostgreSQL can be built with.
    package static let sizes = 1024...32_768

    /// `bytes.count` is the cluster's block size, a power of two within `sizes`.
    package init(_ bytes: UnsafeRawBufferPointer) {
        precondition(DataPage.sizes.contains(bytes.count) && bytes.count & (bytes.count - 1) == 0)
        self.bytes = bytes
    }

    /// The LSN of the byte after the last WAL record that changed the page. PostgreSQL keeps it as two 32-bit halves.
    package var lsn: LSN { LSN(UInt64(word(0)) << 32 | UInt64(word(4))) }

    /// `pd_checksum`: meaningful only in a cluster with data checksums.
    package var storedChecksum: UInt16 { half(8) }

    /// `pd_flags`
    package var flags: UInt16 { half(10) }

    /// `pd_lower`: the offset of the start of free space.
    package var lower: UInt16 { half(12) }

    /// `pd_upper`: the offset of the end of free space; 0 in a page that was never initialised.
    package var upper: UInt16 { half(14) }

    /// `pd_special`: the offset of the special space.
    package var special: UInt16 { half(16) }

    /// Whether PostgreSQL takes the page for a new one (PageIsNew). Such a page has no checksum.
    package var isNew: Bool { upper == 0 }

    /// Whether this is the first page of an SP-GiST index. Every insertion notes there, without WAL and without a new
    /// LSN, which pages had room (src/backend/access/spgist/spgutils.c, SpGistUpdateMetaPage).
    package var isSPGiSTMetaPage: Bool {
        // SpGistPageOpaqueData: flags, two counts, and an identifier at the very end of the page.
        guard special == UInt16(truncatingIfNeeded: bytes.count - 8) else { return false }
        let (isMeta, identifier): (UInt16, UInt16) = (1 << 0, 0xFF82)
        return half(bytes.count - 2) == identifier && half(bytes.count - 8) & isMeta != 0
    }

    /// Whether every byte is zero: how a relation is extended before its pages are used.
    package var isAllZero: Bool {
        // Eight bytes a step; nearly every page differs in the first.
        for offset in stride(from: 0, to: bytes.count, by: 8)
        where bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
        return true
    }

    /// What the page's bytes say about themselves.
    package enum Verdict: Hashable, Sendable {
        /// The checksum fits, or the page is all zero.
        case valid
        /// `pd_upper` is 0, as in a new page, but other bytes are not zero: PostgreSQL refuses such a page.
        case newButNotEmpty
        /// The checksum is another one than the page's bytes and number give.
        case wrongChecksum(stored: UInt16, computed: UInt16)
    }

    /// Checks the page as PostgreSQL does when it reads one in a cluster with data checksums
    /// (src/backend/storage/page/bufpage.c, PageIsVerified).
    ///
    /// `block` counts from the start of the relation fork, not of its segment file. A page that is being written at
    /// this moment may fail: read it again before believing it (lesson 35).
    package func verdict(block: UInt32) -> Verdict {
        if isNew { return isAllZero ? .valid : .newButNotEmpty }
        let computed = PageChecksum.compute(page: bytes, block: block)
        return computed == storedChecksum ? .valid : .wrongChecksum(stored: storedChecksum, computed: computed)
    }

    private func half(_ offset: Int) -> UInt16 {
        UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    private func word(_ offset: Int) -> UInt32 {
        UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}

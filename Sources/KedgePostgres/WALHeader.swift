// The header of a WAL page (src/include/access/xlog_internal.h), and whether a WAL file belongs to a cluster.
//
// Every page begins with a header of 24 bytes; the first of a segment has 16 more, which say whose WAL it is. The check
// looks at the first page and the size alone, so that archive-push can refuse a foreign file before anything else; the
// records are WALReader's business.
package import KedgeCore

/// The header of a WAL page.
package struct WALPageHeader: Hashable, Sendable {
    /// Bits of `info`.
    package enum Flag {
        /// The page begins with the rest of a record that began on an earlier one.
        package static let firstIsContinuation: UInt16 = 0x1
        /// The header is a long one.
        package static let longHeader: UInt16 = 0x2
        /// Full-page images may be left out of this page's records when archiving.
        package static let backupBlocksRemovable: UInt16 = 0x4
        /// The page replaces the rest of a record that was never completed: a new record begins on it.
        package static let firstIsOverwriteContinuation: UInt16 = 0x8
        package static let all: UInt16 = 0xF
    }

    package static let shortSize = 24
    package static let longSize = 40

    package let magic: UInt16
    package let info: UInt16
    package let timeline: UInt32
    package let pageAddress: LSN
    /// The bytes that are left of a record that began on an earlier page.
    package let remainingLength: UInt32

    /// Reads the first 24 bytes of `page`.
    @inline(__always)
    package init(at page: UnsafeRawPointer) {
        magic = UInt16(littleEndian: page.loadUnaligned(as: UInt16.self))
        info = UInt16(littleEndian: page.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
        timeline = UInt32(littleEndian: page.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        pageAddress = LSN(UInt64(littleEndian: page.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        remainingLength = UInt32(littleEndian: page.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    }

    package var isLong: Bool { info & Flag.longHeader != 0 }
}

/// What the header of a segment's first page says besides: whose WAL it is.
package struct WALLongHeader: Hashable, Sendable {
    package let page: WALPageHeader
    package let systemIdentifier: SystemIdentifier
    package let segmentSize: UInt32
    package let walBlockSize: UInt32

    /// Reads the first 40 bytes of `bytes`. Nil where there are fewer, or the header is a short one.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= WALPageHeader.longSize, let base = bytes.baseAddress else { return nil }
        page = WALPageHeader(at: base)
        guard page.isLong else { return nil }
        systemIdentifier = SystemIdentifier(
            UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 24, as: UInt64.self)))
        segmentSize = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 32, as: UInt32.self))
        walBlockSize = UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 36, as: UInt32.self))
    }
}

/// What all WAL of one cluster has in common.
package struct WALFormat: Hashable, Sendable {
    package let systemIdentifier: SystemIdentifier
    package let version: PostgresVersion
    /// A power of two from 1 MiB to 1 GiB.
    package let segmentSize: UInt32
    /// A power of two from 1 KiB to 64 KiB.
    package let walBlockSize: UInt32

    /// The sizes must be in range: those of a `ControlFile` are, others are the caller's to check.
    package init(
        systemIdentifier: SystemIdentifier, version: PostgresVersion, segmentSize: UInt32, walBlockSize: UInt32
    ) {
        precondition((1 << 20...1 << 30).contains(segmentSize) && segmentSize & (segmentSize - 1) == 0)
        precondition((1 << 10...1 << 16).contains(walBlockSize) && walBlockSize & (walBlockSize - 1) == 0)
        self.systemIdentifier = systemIdentifier
        self.version = version
        self.segmentSize = segmentSize
        self.walBlockSize = walBlockSize
    }
}

extension ControlFile {
    /// The format of this cluster's WAL.
    package var walFormat: WALFormat {
        WALFormat(
            systemIdentifier: systemIdentifier, version: version, segmentSize: walSegmentSize,
            walBlockSize: walBlockSize)
    }
}

// MARK: - Does this file belong to this cluster

/// The check of a segment or partial segment against the cluster that it is said to come from.
package enum WALFileCheck {
    /// Checks size and first page of WAL file `name`.
    ///
    /// `firstPage` is the beginning of the file, at least 40 bytes of it where it has as many. Returns the segment that
    /// the name stands for. Throws `walForeign` for a file of another cluster, `walInvalid` for one that is damaged,
    /// cut or has another one's name, and `defect` for a name that is not a segment's.
    @discardableResult
    package static func check(
        name: WALFileName, firstPage: UnsafeRawBufferPointer, sizeBytes: UInt64, format: WALFormat
    ) throws(KedgeError) -> WALSegment {
        let check = Check(name: name.text, format: format)
        let segment = try check.segment(of: name)
        guard sizeBytes == UInt64(format.segmentSize) else {
            throw check.invalid(
                "It has \(sizeBytes) bytes, but a WAL segment of this cluster has \(format.segmentSize).",
                hint: "Look for a full disk or a copy that was cut short.  PostgreSQL itself never writes such a file.")
        }
        guard let header = WALLongHeader(firstPage) else {
            guard firstPage.count >= WALPageHeader.longSize, let base = firstPage.baseAddress else {
                throw KedgeError(.defect, "cannot check WAL file \"\(name.text)\" by fewer than 40 bytes")
            }
            try check.magic(WALPageHeader(at: base))
            throw check.invalid("Its first page lacks the long header that every segment begins with.")
        }
        try check.magic(header.page)
        try check.origin(header)
        try check.place(header.page, segment)
        return segment
    }

    private struct Check {
        let name: String
        let format: WALFormat

        func segment(of name: WALFileName) throws(KedgeError) -> WALSegment {
            let segmentName: Substring
            switch name {
            case .segment(let text), .partial(let text): segmentName = text.prefix(24)
            case .history, .backup:
                throw KedgeError(.defect, "cannot check the pages of \"\(name.text)\": it is not a WAL segment")
            }
            guard let segment = WALSegment(fileName: segmentName, segmentSize: UInt64(format.segmentSize)) else {
                throw invalid(
                    "With segments of \(format.segmentSize) bytes no WAL file has this name.",
                    hint: "Check that the file comes from this cluster.")
            }
            return segment
        }

        func magic(_ page: WALPageHeader) throws(KedgeError) {
            guard page.magic != format.version.walPageMagic else { return }
            if let other = PostgresVersion(walPageMagic: page.magic) {
                throw foreign(
                    "It was written by PostgreSQL \(other.major), but this cluster is PostgreSQL "
                        + "\(format.version.major).")
            }
            let allZero = page.magic == 0 && page.info == 0 && page.pageAddress == .invalid
            throw invalid(
                allZero
                    ? "It begins with zeroes where a WAL page header should be."
                    : "Its first two bytes are \(hex(page.magic)), but WAL of PostgreSQL \(format.version.major) "
                        + "begins with \(hex(format.version.walPageMagic)).")
        }

        func origin(_ header: WALLongHeader) throws(KedgeError) {
            guard header.systemIdentifier == format.systemIdentifier else {
                throw foreign(
                    "Its system identifier is \(header.systemIdentifier), but this cluster's is "
                        + "\(format.systemIdentifier).")
            }
            guard header.segmentSize == format.segmentSize else {
                throw foreign(
                    "It comes from a cluster with WAL segments of \(header.segmentSize) bytes, but this "
                        + "cluster's have \(format.segmentSize).")
            }
            guard header.walBlockSize == format.walBlockSize else {
                throw foreign(
                    "It comes from a server with WAL pages of \(header.walBlockSize) bytes, but this "
                        + "cluster's have \(format.walBlockSize).")
            }
        }

        func place(_ page: WALPageHeader, _ segment: WALSegment) throws(KedgeError) {
            guard page.info & ~WALPageHeader.Flag.all == 0 else {
                throw invalid("Its first page has the flags \(hex(page.info)), of which PostgreSQL knows only 0xF.")
            }
            let expected = segment.startLSN(segmentSize: UInt64(format.segmentSize))
            guard page.pageAddress == expected else {
                throw invalid(
                    "Its first page says that it begins at \(page.pageAddress), but the name stands for \(expected).",
                    hint: "This is a recycled or renamed file.  If it is in pg_wal, the server has not filled it yet.")
            }
            guard page.timeline >= 1, page.timeline <= segment.timeline.number else {
                throw invalid(
                    "Its first page is of timeline \(page.timeline), but the name stands for timeline "
                        + "\(segment.timeline).",
                    hint: "Only the first segment of a new timeline may hold pages of an older one.")
            }
        }

        func invalid(
            _ detail: String,
            hint: String = "Look for damage on the disk that the file lies on; do not remove the file."
        ) -> KedgeError {
            KedgeError(.walInvalid, "cannot accept WAL file \"\(name)\" as valid", detail: detail, hint: hint)
        }

        func foreign(_ detail: String) -> KedgeError {
            KedgeError(
                .walForeign, "cannot accept WAL file \"\(name)\": it belongs to another cluster", detail: detail,
                hint:
                    "Check pgdata in the configuration, and that only one cluster's archive_command uses this section.")
        }

        func hex(_ number: UInt16) -> String { "0x" + String(number, radix: 16, uppercase: true) }
    }
}

// Which pages of a relation changed since the parent backup, and what of one region may come from the parent. Pure.
//
// Rules (docs/design.md section 6, docs/reference/postgresql-wal.md section 3):
// 1. A region whose content is, by its checksum, what the parent recorded is the parent's. No LSN is asked.
// 2. In any other region a page comes from the parent only if the file is the same (inode and birth time), the page
//    lies wholly below the parent's length and below the limit block, and the source says that it is unchanged.
// 3. A region that differs though no page of it seems to have changed is stored whole, and the source is trusted no
//    more: what it says of other regions is wrong as well.
// 4. The checksum kept for a region is always that of the bytes that were read, so that a page which came from the
//    parent wrongly would be damage to every reader, and never be restored.

package import KedgeCatalog
package import KedgeCore
package import KedgePostgres

/// Tells which pages of main forks are as they were when the parent backup began.
package protocol ChangedPages: Sendable {
    /// The first block, counted from the start of the fork, that nothing may come from the parent from on: what was
    /// created anew begins at 0, what was truncated at its new end. Nil where nothing is known.
    func limitBlock(of path: ManifestPath) -> UInt32?

    /// Whether this page, as it was read now, has the content that it had when the parent began.
    ///
    /// `block` counts from the start of the fork. `isValid`: its checksum was found to fit just now. False wherever it
    /// is not certain that nothing changed.
    func isUnchanged(_ page: DataPage, block: UInt32, of path: ManifestPath, isValid: Bool) -> Bool
}

/// The page scan: a page whose LSN lies before the parent's start was not changed since.
///
/// Right only in a cluster with data checksums: then every change, hint bits included, is logged before it reaches the
/// disk and moves the LSN (MarkBufferDirtyHint, visibilitymap_set; XLogHintBitIsNeeded). Without them VACUUM marks
/// a page all-visible and leaves its LSN alone; with the visibility map of now, the page of then would be corruption.
///
/// One page changes without WAL: the first of an SP-GiST index, which is never taken for unchanged.
///
/// It knows no limit blocks and needs none: a page of a relation that was truncated and grew again is all zero, was
/// logged since, or has an LSN that no log ever had.
package struct PageScan: ChangedPages {
    package let parentStart: LSN
    /// No record lies before this: the log begins with segment 1. Lower LSNs are made up, and say nothing: 0 in a page
    /// that was initialised but not logged yet (hio.c), 1 in a GiST index (GistBuildLSN), 40 in what initdb wrote.
    package let logBegin: LSN

    package init(parentStart: LSN, walSegmentSize: UInt64) {
        self.parentStart = parentStart
        logBegin = LSN(walSegmentSize)
    }

    package func limitBlock(of path: ManifestPath) -> UInt32? { nil }

    package func isUnchanged(_ page: DataPage, block: UInt32, of path: ManifestPath, isValid: Bool) -> Bool {
        let lsn = page.lsn
        guard !page.isNew, lsn >= logBegin, lsn < parentStart, !page.isSPGiSTMetaPage else { return false }
        // The LSN of a damaged page may be damaged.
        return isValid || page.verdict(block: block) == .valid
    }
}

/// A file as the parent backup has it.
package struct ParentFile: Hashable, Sendable {
    package let content: FileContent
    /// Whether single pages may come from the parent, if the file turns out to be the same.
    package let trustsPages: Bool
    /// Whether the parent checked the pages of the file, found none damaged, and would have listed one.
    package let hasVerifiedPages: Bool

    package init(content: FileContent, trustsPages: Bool, hasVerifiedPages: Bool) {
        self.content = content
        self.trustsPages = trustsPages
        self.hasVerifiedPages = hasVerifiedPages
    }

    /// Whether the file that was opened is the one that the parent copied. Where the file system keeps no birth time
    /// an inode may have been used again, and nobody can tell.
    package func isSame(_ identity: FileIdentity?) -> Bool {
        guard let identity, identity.birthTime != 0 else { return false }
        return identity == content.identity
    }
}

/// What becomes of one region.
package enum RegionPlan: Hashable, Sendable {
    /// All of it is the parent's.
    case parent
    /// All of it is stored.
    case whole
    /// All of it is stored, and pages cannot be trusted to show their changes (rule 3).
    case audit
    /// Runs of pages, which tile it.
    case pieces([Piece])

    /// A run of bytes of a region.
    package struct Piece: Hashable, Sendable {
        package enum Source: Hashable, Sendable {
            case parent, stored, zeros
        }

        package let range: Range<Int>
        package let source: Source

        package init(range: Range<Int>, source: Source) {
            self.range = range
            self.source = source
        }
    }

    /// What is known of the region besides its bytes.
    package struct Circumstances: Sendable {
        package let path: ManifestPath
        /// Where the region begins in the file: a multiple of the region size.
        package let offset: UInt64
        package let checksum: ContentHash
        package let parent: FileContent
        /// Nil where single pages cannot be trusted.
        package let pages: (any ChangedPages)?
        /// Of the file, counted from the start of the fork.
        package let firstBlock: UInt32
        package let blockSize: Int
        /// Whether all of its pages were checked just now, and none failed.
        package let hasValidPages: Bool

        package init(
            path: ManifestPath, offset: UInt64, checksum: ContentHash, parent: FileContent,
            pages: (any ChangedPages)?, firstBlock: UInt32, blockSize: Int, hasValidPages: Bool = false
        ) {
            self.hasValidPages = hasValidPages
            self.path = path
            self.offset = offset
            self.checksum = checksum
            self.parent = parent
            self.pages = pages
            self.firstBlock = firstBlock
            self.blockSize = blockSize
        }
    }

    /// From this share on, in quarters, of a region's bytes that would be stored, all of them are: a frame of its own
    /// then costs less than the list of its pieces and what is scattered over packs.
    private static let wholeFromQuarters = 3

    /// Decides. `region` are the bytes that were read; not empty, and not all zero.
    package static func decide(_ region: UnsafeRawBufferPointer, _ facts: Circumstances) -> RegionPlan {
        guard let (known, parentBytes) = recorded(facts.parent, at: facts.offset) else { return .whole }
        if parentBytes == region.count && known == facts.checksum { return .parent }
        guard let pages = facts.pages, region.count >= facts.blockSize else { return .whole }
        let pieces = split(region, facts, pages, parentBlocks: parentBytes / facts.blockSize)
        guard pieces.contains(where: { $0.source != .parent }) || parentBytes != region.count else { return .audit }
        let stored = pieces.reduce(0) { $0 + ($1.source == .stored ? $1.range.count : 0) }
        return stored * 4 >= region.count * wholeFromQuarters ? .whole : .pieces(pieces)
    }

    /// Whether the region of `count` bytes at `offset` is the parent's, by its checksum.
    package static func isParents(
        _ parent: FileContent, at offset: UInt64, _ count: Int, _ checksum: ContentHash
    ) -> Bool {
        guard let (known, parentBytes) = recorded(parent, at: offset) else { return false }
        return parentBytes == count && known == checksum
    }

    /// What the parent recorded of the region at `offset`, and how many bytes it has there. Nil where it recorded none.
    private static func recorded(_ parent: FileContent, at offset: UInt64) -> (checksum: ContentHash, bytes: Int)? {
        let index = Int(offset / regionSize)
        guard offset % regionSize == 0, offset < parent.size, index < parent.regions.count,
            let known = parent.regions[index]
        else { return nil }
        return (known, Int(min(parent.size - offset, regionSize)))
    }

    private static func split(
        _ region: UnsafeRawBufferPointer, _ facts: Circumstances, _ pages: any ChangedPages, parentBlocks: Int
    ) -> [Piece] {
        let size = facts.blockSize
        let first = facts.firstBlock &+ UInt32(truncatingIfNeeded: facts.offset / UInt64(size))
        var usable = parentBlocks
        if let limit = pages.limitBlock(of: facts.path) { usable = min(usable, limit > first ? Int(limit - first) : 0) }
        var pieces: [Piece] = []
        for start in stride(from: 0, to: region.count, by: size) {
            let end = min(start + size, region.count)
            let bytes = UnsafeRawBufferPointer(rebasing: region[start..<end])
            var source = Piece.Source.stored
            // What is left of a page at the end of a file is no page.
            if bytes.count == size {
                let page = DataPage(bytes)
                let number = start / size
                if page.isAllZero {
                    source = .zeros
                } else if number < usable,
                    pages.isUnchanged(
                        page, block: first &+ UInt32(number), of: facts.path, isValid: facts.hasValidPages)
                {
                    source = .parent
                }
            }
            if let last = pieces.last, last.source == source {
                pieces[pieces.count - 1] = Piece(range: last.range.lowerBound..<end, source: source)
            } else {
                pieces.append(Piece(range: start..<end, source: source))
            }
        }
        return pieces
    }
}

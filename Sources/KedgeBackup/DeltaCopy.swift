// What the workers of a delta backup share: the parent's packs, the source of changed pages, and what came of it.

import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRepository
import Synchronization

/// A delta backup's copy. Shared by its workers.
package final class DeltaCopy: Sendable {
    /// Where the frames of the parent's packs lie.
    let directories: PackDirectories
    private let pages: any ChangedPages
    private let blockSize: Int
    private let parentStart: LSN
    private let isTrusted = Atomic(true)
    private let hasUsedPages = Atomic(false)
    private let audits = Atomic<UInt64>(0)

    /// `parentStart` is where the parent backup began.
    package init(directories: PackDirectories, pages: any ChangedPages, blockSize: UInt32, parentStart: LSN) {
        self.directories = directories
        self.pages = pages
        self.blockSize = Int(blockSize)
        self.parentStart = parentStart
    }

    /// Regions that differed though no page of them seemed to have changed.
    package var auditCount: UInt64 { audits.load(ordering: .relaxed) }

    /// Whether single pages came from the parent before a region showed that its pages' LSNs cannot be trusted. What
    /// was copied is of no use then. To be asked when all workers have ended.
    package var mustStartOver: Bool {
        !isTrusted.load(ordering: .acquiring) && hasUsedPages.exchange(false, ordering: .acquiringAndReleasing)
    }

    /// Where the parent began, if it holds this very region of `file`, `count` bytes long, and has checked its pages
    /// without a finding; else nil. Pages with newer LSNs may have failed: replay was to write them anew.
    func verified(_ file: CopyFile, at offset: UInt64, _ count: Int, _ checksum: ContentHash) -> LSN? {
        guard let parent = file.parent, parent.hasVerifiedPages,
            RegionPlan.isParents(parent.content, at: offset, count, checksum)
        else { return nil }
        return parentStart
    }

    /// What becomes of a region of `file`, which is opened and has this identity. `hasValidPages`: all of its pages
    /// were checked just now, and none failed.
    func plan(
        _ region: UnsafeRawBufferPointer, of file: CopyFile, at offset: UInt64, _ checksum: ContentHash,
        hasValidPages: Bool, identity: FileIdentity?
    ) -> RegionPlan {
        guard let parent = file.parent else { return .whole }
        var firstBlock: UInt32 = 0
        var pages: (any ChangedPages)?
        if case .relation(let first) = file.nature, parent.trustsPages, parent.isSame(identity),
            isTrusted.load(ordering: .acquiring)
        {
            (firstBlock, pages) = (first, self.pages)
        }
        let plan = RegionPlan.decide(
            region,
            RegionPlan.Circumstances(
                path: file.path, offset: offset, checksum: checksum, parent: parent.content, pages: pages,
                firstBlock: firstBlock, blockSize: blockSize, hasValidPages: hasValidPages))
        switch plan {
        case .audit:
            audits.wrappingAdd(1, ordering: .relaxed)
            isTrusted.store(false, ordering: .releasing)
        case .pieces: hasUsedPages.store(true, ordering: .releasing)
        case .parent, .whole: break
        }
        return plan
    }
}

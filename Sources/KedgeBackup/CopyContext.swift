// What the workers that copy files are given: each its items from the queue, and all of them one context.

package import KedgeCatalog
package import KedgeCore
import Synchronization

/// A file to copy.
package struct CopyFile: Hashable, Sendable {
    /// Of the entry in the listing.
    package let index: UInt64
    package let path: ManifestPath
    package let nature: FileNature
    /// The size when it was listed.
    package let sizeBytes: UInt64
    /// What the parent backup has under this path; nil in a full backup.
    package let parent: ParentFile?

    package init(
        index: UInt64, path: ManifestPath, nature: FileNature, sizeBytes: UInt64, parent: ParentFile? = nil
    ) {
        self.index = index
        self.path = path
        self.nature = nature
        self.sizeBytes = sizeBytes
        self.parent = parent
    }
}

/// What a worker takes from the queue.
package enum CopyItem: Hashable, Sendable {
    /// Files to be copied from start to end.
    case files([CopyFile])
    /// A part of a large relation file.
    case range(CopyFile, Range<UInt64>)
}

/// What all workers of one backup share.
package struct CopyContext: Sendable {
    package let dataDirectory: RawPath
    package let files: any FileSource
    package let packs: any PackStore
    package let limits: PackLimits
    package let results: CopyResults
    /// Nil in a full backup.
    package let delta: DeltaCopy?
    /// Nil where no interrupted backup left anything.
    package let takenOver: TakenOverPacks?
    /// Nil for a cluster without data checksums.
    package let pageCheck: PageCheck?
    /// Nil: as fast as it goes.
    package let readRate: ReadRate?
    package let progress: WorkProgress
    package let totals: PackTotals
    package let interruption: Interruption

    package init(
        dataDirectory: RawPath, files: any FileSource, packs: any PackStore, limits: PackLimits = .standard,
        results: CopyResults, delta: DeltaCopy? = nil, takenOver: TakenOverPacks? = nil, pageCheck: PageCheck?,
        readRate: ReadRate? = nil, progress: WorkProgress, totals: PackTotals, interruption: Interruption
    ) {
        self.dataDirectory = dataDirectory
        self.files = files
        self.packs = packs
        self.limits = limits
        self.results = results
        self.delta = delta
        self.takenOver = takenOver
        self.pageCheck = pageCheck
        self.readRate = readRate
        self.progress = progress
        self.totals = totals
        self.interruption = interruption
    }
}

/// What the packs that were stored hold. Any number of threads may add.
package final class PackTotals: Sendable {
    private let stored = Atomic<UInt64>(0)
    private let raw = Atomic<UInt64>(0)

    package init() {}

    /// Bytes as stored.
    package var storedBytes: UInt64 { stored.load(ordering: .relaxed) }
    /// Raw bytes of all frames.
    package var rawBytes: UInt64 { raw.load(ordering: .relaxed) }

    func add(_ writer: PackWriter) {
        stored.wrappingAdd(writer.storedBytes, ordering: .relaxed)
        raw.wrappingAdd(writer.rawBytes, ordering: .relaxed)
    }
}

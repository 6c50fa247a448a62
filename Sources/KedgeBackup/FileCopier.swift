// One worker's copying: reads files, checks pages, identifies regions, and fills frames.
//
//   region of 1 MiB ──▶ page check ──▶ XXH3 ──▶ all zero? ──▶ extent of zero bytes
//                                             └─▶ frame of its own, or, for a small file, a share of the common frame
//
// Invariants:
// 1. A result is recorded only when all its extents have places: those of small files wait for the common frame.
// 2. What a file holds beyond the range's end is never read; what it lacks is no error, but ends it there.

import Glibc
package import KedgeCatalog
import KedgeCodec
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

    package init(index: UInt64, path: ManifestPath, nature: FileNature, sizeBytes: UInt64) {
        self.index = index
        self.path = path
        self.nature = nature
        self.sizeBytes = sizeBytes
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
    /// Nil for a cluster without data checksums.
    package let pageCheck: PageCheck?
    /// Nil: as fast as it goes.
    package let readRate: ReadRate?
    package let progress: WorkProgress
    package let totals: PackTotals
    package let interruption: Interruption

    package init(
        dataDirectory: RawPath, files: any FileSource, packs: any PackStore, limits: PackLimits = .standard,
        results: CopyResults, pageCheck: PageCheck?, readRate: ReadRate? = nil,
        progress: WorkProgress, totals: PackTotals, interruption: Interruption
    ) {
        self.dataDirectory = dataDirectory
        self.files = files
        self.packs = packs
        self.limits = limits
        self.results = results
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

/// Copies files into packs of its own. Used by one thread at a time.
package final class FileCopier {
    private let context: CopyContext
    private let writer: PackWriter
    /// One region. Freed with the copier.
    private let region: UnsafeMutableRawBufferPointer
    private var shared = SharedFrame()

    package init(_ context: CopyContext) {
        self.context = context
        writer = PackWriter(context.packs, limits: context.limits)
        region = .allocate(byteCount: Int(CopyLimits.regionBytes), alignment: 4096)
    }

    deinit { region.deallocate() }

    /// Copies what `item` names. Results may wait until `finish`.
    package func copy(_ item: CopyItem) throws(KedgeError) {
        switch item {
        case .files(let files):
            for file in files { try copy(file, range: nil) }
        case .range(let file, let range):
            try copy(file, range: range)
        }
    }

    /// Adds bytes that come from no file of the listing, as content of `path`, and gives what the manifest says of
    /// them.
    package func store(_ bytes: [UInt8], path: ManifestPath) throws(KedgeError) -> [Extent] {
        var extents: [Extent] = []
        for start in stride(from: 0, to: bytes.count, by: Int(CopyLimits.regionBytes)) {
            let piece = bytes[start..<min(start + Int(CopyLimits.regionBytes), bytes.count)]
            let place = try Array(piece).withBytes { raw throws(KedgeError) in
                let source = PackSource(
                    path: path.bytes, offset: UInt64(start), length: UInt64(raw.count), checksum: ContentHash(of: raw))
                return try writer.append(raw, sources: [source])
            }
            extents.append(
                Extent(length: UInt64(piece.count), source: .pack(place.pack, frame: place.frame, offset: 0)))
        }
        return extents
    }

    /// Adds a manifest part and tells where it begins. It runs on into further frames where it is longer than one.
    package func storePart(_ part: [UInt8]) throws(KedgeError) -> PartPlace {
        let place = try part.withBytes { raw throws(KedgeError) in
            let size = Int(CopyLimits.regionBytes)
            var place: FramePlace?
            for start in stride(from: 0, to: raw.count, by: size) {
                let piece = UnsafeRawBufferPointer(rebasing: raw[start..<min(start + size, raw.count)])
                let next = try writer.append(piece, sources: [], mayClose: start == 0)
                place = place ?? next
            }
            return place
        }
        guard let place else { preconditionFailure("a part of a manifest is never empty") }
        return PartPlace(pack: place.pack, frame: place.frame, offset: 0)
    }

    /// Stores what is not stored yet. The copier is of no use afterwards.
    package func finish() throws(KedgeError) {
        try flushShared()
        try writer.finish()
        context.totals.add(writer)
    }

    // MARK: One file

    private func copy(_ file: CopyFile, range: Range<UInt64>?) throws(KedgeError) {
        let start = range?.lowerBound ?? 0
        let opened: any OpenSourceFile
        do throws(KedgeError) {
            opened = try context.files.open(location(of: file), reading: range ?? 0..<file.sizeBytes)
        } catch  where error.code == .notFound {
            try context.results.record([.vanished(index: file.index, start: start)])
            return
        }
        let status = try opened.status()
        guard status.kind == .regular else {
            try context.results.record([.vanished(index: file.index, start: start)])
            return
        }
        let end: UInt64
        switch file.nature {
        case .relation, .controlFile: end = range?.upperBound ?? file.sizeBytes
        case .whole: end = status.sizeBytes.addingReportingOverflow(CopyLimits.growthBytes).partialValue
        }
        var result = CopyResult(
            index: file.index, start: start, length: 0, isCut: false, exists: true, mode: status.mode,
            modificationTime: status.modifiedNanoseconds,
            identity: FileIdentity(inode: status.inode, birthTime: status.birthNanoseconds ?? 0), regions: [],
            extents: [])
        let isSmall = range == nil && status.sizeBytes <= CopyLimits.smallFileBytes
        try copyRegions(of: opened, file, from: start, to: end, isSmall: isSmall, into: &result)
    }

    private func copyRegions(
        of opened: any OpenSourceFile, _ file: CopyFile, from start: UInt64, to end: UInt64, isSmall: Bool,
        into result: inout CopyResult
    ) throws(KedgeError) {
        var offset = start
        while offset < end {
            try context.interruption.checkpoint()
            let wanted = Int(min(CopyLimits.regionBytes, end - offset))
            let buffer = UnsafeMutableRawBufferPointer(rebasing: region[..<wanted])
            let count = try opened.read(into: buffer, at: offset)
            // Paid afterwards, for what there was.
            try context.readRate?.take(count, unless: context.interruption)
            guard count > 0 else {
                result.isCut = true
                break
            }
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
            if case .relation(let firstBlock) = file.nature {
                try context.pageCheck?.check(bytes, of: opened, path: file.path, at: offset, firstBlock: firstBlock)
            }
            opened.release(regionAt: offset)
            context.progress.advance(count)
            let isLast = count < wanted
            if isSmall && offset == 0 && (isLast || UInt64(count) == end) {
                result.isCut = isLast
                return try share(UnsafeRawBufferPointer(bytes), of: file, &result)
            }
            try append(UnsafeRawBufferPointer(bytes), of: file, at: offset, &result)
            offset += UInt64(count)
            if isLast {
                result.isCut = true
                break
            }
        }
        try context.results.record([result])
    }

    private func append(
        _ bytes: UnsafeRawBufferPointer, of file: CopyFile, at offset: UInt64, _ result: inout CopyResult
    ) throws(KedgeError) {
        let checksum = ContentHash(of: bytes)
        result.regions.append(checksum)
        result.length += UInt64(bytes.count)
        if isAllZero(bytes) {
            result.extents.append(adding: Extent(length: UInt64(bytes.count), source: .zeros), continues: false)
            return
        }
        let source = PackSource(
            path: file.path.bytes, offset: offset, length: UInt64(bytes.count), checksum: checksum)
        let place = try writer.append(bytes, sources: [source])
        // Frames of one pack that follow each other are one run of its stream.
        let continues = place == lastPlace.map { FramePlace(pack: $0.pack, frame: $0.frame &+ 1) }
        lastPlace = place
        let extent = Extent(length: UInt64(bytes.count), source: .pack(place.pack, frame: place.frame, offset: 0))
        result.extents.append(adding: extent, continues: continues)
    }

    private var lastPlace: FramePlace?

    private func location(of file: CopyFile) -> RawPath {
        file.path.bytes.first == 0x2F
            ? RawPath(bytes: file.path.bytes) : context.dataDirectory.appending(RawPath(bytes: file.path.bytes))
    }

    // MARK: Small files

    /// Gives a small file its share of the common frame.
    private func share(
        _ bytes: UnsafeRawBufferPointer, of file: CopyFile, _ result: inout CopyResult
    ) throws(KedgeError) {
        let checksum = ContentHash(of: bytes)
        result.regions = [checksum]
        result.length = UInt64(bytes.count)
        if isAllZero(bytes) {
            result.extents = [Extent(length: UInt64(bytes.count), source: .zeros)]
            return try context.results.record([result])
        }
        if !shared.hasRoom(for: bytes.count) { try flushShared() }
        shared.add(
            bytes, result, PackSource(path: file.path.bytes, offset: 0, length: result.length, checksum: checksum))
    }

    private func flushShared() throws(KedgeError) {
        guard !shared.results.isEmpty else { return }
        let place = try writer.append(shared.bytes, sources: shared.sources)
        lastPlace = place
        var results = shared.results
        var offset: UInt32 = 0
        for index in results.indices {
            let length = results[index].length
            results[index].extents = [
                Extent(length: length, source: .pack(place.pack, frame: place.frame, offset: offset))
            ]
            offset += UInt32(length)
        }
        shared.removeAll()
        try context.results.record(results)
    }
}

/// The frame that small files share: their bytes, and what is known of each.
private struct SharedFrame: ~Copyable {
    private var buffer = FrameBuffer(capacity: Int(CopyLimits.regionBytes))
    private(set) var results: [CopyResult] = []
    private(set) var sources: [PackSource] = []
    /// Bounds what is kept for tiny files.
    private static let maximumFiles = 4096

    func hasRoom(for count: Int) -> Bool {
        buffer.count + count <= Int(CopyLimits.regionBytes) && results.count < SharedFrame.maximumFiles
    }

    /// Valid until the frame changes.
    var bytes: UnsafeRawBufferPointer { buffer.bytes }

    mutating func add(_ bytes: UnsafeRawBufferPointer, _ result: CopyResult, _ source: PackSource) {
        buffer.append(bytes)
        results.append(result)
        sources.append(source)
    }

    mutating func removeAll() {
        buffer.removeAll()
        results.removeAll(keepingCapacity: true)
        sources.removeAll(keepingCapacity: true)
    }
}

extension [Extent] {
    /// Adds the extent after the last; as a part of it where both are zero bytes, or where it `continues` the last
    /// one's run of a pack.
    fileprivate mutating func append(adding extent: Extent, continues: Bool) {
        switch (last?.source, extent.source) {
        case (.zeros, .zeros): self[count - 1].length += extent.length
        case (.pack, .pack) where continues: self[count - 1].length += extent.length
        default: append(extent)
        }
    }
}

private func isAllZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let start = bytes.baseAddress, bytes[0] == 0 else { return bytes.isEmpty }
    // Each byte equals the one after it.
    return memcmp(start, start + 1, bytes.count - 1) == 0
}

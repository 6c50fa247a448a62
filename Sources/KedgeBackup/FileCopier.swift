// One worker's copying: reads files, checks pages, identifies regions, and fills frames.
//
//   region of 1 MiB ──▶ XXH3, page check ──▶ all zero? ──▶ extent of zero bytes
//                                             ├─▶ the parent's? (RegionPlan) ──▶ extents of the parent
//                                             ├─▶ an interrupted backup's? (TakenOverPacks) ──▶ its frame
//                                             └─▶ frame of its own; a small file or single pages: shares of the
//                                                 common frame
//
// Invariants:
// 1. A result is recorded only when all its extents have places: shares of the common frame wait for it.
// 2. What a file holds beyond the range's end is never read; what it lacks is no error, but ends it there.

import Glibc
package import KedgeCatalog
import KedgeCodec
package import KedgeCore
import KedgeRepository

/// Copies files into packs of its own. Used by one thread at a time.
package final class FileCopier {
    private let context: CopyContext
    private let writer: PackWriter
    /// One region. Freed with the copier.
    private let region: UnsafeMutableRawBufferPointer
    private var shared = SharedFrame()
    /// Reads back what is taken over.
    private let reader: PackReader?

    package init(_ context: CopyContext) {
        self.context = context
        writer = PackWriter(context.packs, limits: context.limits)
        reader = context.takenOver.map { PackReader($0.directories) }
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
        let result = CopyResult(
            index: file.index, start: start, length: 0, isCut: false, exists: true, mode: status.mode,
            modificationTime: status.modifiedNanoseconds,
            identity: FileIdentity(inode: status.inode, birthTime: status.birthNanoseconds ?? 0), regions: [],
            extents: [])
        let isSmall = range == nil && status.sizeBytes <= CopyLimits.smallFileBytes
        try copyRegions(of: opened, file, from: start, to: end, isSmall: isSmall, into: result)
    }

    private func copyRegions(
        of opened: any OpenSourceFile, _ file: CopyFile, from start: UInt64, to end: UInt64, isSmall: Bool,
        into result: CopyResult
    ) throws(KedgeError) {
        var building = CopyInProgress(
            result: result,
            extents: ExtentBuilder(parent: file.parent?.content, directories: context.delta?.directories))
        var offset = start
        while offset < end {
            try context.interruption.checkpoint()
            let wanted = Int(min(CopyLimits.regionBytes, end - offset))
            let buffer = UnsafeMutableRawBufferPointer(rebasing: region[..<wanted])
            let count = try opened.read(into: buffer, at: offset)
            // Paid afterwards, for what there was.
            try context.readRate?.take(count, unless: context.interruption)
            guard count > 0 else {
                building.result.isCut = true
                break
            }
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
            let identified = try identify(bytes, of: opened, file, at: offset)
            opened.release(regionAt: offset)
            context.progress.advance(count)
            let isLast = count < wanted
            let isWholeSmallFile = isSmall && offset == 0 && (isLast || UInt64(count) == end)
            try add(
                UnsafeRawBufferPointer(bytes), identified, of: file, at: offset, shares: isWholeSmallFile, &building)
            offset += UInt64(count)
            if isLast {
                building.result.isCut = true
                break
            }
        }
        try building.extents.finish()
        // What waits for the common frame is recorded with it.
        if building.extents.isWaiting {
            shared.add(building)
        } else {
            try context.results.record([building.finished])
        }
    }

    /// What is known of a region that was read.
    private struct Identified {
        var checksum: ContentHash
        /// Every page of it was checked now, and is valid.
        var hasValidPages = false
    }

    /// Checks the pages of a region, and identifies what it holds then.
    ///
    /// What is the parent's, byte for byte, the parent has checked: of such a region only those pages are checked again
    /// about which the parent could not be sure (docs/decisions/0014).
    private func identify(
        _ bytes: UnsafeMutableRawBufferPointer, of opened: any OpenSourceFile, _ file: CopyFile, at offset: UInt64
    ) throws(KedgeError) -> Identified {
        var identified = Identified(checksum: ContentHash(of: UnsafeRawBufferPointer(bytes)))
        guard case .relation(let firstBlock) = file.nature, let check = context.pageCheck else { return identified }
        let verifiedBefore = context.delta?.verified(file, at: offset, bytes.count, identified.checksum)
        let result = try check.check(
            bytes, of: opened, path: file.path, at: offset, firstBlock: firstBlock, verifiedBefore: verifiedBefore)
        if result.isReplaced { identified.checksum = ContentHash(of: UnsafeRawBufferPointer(bytes)) }
        identified.hasValidPages = result.isValid
        return identified
    }

    /// Adds one region. `shares` tells that it is a small file, which has no frame of its own.
    private func add(
        _ bytes: UnsafeRawBufferPointer, _ identified: Identified, of file: CopyFile, at offset: UInt64, shares: Bool,
        _ building: inout CopyInProgress
    ) throws(KedgeError) {
        let checksum = identified.checksum
        building.result.regions.append(checksum)
        building.result.length += UInt64(bytes.count)
        if isAllZero(bytes) { return try building.extents.appendZeros(bytes.count) }
        let plan =
            context.delta?.plan(
                bytes, of: file, at: offset, checksum, hasValidPages: identified.hasValidPages,
                identity: building.result.identity) ?? .whole
        switch plan {
        case .parent: try building.extents.append(parent: offset..<offset + UInt64(bytes.count))
        case .whole, .audit:
            if try takeOver(bytes, checksum, &building) { return }
            if shares { return try share(bytes, of: file, at: offset, checksum, &building) }
            let source = PackSource(
                path: file.path.bytes, offset: offset, length: UInt64(bytes.count), checksum: checksum)
            let place = try writer.append(bytes, sources: [source])
            try building.extents.append(frame: place, length: bytes.count)
        case .pieces(let pieces):
            for piece in pieces { try add(piece, of: bytes, file, at: offset, &building) }
        }
    }

    private func add(
        _ piece: RegionPlan.Piece, of region: UnsafeRawBufferPointer, _ file: CopyFile, at offset: UInt64,
        _ building: inout CopyInProgress
    ) throws(KedgeError) {
        let start = offset + UInt64(piece.range.lowerBound)
        switch piece.source {
        case .zeros: try building.extents.appendZeros(piece.range.count)
        case .parent: try building.extents.append(parent: start..<start + UInt64(piece.range.count))
        case .stored:
            let bytes = UnsafeRawBufferPointer(rebasing: region[piece.range])
            let checksum = ContentHash(of: bytes)
            if try takeOver(bytes, checksum, &building) { return }
            try share(bytes, of: file, at: start, checksum, &building)
        }
    }

    /// Uses what an interrupted backup stored, if it stored just these bytes. Returns whether it did.
    private func takeOver(
        _ bytes: UnsafeRawBufferPointer, _ checksum: ContentHash, _ building: inout CopyInProgress
    ) throws(KedgeError) -> Bool {
        guard let packs = context.takenOver, let reader,
            let place = try packs.place(of: bytes, checksum, with: reader)
        else { return false }
        try building.extents.append(takenOver: place, length: bytes.count)
        return true
    }

    private func location(of file: CopyFile) -> RawPath {
        file.path.bytes.first == 0x2F
            ? RawPath(bytes: file.path.bytes) : context.dataDirectory.appending(RawPath(bytes: file.path.bytes))
    }

    // MARK: The common frame

    /// Gives bytes a share of the common frame.
    private func share(
        _ bytes: UnsafeRawBufferPointer, of file: CopyFile, at offset: UInt64, _ checksum: ContentHash,
        _ building: inout CopyInProgress
    ) throws(KedgeError) {
        if !shared.hasRoom(for: bytes.count) {
            // Earlier shares of this very file may lie in it.
            if let place = try flushShared() { building.extents.place(at: place) }
        }
        let source = PackSource(
            path: file.path.bytes, offset: offset, length: UInt64(bytes.count), checksum: checksum)
        try building.extents.append(sharedAt: shared.append(bytes, source), length: bytes.count)
    }

    /// Stores the common frame, and records the results that waited for it. Returns where it went; nil if it is empty.
    @discardableResult
    private func flushShared() throws(KedgeError) -> FramePlace? {
        guard !shared.isEmpty else { return nil }
        let place = try writer.append(shared.bytes, sources: shared.sources)
        let results = shared.finish(at: place)
        try context.results.record(results)
        return place
    }
}

private func isAllZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let start = bytes.baseAddress, bytes[0] == 0 else { return bytes.isEmpty }
    // Each byte equals the one after it.
    return memcmp(start, start + 1, bytes.count - 1) == 0
}

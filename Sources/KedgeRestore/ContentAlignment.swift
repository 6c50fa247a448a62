// Puts the content of files that are there right: a restore with --delta.
//
// 1. Only what was read and has the checksum of the manifest stays. Sizes and times prove nothing (lessons 4 and 5).
// 2. A file that is too long is cut first, so that nothing behind its end is ever compared (lesson 16); one that is too
//    short is compared as far as it goes.
// 3. What differs is fetched by regions, neighbours together. Of a region that is there, only the blocks that differ
//    from what was fetched are written, in place.
// 4. A file with two names is never written to: TreeAlignment has removed this one of them.

import Glibc
package import KedgeCatalog
import KedgeCodec
package import KedgeCore
import Synchronization

/// What all workers of one restore with --delta share.
final class ContentAlignment: Sendable {
    let owner: DeltaOwner?
    /// Nothing is written; what differs is only counted.
    let isDryRun: Bool
    private let compared = Atomic<UInt64>(0)
    private let fetched = Atomic<UInt64>(0)

    init(owner: DeltaOwner?, isDryRun: Bool) {
        self.owner = owner
        self.isDryRun = isDryRun
    }

    /// Bytes of files that were there, read and compared.
    var comparedBytes: UInt64 { compared.load(ordering: .relaxed) }
    /// Bytes of files that differed or were missing: fetched, or to be fetched.
    var fetchedBytes: UInt64 { fetched.load(ordering: .relaxed) }

    func count(compared bytes: UInt64) { compared.wrappingAdd(bytes, ordering: .relaxed) }
    func count(fetched bytes: UInt64) { fetched.wrappingAdd(bytes, ordering: .relaxed) }

    /// Counts a file that is not there.
    func count(fetched bytes: UInt64, _ progress: WorkProgress) {
        count(fetched: bytes)
        progress.advance(bytes)
    }

    /// Opens a file to be put right: makes it where it is missing, mends owner and mode, but for its owner's right to
    /// write, which it keeps until it is complete, and cuts what is too much.
    ///
    /// Nil in a dry run for one that is not there, or would be made anew.
    func open(_ task: FileTask) throws(KedgeError) -> FileDescriptor? {
        let options: OpenOptions = isDryRun ? [.read] : [.read, .write]
        guard let file = try existing(task.place, options.union([.noFollow, .nonBlocking])) else {
            if isDryRun { return nil }
            let file = try FileWorker.create(task)
            try owner?.apply(to: file, file.status())
            return file
        }
        let status = try file.status()
        guard status.kind == .regular, status.linkCount == 1 else {
            if isDryRun { return nil }
            throw KedgeError(
                .alreadyExists, "cannot write file \"\(task.place)\"",
                detail: "Another file has come there, or another name of it.",
                hint: "Check whether somebody else writes there.")
        }
        if isDryRun { return file }
        try owner?.apply(to: file, status)
        // Others have to open it, too: it gets its mode at the end, and nobody else gets a right meanwhile.
        let mode = task.mode & 0o777 | 0o600
        if status.mode != mode { try file.setMode(mode) }
        if status.sizeBytes > task.content.size { try file.truncate(to: task.content.size) }
        return file
    }

    private func existing(_ path: RawPath, _ options: OpenOptions) throws(KedgeError) -> FileDescriptor? {
        do throws(KedgeError) {
            return try FileDescriptor.open(path, options)
        } catch  where error.code == .notFound {
            return nil
        }
    }
}

/// Which regions of a file have to be fetched.
package enum RegionComparison {
    /// The runs of `regions` whose content is not certain to be right.
    ///
    /// `found` gives the checksum of a region of the file that is there, and is asked only for one that lies in its
    /// first `presentBytes` bytes and whose checksum the manifest knows.
    package static func differing(
        _ regions: Range<Int>, of content: FileContent, presentBytes: UInt64,
        found: (Int) throws(KedgeError) -> ContentHash?
    ) throws(KedgeError) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        for region in regions {
            let end = min(UInt64(region + 1) * regionSize, content.size)
            if end <= presentBytes, let expected = content.regions[region], try found(region) == expected { continue }
            if let last = runs.last, last.upperBound == region {
                runs[runs.count - 1] = last.lowerBound..<region + 1
            } else {
                runs.append(region..<region + 1)
            }
        }
        return runs
    }
}

extension RegionComparison {
    /// The unit of writing: PostgreSQL's usual page.
    package static let blockBytes = 8192

    /// The runs of blocks in which `wanted` and `present`, of one length, differ, as bytes; the last block may be
    /// short.
    package static func differingBlocks(
        _ wanted: UnsafeRawBufferPointer, _ present: UnsafeRawBufferPointer
    ) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        guard let wantedStart = wanted.baseAddress, let presentStart = present.baseAddress else { return [] }
        for start in stride(from: 0, to: wanted.count, by: blockBytes) {
            let end = min(start + blockBytes, wanted.count)
            if memcmp(wantedStart + start, presentStart + start, end - start) == 0 { continue }
            if let last = runs.last, last.upperBound == start {
                runs[runs.count - 1] = last.lowerBound..<end
            } else {
                runs.append(start..<end)
            }
        }
        return runs
    }
}

extension FileWorker {
    /// Makes a region of the file what was fetched: `bytes`, at most one region. Pages that are right already are not
    /// written again: with little damage that is nearly all of them.
    private func mend(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64, presentBytes: UInt64, in file: borrowing FileDescriptor
    ) throws(KedgeError) {
        guard bytes.count <= buffer.count, offset + UInt64(bytes.count) <= presentBytes else {
            return try file.write(bytes, at: offset)
        }
        let runs = try buffer.withMutableBytes { (present) throws(KedgeError) in
            let present = UnsafeMutableRawBufferPointer(rebasing: present[..<bytes.count])
            guard try file.read(into: present, at: offset) == bytes.count else { return [0..<bytes.count] }
            return RegionComparison.differingBlocks(bytes, UnsafeRawBufferPointer(present))
        }
        for run in runs {
            try file.write(UnsafeRawBufferPointer(rebasing: bytes[run]), at: offset + UInt64(run.lowerBound))
        }
    }

    /// Puts regions of a file right and returns their CRC. In a dry run they are only counted.
    func align(
        _ regions: Range<Int>, of task: FileTask, presentBytes: UInt64, in file: borrowing FileDescriptor
    ) throws(KedgeError) -> UInt32 {
        guard let alignment else { preconditionFailure("only a restore with --delta aligns") }
        let content = task.content
        var checksums = [UInt32](repeating: 0, count: regions.count)
        func length(_ region: Int) -> UInt64 {
            min(regionSize, content.size - UInt64(region) * regionSize)
        }
        if let first = regions.first {
            let end = min(UInt64(regions.upperBound) * regionSize, content.size)
            file.advise(.willNeed, offset: UInt64(first) * regionSize, length: end - UInt64(first) * regionSize)
        }
        let runs = try RegionComparison.differing(regions, of: content, presentBytes: presentBytes) {
            (region) throws(KedgeError) in
            try interruption.checkpoint()
            let count = Int(length(region))
            let read = try buffer.withMutableBytes { (bytes) throws(KedgeError) in
                try file.read(
                    into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]), at: UInt64(region) * regionSize)
            }
            guard read == count else { return nil }
            let hash = buffer.withBytes { bytes in
                let bytes = UnsafeRawBufferPointer(rebasing: bytes[..<count])
                let hash = ContentHash(of: bytes)
                if hash == content.regions[region] {
                    checksums[region - regions.lowerBound] = CRC32C.checksum(bytes)
                    progress.advance(count)
                }
                return hash
            }
            alignment.count(compared: UInt64(count))
            return hash
        }
        for run in runs {
            let end = min(UInt64(run.upperBound) * regionSize, content.size)
            let bytes = end - UInt64(run.lowerBound) * regionSize
            alignment.count(fetched: bytes)
            if alignment.isDryRun {
                progress.advance(bytes)
                continue
            }
            try reader.read(content, regions: run, path: task.path) { (bytes, offset) throws(KedgeError) in
                try interruption.checkpoint()
                try mend(bytes, at: offset, presentBytes: presentBytes, in: file)
                checksums[Int(offset / regionSize) - regions.lowerBound] = CRC32C.checksum(bytes)
                progress.advance(bytes.count)
            }
        }
        guard regions.count > 1 else { return checksums.first ?? 0 }
        var whole: UInt32 = 0
        for region in regions {
            whole = CRC32C.combine(
                whole, checksums[region - regions.lowerBound], secondLength: length(region))
        }
        return whole
    }
}

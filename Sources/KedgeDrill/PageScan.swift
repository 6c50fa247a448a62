// Reads every page of the recovered cluster and checks its checksum, while its server has nothing to write: after a
// checkpoint and with nobody connected.

import Glibc
import KedgeCore
import KedgePostgres
import Synchronization

/// A scan of all relation files.
struct PageScan {
    let data: RawPath
    let blockSize: Int
    let segmentBlocks: UInt32
    let threads: Int
    let tools: Drill.Tools

    /// What was read, and what was wrong.
    struct Outcome {
        var bytes: UInt64 = 0
        var damagedCount = 0
        /// The first few.
        var damaged: [String] = []
    }

    private struct File: Sendable {
        let path: RawPath
        /// Below the data directory.
        let name: RawPath
        /// The number of the first page in its relation.
        let firstBlock: UInt32
    }

    private static let chunkBytes = 1 << 20
    private static let listed = 10

    func run() throws(KedgeError) -> Outcome {
        let outcome = Monitor(Outcome())
        let scan = self
        let pool = try WorkerPool<File>(
            name: "pages", workers: threads, queueLimit: 64,
            makeState: { _ throws(KedgeError) in PageBuffer(count: PageScan.chunkBytes) },
            body: { (buffer, file) throws(KedgeError) in try scan.check(file, buffer, outcome) },
            finishState: { _ throws(KedgeError) in })
        try walk("global", into: pool)
        for database in try directories("base") { try walk(RawPath("base").appending(database), into: pool) }
        for tablespace in try directories("pg_tblspc") {
            let directory = RawPath("pg_tblspc").appending(tablespace)
            for version in try directories(directory) {
                for database in try directories(directory.appending(version)) {
                    try walk(directory.appending(version).appending(database), into: pool)
                }
            }
        }
        try pool.finish()
        return outcome.update { $0 }
    }

    /// What cannot be read is an error: pages that were not looked at are not sound.
    private func entries(_ name: RawPath) throws(KedgeError) -> [DirectoryEntry] {
        do throws(KedgeError) {
            return try Directory.entries(at: data.appending(name))
        } catch  where error.code == .notFound {
            // It was dropped meanwhile.
            return []
        }
    }

    /// A tablespace is a link, or a directory where it is in place.
    private func directories(_ name: RawPath) throws(KedgeError) -> [RawPath] {
        try entries(name).filter { $0.kind == .directory || $0.kind == .symbolicLink }.map(\.name)
    }

    private func walk(_ directory: RawPath, into pool: WorkerPool<File>) throws(KedgeError) {
        for entry in try entries(directory) {
            guard let segment = PageScan.segment(of: entry.name) else { continue }
            let (block, overflow) = segment.multipliedReportingOverflow(by: segmentBlocks)
            guard !overflow else { continue }
            let name = directory.appending(entry.name)
            try pool.submit(File(path: data.appending(name), name: name, firstBlock: block))
        }
    }

    /// The segment number of a relation's file: `16384`, `16384_vm`, `16384.1`. Nil for any other file
    /// (src/backend/storage/file/reinit.c, parse_filename_for_nontemp_relation).
    static func segment(of name: RawPath) -> UInt32? {
        guard let text = name.text else { return nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let relation = parts[0].split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count <= 2, relation.count <= 2, !relation[0].isEmpty,
            relation[0].utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            relation.count == 1 || ["fsm", "vm", "init"].contains(relation[1])
        else { return nil }
        return parts.count == 1 ? 0 : UInt32(parts[1])
    }

    private func check(_ file: File, _ buffer: PageBuffer, _ outcome: Monitor<Outcome>) throws(KedgeError) {
        let descriptor: FileDescriptor
        do throws(KedgeError) {
            descriptor = try FileDescriptor.open(file.path, .read)
        } catch  where error.code == .notFound {
            return
        }
        var offset: UInt64 = 0
        while true {
            try tools.interruption.checkpoint()
            let count = try descriptor.read(into: buffer.bytes, at: offset)
            let pages = count / blockSize
            for page in 0..<pages {
                let bytes = UnsafeRawBufferPointer(
                    rebasing: buffer.bytes[(page * blockSize)..<((page + 1) * blockSize)])
                let block = file.firstBlock &+ UInt32(truncatingIfNeeded: offset / UInt64(blockSize)) &+ UInt32(page)
                guard DataPage(bytes).verdict(block: block) != .valid else { continue }
                let mayBeTorn = outcome.update { $0.damagedCount < PageScan.listed }
                let place = UnsafeMutableRawBufferPointer(
                    rebasing: buffer.bytes[(page * blockSize)..<((page + 1) * blockSize)])
                if mayBeTorn,
                    try isWhole(descriptor, place, at: offset + UInt64(page * blockSize), block: block)
                {
                    continue
                }
                outcome.update { outcome in
                    outcome.damagedCount += 1
                    if outcome.damaged.count < PageScan.listed {
                        outcome.damaged.append("\(file.name), block \(block)")
                    }
                }
            }
            outcome.update { $0.bytes += UInt64(count) }
            tools.progress.advance(count)
            if count < PageScan.chunkBytes { return }
            offset += UInt64(count)
        }
    }
}

extension PageScan {
    /// Whether the page is whole after all: a process of the server may have been writing it (a background worker of
    /// shared_preload_libraries).
    private func isWhole(
        _ descriptor: borrowing FileDescriptor, _ page: UnsafeMutableRawBufferPointer, at offset: UInt64, block: UInt32
    ) throws(KedgeError) -> Bool {
        for _ in 0..<5 {
            try tools.time.sleep(nanoseconds: 100_000_000, unless: tools.interruption)
            // It was truncated meanwhile.
            guard try descriptor.read(into: page, at: offset) == page.count else { return true }
            if DataPage(UnsafeRawBufferPointer(page)).verdict(block: block) == .valid { return true }
        }
        return false
    }
}

/// A worker's buffer; freed with it.
private final class PageBuffer {
    let bytes: UnsafeMutableRawBufferPointer
    init(count: Int) { bytes = .allocate(byteCount: count, alignment: 4096) }
    deinit { bytes.deallocate() }
}

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
        for database in try entries("base") { try walk(RawPath("base").appending(database), into: pool) }
        for tablespace in try entries("pg_tblspc") {
            let directory = RawPath("pg_tblspc").appending(tablespace)
            for version in try entries(directory) {
                for database in try entries(directory.appending(version)) {
                    try walk(directory.appending(version).appending(database), into: pool)
                }
            }
        }
        try pool.finish()
        return outcome.update { $0 }
    }

    private func entries(_ name: RawPath) throws(KedgeError) -> [RawPath] {
        do throws(KedgeError) {
            return try Directory.entries(at: data.appending(name)).map(\.name)
        } catch  where error.code == .notFound || error.code == .inputOutput {
            // A file where a directory might be, such as pg_tblspc's temporary ones.
            return []
        }
    }

    private func walk(_ directory: RawPath, into pool: WorkerPool<File>) throws(KedgeError) {
        for entry in try entries(directory) {
            guard let segment = PageScan.segment(of: entry) else { continue }
            let (block, overflow) = segment.multipliedReportingOverflow(by: segmentBlocks)
            guard !overflow else { continue }
            let name = directory.appending(entry)
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

/// A worker's buffer; freed with it.
private final class PageBuffer {
    let bytes: UnsafeMutableRawBufferPointer
    init(count: Int) { bytes = .allocate(byteCount: count, alignment: 4096) }
    deinit { bytes.deallocate() }
}

// One pack, read once from front to back: header, every frame, the table and the end frame; each piece of a file
// against the checksum in the table, each page of a relation against its own.
//
// What is told apart: a pack of which nothing can be read (its header, table or end is damaged) and single frames that
// are lost. Memory: one read of at most 4 MiB and one frame.

import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import Synchronization

/// How pages of relations are to be checked.
struct PageRule: Hashable, Sendable {
    let blockSize: Int
    let relationSegmentBlocks: UInt32

    /// For a backup of a cluster with data checksums; nil for any other.
    init?(_ server: CommitRecord.ServerFacts) {
        guard server.dataChecksums, DataPage.sizes.contains(Int(server.blockSize)),
            server.blockSize.nonzeroBitCount == 1
        else { return nil }
        blockSize = Int(server.blockSize)
        relationSegmentBlocks = server.relationSegmentBlocks
    }

    /// The number of a file's first block within its fork; nil for a file that is no relation's.
    func firstBlock(of path: [UInt8]) -> UInt32? {
        let parts = path.split(separator: 0x2F, omittingEmptySubsequences: false)
        guard let name = parts.last, let first = parts.first, RelationPath.holdsRelations(first, parts.count) else {
            return nil
        }
        return RelationFileName(Array(name))?.firstBlock(relationSegmentBlocks: relationSegmentBlocks)
    }
}

/// Where relations lie: `global/N`, `base/DB/N`, `pg_tblspc/OID/VERSION/DB/N`.
private enum RelationPath {
    static func holdsRelations(_ first: ArraySlice<UInt8>, _ depth: Int) -> Bool {
        switch depth {
        case 2: first.elementsEqual("global".utf8)
        case 3: first.elementsEqual("base".utf8)
        case 5: first.elementsEqual("pg_tblspc".utf8)
        default: false
        }
    }
}

/// A page in a pack whose checksum does not fit.
struct FailingPage: Hashable, Sendable {
    let path: ManifestPath
    /// Relative to the file.
    let block: UInt32
    let lsn: LSN
    /// Where it begins in the pack's stream.
    let position: UInt64
}

/// What reading a pack found.
struct PackVerdict: Sendable {
    /// Why nothing of it can be used; nil where its frames can be found.
    var error: KedgeError?
    /// The data frames that are lost, ascending, and where each lies in the pack's stream.
    var lostFrames: [(number: UInt32, stream: Range<UInt64>)] = []
    /// Why the first of them is.
    var frameError: KedgeError?
    var pages: [FailingPage] = []
    /// Whether there are more of these, which nobody remembers.
    var omitsPages = false
    /// Whether a page fails its checksum, though it be the fault of none of the backups that are looked at.
    var hasFailingPages = false
    var rawBytes: UInt64 = 0

    var isSound: Bool { error == nil && lostFrames.isEmpty }
    /// Whether a manifest's pass needs to know of it.
    var isRemarkable: Bool { !isSound || !pages.isEmpty || omitsPages }
}

/// How many failing pages may still be remembered, over all packs. Any number of threads may ask.
final class PageBudget: Sendable {
    private let left: Mutex<Int>

    init(_ count: Int) { left = Mutex(count) }

    /// Whether there was room for one more.
    func take() -> Bool {
        left.withLock { left in
            guard left > 0 else { return false }
            left -= 1
            return true
        }
    }
}

/// Reads packs. One for each worker; used by one thread at a time.
final class PackCheck {
    private let cluster: ClusterRepository
    private let rate: ReadRate?
    private let progress: WorkProgress
    private let interruption: Interruption
    private let errors: ReadErrors
    private let budget: PageBudget
    /// The backups that refer to the pack that is read.
    private var users: [CommitRecord] = []
    private var opener: FrameOpener?
    private var stored: [UInt8] = []
    private var raw = [UInt8](repeating: 0, count: ObjectSeal.standardFrameSize)

    private static let readBytes: UInt64 = 4 << 20

    init(
        _ cluster: ClusterRepository, _ errors: ReadErrors, _ budget: PageBudget, rate: ReadRate?,
        progress: WorkProgress, interruption: Interruption
    ) {
        self.budget = budget
        self.cluster = cluster
        self.errors = errors
        self.rate = rate
        self.progress = progress
        self.interruption = interruption
    }

    /// Reads a pack of `bytes` bytes that `users` refer to. Throws what reading throws where the pack is not to blame,
    /// and `interrupted`.
    func check(
        _ id: RandomID, bytes: UInt64, pages rule: PageRule?, of users: [CommitRecord]
    ) throws(KedgeError) -> PackVerdict {
        self.users = users
        var verdict = PackVerdict()
        do throws(KedgeError) {
            try read(id, bytes, rule, &verdict)
        } catch {
            verdict.error = try errors.tolerate(error)
        }
        return verdict
    }

    private func read(
        _ id: RandomID, _ bytes: UInt64, _ rule: PageRule?, _ verdict: inout PackVerdict
    ) throws(KedgeError) {
        let relative = ClusterLayout.pack(id)
        let name = cluster.name(relative)
        let store = cluster.repository.store
        let reader = try ObjectReader(
            kind: .pack, name: cluster.scoped(relative), keyRing: cluster.repository.keyRing, length: bytes
        ) { (range) throws(KedgeError) in try store.read(name, range: range) }
        let directory = try reader.packDirectory()
        let opener = try opener(for: directory.seal)
        var frame: UInt64 = 0
        var position: UInt64 = 0
        while frame < UInt64(directory.frameCount) {
            try interruption.checkpoint()
            let last = try lastFrame(from: frame, directory)
            let range = try directory.range(ofFrames: frame...last)
            try fetch(name, range)
            for number in frame...last {
                let place = try directory.range(ofFrame: number)
                let rawLength = try directory.rawLength(ofFrame: number)
                do throws(KedgeError) {
                    try open(
                        Int(place.lowerBound - range.lowerBound)..<Int(place.upperBound - range.lowerBound),
                        number: UInt32(number), rawLength: rawLength, opener)
                    try compare(directory, number, at: position, rule, &verdict)
                } catch {
                    guard error.code.isDamageOfTheObject else { throw error }
                    verdict.lostFrames.append((UInt32(number), position..<position + UInt64(rawLength)))
                    verdict.frameError = verdict.frameError ?? error
                }
                position += UInt64(rawLength)
            }
            frame = last + 1
        }
        verdict.rawBytes = position
    }

    /// The last of the frames that one read takes.
    private func lastFrame(from first: UInt64, _ directory: PackDirectory) throws(KedgeError) -> UInt64 {
        let begin = try directory.range(ofFrame: first).lowerBound
        var last = first
        while last + 1 < UInt64(directory.frameCount),
            try directory.range(ofFrame: last + 1).upperBound - begin <= Self.readBytes
        { last += 1 }
        return last
    }

    private func fetch(_ name: ObjectName, _ range: Range<UInt64>) throws(KedgeError) {
        let count = Int(range.upperBound - range.lowerBound)
        try rate?.take(count, unless: interruption)
        if stored.count < count { stored = [UInt8](repeating: 0, count: max(count, Int(Self.readBytes))) }
        let store = cluster.repository.store
        try stored.withMutableBytes { (buffer) throws(KedgeError) in
            try store.read(
                name, at: range.lowerBound, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
        }
        progress.advance(count)
    }

    private func opener(for seal: ObjectSeal) throws(KedgeError) -> FrameOpener {
        if let opener {
            try opener.start(seal)
            return opener
        }
        let made = try FrameOpener(seal)
        opener = made
        return made
    }

    private func open(
        _ range: Range<Int>, number: UInt32, rawLength: Int, _ opener: FrameOpener
    ) throws(KedgeError) {
        if raw.count < rawLength { raw = [UInt8](repeating: 0, count: rawLength) }
        let count = try raw.withMutableBytes { (out) throws(KedgeError) in
            try stored.withBytes { (bytes) throws(KedgeError) in
                try opener.open(
                    UnsafeRawBufferPointer(rebasing: bytes[range]), expecting: .data, number: number,
                    into: UnsafeMutableRawBufferPointer(rebasing: out[..<rawLength]))
            }
        }
        guard count == rawLength else {
            throw opener.seal.damaged("Frame \(number) holds \(count) bytes; its table says \(rawLength).")
        }
    }

    // MARK: - What a frame holds

    private func compare(
        _ directory: PackDirectory, _ number: UInt64, at position: UInt64, _ rule: PageRule?,
        _ verdict: inout PackVerdict
    ) throws(KedgeError) {
        var offset = 0
        for source in directory.table.sources[directory.table.frames[Int(number)].sources] {
            let range = offset..<offset + Int(source.length)
            try raw.withBytes { (bytes) throws(KedgeError) in
                let piece = UnsafeRawBufferPointer(rebasing: bytes[range])
                guard ContentHash(of: piece) == source.checksum else {
                    throw directory.seal.damaged(
                        "Frame \(number) does not hold what its table says of \"\(ManifestPath(bytes: source.path))\".")
                }
                if let rule { check(piece, of: source, at: position + UInt64(range.lowerBound), rule, &verdict) }
            }
            offset = range.upperBound
        }
    }

    private func check(
        _ piece: UnsafeRawBufferPointer, of source: PackSource, at position: UInt64, _ rule: PageRule,
        _ verdict: inout PackVerdict
    ) {
        guard source.offset % UInt64(rule.blockSize) == 0, let firstBlock = rule.firstBlock(of: source.path) else {
            return
        }
        let firstInFile = UInt32(truncatingIfNeeded: source.offset / UInt64(rule.blockSize))
        for index in 0..<piece.count / rule.blockSize {
            let start = index * rule.blockSize
            let page = DataPage(UnsafeRawBufferPointer(rebasing: piece[start..<start + rule.blockSize]))
            let block = firstInFile &+ UInt32(index)
            guard page.verdict(block: firstBlock &+ block) != .valid else { continue }
            let failing = FailingPage(
                path: ManifestPath(bytes: source.path), block: block, lsn: page.lsn,
                position: position + UInt64(start))
            verdict.hasFailingPages = true
            // What is the fault of none takes no room.
            guard users.contains(where: { !$0.excuses(failing) }) else { continue }
            if budget.take() { verdict.pages.append(failing) } else { verdict.omitsPages = true }
        }
    }
}

// Copies a made-up tree into a store in memory and reads it back, with files that change at any moment.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

/// Packs in memory.
struct MemoryPacks: PackStore {
    let store: MemoryStore
    let keyRing: KeyRing
    let compression: CompressionChoice
    let scope = RandomID(high: 1, low: 2)

    init(encrypted: Bool = true, compression: CompressionChoice = .standard) {
        store = MemoryStore()
        let random = SystemRandomSource()
        keyRing =
            encrypted ? KeyRing(cipher: .aes256GCM, keys: [DataKey(sequence: 1, random: random)]) : KeyRing.plain
        self.compression = compression
    }

    func beginPack() throws(KedgeError) -> NewPack {
        let random = SystemRandomSource()
        let id = RandomID(from: random)
        let name = ClusterLayout.pack(id)
        let seal = try ObjectSeal(
            writing: .pack, name: ScopedName(scope: scope, name: name.text), compression: compression,
            keyRing: keyRing, random: random)
        return NewPack(id: id, seal: seal, upload: try store.beginUpload(name, expectedBytes: 1))
    }

    /// A stored pack: its raw data, where each frame begins in it, and its table.
    struct StoredPack {
        var stream: [UInt8] = []
        var frameOffsets: [Int] = []
        var directory: PackDirectory
    }

    /// All stored packs, every byte of them checked.
    func readAll() throws -> [RandomID: StoredPack] {
        var packs: [RandomID: StoredPack] = [:]
        var names: [ObjectName] = []
        try store.forEachObject(below: ClusterLayout.packs) { entry throws(KedgeError) in names.append(entry.name) }
        for name in names {
            let id = try #require(RandomID(hex: name.lastComponent))
            let scoped = ScopedName(scope: scope, name: name.text)
            let bytes = try store.readAll(name, limit: 1 << 30)
            let reader = try ObjectReader(kind: .pack, name: scoped, keyRing: keyRing, length: UInt64(bytes.count)) {
                range throws(KedgeError) in Array(bytes[Int(range.lowerBound)..<Int(range.upperBound)])
            }
            var pack = StoredPack(directory: try reader.packDirectory())
            try bytes.withBytes { bytes throws(KedgeError) in
                let index = try ObjectIndex(bytes, kind: .pack, name: scoped, keyRing: keyRing, limit: 1 << 30)
                let opener = try FrameOpener(index.seal)
                pack.stream = [UInt8](repeating: 0, count: index.rawCount)
                pack.frameOffsets = index.dataFrames.map(\.rawOffset)
                try pack.stream.withMutableBytes { out throws(KedgeError) in
                    for place in index.dataFrames { try index.open(place, of: bytes, with: opener, into: out) }
                }
            }
            packs[id] = pack
        }
        return packs
    }
}

/// Files that change while they are copied: before each opening and each reading, `hook` may do something to them.
struct ChangingFiles: FileSource {
    enum Moment: Sendable {
        case open
        /// Before the bytes at this offset are read.
        case read(UInt64)
    }

    let hook: @Sendable (RawPath, Moment) throws(KedgeError) -> Void

    func open(_ path: RawPath, reading range: Range<UInt64>) throws(KedgeError) -> any OpenSourceFile {
        try hook(path, .open)
        return ChangingFile(file: try SystemFileSource().open(path, reading: range), path: path, hook: hook)
    }

    private final class ChangingFile: OpenSourceFile {
        let file: any OpenSourceFile
        let path: RawPath
        let hook: @Sendable (RawPath, Moment) throws(KedgeError) -> Void

        init(
            file: any OpenSourceFile, path: RawPath,
            hook: @escaping @Sendable (RawPath, Moment) throws(KedgeError) -> Void
        ) {
            self.file = file
            self.path = path
            self.hook = hook
        }

        func status() throws(KedgeError) -> FileStatus { try file.status() }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(KedgeError) -> Int {
            try hook(path, .read(offset))
            return try file.read(into: buffer, at: offset)
        }

        func release(regionAt offset: UInt64) { file.release(regionAt: offset) }
    }
}

/// One copy of a tree from the walk to the entries of the manifest.
struct CopyHarness {
    var packs = MemoryPacks()
    var files: any FileSource = SystemFileSource()
    var limits = PackLimits.standard
    var workers = 2
    var findings = PageFindings(startLSN: LSN(1000))
    var time = ManualTime()
    var checksPages = false

    /// The entries that the manifest gets.
    func copy(_ tree: TestTree) throws -> [ManifestEntry] {
        let listing = try tree.walk().listing
        let results = try CopyResults(
            entries: listing.totals.entries, in: tree.workDirectory, random: SystemRandomSource())
        let context = CopyContext(
            dataDirectory: tree.dataDirectory, files: files, packs: packs, limits: limits, results: results,
            pageCheck: checksPages ? PageCheck(blockSize: 8192, findings: findings, time: time) : nil,
            progress: WorkProgress(), totals: PackTotals(), interruption: Interruption())
        let pool = try WorkerPool<CopyItem>(
            name: "copy", workers: workers, queueLimit: 2,
            makeState: { _ throws(KedgeError) in FileCopier(context) },
            body: { copier, item throws(KedgeError) in try copier.copy(item) },
            finishState: { copier throws(KedgeError) in try copier.finish() })
        var plan = CopyPlan()
        try listing.forEach { index, entry throws(KedgeError) in
            for item in plan.add(index, entry) { try pool.submit(item) }
        }
        if let last = plan.finish() { try pool.submit(last) }
        try pool.finish()
        var entries: [ManifestEntry] = []
        try ManifestAssembly.forEachEntry(of: listing, results: results, adding: []) { entry throws(KedgeError) in
            entries.append(entry)
        }
        return entries
    }

    /// What a reader of the repository finds as the content of each file.
    func contents(_ entries: [ManifestEntry]) throws -> [String: [UInt8]] {
        let packs = try packs.readAll()
        var contents: [String: [UInt8]] = [:]
        for entry in entries {
            guard let content = entry.content else { continue }
            var bytes: [UInt8] = []
            for extent in content.extents {
                switch extent.source {
                case .zeros: bytes += [UInt8](repeating: 0, count: Int(extent.length))
                case .pack(let id, let frame, let offset):
                    let pack = try #require(packs[id])
                    let start = pack.frameOffsets[Int(frame)] + Int(offset)
                    bytes += pack.stream[start..<start + Int(extent.length)]
                }
            }
            #expect(UInt64(bytes.count) == content.size)
            #expect(content.regions == CopyHarness.regions(of: bytes))
            contents[entry.path.description] = bytes
        }
        return contents
    }

    static func regions(of bytes: [UInt8]) -> [ContentHash?] {
        stride(from: 0, to: bytes.count, by: Int(regionSize)).map { start in
            ContentHash(of: Array(bytes[start..<min(start + Int(regionSize), bytes.count)]))
        }
    }

    /// Bytes that compress a little; no two regions of them are the same.
    static func bytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        let block = (0..<min(count, 64 << 10)).map { _ in
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return UInt8(truncatingIfNeeded: state) & 0x3F
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let stamp = withUnsafeBytes(of: bytes.count.littleEndian) { Array($0) }
            bytes += (stamp + block.dropFirst(stamp.count)).prefix(count - bytes.count)
        }
        return bytes
    }
}

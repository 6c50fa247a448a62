// Proves that what the copy stores is, byte for byte, what the files held, whatever their sizes and however they change
// meanwhile, and that a copy that fails leaves nothing visible.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

struct FileCopierTests {
    private static let mebibyte = 1 << 20

    private func paths(_ entries: [ManifestEntry]) -> [String] { entries.map(\.path.description) }

    // MARK: Round trips

    struct Sealing: Sendable, CustomTestStringConvertible {
        var encrypted: Bool
        var codec: Codec
        var testDescription: String { "\(encrypted ? "encrypted" : "plain"), \(codec.name)" }
    }

    @Test(
        "files of every size are read back byte for byte, over many packs (lessons 10, 12)",
        arguments: [Sealing(encrypted: true, codec: .zstd), Sealing(encrypted: false, codec: .none)])
    func roundTrip(_ sealing: Sealing) throws {
        let tree = try TestTree()
        try tree.makeDirectory("data/base/5")
        let small = Int(CopyLimits.smallFileBytes)
        let sizes = [
            0, 1, 8191, 8192, small - 1, small, small + 1, Self.mebibyte - 1, Self.mebibyte, Self.mebibyte + 1,
            5 * Self.mebibyte + 17, 33 * Self.mebibyte + 8192,
        ]
        var expected: [String: [UInt8]] = [:]
        for (index, size) in sizes.enumerated() {
            for name in ["base/5/\(20000 + index)", "whole\(index)"] {
                let bytes = CopyHarness.bytes(size, seed: UInt64(expected.count + 1))
                expected[name] = bytes
                try tree.write("data/" + name, bytes)
            }
        }
        for number in 0..<200 {
            let name = "base/5/\(30000 + number)_vm"
            expected[name] = CopyHarness.bytes(number * 7, seed: UInt64(number))
            try tree.write("data/" + name, CopyHarness.bytes(number * 7, seed: UInt64(number)))
        }
        var harness = CopyHarness()
        harness.packs = MemoryPacks(encrypted: sealing.encrypted, compression: CompressionChoice(sealing.codec))
        harness.limits = PackLimits(storedBytes: 1 << 20, tableBytes: 2 << 20)
        let entries = try harness.copy(tree)
        let contents = try harness.contents(entries)
        #expect(Set(contents.keys) == Set(expected.keys))
        for (name, bytes) in expected { #expect(contents[name] == bytes, "\(name)") }
        #expect(try harness.packs.readAll().count > 3)
        try checkWithManifest(entries)
    }

    /// The manifest's own decoder takes the entries: paths in order, extents that tile their files.
    private func checkWithManifest(_ entries: [ManifestEntry]) throws {
        var encoder = ManifestPartEncoder()
        for entry in entries { encoder.append(entry) }
        let bytes = encoder.finish()
        var decoded: [ManifestEntry] = []
        try bytes.withBytes { bytes throws(KedgeError) in
            var decoder = try ManifestPartDecoder(bytes, what: "test")
            while let entry = try decoder.next() { decoded.append(entry) }
        }
        #expect(decoded == entries)
    }

    @Test("regions of zeros are not stored; files of zeros neither")
    func zeros() throws {
        let tree = try TestTree()
        let mixed =
            [UInt8](repeating: 0, count: 2 * Self.mebibyte) + CopyHarness.bytes(Self.mebibyte)
            + [UInt8](repeating: 0, count: Self.mebibyte / 2)
        try tree.write("data/mixed", mixed)
        try tree.write("data/zero", [UInt8](repeating: 0, count: 8192))
        let harness = CopyHarness()
        let entries = try harness.copy(tree)
        let contents = try harness.contents(entries)
        #expect(contents["mixed"] == mixed)
        let extents = Dictionary(
            uniqueKeysWithValues: entries.compactMap { entry in
                entry.content.map { (entry.path.description, $0.extents) }
            })
        #expect(extents["zero"] == [Extent(length: 8192, source: .zeros)])
        #expect(extents["mixed"]?.map(\.length) == [2, 1, 0].map { $0 == 0 ? 1 << 19 : UInt64($0) << 20 })
        #expect(try harness.packs.readAll().values.reduce(0) { $0 + $1.stream.count } == Self.mebibyte)
    }

    @Test("a small file lies in one frame; a range of a large one is one extent; the table names every source")
    func frames() throws {
        let tree = try TestTree()
        for number in 0..<40 {
            try tree.write("data/small\(number)", CopyHarness.bytes(60_000, seed: UInt64(number + 1)))
        }
        try tree.write("data/large", CopyHarness.bytes(10 * Self.mebibyte))
        var harness = CopyHarness()
        harness.workers = 1
        let entries = try harness.copy(tree)
        let packs = try harness.packs.readAll()
        let pack = try #require(packs.first?.value)
        #expect(packs.count == 1)
        for entry in entries {
            guard let content = entry.content else { continue }
            #expect(content.extents.count == 1, "\(entry.path)")
            guard case .pack(_, let frame, let offset)? = content.extents.first?.source else { continue }
            if content.size < UInt64(Self.mebibyte) {
                let rawLength = try pack.directory.rawLength(ofFrame: UInt64(frame))
                #expect(UInt64(offset) + content.size <= UInt64(rawLength), "\(entry.path)")
            }
        }
        let sources = pack.directory.table.sources
        #expect(Set(sources.map { String(decoding: $0.path, as: UTF8.self) }).count == 41)
        for source in sources {
            let name = String(decoding: source.path, as: UTF8.self)
            let content = try #require(entries.first { $0.path.description == name }?.content)
            #expect(content.regions[Int(source.offset / regionSize)] == source.checksum)
        }
        let tiled = pack.directory.table.frames.allSatisfy { frame in
            sources[frame.sources].reduce(0) { $0 + $1.length } == UInt64(frame.rawLength)
        }
        #expect(tiled)
    }

    // MARK: Files that change

    /// Does something once, at one moment of one file's copy.
    private func changing(
        _ name: String, at moment: ChangingFiles.Moment, _ change: @escaping @Sendable () throws(KedgeError) -> Void
    ) -> ChangingFiles {
        let isDone = Atomic(false)
        return ChangingFiles { (path, found) throws(KedgeError) in
            guard path.lastComponent == RawPath(name) else { return }
            switch (moment, found) {
            case (.open, .open): break
            case (.read(let wanted), .read(let offset)) where wanted == offset: break
            default: return
            }
            if !isDone.exchange(true, ordering: .relaxed) { try change() }
        }
    }

    @Test("a file that vanishes before it is opened is left out, and the next one is not (lesson 2)")
    func vanishes() throws {
        let tree = try TestTree()
        for name in ["a", "b", "c"] { try tree.write("data/" + name, [1, 2, 3]) }
        let victim = tree.path("data/b")
        var harness = CopyHarness()
        harness.files = changing("b", at: .open) { () throws(KedgeError) in try FileSystem.removeFile(at: victim) }
        let entries = try harness.copy(tree)
        #expect(paths(entries) == ["a", "base", "c", "global", "pg_tblspc", "pg_wal"])
    }

    struct Shrink: Sendable, CustomTestStringConvertible {
        var moment: ChangingFiles.Moment
        var size: UInt64
        var kept: Int
        var testDescription: String { "to \(size) at \(moment)" }
    }

    @Test(
        "a relation file that shrinks is kept as far as it was there (lessons 9, 10)",
        arguments: [
            Shrink(moment: .open, size: 0, kept: 0), Shrink(moment: .open, size: 5000, kept: 5000),
            Shrink(moment: .read(0), size: 8192, kept: 8192),
            Shrink(moment: .read(2 << 20), size: 8192, kept: 2 << 20),
            Shrink(moment: .read(2 << 20), size: (2 << 20) + 100, kept: (2 << 20) + 100),
            // In the second range, and before what the first one has read: kept as far as both were read.
            Shrink(moment: .read(18 << 20), size: 8192, kept: 18 << 20),
            Shrink(moment: .read(16 << 20), size: 0, kept: 16 << 20),
        ])
    func shrinks(_ shrink: Shrink) throws {
        let tree = try TestTree()
        try tree.makeDirectory("data/base/5")
        let bytes = CopyHarness.bytes(35 << 20)
        try tree.write("data/base/5/16384", bytes)
        try tree.write("data/base/5/16385", [7])
        let path = tree.path("data/base/5/16384")
        var harness = CopyHarness()
        harness.workers = 1
        harness.files = changing("16384", at: shrink.moment) { () throws(KedgeError) in
            try FileDescriptor.open(path, .write).truncate(to: shrink.size)
        }
        let entries = try harness.copy(tree)
        let contents = try harness.contents(entries)
        #expect(contents["base/5/16384"] == Array(bytes[..<shrink.kept]))
        #expect(contents["base/5/16385"] == [7])
        try checkWithManifest(entries)
    }

    @Test("a relation file that grows is kept at its listed size, any other file up to its end (lesson 38)")
    func grows() throws {
        let tree = try TestTree()
        try tree.makeDirectory("data/base/5")
        let bytes = CopyHarness.bytes(8192)
        let more = bytes + CopyHarness.bytes(3 << 20, seed: 9)
        for name in ["data/base/5/16384", "data/postgresql.auto.conf"] {
            try tree.write(name, bytes)
            let path = tree.path(name)
            var harness = CopyHarness()
            harness.files = changing(path.lastComponent.description, at: .open) { () throws(KedgeError) in
                try FileDescriptor.open(path, .write).write(more, at: 0)
            }
            let contents = try harness.contents(harness.copy(tree))
            if name.hasSuffix("16384") {
                #expect(contents["base/5/16384"] == bytes)
            } else {
                #expect(contents["postgresql.auto.conf"] == more)
            }
        }
    }

    @Test("a large file that vanishes between two ranges ends there; one that is made anew is nobody's successor")
    func vanishesInTheMiddle() throws {
        let tree = try TestTree()
        try tree.makeDirectory("data/base/5")
        let bytes = CopyHarness.bytes(20 << 20)
        try tree.write("data/base/5/16384", bytes)
        try tree.write("data/base/5/16385", bytes)
        let (first, second) = (tree.path("data/base/5/16384"), tree.path("data/base/5/16385"))
        var harness = CopyHarness()
        harness.workers = 1
        let opened = Mutex<[RawPath: Int]>([:])
        harness.files = ChangingFiles { (path, moment) throws(KedgeError) in
            guard case .open = moment else { return }
            let count = opened.withLock { opened in
                opened[path, default: 0] += 1
                return opened[path]
            }
            guard count == 2 else { return }
            try FileSystem.removeFile(at: path)
            if path == second {
                // The old inode is kept from being used again.
                let file = try FileDescriptor.open(path, [.write, .create])
                try file.write(bytes, at: 0)
            }
        }
        let held = try FileDescriptor.open(second, .read)
        let entries = try harness.copy(tree)
        let contents = try harness.contents(entries)
        #expect(contents[first.description.suffix(12).description] == Array(bytes[..<(16 << 20)]))
        #expect(contents["base/5/16385"] == bytes)
        let identities = entries.compactMap { $0.content?.identity }
        #expect(identities.count == 1)
        try held.close()
    }

    @Test("mode, time and identity are those of the file that was opened")
    func metadata() throws {
        let tree = try TestTree()
        try tree.write("data/file", [1])
        try FileDescriptor.open(tree.path("data/file"), .read).setMode(0o604)
        let entries = try CopyHarness().copy(tree)
        let entry = try #require(entries.first { $0.path == ManifestPath("file") })
        let status = try FileStatus(at: tree.path("data/file"))
        #expect(entry.mode == 0o604)
        #expect(entry.modificationTime == status.modifiedNanoseconds)
        #expect(entry.content?.identity?.inode == status.inode)
        #expect(entry.content?.identity?.birthTime == status.birthNanoseconds ?? 0)
    }

    // MARK: Failures

    @Test("a copy that fails throws the reason, and none of its packs becomes visible")
    func failure() throws {
        let tree = try TestTree()
        try tree.write("data/file", CopyHarness.bytes(3 << 20))
        var harness = CopyHarness()
        harness.files = changing("file", at: .read(2 << 20)) { () throws(KedgeError) in
            throw KedgeError(.inputOutput, "could not read file \"file\"")
        }
        let error = #expect(throws: KedgeError.self) { try harness.copy(tree) }
        #expect(error?.message == "could not read file \"file\"")
        #expect(try harness.packs.readAll().isEmpty)
    }

    @Test("a file that nobody copied fails the backup (lesson 2)")
    func forgotten() throws {
        let listed = ListedEntry(
            path: ManifestPath("a"), mode: 0, modificationTime: 0, kind: .file(.whole, sizeBytes: 0))
        let error = #expect(throws: KedgeError.self) { try ManifestAssembly.entry(listed, results: []) }
        #expect(error?.code == .defect)
    }

    @Test("the read rate holds for all workers together")
    func readRate() throws {
        let time = ManualTime()
        let rate = ReadRate(bytesPerSecond: 1 << 20, time: time)
        let before = time.monotonicNanoseconds()
        for _ in 0..<5 { try rate.take(1 << 20, unless: Interruption()) }
        // The first is free, each of the others waits for the one before.
        #expect(time.monotonicNanoseconds() - before == 4_000_000_000)
        let interruption = Interruption()
        interruption.request(signal: 15)
        let error = #expect(throws: KedgeError.self) { try rate.take(1 << 20, unless: interruption) }
        #expect(error?.code == .interrupted)
    }

    @Test("the manifest gets added files in their places")
    func addedFiles() throws {
        let tree = try TestTree()
        let listing = try tree.walk().listing
        let results = try CopyResults(
            entries: listing.totals.entries, in: tree.workDirectory, random: SystemRandomSource())
        let added = ["backup_label", "zzz", "a"].map { name in
            ManifestEntry(
                path: ManifestPath(name), mode: 0o600, modificationTime: 0,
                kind: .file(FileContent(size: 0, identity: nil, regions: [], extents: [])))
        }
        var found: [String] = []
        try ManifestAssembly.forEachEntry(of: listing, results: results, adding: added) { entry throws(KedgeError) in
            found.append(entry.path.description)
        }
        #expect(found == ["a", "backup_label", "base", "global", "pg_tblspc", "pg_wal", "zzz"])
    }
}

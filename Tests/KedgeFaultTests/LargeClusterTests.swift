// That memory does not grow with the cluster: of 10 TiB in 1,000,000 files that exist on paper alone, a full and a
// delta manifest are written in a process of its own, and read by the built binary, each under 256 MiB by the kernel's
// count. A sample of it outside the long run.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs the shipped binary: scripts/test.sh"))
struct LargeClusterTests {
    private static let limitKiB = 256 << 10
    /// Where the process that writes shall write; nil in the one that starts it.
    private static let place = getenv("KEDGE_TEST_LARGE_CLUSTER").map { String(cString: $0) }
    private static var files: UInt64 { PostgresInstallation.soakIsEnabled ? 1_000_000 : 10_000 }

    @Test("10 TiB in 1,000,000 files: a full and a delta manifest are written and read under 256 MiB")
    func writtenAndRead() throws {
        if let place = Self.place {
            try Self.write(into: place)
            return
        }
        let directory = try TemporaryDirectory()
        let program = try #require(
            try Subprocess(["readlink", "/proc/\(getpid())/exe"]).run().outputText.split(
                separator: "\n"
            ).first.map(String.init))
        var writer = Subprocess([
            program, "--testing-library", "swift-testing", "--filter", "LargeClusterTests",
        ])
        writer.environment["KEDGE_TEST_LARGE_CLUSTER"] = directory.path
        writer.timeout = .seconds(3000)
        let written = try writer.run()
        let lines = written.outputText.split(separator: "\n").filter { $0.hasPrefix("large cluster: ") }
        lines.forEach { print($0) }
        try #require(written.status.isSuccess && lines.count == 3, "\(written.outputText)\n\(written.errorText)")
        try read(directory)
    }

    /// Runs what reads a whole manifest, or every commit record.
    private func read(_ directory: TemporaryDirectory) throws {
        try ServerUserFile.write(
            """
            [repository main]
            path = \(directory("repository"))
            encryption = none

            [cluster main]
            pgdata = \(directory("pgdata"))
            keep-full = 1
            work-directory = \(directory("work"))
            """, to: directory("kedge.conf"))
        let measure = """
            import resource, subprocess, sys
            run = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            sys.stderr.write(run.stderr)
            print(run.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            """
        let commands = [
            ["restore", "--dry-run", "--target-immediate", "--pgdata", directory("elsewhere")], ["info"],
            ["expire", "--dry-run"],
        ]
        for arguments in commands {
            var command = ServerUser.command(
                ["/usr/bin/python3", "-c", measure, try KedgeBinary.path(), "--config", directory("kedge.conf")]
                    + arguments)
            command.timeout = .seconds(1000)
            let outcome = try command.run()
            let words = outcome.outputText.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
            // A restore has read the manifest when it finds that the disk is too small for it.
            let isTooLarge = arguments[0] == "restore" && words.first == 1 && outcome.errorText.contains("enough room")
            try #require(
                words.count == 2 && (words[0] == 0 || isTooLarge),
                "\(arguments): \(outcome.outputText)\(outcome.errorText)")
            print("large cluster: kedge \(arguments[0]): \(words[1] >> 10) MiB")
            #expect(words[1] < Self.limitKiB, "\(arguments)")
        }
    }

    // MARK: - The writing process

    private static func write(into directory: String) throws {
        let memory = try MemoryRepository(encrypted: false, walSegmentSize: 1 << 20)
        try PaperBackup(try memory.cluster()).archive(5...7)
        let root = directory + "/repository"
        try LocalStore.createRoot(at: root)
        let store = try LocalStore(at: root, marker: nil, random: SystemRandomSource())
        for name in memory.store.names {
            _ = try store.put(name, ObjectBody(memory.store.readAll(name, limit: 1 << 30)), .createOnly)
        }
        let source = RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
        let cluster = try source.openCluster("main", for: .write)
        _ = try Directory.create(at: RawPath(directory + "/work"), mode: 0o700)
        let paper = PaperCluster(cluster, files: files, workDirectory: RawPath(directory + "/work"))

        // The highest mark of resident memory begins anew (proc(5)).
        try FileDescriptor.open(RawPath("/proc/self/clear_refs"), .write).write([0x35], at: 0)
        let before = try memoryKiB("VmRSS")
        let full = try paper.writeManifest(label(1, .full), after: nil)
        print(
            "large cluster: full: \(full.root.files) files of \(full.root.bytes >> 30) GiB, \(full.root.parts.count) "
                + "parts of \(full.storedBytes >> 20) MiB, \(full.root.packs.count) packs")
        #expect(full.root.files == files + 2)
        let record = try paper.commit(full.root, label(1, .full), parent: nil)
        let parent = try BackupCatalog(cluster).manifest(of: record)
        let delta = try paper.writeManifest(label(2, .delta), after: parent)
        let kept = Set(parent.parts.map(\.checksum)).intersection(delta.root.parts.map(\.checksum)).count
        print(
            "large cluster: delta: \(kept) of \(parent.parts.count) parts are the parent's, "
                + "\(delta.storedBytes >> 20) MiB new"
        )
        #expect(delta.root.files == full.root.files && delta.root.bytes == full.root.bytes)
        #expect(kept > 0 && delta.storedBytes < full.storedBytes)
        // As many backups as a month has.
        for number in 2...31 {
            var root = delta.root
            root.label = label(number, .delta)
            try paper.commit(root, root.label, parent: label(number - 1, number == 2 ? .full : .delta))
        }
        let growth = try memoryKiB("VmHWM") - before
        print("large cluster: written with \(growth >> 10) MiB")
        // What the process had before is more than kedge itself takes.
        #expect(growth < limitKiB - (32 << 10))
        if ServerUser.isAnother { _ = try Subprocess(["chown", "-R", "postgres:postgres", directory]).run() }
    }

    private static func label(_ number: Int, _ type: BackupType) -> Label {
        guard let label = Label("202611\(number < 10 ? "0" : "")\(number)T020000Z-\(type.rawValue)-7k3q") else {
            preconditionFailure("it is a label")
        }
        return label
    }

    private static func memoryKiB(_ key: String) throws -> Int {
        let line = (readTextFile("/proc/self/status") ?? "").split(separator: "\n").first { $0.hasPrefix(key) }
        return try #require(line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) })
    }
}

/// A data directory that exists on paper: every 97th file is a segment of 1 GiB, the others have a page.
private struct PaperCluster {
    let cluster: ClusterRepository
    let files: UInt64
    let workDirectory: RawPath
    private static let segment: UInt64 = 1 << 30
    private static let range: UInt64 = 64 << 20

    init(_ cluster: ClusterRepository, files: UInt64, workDirectory: RawPath) {
        self.cluster = cluster
        self.files = files
        self.workDirectory = workDirectory
    }

    private struct Packs: PackStore {
        let cluster: ClusterRepository

        func beginPack() throws(KedgeError) -> NewPack {
            let id = RandomID(from: cluster.repository.random)
            let name = ClusterLayout.pack(id)
            let seal = try cluster.newSeal(.pack, name, frameSize: 1 << 20, backupLabel: nil)
            let upload = try cluster.repository.store.beginUpload(cluster.name(name), expectedBytes: 256 << 20)
            return NewPack(id: id, seal: seal, upload: upload)
        }
    }

    /// Goes the way of a backup: listing, results of the workers, and the manifest from both. A delta changes the first
    /// page of every 100th segment, and takes the rest from its parent's manifest beside the listing.
    func writeManifest(
        _ label: Label, after parent: ManifestRoot?
    ) throws(KedgeError) -> (root: ManifestRoot, storedBytes: UInt64) {
        let random = cluster.repository.random
        let listing = try FileListing(in: workDirectory, random: random)
        for name in ["base", "base/16384"] { try listing.append(directory(name)) }
        for number in 0..<files { try listing.append(file(number)) }
        for name in ["global", "pg_tblspc", "pg_wal"] { try listing.append(directory(name)) }
        let results = try CopyResults(entries: listing.totals.entries, in: workDirectory, random: random)
        var before = parent.map { ManifestReader($0, reader: PackReader(PackDirectories(cluster))) }
        var next = try before?.next()
        try listing.forEach { index, listed throws(KedgeError) in
            guard listed.sizeBytes != nil else { return }
            while let entry = next, entry.path < listed.path { next = try before?.next() }
            let number = index - 2
            let content = next.flatMap { $0.path == listed.path ? $0.content : nil }
            try results.record(content.map { taken($0, index, number) } ?? copied(index, number))
        }
        // The parent's manifest ends as its root says.
        while try before?.next() != nil {}

        let writer = PackWriter(Packs(cluster: cluster))
        var added: [ManifestEntry] = []
        for entry in PaperEntry.minimal() {
            guard case .file(let bytes) = entry.kind else { continue }
            let place = try bytes.withBytes { raw throws(KedgeError) in try writer.append(raw, sources: []) }
            let content = FileContent(
                size: UInt64(bytes.count), identity: nil, regions: [ContentHash(of: bytes)],
                extents: [
                    Extent(length: UInt64(bytes.count), source: .pack(place.pack, frame: place.frame, offset: 0))
                ])
            added.append(
                ManifestEntry(path: entry.path, mode: 0o600, modificationTime: 1, kind: .file(content)))
        }
        var manifest = ManifestWriter(
            label: label, reusing: parent?.parts ?? [], hash: { ContentHash(of: $0) },
            store: { part throws(KedgeError) in try PaperCluster.store(part, writer) })
        try ManifestAssembly.forEachEntry(of: listing, results: results, adding: added) { entry throws(KedgeError) in
            try manifest.append(entry)
        }
        let root = try manifest.finish()
        try writer.finish()
        return (root, writer.storedBytes)
    }

    private static func store(_ part: [UInt8], _ writer: PackWriter) throws(KedgeError) -> PartPlace {
        var place: FramePlace?
        for start in stride(from: 0, to: part.count, by: 1 << 20) {
            let next = try Array(part[start..<min(start + (1 << 20), part.count)]).withBytes {
                raw throws(KedgeError) in try writer.append(raw, sources: [], mayClose: start == 0)
            }
            place = place ?? next
        }
        guard let place else { preconditionFailure("a part is never empty") }
        return PartPlace(pack: place.pack, frame: place.frame, offset: 0)
    }

    private func directory(_ path: String) -> ListedEntry {
        ListedEntry(path: ManifestPath(path), mode: 0o700, modificationTime: 1, kind: .directory)
    }

    private func file(_ number: UInt64) -> ListedEntry {
        ListedEntry(
            path: ManifestPath("base/16384/\(10_000_000 + number)"), mode: 0o600,
            modificationTime: 1_795_000_000_000_000_000,
            kind: .file(.relation(firstBlock: 0), sizeBytes: number % 97 == 0 ? PaperCluster.segment : 8192))
    }

    /// What the workers of a full backup say of a file: of a large one in ranges.
    private func copied(_ index: UInt64, _ number: UInt64) -> [CopyResult] {
        guard number % 97 == 0 else {
            return [result(index, start: 0, length: 8192, pack: number / 30_000, seed: number)]
        }
        return (0..<PaperCluster.segment / PaperCluster.range).map { range in
            // Packs of 512 MiB each.
            result(
                index, start: range * PaperCluster.range, length: PaperCluster.range,
                pack: 1000 + number / 97 * 2 + range / 8, seed: number &* 1024 &+ range)
        }
    }

    private func result(
        _ index: UInt64, start: UInt64, length: UInt64, pack: UInt64, seed: UInt64
    ) -> CopyResult {
        var state = seed
        let regions = (0..<max(1, length >> 20)).map { _ in
            state = state &* 0x5851_F42D_4C95_7F2D &+ 0x1405_7B7E_F767_814F
            return ContentHash(high: state, low: state ^ seed)
        }
        let source = Extent.Source.pack(RandomID(high: 0xDA7A, low: pack), frame: UInt32(start >> 20 & 511), offset: 0)
        return CopyResult(
            index: index, start: start, length: length, isCut: false, exists: true, mode: 0o600,
            modificationTime: 1_795_000_000_000_000_000, identity: FileIdentity(inode: index, birthTime: 1),
            regions: regions, extents: [Extent(length: length, source: source)])
    }

    /// What the workers of a delta say of a file that the parent has.
    private func taken(_ content: FileContent, _ index: UInt64, _ number: UInt64) -> [CopyResult] {
        var extents = content.extents
        var regions = content.regions.compactMap { $0 }
        if number % 9700 == 0, let first = extents.first, case .pack(let pack, let frame, _) = first.source {
            let page = Extent(
                length: 8192, source: .pack(RandomID(high: 0xDE17A, low: 1), frame: UInt32(number / 9700), offset: 0))
            let rest = Extent(length: first.length - 8192, source: .pack(pack, frame: frame, offset: 8192))
            extents.replaceSubrange(0..<1, with: [page, rest])
            regions[0] = ContentHash(high: 1, low: number)
        }
        return [
            CopyResult(
                index: index, start: 0, length: content.size, isCut: false, exists: true, mode: 0o600,
                modificationTime: 1_795_000_000_000_000_000, identity: content.identity, regions: regions,
                extents: extents)
        ]
    }

    /// Stores the root and a commit record that goes with it.
    @discardableResult
    func commit(_ root: ManifestRoot, _ label: Label, parent: Label?) throws -> CommitRecord {
        var record = CommitRecord.sample(label, start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312))
        if let parent { (record.type, record.parent) = (.delta, parent) }
        return try PaperBackup(cluster).commit(root, as: record)
    }
}

private enum ServerUserFile {
    /// Writes a file that the server's user can read.
    static func write(_ text: String, to path: String) throws(KedgeError) {
        _ = try DurableFile.write(
            Array(text.utf8), to: RawPath(path), mode: 0o644, random: SystemRandomSource())
    }
}

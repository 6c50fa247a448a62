// A repository in memory with backups as `kedge backup` writes them, and a verification of it.
import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeVerify

struct VerifyHarness {
    let memory: MemoryRepository
    let time = ManualTime()
    var labels: [Label] = []

    static let start: UInt64 = 2

    /// Segments 1 to 8, and a backup from segment 2 to 3.
    init(encrypted: Bool = true) throws {
        memory = try MemoryRepository(encrypted: encrypted, walSegmentSize: 1 << 20)
        try memory.archive(1...8)
    }

    var store: MemoryStore { memory.store }

    /// A file of a backup: new content, or pieces of content that lies in packs already.
    struct File {
        var path: String
        var bytes: [UInt8] = []
        /// In place of `bytes` of its own: pieces of other packs.
        var extents: [Extent]?
    }

    static func page(lsn: UInt64, block: UInt32, isDamaged: Bool = false) -> [UInt8] {
        var page = [UInt8](repeating: 7, count: 8192)
        func put(_ value: UInt64, _ count: Int, at offset: Int) {
            for index in 0..<count { page[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
        }
        put(lsn >> 32, 4, at: 0)
        put(lsn & 0xFFFF_FFFF, 4, at: 4)
        put(100, 2, at: 12)
        put(8000, 2, at: 14)
        put(8192, 2, at: 16)
        put(0, 2, at: 8)
        let checksum = page.withBytes { PageChecksum.compute(page: $0, block: block) }
        put(UInt64(isDamaged ? checksum ^ 1 : checksum), 2, at: 8)
        return page
    }

    /// What every backup has, and a relation of a region and a half, the second one incompressible.
    static func files() -> [File] {
        let random = SeededRandom(seed: 3)
        let relation = (0..<192).flatMap { page(lsn: 100, block: $0) }
        return [
            File(path: "backup_label", bytes: Array("START WAL LOCATION\n".utf8)),
            File(path: "base/5/16384", bytes: relation),
            File(path: "base/5/16385_fsm", bytes: [UInt8](repeating: 0, count: 24_576)),
            File(path: "base/5/notes", bytes: random.bytes(1_200_000)),
            File(path: "global/pg_control", bytes: random.bytes(8192)),
        ]
    }

    /// Commits a backup of `files`, in path order. Packs hold four frames each.
    @discardableResult
    mutating func backUp(
        _ suffix: String = "7k3q", files: [File] = files(), segment: UInt64 = start,
        health: CommitRecord.BackupHealth = .init()
    ) throws -> CommitRecord {
        let label = try #require(Label("20261121T020000Z-full-\(suffix)"))
        let cluster = try memory.cluster()
        let writer = PackWriter(
            Packs(cluster: cluster), limits: PackLimits(storedBytes: 600_000, tableBytes: 1 << 20))
        var entries: [ManifestEntry] = []
        for directory in ["base", "base/5", "global"] {
            entries.append(
                ManifestEntry(path: ManifestPath(directory), mode: 0o700, modificationTime: 0, kind: .directory))
        }
        for file in files { entries.append(try entry(file, writer)) }
        var manifest = ManifestWriter(label: label, hash: { ContentHash(of: $0) }) { (part) throws(KedgeError) in
            let place = try part.withBytes { (raw) throws(KedgeError) in try writer.append(raw, sources: []) }
            return PartPlace(pack: place.pack, frame: place.frame, offset: 0)
        }
        for entry in entries.sorted(by: { $0.path < $1.path }) { try manifest.append(entry) }
        let root = try manifest.finish()
        try writer.finish()
        let catalog = BackupCatalog(cluster)
        var record = CommitRecord.sample(
            label, start: LSN(segment << 20 + 40), stop: LSN((segment + 1) << 20 + 400),
            stopTime: MemoryRepository.commitTime(segment + 1), health: health)
        record.manifest = try catalog.putManifest(root)
        record.packs = root.packs
        record.keySlots = cluster.repository.slots.map(\.json)
        try catalog.commit(record)
        labels.append(label)
        return record
    }

    private struct Packs: PackStore {
        let cluster: ClusterRepository

        func beginPack() throws(KedgeError) -> NewPack {
            let id = RandomID(from: cluster.repository.random)
            let name = ClusterLayout.pack(id)
            return NewPack(
                id: id, seal: try cluster.newSeal(.pack, name),
                upload: try cluster.repository.store.beginUpload(cluster.name(name), expectedBytes: 1))
        }
    }

    private func entry(_ file: File, _ writer: PackWriter) throws -> ManifestEntry {
        let path = ManifestPath(file.path)
        let size = file.extents.map { $0.reduce(UInt64(0)) { $0 + $1.length } } ?? UInt64(file.bytes.count)
        var content = FileContent(size: size, identity: nil, regions: [], extents: file.extents ?? [])
        for start in stride(from: 0, to: file.bytes.count, by: 1 << 20) {
            let region = Array(file.bytes[start..<min(start + 1 << 20, file.bytes.count)])
            content.regions.append(ContentHash(of: region))
            guard file.extents == nil else { continue }
            let length = UInt64(region.count)
            guard region.contains(where: { $0 != 0 }) else {
                content.extents.append(Extent(length: length, source: .zeros))
                continue
            }
            let source = PackSource(
                path: path.bytes, offset: UInt64(start), length: length, checksum: ContentHash(of: region))
            let place = try region.withBytes { (raw) throws(KedgeError) in try writer.append(raw, sources: [source]) }
            content.extents.append(
                Extent(length: length, source: .pack(place.pack, frame: place.frame, offset: 0)))
        }
        return ManifestEntry(path: path, mode: 0o600, modificationTime: 0, kind: .file(content))
    }

    // MARK: - Verifying

    func options(_ reading: Verify.Reading = .full, labels: [Label] = [], source: RepositorySource? = nil)
        -> Verify.Options
    {
        Verify.Options(
            clusterName: "main",
            repositories: [ConfiguredRepository(name: "main", source: .success(source ?? memory.source))],
            labels: labels, reading: reading, workers: 2, hostName: "test")
    }

    func source(_ store: any ObjectStore) -> RepositorySource {
        RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
    }

    func run(
        _ options: Verify.Options, interruption: Interruption = Interruption()
    ) throws -> Verify.Outcome {
        try Verify(
            options, Verify.Tools(time: time, random: SeededRandom(seed: testSeed()), interruption: interruption)
        ).run()
    }

    /// The outcome of a repository that could be read.
    func verify(_ reading: Verify.Reading = .full, labels: [Label] = []) throws -> RepositoryVerification {
        try #require(try run(options(reading, labels: labels)).repositories.first).result.get()
    }

    /// The proofs that are stored, by label.
    func proofs() throws -> [ProofRecord] {
        let catalog = ProofCatalog(try memory.cluster())
        return try catalog.open(catalog.names().proofs.values.flatMap { $0 }).proofs
    }

    /// Verifies a copy of the repository after `change`, without keeping anything.
    func verifyCopy(_ change: (MemoryStore) throws -> Void) throws -> Verify.Outcome {
        let copy = store.copy()
        try change(copy)
        return try run(options(source: source(copy)))
    }
}

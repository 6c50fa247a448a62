// Backups that no server was asked for: any entries and any bytes, sealed and committed as a real backup is. Tests of
// hostile manifests and of damage start from them.
package import KedgeCatalog
import KedgeCodec
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// One entry of a manifest with the bytes that it stands for.
package struct PaperEntry: Sendable {
    package enum Kind: Sendable {
        case directory
        case file([UInt8])
        case extraFile([UInt8])
        case link([UInt8])
        /// Content as the manifest gives it, whatever lies in the packs.
        case content(FileContent)
        case extraContent(FileContent)
    }

    package var path: ManifestPath
    package var mode: UInt32
    package var kind: Kind

    package init(_ path: [UInt8], _ kind: Kind, mode: UInt32 = 0o600) {
        self.path = ManifestPath(bytes: path)
        self.kind = kind
        self.mode = mode
    }

    package init(_ path: String, _ kind: Kind, mode: UInt32 = 0o600) {
        self.init(Array(path.utf8), kind, mode: mode)
    }

    /// What every backup holds: `pg_control` of `system`, and a `backup_label`.
    package static func minimal(system: SystemIdentifier = SystemIdentifier(7)) -> [PaperEntry] {
        let label = """
            START WAL LOCATION: 0/500028 (file 000000010000000000000005)
            CHECKPOINT LOCATION: 0/500060
            BACKUP METHOD: streamed
            BACKUP FROM: primary
            START TIME: 2026-11-21 02:00:00 UTC
            LABEL: kedge
            START TIMELINE: 1

            """
        return [
            PaperEntry("backup_label", .file(Array(label.utf8))), PaperEntry("global", .directory, mode: 0o700),
            PaperEntry(
                "global/pg_control", .file(ArchiveFixture.controlFile(system: system, segmentSize: 1 << 20))),
            PaperEntry("pg_tblspc", .directory, mode: 0o700), PaperEntry("pg_wal", .directory, mode: 0o700),
        ]
    }
}

/// Writes backups into a cluster of a repository.
package struct PaperBackup {
    package let cluster: ClusterRepository
    private let random: SeededRandom
    /// How a commit record is stored.
    package var putCommitRecord: (BackupCatalog, CommitRecord) throws(KedgeError) -> Void = {
        (catalog, record) throws(KedgeError) in try catalog.commit(record)
    }

    package init(_ cluster: ClusterRepository, seed: UInt64 = 1) {
        self.cluster = cluster
        random = SeededRandom(seed: seed)
    }

    /// Stores `entries`, which must be in path order, as a backup that `record` describes but for packs and manifest.
    ///
    /// Data and manifest parts go into packs of their own, with ids that follow from `number`.
    @discardableResult
    package func commit(_ entries: [PaperEntry], as record: CommitRecord, number: UInt64 = 1) throws -> CommitRecord {
        let dataPack = RandomID(high: 0xDA7A, low: number)
        var frames: [[UInt8]] = []
        let listed = entries.map { entry -> ManifestEntry in
            ManifestEntry(
                path: entry.path, mode: entry.mode, modificationTime: 1_795_000_000_000_000_000,
                kind: Self.kind(entry.kind, dataPack, &frames))
        }
        try putPack(dataPack, frames)
        return try commit(listed, as: record, partPack: RandomID(high: 0xBA57, low: number))
    }

    /// Stores a manifest of these entries, in one pack, and the commit record.
    @discardableResult
    package func commit(
        _ entries: [ManifestEntry], as record: CommitRecord, partPack: RandomID
    ) throws -> CommitRecord {
        var encoder = ManifestPartEncoder()
        for entry in entries { encoder.append(entry) }
        return try commit(part: encoder.finish(), of: entries, as: record, partPack: partPack)
    }

    /// Stores these bytes as the only part of a manifest whose root counts `entries`.
    @discardableResult
    package func commit(
        part: [UInt8], of entries: [ManifestEntry], as record: CommitRecord, partPack: RandomID
    ) throws -> CommitRecord {
        var liveBytes: [RandomID: UInt64] = [partPack: UInt64(part.count)]
        var (files, directories, links, bytes): (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        for entry in entries {
            switch entry.kind {
            case .directory: directories += 1
            case .symbolicLink: links += 1
            case .file, .extraFile: files += 1
            }
            bytes &+= entry.content?.size ?? 0
            for extent in entry.content?.extents ?? [] {
                if case .pack(let pack, _, _) = extent.source { liveBytes[pack, default: 0] &+= extent.length }
            }
        }
        try putPack(partPack, stride(from: 0, to: part.count, by: 1 << 20).map { Array(part[$0...].prefix(1 << 20)) })
        let reference = ManifestPartReference(
            first: entries.first?.path ?? ManifestPath("x"), entries: UInt64(entries.count), pack: partPack, frame: 0,
            offset: 0, length: UInt64(part.count), checksum: ContentHash(of: part))
        let root = ManifestRoot(
            label: record.label, files: files, directories: directories, links: links, bytes: bytes,
            parts: [reference],
            packs: liveBytes.map { PackUse(id: $0.key, liveBytes: $0.value) }.sorted { $0.id < $1.id })
        return try commit(root, as: record)
    }

    /// Stores a manifest root and the commit record that goes with it.
    @discardableResult
    package func commit(_ root: ManifestRoot, as record: CommitRecord) throws -> CommitRecord {
        let catalog = BackupCatalog(cluster)
        var record = record
        record.packs = root.packs
        record.manifest = try catalog.putManifest(root)
        try putCommitRecord(catalog, record)
        return record
    }

    private static func kind(
        _ kind: PaperEntry.Kind, _ pack: RandomID, _ frames: inout [[UInt8]]
    ) -> ManifestEntry.Kind {
        func content(_ bytes: [UInt8]) -> FileContent {
            var regions: [ContentHash?] = []
            let first = UInt32(frames.count)
            for start in stride(from: 0, to: bytes.count, by: 1 << 20) {
                let region = Array(bytes[start...].prefix(1 << 20))
                regions.append(ContentHash(of: region))
                frames.append(region)
            }
            let extents = [Extent(length: UInt64(bytes.count), source: .pack(pack, frame: first, offset: 0))]
            return FileContent(
                size: UInt64(bytes.count), identity: nil, regions: regions, extents: bytes.isEmpty ? [] : extents)
        }
        return switch kind {
        case .directory: .directory
        case .link(let target): .symbolicLink(target)
        case .file(let bytes): .file(content(bytes))
        case .extraFile(let bytes): .extraFile(content(bytes))
        case .content(let content): .file(content)
        case .extraContent(let content): .extraFile(content)
        }
    }

    /// Stores a pack of these frames. `table` stands in for the one that describes them, `label` is the backup's whose
    /// pack it is.
    package func putPack(
        _ id: RandomID, _ frames: [[UInt8]], table forged: [UInt8]? = nil, label: Label? = nil
    ) throws {
        let relative = ClusterLayout.pack(id)
        let seal = try cluster.newSeal(.pack, relative, backupLabel: label?.text)
        let sealer = try FrameSealer(seal)
        var tally = ObjectTally(seal)
        var table = PackTableBuilder()
        var buffer = FrameBuffer()
        buffer.append(seal.headerBytes)
        for frame in frames {
            let before = buffer.count
            try frame.withBytes { (raw) throws(KedgeError) in
                try sealer.append(.data, raw: raw, counting: &tally, to: &buffer)
            }
            table.append(
                storedLength: buffer.count - before - FrameHeader.overhead, rawLength: frame.count, sources: [])
        }
        try (forged ?? table.encoded()).withBytes { (raw) throws(KedgeError) in
            try sealer.appendPieces(.table, raw: raw, counting: &tally, to: &buffer)
        }
        try sealer.appendEnd(tally, to: &buffer)
        _ = try cluster.repository.store.put(cluster.name(relative), ObjectBody(Array(buffer.bytes)), .createOnly)
    }

    // MARK: - WAL

    /// Archives segments of 1 MiB, each with one commit, as `MemoryRepository.archive` does.
    package func archive(_ numbers: ClosedRange<UInt64>, timeline: UInt32 = 1, isPartial: Bool = false) throws {
        for number in numbers {
            var builder = WALBuilder(
                system: cluster.newestRegistration.systemIdentifier, timeline: timeline, firstSegment: number)
            builder.appendEnd(commit: true, xid: UInt32(700 + number), time: MemoryRepository.commitTime(number))
            builder.appendSwitch()
            let (segment, bytes) = builder.segments[0]
            let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFacts(of: bytes, segment: segment, isPartial: isPartial, format: builder.format)
            }
            let name = segment.fileName(segmentSize: 1 << 20)
            try archive(isPartial ? .partial(name + ".partial") : .segment(name), bytes, facts)
        }
    }

    /// Archives any WAL file.
    package func archive(_ file: WALFileName, _ bytes: [UInt8], _ segment: WALFacts? = nil) throws {
        let facts = WALFileFacts(
            file: file, length: UInt64(bytes.count),
            tag: bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) },
            archivedAt: Timestamp(secondsSince1970: 1_795_000_000), hostName: "db1", segment: segment)
        _ = try WALArchive(cluster, cluster.newestRegistration).put(bytes, facts: facts, threads: 1)
    }
}

// A repository in memory whose clock the test moves, backups that no server was asked for, and what must hold of all
// that the catalogue shows.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport

/// One cluster in one repository, with a backup in every third segment.
struct ExpireHarness {
    let time = ManualTime(now: Timestamp(secondsSince1970: 1_795_200_000))
    let memory: MemoryRepository
    var rules = RetentionRules(keepFull: 1)

    init() throws {
        memory = try MemoryRepository(
            encrypted: false, walSegmentSize: 1 << 20, store: MemoryStore(time: time))
    }

    func source(_ store: any ObjectStore) -> RepositorySource {
        RepositorySource(settings: memory.settings, openStore: { store }, createStore: { store })
    }

    func cluster(_ store: (any ObjectStore)? = nil) throws(KedgeError) -> ClusterRepository {
        try source(store ?? memory.store).openCluster("main", for: .write)
    }

    static func label(_ number: UInt64, _ type: BackupType = .full) -> Label {
        guard let label = Label("20261121T02\(10 + number)00Z-\(type.rawValue)-\(1000 + number)") else {
            preconditionFailure("it is a label")
        }
        return label
    }

    /// The record of backup `number`, not stored yet: it ended a moment ago.
    func record(_ number: UInt64, base: UInt64? = nil) -> CommitRecord {
        let start = LSN((number * 3) << 20 + 40)
        var record = CommitRecord.sample(
            Self.label(number, base == nil ? .full : .delta), start: start, stop: start + 400, stopTime: time.now())
        if let base {
            record.type = .delta
            record.parent = Self.label(base)
        }
        return record
    }

    /// Takes backup `number` an hour after the one before; a delta refers to the packs of `base`.
    @discardableResult
    func backup(_ number: UInt64, base: UInt64? = nil) throws -> CommitRecord {
        time.advance(seconds: 3600)
        let paper = PaperBackup(try cluster())
        try paper.archive(number * 3...number * 3 + 2)
        var entries = PaperEntry.minimal()
        if let base {
            let old = RandomID(high: 0xDA7A, low: base)
            let extent = Extent(length: 1, source: .pack(old, frame: 0, offset: 0))
            let content = FileContent(size: 1, identity: nil, regions: [nil], extents: [extent])
            entries.append(PaperEntry("shared", .content(content)))
        }
        return try paper.commit(entries, as: record(number, base: base), number: number)
    }

    /// What a backup that died left behind: an intent, a pack and a manifest.
    func dieInBackup(_ number: UInt64) throws {
        let catalog = BackupCatalog(try cluster())
        try catalog.begin(intent(number))
        try PaperBackup(try cluster()).putPack(
            RandomID(high: 0xDEAD, low: number), [[1, 2, 3]], label: Self.label(number))
        _ = try catalog.putManifest(
            ManifestRoot(label: Self.label(number), files: 0, directories: 0, links: 0, bytes: 0, parts: [], packs: []))
    }

    func intent(_ number: UInt64, base: UInt64? = nil) -> Intent {
        Intent(
            label: Self.label(number, base == nil ? .full : .delta), type: base == nil ? .full : .delta,
            parent: base.map { Self.label($0) }, systemIdentifier: SystemIdentifier(7), timeline: TimelineID(1),
            startLSN: LSN((number * 3) << 20 + 40), startedAt: time.now(), hostName: "db1", processID: 4711,
            createdBy: "kedge")
    }

    @discardableResult
    func expire(
        _ store: (any ObjectStore)? = nil, byHand: Label? = nil, isDryRun: Bool = false
    ) throws(KedgeError) -> Expire.Outcome {
        let process = ProcessIdentity(hostName: "db1", processID: 1, bootID: nil, namespace: nil, startTicks: nil)
        return try Expire(
            Expire.Options(
                clusterName: "main", repository: source(store ?? memory.store), rules: rules, byHand: byHand,
                isDryRun: isDryRun, process: process),
            random: SystemRandomSource(), time: time, interruption: Interruption()
        ).run()
    }

    func pinning(_ store: (any ObjectStore)? = nil) throws(KedgeError) -> Pinning {
        Pinning(try cluster(store), hostName: "db1", time: time)
    }

    // MARK: - What must hold

    /// The labels that the catalogue shows, each read back whole: manifest, parts, packs, the WAL that it needs.
    @discardableResult
    func shown(in store: (any ObjectStore)? = nil) throws(KedgeError) -> [Label] {
        let cluster = try cluster(store)
        let listing = try BackupCatalog(cluster).list()
        if let damaged = listing.unreadable.first { throw damaged.error }
        for record in listing.backups { try Self.restore(record, from: cluster) }
        return listing.backups.map(\.label)
    }

    /// Reads what a restore of this backup to its first consistent moment reads.
    static func restore(_ record: CommitRecord, from cluster: ClusterRepository) throws(KedgeError) {
        let root = try BackupCatalog(cluster).manifest(of: record)
        var reader = ManifestReader(root, reader: PackReader(PackDirectories(cluster)))
        while try reader.next() != nil {}
        for pack in root.packs {
            _ = try cluster.repository.store.readPrefix(cluster.name(ClusterLayout.pack(pack.id)), limit: 1)
        }
        let archive = WALArchive(cluster, cluster.newestRegistration)
        for number in record.span.startLSN.position >> 20...(record.span.stopLSN.position - 1) >> 20 {
            let segment = WALSegment(timeline: record.span.timeline, number: number)
            guard let file = try archive.find(.segment(segment.fileName(segmentSize: 1 << 20))).first else {
                throw KedgeError(.walGap, "segment \(segment) is gone", hint: "This is a test.")
            }
            _ = try archive.read(file, threads: 1)
        }
    }

    /// The names of all objects below `directory` of the cluster.
    func names(_ directory: String, in store: MemoryStore? = nil) -> [String] {
        (store ?? memory.store).names.map(\.text).filter { $0.hasPrefix("main/\(directory)/") }
            .map { String($0.dropFirst("main/".count)) }
    }

    /// The numbers of archived segments.
    func segments(in store: MemoryStore? = nil) -> [UInt64] {
        names("wal", in: store).compactMap { name in
            name.split(separator: "/").last.flatMap { WALSegment(fileName: $0, segmentSize: 1 << 20)?.number }
        }
    }
}

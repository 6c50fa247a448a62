// The repository that the damage table is computed from: every kind of object, in an encrypted and in a plain form,
// with a second cluster and a second repository whose objects have the same names.
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport

/// One kind of object, by the name of the one that is damaged.
enum DamagedKind: String, CaseIterable {
    case marker = "kedge.json"
    case feature = "feature"
    case keySlot = "key slot"
    case registration = "registration"
    case segment = "WAL segment"
    case history = "timeline history"
    case backupHistory = "backup history file"
    case partial = "partial segment"
    case dataPack = "pack with data"
    case partPack = "pack with manifest parts"
    case manifest = "manifest root"
    case intent = "intent"
    case commitRecord = "commit record"
    case proof = "proof"
    case lease = "lease"
    case pin = "pin"
    case condemned = "condemned mark"
    case removing = "removing mark"
    case gap = "known gap"
}

/// Two clusters in one repository. Samples of one seed have the same ids and names, encrypted or not.
struct DamageSample {
    static let labels = ["20261121T020000Z-full-aaaa", "20261122T020000Z-full-bbbb"]
    /// Older ones: two that are pinned, two that are about to be removed.
    static let pinned = ["20261119T020000Z-full-eeee", "20261119T030000Z-full-ffff"]
    static let condemned = ["20261118T020000Z-full-gggg", "20261118T030000Z-full-hhhh"]
    static let running = ["20261123T020000Z-full-cccc", "20261124T020000Z-full-dddd"]
    /// The file that a good `archive-get` is asked for where the damage is elsewhere.
    static let goodFile = "000000010000000000000005"

    let repository: MemoryRepository
    /// What the leases were before they were renewed.
    private(set) var olderLeases: [ObjectName: [UInt8]] = [:]

    var store: MemoryStore { repository.store }

    init(encrypted: Bool, seed: UInt64 = 1) throws {
        let random = SeededRandom(seed: seed)
        repository = try MemoryRepository(encrypted: encrypted, walSegmentSize: 1 << 20, random: random)
        let otherID = RandomID(high: 0x07E4, low: seed)
        let opened = try repository.open()
        _ = try store.put(
            "feature/future", ObjectBody(Array(#"{"kedge":"feature","name":"future","neededTo":["expire"]}"#.utf8)),
            .createOnly)
        if let secret = repository.secret, let slot = opened.slots.first {
            // A second slot of the same key, as `key add` makes it.
            try Repository.putKeySlot(
                KeySlot.wrap(
                    slot.unwrap(with: secret), with: secret, repositoryID: opened.identity.id, label: "second",
                    createdAt: repository.registration.createdAt, random: random), in: store)
        }
        for name in ["main", "other"] {
            var registration = repository.registration
            registration.name = name
            if name == "other" { registration.clusterID = otherID }
            let cluster = try ClusterRepository.register(registration, in: opened).cluster
            // The system before pg_upgrade: registered earlier, so never the one that is restored by itself.
            registration.clusterID = cluster.clusterID
            registration.systemIdentifier = SystemIdentifier(6)
            registration.createdAt = registration.createdAt.adding(seconds: -1000)
            let older = ClusterLayout.registration(registration.systemIdentifier)
            let sealed = try SealedObject.seal(
                .registration, name: ScopedName(scope: opened.identity.id, name: older.text),
                contents: Array(registration.jsonValue.compactText.utf8), keyRing: opened.keyRing, random: random)
            _ = try store.put(cluster.name(older), ObjectBody(sealed), .createOnly)
            try Self.fill(cluster)
            try lease(cluster)
        }
    }

    /// WAL of two timelines, two backups, two that are under way.
    private static func fill(_ cluster: ClusterRepository) throws {
        let paper = PaperBackup(cluster)
        try paper.archive(1...1)
        try paper.archive(3...8)
        try paper.archive(9...9, isPartial: true)
        try paper.archive(9...10, timeline: 2)
        try paper.archive(11...11, timeline: 2, isPartial: true)
        for (timeline, text) in [
            (2, "1\t0/900000\tno recovery target specified\n"),
            (3, "1\t0/900000\tno recovery target specified\n2\t0/B00080\tno recovery target specified\n"),
        ] as [(UInt32, String)] { try paper.archive(.history(TimelineID(timeline)), Array(text.utf8)) }
        for number in [5, 6] as [UInt64] {
            let name = "00000001000000000000000\(number).00000028.backup"
            try paper.archive(.backup(name), Array("START WAL LOCATION: 0/\(number)00028\n".utf8))
        }
        for (index, text) in labels.enumerated() {
            guard let record = try commit(text, number: UInt64(index + 1), start: UInt64(5 + index), paper) else {
                continue
            }
            try prove(record, cluster)
        }
        for (index, text) in (pinned + condemned).enumerated() {
            _ = try commit(text, number: UInt64(index + 3), start: 3, paper)
        }
        for text in running {
            guard let label = Label(text) else { continue }
            try BackupCatalog(cluster).begin(
                Intent(
                    label: label, type: .full, parent: nil, systemIdentifier: SystemIdentifier(7),
                    timeline: TimelineID(1), startLSN: LSN(8 << 20 | 40), startedAt: MemoryRepository.commitTime(8),
                    hostName: "db1", processID: 7, createdBy: "kedge"))
        }
        try mark(cluster)
    }

    private static func commit(
        _ text: String, number: UInt64, start: UInt64, _ paper: PaperBackup
    ) throws -> CommitRecord? {
        guard let label = Label(text) else { return nil }
        let record = CommitRecord.sample(
            label, start: LSN(start << 20 | 40), stop: LSN((start + 1) << 20 | 312),
            stopTime: MemoryRepository.commitTime(start + 1))
        let entries =
            PaperEntry.minimal() + [
                PaperEntry("base", .directory, mode: 0o700),
                PaperEntry("base/1259", .file(SeededRandom(seed: number).bytes(5000))),
                PaperEntry("base/1260", .file([UInt8](repeating: UInt8(number), count: 5000))),
            ]
        return try paper.commit(entries.sorted { $0.path < $1.path }, as: record, number: number)
    }

    /// What retention keeps in the catalogue, and a hole in the log that somebody knows of.
    private static func mark(_ cluster: ClusterRepository) throws {
        let (marks, time) = (RetentionCatalog(cluster), MemoryRepository.commitTime(9))
        for label in pinned.compactMap({ Label($0) }) {
            _ = try marks.put(Pin(label: label, pinnedAt: time, hostName: "db1"))
        }
        for (text, stage) in condemned.flatMap({ text in CondemnedMark.Stage.allCases.map { (text, $0) } }) {
            guard let label = Label(text) else { continue }
            try marks.put(
                CondemnedMark(label: label, stage: stage, reason: "no rule", condemnedAt: time, hostName: "db1"))
        }
        for number in [2, 0] as [UInt64] {
            try WALArchive(cluster, cluster.newestRegistration).put(
                KnownGap(
                    systemIdentifier: SystemIdentifier(7), timeline: TimelineID(1), numbers: number...number,
                    reason: .acknowledged, createdAt: time, hostName: "db1"))
        }
    }

    /// The older backup failed its verification, the newer one passed it.
    private static func prove(_ record: CommitRecord, _ cluster: ClusterRepository) throws {
        let finished = Timestamp(secondsSince1970: 1_795_100_000)
        let proof = ProofRecord(
            label: record.label, level: .verified, result: record.label.text == labels[0] ? .failed : .passed,
            repositoryName: cluster.repository.name,
            repositoryID: cluster.repository.identity.id, manifest: record.manifest, started: finished,
            finished: finished, hostName: "db1", createdBy: "kedge")
        _ = try ProofCatalog(cluster).put(proof)
    }

    /// Two kinds of work under way, each renewed once.
    private mutating func lease(_ cluster: ClusterRepository) throws {
        for (index, operation) in ["backup", "expire"].enumerated() {
            let request = LeaseRequest(
                operation: operation, process: ProcessIdentity(hostName: "db1", processID: Int32(70 + index)),
                label: Self.running[index])
            func progress(_ done: UInt64) -> WorkProgress.Snapshot {
                WorkProgress.Snapshot(step: "copying", number: 1, doneBytes: done, totalBytes: 100)
            }
            let lease = try Lease.take(request, in: cluster, progress: progress(10), time: ManualTime())
            guard let name = self.name(.lease, index, cluster: cluster.clusterName) else { continue }
            olderLeases[name] = try store.readAll(name, limit: 1 << 20)
            _ = try lease.renew(progress(20))
        }
    }

    /// The object of a kind that is damaged (0), and another one of the same kind (1); nil where there is none.
    func name(_ kind: DamagedKind, _ index: Int = 0, cluster: String = "main") -> ObjectName? {
        let names = store.names
        func below(_ prefix: String) -> [ObjectName] { names.filter { $0.text.hasPrefix("\(cluster)/\(prefix)") } }
        let backup = 1 - index
        let found: [ObjectName?] =
            switch kind {
            case .marker: ["kedge.json"]
            case .feature: ["feature/future"]
            case .keySlot: names.filter { $0.text.hasPrefix("key/") }
            case .registration: below("system/").reversed()
            case .segment:
                ["7", "8"].map { ObjectName("\(cluster)/wal/7/00000001/00000000/00000001000000000000000\($0)") }
            case .history: below("wal/7/history/").filter { $0.text.hasSuffix(".history") }.reversed()
            case .backupHistory: below("wal/7/history/").filter { $0.text.hasSuffix(".backup") }
            case .partial: below("wal/7/0").filter { $0.text.contains(".partial") }.reversed()
            case .dataPack:
                [ObjectName("\(cluster)/\(ClusterLayout.pack(RandomID(high: 0xDA7A, low: UInt64(backup + 1))))")]
            case .partPack:
                [ObjectName("\(cluster)/\(ClusterLayout.pack(RandomID(high: 0xBA57, low: UInt64(backup + 1))))")]
            case .manifest: [ObjectName("\(cluster)/backup/\(Self.labels[backup])/manifest")]
            case .intent: [ObjectName("\(cluster)/catalog/intent/\(Self.running[index])")]
            case .commitRecord: [ObjectName("\(cluster)/catalog/backup/\(Self.labels[backup])")]
            case .proof: below("catalog/proof/\(Self.labels[backup])/")
            case .pin: [ObjectName("\(cluster)/catalog/pin/\(Self.pinned[index])")]
            case .condemned: [ObjectName("\(cluster)/catalog/condemned/\(Self.condemned[index])")]
            case .removing: [ObjectName("\(cluster)/catalog/removing/\(Self.condemned[index])")]
            case .gap: below("catalog/gap/7/").reversed()
            case .lease: [ObjectName("\(cluster)/\(ClusterLayout.leases)/\(index == 0 ? "backup" : "expire")")]
            }
        let position = found.count == 1 ? 0 : index
        return position < found.count ? found[position] : nil
    }
}

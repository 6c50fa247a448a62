// Records: JSON itself, and everything that is read from it.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport

extension FuzzTarget {
    static let recordTargets: [FuzzTarget] = [
        FuzzTarget(
            "json", seeds: [commitSeed, factsSeed, Array(#"[1.5e3,"\ud83d\ude00",-0,18446744073709551615]"#.utf8)]
        ) {
            (bytes) throws(KedgeError) in
            let value = try JSONValue(parsing: bytes, what: "text")
            for text in [value.compactText, value.prettyText] {
                let again = try JSONValue(parsing: Array(text.utf8), what: "text")
                require(again == value, "JSON is written as it was read: \(text)")
            }
        },
        FuzzTarget("commit-record", maximumLength: 8192, seeds: [commitSeed]) { (bytes) throws(KedgeError) in
            let record = try CommitRecord(JSONRecord(parsing: bytes, what: "commit record"))
            let again = try CommitRecord(JSONRecord(record.jsonValue, what: "commit record"))
            require(again.jsonValue == record.jsonValue, "a commit record is written as it was read")
        },
        FuzzTarget("intent", seeds: [intentSeed]) { (bytes) throws(KedgeError) in
            let intent = try Intent(JSONRecord(parsing: bytes, what: "intent"))
            require(try Intent(JSONRecord(intent.jsonValue, what: "intent")) == intent, "an intent is written as read")
        },
        FuzzTarget("manifest-root", seeds: [rootSeed]) { (bytes) throws(KedgeError) in
            let root = try ManifestRoot(JSONRecord(parsing: bytes, what: "manifest"))
            require(try ManifestRoot(JSONRecord(root.jsonValue, what: "manifest")) == root, "a root is written as read")
        },
        FuzzTarget("registration", seeds: [registrationSeed]) { (bytes) throws(KedgeError) in
            let found = try Registration(JSONRecord(parsing: bytes, what: "registration"))
            let again = try Registration(JSONRecord(found.jsonValue, what: "registration"))
            require(again == found, "a registration is written as it was read")
            _ = WALFormat(
                systemIdentifier: found.systemIdentifier, version: .v15, segmentSize: UInt32(found.walSegmentSize),
                walBlockSize: found.walBlockSize)
        },
        FuzzTarget("kedge-json", maximumLength: 1024, seeds: [identitySeed]) { (bytes) throws(KedgeError) in
            let identity = try RepositoryIdentity(JSONRecord(parsing: bytes, what: "repository"))
            let again = try RepositoryIdentity(JSONRecord(identity.jsonValue, what: "repository"))
            require(again == identity, "kedge.json is written as it was read")
        },
        FuzzTarget(
            "feature", maximumLength: 1024,
            seeds: [#"["read","write","expire"]"#, "[]"].map {
                Array(#"{"kedge":"feature","name":"digest","neededTo":\#($0)}"#.utf8)
            }
        ) { (bytes) throws(KedgeError) in
            for use in [RepositoryUse.read, .write, .expire] {
                try FeatureGate.check(JSONRecord(parsing: bytes, what: "feature"), for: use)
            }
        },
        FuzzTarget("key-slot", seeds: [slotSeed]) { (bytes) throws(KedgeError) in
            let slot = try KeySlot(parsing: bytes, what: "key slot")
            require(try KeySlot(JSONRecord(slot.json, what: "key slot")) == slot, "a slot is written as it was read")
            // Passphrases cost memory and time by design; which costs are accepted is in KeySlotTests.
            if slot.accepts(slotSecret) { _ = try slot.unwrap(with: slotSecret) }
        },
        FuzzTarget("wal-facts", maximumLength: 8192, seeds: [factsSeed, historyFactsSeed]) {
            (bytes) throws(KedgeError) in
            let facts = try WALFileFacts(JSONRecord(parsing: bytes, what: "facts"))
            require(
                try WALFileFacts(JSONRecord(facts.jsonValue, what: "facts")) == facts, "facts are written as read")
            guard let segment = facts.segment else { return }
            _ = WALFacts.straddling(segment, segment, version: .v17)
            for xid in [0, 700, .max] as [UInt32] { _ = segment.events.endedTransactions?.contains(xid) }
        },
        FuzzTarget("lease", seeds: [leaseSeed]) { (bytes) throws(KedgeError) in
            let lease = try LeaseRecord(JSONRecord(parsing: bytes, what: "lease"))
            require(try LeaseRecord(JSONRecord(lease.jsonValue, what: "lease")) == lease, "a lease is written as read")
            _ = (lease.progressText, lease.renewed(at: time, .init(step: "", number: 0, doneBytes: 0, totalBytes: nil)))
            for age in [Int64.min, 0, .max] {
                let seen = LeaseObservation(record: lease, ageSeconds: age, holderHasEnded: false)
                if case .held(let seconds) = LeaseVerdict.of(seen, for: RandomID(high: 0, low: 0)) {
                    require(seconds <= LeaseVerdict.longestExpirySeconds + 1, "no lease locks others out for long")
                }
            }
        },
        FuzzTarget("proof", maximumLength: 8192, seeds: [proofSeed]) { (bytes) throws(KedgeError) in
            let proof = try ProofRecord(JSONRecord(parsing: bytes, what: "proof"))
            require(try ProofRecord(JSONRecord(proof.jsonValue, what: "proof")) == proof, "a proof is written as read")
            require(
                ProofName(label: proof.label, proof.name.text[...]) == proof.name, "a name is read as it is written")
            let standing = ProofStanding(
                of: proof.label, manifest: proof.manifest, repositoryID: proof.repositoryID, proofs: [proof])
            require(standing.proof == nil || proof.result == .passed, "what did not pass proves nothing")
        },
        FuzzTarget("recoverable-windows", maximumLength: 16384, seeds: [windowsSeed], windows),
    ]

    /// A whole catalogue, a line an item: a commit record, a timeline's history, or the name of an archived file.
    private static let windows: @Sendable ([UInt8]) throws(KedgeError) -> Void = { (bytes) throws(KedgeError) in
        var backups: [CommitRecord] = []
        var histories: [TimelineID: TimelineHistory] = [:]
        var inventory = WALInventory(segmentSize: 1 << 20)
        for line in bytes.split(separator: 0x0A) {
            switch line.first {
            case UInt8(ascii: "{"):
                backups.append(try CommitRecord(JSONRecord(parsing: line, what: "commit record")))
            case UInt8(ascii: "H"):
                let fields = line.dropFirst().split(separator: 0x3B)
                guard let first = fields.first, let id = TimelineID(hex: String(decoding: first, as: UTF8.self)) else {
                    continue
                }
                let text = Array(fields.dropFirst().joined(separator: [0x0A]))
                histories[id] = try TimelineHistory(parsing: text, timeline: id)
            default: inventory.add(objectNamed: String(decoding: line, as: UTF8.self), storedBytes: 1)
            }
        }
        let archive = ArchivedWAL(inventory: inventory, histories: histories)
        for timeline in inventory.timelines { _ = (timeline.segmentCount, timeline.gaps) }
        for window in RecoverableWindows.find(backups: backups, archive: archive) {
            var links = 0
            window.chain.forEachLink { _ in
                links += 1
                return links < 1000
            }
            window.forEachLinkBackwards { _ in
                links -= 1
                return links > 0
            }
        }
    }

    // MARK: - Seeds

    private static func text(_ value: JSONValue) -> [UInt8] { Array(value.compactText.utf8) }

    private static let label = Label("20261121T020000Z-full-7k3q")
    private static let time = Timestamp(secondsSince1970: 1_795_000_000)

    private static let commitSeed: [UInt8] =
        label.map { label in
            var record = CommitRecord.sample(
                label, timeline: 2, start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312),
                health: .init(
                    damagedPages: [.init(path: ManifestPath(bytes: Array("base/1/1259".utf8)), block: 7)],
                    damagedPageCount: 1,
                    walSuspect: [.init(file: "000000020000000000000005", lsn: LSN(5 << 20), reason: "r")],
                    fallbacks: ["f"]))
            record.packs = [PackUse(id: RandomID(high: 1, low: 2), liveBytes: 100)]
            return text(record.jsonValue)
        } ?? []

    private static let intentSeed: [UInt8] =
        label.map { label in
            text(
                Intent(
                    label: label, type: .full, parent: nil, systemIdentifier: SystemIdentifier(7),
                    timeline: TimelineID(1),
                    startLSN: LSN(40), startedAt: time, hostName: "db1", processID: 99, createdBy: "kedge"
                ).jsonValue)
        } ?? []

    private static let rootSeed: [UInt8] =
        label.map { label in
            let pack = RandomID(high: 1, low: 2)
            let parts = ["backup_label", "base"].map {
                ManifestPartReference(
                    first: ManifestPath($0), entries: 3, pack: pack, frame: 1, offset: 0, length: 200,
                    checksum: ContentHash(high: 5, low: 6))
            }
            return text(
                ManifestRoot(
                    label: label, files: 4, directories: 1, links: 1, bytes: 9000, parts: parts,
                    packs: [PackUse(id: pack, liveBytes: 9400)]
                ).jsonValue)
        } ?? []

    private static let registrationSeed = text(
        Registration(
            clusterID: RandomID(high: 1, low: 2), name: "main", systemIdentifier: SystemIdentifier(7),
            postgresVersion: 15, catalogVersion: 202_209_061, walSegmentSize: 16 << 20, blockSize: 8192,
            walBlockSize: 8192, relationSegmentBlocks: 131_072, createdAt: time, createdBy: "kedge"
        ).jsonValue)

    private static let identitySeed = text(
        RepositoryIdentity(id: RandomID(high: 1, low: 2), createdAt: time, createdBy: "kedge").jsonValue)

    private static let slotSecret = KeyEncryptionSecret.keyFile(Secret([UInt8](repeating: 9, count: 32)))

    private static let slotSeed = seed { () throws(KedgeError) in
        let random = SeededRandom(seed: 3)
        return text(
            try KeySlot.wrap(
                DataKey(sequence: 1, random: random), with: slotSecret, repositoryID: RandomID(high: 1, low: 2),
                label: "main", createdAt: time, random: random
            ).json)
    }

    private static let factsSeed = seed { () throws(KedgeError) in
        var builder = WALBuilder(version: .v17)
        for xid in [700, 701, 705] as [UInt32] { builder.appendEnd(commit: xid != 701, xid: xid, time: time) }
        builder.appendRestorePoint(Array("before".utf8), time: time)
        builder.appendTablespace(16384, path: Array("/ts".utf8))
        builder.appendCheckpoint(redo: builder.lsn, shutdown: false, time: time)
        builder.appendSwitch()
        let (segment, bytes) = builder.segments[0]
        let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts(of: bytes, segment: segment, isPartial: false, format: builder.format)
        }
        return text(
            WALFileFacts(
                file: .segment(segment.fileName(segmentSize: 1 << 20)), length: 1 << 20,
                tag: ContentHash(high: 1, low: 2), archivedAt: time, hostName: "db1", segment: facts
            ).jsonValue)
    }

    private static let historyFactsSeed = text(
        WALFileFacts(
            file: .history(TimelineID(2)), length: 40, tag: ContentHash(high: 1, low: 2), archivedAt: time,
            hostName: "db1", segment: nil
        ).jsonValue)

    private static let leaseSeed: [UInt8] = {
        let process = ProcessIdentity(
            hostName: "db1", processID: 7, bootID: "b", namespace: "pid:[4026531836]", startTicks: 9)
        return text(
            LeaseRecord(
                operation: "backup", holder: RandomID(high: 1, low: 2), process: process,
                label: "20261121T020000Z-full-7k3q", takenAt: time, expiresAfterSeconds: 300,
                progress: .init(step: "copying", number: 1, doneBytes: 5, totalBytes: 100), createdBy: "kedge"
            ).jsonValue)
    }()

    private static let proofSeed: [UInt8] =
        label.map { label in
            let backup = CommitRecord.sample(label, start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312))
            return text(ProofRecord.sample(of: backup, in: RandomID(high: 1, low: 2), finished: time).jsonValue)
        } ?? []

    private static let windowsSeed: [UInt8] =
        commitSeed
        + Array(
            """

            H00000002;1\t0/500028\tno recovery target specified
            000000010000000000000004
            000000010000000000000005
            000000020000000000000005
            000000020000000000000006
            000000020000000000000007.partial-00000000000000010000000000000002
            00000002.history
            """.utf8)
}

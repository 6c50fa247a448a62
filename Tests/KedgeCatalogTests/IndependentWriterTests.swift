// That two programs written from FORMAT.md alone agree: repositories that Catalog/testing/writer.py made are read here
// to the last byte, and every fault of Catalog/testing/scenarios.py is refused with the same code as by
// Catalog/reader.py.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

/// Repositories written by Catalog/testing/scenarios.py: a sound one, and one for each fault.
struct ForeignRepositories {
    struct Scenario {
        let name: String
        /// The code of the error; nil for the sound repository.
        let code: String?
        /// What must fail: `list`, `restore` or `wal`.
        let command: String
        /// Whether reading everything succeeds, and only a restore can tell.
        let onlyRestoring: Bool
        /// What opens the repository, if it is not the key file.
        let passphrase: String?
    }

    let directory: TemporaryDirectory
    let isEncrypted: Bool
    let label: Label
    let segment: WALFileName
    let scenarios: [Scenario]

    /// The package's directory.
    static let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()

    init(encrypted: Bool, only name: String? = nil) throws {
        isEncrypted = encrypted
        directory = try TemporaryDirectory()
        let script = Self.root + "/Catalog/testing/scenarios.py"
        // Debian's own Python: another one in PATH would not have the packages.
        let outcome = try Subprocess(
            ["/usr/bin/python3", script, "write", directory("all")] + (encrypted ? [] : ["--plain"])
                + (name.map { ["--only", $0] } ?? [])
        ).run()
        try #require(outcome.status.isSuccess, "\(outcome.errorText)")
        let index = try JSONRecord(parsing: Self.read("index.json", in: directory("all")), what: "index")
        label = try #require(Label(index.string("label")))
        segment = try #require(WALFileName(index.string("segment")))
        scenarios = try index.records("scenarios").map {
            Scenario(
                name: try $0.string("name"), code: try $0.optionalString("code"),
                command: try $0.string("command"), onlyRestoring: try $0.bool("onlyRestoring"),
                passphrase: try $0.optionalString("passphrase"))
        }
    }

    /// Opens one of the repositories as a host would that is configured for its cipher.
    func open(_ name: String) throws -> ClusterRepository {
        let secret: KeyEncryptionSecret? =
            if !isEncrypted {
                nil
            } else if let passphrase = scenarios.first(where: { $0.name == name })?.passphrase {
                try KeyEncryptionSecret(parsingPassphrase: Array(passphrase.utf8), what: "passphrase")
            } else {
                try KeyEncryptionSecret(
                    parsingKeyFile: Self.read("\(name).key", in: directory("all")), what: "key file")
            }
        let settings = RepositorySettings(
            name: "main", cipher: isEncrypted ? .aes256GCM : .none, compression: .standard, secret: secret)
        let store = try LocalStore(at: directory("all/\(name)"), random: SystemRandomSource())
        return try ClusterRepository.open(Repository.open(store, settings, for: .read), clusterName: "main")
    }

    private static func read(_ name: String, in directory: String) throws -> [UInt8] {
        try LocalStore(at: directory, marker: nil, random: SystemRandomSource())
            .readPrefix(#require(ObjectName(name)), limit: 1 << 20)
    }
}

@Suite struct IndependentWriterTests {
    /// Reads the backup to its last byte. Returns its entries, and the raw bytes of its files by path.
    static func readBackup(
        _ label: Label, of cluster: ClusterRepository
    ) throws -> (entries: [ManifestEntry], contents: [ManifestPath: [UInt8]]) {
        let catalog = BackupCatalog(cluster)
        let root = try catalog.committedManifest(of: catalog.commitRecord(label))
        let packs = PackReader(PackDirectories(cluster))
        var reader = ManifestReader(root, reader: packs)
        var entries: [ManifestEntry] = []
        var contents: [ManifestPath: [UInt8]] = [:]
        while let entry = try reader.next() {
            entries.append(entry)
            guard let content = entry.content else { continue }
            var bytes: [UInt8] = []
            for extent in content.extents {
                switch extent.source {
                case .zeros: bytes += [UInt8](repeating: 0, count: Int(extent.length))
                case .pack(let pack, let frame, let offset):
                    try packs.read(pack, frame: frame, offset: offset, length: extent.length) {
                        bytes.append(contentsOf: $0)
                    }
                }
            }
            contents[entry.path] = bytes
        }
        return (entries, contents)
    }

    /// Faults that the two readers take differently, and why both are right.
    static let differing = [
        "segment-is-a-fifo": "a local store sees regular files only, so there is a gap",
        "twin-segments": "a name with a tag is looked at only where there is none without: that saves a listing",
    ]

    static func readWAL(_ file: WALFileName, of cluster: ClusterRepository) throws -> [UInt8] {
        let archive = WALArchive(cluster, cluster.newestRegistration)
        let found = try archive.find(file)
        guard found.count == 1 else {
            throw KedgeError(found.isEmpty ? .walGap : .archiveConflict, "could not find the one WAL file \"\(file)\"")
        }
        return try archive.read(found[0], threads: 2).bytes
    }

    @Test("what an independent writer wrote is read to the last byte", arguments: [true, false])
    func sound(encrypted: Bool) throws {
        let repositories = try ForeignRepositories(encrypted: encrypted, only: "sound")
        let cluster = try repositories.open("sound")
        let (entries, contents) = try Self.readBackup(repositories.label, of: cluster)
        #expect(entries.count == 23)
        for entry in entries {
            guard let content = entry.content else { continue }
            let bytes = try #require(contents[entry.path])
            #expect(UInt64(bytes.count) == content.size)
            for (number, checksum) in content.regions.enumerated() {
                guard let checksum else { continue }
                let start = number * Int(regionSize)
                let region = Array(bytes[start..<min(start + Int(regionSize), bytes.count)])
                #expect(ContentHash(of: region) == checksum, "region \(number) of \(entry.path)")
            }
        }
        #expect(contents[ManifestPath("PG_VERSION")] == Array("15\n".utf8))
        #expect(try Self.readWAL(repositories.segment, of: cluster).count == 1 << 20)
        let archive = WALArchive(cluster, cluster.newestRegistration)
        let facts = try archive.facts(of: archive.find(repositories.segment)[0])
        #expect(facts.segment?.events.restorePoints.first?.name == RawPath(bytes: [0xFF]))
        #expect(facts.segment?.events.endedTransactions?.contains(737) == false)
        #expect(facts.segment?.events.endedTransactions?.contains(738) == true)
    }

    @Test("every fault that an independent writer can make is refused, by the expected code", arguments: [true, false])
    func faults(encrypted: Bool) throws {
        let repositories = try ForeignRepositories(encrypted: encrypted)
        for scenario in repositories.scenarios {
            guard let expected = scenario.code, !scenario.onlyRestoring, Self.differing[scenario.name] == nil else {
                continue
            }
            var code: ErrorCode?
            do {
                let cluster = try repositories.open(scenario.name)
                switch scenario.command {
                case "restore": _ = try Self.readBackup(repositories.label, of: cluster)
                case "wal": _ = try Self.readWAL(repositories.segment, of: cluster)
                default: break
                }
            } catch {
                code = (error as? KedgeError)?.code
            }
            #expect(code?.rawValue == expected, "\(scenario.name)")
        }
        #expect(repositories.scenarios.count > 200)
    }
}

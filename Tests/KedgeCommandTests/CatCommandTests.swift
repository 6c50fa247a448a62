// What `cat` prints of every kind of object, and what it says to a name that is none, to a view that an object does not
// have, and to an object that is damaged: whole texts, run through the tool.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct CatCommandTests {
    let directory: TemporaryDirectory
    let cluster: ClusterRepository
    let identity: RepositoryIdentity

    /// A plain local repository with a backup's records, a manifest of three entries in a pack, and a history file.
    init() throws {
        directory = try TemporaryDirectory()
        let memory = try MemoryRepository(encrypted: false, walSegmentSize: 1 << 20)
        identity = memory.identity
        try memory.archive(5...5)
        cluster = try memory.cluster()
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        try BackupCatalog(cluster).commit(
            CommitRecord.sample(label, start: LSN(5 << 20), stop: LSN(5 << 20 + 400)))
        _ = try BackupCatalog(cluster).putManifest(CatCommandTests.manifest(label, in: cluster))
        let store = try LocalStore(at: directory.path, marker: nil, random: SystemRandomSource())
        for (name, bytes) in memory.store.contents { _ = try store.put(name, ObjectBody(bytes), .createOnly) }
    }

    private static let pack = RandomID(high: 5, low: 6)

    private static func manifest(_ label: Label, in cluster: ClusterRepository) throws -> ManifestRoot {
        let content = FileContent(
            size: 2, identity: nil, regions: [nil],
            extents: [Extent(length: 1, source: .zeros), Extent(length: 1, source: .zeros)])
        let entries = [
            ManifestEntry(
                path: ManifestPath(bytes: Array("base".utf8)), mode: 0o700, modificationTime: 1_000_000_000,
                kind: .directory),
            ManifestEntry(
                path: ManifestPath(bytes: Array("base/\u{9B}x".utf8)), mode: 0o600, modificationTime: 0,
                kind: .file(content)),
            ManifestEntry(
                path: ManifestPath(bytes: Array("pg_wal".utf8)), mode: 0o777, modificationTime: 0,
                kind: .symbolicLink(Array("/wal".utf8))),
        ]
        let writer = try PackSample(pack, in: cluster)
        var manifest = ManifestWriter(label: label, hash: { ContentHash(of: $0) }) { (part) throws(KedgeError) in
            try writer.store(part)
            return PartPlace(pack: pack, frame: 0, offset: 0)
        }
        for entry in entries { try manifest.append(entry) }
        return try manifest.finish()
    }

    private func cat(_ words: [String]) -> ToolRun {
        let configuration = """
            [repository main]
            path = \(directory.path)
            encryption = none

            [cluster main]
            pgdata = /nowhere
            """
        return ToolRun(["cat"] + words, files: ["/etc/kedge/kedge.conf": configuration])
    }

    private func json(_ words: [String]) throws -> JSONRecord {
        let run = cat(words)
        #expect(run.ending == .exit(0), "\(run.errors)")
        return try JSONRecord(parsing: run.output.utf8, what: "output")
    }

    @Test("records and plain objects are printed as JSON, with and without --json")
    func records() throws {
        #expect(cat(["kedge.json"]).output == identity.jsonValue.prettyText + "\n")
        for options in [[], ["--json"]] {
            let record = try json(options + ["main/catalog/backup/20261121T020000Z-full-7k3q"])
            #expect(try CommitRecord(record).label.text == "20261121T020000Z-full-7k3q")
            #expect(try json(options + ["main/system/7"]).string("kedge") == "registration")
            #expect(
                try json(options + ["main/backup/20261121T020000Z-full-7k3q/manifest"]).string("kedge") == "manifest")
        }
    }

    @Test("a WAL file shows its facts, or with --data its very bytes")
    func wal() throws {
        let name = "main/wal/7/00000001/00000000/000000010000000000000005"
        let facts = try WALFileFacts(json([name]))
        #expect(facts.file == .segment("000000010000000000000005"))
        #expect(facts.length == 1 << 20)
        // The very segment that was archived.
        var builder = WALBuilder(system: SystemIdentifier(7), firstSegment: 5)
        builder.appendEnd(commit: true, xid: 705, time: MemoryRepository.commitTime(5))
        builder.append(manager: 10, info: 0x20, xid: 700, data: [1, 2, 3])
        builder.appendSwitch()
        let raw = cat(["--data", name])
        #expect(raw.ending == .exit(0))
        #expect(raw.output == String(decoding: builder.segments[0].bytes, as: UTF8.self))
        #expect(raw.errors == "")
    }

    @Test("a pack shows its frames, a manifest with --entries what it lists, a line each")
    func packAndEntries() throws {
        let pack = try json(["main/pack/00/\(Self.pack.hex)"])
        #expect(try pack.string("kedge") == "pack")
        #expect(try pack.records("frames").count == 1)
        #expect(
            cat(["--entries", "main/backup/20261121T020000Z-full-7k3q/manifest"]).output == """
                {"path":"base","kind":"directory","mode":"0700","modified":"1970-01-01T00:00:01Z"}
                {"path":"base/\\u009bx","kind":"file","mode":"0600","modified":"1970-01-01T00:00:00Z","size":2,\
                "extents":2}
                {"path":"pg_wal","kind":"link","mode":"0777","modified":"1970-01-01T00:00:00Z","target":"/wal"}

                """)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let words: [String]
        let status: Int32
        let first: String
        var testDescription: String { words.joined(separator: " ") }
    }

    static let refusals = [
        Refusal(words: ["../etc/passwd"], status: 2, first: "cannot open object \"../etc/passwd\""),
        Refusal(words: ["main"], status: 2, first: "cannot open object \"main\""),
        Refusal(words: ["main/nonsense/1"], status: 2, first: "cannot open object \"main/nonsense/1\""),
        Refusal(words: ["main/system/8"], status: 1, first: "could not find object \"main/system/8\""),
        Refusal(
            words: ["--data", "main/system/7"], status: 2,
            first: "cannot show object \"main/system/7\" with --data: it is no WAL file"),
        Refusal(
            words: ["--entries", "kedge.json"], status: 2,
            first: "cannot show object \"kedge.json\" with --entries: it is no manifest"),
        Refusal(
            words: ["--entries", "--data", "kedge.json"], status: 2,
            first: "cannot show an object with both --data and --entries"),
        Refusal(
            words: ["main/wal/7/00000001/00000001/000000010000000000000005"], status: 2,
            first: "cannot open object \"main/wal/7/00000001/00000001/000000010000000000000005\""),
        Refusal(
            words: ["other/system/7"], status: 1,
            first: "could not open cluster \"other\" in repository \"main\""),
    ]

    @Test("what can't be shown is refused with its reason", arguments: refusals)
    func refused(_ row: Refusal) {
        let run = cat(row.words)
        #expect(run.ending == .exit(row.status))
        #expect(run.output == "")
        #expect(run.errors.split(separator: "\n").first.map(String.init) == "kedge: error: " + row.first)
        #expect(run.errors.contains("\nhint: "))
    }

    @Test("a damaged object is said to be so, with status 3, and nothing of it is printed")
    func damaged() throws {
        let name = "main/catalog/backup/20261121T020000Z-full-7k3q" as ObjectName
        let store = try LocalStore(at: directory.path, marker: nil, random: SystemRandomSource())
        var bytes = try store.readAll(name, limit: 1 << 20)
        bytes[bytes.count / 2] ^= 1
        _ = try store.put(name, ObjectBody(bytes), .replace)
        let run = cat([name.text])
        #expect(run.ending == .exit(3))
        #expect(run.output == "")
        #expect(
            run.errors.hasPrefix(
                "kedge: error: cannot read commit record \"catalog/backup/20261121T020000Z-full-7k3q\"\n"))
    }
}

/// Stores a pack of one frame.
private struct PackSample: Sendable {
    let cluster: ClusterRepository
    let pack: RandomID

    init(_ pack: RandomID, in cluster: ClusterRepository) throws {
        self.cluster = cluster
        self.pack = pack
    }

    func store(_ part: [UInt8]) throws(KedgeError) {
        let seal = try cluster.newSeal(.pack, ClusterLayout.pack(pack))
        let sealer = try FrameSealer(seal)
        var tally = ObjectTally(seal)
        var table = PackTableBuilder()
        var buffer = FrameBuffer()
        buffer.append(seal.headerBytes)
        let before = buffer.count
        try part.withBytes { (raw) throws(KedgeError) in
            try sealer.append(.data, raw: raw, counting: &tally, to: &buffer)
        }
        table.append(
            storedLength: buffer.count - before - FrameHeader.overhead, rawLength: part.count, sources: [])
        try table.encoded().withBytes { (raw) throws(KedgeError) in
            try sealer.appendPieces(.table, raw: raw, counting: &tally, to: &buffer)
        }
        try sealer.appendEnd(tally, to: &buffer)
        _ = try cluster.repository.store.put(
            cluster.name(ClusterLayout.pack(pack)), ObjectBody(Array(buffer.bytes)), .createOnly)
    }
}

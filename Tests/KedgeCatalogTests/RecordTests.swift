// That each record of the catalogue survives JSON, and refuses what is missing or of the wrong type, naming the member.

import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct RecordTests {
    static let label = Label("20261121T020000Z-full-7k3q")

    static func commitRecord() throws -> CommitRecord {
        CommitRecord(
            label: try #require(label), type: .full, parent: nil, clusterName: "main",
            server: .init(
                systemIdentifier: SystemIdentifier(UInt64.max), postgresVersion: 15, serverVersion: "15.18",
                fromStandby: false, dataChecksums: true, blockSize: 8192, walSegmentSize: 16 << 20,
                relationSegmentBlocks: 131_072),
            span: .init(
                timeline: TimelineID(3), startLSN: LSN(0x2000028), stopLSN: LSN(0x2000138),
                checkpointLSN: LSN(0x2000060), startTime: Timestamp(microseconds: 1_795_000_000_123_456),
                stopTime: Timestamp(microseconds: 1_795_000_001_000_000), walFrom: "000000030000000000000002",
                walTo: "000000030000000000000002",
                history: [.init(timeline: TimelineID(1), switchLSN: LSN(0x1000000))], snapshot: "730:730:",
                afterStopTime: Timestamp(microseconds: 1_795_000_002_000_000), afterStopLSN: LSN(0x3000000)),
            tablespaces: [
                .init(oid: 16385, path: "/srv/ts \"x\"", inPlace: false),
                .init(oid: 16386, path: "/srv/back\\slash\u{1}\n", inPlace: false),
                .init(oid: 16387, path: RawPath(bytes: [0x2F, 0xE9]), inPlace: false),
            ], dataDirectory: RawPath(bytes: [0x2F, 0xFF]), dataDirectoryMode: 0o750,
            walDirectory: RawPath(bytes: [0x2F, 0xFE]),
            configurationFiles: ["/etc/postgresql.conf", RawPath(bytes: [0x2F, 0xFD])],
            sizes: .init(databaseBytes: 1, storedBytes: 2, deltaBytes: 3, files: 4),
            packs: [PackUse(id: RandomID(high: 1, low: 2), liveBytes: 5)],
            manifest: .init(length: 6, checksum: ContentHash(high: 7, low: 8)),
            health: .init(
                damagedPages: [.init(path: ManifestPath(bytes: [0x62, 0xFF]), block: 9)], damagedPageCount: 1,
                walSuspect: [.init(file: "000000030000000000000002", lsn: LSN(1), reason: "CRC")], fallbacks: ["x"]),
            keySlots: [["kedge": "key-slot"]], hostName: "h", createdBy: "kedge 0.1.0",
            durations: [.init(phase: "copy", milliseconds: 1500)])
    }

    @Test("a commit record survives JSON, with paths of any bytes (lesson 49)")
    func commitRecordRoundTrip() throws {
        let record = try Self.commitRecord()
        let text = record.jsonValue.prettyText
        #expect(try CommitRecord(JSONRecord(parsing: text.utf8, what: "commit record")) == record)
    }

    @Test("a commit record without any one of its members is refused, but for those that may be null")
    func missingMember() throws {
        guard case .object(let members) = try Self.commitRecord().jsonValue else { return }
        for member in members where !["parent", "dataDirectoryMode", "walDirectory"].contains(member.key) {
            let rest = JSONValue.object(members.filter { $0.key != member.key })
            let error = #expect(throws: KedgeError.self) {
                try CommitRecord(JSONRecord(rest, what: "commit record \"x\""))
            }
            #expect(error?.code == .damaged)
            #expect(error?.detail?.contains("\"\(member.key)\"") == true)
        }
    }

    @Test("a manifest root survives JSON, and refuses parts out of order and packs that it does not list")
    func manifestRoot() throws {
        let pack = RandomID(high: 1, low: 1)
        func part(_ path: String) -> ManifestPartReference {
            ManifestPartReference(
                first: ManifestPath(path), entries: 2, pack: pack, frame: 3, offset: 4, length: 5,
                checksum: ContentHash(high: 1, low: 9))
        }
        var root = ManifestRoot(
            label: try #require(Self.label), files: 1, directories: 2, links: 3, bytes: 4,
            parts: [part("a"), part("b")], packs: [PackUse(id: pack, liveBytes: 5)])
        func read(_ root: ManifestRoot) throws -> ManifestRoot {
            try ManifestRoot(JSONRecord(root.jsonValue, what: "manifest"))
        }
        #expect(try read(root) == root)
        root.parts.reverse()
        #expect(throws: KedgeError.self) { try read(root) }
        root.parts.reverse()
        root.packs = []
        #expect(throws: KedgeError.self) { try read(root) }
    }

    @Test("an intent survives JSON")
    func intent() throws {
        let intent = Intent(
            label: try #require(Self.label), type: .full, parent: nil, systemIdentifier: SystemIdentifier(7),
            timeline: TimelineID(1), startLSN: LSN(9), startedAt: Timestamp(microseconds: 0), hostName: "h",
            processID: 1, createdBy: "kedge 0.1.0")
        #expect(try Intent(JSONRecord(intent.jsonValue, what: "intent")) == intent)
    }

    @Test(
        "labels are parsed and printed, and nothing else is a label",
        arguments: [
            "20261121T020000Z-full-7k3q", "20261121T020000Z-delta-0000",
        ])
    func labels(_ text: String) {
        #expect(Label(text)?.text == text)
        #expect(Label(text.uppercased()) == nil)
        #expect(Label(text + "x") == nil)
        #expect(Label("../" + text) == nil)
    }
}

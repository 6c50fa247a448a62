// Guarantee 9 of Catalog/THREAT-MODEL.md by the kernel's own count: whatever a repository says of itself, the program
// takes less than 256 MiB and ends by an error of its own. In the server tier, since only the shipped binary is quick
// enough.
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.enabled(if: PostgresInstallation.serversAreEnabled, "needs the shipped binary: scripts/test.sh"))
struct HostileMemoryTests {
    private static let limitKiB = 256 << 10
    private static let pack = RandomID(high: 1, low: 1)

    /// Runs `kedge` over what `make` stored, in a plain repository, and returns status, code and peak memory in KiB.
    private static func run(
        _ arguments: [String], _ make: (PaperBackup, CommitRecord) throws -> Void
    ) throws -> (status: Int, code: String, peakKiB: Int) {
        let repository = try MemoryRepository(encrypted: false, walSegmentSize: 1 << 20)
        let backup = PaperBackup(try repository.cluster())
        try backup.archive(5...7)
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        try make(backup, .sample(label, start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312)))

        let directory = try TemporaryDirectory()
        let root = directory("repository")
        try LocalStore.createRoot(at: root)
        let copy = try LocalStore(at: root, marker: nil, random: SystemRandomSource())
        for name in repository.store.names {
            let bytes = try repository.store.readAll(name, limit: 1 << 30)
            _ = try copy.put(name, ObjectBody(bytes), .createOnly)
        }
        let configuration = """
            [repository main]
            path = \(root)
            encryption = none

            [cluster main]
            pgdata = \(directory("pgdata"))
            process-max = 2
            work-directory = \(directory("work"))
            """
        _ = try DurableFile.write(
            Array(configuration.utf8), to: RawPath(directory("kedge.conf")), mode: 0o644, random: SystemRandomSource())
        if ServerUser.isAnother {
            _ = try Subprocess(["chown", "-R", "postgres:postgres", directory.path]).run()
        }
        let measure = """
            import resource, subprocess, sys
            run = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            code = [line[6:] for line in run.stderr.splitlines() if line.startswith("code: ")]
            print(run.returncode, (code or ["-"])[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            """
        let output = try ServerUser.run(
            ["/usr/bin/python3", "-c", measure, KedgeBinary.path(), "--config", directory("kedge.conf")] + arguments)
        let words = output.split(whereSeparator: \.isWhitespace)
        try #require(words.count == 3, "\(output)")
        return (try #require(Int(words[0])), String(words[1]), try #require(Int(words[2])))
    }

    private static let dryRun = ["restore", "--dry-run", "--target-immediate", "--pgdata", "/nonexistent/pgdata"]

    @Test("paths that share their beginnings do not fill the memory")
    func longPaths() throws {
        let count = 100_000
        let found = try Self.run(Self.dryRun) { backup, record in
            // Directories with names of 4 KiB that share all but their end, 12 bytes each: 400 MiB once read.
            var part: [UInt8] = [1, 0]
            part.append(varint: UInt64(count))
            for number in 0..<count {
                part.append(varint: number == 0 ? 0 : UInt64(4088))
                part.append(varint: UInt64(number == 0 ? 4095 : 7))
                if number == 0 { part += [UInt8](repeating: UInt8(ascii: "x"), count: 4088) }
                part += Array(String(1_000_000 + number).utf8) + [2, 7, 0]
            }
            try backup.putPack(
                Self.pack, stride(from: 0, to: part.count, by: 1 << 20).map { Array(part[$0...].prefix(1 << 20)) })
            try backup.commit(
                Self.root(of: record, part: part, entries: UInt64(count), directories: UInt64(count)), as: record)
        }
        #expect(found.code == "damaged" && found.status == 3, "\(found)")
        #expect(found.peakKiB < Self.limitKiB, "\(found)")
    }

    /// A manifest whose one part is said to begin the pack.
    private static func root(
        of record: CommitRecord, part: [UInt8], entries: UInt64, directories: UInt64
    ) -> ManifestRoot {
        let reference = ManifestPartReference(
            first: ManifestPath(String(repeating: "x", count: 4088) + "1000000"), entries: entries, pack: pack,
            frame: 0, offset: 0, length: UInt64(part.count), checksum: ContentHash(of: part))
        return ManifestRoot(
            label: record.label, files: 0, directories: directories, links: 0, bytes: 0, parts: [reference],
            packs: [PackUse(id: pack, liveBytes: UInt64(part.count))])
    }

    @Test("an extra file of a tebibyte, a pack table and a record that decompress without end, are refused")
    func bombs() throws {
        let tebibyte = FileContent(
            size: 1 << 40, identity: nil, regions: [ContentHash?](repeating: nil, count: 1 << 20),
            extents: [Extent(length: 1 << 40, source: .zeros)])
        let extra = try Self.run(Self.dryRun) { backup, record in
            let entries = [PaperEntry("/etc/x", .extraContent(tebibyte))] + PaperEntry.minimal()
            try backup.commit(entries, as: record)
        }
        #expect(extra.code == "damaged" && extra.peakKiB < Self.limitKiB, "\(extra)")

        let table = try Self.run(Self.dryRun) { backup, record in
            var forged: [UInt8] = [1]
            forged.append(varint: UInt(10 << 20))
            forged += [UInt8](repeating: 0, count: 30 << 20)
            try backup.putPack(Self.pack, [[1]], table: forged)
            try backup.commit(Self.root(of: record, part: [1], entries: 1, directories: 1), as: record)
        }
        #expect(table.code == "damaged" && table.peakKiB < Self.limitKiB, "\(table)")

        let record = try Self.run(["cat", "main/catalog/intent/x"]) { backup, _ in
            let relative: ObjectName = "catalog/intent/x"
            let sealed = try SealedObject.seal(
                .intent, name: backup.cluster.scoped(relative),
                contents: [UInt8](repeating: 0x20, count: 400 << 20), keyRing: .plain, random: SystemRandomSource())
            let store = backup.cluster.repository.store
            _ = try store.put(backup.cluster.name(relative), ObjectBody(sealed), .createOnly)
        }
        #expect(record.code == "damaged" && record.peakKiB < Self.limitKiB, "\(record)")
    }
}

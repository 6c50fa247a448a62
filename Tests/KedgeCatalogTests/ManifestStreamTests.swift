// That a manifest written entry by entry into a pack is read back entry by entry, through the real envelope.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ManifestStreamTests {
    /// A pack with the given data frames, stored in a repository of its own.
    static func storedPack(_ frames: [[UInt8]]) throws -> (cluster: ClusterRepository, pack: RandomID) {
        let store = MemoryStore()
        let identity = RepositoryIdentity(
            id: RandomID(high: 1, low: 2), createdAt: Timestamp(secondsSince1970: 0), createdBy: Version.writer)
        _ = try store.put(
            RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.prettyText.utf8)), .createOnly)
        let repository = try Repository.open(
            store, RepositorySettings(name: "main", cipher: .none, compression: .standard, secret: nil), for: .write)
        let registration = Registration(
            clusterID: RandomID(high: 3, low: 4), name: "main", systemIdentifier: SystemIdentifier(7),
            postgresVersion: 15, catalogVersion: 1, walSegmentSize: 16 << 20, blockSize: 8192, walBlockSize: 8192,
            relationSegmentBlocks: 131_072, createdAt: identity.createdAt, createdBy: Version.writer)
        let cluster = try ClusterRepository.register(registration, in: repository).cluster
        let pack = RandomID(high: 5, low: 6)
        let seal = try cluster.newSeal(.pack, ClusterLayout.pack(pack))
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
        try table.encoded().withBytes { (raw) throws(KedgeError) in
            try sealer.appendPieces(.table, raw: raw, counting: &tally, to: &buffer)
        }
        try sealer.appendEnd(tally, to: &buffer)
        _ = try store.put(cluster.name(ClusterLayout.pack(pack)), ObjectBody(Array(buffer.bytes)), .createOnly)
        return (cluster, pack)
    }

    @Test("entries come back in order, over many parts")
    func roundTrip() throws {
        let entries = (0..<5000).map { number in
            ManifestEntry(
                path: ManifestPath("base/5/\(10000 + number)"), mode: 0o600, modificationTime: Int64(number),
                kind: .file(
                    FileContent(
                        size: 8192, identity: FileIdentity(inode: UInt64(number), birthTime: 1),
                        regions: [ContentHash(high: UInt64(number), low: 1)],
                        extents: [Extent(length: 8192, source: .zeros)])))
        }
        let pack = RandomID(high: 5, low: 6)
        let label = try #require(Label("20261121T020000Z-full-7k3q"))
        var parts: [[UInt8]] = []
        func write(_ entries: [ManifestEntry]) throws -> ManifestRoot {
            parts = []
            nonisolated(unsafe) var stored: [[UInt8]] = []
            var writer = ManifestWriter(label: label, hash: { ContentHash(of: $0) }) { part in
                stored.append(part)
                return PartPlace(pack: pack, frame: UInt32(stored.count - 1), offset: 0)
            }
            for entry in entries { try writer.append(entry) }
            let root = try writer.finish()
            parts = stored
            return root
        }
        let root = try write(entries)
        #expect(root.parts.count > 1 && root.files == 5000 && root.bytes == 5000 * 8192)
        let (cluster, _) = try Self.storedPack(parts)
        var reader = ManifestReader(root, reader: PackReader(PackDirectories(cluster)))
        var read: [ManifestEntry] = []
        while let entry = try reader.next() { read.append(entry) }
        #expect(read == entries)

        // A file that goes changes the part that it lay in and leaves the borders of the others alone.
        let fewer = try write(Array(entries[..<2500] + entries[2501...]))
        let unchanged = Set(root.parts.map(\.checksum)).intersection(fewer.parts.map(\.checksum))
        #expect(unchanged.count >= root.parts.count - 2)
    }

    @Test("a manifest that a reader would refuse is not written: files too large to restore, too many extra files")
    func unreadable() throws {
        func code(_ entries: [ManifestEntry]) throws -> ErrorCode? {
            var writer = ManifestWriter(
                label: try #require(Label("20261121T020000Z-full-7k3q")), hash: { ContentHash(of: $0) },
                store: { _ in PartPlace(pack: RandomID(high: 5, low: 6), frame: 0, offset: 0) })
            do throws(KedgeError) {
                for entry in entries { try writer.append(entry) }
                return nil
            } catch {
                return error.code
            }
        }
        func entry(_ path: String, _ size: UInt64) -> ManifestEntry {
            let content = FileContent(size: size, identity: nil, regions: [], extents: [])
            return ManifestEntry(
                path: ManifestPath(path), mode: 0o600, modificationTime: 0,
                kind: path.hasPrefix("/") ? .extraFile(content) : .file(content))
        }
        for (path, limit) in [
            ("base/5/16384", 1 << 40), ("/etc/pg_hba.conf", 16 << 20), ("backup_label", 16 << 20),
            ("postgresql.auto.conf", 16 << 20), ("global/pg_control", 16 << 20),
        ] as [(String, UInt64)] {
            #expect(try code([entry(path, limit)]) == nil, "\(path)")
            #expect(try code([entry(path, limit + 1)]) == .notSupported, "\(path)")
        }
        let many = (0...1000).map { entry("/etc/\($0 + 10000).conf", 1) }
        #expect(try code(Array(many.dropLast())) == nil)
        #expect(try code(many) == .notSupported)
    }

    @Test("a run of a pack's stream crosses frames, begins anywhere and ends anywhere")
    func runs() throws {
        let frames = (0..<20).map { frame in (0..<(1000 + frame)).map { UInt8(truncatingIfNeeded: $0 &* (frame + 3)) } }
        let (cluster, pack) = try Self.storedPack(frames)
        let stream = frames.flatMap { $0 }
        let reader = PackReader(PackDirectories(cluster))
        for (frame, offset, length) in [
            (0, 0, stream.count), (3, 7, 5000), (19, 1018, 1), (5, 0, 1), (5, 1, 1004), (0, 999, 2),
        ] {
            let start = frames[..<frame].reduce(0) { $0 + $1.count } + offset
            var read: [UInt8] = []
            try reader.read(pack, frame: UInt32(frame), offset: UInt32(offset), length: UInt64(length)) {
                read.append(contentsOf: $0)
            }
            #expect(read == Array(stream[start..<start + length]))
        }
        for (frame, offset, length) in [(20, 0, 1), (0, 1000, 1), (19, 0, 1020)] {
            let error = #expect(throws: KedgeError.self) {
                try reader.read(pack, frame: UInt32(frame), offset: UInt32(offset), length: UInt64(length)) { _ in }
            }
            #expect(error?.code == .damaged)
        }
    }
}

// A cluster that exists on paper: a data directory with nothing but pg_control and WAL made by hand, and a repository
// in any store. Push and get run against it without a server.
package import KedgeCodec
package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// A data directory and a repository for tests of archiving.
package struct ArchiveFixture {
    package let directory: TemporaryDirectory
    package let system: SystemIdentifier
    package let segmentMiB: UInt32

    /// Makes a data directory with `global/pg_control` and an empty `pg_wal`.
    package init(system: SystemIdentifier = WALBuilder.system, segmentMiB: UInt32 = 1) throws {
        directory = try TemporaryDirectory()
        self.system = system
        self.segmentMiB = segmentMiB
        for name in ["global", "pg_wal"] { _ = try Directory.create(at: path(name)) }
        try write("global/pg_control", ArchiveFixture.controlFile(system: system, segmentSize: segmentMiB << 20))
    }

    /// A path below the data directory.
    package func path(_ name: String) -> RawPath { RawPath(directory.path).appending(name) }

    /// Writes, or replaces, a file below the data directory.
    package func write(_ name: String, _ bytes: [UInt8]) throws {
        _ = try DurableFile.write(bytes, to: path(name), replacing: true, random: SystemRandomSource())
    }

    /// Consecutive segments of WAL made by hand, the first with this number, written to pg_wal. Returns their names.
    package func writeSegments(count: Int, first: UInt64 = 5, timeline: UInt32 = 1) throws -> [String] {
        var builder = WALBuilder(timeline: timeline, firstSegment: first, segmentMiB: segmentMiB)
        let end = LSN((first + UInt64(count)) * UInt64(segmentMiB) << 20)
        let random = SeededRandom(seed: first)
        // Heap records that half compress.
        while builder.lsn < end {
            let data = random.bytes(300) + [UInt8](repeating: 7, count: 3000 + random.next(below: 400))
            builder.append(manager: 10, info: 0x20, xid: 700, data: data)
        }
        var names: [String] = []
        for (segment, bytes) in builder.segments.prefix(count) {
            let name = segment.fileName(segmentSize: UInt64(segmentMiB) << 20)
            try write("pg_wal/" + name, bytes)
            names.append(name)
        }
        return names
    }

    /// A repository in `store` with this cluster registered, encrypted by `secret` where there is one.
    package func makeRepository(
        in store: any ObjectStore, secret: KeyEncryptionSecret? = nil, random: any RandomSource = SystemRandomSource()
    ) throws -> RepositorySource {
        let source = ArchiveFixture.source(store, secret: secret)
        let now = Timestamp(secondsSince1970: 1_795_000_000)
        let identity = RepositoryIdentity(id: RandomID(from: random), createdAt: now, createdBy: Version.writer)
        if let secret {
            let slot = try KeySlot.wrap(
                DataKey(sequence: 1, random: random), with: secret, repositoryID: identity.id, label: "main",
                createdAt: now, random: random)
            try Repository.putKeySlot(slot, in: store)
        }
        _ = try store.put(
            RepositoryLayout.marker, ObjectBody(Array(identity.jsonValue.prettyText.utf8)), .createOnly)
        let registration = Registration(
            clusterID: RandomID(from: random), name: "main", systemIdentifier: system, postgresVersion: 15,
            catalogVersion: PostgresVersion.v15.catalogVersion, walSegmentSize: UInt64(segmentMiB) << 20,
            blockSize: 8192, walBlockSize: 8192, relationSegmentBlocks: 131_072, createdAt: now,
            createdBy: Version.writer)
        _ = try ClusterRepository.register(registration, in: source.open(for: .write, random: random))
        return source
    }

    /// How a configuration would describe the repository in `store`.
    package static func source(
        _ store: any ObjectStore, secret: KeyEncryptionSecret? = nil, name: String = "main"
    ) -> RepositorySource {
        RepositorySource(
            settings: RepositorySettings(
                name: name, cipher: secret == nil ? .none : .aes256GCM, compression: .standard, secret: secret),
            openStore: { () throws(KedgeError) in store }, createStore: { () throws(KedgeError) in store })
    }

    /// The pg_control of a new PostgreSQL 15 cluster, made to be of that system and segment size.
    package static func controlFile(system: SystemIdentifier, segmentSize: UInt32) -> [UInt8] {
        var bytes = [UInt8](hex: initialControlFile) ?? []
        bytes.replaceSubrange(0..<8, with: withUnsafeBytes(of: system.number.littleEndian) { Array($0) })
        bytes.replaceSubrange(228..<232, with: withUnsafeBytes(of: segmentSize.littleEndian) { Array($0) })
        let crc = CRC32C.checksum(Array(bytes[..<288]))
        bytes.replaceSubrange(288..<292, with: withUnsafeBytes(of: crc.littleEndian) { Array($0) })
        return bytes + [UInt8](repeating: 0, count: ControlFile.fileSize - bytes.count)
    }

    /// The first 296 bytes of what initdb wrote.
    private static let initialControlFile = """
        31edcf7e7949016b1405000025770d0c01000000000000007949016b00000000f814740100000000f814740100000000\
        01000000010000000100000000000000d402000000000000043500000100000000000000cc0200000100000001000000\
        01000000000000007949016b0000000000000000000000000000000000000000e8030000000000000000000000000000\
        00000000000000000000000000000000000000000000000000000000010000000000000064000000080000000a000000\
        000000004000000000000000080000000000000087d63241002000000000020000200000000000014000000020000000\
        cc070000000800000100000001000000fd1ba2535e73f0373e7954d3a325725669f2aa9870b7731adc16d3fe1783b65b\
        d596d21e00000000
        """
}

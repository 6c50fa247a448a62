// Backups and archived WAL as values, for tests of what reads a catalogue without caring how it came to be.
package import KedgeCatalog
package import KedgeCore
import KedgePostgres
import KedgeRepository

extension CommitRecord {
    /// A full backup of system 7, PostgreSQL 15, with segments of 1 MiB.
    package static func sample(
        _ label: Label, timeline: UInt32 = 1, start: LSN, stop: LSN,
        stopTime: Timestamp = Timestamp(secondsSince1970: 1_795_000_000), system: UInt64 = 7,
        health: BackupHealth = BackupHealth()
    ) -> CommitRecord {
        let timeline = TimelineID(timeline)
        func file(_ lsn: LSN) -> String {
            WALSegment(timeline: timeline, containing: lsn, segmentSize: 1 << 20).fileName(segmentSize: 1 << 20)
        }
        return CommitRecord(
            label: label, type: .full, parent: nil, clusterName: "main",
            server: .init(
                systemIdentifier: SystemIdentifier(system), postgresVersion: 15, serverVersion: "15.8",
                fromStandby: false, dataChecksums: true, blockSize: 8192, walSegmentSize: 1 << 20,
                relationSegmentBlocks: 131_072),
            span: .init(
                timeline: timeline, startLSN: start, stopLSN: stop, checkpointLSN: start,
                startTime: stopTime.adding(seconds: -30), stopTime: stopTime, walFrom: file(start),
                walTo: file(LSN(stop.position - 1)), history: [], snapshot: "700:700:", afterStopTime: stopTime,
                afterStopLSN: stop),
            tablespaces: [], dataDirectory: "/pg", configurationFiles: [],
            sizes: .init(databaseBytes: 1_610_612_736, storedBytes: 419_430_400, deltaBytes: 1_610_612_736, files: 9),
            packs: [], manifest: .init(length: 1, checksum: ContentHash(high: 0, low: 0)), health: health,
            keySlots: [], hostName: "db1", createdBy: "kedge", durations: [])
    }
}

extension MemoryRepository {
    /// When the one transaction of a sample segment was committed: a minute for each segment.
    package static func commitTime(_ number: UInt64) -> Timestamp {
        Timestamp(secondsSince1970: 1_795_000_000 + Int64(number) * 60)
    }

    /// Archives segments of 1 MiB, each with one commit. Those in `damaged` have a second record that is not whole;
    /// those in `minimal` go on with wal_level = minimal after the commit.
    package func archive(
        _ numbers: ClosedRange<UInt64>, timeline: UInt32 = 1, damaged: Set<UInt64> = [], minimal: Set<UInt64> = [],
        isPartial: Bool = false
    ) throws {
        for number in numbers {
            var builder = WALBuilder(system: SystemIdentifier(7), timeline: timeline, firstSegment: number)
            builder.appendEnd(commit: true, xid: UInt32(700 + number), time: Self.commitTime(number))
            if minimal.contains(number) { builder.appendParameterChange(walLevel: 0) }
            let second = builder.append(manager: 10, info: 0x20, xid: 700, data: [1, 2, 3])
            builder.appendSwitch()
            var (segment, bytes) = builder.segments[0]
            if damaged.contains(number) { bytes[Int(second.position % (1 << 20)) + 27] ^= 1 }
            let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFacts(of: bytes, segment: segment, isPartial: isPartial, format: builder.format)
            }
            let name = segment.fileName(segmentSize: 1 << 20)
            try archive(isPartial ? .partial(name + ".partial") : .segment(name), bytes, facts)
        }
    }

    /// Archives a segment of 1 MiB in which no transaction ends.
    package func archiveEmpty(_ number: UInt64) throws {
        var builder = WALBuilder(system: SystemIdentifier(7), firstSegment: number)
        builder.append(manager: 10, info: 0x20, xid: 700, data: [1, 2, 3])
        builder.appendSwitch()
        let (segment, bytes) = builder.segments[0]
        let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts(of: bytes, segment: segment, isPartial: false, format: builder.format)
        }
        try archive(.segment(segment.fileName(segmentSize: 1 << 20)), bytes, facts)
    }

    /// Archives the history of a timeline that left each of `ancestors` at an LSN, oldest first.
    package func archiveHistory(_ timeline: UInt32, _ ancestors: [(timeline: UInt32, end: LSN)]) throws {
        let lines = ancestors.map { "\($0.timeline)\t\($0.end)\tno recovery target specified\n" }
        try archive(.history(TimelineID(timeline)), Array(lines.joined().utf8), nil)
    }

    private func archive(_ file: WALFileName, _ bytes: [UInt8], _ segment: WALFacts?) throws {
        let cluster = try cluster()
        let facts = WALFileFacts(
            file: file, length: UInt64(bytes.count),
            tag: bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) },
            archivedAt: Timestamp(secondsSince1970: 1_795_000_000), hostName: "db1", segment: segment)
        _ = try WALArchive(cluster, cluster.newestRegistration).put(bytes, facts: facts, threads: 1)
    }
}

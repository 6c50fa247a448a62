// WAL: segments, their first page, timeline and backup histories, names.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport

extension FuzzTarget {
    static let walTargets: [FuzzTarget] = [
        FuzzTarget("wal-records", maximumLength: 2048, isSlow: true, seeds: [recordsSeed], walkRecords),
        FuzzTarget("wal-pages", maximumLength: 16384, isSlow: true, seeds: [pagesSeed], walkPages),
        FuzzTarget("wal-header", maximumLength: 64, seeds: [Array(pagesSeed.prefix(40))]) {
            (bytes) throws(KedgeError) in
            let format = WALBuilder(walBlockSize: 1024).format
            let name = WALFileName.segment("000000010000000000000005")
            guard bytes.count >= WALPageHeader.longSize else { return }
            _ = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFileCheck.check(name: name, firstPage: bytes, sizeBytes: 1 << 20, format: format)
            }
        },
        FuzzTarget(
            "timeline-history",
            seeds: [
                Array("1\t0/5000028\tno recovery target specified\n\n# comment\n2\t0/6000000\tat restore point\n".utf8)
            ]
        ) { (bytes) throws(KedgeError) in
            let history = try TimelineHistory(parsing: bytes, timeline: TimelineID(9))
            require(history.timeline == TimelineID(9), "a history is of its own timeline")
            require(
                zip(history.entries, history.entries.dropFirst()).allSatisfy { $0.timeline < $1.timeline },
                "timelines increase")
            for lsn in [LSN(0), LSN(0x5000028), LSN(.max)] {
                let timeline = history.timeline(containing: lsn)
                require(history.contains(timeline), "a position lies on a timeline of the path")
                _ = history.contains(timeline, upTo: lsn)
            }
        },
        FuzzTarget("backup-history", seeds: [backupHistorySeed]) { (bytes) throws(KedgeError) in
            _ = try BackupHistoryFile(parsing: bytes, name: "000000010000000000000002.00000028.backup")
        },
        FuzzTarget(
            "wal-file-name", maximumLength: 128,
            seeds: [
                "000000010000000A00000042", "000000010000000A00000042.partial", "00000002.history",
                "000000010000000A00000042.00000028.backup",
                "000000010000000A00000042.partial-00000000000000010000000000000002",
            ].map { Array($0.utf8) }
        ) { (bytes) throws(KedgeError) in
            let text = String(decoding: bytes, as: UTF8.self)
            guard let (file, tag) = ClusterLayout.parseWALFile(text) else { return }
            require(file.text + (tag.map { "-" + $0.hex } ?? "") == text, "a name is written as it was read")
            let name = ClusterLayout.walFile(file, of: SystemIdentifier(7), tag: tag)
            guard case .segment(let segmentName) = file else { return }
            require(name.lastComponent == text, "an object is called as its file")
            for size in [1 << 20, 16 << 20, 1 << 30] as [UInt64] {
                guard let segment = WALSegment(fileName: segmentName, segmentSize: size) else { continue }
                require(segment.fileName(segmentSize: size) == segmentName, "a segment is called as it was")
                let start = segment.startLSN(segmentSize: size)
                require(segment.next.startLSN(segmentSize: size) == start + size, "segments follow each other")
            }
        },
        FuzzTarget("wal-inventory", seeds: [inventorySeed]) { (bytes) throws(KedgeError) in
            var inventory = WALInventory(segmentSize: 1 << 20)
            for line in bytes.split(separator: 0x0A) {
                inventory.add(objectNamed: String(decoding: line, as: UTF8.self), storedBytes: 1)
            }
            for timeline in inventory.timelines {
                require(
                    zip(timeline.runs, timeline.runs.dropFirst()).allSatisfy { $0.upperBound + 1 < $1.lowerBound },
                    "runs are in order, with gaps between")
                _ = (timeline.gaps, timeline.segmentCount)
            }
        },
        FuzzTarget(
            "lsn", maximumLength: 32, seeds: ["0/2000028", "7FFFFFFF/FFFFFFFF"].map { Array($0.utf8) }
        ) { (bytes) throws(KedgeError) in
            guard let lsn = LSN(String(decoding: bytes, as: UTF8.self)) else { return }
            require(LSN(lsn.description) == lsn, "an LSN is written as it was read")
            for size in [1 << 20, 1 << 30] as [UInt64] {
                let segment = WALSegment(timeline: TimelineID(1), containing: lsn, segmentSize: size)
                require(segment.next.startLSN(segmentSize: size) > lsn, "a segment follows every position")
            }
        },
    ]

    /// Valid records with hostile content: the input says which, and then changes a few bytes of what came of them.
    private static let walkRecords: @Sendable ([UInt8]) throws(KedgeError) -> Void = { (bytes) throws(KedgeError) in
        var input = Instructions(bytes)
        let versions = PostgresVersion.allCases
        let version = versions[Int(input.byte()) % versions.count]
        var builder = WALBuilder(version: version, walBlockSize: 1024)
        let patches = Int(input.byte() & 7)
        let patched = (0..<patches).map { _ in (Int(input.number(bytes: 2)), input.byte()) }
        while !input.isAtEnd, builder.leftInSegment > 70_000 {
            let (manager, info) = (input.byte(), input.byte())
            let xid = UInt32(truncatingIfNeeded: input.number(bytes: 4))
            let body = input.bytes(Int(input.byte()) * (manager & 0x80 == 0 ? 1 : 16))
            builder.append(manager: manager & 0x1F, info: info, xid: xid, body: body)
        }
        guard !builder.bytes.isEmpty, var (segment, wal) = builder.segments.first else { return }
        for (offset, byte) in patched { wal[offset] = byte }
        try walk(&wal, segment, builder.format)
    }

    /// The beginning of a segment as it is; the rest is zero.
    private static let walkPages: @Sendable ([UInt8]) throws(KedgeError) -> Void = { (bytes) throws(KedgeError) in
        let format = WALBuilder(walBlockSize: 1024).format
        let prefix = Array(bytes.prefix(1 << 20))
        var wal = prefix + [UInt8](repeating: 0, count: 1 << 20 - prefix.count)
        try walk(&wal, WALSegment(timeline: TimelineID(1), number: 5), format)
    }

    private static func walk(
        _ wal: inout [UInt8], _ segment: WALSegment, _ format: WALFormat
    ) throws(KedgeError) {
        let facts = try wal.withBytes { (wal) throws(KedgeError) in
            try WALFacts(of: wal, segment: segment, isPartial: false, format: format)
        }
        // What was learned from any WAL can be read back from its record: else an archived file could not be fetched.
        let json = Array(facts.jsonValue.compactText.utf8)
        require(json.count <= 1 << 17, "facts are small: \(json.count)")
        do throws(KedgeError) {
            let again = try WALFacts(JSONRecord(parsing: json, what: "facts"))
            require(again == facts, "facts are read as they were written")
        } catch {
            require(false, "facts of any segment can be read back: \(error)")
        }
        _ = WALFacts.straddling(facts, facts, version: format.version)
    }

    // MARK: - Seeds

    private static let time = Timestamp(secondsSince1970: 1_795_000_000)

    private static let pagesSeed: [UInt8] = {
        var builder = WALBuilder(walBlockSize: 1024)
        builder.appendEnd(commit: true, xid: 700, time: time)
        builder.append(manager: 10, info: 0x20, xid: 700, data: [UInt8](repeating: 7, count: 1500))
        let given = builder.appendAbandoned(length: 1500, pages: 1)
        builder.appendOverwrite(of: given)
        return builder.bytes
    }()

    private static let recordsSeed: [UInt8] = {
        // Version 17, no change; then a commit, a restore point, a tablespace, a checkpoint.
        var seed: [UInt8] = [4, 0]
        func add(_ manager: UInt8, _ info: UInt8, _ data: [UInt8]) {
            let body = WALBuilder.body(data)
            seed += [manager, info, 0, 0, 2, 188, UInt8(body.count)] + body
        }
        var moment: [UInt8] = []
        moment.append(littleEndian: time.postgresMicroseconds)
        add(1, 0x00, moment)
        add(0, 0x70, moment + Array("before".utf8) + [0])
        add(5, 0x00, [0, 64, 0, 0] + Array("/ts".utf8) + [0])
        add(0, 0x10, [UInt8](repeating: 1, count: 88))
        add(1, 0x80, moment + [16, 0, 0, 0, 9, 0, 0, 0])
        return seed
    }()

    private static let backupHistorySeed = Array(
        """
        START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
        STOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)
        CHECKPOINT LOCATION: 0/2000060
        BACKUP METHOD: streamed
        START TIME: 2026-11-21 02:00:00 UTC
        LABEL: kedge
        START TIMELINE: 1
        STOP TIME: 2026-11-21 02:10:00 UTC
        STOP TIMELINE: 1

        """.utf8)

    private static let inventorySeed = Array(
        """
        000000010000000000000004
        000000010000000000000005
        000000010000000000000005-00000000000000010000000000000002
        000000010000000000000007.partial-00000000000000010000000000000002
        000000020000000000000005
        00000002.history
        """.utf8)
}

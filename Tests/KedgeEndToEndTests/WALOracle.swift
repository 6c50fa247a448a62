// What really happened, in the order of the WAL: ends of transactions and restore points, by pg_waldump, or by our own
// reader for the version that came without it.
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// One record that a recovery target can mean.
struct OracleRecord: Equatable {
    enum Kind: Equatable {
        case commit, abort
        case restorePoint(String)
    }

    let lsn: LSN
    let xid: UInt64
    let kind: Kind
    /// Ends of transactions alone have one here.
    let time: Timestamp?
}

enum WALOracle {
    /// The records of the given segment files, in order. Uses pg_waldump where the installation has it; for the others
    /// Kedge's own walk, which tests hold against pg_waldump on the versions that have one.
    static func records(_ server: PostgresTestServer, from first: String) throws -> [OracleRecord] {
        guard server.installation.has("pg_waldump") else { return try ownRecords(server, from: first) }
        let (directory, names) = try segments(server, from: first)
        var dump = ServerUser.command(
            [server.installation.program("pg_waldump"), directory + "/" + first]
                + (names.count > 1 ? [directory + "/" + names[names.count - 1]] : []))
        dump.environment["TZ"] = "UTC"
        dump.outputLimitBytes = 256 << 20
        // The last segment ends in zeroes, which pg_waldump reports as an error after all that is there.
        return try dump.run().outputText.split(separator: "\n").compactMap { record($0) }
    }

    private static func segments(
        _ server: PostgresTestServer, from first: String
    ) throws -> (directory: String, names: [String]) {
        let directory = server.dataDirectory + "/pg_wal"
        let names = try ServerUser.run(["ls", directory]).split(separator: "\n").map { String($0) }
        return (directory, names.filter { $0.utf8.count == 24 && $0 >= first }.sorted())
    }

    /// The same as `records` by Kedge's own reader.
    static func ownRecords(_ server: PostgresTestServer, from first: String) throws -> [OracleRecord] {
        let (directory, names) = try segments(server, from: first)
        let control = try ControlFile.read(dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        let format = WALFormat(
            systemIdentifier: control.systemIdentifier, version: control.version, segmentSize: control.walSegmentSize,
            walBlockSize: control.walBlockSize)
        var visitor = EventVisitor(version: control.version)
        var previous: WALFacts?
        for name in names {
            guard let segment = WALSegment(fileName: name, segmentSize: UInt64(control.walSegmentSize)) else {
                continue
            }
            let bytes = try FileDescriptor.open(RawPath(directory + "/" + name), [.read]).readAll(limit: 1 << 30)
            // Segments that are only kept for later use hold older WAL, or none.
            let start = bytes.withBytes { $0.count < 16 ? 0 : $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self) }
            guard start == segment.startLSN(segmentSize: UInt64(control.walSegmentSize)).position else { break }
            let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFacts(of: bytes, segment: segment, isPartial: true, format: format)
            }
            if let previous, case .events(let events) = WALFacts.straddling(previous, facts, version: control.version) {
                visitor.add(events)
            }
            _ = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALReader.walk(bytes, segment: segment, format: format, visitor: &visitor)
            }
            previous = facts
        }
        return visitor.records
    }

    /// Takes every end of a transaction and every restore point.
    private struct EventVisitor: WALRecordVisitor {
        let version: PostgresVersion
        var records: [OracleRecord] = []

        init(version: PostgresVersion) { self.version = version }

        mutating func visit(_ record: WALRecord) -> String? {
            var list = WALEventList(version: version)
            if let reason = list.visit(record) { return reason }
            // XLOG_XACT_COMMIT and XLOG_XACT_COMMIT_PREPARED (src/include/access/xact.h).
            add(list, isCommit: [0x00, 0x30].contains(record.header.info & 0x70))
            return nil
        }

        /// Adds the record that crosses the border of two segments.
        mutating func add(_ events: WALEvents) {
            var list = WALEventList(version: version)
            list.add(events)
            add(list, isCommit: events.commits > 0)
        }

        private mutating func add(_ list: WALEventList, isCommit: Bool) {
            for event in list.events {
                switch event {
                case .transactionEnd(let end):
                    let kind: OracleRecord.Kind = isCommit ? .commit : .abort
                    records.append(OracleRecord(lsn: end.lsn, xid: UInt64(end.xid), kind: kind, time: end.time))
                case .restorePoint(let point):
                    let kind = OracleRecord.Kind.restorePoint(point.name.description)
                    records.append(OracleRecord(lsn: point.lsn, xid: 0, kind: kind, time: nil))
                }
            }
        }
    }

    private static func record(_ line: Substring) -> OracleRecord? {
        guard let tx = field("tx: ", in: line), let xid = UInt64(tx), let position = field("lsn: ", in: line),
            let lsn = LSN(position), let description = line.range(of: "desc: ")
        else { return nil }
        let words = line[description.upperBound...].split(separator: " ")
        switch words.first {
        case "COMMIT" where words.count >= 3, "ABORT" where words.count >= 3:
            let time = Timestamp(record: "\(words[1])T\(padded(words[2]))Z")
            return OracleRecord(lsn: lsn, xid: xid, kind: words[0] == "COMMIT" ? .commit : .abort, time: time)
        case "RESTORE_POINT" where words.count >= 2:
            return OracleRecord(lsn: lsn, xid: 0, kind: .restorePoint(String(words[1])), time: nil)
        default: return nil
        }
    }

    /// `02:03:04.5` with all six digits; nothing where the fraction is zero, as `Timestamp` prints it.
    private static func padded(_ time: Substring) -> String {
        let parts = time.split(separator: ".")
        guard parts.count == 2 else { return String(time) }
        return parts[0] + "." + parts[1] + String(repeating: "0", count: 6 - parts[1].count)
    }

    private static func field(_ name: String, in line: Substring) -> Substring? {
        guard let range = line.range(of: name) else { return nil }
        return line[range.upperBound...].drop { $0 == " " }.prefix { $0 != "," && $0 != " " }
    }
}

extension Substring {
    /// Where `text` first occurs.
    fileprivate func range(of text: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}

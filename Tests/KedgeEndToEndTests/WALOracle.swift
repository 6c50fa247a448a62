// What really happened, in the order of the WAL: ends of transactions and restore points, by pg_waldump.
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// One record that a recovery target can mean.
struct OracleRecord {
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
        let directory = server.dataDirectory + "/pg_wal"
        let names = try ServerUser.run(["ls", directory]).split(separator: "\n").map { String($0) }
            .filter { $0.utf8.count == 24 && $0 >= first }.sorted()
        var dump = ServerUser.command(
            [server.installation.program("pg_waldump"), directory + "/" + first]
                + (names.count > 1 ? [directory + "/" + names[names.count - 1]] : []))
        dump.environment["TZ"] = "UTC"
        dump.outputLimitBytes = 256 << 20
        // The last segment ends in zeroes, which pg_waldump reports as an error after all that is there.
        return try dump.run().outputText.split(separator: "\n").compactMap { record($0) }
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

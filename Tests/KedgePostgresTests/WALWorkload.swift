// A server's WAL with something of everything in it, and pg_waldump's word on what that is.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// A cluster that has done everything a walk must cope with, and is shut down.
struct WALWorkload {
    let server: PostgresTestServer
    let control: ControlFile
    /// All filled segments and the one that the log ends in.
    let segments: [WALSegment]

    var format: WALFormat { control.walFormat }

    init(_ installation: PostgresInstallation, segmentMiB: Int) throws {
        var options = PostgresTestServer.Options()
        options.installation = installation
        options.walSegmentMiB = segmentMiB
        options.configuration = [
            "wal_level = logical", "max_prepared_transactions = 10", "track_commit_timestamp = on",
            "wal_keep_size = 2GB", "max_wal_size = 2GB", "autovacuum = off",
        ]
        server = try PostgresTestServer(options)
        try server.start()
        for name in ["one", "two"] {
            let outcome = try ServerUser.command(["mkdir", server.directory(name)]).run()
            precondition(outcome.status.isSuccess)
        }
        let sql = WALWorkload.sql(
            tablespaces: [server.directory("one"), server.directory("two")], messageMiB: segmentMiB + 4)
        try server.psql(sql)
        try server.stop()
        control = try ControlFile.read(dataDirectory: RawPath(server.dataDirectory), time: SystemTimeSource())
        segments = try WALWorkload.segments(of: server, control)
    }

    /// The bytes of one segment.
    func bytes(of segment: WALSegment) throws -> [UInt8] {
        let name = segment.fileName(segmentSize: UInt64(format.segmentSize))
        return try FileDescriptor.open(RawPath(server.dataDirectory + "/pg_wal/" + name), .read)
            .readAll(limit: 1 << 30)
    }

    private static func segments(of server: PostgresTestServer, _ control: ControlFile) throws -> [WALSegment] {
        let listing = try ServerUser.command(["ls", server.dataDirectory + "/pg_wal"]).run().outputText
        let size = UInt64(control.walSegmentSize)
        // Behind the segment of the last checkpoint lie files that are kept for use: they hold old WAL.
        return listing.split(separator: "\n").compactMap { WALSegment(fileName: $0, segmentSize: size) }
            .filter { $0.startLSN(segmentSize: size) <= control.checkpoint }.sorted()
    }

    /// The message of `messageMiB` is one record.
    private static func sql(tablespaces: [String], messageMiB: Int) -> String {
        """
        CREATE TABLE t (id int, v text);
        ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
        CREATE INDEX ON t (id); CREATE INDEX ON t USING hash (id); CREATE INDEX ON t USING brin (id);
        CREATE TABLE g (a int[], p point); CREATE INDEX ON g USING gin (a); CREATE INDEX ON g USING gist (p);
        CREATE INDEX ON g USING spgist (p); CREATE SEQUENCE s;
        DO $$ BEGIN FOR i IN 1..700 LOOP
          INSERT INTO t SELECT i, repeat('r', i % 300) FROM generate_series(1, i % 7); PERFORM nextval('s'); COMMIT;
        END LOOP; END $$;
        INSERT INTO g SELECT ARRAY[i, i % 10], point(i, i) FROM generate_series(1, 2000) i;
        BEGIN; INSERT INTO t VALUES (-1, 'x'); SAVEPOINT a; INSERT INTO t VALUES (-2, 'x'); ROLLBACK TO a;
          INSERT INTO t VALUES (-3, 'x'); SAVEPOINT b; INSERT INTO t VALUES (-4, 'x'); COMMIT;
        BEGIN; INSERT INTO t VALUES (-5, 'x'); ROLLBACK;
        BEGIN; INSERT INTO t VALUES (-6, 'x'); PREPARE TRANSACTION 'plain'; COMMIT PREPARED 'plain';
        CREATE TABLE gone AS SELECT * FROM t;
        BEGIN; DROP TABLE gone; SAVEPOINT c; CREATE TABLE new (a int primary key); SAVEPOINT d;
          INSERT INTO new VALUES (1); PREPARE TRANSACTION 'rich';
        SELECT pg_create_restore_point('between');
        COMMIT PREPARED 'rich';
        BEGIN; CREATE TABLE never (a int); SAVEPOINT e; INSERT INTO never VALUES (1);
          PREPARE TRANSACTION 'undone'; ROLLBACK PREPARED 'undone';
        SELECT pg_create_restore_point('vor dem Löschen "t"');
        CREATE TABLESPACE one LOCATION '\(tablespaces[0])'; CREATE TABLESPACE two LOCATION '\(tablespaces[1])';
        CREATE TABLE elsewhere (a int) TABLESPACE one;
        CHECKPOINT;
        UPDATE t SET v = v || 'u' WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0; VACUUM t;
        SELECT pg_switch_wal();
        INSERT INTO t SELECT 0, string_agg(md5(i::text), '') FROM generate_series(1, 100000) i;
        SELECT pg_switch_wal();
        SELECT pg_logical_emit_message(true, 'kedge', repeat('m', \(messageMiB) * 1024 * 1024));
        SELECT pg_logical_emit_message(false, 'kedge', repeat('n', 5000)) FROM generate_series(1, 200);
        DO $$ BEGIN FOR i IN 1..200 LOOP
          EXECUTE format('CREATE TABLE d%s (a int primary key, b text)', i);
          IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
        END LOOP; END $$;
        DO $$ BEGIN FOR i IN 1..3000 LOOP
          INSERT INTO new VALUES (i + 10); IF i % 50 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
        END LOOP; END $$;
        CREATE DATABASE other; DROP DATABASE other; TRUNCATE t; VACUUM FULL g;
        SELECT pg_create_restore_point('end');
        """
    }
}

/// One record as pg_waldump prints it.
struct DumpedRecord: Hashable {
    let lsn: LSN
    let manager: UInt8
    let length: UInt32
    let xid: UInt32
    let previous: LSN
    /// What follows `desc: `.
    let description: String

    private static let managers = [
        "XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby", "Heap2",
        "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin",
        "Generic", "LogicalMessage",
    ]

    /// Parses `rmgr: Heap  len (rec/tot):  54/  150, tx:  731, lsn: 0/014E7C10, prev 0/014E7BD8, desc: …`.
    init?(line: ArraySlice<UInt8>) {
        let parts = line.split(separator: 0x2C, maxSplits: 4).map { part in
            part.split { $0 == 0x20 || $0 == 0x2F }.map { String(decoding: $0, as: UTF8.self) }
        }
        guard parts.count == 5, parts[0].count >= 6, parts[0][0] == "rmgr:",
            let manager = DumpedRecord.managers.firstIndex(of: parts[0][1]),
            let length = parts[0].last.flatMap({ UInt32($0) }), let xid = UInt32(parts[1][1]),
            let lsn = LSN(parts[2][1] + "/" + parts[2][2]), let previous = LSN(parts[3][1] + "/" + parts[3][2])
        else { return nil }
        self.lsn = lsn
        self.manager = UInt8(manager)
        self.length = length
        self.xid = xid
        self.previous = previous
        let text = line.split(separator: 0x2C, maxSplits: 4)[4]
        description = String(decoding: text.dropFirst(" desc: ".count), as: UTF8.self)
    }

    /// All records from the first segment's first one to the end of the log.
    static func all(of workload: WALWorkload) throws -> [DumpedRecord] {
        let size = UInt64(workload.format.segmentSize)
        var dump = ServerUser.command([
            workload.server.installation.program("pg_waldump"), "-p", workload.server.dataDirectory + "/pg_wal",
            workload.segments[0].fileName(segmentSize: size),
            workload.segments[workload.segments.count - 1].fileName(segmentSize: size),
        ])
        dump.environment["TZ"] = "UTC"
        dump.outputLimitBytes = 1 << 30
        // It ends with an error, as the log does not fill its last segment.
        let output = try dump.run().output
        let lines = output.split(separator: 0x0A).filter { $0.starts(with: "rmgr:".utf8) }
        let records = lines.compactMap { DumpedRecord(line: $0) }
        precondition(records.count == lines.count, "a line of pg_waldump could not be parsed")
        return records
    }

    /// The transaction that this record ends, with its own id, and whether it commits. Nil for other records.
    var transactionEnd: (end: TransactionEnd, isCommit: Bool)? {
        guard manager == 1 else { return nil }
        var words = description.split(separator: " ")[...]
        guard let kind = words.popFirst(), kind.hasPrefix("COMMIT") || kind.hasPrefix("ABORT") else { return nil }
        var ended = xid
        // `COMMIT_PREPARED 735: 2026-11-21 …`
        if kind.hasSuffix("_PREPARED"), let word = words.popFirst(), let prepared = UInt32(word.dropLast()) {
            ended = prepared
        }
        guard let date = words.popFirst(), let clock = words.popFirst(),
            let time = Timestamp(record: DumpedRecord.recordText(date: date, clock: clock))
        else { return nil }
        return (TransactionEnd(lsn: lsn, time: time, xid: ended), kind.hasPrefix("COMMIT"))
    }

    /// `2026-11-21` and `07:34:17.063080` as our records have it: no fraction where it is zero.
    private static func recordText(date: Substring, clock: Substring) -> String {
        let parts = clock.split(separator: ".")
        let fraction = parts.count == 2 && parts[1] != "000000" ? "." + parts[1] : ""
        return "\(date)T\(parts[0])\(fraction)Z"
    }
}

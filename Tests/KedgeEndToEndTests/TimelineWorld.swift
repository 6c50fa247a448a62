// A cluster whose history branches, on real servers, and what is known about it by other means than Kedge's: which
// transactions each timeline holds, in which order, and where it left its parent.
//
// One session writes, and it asks the server after each transaction for its number, time and WAL positions. Heads of
// all timelines stay where they are and can be started again: they go on along their own timeline.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// One cluster with its timelines, all archived into one repository.
final class TimelineWorld {
    /// Something that a target can name.
    struct Event {
        enum Kind: Equatable {
            /// A row of the journal.
            case commit(row: Int, xid: UInt64, time: Timestamp)
            case abort(xid: UInt64)
            case point(String)
        }

        let kind: Kind
        /// The record begins here or later, and ends before `end`.
        let begin: LSN
        let end: LSN

        var row: Int? { if case .commit(let row, _, _) = kind { row } else { nil } }
        var time: Timestamp? { if case .commit(_, _, let time) = kind { time } else { nil } }
        var xid: UInt64? {
            switch kind {
            case .commit(_, let xid, _), .abort(let xid): xid
            case .point: nil
            }
        }
        var pointName: String? { if case .point(let name) = kind { name } else { nil } }
    }

    /// A timeline and the server at its end.
    final class Head {
        let timeline: UInt32
        let server: PostgresTestServer
        /// Where each ancestor was left, oldest first.
        let ancestors: [(timeline: UInt32, switchPoint: LSN)]
        /// From the root on.
        fileprivate(set) var events: [Event]
        /// How many of them are the parent's.
        let inherited: Int
        /// All WAL before this is archived under this timeline's number, or its ancestors'.
        fileprivate(set) var archived = LSN.invalid

        fileprivate init(
            _ timeline: UInt32, _ server: PostgresTestServer, _ ancestors: [(timeline: UInt32, switchPoint: LSN)],
            _ events: [Event]
        ) {
            self.timeline = timeline
            self.server = server
            self.ancestors = ancestors
            self.events = events
            inherited = events.count
        }

        /// Whether recovery along this timeline can begin with the backup.
        func contains(_ backup: Backup) -> Bool {
            if backup.timeline == timeline { return true }
            return ancestors.contains { $0.timeline == backup.timeline && backup.stop <= $0.switchPoint }
        }
    }

    struct Backup {
        let label: String
        let timeline: UInt32
        let stop: LSN
        let stopTime: Timestamp
        /// How many of the timeline's events came before it.
        let events: Int
    }

    let cluster: ProtectedCluster
    private(set) var heads: [UInt32: Head] = [:]
    private(set) var head: Head
    private(set) var backups: [Backup] = []
    /// What happened, one line each, for the message of a failure.
    private(set) var trace: [String] = []
    private var rows = 0
    private var directories = 0

    private static let settings = [
        "track_commit_timestamp = on", "autovacuum = off", "wal_retrieve_retry_interval = 100ms",
        "checkpoint_timeout = 1h", "max_wal_size = 1GB",
    ]

    /// Makes the cluster and its first backup.
    init(_ installation: PostgresInstallation = .standard, configuration: [String] = []) throws {
        cluster = try ProtectedCluster(installation, configuration: TimelineWorld.settings + configuration)
        try ServerUser.run(["sh", "-c", "echo 'archive-get-timeout = 0s' >> \(cluster.configuration)"])
        head = Head(1, cluster.server, [], [])
        heads[1] = head
        try head.server.psql(
            "create table journal (id int, filler text); alter table journal alter filler set storage external")
        try backUp()
    }

    /// Pretends that timelines 2 to `last` branched off before the first backup; all that is left are their histories
    /// (lesson 3: a timeline's number is hexadecimal in names and decimal in settings).
    func addOldTimelines(upTo last: UInt32) throws {
        for number in 2...last {
            let path = cluster.directory(TimelineID(number).hex + ".history")
            try cluster.write(path, "1\t0/100000\tan older promotion")
            try cluster.kedge(["archive-push", path])
        }
    }

    private func note(_ what: String) throws {
        let position =
            head.server.processID == nil ? "down" : try head.server.value("select pg_current_wal_insert_lsn()")
        trace.append("\(what): timeline \(head.timeline), \(head.events.count) events, \(position)")
    }

    // MARK: Writing

    /// Commits or rolls back a few transactions, and makes a restore point now and then.
    func write(_ count: Int, _ random: SeededRandom) throws {
        for _ in 0..<count {
            switch random.next(below: 10) {
            case 0: try writeTransaction(bytes: 0, ending: "rollback")
            case 1: try makePoint("point-\(head.timeline)-\(rows)-\(random.next(below: 1000))")
            case 2: try writeTransaction(bytes: 300_000 + random.next(below: 900_000))
            default: try writeTransaction(bytes: random.next(below: 3000))
            }
        }
    }

    /// One transaction with a row of the journal, and about this many bytes of WAL.
    func writeTransaction(bytes: Int = 0, ending: String = "commit") throws {
        rows += 1
        let filler = "select string_agg(md5((random() + g)::text), '') from generate_series(1, \(bytes / 32)) g"
        let output = try head.server.psql(
            """
            begin;
            insert into journal values (\(rows), (\(filler)));
            select pg_current_xact_id() as xid, pg_current_wal_insert_lsn() as begin \\gset
            \(ending);
            select :'xid', :'begin', pg_current_wal_insert_lsn(),
                coalesce((extract(epoch from pg_xact_commit_timestamp(:'xid'::xid)) * 1000000)::bigint, 0);
            """)
        guard let row = output.last, row.count == 4, let xid = UInt64(row[0]), let begin = LSN(row[1]),
            let end = LSN(row[2]), let time = Int64(row[3])
        else { throw KedgeError(.defect, "unexpected output \(output)") }
        let kind: Event.Kind =
            ending == "commit"
            ? .commit(row: rows, xid: xid, time: Timestamp(microseconds: time)) : .abort(xid: xid)
        head.events.append(Event(kind: kind, begin: begin, end: end))
    }

    func makePoint(_ name: String) throws {
        let output = try head.server.psql(
            """
            select pg_current_wal_insert_lsn();
            select pg_create_restore_point('\(name)');
            """)
        guard let begin = LSN(output[0][0]), let end = LSN(output[1][0]) else {
            throw KedgeError(.defect, "unexpected output \(output)")
        }
        head.events.append(Event(kind: .point(name), begin: begin, end: end))
    }

    /// Ends the segment and waits until it is archived.
    func switchSegment() throws {
        // Nothing is switched where nothing was written.
        let output = try head.server.psql(
            "select pg_logical_emit_message(false, '', ''); select pg_walfile_name(pg_switch_wal())")
        let name = output.last?.last ?? ""
        try head.server.wait(until: "select last_archived_wal >= '\(name)' from pg_stat_archiver")
        guard let segment = WALSegment(fileName: name, segmentSize: 1 << 20) else { return }
        head.archived = segment.next.startLSN(segmentSize: 1 << 20)
        try note("switched")
    }

    /// Waits until the present head has archived what it has filled: or else the answer to what can be reached depends
    /// on the moment at which it is asked.
    func waitForArchiver() throws {
        guard head.server.processID != nil else { return }
        try head.server.wait(
            until: "select not exists (select from pg_ls_archive_statusdir() where name like '%.ready')")
    }

    /// A full backup of the present head.
    func backUp() throws {
        let text = try cluster.kedge([
            "backup", "--type", "full", "--json", "--host", head.server.directory.path, "--pgdata",
            head.server.dataDirectory,
        ])
        let record = try JSONRecord(parsing: text.utf8, what: "backup")
        let backup = Backup(
            label: try record.string("label"), timeline: head.timeline, stop: try record.parsed("stopLSN") { LSN($0) },
            stopTime: try record.parsed("stopTime") { Timestamp(record: $0) }, events: head.events.count)
        backups.append(backup)
        head.archived = max(head.archived, backup.stop)
        try note("backup \(backup.label) to \(backup.stop)")
    }

    /// Kills the present head and lets it recover from the crash, without a signal file.
    func crash() throws {
        try head.server.kill()
        try head.server.start()
        try note("crashed")
    }

    /// Leaves the present head and goes on at the end of another timeline.
    func resume(_ timeline: UInt32) throws {
        guard let next = heads[timeline], next.timeline != head.timeline else { return }
        try head.server.stop()
        head = next
        try head.server.start()
        try note("resumed")
    }

    // MARK: Branching

    /// A directory that nothing is in.
    func scratch() -> String {
        directories += 1
        return cluster.scratch("node-\(directories)")
    }

    /// The newly promoted server becomes the head. `events` of the old head's line are its own.
    func adopt(_ server: PostgresTestServer, events: [Event]) throws {
        let name = try server.value("select pg_walfile_name(pg_current_wal_lsn())")
        guard let timeline = TimelineID(hex: name.prefix(8)) else { throw KedgeError(.defect, "no WAL name: \(name)") }
        // The history file, and what the old timeline's end left: whole or `.partial`.
        try server.wait(until: "select not exists (select from pg_ls_archive_statusdir() where name like '%.ready')")
        let path = server.dataDirectory + "/pg_wal/" + timeline.hex + ".history"
        let history = try TimelineHistory(parsing: Array((readTextFile(path) ?? "").utf8), timeline: timeline)
        let ancestors = history.entries.dropLast().map { ($0.timeline.number, $0.end ?? .invalid) }
        if head.server !== server { try head.server.stop() }
        head = Head(timeline.number, server, ancestors, events)
        heads[timeline.number] = head
        try note("promoted")
    }

    /// A streaming standby of the present head takes over after the head was killed in the middle of a segment. Nil
    /// where there is no backup that it could begin with.
    func failOver() throws {
        let old = head
        let directory = scratch()
        try cluster.kedge(["restore", "--pgdata", directory, "--standby", "--archiving", "keep"])
        let standby = try PostgresTestServer(dataDirectory: directory, installation: old.server.installation)
        try standby.appendConfiguration([
            "primary_conninfo = 'host=\(old.server.directory.path) port=\(old.server.port) user=postgres'"
        ])
        try standby.start()
        try writeTransaction(bytes: 1000)
        let position = try old.server.value("select pg_current_wal_insert_lsn()")
        try standby.wait(until: "select pg_last_wal_replay_lsn() >= '\(position)'")
        try old.server.kill()
        try standby.psql("select pg_promote()")
        try standby.wait(until: "select not pg_is_in_recovery()")
        try adopt(standby, events: old.events)
    }

    /// The rows of a server's journal.
    static func rows(_ server: PostgresTestServer) throws -> Set<Int> {
        Set(try server.psql("select id from journal").compactMap { Int($0[0]) })
    }
}

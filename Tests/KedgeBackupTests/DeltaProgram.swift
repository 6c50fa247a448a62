// Random SQL that does to files whatever PostgreSQL does to them: grow, shrink, rewrite, copy, drop and make anew, also
// by prepared transactions, through crashes and promotions.
import KedgeCore
import KedgeTestSupport

@testable import KedgeBackup

/// A running random program. The server's tables and databases are its state.
struct DeltaProgram {
    /// What the server must be started with.
    static let configuration = ["max_wal_size = 64MB", "max_prepared_transactions = 4"]

    private let cluster: BackupTestCluster
    private let random: SeededRandom
    private var tables: Set<Int> = []
    private var hasDatabase = false
    /// A tablespace that comes and goes, and how many there were: each lies elsewhere.
    private var hasPassingSpace = false
    private var passingSpaces = 0
    /// A transaction that is prepared and neither committed nor rolled back. Only it writes to `prepared`, and its own
    /// table is there if it is committed.
    private var isPrepared = false
    private var hasPreparedTable = false
    /// What the last run did.
    private(set) var lastSteps: [String] = []
    /// How often each kind of special step was done.
    private(set) var counts: [String: Int] = [:]

    private var server: PostgresTestServer { cluster.server }
    /// Every database that is worth a look.
    var databases: [String] { ["postgres"] + (hasDatabase ? ["other"] : []) }

    init(_ cluster: BackupTestCluster, _ random: SeededRandom) throws {
        self.cluster = cluster
        self.random = random
        let place = cluster.scratch("space")
        try ServerUser.run(["mkdir", place])
        try cluster.server.psql("create tablespace space location '\(place)'")
        try cluster.server.psql(
            """
            create sequence numbers;
            create table prepared (i int, v text);
            insert into prepared select i, md5(i::text) from generate_series(1, 5000) i
            """)
        // Some installations come without.
        for row in try server.psql(
            "select name from pg_available_extensions where name in ('amcheck', 'pg_visibility')")
        { try server.psql("create extension \(row[0])") }
        for table in 0..<3 { try create(table) }
    }

    private mutating func create(_ table: Int) throws {
        tables.insert(table)
        try server.psql(
            """
            create \(random.next(below: 6) == 0 ? "unlogged" : "") table t\(table)
                (i int, v text, p point, a int[]) with (fillfactor = \([50, 90, 100][random.next(below: 3)]));
            insert into t\(table) select i, md5(i::text), point(i % 100, i), array[i % 7, i % 11]
                from generate_series(1, \(random.next(below: 20000))) i
            """)
    }

    /// Runs so many random statements, and then a checkpoint half of the time.
    mutating func run(steps: Int) throws {
        lastSteps = []
        for _ in 0..<steps {
            let statement = try step()
            lastSteps.append(statement)
        }
        if random.next(below: 2) == 0 { try server.psql("checkpoint") }
    }

    private mutating func step() throws -> String {
        let table = random.next(below: 6)
        guard tables.contains(table) else {
            try create(table)
            return "create t\(table)"
        }
        if let special = try special(table) {
            counts[special.kind, default: 0] += 1
            return special.text
        }
        let (every, part) = (2 + random.next(below: 300), random.next(below: 100))
        let rows = random.next(below: 30000)
        let fresh = "select i, md5((i * 3)::text), point(i, i % 50), array[i % 5] from generate_series(1, \(rows)) i"
        let index = ["btree (i)", "hash (i)", "gist (p)", "gin (a)", "brin (i)", "spgist (p)"][random.next(below: 6)]
        let choices = [
            "update t\(table) set v = v || 'x' where i % \(every) = 0",
            "update t\(table) set i = i + 1 where i % \(every) = 1",
            "delete from t\(table) where i % \(every) = 0",
            "delete from t\(table) where i > \(rows)",
            "insert into t\(table) \(fresh)",
            "begin; insert into t\(table) \(fresh); rollback",
            "truncate t\(table)",
            "begin; truncate t\(table); insert into t\(table) \(fresh); commit",
            "begin; create table x as select 1; truncate t\(table); rollback",
            "create index on t\(table) using \(index)",
            "reindex table t\(table)",
            "alter table t\(table) set tablespace \(part < 50 ? "space" : "pg_default")",
            "alter table t\(table) set \(part < 50 ? "logged" : "unlogged")",
            "select count(*) from t\(table) where v like '%\(part)%'",
            "select nextval('numbers') from generate_series(1, \(part + 1))",
            "analyze t\(table)",
        ]
        let statement = choices[random.next(below: choices.count)]
        try server.psql(statement)
        return statement
    }

    /// What is no plain statement of one table; nil most of the time.
    private mutating func special(_ table: Int) throws -> (kind: String, text: String)? {
        switch random.next(below: 34) {
        case 0: return try run("vacuum", "vacuum t\(table)")
        case 1: return try run("vacuum freeze", "vacuum (freeze) t\(table)")
        case 2: return try run("vacuum full", "vacuum full t\(table)")
        case 3:
            tables.remove(table)
            return try run("drop table", "drop table t\(table)")
        case 4, 5: return try database()
        case 6: return try crash()
        case 7: return try run("checkpoint", "checkpoint")
        case 8: return try dropIndex(table)
        case 9: return try regrow(table)
        case 10: return try passingSpace()
        case 11, 12: return try prepare()
        case 13: return try promote()
        default: return nil
        }
    }

    private func run(_ kind: String, _ statement: String) throws -> (kind: String, text: String) {
        try server.psql(statement)
        return (kind, statement)
    }

    /// Creates, changes or drops a database, by either strategy.
    private mutating func database() throws -> (kind: String, text: String)? {
        if hasDatabase {
            if random.next(below: 3) == 0 {
                let change = "update prepared set v = v || 'o' where i % 50 = 0"
                try server.psql(change, database: "other")
                return ("change of a copied database", "in other: \(change)")
            }
            hasDatabase = false
            return try run("drop database", "drop database other")
        }
        // A template must have no other sessions, and a prepared transaction is one.
        guard !isPrepared else { return nil }
        hasDatabase = true
        let strategy = ["file_copy", "wal_log"][random.next(below: 2)]
        let hasStrategies = server.installation.version >= 15
        let statement = "create database other template postgres" + (hasStrategies ? " strategy \(strategy)" : "")
        try server.psql(statement, database: "template1")
        return ("create database by \(hasStrategies ? strategy : "file_copy")", statement)
    }

    private func crash() throws -> (kind: String, text: String) {
        if random.next(below: 2) == 0 {
            try server.stop(.immediate)
        } else {
            try server.kill()
        }
        try server.start()
        return ("crash", "crash")
    }

    private func dropIndex(_ table: Int) throws -> (kind: String, text: String)? {
        let names = try server.psql(
            "select indexrelid::regclass from pg_index where indrelid = 't\(table)'::regclass order by 1::text")
        guard !names.isEmpty, let name = names[random.next(below: names.count)].first else { return nil }
        return try run("drop index", "drop index \(name)")
    }

    /// Cuts the end off and grows past it, by loads of which one is rolled back.
    private func regrow(_ table: Int) throws -> (kind: String, text: String) {
        let (left, rows) = (random.next(below: 5000), random.next(below: 30000))
        let fresh =
            "insert into t\(table) select i, 'regrown', point(1, i), array[i] from generate_series(1, \(rows)) i"
        let lines = [
            "delete from t\(table) where i > \(left)", "vacuum t\(table)", "begin; \(fresh); rollback", fresh,
        ]
        for line in lines { try server.psql(line) }
        return ("regrow", lines.joined(separator: "; "))
    }

    /// A tablespace with a table, created or dropped.
    private mutating func passingSpace() throws -> (kind: String, text: String) {
        if hasPassingSpace {
            // A copy of the database would keep it in use.
            if hasDatabase { try server.psql("drop database other") }
            (hasDatabase, hasPassingSpace) = (false, false)
            try server.psql("drop table passing")
            return try run("drop tablespace", "drop tablespace passing")
        }
        hasPassingSpace = true
        passingSpaces += 1
        let place = cluster.scratch("passing\(passingSpaces)")
        try ServerUser.run(["mkdir", place])
        try server.psql("create tablespace passing location '\(place)'")
        return try run(
            "create tablespace",
            "create table passing tablespace passing as select i, md5(i::text) from generate_series(1, 3000) i")
    }

    /// Prepares a transaction, or ends the one that is prepared.
    private mutating func prepare() throws -> (kind: String, text: String) {
        if isPrepared {
            isPrepared = false
            let commits = random.next(below: 3) > 0
            hasPreparedTable = commits
            let kind = commits ? "commit prepared" : "rollback prepared"
            return try run(kind, kind + " 'one'")
        }
        if hasPreparedTable { try server.psql("drop table of_prepared") }
        (isPrepared, hasPreparedTable) = (true, false)
        return try run(
            "prepare transaction",
            """
            begin; update prepared set v = v || 'p' where i % \(2 + random.next(below: 50)) = 0;
            insert into prepared select i, 'p' from generate_series(1, \(random.next(below: 3000))) i;
            create table of_prepared as select i, md5(i::text) from generate_series(1, 2000) i;
            prepare transaction 'one'
            """)
    }

    /// The server becomes a standby of its archive, also after a crash, and is promoted to a timeline of its own.
    private func promote() throws -> (kind: String, text: String) {
        let mode: PostgresTestServer.StopMode = random.next(below: 2) == 0 ? .immediate : .fast
        try server.stop(mode)
        try ServerUser.run(["touch", server.dataDirectory + "/standby.signal"])
        try server.start()
        try server.psql("select pg_promote()")
        try server.wait(until: "select not pg_is_in_recovery()")
        return ("promotion", "promotion after a \(mode) stop")
    }
}

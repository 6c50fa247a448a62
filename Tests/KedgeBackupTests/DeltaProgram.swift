// Random SQL that does to files whatever PostgreSQL does to them: grow, shrink, rewrite, copy, drop and make anew.
import KedgeCore
import KedgeTestSupport

@testable import KedgeBackup

/// A running random program. The server's tables and databases are its state.
struct DeltaProgram {
    private let cluster: BackupTestCluster
    private let random: SeededRandom
    private var tables: Set<Int> = []
    private var hasDatabase = false
    /// What the last run did.
    private(set) var lastSteps: [String] = []

    private var server: PostgresTestServer { cluster.server }

    init(_ cluster: BackupTestCluster, _ random: SeededRandom) throws {
        self.cluster = cluster
        self.random = random
        let place = cluster.scratch("space")
        try ServerUser.run(["mkdir", place])
        try cluster.server.psql("create tablespace space location '\(place)'; create sequence numbers")
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
        if let special = try special(table) { return special }
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
    private mutating func special(_ table: Int) throws -> String? {
        let statement: String
        switch random.next(below: 24) {
        case 0: statement = "vacuum t\(table)"
        case 1: statement = "vacuum (freeze) t\(table)"
        case 2: statement = "vacuum full t\(table)"
        case 3:
            tables.remove(table)
            statement = "drop table t\(table)"
        case 4 where hasDatabase:
            hasDatabase = false
            statement = "drop database other"
        case 4, 5:
            guard !hasDatabase else { return nil }
            hasDatabase = true
            let strategy = ["file_copy", "wal_log"][random.next(below: 2)]
            statement =
                "create database other template postgres"
                + (server.installation.version >= 15 ? " strategy \(strategy)" : "")
            // The template must have no other sessions.
            try server.psql(statement, database: "template1")
            return statement
        case 6:
            try server.stop(.immediate)
            try server.start()
            return "crash"
        case 7: statement = "checkpoint"
        default: return nil
        }
        try server.psql(statement)
        return statement
    }
}

// That check files, the restored configuration and drill-set are read as psql and the server read them.
import KedgeCore
import KedgePostgres
import KedgeRestore
import KedgeTestSupport
import Testing

@testable import KedgeDrill

@Suite struct ParsingTests {
    private func statements(_ text: String) throws -> [String] {
        try Assertion.parse(Array(text.utf8), file: "checks.sql").map(\.sql)
    }

    @Test("statements end with a semicolon outside of quotes, dollar quotes, comments and parentheses")
    func statementsOf() throws {
        #expect(try statements("") == [])
        #expect(try statements(" ;; -- nothing\n /* no /* thing */ ; */ ") == [])
        #expect(try statements("select true; select 1 = 1") == ["select true", "select 1 = 1"])
        #expect(try statements("select ';' = ';'; x") == ["select ';' = ';'", "x"])
        #expect(try statements("select 'it''s;' = \"a;\"\"b\"; x") == ["select 'it''s;' = \"a;\"\"b\"", "x"])
        #expect(try statements("select E'\\';' = ''; x") == ["select E'\\';' = ''", "x"])
        #expect(try statements("select '\\'; x") == ["select '\\'", "x"])
        #expect(try statements("select $$;$$ = $a$;$$;$a$; x") == ["select $$;$$ = $a$;$$;$a$", "x"])
        #expect(try statements("select a$b;c$d") == ["select a$b", "c$d"])
        #expect(try statements("select $1; x") == ["select $1", "x"])
        #expect(try statements("select (1;2); x") == ["select (1;2)", "x"])
        #expect(try statements("a -- ; '\nb;c") == ["a \nb", "c"])
    }

    @Test("lines and databases are kept")
    func places() throws {
        let text = "-- first\nselect 1;\n\n\\connect \"my db\"\n/* a\n b */ select\n2;\n\\c other\nselect 3"
        #expect(
            try Assertion.parse(Array(text.utf8), file: "f") == [
                Assertion(sql: "select 1", line: 2, database: nil),
                Assertion(sql: "select\n2", line: 6, database: "my db"),
                Assertion(sql: "select 3", line: 9, database: "other"),
            ])
    }

    @Test("what does not end, and commands of psql that are not \\connect, are errors of the configuration")
    func malformed() {
        for text in ["select 'a", "select \"a", "/* a", "select $x$ a", "\\copy a", "\\connect", "\\connect a b"] {
            #expect(throws: KedgeError.self, "\(text)") { try statements(text) }
        }
    }

    @Test("20000 random texts never trap")
    func fuzz() {
        let random = SeededRandom(seed: testSeed())
        let alphabet = Array("ab;'\"$\\\n-/*() E1".utf8)
        var parsed = 0
        for _ in 0..<20_000 {
            let bytes = (0..<random.next(below: 24)).map { _ in alphabet[random.next(below: alphabet.count)] }
            do throws(KedgeError) {
                for assertion in try Assertion.parse(bytes, file: "f") {
                    parsed += 1
                    #expect(!assertion.sql.isEmpty)
                }
            } catch {
                #expect(error.code == .configuration)
            }
        }
        #expect(parsed > 1000)
    }

    // MARK: - Configuration

    @Test("lines of a server's configuration are read as the server reads them")
    func lines() {
        func parsed(_ line: String) -> String? { RestoredSettings.parse(line).map { "\($0.name)=\($0.value)" } }
        #expect(parsed("port = 5433   # here") == "port=5433")
        #expect(parsed("  Shared_Preload_Libraries='a, b'") == "shared_preload_libraries=a, b")
        #expect(parsed("work_mem 64MB") == "work_mem=64MB")
        #expect(parsed("a = 'it''s \\'so\\''") == "a=it's 'so'")
        #expect(parsed("include 'conf.d/x.conf'\r") == "include=conf.d/x.conf")
        for line in ["", "# port = 1", "   ", "port =", "port = 'open"] { #expect(parsed(line) == nil, "\(line)") }
        #expect(
            RestoredSettings.list(" pg_stat_statements, \"auto_explain\" ,,x")
                == ["pg_stat_statements", "auto_explain", "x"])
    }

    @Test("includes are looked up among the restored files alone; the last setting wins, postgresql.auto.conf at last")
    func includes() throws {
        let directory = try TemporaryDirectory()
        func write(_ name: String, _ text: String) throws {
            let path = RawPath(directory(name))
            try Directory.createWithParents(at: path.parent)
            try FileDescriptor.open(path, [.write, .create]).write(Array(text.utf8), at: 0)
        }
        try write(
            "extra/etc/pg/postgresql.conf",
            """
            include_dir 'conf.d'
            include '/etc/hostname'
            include_if_exists 'none.conf'
            port = 1
            include 'loop.conf'
            include '../../../outside.conf'
            include '.././pg//inside.conf'

            """)
        // Beside the restored files, where a path that goes up would lead.
        try write("outside.conf", "a = outside\n")
        try write("extra/etc/pg/inside.conf", "c = inside\n")
        try write("extra/etc/pg/loop.conf", "include 'loop.conf'\n")
        try write("extra/etc/pg/conf.d/2.conf", "a = two\nb = two\n")
        try write("extra/etc/pg/conf.d/1.conf", "a = one\nshared_preload_libraries = 'x'\n")
        try write("extra/etc/pg/conf.d/.hidden.conf", "a = hidden\n")
        try write("data/postgresql.auto.conf", "b = 'auto'\n")
        let settings = try RestoredSettings(
            main: "/etc/pg/postgresql.conf",
            .init(
                original: "/srv/original", restored: RawPath(directory("data")), extraFiles: RawPath(directory("extra"))
            ))
        let expected = ["a": "two", "b": "auto", "c": "inside", "port": "1", "shared_preload_libraries": "x"]
        #expect(settings.values == expected)
        // They are on this host, and not in the backup.
        #expect(settings.missing == ["/etc/hostname", "/etc/pg/../../../outside.conf"])
    }

    @Test("drill-set takes settings apart at semicolons, and none on which a drill's safety rests")
    func overrides() throws {
        #expect(
            try DrillSetting.parse("shared_buffers=1GB; Work_Mem = 4MB ;x.y=a=b;").map { "\($0.name)|\($0.value)" }
                == ["shared_buffers|1GB", "work_mem|4MB", "x.y|a=b"])
        for text in [
            "archive_mode=on", "a", "=b", "a b=c", "Restore_Command=x", "include=x", "recovery_target_lsn=0/1",
            "unix_socket_directories=/tmp",
        ] {
            #expect(throws: KedgeError.self, "\(text)") { try DrillSetting.parse(text) }
        }
    }

    @Test("a program's version is read from what it prints")
    func versions() {
        #expect(ServerPrograms.version(in: "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n") == "15.14")
        #expect(ServerPrograms.version(in: "postgres (PostgreSQL) 18rc1\n") == "18rc1")
        #expect(ServerPrograms.version(in: "postgres 15\n") == nil)
    }

    @Test("relation files are told from all others")
    func relationFiles() {
        #expect(PageScan.segment(of: "16384") == 0)
        #expect(PageScan.segment(of: "16384.12") == 12)
        #expect(PageScan.segment(of: "1259_vm") == 0)
        #expect(PageScan.segment(of: "1259_fsm.1") == 1)
        let others: [RawPath] = [
            "PG_VERSION", "pg_filenode.map", "t3_16384", "16384_x", "16384.", "", "pg_internal.init", "1_2_3",
        ]
        for name in others { #expect(PageScan.segment(of: name) == nil, "\(name)") }
    }
}

// That each way in which a backup or its WAL can be worthless is found by the check that is there for it, with exit
// status 3 and a record; and that what only keeps a drill from being run leaves neither a record nor anything else.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct DrillSabotageTests {
    /// Drills, which must fail in exactly these checks, and may in those of `others`. Returns what the first says.
    @discardableResult
    private func fails(
        _ drills: DrillCluster, in checks: Set<String>, _ arguments: [String] = [], orAlso others: Set<String> = []
    ) throws -> String {
        let count = try drills.proofCount()
        let proof = try drills.proof(arguments, status: 3)
        #expect(try proof.string("result") == "failed")
        let failed = Set(try DrillCluster.checks(proof, "failed").map { $0.split(separator: " ")[0] }.map(String.init))
        #expect(failed.subtracting(others) == checks, "\(proof)")
        #expect(try drills.proofCount() == count + 1)
        try drills.expectNothingLeft()
        return try DrillCluster.failure(proof)
    }

    /// Flips bits in the middle of a table's first page, behind the server's back.
    private func damage(_ drills: DrillCluster, table: String) throws {
        let server = drills.cluster.server
        let path = server.dataDirectory + "/" + (try server.value("select pg_relation_filepath('\(table)')"))
        let file = try FileDescriptor.open(RawPath(path), [.read, .write])
        let bytes = try file.read(count: 8, at: 8000)
        try file.write(bytes.map { $0 ^ 0x55 }, at: 8000)
    }

    @Test("a page that was damaged before the backup is found by the data checksums")
    func damagedPage() throws {
        let drills = try DrillCluster(backup: false)
        try drills.cluster.server.psql("checkpoint")
        try damage(drills, table: "t")
        #expect(try drills.cluster.attempt(["backup"]).status == .exited(3))
        try drills.archive()
        let detail = try fails(drills, in: ["checksums"], ["--drill-amcheck", "off"])
        #expect(detail.hasPrefix("1 page(s) have a wrong checksum: base/"), "\(detail)")
        // amcheck reads the page too, and says so.
        try fails(drills, in: ["checksums", "amcheck"])
    }

    /// SQL for an index on table t whose entries lie in another order than its operators say.
    private static func otherOrder(_ type: String, _ comparison: String, column: String) -> String {
        func function(_ sign: String) -> String {
            "create or replace function compare_\(type)(\(type), \(type)) returns int immutable language plpgsql "
                + "as 'begin return \(sign)\(comparison); end';"
        }
        return """
            \(function(""))
            create operator class order_\(type) for type \(type) using btree as operator 1 <, operator 2 <=,
                operator 3 =, operator 4 >=, operator 5 >, function 1 compare_\(type)(\(type), \(type));
            create index order_of_\(type) on t (\(column) order_\(type));
            \(function("-"))
            """
    }

    @Test("an index that does not hold what its table holds is found by amcheck")
    func wrongIndex() throws {
        let drills = try DrillCluster(
            sql: """
                create table t as select g, g::text as s from generate_series(1, 3000) g;
                create function f(int) returns int immutable language sql as 'select $1';
                create index wrong on t (f(g));
                create or replace function f(int) returns int immutable language sql as 'select -$1';
                \(Self.otherOrder("int", "btint4cmp($1, $2)", column: "g"))
                create collation other (locale = 'C');
                \(Self.otherOrder("text", "bttextcmp($1 collate \"C\", $2 collate \"C\")", column: "s collate other"))
                update pg_collation set collversion = '0' where collname = 'other';
                """)
        try drills.archive()
        // A sample takes the indexes in any order.
        try fails(drills, in: ["amcheck"], ["--drill-amcheck", "sample"])
        // A collation that this host has in another version excuses the index that sorts by it, and no other.
        let proof = try drills.proof(["--drill-amcheck", "full"], status: 3)
        #expect(
            try DrillCluster.checks(proof, "failed") == [
                "amcheck (postgres: public.wrong)", "amcheck (postgres: public.order_of_int)",
            ])
        #expect(
            try DrillCluster.checks(proof, "warning") == [
                "collations (postgres)", "amcheck (postgres: public.order_of_text)",
            ])
        #expect(try drills.drill(["--drill-amcheck", "off"]).status == .exited(0))
    }

    @Test("a table that was emptied before the backup is found by the user's own check")
    func emptiedTable() throws {
        let drills = try DrillCluster(sql: "create table t (g int)")
        try drills.archive()
        let checks = drills.cluster.scratch("checks.sql")
        try drills.cluster.write(checks, "select true;\nselect count(*) > 0 from t;\nselect missing from t")
        let proof = try drills.proof(["--drill-check", checks], status: 3)
        #expect(try DrillCluster.checks(proof, "failed") == ["assertion (line 2)", "assertion (line 3)"])
        #expect(try DrillCluster.failure(proof) == "It gave f instead of true: select count(*) > 0 from t")
        // A file that cannot be run says nothing about the backup.
        try drills.cluster.write(checks, "select true;\nselec true;\n\\connect nowhere\nselect true")
        let count = try drills.proofCount()
        let refused = try drills.drill(["--drill-check", checks, "--drill-amcheck", "off"])
        #expect(refused.status == .exited(2) && refused.errorText.contains("line 2"), "\(refused.errorText)")
        #expect(try drills.proofCount() == count)
    }

    @Test("an index whose check brings the server down fails, though nothing else can be asked then")
    func crashingCheck() throws {
        let crash = "begin execute ''copy (select 1) to program ''''kill -SEGV $PPID''''''; return 1; end"
        let drills = try DrillCluster(
            // ANALYZE would call the function too.
            configuration: ["autovacuum = off"],
            sql: """
                create table t as select g from generate_series(1, 100) g;
                create function f(int) returns int immutable language sql as 'select $1';
                create index crash on t (f(g));
                create or replace function f(int) returns int volatile language plpgsql as '\(crash)';
                """)
        try drills.archive()
        // The server of 13 is gone sooner, and has not answered the next question either.
        let detail = try fails(drills, in: ["amcheck"], orAlso: ["connect", "checksums"])
        #expect(detail.contains("server closed the connection") || detail.contains("terminat"), "\(detail)")
    }

    @Test("WAL that is missing in the middle, and a segment replaced by an older one, fail the plan")
    func brokenWAL() throws {
        let drills = try DrillCluster()
        let cluster = drills.cluster
        for round in 0..<3 {
            try cluster.server.psql("insert into t values (\(round), 'round')")
            try cluster.archiveEverything()
        }
        let directory = cluster.repository + "/main/wal"
        let segments = try ServerUser.run(["find", directory, "-type", "f", "-name", "0000*", "-not", "-name", "*.*"])
            .split(separator: "\n").map(String.init).sorted { $0.suffix(24) < $1.suffix(24) }
        let victim = segments[segments.count - 2]
        try ServerUser.run(["mv", victim, cluster.scratch("aside")])
        let missing = try fails(drills, in: ["plan"], ["--archive-timeout", "1s"])
        #expect(missing.contains("the archived WAL has a hole"), "\(missing)")
        #expect(missing.contains(String(victim.suffix(24))), "\(missing)")

        try ServerUser.run(["cp", segments[segments.count - 3], victim])
        try fails(drills, in: ["plan"])
        try ServerUser.run(["mv", "-f", cluster.scratch("aside"), victim])
        #expect(try drills.drill().status == .exited(0))
    }

    @Test("a segment with a damaged record fails the plan, though it was archived")
    func suspectWAL() throws {
        let drills = try DrillCluster()
        let server = drills.cluster.server
        try server.psql("alter system set archive_command = 'false'")
        try server.psql("select pg_reload_conf(), pg_switch_wal()")
        try server.psql("insert into t select g, 'more' from generate_series(1, 1000) g")
        let name = try server.value("select pg_walfile_name(pg_switch_wal())")
        let file = try FileDescriptor.open(RawPath(server.dataDirectory + "/pg_wal/" + name), [.read, .write])
        let bytes = try file.read(count: 4, at: 20_000)
        try file.write(bytes.map { $0 ^ 0x55 }, at: 20_000)
        try server.psql("alter system reset archive_command")
        try server.psql("select pg_reload_conf()")
        try drills.archive()
        let detail = try fails(drills, in: ["plan"])
        #expect(detail.contains(name), "\(detail)")
        // What lies before it is sound.
        _ = try drills.proof(["--target-immediate"])
    }

    @Test("damage in a pack fails the fetch")
    func damagedPack() throws {
        let drills = try DrillCluster()
        try drills.archive()
        let pack = try #require(
            try ServerUser.run(["find", drills.cluster.repository + "/main/pack", "-type", "f"]).split(separator: "\n")
                .first.map(String.init))
        let file = try FileDescriptor.open(RawPath(pack), [.read, .write])
        let bytes = try file.read(count: 4, at: 5000)
        try file.write(bytes.map { $0 ^ 1 }, at: 5000)
        try fails(drills, in: ["fetch"])
    }

    @Test("a server that never reaches the target fails, in the server's own words")
    func neverReached() throws {
        // The page is sound in the server's memory and damaged on disk when it is backed up; without full page writes
        // replay has to read it.
        let drills = try DrillCluster(configuration: ["full_page_writes = off", "autovacuum = off"], backup: false)
        let server = drills.cluster.server
        try server.psql("checkpoint; select sum(g) from t")
        try damage(drills, table: "t")
        #expect(try drills.cluster.attempt(["backup"]).status == .exited(3))
        try server.psql("update t set r = 'new' where ctid = '(0,1)'")
        try drills.archive()
        let detail = try fails(drills, in: ["target-reached"])
        #expect(detail.contains("invalid page in block 0"), "\(detail)")
    }

    // MARK: - What is no result

    /// Drills, which must not get as far as a result. Returns the error.
    private func refuses(
        _ drills: DrillCluster, status: Int32, _ arguments: [String] = [], binDirectory: String? = nil
    ) throws -> String {
        let count = try drills.proofCount()
        let outcome = try drills.drill(arguments, binDirectory: binDirectory)
        #expect(outcome.status == .exited(status), "\(outcome.errorText)\(outcome.outputText)")
        #expect(try drills.proofCount() == count)
        try drills.expectNothingLeft()
        return outcome.errorText
    }

    @Test(
        "no PostgreSQL, one of another version, a missing library, an unknown target: told before anything is written")
    func obstacles() throws {
        let drills = try DrillCluster(backup: false)
        let cluster = drills.cluster
        #expect(try refuses(drills, status: 1).contains("the repository holds no committed backup"))
        try cluster.server.appendConfiguration(["shared_preload_libraries = 'no_such_library'"])
        try cluster.kedge(["backup"])
        try drills.archive()

        let major = cluster.server.installation.version
        let none = try refuses(drills, status: 2, binDirectory: "/nonexistent")
        #expect(
            none == """
                kedge: error: cannot drill: there is no PostgreSQL \(major) on this host
                detail: There is no program "postgres" in "/nonexistent".
                hint: Install the server's package, such as postgresql-\(major), or set bin-dir to the directory of \
                its programs.
                code: configuration

                """)
        let other = cluster.scratch("bin")
        try ServerUser.run(["mkdir", other])
        try cluster.write(other + "/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 12.3'")
        try ServerUser.run(["chmod", "755", other + "/postgres"])
        let wrong = try refuses(drills, status: 2, binDirectory: other)
        #expect(wrong.contains("detail: The backup is of PostgreSQL \(major), and that program is of PostgreSQL 12.3."))

        let library = try refuses(drills, status: 2)
        #expect(library.contains("cannot start the restored cluster: library \"no_such_library\" is not on this host"))
        #expect(try drills.drill(["--drill-set", "shared_preload_libraries="]).status == .exited(0))

        let late = try refuses(drills, status: 1, ["--target-time", "2099-01-01 00:00:00Z"])
        #expect(late.hasSuffix("code: target-unreachable\n"))
        #expect(try refuses(drills, status: 2, ["--random", "--target-lsn", "0/1"]).contains("code: usage"))
        #expect(try refuses(drills, status: 2, ["--drill-set", "archive_mode=on"]).contains("code: configuration"))
    }

    @Test(
        "a full disk is told with its name and the bytes that are missing, and nothing stays on it",
        .enabled(if: ServerUser.isAnother, "mounts a file system: needs root"))
    func fullDisk() throws {
        let drills = try DrillCluster()
        try drills.archive()
        try ServerUser.run(["mkdir", "-m", "700", drills.scratch])
        let mount = try Subprocess(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", drills.scratch]).run()
        guard mount.status.isSuccess else {
            print("skipped: no file system can be mounted here: \(mount.errorText)")
            return
        }
        defer { _ = try? Subprocess(["umount", "-l", drills.scratch]).run() }
        try ServerUser.own(drills.scratch)
        _ = try Subprocess(["chmod", "700", drills.scratch]).run()
        let error = try refuses(drills, status: 1)
        #expect(error.contains("the file system has not enough room"), "\(error)")
        #expect(error.hasSuffix("code: no-space\n"))
    }

    @Test("a repository that is away is no result", .enabled(if: PostgresInstallation.serversAreEnabled))
    func repositoryAway() throws {
        let drills = try DrillCluster()
        try drills.archive()
        try ServerUser.run(["mv", drills.cluster.repository, drills.cluster.scratch("away")])
        let outcome = try drills.drill()
        #expect(outcome.status == .exited(1), "\(outcome.errorText)")
        #expect(outcome.errorText.contains("code: repository-unavailable"), "\(outcome.errorText)")
        try drills.expectNothingLeft()
    }
}

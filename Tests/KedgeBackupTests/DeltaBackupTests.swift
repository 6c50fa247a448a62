// Proves on real servers that a delta backup is what a full one of the same moment would be, through everything that
// changes pages without PostgreSQL's own incremental backup noticing, and that a parent that can't serve isn't used.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeBackup

extension BackupTestCluster {
    /// Takes a backup of this type.
    func backUp(_ request: BackupRequest, workers: Int = 2) throws -> Backup.Outcome {
        var options = options
        options.request = request
        options.workers = workers
        // Loads leave many segments behind that the archiver has to work through first.
        options.archiveTimeout = .seconds(60)
        return try Backup(options, tools()).run()
    }

    /// Takes a delta and checks that it is one.
    @discardableResult
    func delta() throws -> CommitRecord {
        let outcome = try backUp(.delta)
        #expect(outcome.record.type == .delta, "\(outcome.record.health.fallbacks)")
        return outcome.record
    }

    /// Compares relation files of a backup, page for page, with those of the server, which has been quiet since.
    ///
    /// A page may differ only if it was logged after the backup's start: replay writes it anew.
    func compareWithServer(_ record: CommitRecord, _ comment: Comment) throws {
        let reader = PackReader(PackDirectories(try cluster()))
        for entry in try entries(record) where entry.content != nil {
            let content = try content(entry, reader)
            guard RelationFileName(Array(entry.path.name)) != nil, entry.path != ManifestPath("global/pg_control")
            else { continue }
            let path = RawPath(server.dataDirectory).appending(RawPath(bytes: entry.path.bytes))
            let present = try FileDescriptor.open(path, .read).readAll(limit: 1 << 30)
            #expect(content.count == present.count, "\(entry.path), \(comment)")
            for start in stride(from: 0, to: min(content.count, present.count), by: 8192)
            where content[start..<start + 8192] != present[start..<start + 8192] {
                let page = Array(present[start..<start + 8192])
                let lsn = page.withUnsafeBytes { DataPage($0).lsn }
                #expect(lsn >= record.span.startLSN, "\(entry.path), block \(start / 8192), \(comment)")
            }
        }
    }

    /// Restores a backup, recovers it, and compares its logical content with the server's.
    func compareRestored(_ record: CommitRecord, _ comment: Comment) throws {
        let expected = try dump(server)
        let restored = try restore(record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        #expect(try dump(restored) == expected, comment)
        try restored.stop()
        if restored.installation.version == 15 {
            try restored.tool("pg_checksums", ["--check", "-D", restored.dataDirectory])
        }
        try removeRestored()
    }

    /// All content of a server as SQL, but for what lies where.
    func dump(_ server: PostgresTestServer) throws -> [String] {
        let text = try server.tool(
            "pg_dumpall", server.connectionArguments + ["--no-sync", "--no-unlogged-table-data"])
        // Where tablespaces lie differs, and pg_dump makes a random key for \restrict.
        return text.split(separator: "\n").map(String.init).filter {
            !$0.hasPrefix("CREATE TABLESPACE") && !$0.hasPrefix("\\restrict") && !$0.hasPrefix("\\unrestrict")
        }
    }
}

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct DeltaBackupTests {
    // MARK: What other implementations got wrong (docs/reference/postgresql-wal.md section 4)

    @Test("truncated and grown again, in bulk and by a rolled back load: no old page comes back (defect of July 2026)")
    func truncatedAndRegrown() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql(
            """
            create table t (i int, v text);
            insert into t select i, repeat(md5(i::text), 8) from generate_series(1, 40000) i; checkpoint
            """)
        _ = try cluster.backUp(.full)
        // VACUUM cuts the end off; the load extends by many pages at once and is rolled back.
        try server.psql("delete from t where i > 2000")
        try server.psql("vacuum t")
        try server.psql("update t set v = v || 'x' where i % 10 = 0")
        try server.psql("begin; insert into t select i, 'y' from generate_series(1, 60000) i; rollback")
        try server.psql("checkpoint")
        let record = try cluster.delta()
        try cluster.compareWithServer(record, "regrown")
        try cluster.compareRestored(record, "regrown")
    }

    @Test(
        "the visibility map is that of now: cleared bits, truncation, with and without checksums (2026-01, 03, 10)",
        arguments: [true, false])
    func visibilityMap(_ dataChecksums: Bool) throws {
        let cluster = try BackupTestCluster(dataChecksums: dataChecksums)
        let server = cluster.server
        try server.psql("create extension pg_visibility")
        try server.psql(
            """
            create table t (i int, v text) with (fillfactor = 60);
            insert into t select i, repeat(md5(i::text), 4) from generate_series(1, 20000) i
            """)
        _ = try cluster.backUp(.full)
        // Pages become all-visible, which without checksums moves no LSN of theirs; then some are changed, which clears
        // bits without naming the map's page, and the end is cut off, which clears the map's last bits.
        try server.psql("vacuum (freeze) t")
        try server.psql("checkpoint")
        try server.psql("update t set v = v || 'x' where i % 97 = 0")
        try server.psql("delete from t where i > 12000")
        try server.psql("vacuum t")
        try server.psql("checkpoint")
        let record = try cluster.delta()
        #expect(record.health.fallbacks.count == (dataChecksums ? 0 : 1))
        try cluster.compareWithServer(record, "visibility")
        let restored = try cluster.restore(record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
        #expect(try restored.psql("select * from pg_check_visible('t')").isEmpty)
        #expect(try restored.psql("select * from pg_check_frozen('t')").isEmpty)
        let count = "select count(*), sum(i) from t"
        try restored.psql("vacuum t")
        #expect(
            try restored.psql("set enable_seqscan = off; " + count) == server.psql("set enable_seqscan = off; " + count)
        )
        try restored.stop()
    }

    @Test("a database copied file by file keeps old LSNs, also under an OID and a name used again (2024)")
    func copiedDatabase() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        func create(_ template: String) throws {
            // Before 15 there is only this strategy, and nobody can choose the OID.
            let options = server.installation.version >= 15 ? "oid 50000 strategy file_copy" : ""
            try server.psql("create database copied template \(template) \(options)")
        }
        for (name, base) in [("one", 0), ("two", 1_000_000)] {
            try server.psql("create database \(name)")
            try server.psql(
                "create table t as select i + \(base) as i, md5(i::text) from generate_series(1, 40000) i",
                database: name)
        }
        try create("one")
        _ = try cluster.backUp(.full)
        try server.psql("drop database copied")
        try create("two")
        try server.psql("update t set i = i + 1 where i % 5000 = 0", database: "copied")
        try server.psql("checkpoint")
        let record = try cluster.delta()
        try cluster.compareWithServer(record, "copied")
        try cluster.compareRestored(record, "copied")
    }

    @Test("pages that were written without WAL while wal_level was minimal are in the delta (2024-07)")
    func minimalWAL() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i, md5(i::text) from generate_series(1, 30000) i; checkpoint")
        _ = try cluster.backUp(.full)
        func restart(_ lines: [String]) throws {
            for line in lines { try server.psql("alter system set \(line)") }
            try server.stop()
            try server.start()
        }
        try restart(["wal_level = 'minimal'", "archive_mode = 'off'", "max_wal_senders = 0", "wal_skip_threshold = 0"])
        try server.psql(
            """
            create table unlogged_at_birth as select i, md5(i::text) from generate_series(1, 30000) i;
            begin; truncate t; insert into t select i, 'new' from generate_series(1, 50000) i; commit;
            create index on t (i); checkpoint
            """)
        try restart(["wal_level = 'replica'", "archive_mode = 'on'", "max_wal_senders = 10"])
        try server.psql("update t set i = i + 1 where i % 1000 = 0; checkpoint")
        let record = try cluster.delta()
        try cluster.compareWithServer(record, "minimal")
        try cluster.compareRestored(record, "minimal")
    }

    @Test("a server that went to another timeline in place is compared by content: replay keeps LSNs, not bytes")
    func recoveredInPlace() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i, md5(i::text) from generate_series(1, 20000) i; checkpoint")
        _ = try cluster.backUp(.full)
        // As after a restore with --delta: the same files, and a new timeline.
        try server.stop()
        try ServerUser.run(["touch", server.dataDirectory + "/standby.signal"])
        try server.start()
        try server.psql("select pg_promote()")
        try server.psql("update t set i = i + 1 where i = 1; checkpoint")
        let record = try cluster.delta()
        #expect(record.span.timeline == TimelineID(2))
        #expect(record.health.fallbacks.count == 1)
        let reason = record.health.fallbacks.first ?? ""
        #expect(reason.contains("stored whole: the server has gone from timeline 1 to 2 since"), "\(reason)")
        try cluster.compareWithServer(record, "recovered in place")
        #expect(try cluster.delta().health.fallbacks == [])
    }

    // MARK: Parents that do not serve

    @Test("a parent that is damaged, condemned, or of another checksum state is not used, and the reason is kept")
    func unusableParents() throws {
        let cluster = try BackupTestCluster()
        let opened = try cluster.cluster()
        func fallback(_ request: BackupRequest = .delta) throws -> String {
            let record = try cluster.backUp(request).record
            #expect(record.type == .full && record.parent == nil && record.health.fallbacks.count == 1)
            return record.health.fallbacks.first ?? ""
        }
        #expect(try fallback().hasSuffix("the repository has no backup of this database system yet."))
        let delta = try cluster.delta()
        #expect(delta.parent != nil && delta.label.type == .delta)
        // The manifest's root is cut.
        let manifest = opened.name(try #require(ClusterLayout.manifest(label: delta.label.text)))
        let bytes = try cluster.store.readAll(manifest, limit: 1 << 20)
        _ = try cluster.store.remove([manifest])
        _ = try cluster.store.put(manifest, ObjectBody(Array(bytes.dropLast(10))), .createOnly)
        #expect(try fallback().contains("\(delta.label) cannot be its parent: "))
        // A pack is gone.
        let second = try cluster.delta()
        let victim = try #require(second.packs.first)
        _ = try cluster.store.remove([opened.name(ClusterLayout.pack(victim.id))])
        #expect(try fallback(.auto(fullEvery: .seconds(86_400))).contains("it is missing from repository"))
        // What it builds on failed a verification, whose damage nothing but reading every byte shows.
        let base = try cluster.backUp(.full).record
        let broken = try cluster.delta()
        var failure = ProofRecord.sample(
            of: base, in: opened.repository.identity.id, result: .failed, finished: SystemTimeSource().now())
        failure.checks = [.init(name: "files", result: .failed)]
        try ProofCatalog(opened).put(failure)
        #expect(
            try fallback(.auto(fullEvery: .seconds(86_400))).contains(
                "\(broken.label) cannot be its parent: backup \(base.label) failed its verification at "))
        // About to be removed.
        let third = try cluster.delta()
        let mark = opened.name(try #require(ClusterLayout.condemned.appending(third.label.text)))
        _ = try cluster.store.put(mark, ObjectBody([1]), .createOnly)
        #expect(try fallback().hasSuffix("\(third.label), is about to be removed."))
        #expect(try cluster.backUp(.auto(fullEvery: .zero)).reason.hasSuffix("full-every has passed"))
        #expect(try BackupCatalog(opened).intents().isEmpty)
    }

    @Test("checksums that were switched off make a full backup, and deltas of regions from then on")
    func checksumState() throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table t as select i, md5(i::text) from generate_series(1, 100000) i")
        _ = try cluster.backUp(.full)
        try server.stop()
        try server.tool("pg_checksums", ["--disable", "--no-sync", "-D", server.dataDirectory])
        try server.start()
        let full = try cluster.backUp(.delta).record
        #expect(full.type == .full)
        #expect(full.health.fallbacks.first?.hasSuffix("data checksums were on then.") == true)
        try server.psql("update t set i = -i where i = 5; checkpoint")
        let record = try cluster.delta()
        #expect(record.health.fallbacks.first?.hasPrefix("Changed regions of 1 MiB were stored whole") == true)
        try cluster.compareWithServer(record, "regions")
    }

    // MARK: Random programs

    @Test("random programs between deltas: each is what lies on the server, and restores to what a full one does")
    func programs() throws {
        let isLong = PostgresInstallation.soakIsEnabled
        // A chain is a full backup and deltas one on the other, each after a program.
        let (chains, length) = isLong ? (20, 10) : (1, 3)
        for installation in isLong ? PostgresInstallation.all : [.standard] {
            for chain in 0..<chains {
                try self.chain(of: length, installation, seed: testSeed() &* 1000 &+ UInt64(chain))
            }
        }
    }

    private func chain(of length: Int, _ installation: PostgresInstallation, seed: UInt64) throws {
        let cluster = try BackupTestCluster(installation, configuration: DeltaProgram.configuration)
        var program = try DeltaProgram(cluster, SeededRandom(seed: seed))
        let full = try cluster.backUp(.full).record.sizes.storedBytes
        var (deltas, pages): (UInt64, Int) = (0, 0)
        for number in 1...length {
            try program.run(steps: 12)
            let comment: Comment = "program \(number), \(installation), seed \(seed): \(program.lastSteps)"
            let record = try cluster.delta()
            #expect(!record.health.fallbacks.contains { $0.hasPrefix("self-audit") }, comment)
            deltas += record.sizes.storedBytes
            try cluster.compareWithServer(record, comment)
            guard PostgresInstallation.soakIsEnabled || number == length else { continue }
            pages += try cluster.compareWithFull(record, program.databases, comment)
        }
        print(
            "deltas of \(installation), seed \(seed): \(length) programs, stored \(deltas) bytes in deltas, \(full) in "
                + "the full backup, compared \(pages) restored pages; \(program.counts.sorted { $0.key < $1.key })")
    }

    // MARK: Size

    @Test("a delta after 1 % of the pages changed stores at most 1.3 times their compressed size")
    func size() throws {
        let cluster = try BackupTestCluster(configuration: ["max_wal_size = 2GB", "shared_buffers = 256MB"])
        let server = cluster.server
        try server.psql(
            """
            create table t (i int, v text) with (fillfactor = 70);
            insert into t select i, md5(i::text) || md5((i * 7)::text) || repeat('x', 40)
            from generate_series(1, 1200000) i;
            """)
        try server.psql("vacuum (freeze, analyze) t")
        try server.psql("checkpoint")
        let full = try cluster.backUp(.full).record
        // One row in every hundredth page; there is room for its new version in the same page.
        try server.psql(
            """
            update t set v = v where ctid in (
                select format('(%s,1)', b)::tid
                from generate_series(0, (pg_relation_size('t') / 8192 - 1)::int, 100) b)
            """)
        try server.psql("checkpoint")
        let record = try cluster.delta()
        let (pages, compressed) = try changedPages(cluster, since: full.span.startLSN)
        print(
            "delta of 1 %: \(pages) of \(full.sizes.databaseBytes / 8192) pages changed, compressed \(compressed) "
                + "bytes, stored \(record.sizes.storedBytes): \(Double(record.sizes.storedBytes) / Double(compressed))")
        #expect(record.sizes.storedBytes * 10 <= compressed * 13)
        try cluster.compareWithServer(record, "size")
    }

    /// The pages of main forks that were logged since `lsn`, and their size when they are sealed as one object.
    private func changedPages(_ cluster: BackupTestCluster, since lsn: LSN) throws -> (count: Int, bytes: UInt64) {
        let tree = FileWalk.Options(
            dataDirectory: RawPath(cluster.server.dataDirectory),
            policy: FilePolicy(majorVersion: cluster.server.installation.version, catalogVersion: 0),
            relationSegmentBlocks: 131_072)
        let listing = try FileListing(in: cluster.options.workDirectory, random: SystemRandomSource())
        _ = try FileWalk.run(tree, into: listing, unless: Interruption())
        var pages: [UInt8] = []
        try listing.forEach { _, entry throws(KedgeError) in
            guard case .file(.relation, _) = entry.kind, RelationFileName(Array(entry.path.name))?.fork == .main
            else { return }
            let path = RawPath(cluster.server.dataDirectory).appending(RawPath(bytes: entry.path.bytes))
            let bytes = try FileDescriptor.open(path, .read).readAll(limit: 1 << 30)
            for start in stride(from: 0, to: bytes.count, by: 8192) {
                let page = bytes[start..<start + 8192]
                if Array(page).withUnsafeBytes({ DataPage($0).lsn }) >= lsn { pages += page }
            }
        }
        let opened = try cluster.cluster()
        let sealed = try SealedObject.seal(
            .manifest, name: opened.scoped("backup/size/manifest"), contents: pages, keyRing: opened.repository.keyRing,
            random: SystemRandomSource())
        return (pages.count / 8192, UInt64(sealed.count))
    }
}

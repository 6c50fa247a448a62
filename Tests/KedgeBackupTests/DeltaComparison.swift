// What a restored delta must be: in its files what a full backup of the same moment restores, in its content what the
// server holds, and sound for amcheck and pg_visibility.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@testable import KedgeBackup

extension BackupTestCluster {
    /// Takes a full backup of a server that is quiet since the delta, into a copy of the repository, so that it is no
    /// backup's parent; replays both to the same position, and compares them page for page. Then compares the
    /// restored delta's logical content with the server's, and lets amcheck and pg_visibility look at it.
    ///
    /// Returns how many pages were compared.
    @discardableResult
    func compareWithFull(_ delta: CommitRecord, _ databases: [String], _ comment: Comment) throws -> Int {
        let other = source(in: store.copy())
        var full = options
        full.repository = other
        full.request = .full
        full.archiveTimeout = .seconds(60)
        let record = try Backup(full, tools(source: other)).run().record
        #expect(record.type == .full, comment)
        let target = record.span.stopLSN
        let servers = [
            try restore(delta, to: "restored", until: target),
            try restore(record, to: "restored-full", in: other, until: target),
        ]
        for server in servers {
            try server.start()
            try server.wait(until: "select not pg_is_in_recovery()")
            // Everything that replay changed is written.
            try server.stop()
        }
        let pages = try comparePages(servers.map(\.dataDirectory), from: delta.span.startLSN, to: target, comment)
        try removeRestored("restored-full")
        try servers[0].start()
        #expect(try dump(servers[0]) == dump(server), comment)
        for database in databases { try expectSound(servers[0], database, comment) }
        try servers[0].stop()
        if servers[0].installation.version == 15 {
            try servers[0].tool("pg_checksums", ["--check", "-D", servers[0].dataDirectory])
        }
        try removeRestored("restored")
        return pages
    }

    /// Compares the relation files of two data directories that were replayed to `target` and then promoted.
    ///
    /// Pages that were logged since `start`, the delta's, come from the WAL in the one and from the file in the other,
    /// where hint bits were set later that nobody logs: there the LSN must be the same. So it is with free space maps,
    /// which replay and searches change without a word (src/backend/storage/freespace/README). Every other page is the
    /// same byte for byte. What a server writes after its promotion is its own.
    private func comparePages(_ directories: [String], from start: LSN, to target: LSN, _ comment: Comment) throws
        -> Int
    {
        let lists = try directories.map { directory in
            try Subprocess([
                "sh", "-c",
                "cd \"$1\" && find -L base global pg_tblspc -type f ! -name 'pg_internal*' ! -path '*pgsql_tmp*' "
                    + "-printf '%p %s\\n' | LC_ALL=C sort",
                "sh", directory,
            ]).run().outputText.split(separator: "\n").map(String.init)
        }
        let difference = Set(lists[0]).symmetricDifference(lists[1]).sorted()
        #expect(difference == [] && !lists[0].isEmpty, "\(comment)")
        var pages = 0
        for line in lists[0] {
            let name = String(line.prefix { $0 != " " })
            let file: Substring = name.split(separator: "/").last ?? ""
            guard let fork = RelationFileName(Array(file.utf8))?.fork else { continue }
            let bytes: [[UInt8]] = try directories.map { directory in
                try FileDescriptor.open(RawPath("\(directory)/\(name)"), .read).readAll(limit: 1 << 30)
            }
            guard bytes[0].count == bytes[1].count else { continue }
            pages += bytes[0].count / 8192
            guard bytes[0] != bytes[1] else { continue }
            for offset in stride(from: 0, to: bytes[0].count, by: 8192) {
                let both: [[UInt8]] = bytes.map { Array($0[offset..<min(offset + 8192, $0.count)]) }
                guard both[0] != both[1] else { continue }
                let lsns: [LSN] = both.map { page in page.withUnsafeBytes { DataPage($0).lsn } }
                let isOwn = lsns.contains { $0 > target }
                let isHint = lsns[0] == lsns[1] && (lsns[0] >= start || fork == .freeSpaceMap)
                #expect(isOwn || isHint, "\(name), block \(offset / 8192): \(lsns), \(comment)")
            }
        }
        return pages
    }

    /// Expects amcheck and pg_visibility to be content with every logged relation of a database.
    private func expectSound(_ server: PostgresTestServer, _ database: String, _ comment: Comment) throws {
        guard try server.value("select count(*) from pg_extension where extname = 'amcheck'", database: database) == "1"
        else { return }
        // verify_heapam came with 14.
        let heap = server.installation.version >= 14 ? ["verify_heapam(c.oid, check_toast => true)"] : []
        for check in heap + ["pg_check_visible(c.oid)", "pg_check_frozen(c.oid)"] {
            let sql = """
                select c.relname, found.* from pg_class c, lateral \(check) found
                where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'
                """
            #expect(try server.psql(sql, database: database) == [], "\(check) in \(database), \(comment)")
        }
        // Throws what it finds.
        let count = try server.psql(
            """
            set lock_timeout = '60s';
            select bt_index_parent_check(c.oid, true, true) from pg_class c join pg_index i on i.indexrelid = c.oid
                join pg_am a on a.oid = c.relam
                where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid and i.indisready
            """, database: database
        ).count
        #expect(count > 50, comment)
    }
}

// The amcheck extension over one database: B-tree indexes against their tables, and heaps.
//
// The scratch cluster takes connections as a primary by now, so the extension can be made where it is missing; that
// changes nothing but the copy.

import KedgeCore
import KedgePostgres

/// amcheck in one database.
struct AmcheckRun {
    let mode: AmcheckMode
    let connection: DatabaseConnection
    let database: String
    /// Whether this host has other versions of some collations: then an index that sorts by one of those may be wrong
    /// on this host alone.
    let collationsDiffer: Bool
    let checks: CheckList
    let tools: Drill.Tools

    private static let sampleBytes: UInt64 = 1 << 30
    private static let name = "amcheck"

    private struct Relation {
        let oid: String
        let name: String
        let bytes: UInt64
        /// Of an index: whether one of its columns sorts by a collation of which this host has another version.
        var sortsDifferently = false
    }

    func run() throws(KedgeError) {
        guard mode != .off else {
            if database == "postgres" { checks.add(AmcheckRun.name, .skipped("drill-amcheck is off.")) }
            return
        }
        let schema: String
        do throws(KedgeError) {
            schema = try install()
        } catch {
            guard case .failed(let reason) = try CheckList.finding(for: error) else { return }
            checks.add(
                AmcheckRun.name, on: database,
                .warning("The extension amcheck could not be used: \(reason)  It is part of PostgreSQL's contrib."))
            return
        }
        for index in try chosen(indexes()) { try check(index: index, schema) }
        // verify_heapam came with 14.
        guard connection.majorVersion >= 14 else { return }
        for heap in try chosen(heaps()) { try check(heap: heap, schema) }
    }

    /// The schema of the extension, quoted; made in one of its own where the database has none.
    private func install() throws(KedgeError) -> String {
        let find =
            "SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace "
            + "WHERE extname = 'amcheck'"
        if let schema = try connection.query(find, attempt: "look for amcheck").first?.text(0) { return schema }
        _ = try connection.query("CREATE SCHEMA kedge_drill", attempt: "make a schema for amcheck")
        _ = try connection.query("CREATE EXTENSION amcheck SCHEMA kedge_drill", attempt: "make the extension amcheck")
        return "kedge_drill"
    }

    // MARK: - Choosing

    private func indexes() throws(KedgeError) -> [Relation] {
        try relations(
            """
            SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
                pg_relation_size(c.oid) + pg_relation_size(i.indrelid), i.indcollation::oid[] && $1::oid[]
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_am a ON a.oid = c.relam
            WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready
            ORDER BY c.oid
            """, ["{\(try differingCollations().joined(separator: ","))}"])
    }

    /// The OIDs of the collations of which this host has another version.
    private func differingCollations() throws(KedgeError) -> [String] {
        guard collationsDiffer else { return [] }
        let differs = "collversion IS NOT NULL AND collversion IS DISTINCT FROM pg_collation_actual_version(oid)"
        // Before 15 nothing recorded the version of the database's own collation (OID 100, the C library's), but all
        // of that library have the same (src/backend/utils/adt/pg_locale.c, get_collation_actual_version).
        let isDefaultOther =
            connection.majorVersion >= 15
            ? "datcollversion IS NOT NULL AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)"
            : "datcollate NOT IN ('C', 'POSIX') AND datcollate NOT LIKE 'C.%' "
                + "AND EXISTS (SELECT FROM pg_collation WHERE collprovider = 'c' AND \(differs))"
        let rows = try connection.query(
            """
            SELECT oid FROM pg_collation WHERE \(differs)
            UNION SELECT 100 FROM pg_database WHERE datname = current_database() AND \(isDefaultOther)
            """, attempt: "look for collations that differ")
        return rows.compactMap { $0.text(0) }
    }

    private func heaps() throws(KedgeError) -> [Relation] {
        try relations(
            """
            SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_relation_size(c.oid), false
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
            WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' ORDER BY c.oid
            """)
    }

    private func relations(_ sql: String, _ values: [String] = []) throws(KedgeError) -> [Relation] {
        var found: [Relation] = []
        for row in try connection.query(sql, values, attempt: "list the relations of database \"\(database)\"") {
            // A size is null for what was dropped meanwhile, which nobody does here.
            found.append(
                Relation(
                    oid: try row.required(0, "relation's OID"), name: try row.required(1, "relation's name"),
                    bytes: row.text(2).flatMap { UInt64($0) } ?? 0,
                    sortsDifferently: try row.boolean(3, "comparison of collations")))
        }
        return found
    }

    /// All of them, or a random part: as many as fit, and at least one.
    private func chosen(_ relations: [Relation]) -> [Relation] {
        guard mode == .sample else { return relations }
        var order = relations
        var left = AmcheckRun.sampleBytes
        var chosen: [Relation] = []
        while !order.isEmpty {
            let index = Int(tools.random.next() % UInt64(order.count))
            order.swapAt(index, order.count - 1)
            let relation = order.removeLast()
            guard relation.bytes <= left || chosen.isEmpty else { continue }
            chosen.append(relation)
            left -= min(left, relation.bytes)
        }
        return chosen
    }

    // MARK: - Checking

    private func check(index: Relation, _ schema: String) throws(KedgeError) {
        let function = mode == .full ? "bt_index_parent_check" : "bt_index_check"
        try checks.run(AmcheckRun.name, "\(database): \(index.name)") { () throws(KedgeError) in
            do throws(KedgeError) {
                _ = try connection.query(
                    "SELECT \(schema).\(function)($1::regclass, true)", [index.oid],
                    attempt: "check index \(index.name)")
                return .passed()
            } catch {
                guard case .failed(let reason) = try CheckList.finding(for: error) else { throw error }
                guard index.sortsDifferently, AmcheckRun.mayBeOrder(error) else { return .failed(reason) }
                return .warning(
                    "\(reason)  Its collation differs on this host, which may be the reason: drill on a host with the "
                        + "original's operating system to know.")
            }
        }
    }

    /// Whether amcheck found entries in another order than it expects, which another version of a collation explains.
    /// That is index_corrupted; what is wrong with tuples and pages is data_corrupted (XX001), on any host
    /// (contrib/amcheck/verify_nbtree.c, src/backend/utils/errcodes.txt).
    static func mayBeOrder(_ error: KedgeError) -> Bool {
        error.code == .databaseRefused && error.detail?.contains("SQLSTATE XX002") == true
    }

    private func check(heap: Relation, _ schema: String) throws(KedgeError) {
        try checks.run(AmcheckRun.name, "\(database): \(heap.name)") { () throws(KedgeError) in
            let rows = try connection.query(
                """
                SELECT blkno, offnum, msg FROM \(schema).verify_heapam(
                    relation => $1::regclass, on_error_stop => true, check_toast => \(mode == .full)) LIMIT 3
                """, [heap.oid], attempt: "check table \(heap.name)")
            guard let row = rows.first else { return .passed() }
            return .failed(
                "Block \(row.text(0) ?? "?"), item \(row.text(1) ?? "?"): \(row.text(2) ?? "damaged").")
        }
    }
}

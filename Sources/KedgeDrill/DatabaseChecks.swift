// What is asked of every database of the recovered cluster: does it let us in, is what it needs on this host, can its
// schema be dumped, are its indexes and tables sound.

import Glibc
import KedgeCore
import KedgePostgres

/// How thoroughly amcheck is used.
package enum AmcheckMode: String, Sendable, CaseIterable {
    /// A random part of each database, up to 1 GiB of relations.
    case sample
    /// Everything, and each index against its table in both directions.
    case full
    case off
}

/// The checks of all databases.
struct DatabaseChecks {
    let server: ScratchServer
    let programs: ServerPrograms
    let user: String
    let amcheck: AmcheckMode
    let checks: CheckList
    let tools: Drill.Tools

    private struct Database {
        let name: String
        let allowsConnections: Bool
        /// DROP DATABASE was interrupted (datconnlimit = -2).
        let isInvalid: Bool
    }

    func run() throws(KedgeError) {
        for database in try databases() {
            if database.isInvalid {
                checks.add(
                    "connect", on: database.name,
                    .warning("DROP DATABASE was interrupted there, and PostgreSQL lets nobody in: drop it."))
                continue
            }
            guard database.allowsConnections else {
                checks.add("connect", on: database.name, .skipped("It does not allow connections (datallowconn)."))
                continue
            }
            var connected: DatabaseConnection?
            try checks.run("connect", database.name) { () throws(KedgeError) in
                let connection = try connect(database.name)
                _ = try connection.row("SELECT count(*) FROM pg_class", attempt: "read pg_class")
                connected = connection
                return .passed()
            }
            guard let connected else { continue }
            try check(database.name, connected)
        }
    }

    private func check(_ name: String, _ connection: DatabaseConnection) throws(KedgeError) {
        try checks.run("extensions", name) { () throws(KedgeError) in try extensions(connection) }
        var differs = false
        try checks.run("collations", name) { () throws(KedgeError) in
            let finding = try collations(connection, database: name)
            if case .warning = finding { differs = true }
            return finding
        }
        try checks.run("schema-dump", name) { () throws(KedgeError) in try dump(name) }
        let amcheck = AmcheckRun(
            mode: amcheck, connection: connection, database: name, collationsDiffer: differs, checks: checks,
            tools: tools)
        try amcheck.run()
    }

    /// A session in which no trigger of the restored databases fires.
    func connect(_ database: String) throws(KedgeError) -> DatabaseConnection {
        let connection: DatabaseConnection
        do throws(KedgeError) {
            connection = try DatabaseConnection(server.database(database, user: user), unless: tools.interruption)
        } catch {
            throw HostLack.error(for: error) ?? error
        }
        _ = try connection.query(
            "SELECT set_config('session_replication_role', 'replica', false)", attempt: "prepare the session")
        return connection
    }

    private func databases() throws(KedgeError) -> [Database] {
        var name = "postgres"
        var connection: DatabaseConnection?
        for candidate in ["postgres", "template1"] where connection == nil {
            do throws(KedgeError) {
                connection = try connect(candidate)
                name = candidate
            } catch  where error.detail?.contains("does not exist") == true {
                continue
            }
        }
        guard let connection else {
            throw KedgeError(
                .databaseUnavailable, "could not connect to the restored cluster",
                detail: "It has neither a database \"postgres\" nor \"template1\".",
                hint: "Create one of them in the original.")
        }
        let rows = try connection.query(
            "SELECT datname, datallowconn, datconnlimit = -2 FROM pg_database ORDER BY datname <> $1, datname", [name],
            attempt: "list the databases")
        var found: [Database] = []
        for row in rows {
            found.append(
                Database(
                    name: try row.required(0, "database's name"),
                    allowsConnections: try row.boolean(1, "datallowconn"),
                    isInvalid: try row.boolean(2, "datconnlimit")))
        }
        return found
    }

    // MARK: - What this host lacks

    private func extensions(_ connection: DatabaseConnection) throws(KedgeError) -> Finding {
        let rows = try connection.query(
            """
            SELECT e.extname FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname
            WHERE a.name IS NULL ORDER BY 1
            """, attempt: "list the extensions")
        var missing = rows.compactMap { $0.text(0) }.map { "extension \"\($0)\"" }
        let libraries = try connection.query(
            "SELECT DISTINCT probin FROM pg_proc WHERE prolang = 13 AND probin <> '' ORDER BY 1",
            attempt: "list the libraries")
        for row in libraries {
            guard let name = row.text(0), let path = programs.library(name) else { continue }
            if try !FileSystem.exists(path) { missing.append("library \"\(name)\"") }
        }
        guard !missing.isEmpty else { return .passed() }
        return .warning(
            "This host lacks \(missing.joined(separator: ", ")): what uses them fails here.  Install the packages that "
                + "hold them before you need a restore here.")
    }

    private func collations(_ connection: DatabaseConnection, database: String) throws(KedgeError) -> Finding {
        var rows = try connection.query(
            """
            SELECT quote_ident(collname) || ' (' || collversion || ', here '
                || coalesce(pg_collation_actual_version(oid), 'none') || ')'
            FROM pg_collation
            WHERE collversion IS NOT NULL AND collversion IS DISTINCT FROM pg_collation_actual_version(oid) LIMIT 20
            """, attempt: "compare the versions of collations")
        if connection.majorVersion >= 15 {
            rows += try connection.query(
                """
                SELECT 'the database''s default (' || datcollversion || ', here '
                    || coalesce(pg_database_collation_actual_version(oid), 'none') || ')'
                FROM pg_database WHERE datname = $1 AND datcollversion IS NOT NULL
                    AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
                """, [database], attempt: "compare the version of the database's collation")
        }
        guard !rows.isEmpty else { return .passed() }
        let names = rows.compactMap { $0.text(0) }.joined(separator: ", ")
        return .warning(
            "On this host texts sort by other versions of collations: \(names).  Indexes on text may be wrong here, "
                + "though not in the original: reindex after a restore on this host.")
    }

    // MARK: - Dump

    private func dump(_ database: String) throws(KedgeError) -> Finding {
        guard programs.hasDump else {
            return .skipped("There is no pg_dump in \"\(programs.directory)\".")
        }
        let settings = server.database(database, user: user)
        let quoted = database.reduce(into: "") { text, character in
            if character == "'" || character == "\\" { text.append("\\") }
            text.append(character)
        }
        var process = Subprocess([
            programs.dump.description, "--schema-only", "--no-password", "--file=/dev/null", "--host",
            settings.host ?? "", "--port", settings.port ?? "", "--username", user,
            "--dbname",
            "dbname='\(quoted)' sslmode=disable gssencmode=disable options='\(ScratchServer.sessionOptions)'",
        ])
        process.bond = .endsWithUs(signal: SIGKILL)
        process.interruption = tools.interruption
        let outcome = try process.run()
        guard !outcome.status.isSuccess else { return .passed() }
        return try DatabaseChecks.dumpFailure(outcome.errorText)
    }

    /// What pg_dump's words say: of the data, or, thrown, of this host.
    static func dumpFailure(_ errorText: String) throws(KedgeError) -> Finding {
        // All of them: the query that pg_dump repeats comes last, and may be long.
        let said = KedgeError(.databaseRefused, "pg_dump failed", detail: errorText)
        if let lack = HostLack.error(for: said) { throw lack }
        let words = errorText.split(separator: "\n").suffix(5).joined(separator: "; ")
        return .failed("pg_dump failed: \(words)")
    }
}

extension ServerPrograms {
    /// Where the server looks for a library that is named in a catalogue or a setting; nil where that is not known
    /// (src/backend/utils/fmgr/dfmgr.c, expand_dynamic_library_name).
    func library(_ name: String) -> RawPath? {
        guard let libraryDirectory else { return nil }
        let file = name.hasSuffix(".so") ? name : name + ".so"
        if file.hasPrefix("$libdir/") { return libraryDirectory.appending(String(file.dropFirst(8))) }
        return file.hasPrefix("/") ? RawPath(file) : libraryDirectory.appending(file)
    }
}

// A session with the database server, and what every failure of it means to the user.
//
// 1. The session's settings are known: no timeout but ours, no function found outside pg_catalog, times in UTC.
// 2. client_encoding is SQL_ASCII, so that text arrives byte for byte as the server holds it: paths in backup_label and
//    tablespace_map may hold any bytes, and a conversion would change them.
// 3. No password is ever taken here: libpq's password file, service file and environment are the ways.
package import KedgeCore
import Libpq

/// How to reach the server: libpq's own keywords. What is nil is left to libpq's environment variables and defaults.
package struct DatabaseSettings: Sendable, Equatable {
    /// A host name, an address, or the directory of the server's Unix socket.
    package var host: String?
    package var port: String?
    package var user: String?
    package var dbname: String?
    /// Further libpq keywords, such as `sslmode`, `service` or `passfile`.
    package var others: [String: String] = [:]

    package init() {}

    /// Throws `configuration` for a keyword that may hold a secret or would undo what the session rests on.
    fileprivate func parameters() throws(KedgeError) -> [(keyword: String, value: String)] {
        for keyword in ["password", "sslpassword"] where others[keyword] != nil {
            throw KedgeError(
                .configuration, "cannot use connection parameter \"\(keyword)\"",
                detail: "Passwords are not taken from the configuration of kedge.",
                hint: "Put the password into libpq's password file (~/.pgpass, or the parameter passfile).")
        }
        for keyword in ["client_encoding", "replication"] where others[keyword] != nil {
            throw KedgeError(
                .configuration, "cannot use connection parameter \"\(keyword)\"",
                detail: "The sessions of kedge rest on a value of its own.", hint: "Remove it from the configuration.")
        }
        // Without keepalives a peer that vanished would be noticed after two hours. libpq ignores them on Unix sockets.
        var values = [
            "fallback_application_name": "kedge", "connect_timeout": "30", "keepalives_idle": "30",
            "keepalives_interval": "10", "keepalives_count": "6",
        ]
        values.merge(others) { _, given in given }
        values["client_encoding"] = "SQL_ASCII"
        for (keyword, value) in [("host", host), ("port", port), ("user", user), ("dbname", dbname)] {
            if let value { values[keyword] = value }
        }
        return values.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }
}

/// A connection to the server of the cluster; disconnects when it goes away. For one thread at a time.
package final class DatabaseConnection {
    private var connection: Connection
    private let interruption: Interruption?
    /// 150004 for 15.4.
    package let serverVersionNumber: Int
    /// How long the server may take to answer from now on before the session counts as lost. Nil: for ever.
    package var answerLimit: Duration?

    /// Connects. While that or a query takes its time, `interruption` ends it with `interrupted`.
    ///
    /// Throws `database-unavailable`, `configuration`, and `not-supported` for a server older than 13.
    package init(_ settings: DatabaseSettings, unless interruption: Interruption? = nil) throws(KedgeError) {
        let parameters = try settings.parameters()
        do throws(DatabaseFailure) {
            connection = try Connection(parameters, unless: interruption)
        } catch {
            throw DatabaseConnection.error(error, attempt: "connect to PostgreSQL", whileConnecting: true)
        }
        self.interruption = interruption
        serverVersionNumber = connection.serverVersion
        guard serverVersionNumber >= 130_000 else {
            throw KedgeError(
                .notSupported, "cannot work with PostgreSQL \(serverVersionNumber / 10_000)",
                detail: "The server's version number is \(serverVersionNumber); kedge supports 13 to 18.",
                hint: "Upgrade the server.")
        }
        try prepareSession()
    }

    /// 15 for 15.4.
    package var majorVersion: Int { serverVersionNumber / 10_000 }

    /// Runs one statement. `attempt` completes "could not …" in errors.
    ///
    /// Throws `database-refused` with the server's words and SQLSTATE, `database-unavailable` when the connection is
    /// lost, `interrupted`.
    package func query(
        _ sql: String, _ parameters: [String?] = [], attempt: String
    ) throws(KedgeError) -> [DatabaseRow] {
        do throws(DatabaseFailure) {
            return try connection.query(sql, parameters, within: answerLimit, unless: interruption).rows.map {
                DatabaseRow($0)
            }
        } catch {
            throw DatabaseConnection.error(error, attempt: attempt, whileConnecting: false)
        }
    }

    /// As `query` for a statement that gives exactly one row.
    package func row(_ sql: String, _ parameters: [String?] = [], attempt: String) throws(KedgeError) -> DatabaseRow {
        let rows = try query(sql, parameters, attempt: attempt)
        guard rows.count == 1 else {
            throw KedgeError(
                .defect, "could not \(attempt)", detail: "The server gave \(rows.count) rows where one was expected.",
                hint: "Please report this with the server's version.")
        }
        return rows[0]
    }

    /// Whether the server has something to say that nobody asked for: a reason to ask it at once whether all is well.
    package var hasUnaskedInput: Bool { connection.hasUnaskedInput }

    /// The server's notices and warnings since the last call.
    package func takeNotices() -> [String] { connection.takeNotices() }

    /// Disconnects at once; whatever the session had begun, the server gives up.
    package func close() { connection.close() }

    private func prepareSession() throws(KedgeError) {
        // Some of these do not exist in every version; set_config is asked only for those that do.
        let settings = [
            ("search_path", "pg_catalog"), ("statement_timeout", "0"), ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"), ("idle_session_timeout", "0"), ("transaction_timeout", "0"),
            ("DateStyle", "ISO, YMD"), ("TimeZone", "UTC"), ("client_min_messages", "notice"),
        ]
        let values = (0..<settings.count).map { "($\(2 * $0 + 1), $\(2 * $0 + 2))" }.joined(separator: ", ")
        _ = try query(
            """
            SELECT pg_catalog.set_config(v.name, v.value, false) FROM (VALUES \(values)) AS v (name, value)
            WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) v.name)
            """, settings.flatMap { [$0.0, $0.1] }, attempt: "prepare the database session")
    }

    private static func error(
        _ failure: DatabaseFailure, attempt: String, whileConnecting: Bool
    ) -> KedgeError {
        let said = sentence(failure.message.split(whereSeparator: \.isNewline).map(trimmed).joined(separator: " "))
        switch failure.kind {
        case .libraryMissing:
            return KedgeError(
                .configuration, "cannot load PostgreSQL's client library libpq", detail: said,
                hint: "Install it: the package is libpq5 on Debian and Ubuntu, libpq on Red Hat and its kin.")
        case .interrupted:
            return KedgeError(
                .interrupted, "could not \(attempt): \(failure.message)",
                hint: "Run the command again.")
        case .disconnected:
            let hint =
                whileConnecting
                ? "Check that the server runs, and the keys host, port, user and dbname of the cluster's section."
                : "Look into the server's log for the reason, then run the command again."
            return KedgeError(
                .databaseUnavailable,
                whileConnecting ? "could not \(attempt)" : "could not \(attempt): the connection was lost",
                detail: said,
                hint: hint)
        case .refused:
            let state = failure.sqlState.map { " (SQLSTATE \($0))" } ?? ""
            let detail = failure.detail.map { " " + sentence($0) } ?? ""
            return KedgeError(
                .databaseRefused, "could not \(attempt)",
                detail: sentence("The server said: \(failure.message)\(state)") + detail,
                hint: hint(for: failure))
        }
    }

    private static func hint(for failure: DatabaseFailure) -> String {
        if let hint = failure.hint { return sentence(hint) }
        // insufficient_privilege (src/backend/utils/errcodes.txt).
        if failure.sqlState == "42501" {
            return
                "Connect as a superuser, or as a member of pg_monitor with EXECUTE on the functions for backup control."
        }
        return "Look into the server's log for more."
    }

    private static func trimmed(_ line: Substring) -> String {
        String(line.drop { $0.isWhitespace })
    }

    private static func sentence(_ text: String) -> String {
        text.hasSuffix(".") || text.hasSuffix("?") || text.isEmpty ? text : text + "."
    }
}

/// One row of a result: text values, taken out by position with the type that is expected there.
package struct DatabaseRow {
    private let values: [[UInt8]?]

    fileprivate init(_ values: [[UInt8]?]) { self.values = values }

    /// The bytes of a value; nil for null.
    package func bytes(_ column: Int) -> [UInt8]? { values.indices.contains(column) ? values[column] : nil }

    /// A value as text; nil for null. Invalid UTF-8 is repaired: for names and messages, not for paths.
    package func text(_ column: Int) -> String? { bytes(column).map { String(decoding: $0, as: UTF8.self) } }

    package func required(_ column: Int, _ what: String) throws(KedgeError) -> String {
        guard let text = text(column) else { throw malformed("nothing", what) }
        return text
    }

    package func integer(_ column: Int, _ what: String) throws(KedgeError) -> Int {
        let text = try required(column, what)
        guard let number = Int(text) else { throw malformed(text, what) }
        return number
    }

    package func boolean(_ column: Int, _ what: String) throws(KedgeError) -> Bool {
        let text = try required(column, what)
        guard text == "t" || text == "f" else { throw malformed(text, what) }
        return text == "t"
    }

    package func lsn(_ column: Int, _ what: String) throws(KedgeError) -> LSN {
        let text = try required(column, what)
        guard let lsn = LSN(text) else { throw malformed(text, what) }
        return lsn
    }

    /// A time that the query gave as microseconds since 1970 (`DatabaseRow.microseconds`); nil for null.
    package func timestamp(_ column: Int, _ what: String) throws(KedgeError) -> Timestamp? {
        guard let text = text(column) else { return nil }
        guard let number = Int64(text) else { throw malformed(text, what) }
        return Timestamp(microseconds: number)
    }

    package func timeline(_ column: Int, _ what: String) throws(KedgeError) -> TimelineID {
        let text = try required(column, what)
        guard let number = UInt32(text), number > 0 else { throw malformed(text, what) }
        return TimelineID(number)
    }

    /// SQL for the time `expression` in whole microseconds since 1970, exact in every version.
    package static func microseconds(_ expression: String) -> String {
        "(extract(epoch FROM \(expression)) * 1000000)::bigint"
    }

    private func malformed(_ value: String, _ what: String) -> KedgeError {
        KedgeError(
            .databaseRefused, "cannot understand the server's answer for the \(what)", detail: "It was \(value).",
            hint: "Check that kedge supports this server's version, and that the connection leads to PostgreSQL itself."
        )
    }
}

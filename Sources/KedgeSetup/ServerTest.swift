// The server as `check` sees it: is it the one that is configured, and do its settings let WAL be archived.

import KedgeCore
import KedgePostgres

/// What was found out about a server that can be worked with.
struct TestedServer {
    let settings: ServerSettings
    let isInRecovery: Bool
    /// Whether the server is set up to call an archive command; not so, there is no point in waiting for one.
    let archives: Bool
}

/// Tests the server at the other end of a connection.
struct ServerTest {
    let connection: DatabaseConnection
    let dataDirectory: RawPath
    /// Nil where it could not be read, which is a finding already.
    let control: ControlFile?

    /// Returns nil where the server is the wrong one or could not be asked. Throws `interrupted`.
    func run(_ report: inout CheckReport) throws(KedgeError) -> TestedServer? {
        let asked = try report.attempt(.connection) { () throws(KedgeError) in
            (try connection.settings(), try connection.isInRecovery())
        }
        guard let (settings, isInRecovery) = asked else { return nil }
        report.ok(
            .connection,
            "connected to a \(isInRecovery ? "standby" : "primary") of PostgreSQL \(connection.majorVersion)")
        let isSupported = checkVersion(&report)
        let isTheOne = try checkIdentity(settings, &report)
        guard isSupported, isTheOne else { return nil }
        try checkPrivileges(&report)
        for (subject, verdict) in SettingsTest.verdicts(settings, isInRecovery: isInRecovery) {
            switch verdict {
            case .ok(let text): report.ok(subject, text)
            case .warning(let error): report.warn(subject, error)
            case .failed(let error): report.fail(subject, error)
            }
        }
        return TestedServer(
            settings: settings, isInRecovery: isInRecovery, archives: SettingsTest.archives(settings))
    }

    private func checkVersion(_ report: inout CheckReport) -> Bool {
        let major = connection.majorVersion
        let known = PostgresVersion.allCases.map(\.major)
        guard known.contains(major) else {
            report.fail(
                .version,
                KedgeError(
                    .notSupported, "cannot work with PostgreSQL \(major)",
                    detail: "This kedge knows the versions \(known[0]) to \(known[known.count - 1]).",
                    hint: "Use a newer kedge."))
            return false
        }
        if let control, control.version.major != major {
            report.fail(
                .version,
                KedgeError(
                    .configuration, "the server is not the one of data directory \"\(dataDirectory)\"",
                    detail: "The server is PostgreSQL \(major), the data directory one of PostgreSQL "
                        + "\(control.version.major).",
                    hint: "Check pgdata, and host and port, in the cluster's section."))
            return false
        }
        report.ok(.version, "PostgreSQL \(major) is supported")
        return true
    }

    // MARK: - Identity

    private func checkIdentity(_ settings: ServerSettings, _ report: inout CheckReport) throws(KedgeError) -> Bool {
        if let control, control.systemIdentifier != settings.systemIdentifier {
            report.fail(
                .server,
                KedgeError(
                    .configuration, "the server is not the one of data directory \"\(dataDirectory)\"",
                    detail: "The system identifier of the server is \(settings.systemIdentifier), that of the data "
                        + "directory \(control.systemIdentifier); the server's own is \"\(settings.dataDirectory)\".",
                    hint: "Check pgdata, and host and port, in the cluster's section."))
            return false
        }
        // A primary and its standby on one host have the same identifier, so the directories are compared too.
        let isSame = try report.attempt(.server) { () throws(KedgeError) in
            let own = try FileStatus(at: dataDirectory, followLinks: true)
            let servers = try FileStatus(at: settings.dataDirectory, followLinks: true)
            return (own.device, own.inode) == (servers.device, servers.inode)
        }
        guard let isSame else { return false }
        guard isSame else {
            report.fail(
                .server,
                KedgeError(
                    .configuration, "the server does not use data directory \"\(dataDirectory)\"",
                    detail: "Its own is \"\(settings.dataDirectory)\".",
                    hint: "Check pgdata, and host and port, in the cluster's section."))
            return false
        }
        report.ok(.server, "it uses data directory \"\(settings.dataDirectory)\"")
        return true
    }

    // MARK: - Privileges

    /// What a backup and this check call, by the names of this version. Superusers may, others need a grant.
    private var neededFunctions: [String] {
        let backup =
            connection.majorVersion >= 15
            ? ["pg_backup_start(text,boolean)", "pg_backup_stop(boolean)"]
            : ["pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)"]
        return backup + ["pg_switch_wal()", "pg_create_restore_point(text)", "pg_control_system()"]
    }

    private func checkPrivileges(_ report: inout CheckReport) throws(KedgeError) {
        let functions = neededFunctions
        let values = functions.indices.map { "($\($0 + 1))" }.joined(separator: ", ")
        let denied = try report.attempt(.privileges) { () throws(KedgeError) in
            var denied: [String] = []
            let rows = try connection.query(
                "SELECT f FROM (VALUES \(values)) AS v (f) WHERE NOT has_function_privilege(f, 'EXECUTE')", functions,
                attempt: "ask the server for the role's privileges")
            for row in rows { denied.append(try row.required(0, "function")) }
            return denied
        }
        guard let denied else { return }
        guard denied.isEmpty else {
            return report.fail(
                .privileges,
                KedgeError(
                    .databaseRefused, "the role that kedge connects as may not run all functions that it needs",
                    detail: "Missing is EXECUTE on \(denied.joined(separator: ", ")).",
                    hint: "As a superuser, in database dbname: GRANT EXECUTE ON FUNCTION "
                        + "\(denied.joined(separator: ", ")) TO the role."))
        }
        report.ok(.privileges, "the role may run all functions that kedge needs")
    }
}

// What must be right about server, data directory and repository before a backup may begin.

import KedgeCore
import KedgePostgres
import KedgeRepository

/// What a backup needs to know of the server, read from the server and from its data directory, and found to agree.
struct ServerCheck {
    let settings: ServerSettings
    let isStandby: Bool
    let control: ControlFile
    let registration: Registration
    /// Such as "15.8 (Debian 15.8-0+deb12u1)".
    let serverVersion: String
    /// Empty where the role may not ask for them.
    let configurationFiles: [RawPath]
    /// Sentences about what could not be asked.
    let warnings: [String]

    /// Asks `connection` and reads `pg_control` below `dataDirectory`.
    ///
    /// Whether a standby's WAL is archived is its primary's matter (PrimaryServer.swift).
    ///
    /// Throws `not-supported` for versions that kedge does not know, `configuration` where data
    /// directory and server are not the same, or archiving is off; `wal-foreign` for a system that is not registered.
    init(
        _ connection: DatabaseConnection, dataDirectory: RawPath, cluster: ClusterRepository, time: any TimeSource
    ) throws(KedgeError) {
        isStandby = try connection.isInRecovery()
        settings = try connection.settings()
        control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
        try ServerCheck.checkSameCluster(settings, control, dataDirectory)
        guard control.version.major == connection.majorVersion else {
            throw KedgeError(
                .notSupported, "cannot back up PostgreSQL \(connection.majorVersion)",
                detail: "The control file is one of PostgreSQL \(control.version.major).",
                hint: "Check that pgdata names the data directory of the server that kedge connects to.")
        }
        registration = try cluster.registration(of: settings.systemIdentifier)
        try ServerCheck.check(registration, against: control)
        if !isStandby { try ServerCheck.checkArchiving(settings, clusterName: cluster.clusterName) }
        serverVersion = try connection.row(
            "SELECT current_setting('server_version')", attempt: "ask the server for its version"
        ).required(0, "version")
        (configurationFiles, warnings) = try ServerCheck.configurationFiles(connection)
    }

    private static func configurationFiles(
        _ connection: DatabaseConnection
    ) throws(KedgeError) -> (files: [RawPath], warnings: [String]) {
        do throws(KedgeError) {
            let files = try connection.configurationFiles()
            return ([files.configuration, files.hostBasedAuthentication, files.identMap] + files.included, [])
        } catch  where error.code == .databaseRefused {
            // A role with no more rights than a backup needs; the data does not depend on these files.
            let why = error.detail ?? error.message
            return ([], ["Configuration files outside the data directory were left out: \(why)"])
        }
    }

    static func checkSameCluster(
        _ settings: ServerSettings, _ control: ControlFile, _ dataDirectory: RawPath
    ) throws(KedgeError) {
        guard settings.systemIdentifier != control.systemIdentifier else { return }
        throw KedgeError(
            .configuration, "cannot back up data directory \"\(dataDirectory)\": the server is another one",
            detail: "The system identifier of the data directory is \(control.systemIdentifier), that of the server "
                + "\(settings.systemIdentifier), whose data directory is \"\(settings.dataDirectory)\".",
            hint: "Check pgdata, and host and port, in the cluster's section.")
    }

    /// Holds the data directory's `pg_control`, as it is right after `start`, against the server that started.
    ///
    /// A standby has its primary's system identifier, and replays its checkpoints. But what the start has made durable
    /// it has not: its files lack what it replayed and has not written yet, and no WAL behind the start brings that
    /// back. Later its `pg_control` may look right, so that only now tells the two apart (lesson 39).
    ///
    /// Throws `configuration` where the directory is another server's, or nobody's.
    static func checkOwn(
        _ control: ControlFile, _ start: OnlineBackup.Start, _ dataDirectory: RawPath
    ) throws(KedgeError) {
        let expected: ControlFile.State = start.isFromStandby ? .inArchiveRecovery : .inProduction
        guard control.state == expected, control.redo >= start.lsn else {
            throw KedgeError(
                .configuration, "cannot back up data directory \"\(dataDirectory)\": the server is another one",
                detail: "The server, \(start.isFromStandby ? "a standby" : "a primary"), began the backup at LSN "
                    + "\(start.lsn); pg_control there is in state \"\(control.state)\", and its checkpoint begins at "
                    + "\(control.redo).  Both are of one database system, such as a primary and its standby.",
                hint: "Check that host and port lead to the server of this pgdata, also after a failover.")
        }
    }

    static func check(_ registration: Registration, against control: ControlFile) throws(KedgeError) {
        guard registration.postgresVersion == control.version.major,
            registration.walSegmentSize == UInt64(control.walSegmentSize),
            registration.blockSize == control.blockSize
        else {
            throw KedgeError(
                .notSupported, "cannot back up a cluster that has changed since it was registered",
                detail: "Registered were PostgreSQL \(registration.postgresVersion), WAL segments of "
                    + "\(registration.walSegmentSize) bytes and blocks of \(registration.blockSize); now they are "
                    + "\(control.version.major), \(control.walSegmentSize) and \(control.blockSize).",
                hint: "Give the cluster a new name in the configuration, and run \"kedge init\".")
        }
    }

    static func checkArchiving(_ settings: ServerSettings, clusterName: String) throws(KedgeError) {
        let problem: String
        if settings.archiveMode == .off {
            problem = "archive_mode is off."
        } else if settings.archiveCommand.isEmpty && settings.archiveLibrary.isEmpty {
            problem = "archive_command is empty."
        } else {
            return
        }
        throw KedgeError(
            .archivingBroken, "cannot back up cluster \"\(clusterName)\": the server does not archive its WAL",
            detail: problem + " A backup is of no use without the WAL written while it was taken.",
            hint: "Put the lines that \"kedge init\" prints into postgresql.conf, and restart the server.")
    }
}

// A cluster laid out in any way that PostgreSQL allows, protected by the built kedge, and copies of it that were
// restored, recovered and compared with it. What the Topology tests share.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

/// A cluster, its repository and everything else of it below one directory.
final class TopologyCluster {
    /// How the cluster is made.
    struct Layout {
        var installation = PostgresInstallation.standard
        /// The data directory's name below the cluster's directory.
        var dataName = "data"
        var walSegmentMiB = 1
        var dataChecksums = true
        var groupAccess = false
        /// Further arguments of initdb.
        var initdb: [String] = []
        var configuration: [String] = []
        /// What `pgdata` in kedge's configuration says; nil for the data directory's own path.
        var configuredPgdata: String?
        var processMax = 2
    }

    let place: TemporaryDirectory
    let layout: Layout
    let dataDirectory: String
    private(set) var server: PostgresTestServer
    private var copies = 0

    var installation: PostgresInstallation { layout.installation }
    var configuration: String { place("kedge.conf") }

    /// Makes and starts the cluster, and archives from its first segment on. `arrange` may change the data directory
    /// before the first start. `of` puts it into the repository of an older cluster, in its place.
    init(
        _ layout: Layout = Layout(), of older: TopologyCluster? = nil,
        arrange: (TopologyCluster) throws -> Void = { _ in }
    ) throws {
        self.layout = layout
        place = try older?.place ?? TemporaryDirectory()
        dataDirectory = place(layout.dataName)
        server = try PostgresTestServer(dataDirectory: dataDirectory, installation: layout.installation)
        try makeDataDirectory()
        if older == nil { try ServerUser.run(["mkdir", "-m", "700", place("work")]) }
        try configure()
        try arrange(self)
        var arguments = ["init"]
        if let older {
            // A newer version takes the older one's place without a word.
            if older.installation.version == installation.version {
                let control = try ControlFile.read(
                    dataDirectory: RawPath(older.dataDirectory), time: SystemTimeSource())
                arguments += ["--replace-system", control.systemIdentifier.description]
            }
        } else {
            arguments += ["--generate-key", place("main.key")]
        }
        try kedge(arguments)
        try server.start()
    }

    private func makeDataDirectory() throws {
        var arguments = [
            installation.program("initdb"), "-D", dataDirectory, "-U", "postgres", "--auth=trust", "--no-sync",
            "--locale=C.UTF-8", "--encoding=UTF8", "--wal-segsize=\(layout.walSegmentMiB)",
        ]
        if layout.dataChecksums {
            arguments.append("--data-checksums")
        } else if installation.version >= 18 {
            arguments.append("--no-data-checksums")
        }
        if layout.groupAccess { arguments.append("--allow-group-access") }
        try ServerUser.run(arguments + layout.initdb)
        let command = "\(try KedgeBinary.path()) --config \(configuration) archive-push %p"
        let size = max(layout.walSegmentMiB * 8, 64)
        try server.appendConfiguration(
            [
                "fsync = off", "max_wal_size = \(size)MB", "min_wal_size = \(max(layout.walSegmentMiB * 2, 32))MB",
                "archive_mode = on", "archive_command = '\(command)'", "autovacuum = off",
            ] + layout.configuration)
    }

    /// Writes kedge.conf, so that this cluster is the one that it is about.
    func configure() throws {
        try write(
            configuration,
            """
            [repository main]
            type = local
            path = \(place("repository"))
            encryption = aes-256-gcm
            key-file = \(place("main.key"))
            [cluster main]
            pgdata = \(TopologyCluster.quoted(layout.configuredPgdata ?? dataDirectory))
            host = \(server.directory.path)
            port = \(server.port)
            user = postgres
            dbname = postgres
            repositories = main
            process-max = \(layout.processMax)
            work-directory = \(place("work"))
            """)
    }

    /// As a value of kedge.conf.
    private static func quoted(_ text: String) -> String {
        "\"" + text.flatMap { "\"\\".contains($0) ? ["\\", $0] : [$0] } + "\""
    }

    /// Writes a file as the server's user.
    func write(_ path: String, _ text: String) throws {
        var command = ServerUser.command(["sh", "-c", "cat > \"$1\"", "sh", path])
        command.input = Array((text + "\n").utf8)
        try ServerUser.run(command)
    }

    /// Runs shell commands as the server's user, in the cluster's directory.
    @discardableResult
    func shell(_ script: String, _ arguments: String...) throws -> String {
        var command = ServerUser.command(["sh", "-euc", script, "sh"] + arguments)
        command.workingDirectory = place.path
        return try ServerUser.run(command)
    }

    // MARK: kedge

    /// Runs kedge, which must succeed. Returns its standard output.
    @discardableResult
    func kedge(_ arguments: [String]) throws -> String {
        let outcome = try attempt(arguments)
        guard outcome.status.isSuccess else {
            throw KedgeError(
                .defect, "kedge \(arguments.joined(separator: " ")) failed: \(outcome.status)",
                detail: outcome.errorText + outcome.outputText)
        }
        return outcome.outputText
    }

    /// Runs kedge, whatever comes of it.
    func attempt(_ arguments: [String]) throws -> Subprocess.Outcome {
        try KedgeBinary.run(
            ["--config", configuration, "--log-level", "error"] + arguments, workingDirectory: place.path)
    }

    /// Takes a backup and returns its label.
    @discardableResult
    func backUp() throws -> String {
        try JSONRecord(parsing: try kedge(["backup", "--type", "full", "--json"]).utf8, what: "backup").string("label")
    }

    /// Ends the present segment and waits until it is archived.
    func archiveEverything() throws {
        // The statistics name the file that was archived last, which need not be the newest.
        let name = try server.value("select pg_walfile_name(pg_switch_wal())")
        try server.wait(
            until: """
                select count(*) = 0 from pg_ls_archive_statusdir() where name ~ '[.]ready$' and name <= '\(name).ready'
                """)
    }

    // MARK: Copies

    /// The name of a new directory for a copy.
    func newCopyName() -> String {
        copies += 1
        return place("copy-\(copies)")
    }

    /// Restores into a new directory with `arguments`, has PostgreSQL's own checker look at it, starts it and waits
    /// until it is promoted.
    func restore(
        _ arguments: [String] = [], to directory: String? = nil, settings: [String] = [],
        beforeStart: (String) throws -> Void = { _ in }
    ) throws -> PostgresTestServer {
        let directory = directory ?? newCopyName()
        try kedge(["restore", "--pgdata", directory, "--target-action", "promote"] + arguments)
        try verify(directory)
        let copy = try PostgresTestServer(dataDirectory: directory, installation: installation)
        if !settings.isEmpty { try copy.appendConfiguration(settings) }
        try beforeStart(directory)
        try copy.start()
        try copy.wait(until: "select not pg_is_in_recovery()")
        return copy
    }

    /// `pg_verifybackup -n`: every file of a directory that was restored and not started yet is what its
    /// backup_manifest says. Debian's 15 reads the manifests of all versions but 17's.
    func verify(_ directory: String) throws {
        guard installation.has("pg_verifybackup") || installation.version < 17 else { return }
        // Written by nobody's backup: what tests put there after the restore.
        try server.tool("pg_verifybackup", ["-n", "-q", directory])
    }

    /// Everything that a dump of all databases holds, without what differs by design: places of tablespaces, and the
    /// content of unlogged tables.
    func dump(_ server: PostgresTestServer) throws -> String {
        let text = try server.tool(
            "pg_dumpall", server.connectionArguments + ["--no-unlogged-table-data", "--no-sync", "-l", "postgres"])
        let changing = ["CREATE TABLESPACE", "\\restrict", "\\unrestrict"]
        return text.split(separator: "\n").filter { line in !changing.contains { line.hasPrefix($0) } }
            .joined(separator: "\n")
    }

    /// That a copy holds exactly what the original holds now, in every row, page and index.
    func expectSame(_ copy: PostgresTestServer, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let (mine, its) = (try dump(server), try dump(copy))
        if mine != its {
            let lines = Set(mine.split(separator: "\n")).symmetricDifference(its.split(separator: "\n"))
            Issue.record("dumps differ: \(lines.sorted().prefix(10))", sourceLocation: sourceLocation)
        }
        try check(copy, sourceLocation: sourceLocation)
    }

    /// Looks through every index (amcheck) and, with the server stopped, every page; the server runs afterwards.
    func check(_ copy: PostgresTestServer, sourceLocation: SourceLocation = #_sourceLocation) throws {
        if installation.has("pg_amcheck"), installation.version != 16 {
            try copy.tool(
                "pg_amcheck",
                copy.connectionArguments + ["--all", "--heapallindexed", "--install-missing", "--no-dependent-toast"])
        }
        guard layout.dataChecksums else { return }
        try copy.stop()
        if installation.has("pg_checksums") {
            try copy.tool("pg_checksums", ["--check", "-D", copy.dataDirectory])
        } else {
            let bad = try PageScan.damagedPages(below: copy.dataDirectory)
            #expect(bad == [], sourceLocation: sourceLocation)
        }
        try copy.start()
    }

    /// The names, modes and contents of all that lies in directories, as one text: equal exactly if nothing changed.
    func fingerprint(_ directories: [String]) throws -> String {
        let script = """
            for directory in "$@"; do
                find "$directory" -printf '%y %m %s %T@ %l %p\\n' | LC_ALL=C sort
                find "$directory" -type f -exec sha256sum {} + | LC_ALL=C sort
            done
            """
        return try ServerUser.run(["sh", "-euc", script, "sh"] + directories)
    }

    /// Stops the server for good, as before it is replaced.
    func stop() throws { try server.stop() }
}

/// Our own look at every page of a data directory, where the version came without pg_checksums.
enum PageScan {
    /// Files and blocks that fail their checksum. The cluster must be down.
    static func damagedPages(below directory: String) throws -> [String] {
        let list = try ServerUser.run([
            "find", directory + "/base", directory + "/global", directory + "/pg_tblspc/", "-follow", "-type", "f",
            "-regextype", "egrep", "-regex", ".*/[1-9][0-9]*(_fsm|_vm|_init)?(\\.[0-9]+)?",
        ])
        var damaged: [String] = []
        for file in list.split(separator: "\n") {
            let bytes = try FileDescriptor.open(RawPath(file), [.read]).readAll(limit: 1 << 30)
            let name = file.split(separator: "/").last ?? ""
            let segment = name.split(separator: ".").dropFirst().first.flatMap { UInt32($0) } ?? 0
            for block in 0..<bytes.count / 8192 {
                let isGood = bytes[block * 8192..<(block + 1) * 8192].withUnsafeBytes {
                    DataPage(UnsafeRawBufferPointer(rebasing: $0[...])).verdict(
                        block: segment * 131_072 + UInt32(block)) == .valid
                }
                if !isGood { damaged.append("\(file) block \(block)") }
            }
        }
        return damaged
    }
}

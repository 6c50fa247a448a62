// A protected cluster with a few rows and a backup of them, and the drills of it.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

/// What the tests of drills share.
struct DrillCluster {
    let cluster: ProtectedCluster
    /// Below it drills restore.
    var scratch: String { cluster.scratch("drills") }

    /// A cluster with one backup after `sql` was run, which makes a table t with a column g.
    init(
        _ installation: PostgresInstallation = .standard, on existing: ProtectedCluster? = nil,
        configuration: [String] = [],
        sql: String = "create table t as select g, repeat('x', 100) as r from generate_series(1, 5000) g",
        backup: Bool = true
    ) throws {
        cluster = try existing ?? ProtectedCluster(installation, configuration: configuration)
        try cluster.server.psql(sql)
        try cluster.server.psql("create index on t (g)")
        if backup { try cluster.kedge(["backup"]) }
    }

    /// Commits a transaction, so that there is something to archive, and waits until all of it is.
    func archive() throws {
        try cluster.server.psql("select pg_current_xact_id()")
        try cluster.archiveEverything()
    }

    var arguments: [String] {
        ["--drill-directory", scratch, "--bin-dir", cluster.server.installation.binDirectory]
    }

    /// Runs `kedge drill`, whatever comes of it.
    func drill(
        _ more: [String] = [], environment: [String: String?] = [:], binDirectory: String? = nil
    ) throws -> Subprocess.Outcome {
        let words = ["--config", cluster.configuration, "--log-level", "warn", "drill", "--drill-directory", scratch]
        return try KedgeBinary.run(
            words + ["--bin-dir", binDirectory ?? cluster.server.installation.binDirectory] + more,
            environment: environment, workingDirectory: cluster.directory.path)
    }

    /// Runs `kedge drill --json`, whose status is to be `status`. Returns the proof in its result.
    func proof(_ more: [String] = [], status: Int32 = 0) throws -> JSONRecord {
        let outcome = try drill(more + ["--json"])
        #expect(outcome.status == .exited(status), "\(outcome.errorText)\(outcome.outputText)")
        return try JSONRecord(parsing: outcome.outputText.utf8, what: "drill").record("proof")
    }

    /// The checks of a proof that have this result: `name`, or `name (subject)`.
    static func checks(_ proof: JSONRecord, _ result: String) throws -> [String] {
        try proof.records("checks").filter { (check) throws(KedgeError) in try check.string("result") == result }
            .map { check in
                let subject = try check.optionalString("subject").map { " (\($0))" } ?? ""
                return try check.string("name") + subject
            }
    }

    /// The detail of the first check that failed.
    static func failure(_ proof: JSONRecord) throws -> String {
        for check in try proof.records("checks") where try check.string("result") == "failed" {
            return try check.optionalString("detail") ?? ""
        }
        return ""
    }

    /// Nothing of any drill is left: no file, no process.
    func expectNothingLeft(_ comment: String = "") throws {
        if access(scratch, F_OK) == 0 {
            let entries = try Directory.entries(at: RawPath(scratch)).map(\.name.description)
            #expect(entries == [], "\(comment)")
        }
        let left = try ProcessTable.entries().filter { process in
            process.workingDirectory.map { $0.bytes.starts(with: Array(scratch.utf8)) } ?? false
        }
        #expect(left == [], "\(comment)")
    }

    /// How many proofs the repository holds.
    func proofCount() throws -> Int {
        let path = cluster.repository + "/main/catalog/proof"
        guard access(path, F_OK) == 0 else { return 0 }
        return try ServerUser.run(["find", path, "-type", "f"]).split(separator: "\n").count
    }
}

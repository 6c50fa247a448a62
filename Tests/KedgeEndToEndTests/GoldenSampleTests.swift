// That the golden samples of Catalog/v1/golden, made by scripts/make-golden.sh, still restore: each by a drill, which
// reads, recovers and checks all of it, to moments whose rows are known.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct GoldenSampleTests {
    /// The samples are of this version of PostgreSQL.
    private static let installation = PostgresInstallation.all.first { $0.version == 15 }

    private struct Recovery: Sendable, CustomTestStringConvertible {
        let sample: String
        let target: [String]
        let rows: Int
        var testDescription: String { "\(sample) \(target.joined(separator: " "))" }
    }

    private static let recoveries = [
        Recovery(sample: "plain", target: [], rows: 1600),
        Recovery(sample: "sealed", target: ["--target-name", "golden"], rows: 1500),
        Recovery(sample: "sealed", target: ["--target-immediate"], rows: 1000),
    ]

    @Test(
        "a golden sample restores and recovers", .enabled(if: installation != nil, "needs PostgreSQL 15"),
        arguments: recoveries)
    private func restores(_ recovery: Recovery) throws {
        let installation = try #require(GoldenSampleTests.installation)
        let directory = try TemporaryDirectory()
        let samples = try #require(GoldenSampleTests.samples, "Catalog/v1/golden is there")
        // The drill writes its proof: into a copy. The server's user need not be able to read the tree.
        _ = try Subprocess(["cp", "-r", samples + "/" + recovery.sample, directory("repository")]).run()
        _ = try Subprocess(["cp", samples + "/test-only.key", directory("key")]).run()
        if ServerUser.isAnother {
            _ = try Subprocess(["chown", "-R", "postgres:postgres", directory.path]).run()
        }
        func write(_ name: String, _ text: String) throws {
            var command = ServerUser.command(["sh", "-c", "cat > \"$1\"", "sh", directory(name)])
            command.input = Array((text + "\n").utf8)
            try ServerUser.run(command)
        }
        try ServerUser.run(["chmod", "600", directory("key")])
        try write("checks.sql", "select count(*) = \(recovery.rows) from sample")
        let encryption =
            recovery.sample == "plain"
            ? "encryption = none" : "encryption = aes-256-gcm\nkey-file = \(directory("key"))"
        try write(
            "kedge.conf",
            """
            [repository \(recovery.sample)]
            path = \(directory("repository"))
            \(encryption)
            [cluster sample]
            pgdata = /nonexistent
            bin-dir = \(installation.binDirectory)
            work-directory = \(directory("work"))
            drill-directory = \(directory("drills"))
            drill-check = \(directory("checks.sql"))
            """)
        let outcome = try KedgeBinary.run(
            ["--config", directory("kedge.conf"), "drill"] + recovery.target, workingDirectory: directory.path)
        #expect(outcome.status == .exited(0), "\(outcome.errorText)\(outcome.outputText)")
        #expect(outcome.outputText.contains("passed: assertion"), "\(outcome.outputText)")
    }

    /// Beside the sources: tests are built where they lie.
    private static var samples: String? {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()
        let path = root + "/Catalog/v1/golden"
        return access(path + "/plain/kedge.json", F_OK) == 0 ? path : nil
    }
}

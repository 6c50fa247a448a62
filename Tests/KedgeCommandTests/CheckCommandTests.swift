// What `kedge check` says of the configuration itself; servers are for CheckServerTests.
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct CheckCommandTests {
    @Test("a work-directory that a restart may empty is a warning, whether it is the default or written down")
    func forgetful() throws {
        let directory = try TemporaryDirectory()
        // Nobody's, since a check makes its work-directory.
        let user: UInt32 = 3_999_999_999
        let path = ClusterConfiguration.defaultWorkDirectory(of: user)
        defer { _ = try? Subprocess(["rm", "-rf", "--", path]).run() }
        for (line, isForgetful) in [
            ("", true), ("work-directory = \(path)", true), ("work-directory = \(directory("work"))", false),
        ] {
            let run = ToolRun(
                ["--config", "/k.conf", "check"],
                files: [
                    "/k.conf": """
                    [repository main]
                    path = \(directory("none"))
                    encryption = none
                    [cluster c]
                    pgdata = \(directory("none"))
                    host = \(directory("none"))
                    \(line)
                    """
                ], changing: { $0.host = HostFacts(processors: 1, userID: user) })
            #expect(run.ending == .exit(1))
            #expect(
                run.output.contains(
                    "warning  work-directory: work-directory is \"\(path)\", which a restart of the host may empty\n")
                    == isForgetful, "\(run.output)")
        }
    }
}

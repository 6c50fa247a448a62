// That a drill's directory is its own.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct DrillCommandTests {
    @Test("a drill does not begin in a repository or the data directory, however its own directory is spelled")
    func ownDirectory() throws {
        let directory = try TemporaryDirectory()
        for name in ["repository", "pgdata"] { _ = try Directory.create(at: RawPath(directory(name)), mode: 0o755) }
        try FileSystem.createSymbolicLink(at: RawPath(directory("link")), target: RawPath(directory("repository")))
        let places = [
            ("repository/drills", "repository \"main\""), ("link/drills", "repository \"main\""),
            ("pgdata/../repository/drills", "repository \"main\""), ("link/../pgdata/drills", "the data directory"),
        ]
        for (place, what) in places {
            let file = """
                [repository main]
                path = \(directory("repository"))
                encryption = none
                [cluster c]
                pgdata = \(directory("pgdata"))
                work-directory = \(directory("work"))
                drill-directory = \(directory(place))
                """
            let run = ToolRun(["drill", "--clean"], files: ["/etc/kedge/kedge.conf": file])
            #expect(run.errors.contains("cannot drill in \"\(directory(place))\": it lies in \(what)"), "\(run.errors)")
        }
        #expect(try Directory.entries(of: FileDescriptor.open(RawPath(directory("repository")), .read)).isEmpty)
    }
}

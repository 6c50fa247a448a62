// Proves with the built binary that two hosts do not back up one cluster at once, that each sees how far the other is,
// that a killed one is followed at once on its own host, and that connecting obeys SIGTERM.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct TwoHostsTests {
    @Test("the second backup exits with status 4 and says who is at it; info shows how far; a killed one is followed")
    func backups() throws {
        let cluster = try ProtectedCluster()
        // Two hosts share no work directory, and so no local lock.
        for name in ["one", "two"] { try ServerUser.run(["mkdir", "-m", "700", cluster.directory(name)]) }
        func backup(_ host: String, _ more: [String] = []) throws -> Subprocess {
            try KedgeBinary.command(
                ["--config", cluster.configuration, "backup", "--work-directory", cluster.directory(host)] + more,
                workingDirectory: cluster.directory.path)
        }
        // A first one shows that it works at all, and calibrates nothing.
        #expect(try backup("one").run().status == .exited(0))
        var slow = try backup("one", ["--read-rate", "1MB"]).start(
            output: .discarded, errors: .file(cluster.directory("slow.errors")))
        // It holds the lease before it copies, and its intent is there by then.
        while !(try cluster.kedge(["info"]).contains("under way: ")) {
            if try slow.wait(timeout: .milliseconds(10)) != nil { break }
        }
        let refused = try backup("two").run()
        #expect(refused.status == .exited(4), "\(refused.errorText)")
        #expect(refused.errorText.contains("could not take lease \"main/lease/backup\" of repository \"main\""))
        #expect(refused.errorText.contains("It is held by process \(slow.id) of host \""))
        let info = try JSONRecord(parsing: cluster.kedge(["info", "--json"]).utf8, what: "info")
        let shown = try #require(try info.records("clusters").first?.records("underWay").first)
        #expect(try shown.integer("processID", as: Int32.self) == slow.id)
        #expect(try shown.record("progress").string("step").isEmpty == false)
        slow.kill(SIGKILL)
        _ = try slow.wait()
        let next = try backup("two").run()
        #expect(next.status == .exited(0), "\(next.errorText)")
        #expect(!next.errorText.contains("lease"))
        let after = try JSONRecord(parsing: cluster.kedge(["info", "--json"]).utf8, what: "info")
        #expect(try after.records("clusters").first?.records("leases").isEmpty == true)
    }

    @Test("SIGTERM ends a backup that waits for a server which never answers")
    func connecting() throws {
        let cluster = try ProtectedCluster()
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let size = length
        let failed = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(listener, address, size) != 0 || listen(listener, 1) != 0
                    || getsockname(listener, address, &length) != 0
            }
        }
        try #require(!failed)
        let port = UInt16(bigEndian: address.sin_port)
        var process = try KedgeBinary.command(
            ["--config", cluster.configuration, "backup", "--host", "127.0.0.1", "--port", String(port)],
            environment: ["PGCONNECT_TIMEOUT": "3600"], workingDirectory: cluster.directory.path
        ).start(output: .discarded, errors: .file(cluster.directory("errors")))
        // It has connected, and waits for the first answer.
        let peer = accept(listener, nil, nil)
        defer { close(peer) }
        process.kill(SIGTERM)
        #expect(try process.wait(timeout: .seconds(20)) == .exited(130))
        #expect(readTextFile(cluster.directory("errors"))?.contains("code: interrupted") == true)
    }
}

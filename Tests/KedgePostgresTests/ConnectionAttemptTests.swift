// Proves that connecting obeys a request to stop while the other end keeps silent.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct ConnectionAttemptTests {
    /// A listening socket that never answers.
    private struct SilentServer: ~Copyable {
        let descriptor: Int32
        let port: UInt16

        init() throws {
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let (socket, size) = (descriptor, length)
            let failed = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    bind(socket, address, size) != 0 || listen(socket, 8) != 0
                        || getsockname(socket, address, &length) != 0
                }
            }
            try #require(!failed)
            port = UInt16(bigEndian: address.sin_port)
        }

        deinit { close(descriptor) }
    }

    @Test("a request to stop ends a connection attempt that nobody answers (lesson 48)")
    func silence() throws {
        let server = try SilentServer()
        var settings = DatabaseSettings()
        settings.host = "127.0.0.1"
        settings.port = String(server.port)
        settings.user = "nobody"
        settings.dbname = "nothing"
        settings.others = ["connect_timeout": "3600", "gssencmode": "disable"]
        let interruption = Interruption()
        let heartbeat = try Heartbeat(name: "stop", every: .milliseconds(50)) { interruption.request(signal: SIGTERM) }
        let error = #expect(throws: KedgeError.self) { try DatabaseConnection(settings, unless: interruption) }
        heartbeat.stop()
        // Where libpq is not installed, nothing can be tried.
        #expect(error?.code == .interrupted || error?.code == .configuration)
    }

    @Test("an attempt that fails by itself says why, also while somebody might ask to stop")
    func refusal() throws {
        var settings = DatabaseSettings()
        settings.host = "/nonexistent"
        let error = #expect(throws: KedgeError.self) { try DatabaseConnection(settings, unless: Interruption()) }
        #expect(error?.code == .databaseUnavailable || error?.code == .configuration)
        #expect(error?.detail?.contains("/nonexistent") == true || error?.code == .configuration)
    }
}

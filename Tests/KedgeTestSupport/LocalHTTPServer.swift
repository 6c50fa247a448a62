// A small HTTP server in the test's own process, whose answers and whose misdeeds are a function of the request.
import Glibc
package import KedgeCore
import Synchronization

/// An HTTP/1.1 server on 127.0.0.1. It ends with the last reference to it.
package final class LocalHTTPServer: Sendable {
    /// A whole request.
    package struct Request: Sendable {
        package let method: String
        /// Path and query, as sent.
        package let target: String
        /// Names in lower case.
        package let headers: [(name: String, value: String)]
        package let body: [UInt8]
        /// The bytes of all of it, as they came.
        package let raw: [UInt8]

        /// The first value of the header `name` (in lower case).
        package func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }

        package var path: String { String(target.prefix { $0 != "?" }) }
    }

    /// What the client gets.
    package enum Reply: Sendable {
        case answer(Int, headers: [(name: String, value: String)] = [], body: [UInt8] = [])
        /// These bytes, and then the end of the connection: a reset, or an orderly one.
        case bytes([UInt8], reset: Bool = false)
        /// The first bytes at once, and the others one by one, each before a pause; the end comes early where the
        /// client goes.
        case trickle(first: [UInt8], others: [UInt8], pauseNanoseconds: UInt64)
        /// Nothing, until the client goes.
        case silence
    }

    package let port: UInt16
    private let listener: Int32
    private let stopped = Atomic(false)

    /// Serves what `reply` says, on a thread for each connection.
    package init(_ reply: @escaping @Sendable (Request) -> Reply) throws(KedgeError) {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                bind(listener, generic, length) | listen(listener, 64) | getsockname(listener, generic, &length)
            }
        }
        guard listener >= 0, result == 0 else {
            throw KedgeError(.defect, "could not listen on a port of 127.0.0.1", detail: "errno \(errno)")
        }
        self.listener = listener
        port = UInt16(bigEndian: address.sin_port)
        try Thread.detach(name: "http-listen") {
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else {
                    if errno == EINTR || errno == ECONNABORTED { continue }
                    // Closed by the only one who waits on it: nobody else's descriptor may get its number meanwhile.
                    close(listener)
                    return
                }
                do throws(KedgeError) {
                    try Thread.detach(name: "http") { LocalHTTPServer.serve(connection, reply) }
                } catch {
                    close(connection)
                }
            }
        }
    }

    deinit { stop() }

    /// Refuses further connections.
    package func stop() {
        guard !stopped.exchange(true, ordering: .sequentiallyConsistent) else { return }
        shutdown(listener, Int32(SHUT_RDWR))
    }

    package var endpoint: String { "http://127.0.0.1:\(port)" }

    // MARK: - One connection

    private static func serve(_ connection: Int32, _ reply: @Sendable (Request) -> Reply) {
        defer { close(connection) }
        var waiting: [UInt8] = []
        while let request = read(connection, &waiting) {
            switch reply(request) {
            case .answer(let status, let headers, let body):
                let isBodyless = request.method == "HEAD" || status == 204
                var head = "HTTP/1.1 \(status) Answer\r\n"
                for header in headers { head += "\(header.name): \(header.value)\r\n" }
                if !headers.contains(where: { $0.name.lowercased() == "content-length" }) {
                    head += "Content-Length: \(body.count)\r\n"
                }
                guard send(Array((head + "\r\n").utf8) + (isBodyless ? [] : body), connection),
                    request.header("connection")?.lowercased() != "close"
                else { return }
            case .bytes(let bytes, let reset):
                _ = send(bytes, connection)
                if reset {
                    var linger = linger(l_onoff: 1, l_linger: 0)
                    setsockopt(
                        connection, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
                } else {
                    shutdown(connection, Int32(SHUT_WR))
                    var rest = [UInt8](repeating: 0, count: 4096)
                    while recv(connection, &rest, rest.count, 0) > 0 {}
                }
                return
            case .trickle(let first, let others, let pause):
                guard send(first, connection) else { return }
                for byte in others {
                    guard send([byte], connection) else { return }
                    SystemTimeSource().sleep(nanoseconds: pause)
                }
                return
            case .silence:
                var rest = [UInt8](repeating: 0, count: 4096)
                while recv(connection, &rest, rest.count, 0) > 0 {}
                return
            }
        }
    }

    /// The next request; nil when there is none.
    private static func read(_ connection: Int32, _ waiting: inout [UInt8]) -> Request? {
        let separator = Array("\r\n\r\n".utf8)
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        func more() -> Bool {
            let count = recv(connection, &buffer, buffer.count, 0)
            if count > 0 { waiting += buffer[..<count] }
            return count > 0
        }
        var headEnd: Int?
        while headEnd == nil {
            headEnd = (0..<max(0, waiting.count - 3)).first { Array(waiting[$0..<$0 + 4]) == separator }
            if headEnd == nil, !more() { return nil }
        }
        guard let headEnd else { return nil }
        var lines = String(decoding: waiting[..<headEnd], as: UTF8.self).split(separator: "\r\n")[...]
        let words = (lines.popFirst() ?? "").split(separator: " ")
        guard words.count == 3 else { return nil }
        let headers = lines.compactMap { line -> (name: String, value: String)? in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            let value = line[line.index(after: colon)...].drop { $0 == " " }
            return (line[..<colon].lowercased(), String(value))
        }
        let length = headers.first { $0.name == "content-length" }.flatMap { Int($0.value) } ?? 0
        let end = headEnd + 4 + length
        while waiting.count < end { if !more() { return nil } }
        defer { waiting.removeFirst(end) }
        return Request(
            method: String(words[0]), target: String(words[1]), headers: headers,
            body: Array(waiting[headEnd + 4..<end]), raw: Array(waiting[..<end]))
    }

    /// Whether all of it was sent.
    static func send(_ bytes: [UInt8], _ connection: Int32) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes {
                Glibc.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            offset += count
        }
        return true
    }
}

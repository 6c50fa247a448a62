// Stands between kedge and an object store, and lets requests and answers go wrong as a seed says.
import Glibc
package import KedgeCore

/// A proxy of one object store that speaks plain HTTP.
package final class FaultProxy: Sendable {
    /// What goes wrong with one request.
    package enum Fault: String, Hashable, Sendable, CaseIterable {
        case delay
        /// The connection breaks before the store has seen the request.
        case resetBefore
        /// The store did it; the answer is lost.
        case resetAfter
        /// Part of the answer comes, then a reset or an orderly end.
        case truncated
        case truncatedOrderly
        /// 500 or 503, without the store having seen it, or after it did it.
        case serverError
        case serverErrorAfter
        /// Status 200, and an error inside.
        case errorInGoodAnswer
        /// Content-Length says more or less than there is.
        case wrongLength
        case expiredToken
        case skewedClock
        /// A bit of what is to be stored is another one when it arrives.
        case flippedRequestBit
        /// A bit of the answer's body is another one.
        case flippedBit
    }

    private struct State {
        var number = 0
        var hits: [Fault: Int] = [:]
        var requests: [String: Int] = [:]
        var isCalm = false
    }

    private let server: LocalHTTPServer
    private let state: Monitor<State>

    /// Of a hundred requests `percent` go wrong, each in one of these ways. `port` is the store's on 127.0.0.1.
    package init(
        to port: UInt16, seed: UInt64, percent: Int, faults: [Fault]
    ) throws(KedgeError) {
        let state = Monitor(State())
        self.state = state
        let random = SeededRandom(seed: seed)
        server = try LocalHTTPServer { request in
            let fault = state.update { state -> Fault? in
                state.number += 1
                state.requests[FaultProxy.kind(of: request), default: 0] += 1
                guard !state.isCalm, !faults.isEmpty, random.next(below: 100) < percent else { return nil }
                let fault = faults[random.next(below: faults.count)]
                state.hits[fault, default: 0] += 1
                return fault
            }
            return FaultProxy.reply(request, fault, random, port)
        }
    }

    package var endpoint: String { server.endpoint }

    /// How often each fault was made.
    package var hits: [Fault: Int] { state.update { $0.hits } }

    /// How many requests of each method came; those for listings are `LIST`.
    package var requests: [String: Int] { state.update { $0.requests } }

    private static func kind(of request: LocalHTTPServer.Request) -> String {
        request.target.contains("list-type=2") ? "LIST" : request.method
    }

    /// From here on all goes well, or not any more.
    package func setCalm(_ isCalm: Bool) { state.update { $0.isCalm = isCalm } }

    // MARK: -

    private static func reply(
        _ request: LocalHTTPServer.Request, _ fault: Fault?, _ random: SeededRandom, _ port: UInt16
    ) -> LocalHTTPServer.Reply {
        func failure(_ status: Int, _ code: String, _ date: String? = nil) -> LocalHTTPServer.Reply {
            let id = "PROXY-\(random.next(below: 1_000_000))"
            var headers = [("x-amz-request-id", id)]
            if let date { headers.append(("Date", date)) }
            return .answer(
                status, headers: headers,
                body: Array("<Error><Code>\(code)</Code><Message>proxy</Message></Error>".utf8))
        }
        switch fault {
        case .resetBefore: return .bytes([], reset: true)
        case .serverError:
            return random.next(below: 2) == 0 ? failure(500, "InternalError") : failure(503, "SlowDown")
        case .errorInGoodAnswer where request.method == "POST": return failure(200, "InternalError")
        case .expiredToken: return failure(400, "ExpiredToken")
        case .skewedClock: return failure(403, "RequestTimeTooSkewed", "Sat, 01 Jan 2022 00:00:00 GMT")
        default: break
        }
        var raw = request.raw
        if fault == .flippedRequestBit, !request.body.isEmpty,
            request.method == "PUT" || request.target.contains("?delete")
        {
            raw[raw.count - 1 - random.next(below: request.body.count)] ^= UInt8(1 << random.next(below: 8))
        }
        guard let answer = forward(raw, port) else { return .bytes([], reset: true) }
        let head = headLength(answer)
        switch fault {
        case .delay:
            SystemTimeSource().sleep(nanoseconds: UInt64(random.next(below: 60)) * 1_000_000)
            return .bytes(answer)
        case .resetAfter: return .bytes([], reset: true)
        case .serverErrorAfter: return failure(500, "InternalError")
        case .truncated, .truncatedOrderly:
            return .bytes(Array(answer.prefix(random.next(below: max(answer.count, 1)))), reset: fault == .truncated)
        case .wrongLength: return .bytes(withWrongLength(answer, head, longer: random.next(below: 2) == 0))
        case .flippedBit where answer.count > head:
            var answer = answer
            answer[head + random.next(below: answer.count - head)] ^= UInt8(1 << random.next(below: 8))
            return .bytes(answer)
        default: return .bytes(answer)
        }
    }

    private static func headLength(_ answer: [UInt8]) -> Int {
        let end = Array("\r\n\r\n".utf8)
        return ((0..<max(0, answer.count - 3)).first { Array(answer[$0..<$0 + 4]) == end } ?? answer.count - 4) + 4
    }

    private static func withWrongLength(_ answer: [UInt8], _ head: Int, longer: Bool) -> [UInt8] {
        let lines = String(decoding: answer[..<head], as: UTF8.self).split(
            separator: "\r\n", omittingEmptySubsequences: false)
        let changed = lines.map { line -> String in
            guard line.lowercased().hasPrefix("content-length: "), let length = Int(line.dropFirst(16)) else {
                return String(line)
            }
            return "Content-Length: \(longer ? length + 7 : max(0, length - 3))"
        }
        return Array(changed.joined(separator: "\r\n").utf8) + answer[head...]
    }

    /// The store's whole answer, which ends with its connection; nil where it has none.
    private static func forward(_ request: [UInt8], _ port: UInt16) -> [UInt8]? {
        let connection = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard connection >= 0 else { return nil }
        defer { close(connection) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(connection, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { return nil }
        // Behind the first line: no header that is signed.
        let firstLine = request.prefix { $0 != 0x0A } + [0x0A]
        let bytes = firstLine + Array("Connection: close\r\n".utf8) + request.dropFirst(firstLine.count)
        guard LocalHTTPServer.send(Array(bytes), connection) else { return nil }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = recv(connection, &buffer, buffer.count, 0)
            guard count > 0 else { return answer.isEmpty ? nil : answer }
            answer += buffer[..<count]
        }
    }
}

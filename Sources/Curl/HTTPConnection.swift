// The one owner of a libcurl handle: it runs one HTTP request at a time and keeps its connection for the next.
//
// 1. libcurl is loaded by the first connection of the process (CCurl), never before.
// 2. Whatever is not an HTTP answer is an `HTTPFailure`; an answer of any status is a value. Nothing here knows S3.
// 3. Bytes of a successful answer go where the request says; those of any other into `errorBody`, which is bounded.
// 4. A request to stop is noticed within a second.
import CCurl
package import KedgeCore

/// Why there is no answer.
package struct HTTPFailure: Error, Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// libcurl itself is not on this host.
        case libraryMissing
        /// The server's certificate is not trusted, or the file of trusted certificates can't be used.
        case untrusted
        /// Nothing, or next to nothing, moved for too long.
        case timedOut
        /// No connection, or it broke.
        case disconnected
        /// The answer has more bytes than there is room for.
        case tooLong
        /// Somebody asked us to stop.
        case interrupted
    }

    package let kind: Kind
    /// libcurl's words.
    package let message: String
}

/// One request.
package struct HTTPRequest: Sendable {
    /// The methods that are used.
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case put = "PUT"
        case post = "POST"
        case delete = "DELETE"
    }

    package var method: Method
    /// The whole URL, escaped.
    package var url: String
    /// Without line breaks in names or values.
    package var headers: [(name: String, value: String)]
    /// What is sent, with PUT and POST, in pieces that need not be copied together.
    package var body: [[UInt8]]

    package init(
        _ method: Method, url: String, headers: [(name: String, value: String)] = [], body: [[UInt8]] = []
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
    }
}

/// Where the bytes of a successful answer go. More than there is room for end the request.
package enum HTTPSink {
    /// Kept in the answer, at most so many bytes.
    case bytes(limit: Int)
    /// Memory that stays valid until the request has ended.
    case buffer(UnsafeMutableRawBufferPointer)
}

/// An answer.
package struct HTTPResponse: Sendable {
    package let status: Int
    /// Names in lower case, in the order of the answer.
    package let headers: [(name: String, value: String)]
    /// What came with a status from 200 to 299 and was to be kept.
    package let body: [UInt8]
    /// How many bytes of such a body came, wherever they went.
    package let bodyBytes: Int
    /// The beginning of what came with any other status, at most 64 KiB.
    package let errorBody: [UInt8]

    /// The first value of the header `name` (in lower case).
    package func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

/// How to connect.
package struct HTTPOptions: Sendable {
    /// PEM file of the certificates to trust; nil: those of the host.
    package var trustFile: String?
    package var connectSeconds = 10
    /// A transfer that moves less than a kilobyte a second for so long is given up.
    package var stallSeconds = 30
    /// Whether the variables that name proxies (http_proxy and its like) count.
    package var usesProxy = true

    package init() {}
}

/// A libcurl handle. For one thread at a time; freed at the end of its scope.
package struct HTTPConnection: ~Copyable {
    private let handle: OpaquePointer
    private let options: HTTPOptions

    package init(_ options: HTTPOptions) throws(HTTPFailure) {
        if let message = ccurl_load() {
            throw HTTPFailure(kind: .libraryMissing, message: String(cString: message))
        }
        guard let handle = ccurl_new() else {
            throw HTTPFailure(kind: .disconnected, message: "libcurl is out of memory")
        }
        self.handle = handle
        self.options = options
    }

    deinit { ccurl_free(handle) }

    /// Sends the request, and its body not more than once, and waits for the whole answer.
    package borrowing func perform(
        _ request: HTTPRequest, into sink: HTTPSink, unless interruption: Interruption
    ) throws(HTTPFailure) -> HTTPResponse {
        let transfer = Transfer(body: request.body, sink: sink, interruption: interruption)
        let result = run(request, transfer)
        switch result.code {
        case 0: return transfer.response(status: Int(result.status))
        case ccurl_stopped_code: throw HTTPFailure(kind: .interrupted, message: message(of: result))
        case ccurl_refused_write_code where transfer.isTooLong:
            throw HTTPFailure(kind: .tooLong, message: "the answer is longer than it may be")
        case ccurl_timeout_code: throw HTTPFailure(kind: .timedOut, message: message(of: result))
        case ccurl_certificate_code, ccurl_ca_file_code:
            throw HTTPFailure(kind: .untrusted, message: message(of: result))
        default: throw HTTPFailure(kind: .disconnected, message: message(of: result))
        }
    }

    private borrowing func run(_ request: HTTPRequest, _ transfer: Transfer) -> ccurl_result {
        let lines = request.headers.map { "\($0.name): \($0.value)" }.joined(separator: "\n")
        var result = ccurl_result()
        // `transfer` outlives the call: the caller holds it.
        var functions = ccurl_transfer(
            context: Unmanaged.passUnretained(transfer).toOpaque(),
            read: { context, buffer, count in
                guard let buffer else { return 0 }
                return transferAt(context).read(into: UnsafeMutableRawBufferPointer(start: buffer, count: count))
            },
            write: { context, status, bytes, count in
                transferAt(context).write(UnsafeRawBufferPointer(start: bytes, count: count), status: status) ? 0 : 1
            },
            header: { context, line, count in
                transferAt(context).header(UnsafeRawBufferPointer(start: line, count: count))
            },
            stopped: { transferAt($0).isStopped ? 1 : 0 })
        request.method.rawValue.withCString { method in
            request.url.withCString { url in
                lines.withCString { headers in
                    withOptionalCString(options.trustFile) { trust in
                        var raw = ccurl_request(
                            method: method, url: url, headers: headers, body_bytes: Int64(transfer.bodyCount),
                            ca_file: trust, connect_seconds: options.connectSeconds,
                            stall_seconds: options.stallSeconds, no_proxy: options.usesProxy ? 0 : 1)
                        ccurl_perform(handle, &raw, &functions, &result)
                    }
                }
            }
        }
        return result
    }

    private borrowing func message(of result: ccurl_result) -> String {
        withUnsafeBytes(of: result.message) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}

private func withOptionalCString<Result>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let text else { return body(nil) }
    return text.withCString { body($0) }
}

private func transferAt(_ context: UnsafeMutableRawPointer?) -> Transfer {
    guard let context else { preconditionFailure("libcurl lost the context that it was given") }
    return Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
}

/// The state of one request, touched only by the thread that runs it.
private final class Transfer {
    private let body: [[UInt8]]
    private let sink: HTTPSink
    private let interruption: Interruption
    let bodyCount: Int
    /// What is sent next: an index into `body` and one into that piece.
    private var piece = 0
    private var offset = 0
    private var headers: [(name: String, value: String)] = []
    private var kept: [UInt8] = []
    private var errorBody: [UInt8] = []
    private var received = 0
    private(set) var isTooLong = false

    private static let errorLimit = 64 << 10
    private static let headerLimit = 256

    init(body: [[UInt8]], sink: HTTPSink, interruption: Interruption) {
        self.body = body
        self.sink = sink
        self.interruption = interruption
        bodyCount = body.reduce(0) { $0 + $1.count }
    }

    var isStopped: Bool { interruption.isRequested }

    func response(status: Int) -> HTTPResponse {
        HTTPResponse(
            status: status, headers: headers, body: kept, bodyBytes: received, errorBody: errorBody)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        var count = 0
        while count < buffer.count, piece < body.count {
            let part = min(buffer.count - count, body[piece].count - offset)
            body[piece].withBytes { bytes in
                UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + part]))
            }
            count += part
            offset += part
            if offset == body[piece].count {
                piece += 1
                offset = 0
            }
        }
        return count
    }

    /// Whether there was room.
    func write(_ bytes: UnsafeRawBufferPointer, status: Int) -> Bool {
        guard (200..<300).contains(status) else {
            errorBody += bytes.prefix(Transfer.errorLimit - errorBody.count)
            return true
        }
        switch sink {
        case .bytes(let limit):
            guard bytes.count <= limit - received else { break }
            kept += bytes
            received += bytes.count
            return true
        case .buffer(let buffer):
            guard bytes.count <= buffer.count - received else { break }
            UnsafeMutableRawBufferPointer(rebasing: buffer[received...]).copyMemory(from: bytes)
            received += bytes.count
            return true
        }
        isTooLong = true
        return false
    }

    func header(_ line: UnsafeRawBufferPointer) {
        let text = String(decoding: line, as: UTF8.self)
        // A new head: of the final answer after one that says "continue", or of the next attempt.
        if text.hasPrefix("HTTP/") {
            headers = []
            kept = []
            errorBody = []
            received = 0
            return
        }
        guard headers.count < Transfer.headerLimit, let colon = text.firstIndex(of: ":") else { return }
        headers.append(
            (text[..<colon].lowercased(), String(text[text.index(after: colon)...].drop(while: \.isWhitespace)).trimmed)
        )
    }
}

extension String {
    /// Without white space at the end.
    fileprivate var trimmed: String {
        var text = self
        while text.last?.isWhitespace == true { text.removeLast() }
        return text
    }
}

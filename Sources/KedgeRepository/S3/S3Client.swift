// One signed request to an object store and its answer.
//
// 1. Each thread that is in a request has a connection of its own; connections are kept for the next request.
// 2. Nothing is retried here (`RetryingStore` does), but for three answers that say how to ask right: the bucket lies
//    in another region (followed once in the life of a client), the clocks differ (the store's is taken over), and the
//    credentials have expired (looked for again, once a request).
// 3. A good status alone is no answer of a store: a proxy, or the login page of a network, gives it to every request.
//    So a web page is an error here, and each caller asks for what a store has to send besides (an ETag, or XML).
// 4. Every body carries its MD5, which every store checks; over http it is also signed with its SHA-256.

import Curl
import KedgeCodec
package import KedgeCore

/// Where credentials come from.
package protocol S3CredentialSource: Sendable {
    /// Credentials that are valid at `moment`. Throws `configuration`, `permission`, `repository-unavailable`.
    func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials

    /// Looks again where `refused` came from, which the store calls expired or unknown. Returns whether there are
    /// others now. Throws as `credentials`.
    func renew(_ refused: S3Credentials, at moment: Timestamp) throws(KedgeError) -> Bool
}

extension S3CredentialSource {
    /// There are no others.
    package func renew(_ refused: S3Credentials, at moment: Timestamp) throws(KedgeError) -> Bool { false }
}

/// What does not change from request to request.
package struct S3ClientSettings: Sendable {
    package var location: S3Location
    package var credentials: any S3CredentialSource
    /// PEM file of the certificates to trust; nil: those of the host.
    package var trustFile: String?
    package var time: any TimeSource
    package var interruption: Interruption
    package var patience = Patience.long

    /// How long to wait for a store that does not move.
    package struct Patience: Hashable, Sendable {
        package var connectSeconds: Int
        package var stallSeconds: Int

        package init(connectSeconds: Int, stallSeconds: Int) {
            self.connectSeconds = connectSeconds
            self.stallSeconds = stallSeconds
        }

        package static let long = Patience(connectSeconds: 10, stallSeconds: 30)
        /// For those who have another repository to turn to.
        package static let short = Patience(connectSeconds: 3, stallSeconds: 10)
    }

    package init(
        location: S3Location, credentials: any S3CredentialSource, trustFile: String? = nil,
        time: any TimeSource = SystemTimeSource(), interruption: Interruption
    ) {
        self.location = location
        self.credentials = credentials
        self.trustFile = trustFile
        self.time = time
        self.interruption = interruption
    }
}

/// A client of one bucket.
final class S3Client: Sendable {
    private struct State {
        var idle: [PooledConnection] = []
        /// What has to be added to this host's clock to get the store's, in seconds.
        var clockOffset: Int64 = 0
        var location: S3Location
        var hasMoved = false
    }

    private let settings: S3ClientSettings
    private let state: Monitor<State>

    init(_ settings: S3ClientSettings) {
        self.settings = settings
        state = Monitor(State(location: settings.location))
    }

    /// Where the bucket is.
    var location: S3Location { state.update { $0.location } }

    /// A request below the bucket. Names and values of the query are not escaped yet.
    struct Request {
        var method: HTTPRequest.Method
        /// The store's name for the object; nil: the bucket itself.
        var key: String?
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        var body: [[UInt8]] = []
        /// Where the bytes of a good answer go.
        var sink = HTTPSink.bytes(limit: 1 << 20)
        /// What is tried, for messages, such as `could not store object "a/b"`.
        var attempt: String
    }

    /// An answer: good, or one that says why not.
    enum Answer {
        case good(HTTPResponse)
        case failure(S3Failure)
    }

    /// Sends the request. Throws where there is no answer at all.
    func send(_ request: Request) throws(KedgeError) -> Answer {
        var hasRenewed = false
        // Each of the three lessons may come once.
        for _ in 0..<3 {
            let (answer, credentials) = try sendOnce(request)
            guard case .failure(let failure) = answer else { return answer }
            if failure.areCredentialsStale {
                guard !hasRenewed, try settings.credentials.renew(credentials, at: now) else { return answer }
                hasRenewed = true
            } else {
                guard learn(from: failure) else { return answer }
            }
        }
        return try sendOnce(request).answer
    }

    /// By the store's clock, as far as it is known.
    var now: Timestamp { settings.time.now().adding(seconds: state.update { $0.clockOffset }) }

    /// The same for callers to whom every other answer is an error.
    func expect(_ request: Request) throws(KedgeError) -> HTTPResponse {
        switch try send(request) {
        case .good(let response): return response
        case .failure(let failure): throw failure.error(request.attempt, location: location.description)
        }
    }

    /// Whether the failure says how to ask right.
    private func learn(from failure: S3Failure) -> Bool {
        if failure.isClockSkew, let date = failure.date {
            let offset = (date.microseconds - settings.time.now().microseconds) / 1_000_000
            return state.update { state in
                // Asking again with the same clock would give the same answer.
                guard abs(offset - state.clockOffset) > 1 else { return false }
                state.clockOffset = offset
                return true
            }
        }
        if failure.isOtherRegion, let region = failure.region {
            return state.update { state in
                guard !state.hasMoved, region != state.location.region, let moved = state.location.moved(to: region)
                else { return false }
                state.location = moved
                state.hasMoved = true
                return true
            }
        }
        return false
    }

    private func sendOnce(
        _ request: Request
    ) throws(KedgeError) -> (answer: Answer, credentials: S3Credentials) {
        try settings.interruption.checkpoint()
        let (http, credentials) = try signed(request)
        let connection = try takeConnection(request)
        let response: HTTPResponse
        do throws(HTTPFailure) {
            response = try connection.value.perform(http, into: request.sink, unless: settings.interruption)
        } catch {
            // The connection is not kept: nobody knows what is still on the way.
            if error.kind == .interrupted { try settings.interruption.checkpoint() }
            throw error.error(request.attempt, location: location.description)
        }
        state.update { $0.idle.append(connection) }
        guard (200..<300).contains(response.status) else {
            return (.failure(S3Failure(response, body: response.errorBody)), credentials)
        }
        // Whoever stands between us and the store may answer everything with 200 and a page for people. Some stores
        // call their XML that as well, or an answer without a body.
        let type = response.header("content-type") ?? ""
        let isPage = type.lowercased().hasPrefix("text/html") && response.bodyBytes > 0
        guard !isPage || response.body.starts(with: Array("<?xml".utf8)) else {
            throw noStore(request.attempt, "status \(response.status) and a web page")
        }
        return (.good(response), credentials)
    }

    /// The error of an answer that no object store gives; `what` came.
    func noStore(_ attempt: String, _ what: String) -> KedgeError {
        KedgeError(
            .repositoryUnavailable, attempt,
            detail: "What answered for \(location.description) is no S3 server: \(what) came.",
            hint: "Check the endpoint, and what lies on the way to it: a proxy, or a network that asks for a login.")
    }

    private func takeConnection(_ request: Request) throws(KedgeError) -> PooledConnection {
        if let idle = state.update({ $0.idle.popLast() }) { return idle }
        var options = HTTPOptions()
        options.trustFile = settings.trustFile
        options.connectSeconds = settings.patience.connectSeconds
        options.stallSeconds = settings.patience.stallSeconds
        do throws(HTTPFailure) {
            return PooledConnection(try HTTPConnection(options))
        } catch {
            throw error.error(request.attempt, location: location.description)
        }
    }

    private func signed(
        _ request: Request
    ) throws(KedgeError) -> (request: HTTPRequest, credentials: S3Credentials) {
        let (location, offset) = state.update { ($0.location, $0.clockOffset) }
        let moment = settings.time.now().adding(seconds: offset)
        let credentials = try settings.credentials.credentials(at: moment)
        var headers = request.headers
        // TLS guards the body on its way; without it the signature has to.
        let isGuarded = location.scheme == "https" && !request.body.isEmpty
        let hash = isGuarded ? "UNSIGNED-PAYLOAD" : try RequestHashing.sha256(request.body).hexText
        if request.method == .put || request.method == .post {
            // The store's doctor sends a wrong one.
            if !headers.contains(where: { $0.name == "Content-MD5" }) {
                headers.append(("Content-MD5", try RequestHashing.md5(request.body).base64Text))
            }
            headers.append(("Content-Type", "application/octet-stream"))
        }
        headers.append(("Host", location.host))
        headers.append(("x-amz-content-sha256", hash))
        headers.append(("x-amz-date", S3SignedRequest.timeText(moment)))
        if let token = credentials.sessionToken {
            headers.append(("x-amz-security-token", String(decoding: token.bytes, as: UTF8.self)))
        }
        let signed = S3SignedRequest(
            method: request.method.rawValue, path: location.path(of: request.key), query: request.query,
            headers: headers, payloadHash: hash)
        headers.append(
            ("Authorization", try signed.authorization(by: credentials, region: location.region, at: moment)))
        let query = signed.queryText
        let url = "\(location.scheme)://\(location.host)\(signed.path)\(query.isEmpty ? "" : "?" + query)"
        return (HTTPRequest(request.method, url: url, headers: headers, body: request.body), credentials)
    }
}

/// A connection that is used by the one thread that took it: that is why `@unchecked Sendable` is true.
private final class PooledConnection: @unchecked Sendable {
    let value: HTTPConnection

    init(_ value: consuming HTTPConnection) { self.value = value }
}

// Credentials of the role of the virtual machine that kedge runs on: version 2 of the instance metadata service (Amazon
// EC2 user guide, "Use the Instance Metadata Service to access instance metadata").
//
//   PUT  /latest/api/token                                       a token, for some hours
//   GET  /latest/meta-data/iam/security-credentials/             the role's name
//   GET  /latest/meta-data/iam/security-credentials/ROLE         credentials and when they expire
//
// Version 1, which hands credentials to whoever can make this host send a GET, is not spoken. No proxy is asked.

import Curl
package import KedgeCore
import Synchronization

/// Reads the credentials of an instance's role.
package final class InstanceMetadata: Sendable {
    private struct Token {
        let text: String
        /// By the monotonic clock, in nanoseconds.
        let end: UInt64
    }

    private let endpoint: String
    private let time: any TimeSource
    private let interruption: Interruption
    private let patience: S3ClientSettings.Patience
    private let token = Mutex<Token?>(nil)

    /// The service's own address (the same on every instance).
    package static let standardEndpoint = "http://169.254.169.254"
    /// How long a token is asked for: six hours, the most that there is.
    private static let tokenSeconds: UInt64 = 21_600
    private static let limit = 64 << 10

    /// `endpoint` is `http://HOST[:PORT]`.
    package init(
        endpoint: String = standardEndpoint, time: any TimeSource, interruption: Interruption,
        patience: S3ClientSettings.Patience = .init(connectSeconds: 2, stallSeconds: 5)
    ) {
        var endpoint = endpoint
        while endpoint.hasSuffix("/") { endpoint.removeLast() }
        self.endpoint = endpoint
        self.time = time
        self.interruption = interruption
        self.patience = patience
    }

    /// The present credentials of the role. Throws `configuration` where the instance has none or speaks only version
    /// 1, `repository-unavailable` or `timeout` where the service does not answer.
    package func credentials() throws(KedgeError) -> S3Credentials {
        let connection = try connect()
        let path = "/latest/meta-data/iam/security-credentials/"
        let roles = try get(path, connection)
        let role = String(decoding: roles.prefix { $0 != 0x0A && $0 != 0x0D }, as: UTF8.self)
        // The name becomes part of a path.
        guard !role.isEmpty, role.utf8.allSatisfy(isRoleByte) else { throw noRole() }
        return try InstanceMetadata.parse(try get(path + role, connection), role: role)
    }

    /// The answer of the service. Throws `repository-unavailable` for what is no such answer.
    package static func parse(_ bytes: [UInt8], role: String) throws(KedgeError) -> S3Credentials {
        let what = "credentials of role \"\(role)\""
        do throws(KedgeError) {
            let record = try JSONRecord(parsing: bytes, what: what)
            let code = try record.optionalString("Code") ?? "Success"
            guard code == "Success" else {
                throw KedgeError(
                    .repositoryUnavailable, "could not get \(what)", detail: "The service says \(code.prefix(100)).",
                    hint: "Look at the instance profile and its role.")
            }
            let end = try record.string("Expiration")
            guard let expires = Timestamp(record: String(end.prefix(19)) + "Z") else {
                throw KedgeError(.damaged, "", detail: "Its member \"Expiration\" is no time.")
            }
            return S3Credentials(
                accessKeyID: try record.string("AccessKeyId"),
                secretAccessKey: Secret(Array(try record.string("SecretAccessKey").utf8)),
                sessionToken: Secret(Array(try record.string("Token").utf8)), expires: expires)
        } catch {
            guard error.code == .damaged else { throw error }
            // The parser's words may quote what must not be shown; a member's name may be.
            throw KedgeError(
                .repositoryUnavailable, "could not read the \(what)",
                detail: "What the instance metadata service sent is not what it documents.",
                hint: "Check that nothing else answers at its address.")
        }
    }

    // MARK: - Requests

    private func connect() throws(KedgeError) -> HTTPConnection {
        var options = HTTPOptions()
        options.connectSeconds = patience.connectSeconds
        options.stallSeconds = patience.stallSeconds
        options.usesProxy = false
        do throws(HTTPFailure) {
            return try HTTPConnection(options)
        } catch {
            throw failure(error, waits: false)
        }
    }

    private func get(_ path: String, _ connection: borrowing HTTPConnection) throws(KedgeError) -> [UInt8] {
        // A token may end before its time, when the instance is started anew.
        for isLast in [false, true] {
            let header = ("X-aws-ec2-metadata-token", try validToken(connection))
            let response = try send(
                HTTPRequest(.get, url: endpoint + path, headers: [header]), connection, waits: false)
            switch response.status {
            case 200: return response.body
            case 401 where !isLast: token.withLock { $0 = nil }
            case 404: throw noRole()
            default: throw refusal(response, "GET \(path)")
            }
        }
        throw noRole()
    }

    private func validToken(_ connection: borrowing HTTPConnection) throws(KedgeError) -> String {
        let now = time.monotonicNanoseconds()
        if let kept = token.withLock({ $0 }), now < kept.end { return kept.text }
        let ttl = ("X-aws-ec2-metadata-token-ttl-seconds", String(InstanceMetadata.tokenSeconds))
        let response = try send(
            HTTPRequest(.put, url: endpoint + "/latest/api/token", headers: [ttl]), connection, waits: true)
        guard response.status == 200 else {
            // Whoever knows only version 1 has no such path.
            guard ![404, 405].contains(response.status) else { throw onlyVersion1(response.status) }
            throw refusal(response, "PUT /latest/api/token")
        }
        let text = String(decoding: response.body, as: UTF8.self)
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw refusal(response, "PUT /latest/api/token")
        }
        let granted = response.header("x-aws-ec2-metadata-token-ttl-seconds").flatMap { UInt64($0) }
        let seconds = min(granted ?? InstanceMetadata.tokenSeconds, InstanceMetadata.tokenSeconds)
        // Given up a little early, so that it does not end on its way.
        let kept = Token(text: text, end: now + (seconds > 60 ? seconds - 30 : seconds / 2) * 1_000_000_000)
        token.withLock { $0 = kept }
        return text
    }

    private func send(
        _ request: HTTPRequest, _ connection: borrowing HTTPConnection, waits: Bool
    ) throws(KedgeError) -> HTTPResponse {
        do throws(HTTPFailure) {
            return try connection.perform(
                request, into: .bytes(limit: InstanceMetadata.limit), unless: interruption)
        } catch {
            throw failure(error, waits: waits)
        }
    }

    // MARK: - Errors

    private static let attempt = "could not get credentials from the instance metadata service"

    /// `waits`: the answer is one that gets lost where the service allows one network hop only.
    private func failure(_ failure: HTTPFailure, waits: Bool) -> KedgeError {
        let error = failure.error(InstanceMetadata.attempt, location: endpoint)
        guard [.timedOut, .disconnected].contains(failure.kind) else { return error }
        let hops =
            waits && failure.kind == .timedOut
            ? " In a container the answer gets lost unless the instance allows two hops "
                + "(HttpPutResponseHopLimit)." : ""
        return KedgeError(
            error.code, error.message, detail: (error.detail ?? "") + hops,
            hint: "No other credentials were found.  Set access-key-id-file and secret-access-key-file, or run this on "
                + "an instance with a role.")
    }

    private func refusal(_ response: HTTPResponse, _ request: String) -> KedgeError {
        KedgeError(
            response.status >= 500 || response.status == 429 ? .repositoryUnavailable : .permission,
            InstanceMetadata.attempt, detail: "\(endpoint) answered \(response.status) to \(request).",
            hint: "Look at the instance's metadata options: the service must be on, and version 2 allowed.")
    }

    private func onlyVersion1(_ status: Int) -> KedgeError {
        KedgeError(
            .configuration, InstanceMetadata.attempt,
            detail: "\(endpoint) answered \(status) to PUT /latest/api/token: it knows only version 1 of the protocol, "
                + "which gives credentials to whoever can make this host send a request.",
            hint: "Enable version 2 on the instance (HttpTokens), or set access-key-id-file and "
                + "secret-access-key-file.")
    }

    private func noRole() -> KedgeError {
        KedgeError(
            .configuration, InstanceMetadata.attempt, detail: "The instance has no role.",
            hint: "Attach an instance profile, or set access-key-id-file and secret-access-key-file.")
    }
}

/// Of the names of roles (IAM user guide, "IAM and AWS STS quotas").
private func isRoleByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
    default: "+=,.@_-".utf8.contains(byte)
    }
}

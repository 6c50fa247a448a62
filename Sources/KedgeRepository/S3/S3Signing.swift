// Signature version 4 as pure functions (Amazon S3 API reference, "Authenticating Requests: Using the Authorization
// Header"). Its own, because libcurl's neither sends the hash of the body nor sorts the query.

import KedgeCodec
package import KedgeCore

/// Who signs.
package struct S3Credentials: Sendable {
    package let accessKeyID: String
    package let secretAccessKey: Secret
    /// Of temporary credentials.
    package let sessionToken: Secret?
    /// When they end; nil: never.
    package let expires: Timestamp?

    package init(
        accessKeyID: String, secretAccessKey: Secret, sessionToken: Secret? = nil, expires: Timestamp? = nil
    ) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.expires = expires
    }

    /// Whether both sign the same way.
    package func signsLike(_ other: S3Credentials) -> Bool {
        accessKeyID == other.accessKeyID && secretAccessKey.bytes == other.secretAccessKey.bytes
            && sessionToken?.bytes == other.sessionToken?.bytes
    }
}

/// A request as it is signed. Names and values of the query are not escaped yet.
package struct S3SignedRequest: Sendable {
    package var method: String
    /// Escaped, as it is sent.
    package var path: String
    package var query: [(name: String, value: String)]
    /// All that are sent, the host among them.
    package var headers: [(name: String, value: String)]
    /// SHA-256 of the body in hexadecimal digits, or a word that stands for one.
    package var payloadHash: String

    package init(
        method: String, path: String, query: [(name: String, value: String)],
        headers: [(name: String, value: String)], payloadHash: String
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.payloadHash = payloadHash
    }

    /// The query as it is sent: escaped, sorted by name, then by value.
    package var queryText: String {
        query.map { (S3Escaping.text($0.name), S3Escaping.text($0.value)) }
            .sorted { ($0.0, $0.1) < ($1.0, $1.1) }
            .map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    private var sortedHeaders: [(name: String, value: String)] {
        headers.map { ($0.name.lowercased(), $0.value.withSingleSpaces) }.sorted { $0.name < $1.name }
    }

    private var signedNames: String { sortedHeaders.map(\.name).joined(separator: ";") }

    private var canonicalText: String {
        let lines = sortedHeaders.map { "\($0.name):\($0.value)\n" }.joined()
        return "\(method)\n\(path)\n\(queryText)\n\(lines)\n\(signedNames)\n\(payloadHash)"
    }

    /// The value of the `Authorization` header. The headers must hold `x-amz-date` with the same moment. Throws
    /// `defect`.
    package func authorization(
        by credentials: S3Credentials, region: String, at moment: Timestamp
    ) throws(KedgeError) -> String {
        let time = S3SignedRequest.timeText(moment)
        let day = String(time.prefix(8))
        let scope = "\(day)/\(region)/s3/aws4_request"
        let hash = try RequestHashing.sha256([Array(canonicalText.utf8)]).hexText
        var key = Array("AWS4".utf8) + credentials.secretAccessKey.bytes
        for part in [day, region, "s3", "aws4_request"] {
            key = try RequestHashing.hmacSHA256(Array(part.utf8), key: key)
        }
        let text = "AWS4-HMAC-SHA256\n\(time)\n\(scope)\n\(hash)"
        let signature = try RequestHashing.hmacSHA256(Array(text.utf8), key: key).hexText
        return "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope),SignedHeaders=\(signedNames),"
            + "Signature=\(signature)"
    }

    /// `20130524T000000Z`: the value of `x-amz-date`.
    package static func timeText(_ moment: Timestamp) -> String { moment.labelText }
}

extension String {
    /// Without spaces around it, and with one space where there are several.
    fileprivate var withSingleSpaces: String { split(separator: " ").joined(separator: " ") }
}

extension [UInt8] {
    /// Two lower-case hexadecimal digits a byte.
    var hexText: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// Base 64 (RFC 4648) with padding.
    package var base64Text: String {
        let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        for start in stride(from: 0, to: count, by: 3) {
            let group = (0..<3).map { start + $0 < count ? UInt32(self[start + $0]) : 0 }
            let bits = group[0] << 16 | group[1] << 8 | group[2]
            let size = Swift.min(3, count - start)
            for index in 0..<4 {
                text.append(index <= size ? digits[Int(bits >> (18 - 6 * UInt32(index)) & 63)] : 0x3D)
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}

// What a store's answer means, as a pure function: which of our errors, and whether to try again.

import Curl
import Expat
package import KedgeCore

/// An answer that is not what was asked for.
package struct S3Failure: Sendable {
    /// The HTTP status.
    package let status: Int
    /// The store's own word, such as `NoSuchKey`; nil where the answer has none (answers to HEAD, proxies).
    package let code: String?
    package let message: String?
    /// What the store's operator finds the request by.
    package let requestID: String?
    /// Where the store says that the bucket lies elsewhere.
    package let region: String?
    /// The store's clock when it answered.
    package let date: Timestamp?

    init(_ response: HTTPResponse, body: [UInt8]) {
        status = response.status
        let element = S3Failure.parse(body)
        code = element?.text(of: "Code")
        message = element?.text(of: "Message")
        requestID = response.header("x-amz-request-id") ?? element?.text(of: "RequestId")
        region = response.header("x-amz-bucket-region") ?? element?.text(of: "Region")
        date = response.header("date").flatMap { HTTPDate.parse($0) }
    }

    package init(
        status: Int, code: String?, message: String? = nil, requestID: String? = nil, region: String? = nil,
        date: Timestamp? = nil
    ) {
        self.status = status
        self.code = code
        self.message = message
        self.requestID = requestID
        self.region = region
        self.date = date
    }

    private static func parse(_ body: [UInt8]) -> XMLElement? {
        do throws(KedgeError) {
            let root = try XMLElement.parse(body, what: "an error")
            return root.name == "Error" ? root : nil
        } catch {
            // No words from the store, only its status: a proxy answered, or it was a HEAD.
            return nil
        }
    }

    /// The store itself says that there is no such object. A bare 404 does not: a proxy may have said it.
    var isAbsentObject: Bool { status == 404 && code == "NoSuchKey" }

    /// The name is taken (a conditional put).
    var isTaken: Bool { status == 412 || code == "PreconditionFailed" }

    var isOutOfRange: Bool { status == 416 }

    /// The store does not know these credentials any more, or never did: others may have taken their place.
    var areCredentialsStale: Bool {
        ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidAccessKeyId"].contains(code ?? "")
    }

    var isClockSkew: Bool { code == "RequestTimeTooSkewed" }

    var isOtherRegion: Bool {
        [301, 307, 308].contains(status) || code == "AuthorizationHeaderMalformed" || code == "PermanentRedirect"
    }

    /// The error for users. `attempt` is what was tried, such as `could not store object "a/b"`.
    func error(_ attempt: String, location: String) -> KedgeError {
        let (code, hint) = meaning
        var words = "\(location) answered \(status)"
        if let own = self.code { words += " \(own)" }
        if let message, !message.isEmpty { words += ": \(message.prefix(300))" }
        if words.last != "." { words += "." }
        if let requestID { words += " Its request id is \(requestID)." }
        return KedgeError(code, attempt, detail: words, hint: hint)
    }

    /// Codes: Amazon S3 API reference, "Error Responses". Nothing here is retried for 403 and 404.
    private var meaning: (ErrorCode, hint: String) {
        switch code {
        case "NoSuchBucket":
            return (.configuration, "Create the bucket, or correct the key bucket; kedge never creates one.")
        case "AccessDenied":
            return (.permission, "Let these credentials read, write, list and remove objects of this bucket.")
        case "InvalidAccessKeyId", "SignatureDoesNotMatch":
            return (.permission, "Check the access key id and the secret access key; one of them is not the store's.")
        case "RequestTimeTooSkewed":
            return (.repositoryUnavailable, "Set this host's clock: it differs too much from the store's.")
        case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
            return (.repositoryUnavailable, "The temporary credentials have expired: provide new ones.")
        case "BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable",
            "OperationAborted", "ConditionalRequestConflict", "XAmzContentSHA256Mismatch":
            return (.repositoryUnavailable, S3Failure.laterHint)
        case "QuotaExceeded", "EntityTooLarge", "InsufficientStorage":
            return (.noSpace, "Make room in the store, or raise its quota.")
        case "InvalidStorageClass":
            return (.configuration, "Correct the key storage-class: the store does not know this one.")
        default: break
        }
        switch status {
        case 408, 409, 425, 429, 500...599:
            return status == 507
                ? (.noSpace, "Make room in the store, or raise its quota.")
                : (.repositoryUnavailable, S3Failure.laterHint)
        case 401, 403:
            return (.permission, "Let these credentials read, write, list and remove objects of this bucket.")
        case 301, 307, 308:
            return (.configuration, "Correct the keys endpoint and region: the bucket lies elsewhere.")
        case 404:
            return (
                .repositoryUnavailable,
                "Check the endpoint: something that is no object store, such as a proxy, may have answered."
            )
        default:
            return (.inputOutput, "Look the code up in the store's manual; its log knows the request.")
        }
    }

    static let laterHint = "Look at the store's own status; kedge tries again by itself where a command allows it."
}

extension HTTPFailure {
    /// The error for users of a request that got no answer.
    func error(_ attempt: String, location: String) -> KedgeError {
        switch kind {
        case .libraryMissing:
            KedgeError(
                .configuration, attempt, detail: "libcurl can't be loaded: \(message).",
                hint: "Install Debian's package libcurl4.")
        case .untrusted:
            KedgeError(
                .permission, attempt, detail: "The certificate of \(location) is not trusted: \(message).",
                hint: "Give the certificate of the authority that signed it with the key ca-file.")
        case .timedOut:
            KedgeError(
                .timeout, attempt, detail: "\(location) did not move on: \(message).", hint: S3Failure.laterHint)
        case .disconnected:
            KedgeError(
                .repositoryUnavailable, attempt, detail: "\(location) can't be reached: \(message).",
                hint: "Check the endpoint, the network and proxies.")
        case .tooLong:
            // Nothing that is stored is damaged: whatever answered, it was not asked for that.
            KedgeError(
                .repositoryUnavailable, attempt,
                detail: "What answered for \(location) sent more bytes than were asked for.",
                hint: "Check the endpoint and what lies on the way to it; a store that ignores ranges can't be used.")
        case .interrupted:
            KedgeError(
                .interrupted, attempt, detail: "Somebody asked kedge to stop.", hint: "Run the command again.")
        }
    }
}

/// Dates of HTTP headers: `Fri, 24 May 2013 00:00:00 GMT` (RFC 9110, section 5.6.7).
package enum HTTPDate {
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// Nil for any other form.
    package static func parse(_ text: String) -> Timestamp? {
        let words = text.split(whereSeparator: { $0 == " " || $0 == ":" || $0 == "," })
        guard words.count == 8, words[7] == "GMT", let month = months.firstIndex(where: { $0 == words[2] }),
            let day = Int(words[1]), let year = Int(words[3]), let hour = Int(words[4]), let minute = Int(words[5]),
            let second = Int(words[6]), (1...31).contains(day), (1970...9999).contains(year),
            (0..<24).contains(hour), (0..<60).contains(minute), (0...60).contains(second)
        else { return nil }
        let days = CivilDate.days(year: year, month: month + 1, day: day)
        return Timestamp(secondsSince1970: days * 86400 + Int64(hour * 3600 + minute * 60 + second))
    }
}

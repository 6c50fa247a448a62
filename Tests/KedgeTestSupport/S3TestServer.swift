// Real object stores, which scripts/testing/object-stores.sh starts.
import Glibc
package import KedgeCore
package import KedgeRepository

/// An object store that tests may write to.
package struct S3TestServer: Sendable, CustomStringConvertible {
    package let name: String
    package let endpoint: String
    package let region: String
    package let bucket: String
    package let accessKeyID: String
    package let secretAccessKey: String
    /// Whether it honours conditional puts.
    package let hasConditionalPut: Bool
    /// The same store over TLS, with a certificate of its own authority.
    package let secureEndpoint: String
    package let trustFile: String

    package var description: String { name }

    /// What KEDGE_TEST_S3 lists, a line each; empty where tests of object stores are left out.
    package static let all: [S3TestServer] = {
        guard let text = getenv("KEDGE_TEST_S3").map({ String(cString: $0) }) else { return [] }
        return text.split(separator: "\n").compactMap { S3TestServer(line: $0) }
    }()

    private init?(line: Substring) {
        let words = line.split(separator: " ").map { String($0) }
        guard words.count == 9 else { return nil }
        (name, endpoint, region, bucket) = (words[0], words[1], words[2], words[3])
        (accessKeyID, secretAccessKey) = (words[4], words[5])
        hasConditionalPut = words[6] == "yes"
        (secureEndpoint, trustFile) = (words[7], words[8])
    }

    /// How a test reaches the store.
    package struct Access: Sendable {
        package var isSecure = false
        package var bucket: String?
        package var prefix = "tests"
        package var endpoint: String?
        package var uriStyle = S3Location.URIStyle.path
        package var secretAccessKey: String?
        package var trustFile: String?
        package var time: any TimeSource = SystemTimeSource()
        package var interruption = Interruption()

        package init() {}
    }

    /// A store below a prefix, without retries.
    package func store(_ access: Access = Access()) throws(KedgeError) -> S3Store {
        S3Store(try settings(access), conditionalPut: hasConditionalPut, partBytes: 5 << 20)
    }

    /// What a store is made from.
    package func settings(_ access: Access = Access()) throws(KedgeError) -> S3ClientSettings {
        let location = try S3Location(
            endpoint: access.endpoint ?? (access.isSecure ? secureEndpoint : endpoint), region: region,
            bucket: access.bucket ?? bucket, prefix: access.prefix, uriStyle: access.uriStyle)
        let credentials = S3Credentials(
            accessKeyID: accessKeyID, secretAccessKey: Secret(Array((access.secretAccessKey ?? secretAccessKey).utf8)))
        return S3ClientSettings(
            location: location, credentials: FixedCredentials(credentials: credentials),
            trustFile: access.trustFile ?? (access.isSecure ? trustFile : nil), time: access.time,
            interruption: access.interruption)
    }

    /// A name that no other test uses.
    package func newDirectory() -> ObjectName {
        let id = RandomID(from: SystemRandomSource()).hex
        guard let name = ObjectName("t-\(id)") else { preconditionFailure("a random id is part of a name") }
        return name
    }
}

/// The same for ever.
private struct FixedCredentials: S3CredentialSource {
    let credentials: S3Credentials

    func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials { credentials }
}

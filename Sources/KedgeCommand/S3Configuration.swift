// A repository of type s3 as it is configured, and where its credentials come from.
//
// 1. Credentials are looked for in this order: the two files that the configuration names, the environment
//    (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), the profile AWS_PROFILE (else "default") of the
//    file AWS_SHARED_CREDENTIALS_FILE (else ~/.aws/credentials). The first place that has some is used, and only that
//    one.
// 2. They are read at the first request and never printed.
import KedgeCore
package import KedgeRepository
import Synchronization

/// Where a repository of type s3 lies and how it is reached.
package struct S3Configuration: Sendable {
    package let location: S3Location
    /// PEM file of the certificates to trust; nil: those of the host.
    package let trustFile: String?
    package let storageClass: String?
    /// Whether the store honours conditional puts.
    package let conditionalPut: Bool
    package let keyFiles: KeyFiles?

    /// The files that hold the two halves of the credentials, one line each.
    package struct KeyFiles: Hashable, Sendable {
        package let accessKeyID: String
        package let secretAccessKey: String
    }

    /// Keys that mean nothing for a directory, apart from those that have a default.
    static let ownKeys = [
        "endpoint", "region", "bucket", "prefix", "access-key-id-file", "secret-access-key-file", "ca-file",
        "storage-class",
    ]

    /// The values of a section. Throws `configuration`.
    init(_ section: LayeredSection, path file: String) throws(KedgeError) {
        let region = section.text("region") ?? "us-east-1"
        let bucket = try section.requiredText(
            "bucket", why: "kedge must know which bucket the repository is in", example: "backups", file)
        let uriStyle = section.text("uri-style").flatMap { S3Location.URIStyle(rawValue: $0) } ?? .path
        do throws(KedgeError) {
            location = try S3Location(
                endpoint: section.text("endpoint") ?? "https://s3.\(region).amazonaws.com", region: region,
                bucket: bucket, prefix: section.text("prefix") ?? "", uriStyle: uriStyle)
        } catch {
            throw ConfigurationFile.error(
                file, section.line, "[repository \(section.name)]: \(error.message)", hint: error.hint ?? "")
        }
        trustFile = section.text("ca-file")
        storageClass = section.text("storage-class")
        conditionalPut = section.flag("conditional-put")
        switch (section.text("access-key-id-file"), section.text("secret-access-key-file")) {
        case (nil, nil): keyFiles = nil
        case (let id?, let secret?): keyFiles = KeyFiles(accessKeyID: id, secretAccessKey: secret)
        default:
            throw ConfigurationFile.error(
                file, section.line,
                "[repository \(section.name)] has one of access-key-id-file and secret-access-key-file",
                hint: "Give both, or neither to take the credentials from the environment or ~/.aws/credentials.")
        }
    }
}

/// Reads credentials from where the configuration and the environment say, and keeps them.
final class S3CredentialReader: S3CredentialSource {
    private let keyFiles: S3Configuration.KeyFiles?
    private let environment: [EnvironmentVariable]
    private let secrets: SecretReader
    private let fileExists: @Sendable (String) -> Bool
    private let kept = Mutex<S3Credentials?>(nil)

    init(
        _ keyFiles: S3Configuration.KeyFiles?, environment: [EnvironmentVariable], secrets: SecretReader,
        fileExists: @escaping @Sendable (String) -> Bool
    ) {
        self.keyFiles = keyFiles
        self.environment = environment
        self.secrets = secrets
        self.fileExists = fileExists
    }

    /// Throws `configuration` where there are none, `key-unsafe` where others can read a file of ours.
    func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials {
        if let credentials = kept.withLock({ $0 }) { return credentials }
        let credentials = try find()
        kept.withLock { $0 = credentials }
        return credentials
    }

    private func find() throws(KedgeError) -> S3Credentials {
        if let keyFiles {
            let id = try secrets.line(of: keyFiles.accessKeyID, "access key id file")
            return S3Credentials(
                accessKeyID: String(decoding: id.bytes, as: UTF8.self),
                secretAccessKey: try secrets.line(of: keyFiles.secretAccessKey, "secret access key file"))
        }
        if let id = variable("AWS_ACCESS_KEY_ID"), let secret = variable("AWS_SECRET_ACCESS_KEY") {
            return S3Credentials(
                accessKeyID: id, secretAccessKey: Secret(Array(secret.utf8)),
                sessionToken: variable("AWS_SESSION_TOKEN").map { Secret(Array($0.utf8)) })
        }
        let path = variable("AWS_SHARED_CREDENTIALS_FILE") ?? variable("HOME").map { $0 + "/.aws/credentials" }
        guard let path, fileExists(path) else {
            throw KedgeError(
                .configuration, "could not find credentials for the object store",
                detail: "No files are configured, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and there "
                    + "is no \(path ?? "~/.aws/credentials").",
                hint: "Set access-key-id-file and secret-access-key-file in the configuration: PostgreSQL runs the "
                    + "archive commands with its own environment.")
        }
        let bytes = try secrets.secretFile(path, "credentials file")
        return try S3CredentialReader.parse(bytes, profile: variable("AWS_PROFILE") ?? "default", path: path)
    }

    private func variable(_ name: String) -> String? {
        environment.first { $0.name == name && !$0.value.isEmpty }?.value
    }

    /// The credentials of a profile in a file with `[profile]` sections and `key = value` lines (AWS SDKs and Tools
    /// Reference Guide, "Using shared config and credentials files"). Throws `configuration`.
    static func parse(_ bytes: [UInt8], profile: String, path: String) throws(KedgeError) -> S3Credentials {
        var section: String?
        var values: [String: String] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline) {
            let text = line.trimmingSpaces
            if text.hasPrefix("#") || text.hasPrefix(";") { continue }
            if text.hasPrefix("["), text.hasSuffix("]") {
                section = String(text.dropFirst().dropLast().trimmingSpaces)
            } else if section == profile, let equals = text.firstIndex(of: "=") {
                values[text[..<equals].trimmingSpaces.lowercased()] =
                    String(text[text.index(after: equals)...].trimmingSpaces)
            }
        }
        guard let id = values["aws_access_key_id"], let secret = values["aws_secret_access_key"] else {
            throw KedgeError(
                .configuration, "could not find credentials for the object store in \"\(path)\"",
                detail: "Its profile \"\(profile)\" has no aws_access_key_id and aws_secret_access_key.",
                hint: "Add them, or choose another profile with AWS_PROFILE.")
        }
        return S3Credentials(
            accessKeyID: id, secretAccessKey: Secret(Array(secret.utf8)),
            sessionToken: values["aws_session_token"].map { Secret(Array($0.utf8)) })
    }
}

extension StringProtocol {
    /// Without spaces and tabs around it.
    fileprivate var trimmingSpaces: SubSequence {
        func isSpace(_ character: Character) -> Bool { character == " " || character == "\t" || character == "\r" }
        let start = firstIndex { !isSpace($0) } ?? endIndex
        guard start < endIndex, let last = lastIndex(where: { !isSpace($0) }) else { return self[endIndex...] }
        return self[start...last]
    }
}

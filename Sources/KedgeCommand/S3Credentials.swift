// Where the credentials for an object store come from.
//
// 1. They are looked for in this order: the two files that the configuration names; the environment (AWS_ACCESS_KEY_ID,
//    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN); the profile AWS_PROFILE (else "default") of the file
//    AWS_SHARED_CREDENTIALS_FILE (else ~/.aws/credentials), then of AWS_CONFIG_FILE (else ~/.aws/config); the role of
//    the instance, unless AWS_EC2_METADATA_DISABLED is true. The first place that has some is used, and only that one.
// 2. They are read at the first request, again before they expire, and again when the store calls them expired. They
//    are never printed.
import KedgeCore
import KedgeRepository

/// Reads credentials from where the configuration and the environment say, and keeps them until they expire.
final class S3CredentialReader: S3CredentialSource {
    private let keyFiles: S3Configuration.KeyFiles?
    private let environment: [EnvironmentVariable]
    private let secrets: SecretReader
    private let fileExists: @Sendable (String) -> Bool
    private let metadata: InstanceMetadata?
    private let kept = Monitor(Kept())

    private struct Kept {
        var credentials: S3Credentials?
        /// One thread looks; the others wait for what it finds.
        var isLooking = false
    }

    /// Credentials that end within so many seconds are looked for again.
    static let renewalSeconds: Int64 = 300

    /// `metadata` nil: the instance is not asked.
    init(
        _ keyFiles: S3Configuration.KeyFiles?, environment: [EnvironmentVariable], secrets: SecretReader,
        fileExists: @escaping @Sendable (String) -> Bool, metadata: InstanceMetadata? = nil
    ) {
        self.keyFiles = keyFiles
        self.environment = environment
        self.secrets = secrets
        self.fileExists = fileExists
        self.metadata = metadata
    }

    /// Throws `configuration` where there are none, `key-unsafe` where others can read a file of ours, and what asking
    /// the instance throws.
    func credentials(at moment: Timestamp) throws(KedgeError) -> S3Credentials {
        func endsAfter(_ credentials: S3Credentials, _ moment: Timestamp) -> Bool {
            credentials.expires.map { $0 > moment } ?? true
        }
        let soon = moment.adding(seconds: S3CredentialReader.renewalSeconds)
        let good = kept.wait { kept -> S3Credentials?? in
            if let credentials = kept.credentials, endsAfter(credentials, soon) { return .some(credentials) }
            if kept.isLooking {
                // What still holds is good enough for those who would have to wait.
                guard let credentials = kept.credentials, endsAfter(credentials, moment) else { return nil }
                return .some(credentials)
            }
            kept.isLooking = true
            return .some(nil)
        }
        if let good { return good }
        let old = kept.update { $0.credentials }
        do throws(KedgeError) {
            return keep(try find())
        } catch {
            kept.update { $0.isLooking = false }
            // The service may be away for a while before the end has come.
            if let old, endsAfter(old, moment), error.code != .interrupted { return old }
            throw error
        }
    }

    func renew(_ refused: S3Credentials, at moment: Timestamp) throws(KedgeError) -> Bool {
        let isMine = kept.wait { kept -> Bool? in
            if let credentials = kept.credentials, !credentials.signsLike(refused) { return false }
            guard !kept.isLooking else { return nil }
            kept.isLooking = true
            return true
        }
        // Another thread was refused first, and found others.
        guard isMine else { return true }
        do throws(KedgeError) {
            return !keep(try find()).signsLike(refused)
        } catch {
            kept.update { $0.isLooking = false }
            throw error
        }
    }

    private func keep(_ found: S3Credentials) -> S3Credentials {
        kept.update { kept in
            kept.credentials = found
            kept.isLooking = false
        }
        return found
    }

    // MARK: - Places

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
        var missing: KedgeError?
        for (path, prefix) in profileFiles where fileExists(path) {
            let bytes = try secrets.secretFile(path, "credentials file")
            do throws(KedgeError) {
                return try S3CredentialReader.parse(
                    bytes, profile: variable("AWS_PROFILE") ?? "default", path: path, sectionPrefix: prefix)
            } catch {
                missing = missing ?? error
            }
        }
        // A profile that was asked for is never replaced by something else.
        if let missing, variable("AWS_PROFILE") != nil { throw missing }
        guard let metadata, variable("AWS_EC2_METADATA_DISABLED")?.lowercased() != "true" else {
            throw missing ?? nowhere
        }
        return try metadata.credentials()
    }

    /// The files of profiles, and what stands in front of the names of all profiles but "default" there.
    private var profileFiles: [(path: String, sectionPrefix: String)] {
        let home = variable("HOME")
        let credentials = variable("AWS_SHARED_CREDENTIALS_FILE") ?? home.map { $0 + "/.aws/credentials" }
        let config = variable("AWS_CONFIG_FILE") ?? home.map { $0 + "/.aws/config" }
        return [(credentials, ""), (config, "profile ")].compactMap { path, prefix in path.map { ($0, prefix) } }
    }

    private var nowhere: KedgeError {
        let path = profileFiles.first?.path ?? "~/.aws/credentials"
        return KedgeError(
            .configuration, "could not find credentials for the object store",
            detail: "No files are configured, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, there is no "
                + "\(path), and the instance metadata service is not asked.",
            hint: "Set access-key-id-file and secret-access-key-file in the configuration: PostgreSQL runs the "
                + "archive commands with its own environment.")
    }

    private func variable(_ name: String) -> String? {
        environment.first { $0.name == name && !$0.value.isEmpty }?.value
    }

    /// What a profile may have instead of keys; each needs other services or programs than the object store.
    private static let otherWays = [
        "role_arn", "credential_process", "web_identity_token_file", "sso_session", "sso_start_url",
    ]

    /// The credentials of a profile in a file with `[profile]` sections and `key = value` lines (AWS SDKs and Tools
    /// Reference Guide, "Using shared config and credentials files"). Throws `configuration`.
    static func parse(
        _ bytes: [UInt8], profile: String, path: String, sectionPrefix: String = ""
    ) throws(KedgeError) -> S3Credentials {
        let name = profile == "default" ? profile : sectionPrefix + profile
        var isOurs = false
        var values: [String: String] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline) {
            let text = line.trimmingSpaces
            if text.hasPrefix("#") || text.hasPrefix(";") { continue }
            if text.hasPrefix("["), text.hasSuffix("]") {
                isOurs = text.dropFirst().dropLast().trimmingSpaces == name
            } else if isOurs, let equals = text.firstIndex(of: "=") {
                values[text[..<equals].trimmingSpaces.lowercased()] =
                    String(text[text.index(after: equals)...].trimmingSpaces)
            }
        }
        guard let id = values["aws_access_key_id"], let secret = values["aws_secret_access_key"] else {
            let other = otherWays.first { values[$0] != nil }
            throw KedgeError(
                .configuration, "could not find credentials for the object store in \"\(path)\"",
                detail: "Its profile \"\(profile)\" has no aws_access_key_id and aws_secret_access_key"
                    + (other.map { "; \($0), which it has, is not supported." } ?? "."),
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

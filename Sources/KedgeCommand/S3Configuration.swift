// A repository of type s3 as it is configured.
import KedgeCore
package import KedgeRepository

/// Where a repository of type s3 lies and how it is reached.
package struct S3Configuration: Sendable {
    package let location: S3Location
    /// PEM file of the certificates to trust; nil: those of the host.
    package let trustFile: String?
    package let keeping: S3Keeping
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
        "storage-class", "server-side-encryption", "kms-key-id", "object-lock", "object-lock-days",
    ]

    /// How objects are to be kept. Throws `configuration` where a key has no sense without another.
    private static func keeping(_ section: LayeredSection, path file: String) throws(KedgeError) -> S3Keeping {
        func refuse(_ key: String, _ why: String, _ hint: String) -> KedgeError {
            section.error(key, "key \"\(key)\" \(why)", hint: hint, file)
        }
        let key = section.text("kms-key-id")
        let encryption: S3Keeping.Encryption?
        switch section.text("server-side-encryption") {
        case "sse-s3": encryption = .storeKeys
        case "sse-kms": encryption = .managedKey(key)
        default: encryption = nil
        }
        if key != nil, encryption != .managedKey(key) {
            throw refuse("kms-key-id", "needs server-side-encryption = sse-kms", "Add that, or remove the key.")
        }
        let mode = section.text("object-lock").flatMap { S3Keeping.Lock.Mode(rawValue: $0) }
        let days = section.integer("object-lock-days")
        var lock: S3Keeping.Lock?
        switch (mode, days) {
        case (nil, nil): break
        case (let mode?, let days?): lock = S3Keeping.Lock(mode: mode, days: Int(days))
        case (_?, nil):
            throw refuse("object-lock", "needs object-lock-days", "Say for how many days objects are locked.")
        case (nil, _?): throw refuse("object-lock-days", "needs object-lock", "Add object-lock = governance.")
        }
        return S3Keeping(storageClass: section.text("storage-class"), encryption: encryption, lock: lock)
    }

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
        keeping = try S3Configuration.keeping(section, path: file)
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

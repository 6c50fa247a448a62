// kedge.json and feature/: the plain objects that say what this repository is and what it takes to use it.

package import KedgeCore

/// What `kedge.json` says. Nothing that security rests on: whoever changes it makes the repository unreadable, no more.
package struct RepositoryIdentity: Hashable, Sendable {
    package let id: RandomID
    package let createdAt: Timestamp
    package let createdBy: String

    /// The format that this kedge writes and the only one that it reads.
    package static let format = "0-draft"

    package init(id: RandomID, createdAt: Timestamp, createdBy: String) {
        self.id = id
        self.createdAt = createdAt
        self.createdBy = createdBy
    }

    package var jsonValue: JSONValue {
        [
            "kedge": "repository", "format": .string(Self.format), "id": .string(id.hex),
            "createdAt": .string(createdAt.description), "createdBy": .string(createdBy),
        ]
    }

    /// The identity that `record` describes. Throws `damaged`, or `format-unknown` for another format.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("repository")
        let format = try record.string("format")
        guard format == Self.format else {
            throw KedgeError(
                .formatUnknown, "cannot use \(record.what): it has format \"\(format)\"",
                detail: "This kedge reads and writes format \"\(Self.format)\".",
                hint: "Use a kedge version that knows this format; Catalog/CHANGES.md lists them.")
        }
        id = try record.parsed("id") { RandomID(hex: $0) }
        createdAt = try record.parsed("createdAt") { Timestamp(record: $0) }
        createdBy = try record.string("createdBy")
    }
}

/// What an operation does to a repository, as far as features care.
package enum RepositoryUse: String, Sendable {
    case read
    case write
    case expire
}

/// Decides whether a feature that this kedge does not know forbids an operation.
package enum FeatureGate {
    /// Names of the features that this kedge knows.
    package static let known: Set<String> = []

    /// Throws `feature-unknown` if the feature that `record` describes is unknown and needed for `use`, `damaged` if
    /// the record can't be understood.
    package static func check(_ record: JSONRecord, for use: RepositoryUse) throws(KedgeError) {
        try record.expectType("feature")
        let name = try record.string("name")
        let neededTo = try record.strings("neededTo")
        guard !known.contains(name), neededTo.contains(use.rawValue) else { return }
        throw KedgeError(
            .featureUnknown, "cannot \(use.rawValue) this repository: it uses the feature \"\(name)\"",
            detail: "This kedge does not know that feature, and it is needed to \(use.rawValue).",
            hint: "Use a newer kedge.")
    }
}

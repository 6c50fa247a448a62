// What an object is and what it is called (Catalog/FORMAT.md sections 1 and 3).
package import KedgeCore

/// The kind of a sealed object; the raw value is its number in the header.
package enum ObjectKind: UInt8, Sendable, CaseIterable {
    case registration = 1
    case walFile = 2
    case pack = 3
    case manifest = 4
    case commitRecord = 5
    case intent = 6
    case condemned = 7
    case proof = 8
    case pin = 9
    case lease = 10
    case gap = 11

    /// What errors call it.
    package var noun: String {
        switch self {
        case .registration: "registration"
        case .walFile: "WAL object"
        case .pack: "pack"
        case .manifest: "manifest"
        case .commitRecord: "commit record"
        case .intent: "intent"
        case .condemned: "condemned mark"
        case .proof: "proof"
        case .pin: "pin"
        case .lease: "lease"
        case .gap: "gap record"
        }
    }
}

/// The name that an object is sealed for. It leaves out bucket, prefix and the cluster's name, so that a repository can
/// be moved or mirrored without a key.
package struct ScopedName: Hashable, Sendable {
    /// The cluster's id; for a registration the repository's.
    package let scope: RandomID
    /// The name below `<prefix>/<cluster>/`, such as `backup/20261121T020000Z-full-7k3q/manifest`.
    package let name: String

    package init(scope: RandomID, name: String) {
        self.scope = scope
        self.name = name
    }
}

// SHA-256 for the modules above, which do not see the library's owner: PostgreSQL's backup_manifest ends with one.
package import KedgeCore
import OpenSSL

/// The SHA-256 of content that comes in pieces. Belongs to one thread at a time.
package final class SHA256Hasher {
    private var stream: SHA256Stream?

    package init() throws(KedgeError) { stream = try SHA256Stream() }

    /// Adds `bytes` at the end of what it has seen. Throws `defect`.
    package func update(_ bytes: [UInt8]) throws(KedgeError) { try stream?.update(bytes) }

    /// The 32 bytes of the hash. To be called once.
    package func finish() throws(KedgeError) -> [UInt8] {
        guard let hash = try stream.take()?.finish() else { preconditionFailure("a hash is finished once") }
        return hash
    }
}

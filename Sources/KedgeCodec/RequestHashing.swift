// Hashes of requests to object stores, for the modules above, which do not see the library's owner.
package import KedgeCore
import OpenSSL

/// What a request to an object store is signed and checked with.
package enum RequestHashing {
    /// The 32 bytes of the SHA-256 hash of `pieces`, one after the other. Throws `defect`.
    package static func sha256(_ pieces: [[UInt8]]) throws(KedgeError) -> [UInt8] {
        let hasher = try SHA256Hasher()
        for piece in pieces { try hasher.update(piece) }
        return try hasher.finish()
    }

    /// The 32 bytes of HMAC-SHA-256. Throws `defect`.
    package static func hmacSHA256(_ bytes: [UInt8], key: [UInt8]) throws(KedgeError) -> [UInt8] {
        try HMACSHA256.code(bytes, key: key)
    }

    /// The 16 bytes of the MD5 hash of `pieces`, one after the other. Throws `defect`.
    package static func md5(_ pieces: [[UInt8]]) throws(KedgeError) -> [UInt8] { try MD5.hash(pieces) }
}

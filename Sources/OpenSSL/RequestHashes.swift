// The two hashes that object stores ask for besides SHA-256.
import COpenSSL
package import KedgeCore

/// HMAC with SHA-256 (RFC 2104).
package enum HMACSHA256 {
    /// The 32 bytes of the code of `bytes` under `key`. Throws `defect`.
    package static func code(_ bytes: [UInt8], key: [UInt8]) throws(KedgeError) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: 32)
        var count = 0
        let result = EVP_Q_mac(
            nil, "HMAC", nil, "SHA256", nil, key, key.count, bytes, bytes.count, &code, code.count, &count)
        guard Algorithms.setUp(), result != nil, count == code.count else {
            throw failure("could not compute an HMAC")
        }
        return code
    }
}

/// MD5 (RFC 1321): stores check what arrives with it, and some know nothing better. No security rests on it.
package enum MD5 {
    /// The 16 bytes of the hash of `pieces`, one after the other. Throws `defect`.
    package static func hash(_ pieces: [[UInt8]]) throws(KedgeError) -> [UInt8] {
        guard let algorithm = algorithm, let context = EVP_MD_CTX_new() else { throw failure("could not set up MD5") }
        defer { EVP_MD_CTX_free(context) }
        var hash = [UInt8](repeating: 0, count: 16)
        var isGood = EVP_DigestInit_ex2(context, algorithm.pointer, nil) == 1
        for piece in pieces { isGood = isGood && EVP_DigestUpdate(context, piece, piece.count) == 1 }
        guard isGood, EVP_DigestFinal_ex(context, &hash, nil) == 1 else {
            throw failure("could not compute an MD5 hash")
        }
        return hash
    }

    /// An algorithm that never changes after it was fetched: that is why `@unchecked Sendable` is true.
    private struct Fetched: @unchecked Sendable {
        let pointer: OpaquePointer
    }

    /// From a context of its own: where the host is set to FIPS the default one has no MD5 (lesson 20). Never freed.
    private static let algorithm: Fetched? = {
        guard let library = OSSL_LIB_CTX_new() else { return nil }
        return EVP_MD_fetch(library, "MD5", nil).map { Fetched(pointer: $0) }
    }()
}

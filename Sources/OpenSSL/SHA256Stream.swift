// SHA-256 of bytes that come in pieces.
//
// The context is ours from EVP_MD_CTX_new to the deinit, whatever fails in between.
import COpenSSL
package import KedgeCore

/// A hash under way.
package struct SHA256Stream: ~Copyable {
    private let context: OpaquePointer

    /// Begins a hash. Throws `defect`.
    package init() throws(KedgeError) {
        guard let algorithm = Algorithms.digest.sha256, let context = EVP_MD_CTX_new() else {
            throw failure("could not set up SHA-256")
        }
        guard EVP_DigestInit_ex2(context, algorithm, nil) == 1 else {
            EVP_MD_CTX_free(context)
            throw failure("could not begin a SHA-256 hash")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Adds `bytes` at the end of what it has seen. Throws `defect`.
    package borrowing func update(_ bytes: [UInt8]) throws(KedgeError) {
        guard EVP_DigestUpdate(context, bytes, bytes.count) == 1 else {
            throw failure("could not compute a SHA-256 hash")
        }
    }

    /// The 32 bytes of the hash of all that it has seen. Throws `defect`.
    package consuming func finish() throws(KedgeError) -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: 32)
        guard EVP_DigestFinal_ex(context, &hash, nil) == 1 else { throw failure("could not compute a SHA-256 hash") }
        return hash
    }
}

// What is set up once in a process: libcrypto without its configuration file, and the algorithms we use.
//
// Fetching an algorithm costs hundreds of microseconds and a context that names one by a legacy constant fetches it
// again each time, so each is fetched once, at its first use, and never freed.
import COpenSSL
package import KedgeCore

/// Fetched algorithms. They never change after they were fetched and libcrypto counts their users atomically, so
/// threads may share them: that is why `@unchecked Sendable` is true.
struct Algorithms: @unchecked Sendable {
    let aes256GCM: OpaquePointer?
    let sha256: OpaquePointer?
    let hkdf: OpaquePointer?

    static let cipher = Algorithms(aes256GCM: { setUp() ? EVP_CIPHER_fetch(nil, "AES-256-GCM", nil) : nil }())
    static let digest = Algorithms(sha256: { setUp() ? EVP_MD_fetch(nil, "SHA256", nil) : nil }())
    static let derivation = Algorithms(hkdf: { setUp() ? EVP_KDF_fetch(nil, "HKDF", nil) : nil }())

    private init(aes256GCM: OpaquePointer? = nil, sha256: OpaquePointer? = nil, hkdf: OpaquePointer? = nil) {
        self.aes256GCM = aes256GCM
        self.sha256 = sha256
        self.hkdf = hkdf
    }

    /// libcrypto's own set-up, which it does once however often it is asked.
    static func setUp() -> Bool { OPENSSL_init_crypto(options, nil) == 1 }

    /// Without a configuration file: what somebody writes there must not change how a repository is sealed. Without
    /// atexit: workers may still run then.
    ///
    /// The old tables of algorithms by name and the error texts take half of the set-up's time. They can be left out
    /// only where this copy of libcrypto is linked into the program: libpq's TLS needs those of a shared one. Without
    /// texts an error shows its number, which `openssl errstr` explains.
    private static var options: UInt64 {
        let always = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT
        #if PRIVATE_LIBCRYPTO
            return UInt64(
                always | OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS
                    | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS)
        #else
            return UInt64(always)
        #endif
    }
}

/// A `defect` error with what libcrypto's error queue of this thread holds, which is emptied.
func failure(_ attempt: String) -> KedgeError {
    var texts: [String] = []
    while case let code = ERR_get_error(), code != 0 {
        let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            ERR_error_string_n(code, buffer.baseAddress, buffer.count)
            return buffer.baseAddress.map { String(cString: $0) } ?? ""
        }
        texts.append(text)
    }
    return KedgeError(
        .defect, attempt, detail: texts.isEmpty ? nil : "libcrypto says: \(texts.joined(separator: "; ")).")
}

/// SHA-256 of bytes that lie in one piece.
package enum SHA256 {
    /// The 32 bytes of the hash. Throws `defect`.
    package static func hash(_ bytes: [UInt8]) throws(KedgeError) -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: 32)
        guard let algorithm = Algorithms.digest.sha256,
            EVP_Digest(bytes, bytes.count, &hash, nil, algorithm, nil) == 1
        else { throw failure("could not compute a SHA-256 hash") }
        return hash
    }
}

/// HKDF with SHA-256 (RFC 5869), extract and expand.
package enum HKDF {
    /// `count` bytes derived from `key`. Throws `defect`.
    package static func derive(
        key: [UInt8], salt: [UInt8], info: [UInt8], count: Int = 32
    ) throws(KedgeError) -> [UInt8] {
        guard let algorithm = Algorithms.derivation.hkdf, let context = EVP_KDF_CTX_new(algorithm) else {
            throw failure("could not set up HKDF")
        }
        defer { EVP_KDF_CTX_free(context) }
        var derived = [UInt8](repeating: 0, count: count)
        let result = copenssl_hkdf_sha256(
            context, key, key.count, salt, salt.count, info, info.count, &derived, derived.count)
        guard result == 1 else { throw failure("could not derive a key with HKDF") }
        return derived
    }
}

/// scrypt (RFC 7914).
package enum Scrypt {
    /// The memory that these parameters need, in bytes; nil where that overflows.
    package static func memory(n: UInt64, r: UInt64, p: UInt64) -> UInt64? {
        let (perBlock, overflow1) = r.multipliedReportingOverflow(by: 128)
        let (table, overflow2) = perBlock.multipliedReportingOverflow(by: n)
        let (lanes, overflow3) = perBlock.multipliedReportingOverflow(by: p)
        let (total, overflow4) = table.addingReportingOverflow(lanes)
        return overflow1 || overflow2 || overflow3 || overflow4 ? nil : total
    }

    /// `count` bytes derived from `passphrase`. The caller has judged the memory. Throws `defect`.
    package static func derive(
        passphrase: [UInt8], salt: [UInt8], n: UInt64, r: UInt64, p: UInt64, count: Int = 32
    ) throws(KedgeError) -> [UInt8] {
        guard Algorithms.setUp(), let memory = memory(n: n, r: r, p: p), memory < UInt64.max / 2 else {
            throw failure("could not set up scrypt")
        }
        var derived = [UInt8](repeating: 0, count: count)
        let result = passphrase.withUnsafeBufferPointer { text in
            text.withMemoryRebound(to: CChar.self) { text in
                // libcrypto refuses above 32 MiB unless told; it counts a few working blocks of 128 · r too.
                EVP_PBE_scrypt(
                    text.baseAddress, text.count, salt, salt.count, n, r, p, memory + 1024 * r + 65536, &derived,
                    count)
            }
        }
        guard result == 1 else {
            throw failure("could not derive a key with scrypt, which needs \(memory >> 20) MiB of memory")
        }
        return derived
    }
}

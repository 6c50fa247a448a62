// Owner of libcrypto's cipher contexts for AES-256-GCM, whole messages only.
import COpenSSL
package import KedgeCore

/// A cipher context for one direction that keeps its key for any number of messages.
///
/// Owns the context; deinit wipes and frees it. Give it a key before the first message.
package struct AES256GCM: ~Copyable {
    /// Which way a context works.
    package enum Direction: Sendable {
        case seal
        case open
    }

    package static let keyBytes = 32
    package static let nonceBytes = 12
    package static let tagBytes = 16

    private let context: OpaquePointer
    private let direction: Direction

    /// A context without a key. Throws `defect`.
    package init(_ direction: Direction) throws(KedgeError) {
        guard let cipher = Algorithms.cipher.aes256GCM, let context = EVP_CIPHER_CTX_new() else {
            throw failure("could not set up AES-256-GCM")
        }
        guard EVP_CipherInit_ex(context, cipher, nil, nil, nil, direction == .seal ? 1 : 0) == 1 else {
            EVP_CIPHER_CTX_free(context)
            throw failure("could not set up AES-256-GCM")
        }
        self.context = context
        self.direction = direction
    }

    deinit { EVP_CIPHER_CTX_free(context) }

    /// Uses `key` (32 bytes) from now on. Throws `defect`.
    package borrowing func setKey(_ key: [UInt8]) throws(KedgeError) {
        precondition(key.count == AES256GCM.keyBytes)
        guard EVP_CipherInit_ex(context, nil, nil, key, nil, -1) == 1 else {
            throw failure("could not set an AES-256-GCM key")
        }
    }

    /// Encrypts `text` into `out` of the same size, which may be the same memory, and writes the 16 bytes of the tag.
    /// `nonce` (12 bytes) must never have been used with this key before. Throws `defect`.
    package borrowing func seal(
        _ text: UnsafeRawBufferPointer, nonce: [UInt8], additional: [UInt8], to out: UnsafeMutableRawBufferPointer,
        tag: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        precondition(direction == .seal && tag.count == AES256GCM.tagBytes)
        guard start(nonce: nonce, additional: additional), update(text, to: out), finish(),
            copenssl_get_tag(context, tag.baseAddress, Int32(tag.count)) == 1
        else { throw failure("could not encrypt with AES-256-GCM") }
    }

    /// Decrypts `text` into `out` of the same size, which may be the same memory. Whether the tag is right: where it is
    /// not, `out` is zeroed. Throws `defect`.
    package borrowing func open(
        _ text: UnsafeRawBufferPointer, nonce: [UInt8], additional: [UInt8], tag: UnsafeRawBufferPointer,
        to out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Bool {
        precondition(direction == .open && tag.count == AES256GCM.tagBytes)
        guard start(nonce: nonce, additional: additional), update(text, to: out),
            copenssl_set_tag(context, tag.baseAddress, Int32(tag.count)) == 1
        else { throw failure("could not decrypt with AES-256-GCM") }
        if finish() { return true }
        out.initializeMemory(as: UInt8.self, repeating: 0)
        ERR_clear_error()
        return false
    }

    private borrowing func start(nonce: [UInt8], additional: [UInt8]) -> Bool {
        precondition(nonce.count == AES256GCM.nonceBytes)
        var written: Int32 = 0
        return EVP_CipherInit_ex(context, nil, nil, nil, nonce, -1) == 1
            && (additional.isEmpty
                || EVP_CipherUpdate(context, nil, &written, additional, Int32(additional.count)) == 1)
    }

    private borrowing func update(_ text: UnsafeRawBufferPointer, to out: UnsafeMutableRawBufferPointer) -> Bool {
        precondition(out.count == text.count && text.count <= Int32.max)
        guard text.count > 0 else { return true }
        var written: Int32 = 0
        return EVP_CipherUpdate(
            context, out.assumingMemoryBound(to: UInt8.self).baseAddress, &written,
            text.assumingMemoryBound(to: UInt8.self).baseAddress, Int32(text.count)) == 1
            && written == Int32(text.count)
    }

    /// Ends the message; GCM writes nothing here. When opening, whether the tag was right.
    private borrowing func finish() -> Bool {
        var written: Int32 = 0
        var nothing: UInt8 = 0
        return EVP_CipherFinal_ex(context, &nothing, &written) == 1
    }
}

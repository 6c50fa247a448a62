// XXH3-128, the checksum of content and of frames that no key seals.
//
// Bytes are hashed with the widest instructions that the processor has (CArithmetic); the state of pieces is
// libxxhash's.
import CArithmetic
import CXXHash
package import KedgeCore

/// XXH3-128 of bytes that lie in one piece.
package enum XXH3 {
    /// The hash of `bytes`.
    package static func hash(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> ContentHash {
        let hash = carithmetic_xxh3(bytes.baseAddress, bytes.count, seed)
        return ContentHash(high: hash.high, low: hash.low)
    }
}

/// XXH3-128 of bytes that come in pieces. Owns libxxhash's state and frees it.
package struct XXH3State: ~Copyable {
    private let state: OpaquePointer
    private let seed: UInt64

    /// A state that has seen nothing.
    package init(seed: UInt64 = 0) {
        // Half a KiB: where that is not to be had, no Swift allocation succeeds either.
        guard let state = XXH3_createState() else { preconditionFailure("no memory for an XXH3 state") }
        self.state = state
        self.seed = seed
        XXH3_128bits_reset_withSeed(state, seed)
    }

    deinit { XXH3_freeState(state) }

    /// Forgets what it has seen.
    package borrowing func reset() { XXH3_128bits_reset_withSeed(state, seed) }

    /// Adds `bytes` at the end of what it has seen.
    package borrowing func update(_ bytes: UnsafeRawBufferPointer) {
        carithmetic_xxh3_update(UnsafeMutableRawPointer(state), bytes.baseAddress, bytes.count)
    }

    /// The hash of all that it has seen since the start or the last reset.
    package borrowing func hash() -> ContentHash { ContentHash(XXH3_128bits_digest(state)) }
}

extension ContentHash {
    /// The canonical form of `hash` is big-endian, its high half first (XXH128_canonicalFromHash).
    fileprivate init(_ hash: XXH128_hash_t) { self.init(high: hash.high64, low: hash.low64) }
}

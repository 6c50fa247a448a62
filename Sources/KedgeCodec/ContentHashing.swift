// XXH3-128 for the modules above, which do not see the library's owner.
package import KedgeCore
import XXHash

extension ContentHash {
    /// The XXH3-128 of `bytes`.
    package init(of bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) {
        self = XXH3.hash(bytes, seed: seed)
    }

    /// The XXH3-128 of an array's bytes.
    package init(of bytes: [UInt8], seed: UInt64 = 0) {
        self = bytes.withBytes { XXH3.hash($0, seed: seed) }
    }
}

/// The XXH3-128 of content that comes in pieces. Belongs to one thread at a time.
package final class ContentHasher {
    private let state: XXH3State

    package init(seed: UInt64 = 0) { state = XXH3State(seed: seed) }

    /// Adds `bytes` at the end of what it has seen.
    package func update(_ bytes: UnsafeRawBufferPointer) { state.update(bytes) }

    /// The hash of all that it has seen.
    package func hash() -> ContentHash { state.hash() }

    /// Forgets what it has seen.
    package func reset() { state.reset() }
}

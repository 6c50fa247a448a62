// What the tests of this module share: seeded randomness, names, keys, and contents of several kinds. Proves nothing.
import KedgeCodec
import KedgeCore
import Synchronization

/// SplitMix64: the same numbers from the same seed, for ever.
final class SeededRandom: RandomSource {
    private let state: Mutex<UInt64>

    init(_ seed: UInt64) { state = Mutex(seed) }

    func next() -> UInt64 {
        state.withLock { state in
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    /// A number below `limit`.
    func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
}

enum Fixture {
    static let clusterID = RandomID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF)
    static let recordName = ScopedName(scope: clusterID, name: "catalog/intent/20261121T020000Z-full-7k3q")
    static let key = DataKey(
        id: RandomID(high: 0xA0A1_A2A3_A4A5_A6A7, low: 0xA8A9_AAAB_ACAD_AEAF), sequence: 1,
        secret: Secret(Array(0..<32)))
    static let sealed = KeyRing(cipher: .aes256GCM, keys: [key])

    static func keyRing(_ cipher: Cipher) -> KeyRing { cipher == .none ? .plain : sealed }

    /// Bytes that compress well.
    static func text(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 / 7) ^ ($0 / 300)) }
    }

    /// Bytes that do not compress.
    static func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] { SeededRandom(seed).bytes(count) }
}

/// The error that `work` throws; nil where it throws none.
func errorOf<Result>(_ work: () throws(KedgeError) -> Result) -> KedgeError? {
    do throws(KedgeError) {
        _ = try work()
        return nil
    } catch {
        return error
    }
}

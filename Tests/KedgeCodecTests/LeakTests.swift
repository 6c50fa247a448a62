// Proves that every owner of a C handle gives back what the library allocated, on success and on failure. Each test
// runs in a process of its own, where nobody else allocates.
import CTestSupport
import KedgeCore
import LZ4
import OpenSSL
import Testing
import XXHash
import Zlib
import Zstd

/// Ends the process with a trap if many rounds of `work` leave more memory in use than a few did.
private func checkNothingLeaks(_ work: () throws(KedgeError) -> Void) throws {
    for _ in 0..<20 { try work() }
    let before = ctest_allocated_bytes()
    for _ in 0..<1000 { try work() }
    let after = ctest_allocated_bytes()
    // A leak of one handle a round would be at least 64 KiB; the test library itself may allocate a little.
    precondition(after < before + 32768, "\(Int(after) - Int(before)) bytes were not freed")
}

@Suite struct LeakTests {
    @Test("leaks: the zstd contexts are freed")
    func zstd() async {
        await #expect(processExitsWith: .success) {
            let bytes = [UInt8](repeating: 1, count: 5000)
            try checkNothingLeaks { () throws(KedgeError) in
                let compressor = try ZstdCompressor(level: 1)
                let decompressor = try ZstdDecompressor()
                var out = bytes
                try bytes.withBytes { bytes throws(KedgeError) in
                    try out.withMutableBytes { out throws(KedgeError) in
                        let count = try compressor.compress(bytes, into: out) ?? 0
                        var back = [UInt8](repeating: 0, count: 5000)
                        try back.withMutableBytes { back throws(KedgeError) in
                            try decompressor.decompress(UnsafeRawBufferPointer(rebasing: out[..<count]), into: back)
                        }
                    }
                }
            }
        }
    }

    @Test("leaks: LZ4's work space is freed")
    func lz4() async {
        await #expect(processExitsWith: .success) {
            try checkNothingLeaks { () throws(KedgeError) in
                for level: Int32 in [1, 9] {
                    let compressor = LZ4Compressor(level: level)
                    var out = [UInt8](repeating: 0, count: 100)
                    out.withMutableBytes { _ = compressor.compress(UnsafeRawBufferPointer($0), into: $0) }
                }
            }
        }
    }

    @Test("leaks: zlib's streams are ended")
    func zlib() async {
        await #expect(processExitsWith: .success) {
            try checkNothingLeaks { () throws(KedgeError) in
                _ = try ZlibCompressor(level: 1)
                let decompressor = try ZlibDecompressor()
                var out = [UInt8](repeating: 0, count: 100)
                out.withMutableBytes { out in
                    do throws(KedgeError) {
                        try decompressor.decompress(UnsafeRawBufferPointer(out), into: out)
                        preconditionFailure("zeros are no zlib stream")
                    } catch { precondition(error.code == .damaged) }
                }
            }
        }
    }

    @Test("leaks: cipher and derivation contexts are freed")
    func openSSL() async {
        await #expect(processExitsWith: .success) {
            let key = [UInt8](repeating: 1, count: 32)
            try checkNothingLeaks { () throws(KedgeError) in
                let sealer = try AES256GCM(.seal)
                try sealer.setKey(key)
                let opener = try AES256GCM(.open)
                try opener.setKey(key)
                var text = key
                let isRight = try text.withMutableBytes { text throws(KedgeError) in
                    try opener.open(
                        UnsafeRawBufferPointer(text), nonce: Array(key.prefix(12)), additional: [],
                        tag: UnsafeRawBufferPointer(rebasing: text[..<16]), to: text)
                }
                precondition(!isRight)
                _ = try HKDF.derive(key: key, salt: key, info: [])
                _ = try SHA256.hash(key)
                _ = try Scrypt.derive(passphrase: key, salt: key, n: 16, r: 1, p: 1)
            }
        }
    }

    @Test("leaks: XXH3 states are freed")
    func xxHash() async {
        await #expect(processExitsWith: .success) {
            try checkNothingLeaks { () throws(KedgeError) in
                let state = XXH3State()
                [1, 2, 3].withBytes { state.update($0) }
                precondition(state.hash() != ContentHash(high: 0, low: 0))
            }
        }
    }

    @Test("the leak check itself finds a leak")
    func findsLeaks() async {
        await #expect(processExitsWith: .failure) {
            try checkNothingLeaks { () throws(KedgeError) in
                _ = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16)
            }
        }
    }
}

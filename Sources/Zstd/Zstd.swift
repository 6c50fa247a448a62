// Owners of zstd's contexts. Whole frames only, from one buffer to another: libzstd keeps nothing between two calls but
// its work space, which is what makes a context worth keeping.
//
// Each owner frees its context in deinit; nothing else does.
import CZstd
package import KedgeCore

/// A zstd compression context with its level set.
package struct ZstdCompressor: ~Copyable {
    private let context: OpaquePointer

    /// The levels that a configuration may ask for. Negative ones trade ratio for speed; libzstd takes even lower ones.
    package static let levels: ClosedRange<Int32> = -7...22

    /// A context for `level`. Throws `defect` where libzstd refuses it or has no memory.
    package init(level: Int32) throws(KedgeError) {
        guard let context = ZSTD_createCCtx() else { throw noMemory() }
        let results = [
            ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level),
            // The frame around the zstd frame is checksummed, and readers rely on no size that libzstd declares.
            ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0),
            ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1),
        ]
        if let error = results.first(where: { ZSTD_isError($0) != 0 }) {
            ZSTD_freeCCtx(context)
            throw KedgeError(.defect, "cannot set up zstd for level \(level)", detail: errorText(error))
        }
        self.context = context
    }

    deinit { ZSTD_freeCCtx(context) }

    /// The most bytes that compressing `count` bytes can give.
    package static func bound(_ count: Int) -> Int { ZSTD_compressBound(count) }

    /// Writes `raw` as one zstd frame and returns its length; nil where `out` is too small. Throws `defect`.
    package borrowing func compress(
        _ raw: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Int? {
        let result = ZSTD_compress2(context, out.baseAddress, out.count, raw.baseAddress, raw.count)
        guard ZSTD_isError(result) != 0 else { return result }
        if ZSTD_getErrorCode(result) == ZSTD_error_dstSize_tooSmall { return nil }
        throw KedgeError(.defect, "could not compress with zstd", detail: errorText(result))
    }
}

/// A zstd decompression context.
package struct ZstdDecompressor: ~Copyable {
    private let context: OpaquePointer

    /// Throws `defect` where there is no memory.
    package init() throws(KedgeError) {
        guard let context = ZSTD_createDCtx() else { throw noMemory() }
        self.context = context
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Fills `out` from `stored`, which must be exactly one zstd frame of exactly that many raw bytes.
    /// Throws `damaged`.
    package borrowing func decompress(
        _ stored: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        // ZSTD_decompressDCtx takes several frames in a row, so that the one ends where the bytes do is asked first.
        let length = ZSTD_findFrameCompressedSize(stored.baseAddress, stored.count)
        guard length == stored.count else {
            throw damaged(ZSTD_isError(length) != 0 ? errorText(length) : "Something follows the end of the data.")
        }
        let result = ZSTD_decompressDCtx(context, out.baseAddress, out.count, stored.baseAddress, stored.count)
        guard ZSTD_isError(result) == 0 else { throw damaged(errorText(result)) }
        guard result == out.count else { throw damaged("It holds \(result) bytes instead of \(out.count).") }
    }

    private borrowing func damaged(_ detail: String) -> KedgeError {
        KedgeError(.damaged, "cannot decompress a zstd frame", detail: detail)
    }
}

private func noMemory() -> KedgeError {
    KedgeError(.defect, "could not set up zstd", detail: "There is not enough memory for its context.")
}

private func errorText(_ result: Int) -> String { "libzstd says: \(String(cString: ZSTD_getErrorName(result)))." }

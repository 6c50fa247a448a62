// Owners of zlib's streams, used for one whole buffer at a time and then reset, which keeps their memory.
//
// zlib's internal state points back at its z_stream, so that has an address of its own for as long as it lives.
import CZlib
package import KedgeCore

/// A deflate stream with its level set; writes zlib streams (RFC 1950).
package struct ZlibCompressor: ~Copyable {
    private let stream: UnsafeMutablePointer<z_stream>

    /// The levels that a configuration may ask for.
    package static let levels: ClosedRange<Int32> = 1...9

    /// A stream for `level`. Throws `defect` where zlib refuses it or has no memory.
    package init(level: Int32) throws(KedgeError) {
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard czlib_deflate_init(stream, level) == Z_OK else {
            stream.deallocate()
            throw KedgeError(.defect, "could not set up zlib for level \(level)")
        }
        self.stream = stream
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
    }

    /// The most bytes that compressing `count` bytes can give.
    package static func bound(_ count: Int) -> Int { Int(compressBound(UInt(count))) }

    /// Writes `raw` (below 4 GiB) as one zlib stream and returns its length; nil where `out` is too small. Throws
    /// `defect`.
    package borrowing func compress(
        _ raw: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) -> Int? {
        deflateReset(stream)
        point(stream, at: raw, out)
        switch deflate(stream, Z_FINISH) {
        case Z_STREAM_END: return out.count - Int(stream.pointee.avail_out)
        case Z_OK, Z_BUF_ERROR: return nil
        case let status: throw KedgeError(.defect, "could not compress with zlib", detail: "Its status is \(status).")
        }
    }
}

/// An inflate stream.
package struct ZlibDecompressor: ~Copyable {
    private let stream: UnsafeMutablePointer<z_stream>

    /// Throws `defect` where there is no memory.
    package init() throws(KedgeError) {
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard czlib_inflate_init(stream) == Z_OK else {
            stream.deallocate()
            throw KedgeError(.defect, "could not set up zlib")
        }
        self.stream = stream
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// Fills `out` from `stored` (both below 4 GiB), which must be exactly one zlib stream of exactly that many raw
    /// bytes. Throws `damaged`.
    package borrowing func decompress(
        _ stored: UnsafeRawBufferPointer, into out: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        inflateReset(stream)
        point(stream, at: stored, out)
        let status = inflate(stream, Z_FINISH)
        guard status == Z_STREAM_END else {
            throw damaged("zlib says: \(stream.pointee.msg.map { String(cString: $0) } ?? "status \(status)").")
        }
        guard stream.pointee.avail_in == 0 else { throw damaged("Something follows the end of the data.") }
        guard stream.pointee.avail_out == 0 else {
            throw damaged("It holds \(stream.pointee.total_out) bytes instead of \(out.count).")
        }
    }

    private borrowing func damaged(_ detail: String) -> KedgeError {
        KedgeError(.damaged, "cannot decompress a zlib stream", detail: detail)
    }
}

private func point(
    _ stream: UnsafeMutablePointer<z_stream>, at input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer
) {
    precondition(input.count <= UInt32.max && output.count <= UInt32.max)
    // zlib does not write to next_in; its type only lacks the const.
    stream.pointee.next_in = UnsafeMutablePointer(
        mutating: input.assumingMemoryBound(to: UInt8.self).baseAddress)
    stream.pointee.avail_in = UInt32(input.count)
    stream.pointee.next_out = output.assumingMemoryBound(to: UInt8.self).baseAddress
    stream.pointee.avail_out = UInt32(output.count)
}

// Paths as the kernel sees them: bytes, in no particular encoding. Names in a data directory may hold any byte but
// "/" and zero, so a String cannot carry them.

/// A path, or one component of a path. Ordered by its bytes.
package struct RawPath: Hashable, Sendable {
    /// The bytes, without a terminating zero. May be any: system calls refuse a path with a zero byte inside.
    package let bytes: [UInt8]

    package init(bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    package init(_ text: some StringProtocol) { bytes = Array(text.utf8) }

    /// The path of `component` inside this directory. An empty path stands for the working directory.
    package func appending(_ component: RawPath) -> RawPath {
        if bytes.isEmpty { return component }
        return RawPath(bytes: bytes.last == slash ? bytes + component.bytes : bytes + [slash] + component.bytes)
    }

    package func appending(_ component: some StringProtocol) -> RawPath { appending(RawPath(component)) }

    /// The directory that holds this entry: "/" for what lies in the root, "." for a single component.
    package var parent: RawPath {
        guard let end = bytes.lastIndex(of: slash) else { return "." }
        return end == 0 ? "/" : RawPath(bytes: bytes[..<end])
    }

    /// What follows the last "/".
    package var lastComponent: RawPath {
        guard let end = bytes.lastIndex(of: slash) else { return self }
        return RawPath(bytes: bytes[(end + 1)...])
    }

    package var isAbsolute: Bool { bytes.first == slash }

    /// The path as text. Nil unless it is valid UTF-8.
    package var text: String? { String(validating: bytes, as: UTF8.self) }
}

extension RawPath: Comparable {
    package static func < (left: RawPath, right: RawPath) -> Bool {
        left.bytes.lexicographicallyPrecedes(right.bytes)
    }
}

extension RawPath: ExpressibleByStringLiteral {
    package init(stringLiteral value: String) { self.init(value) }
}

extension RawPath: CustomStringConvertible {
    /// For people: control characters, backslashes and bytes that are no UTF-8 appear as `\xHH`.
    package var description: String {
        let isText = text != nil
        var shown: [UInt8] = []
        for byte in bytes {
            if byte >= 0x20 && byte != 0x7F && byte != 0x5C && (byte < 0x80 || isText) {
                shown.append(byte)
            } else {
                shown.append(contentsOf: "\\x\([byte].hex)".utf8)
            }
        }
        return String(decoding: shown, as: UTF8.self)
    }
}

extension RawPath {
    /// Hands `body` the path as a C string.
    ///
    /// Throws `unsafe-path` for a path with a zero byte inside, which no file can have.
    package func withCPath<Result>(
        _ body: (UnsafePointer<CChar>) throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        guard !bytes.contains(0) else {
            throw KedgeError(
                .unsafePath, "cannot use path \"\(self)\"", detail: "A file name cannot hold a zero byte.",
                hint: "Check where this name comes from: no file system can have produced it.")
        }
        return try withTerminatedBytes(body)
    }

    private func withTerminatedBytes<Result>(
        _ body: (UnsafePointer<CChar>) throws(KedgeError) -> Result
    ) throws(KedgeError) -> Result {
        // Paths are short: a copy with the terminator costs less than a cleverer way would.
        var terminated = bytes.map { CChar(bitPattern: $0) }
        terminated.append(0)
        return try terminated.withUnsafeBufferPointer { buffer throws(KedgeError) in
            guard let start = buffer.baseAddress else { preconditionFailure("an array with a terminator is not empty") }
            return try body(start)
        }
    }
}

private let slash: UInt8 = 0x2F

// Reading the few small local files that a command needs before it can begin: configuration, keys, passphrases.
package import KedgeCore

/// A small file's bytes, and what the checks on secrets need to know about it.
package struct SmallFile: Sendable {
    package let bytes: [UInt8]
    /// The permission bits, such as 0o600.
    package let mode: UInt32
    /// Whom it belongs to.
    package let user: UInt32

    /// A file of root's unless another user is given.
    package init(bytes: [UInt8], mode: UInt32, user: UInt32 = 0) {
        self.bytes = bytes
        self.mode = mode
        self.user = user
    }
}

/// Reads a whole file: its path, what messages call it, the most bytes it may have. Tests give one of their own.
package typealias FileReader =
    @Sendable (_ path: String, _ what: String, _ limit: Int) throws(KedgeError) -> SmallFile

extension SmallFile {
    /// Reads a regular file of at most `limit` bytes. Mode and owner are those of the very file that was read.
    ///
    /// Throws `configuration`: whoever reads the error has to correct a path, a permission or the file.
    package static func read(_ path: String, _ what: String, _ limit: Int) throws(KedgeError) -> SmallFile {
        do throws(KedgeError) {
            // Looked at first, because opening a pipe would wait for its writer.
            guard try FileStatus(at: RawPath(path), followLinks: true).kind == .regular else {
                throw KedgeError(
                    .configuration, "", detail: "It is not a regular file.", hint: "Name a regular file.")
            }
            let file = try FileDescriptor.open(RawPath(path), [.read])
            let status = try file.status()
            return SmallFile(bytes: try file.readAll(limit: limit), mode: status.mode, user: status.user)
        } catch {
            throw KedgeError(
                .configuration, "could not read \(what) \"\(path)\"", detail: error.detail, hint: error.hint)
        }
    }
}

/// What some editors of Windows put in front of a text; nobody sees it.
enum ByteOrderMark {
    /// Whether one of UTF-8 or UTF-16 is in front of `bytes`.
    static func begins(_ bytes: [UInt8]) -> Bool {
        ([[0xEF, 0xBB, 0xBF], [0xFF, 0xFE], [0xFE, 0xFF]] as [[UInt8]]).contains { bytes.starts(with: $0) }
    }

    static let hint = "Save it as UTF-8 without a byte order mark."
}

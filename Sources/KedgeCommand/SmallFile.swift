// Reading the few small local files that a command needs before it can begin: configuration, keys, passphrases.
import Glibc
package import KedgeCore

/// A small file's bytes, and what the checks on secrets need to know about it.
package struct SmallFile: Sendable {
    package let bytes: [UInt8]
    /// The permission bits, such as 0o600.
    package let mode: UInt32
}

/// Reads a whole file: its path, what it is called in messages, the most bytes it may have. Tests give one of their own.
package typealias FileReader = @Sendable (_ path: String, _ what: String, _ limit: Int) throws(KedgeError) -> SmallFile

extension SmallFile {
    /// Reads a regular file of at most `limit` bytes. The mode is that of the very file that was read.
    ///
    /// Throws `configuration`: whoever reads the error has to correct a path, a permission or the file.
    package static func read(_ path: String, _ what: String, _ limit: Int) throws(KedgeError) -> SmallFile {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure("could not open", path, what, errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure("could not read", path, what, errno) }
        // Devices and pipes could block or never end.
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw KedgeError(
                .configuration, "cannot read \(what) \"\(path)\"", detail: "It is not a regular file.",
                hint: "Name a regular file.")
        }
        var bytes = [UInt8](repeating: 0, count: min(limit, max(0, Int(status.st_size))) + 1)
        var length = 0
        while true {
            if length == bytes.count {
                guard length <= limit else {
                    throw KedgeError(
                        .configuration, "cannot read \(what) \"\(path)\"",
                        detail: "It is larger than \(limit) bytes, the most that makes sense.",
                        hint: "Make sure that this is the file that you mean.")
                }
                bytes.append(contentsOf: repeatElement(0, count: min(length, limit + 1 - length)))
            }
            let count = bytes.withUnsafeMutableBytes { buffer in
                Glibc.read(descriptor, buffer.baseAddress.map { $0 + length }, buffer.count - length)
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("could not read", path, what, errno) }
            if count == 0 { break }
            length += count
        }
        bytes.removeLast(bytes.count - length)
        return SmallFile(bytes: bytes, mode: UInt32(status.st_mode) & 0o7777)
    }

    private static func failure(_ attempt: String, _ path: String, _ what: String, _ number: Int32) -> KedgeError {
        let hint =
            switch number {
            case ENOENT, ENOTDIR: "Create it, or correct the path."
            case EACCES: "Let the operating system user that runs kedge read it."
            default: "Correct what the detail says, then try again."
            }
        return KedgeError(
            .configuration, "\(attempt) \(what) \"\(path)\"", detail: "\(String(cString: strerror(number))).",
            hint: hint)
    }
}

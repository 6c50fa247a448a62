// Where a path really leads.

import Glibc

extension FileSystem {
    /// The path without links as far as it exists; what does not exist yet stays as it is written.
    package static func resolved(_ path: RawPath) throws(KedgeError) -> RawPath {
        var path = path
        while path.bytes.count > 1, path.bytes.last == 0x2F { path = RawPath(bytes: path.bytes.dropLast()) }
        do throws(KedgeError) {
            return try canonicalPath(of: path)
        } catch  where error.code == .notFound && path.parent != path {
            return try resolved(path.parent).appending(path.lastComponent)
        }
    }

    /// The absolute path of what `path` leads to, without links, "." and "..". Throws `not-found` where it leads
    /// nowhere.
    package static func canonicalPath(of path: RawPath) throws(KedgeError) -> RawPath {
        var failure: Int32 = 0
        let resolved: RawPath? = try path.withCPath { path throws(KedgeError) in
            guard let text = realpath(path, nil) else {
                failure = errno
                return nil
            }
            defer { free(text) }
            return RawPath(bytes: UnsafeRawBufferPointer(start: text, count: strlen(text)))
        }
        guard let resolved else { throw systemError("resolve path", path, errno: failure) }
        return resolved
    }
}

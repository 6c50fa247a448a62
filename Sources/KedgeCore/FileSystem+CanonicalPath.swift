// Where a path really leads.

import Glibc

extension FileSystem {
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

// Removing a whole tree without ever leaving it.

extension Directory {
    /// Removes the directory at `path` with everything below it. Symbolic links are removed, never followed. Throws
    /// `not-found` where nothing is there; what could be removed is gone also when it throws.
    package static func removeTree(at path: RawPath) throws(KedgeError) {
        try empty(FileDescriptor.open(path, [.read, .directory, .noFollow]))
        try FileSystem.removeDirectory(at: path)
    }

    private static func empty(_ directory: borrowing FileDescriptor) throws(KedgeError) {
        // Somebody who is about to end may still add a file: look again as long as that helps.
        for _ in 0..<100 {
            let entries = try entries(of: directory)
            if entries.isEmpty { return }
            for entry in entries {
                do throws(KedgeError) {
                    guard entry.kind == .directory else {
                        try FileSystem.removeFile(entry.name, in: directory)
                        continue
                    }
                    try empty(FileDescriptor.open(entry.name, in: directory, [.read, .directory, .noFollow]))
                    _ = try FileSystem.removeEmptyDirectory(entry.name, in: directory)
                } catch  where error.code == .notFound {
                    // Gone already.
                }
            }
        }
        throw KedgeError(
            .notEmpty, "could not empty directory \"\(directory.path)\"",
            detail: "Something keeps adding files to it.", hint: "Look for a process that works there.")
    }
}

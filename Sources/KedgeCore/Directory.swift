// Directories: complete sorted snapshots of their entries, and making them so that they survive a crash.
//
// A listing is read to its end before anybody sees a name, so removing files meanwhile cannot skip others (lesson 23).

import CSystem
import Glibc

/// A name in a directory and the kind of file it was when the directory was read.
package struct DirectoryEntry: Hashable, Sendable {
    package let name: RawPath
    package let kind: FileKind

    package init(name: RawPath, kind: FileKind) {
        self.name = name
        self.kind = kind
    }
}

/// What can be done with directories.
package enum Directory {
    /// All entries but "." and "..", sorted by the bytes of their names. Throws `not-found` if there is no directory.
    package static func entries(at path: RawPath) throws(KedgeError) -> [DirectoryEntry] {
        try entries(of: FileDescriptor.open(path, [.read, .directory]))
    }

    /// All entries but "." and ".." of an open directory, sorted by the bytes of their names.
    package static func entries(of directory: borrowing FileDescriptor) throws(KedgeError) -> [DirectoryEntry] {
        var entries: [DirectoryEntry] = []
        let stream = try DirectoryStream(directory)
        while let (name, type) = try stream.next() {
            if name == "." || name == ".." { continue }
            do throws(KedgeError) {
                entries.append(DirectoryEntry(name: name, kind: try kind(of: name, type: type, in: directory)))
            } catch  where error.code == .notFound {
                // It vanished after it was read, and a snapshot may leave it out.
            }
        }
        return entries.sorted { $0.name < $1.name }
    }

    private static func kind(
        of name: RawPath, type: UInt8, in directory: borrowing FileDescriptor
    ) throws(KedgeError) -> FileKind {
        switch Int(type) {
        case Int(DT_REG): .regular
        case Int(DT_DIR): .directory
        case Int(DT_LNK): .symbolicLink
        // Some file systems keep no types in their directories.
        case Int(DT_UNKNOWN): try FileStatus(of: name, in: directory).kind
        default: .other
        }
    }

    /// Makes one directory with exactly these permission bits and makes its entry in the parent durable.
    ///
    /// Returns false if a directory is there already. Its durability is then not known: see `sync(_:)`.
    package static func create(at path: RawPath, mode: UInt32 = 0o750) throws(KedgeError) -> Bool {
        guard try createPlain(at: path, mode: mode) else { return false }
        try sync(path.parent)
        return true
    }

    /// Makes one directory with exactly these permission bits, not durably: for many at once, before one sync of the
    /// file system. Returns false if a directory is there already.
    package static func createPlain(at path: RawPath, mode: UInt32 = 0o750) throws(KedgeError) -> Bool {
        let failure = try path.withCPath { path throws(KedgeError) in
            // mkdir narrows the mode by the umask, chmod does not.
            mkdir(path, mode) == 0 && chmod(path, mode) == 0 ? 0 : errno
        }
        if failure == EEXIST {
            guard try FileStatus(at: path, followLinks: true).kind == .directory else {
                throw systemError("create directory", path, errno: ENOTDIR)
            }
            return false
        }
        guard failure == 0 else { throw systemError("create directory", path, errno: failure) }
        return true
    }

    /// Makes a directory and what is missing of its parents, all durably.
    package static func createWithParents(at path: RawPath, mode: UInt32 = 0o750) throws(KedgeError) {
        do throws(KedgeError) {
            _ = try create(at: path, mode: mode)
        } catch  where error.code == .notFound && path.parent != path {
            try createWithParents(at: path.parent, mode: mode)
            _ = try create(at: path, mode: mode)
        }
    }

    /// Makes the entries of a directory durable.
    package static func sync(_ path: RawPath) throws(KedgeError) {
        try FileDescriptor.open(path, [.read, .directory]).sync()
    }
}

/// The owner of a `DIR *`; it is closed when the owner goes out of scope.
private struct DirectoryStream: ~Copyable {
    private let stream: OpaquePointer
    private let path: RawPath

    /// Reads `directory` from its start. The stream gets a descriptor of its own, which closedir(3) frees.
    init(_ directory: borrowing FileDescriptor) throws(KedgeError) {
        let number = csystem_openat(directory.number, ".", O_RDONLY | O_DIRECTORY, 0)
        guard number >= 0 else { throw systemError("read directory", directory.path, errno: errno) }
        guard let stream = fdopendir(number) else {
            let failure = errno
            close(number)
            throw systemError("read directory", directory.path, errno: failure)
        }
        self.stream = stream
        path = directory.path
    }

    deinit { closedir(stream) }

    /// The next name and its DT_ type; nil at the end.
    borrowing func next() throws(KedgeError) -> (name: RawPath, type: UInt8)? {
        var name: UnsafePointer<CChar>?
        var type: UInt8 = 0
        let result = csystem_next_entry(stream, &name, &type)
        if result < 0 { throw systemError("read directory", path, errno: errno) }
        guard result > 0, let name else { return nil }
        let bytes = UnsafeRawBufferPointer(start: name, count: strlen(name))
        return (RawPath(bytes: bytes), type)
    }
}

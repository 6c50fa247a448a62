// A store in a directory of a local or mounted file system: one file per object, directories as in the names.
//
// 1. Files are published by `DurableFile`: whole, durable, never replacing unless asked.
// 2. The way to a file is durable too, even where another process has just made a directory and has not synced it: a
//    new directory carries the sticky bit, which is taken away from the top down, each time after the parent was
//    synced. So a directory without it is durable with all above it, which costs a writer one fstat and no sync.
// 3. Absent means absent: the root is held open, and before anything is called absent, and before anything is written,
//    the marker that every repository holds is looked up again. An empty mount point, or a disk that went away, is
//    `repository-unavailable`, never an empty repository (or one on the wrong disk).
//    The same for each directory below the root: a symbolic link, or another file system mounted there, may be gone
//    tomorrow, and what lay there would look as if it had never been. So neither is gone through, not even while it
//    leads somewhere, and an object is never looked for behind a link.
// 4. The page cache is left to the database: what was written or read in bulk is dropped from it.
// 5. Directories that become empty are removed. A writer that loses its directory that way makes it again.
// 6. Modes are 0640 and 0750 whatever the umask is. What the superuser writes belongs to whom the root belongs
//    (LocalStoreOwner.swift).

package import KedgeCore

/// An object store in a directory.
package final class LocalStore: ObjectStore {
    /// The object that shows that a directory holds a repository.
    package static let repositoryMarker: ObjectName = "kedge.json"

    let root: FileDescriptor
    /// Of the root.
    private let device: UInt64
    /// Who gets what this process writes; nil where it stays its own.
    private let owner: LocalStoreOwner?
    private let marker: ObjectName?
    private let random: any RandomSource

    /// Opens the directory at `path`.
    ///
    /// `marker` is an object that must be there whenever any other one is asked for or written; nil for a directory
    /// that need not be a repository. Throws `repository-unavailable` if there is no such directory.
    package init(
        at path: String, marker: ObjectName? = LocalStore.repositoryMarker, random: any RandomSource
    ) throws(KedgeError) {
        do throws(KedgeError) {
            root = try FileDescriptor.open(RawPath(path), [.read, .directory])
        } catch  where error.code == .notFound {
            throw KedgeError(
                .repositoryUnavailable, "could not open repository directory \"\(path)\"",
                detail: "There is no such directory.", hint: LocalStore.absentRootHint)
        }
        let status = try root.status()
        device = status.device
        owner = FileSystem.ownUser == 0 ? LocalStoreOwner(of: status) : nil
        self.marker = marker
        self.random = random
    }

    /// Makes the directory of a new repository, and its parents, durably. One that is there is left as it is.
    package static func createRoot(at path: String) throws(KedgeError) {
        try Directory.createWithParents(at: RawPath(path), mode: LocalStore.directoryMode)
    }

    package let capabilities = StoreCapabilities(hasConditionalPut: true)

    package var location: String { "repository directory \"\(root.path)\"" }

    package func space() throws(KedgeError) -> FileSystemSpace? { try FileSystemSpace(near: root.path) }

    // MARK: Reading

    package func status(of name: ObjectName) throws(KedgeError) -> ObjectStatus? {
        do throws(KedgeError) {
            try confirmWay(to: name.parent)
            return try objectStatus(FileStatus(of: name.path, in: root), of: name)
        } catch  where error.code == .notFound {
            try confirmRoot(whenLookingFor: name)
            return nil
        }
    }

    /// Throws where that is no object's file.
    func objectStatus(_ status: FileStatus, of name: ObjectName) throws(KedgeError) -> ObjectStatus {
        switch status.kind {
        case .regular: return ObjectStatus(status)
        case .symbolicLink: throw elsewhere(name, "It is a symbolic link.")
        case .directory, .other: throw notAFile(name)
        }
    }

    package func read(
        _ name: ObjectName, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(KedgeError) {
        let file = try openObject(name)
        guard try file.read(into: buffer, at: offset) == buffer.count else {
            throw objectTooShort(name, location: location, end: offset &+ UInt64(buffer.count))
        }
        dropFromCache(file, offset: offset, count: buffer.count)
    }

    package func readPrefix(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        let file = try openObject(name)
        let count = Int(min(try file.status().sizeBytes, UInt64(max(limit, 0))))
        let bytes = try file.read(count: count, at: 0)
        dropFromCache(file, offset: 0, count: bytes.count)
        return bytes
    }

    private func openObject(_ name: ObjectName) throws(KedgeError) -> FileDescriptor {
        do throws(KedgeError) {
            try confirmWay(to: name.parent)
            _ = try objectStatus(FileStatus(of: name.path, in: root), of: name)
            // Should a pipe have taken its place since, opening it would wait for ever.
            return try FileDescriptor.open(name.path, in: root, [.read, .nonBlocking, .noFollow])
        } catch  where error.code == .notFound {
            try confirmRoot(whenLookingFor: name)
            throw objectNotFound(name, location: location)
        }
    }

    private func notAFile(_ name: ObjectName) -> KedgeError {
        KedgeError(
            .damaged, "cannot use object \"\(name)\" of \(location)",
            detail: "It is a directory, a pipe, a socket or a device, and objects are files.",
            hint: "Find out who put it there: kedge never does.")
    }

    private func dropFromCache(_ file: borrowing FileDescriptor, offset: UInt64, count: Int) {
        // Small objects are read again and again: catalogue records, the facts at the head of WAL objects.
        if count >= LocalStore.bulkBytes { file.advise(.dontNeed, offset: offset, length: UInt64(count)) }
    }

    // MARK: Writing

    /// From what size on making room before the first write is worth a system call.
    private static let allocatedBytes = 1 << 20

    package func put(
        _ name: ObjectName, _ body: ObjectBody, _ condition: PutCondition
    ) throws(KedgeError) -> PutOutcome {
        try confirmRoot(whenLookingFor: name)
        // Not what decides, but a repeated push should not write a segment in order to throw it away.
        if condition == .createOnly, try status(of: name) != nil { return .alreadyExists }
        var begun: DurableFile?
        do throws(KedgeError) {
            let file = try beginFile(name)
            begun = file
            if body.sizeBytes >= LocalStore.allocatedBytes { try file.file.allocate(UInt64(body.sizeBytes)) }
            var offset: UInt64 = 0
            for part in body.parts {
                try file.file.write(part, at: offset)
                offset += UInt64(part.count)
            }
            return try publish(file, as: name, replacing: condition == .replace, sizeBytes: offset)
        } catch {
            // Removed first: then what is free is what the next attempt finds.
            begun?.discard()
            throw told(error, name, needing: UInt64(body.sizeBytes))
        }
    }

    /// An error of writing, told of an object that is still being written.
    func told(
        _ error: KedgeError, _ name: ObjectName, written: UInt64, needing bytes: UInt64
    ) -> KedgeError {
        let message = "could not store object \"\(name)\" in \(location)"
        guard error.code == .noSpace else { return error.wrapped(message) }
        let space = FileSystemSpace.describe(.find(near: root.path))
        return KedgeError(
            .noSpace, message,
            detail: "\(written) bytes of it are written, and \(bytes) more are needed now. \(space)", hint: error.hint,
            cause: error)
    }

    /// The same after what was written of it was removed.
    func told(_ error: KedgeError, _ name: ObjectName, needing bytes: UInt64?) -> KedgeError {
        error.telling("could not store object \"\(name)\" in \(location)", needing: bytes, near: root.path)
    }

    package func beginUpload(_ name: ObjectName, expectedBytes: UInt64) throws(KedgeError) -> any ObjectUpload {
        try confirmRoot(whenLookingFor: name)
        do throws(KedgeError) {
            return LocalUpload(try beginFile(name), name: name, store: self)
        } catch {
            throw told(error, name, needing: nil)
        }
    }

    package func makeDurable(_ name: ObjectName) throws(KedgeError) {
        try openObject(name).sync()
        try openDirectory(name.parent).sync()
        try makeWayDurable(to: name)
    }

    /// A temporary file in the directory of `name`, which is made if it is missing.
    private func beginFile(_ name: ObjectName) throws(KedgeError) -> DurableFile {
        // Somebody else may remove the empty directory before our file is in it, so try more than once.
        for _ in 1..<LocalStore.maximumDirectoryAttempts {
            do throws(KedgeError) {
                return try newFile(for: name)
            } catch  where error.code == .notFound {
                try confirmRoot(whenLookingFor: name)
                try createDirectories(to: name)
            }
        }
        return try newFile(for: name)
    }

    private func newFile(for name: ObjectName) throws(KedgeError) -> DurableFile {
        let file = try DurableFile(in: openDirectory(name.parent), mode: LocalStore.fileMode, random: random)
        try owner?.take(file.file, name, of: self)
        return file
    }

    func publish(
        _ file: DurableFile, as name: ObjectName, replacing: Bool, sizeBytes: UInt64
    ) throws(KedgeError) -> PutOutcome {
        switch try file.publish(as: RawPath(name.lastComponent), replacing: replacing) {
        case .alreadyExists:
            return .alreadyExists
        case .created:
            try makeWayDurable(to: name)
            if sizeBytes >= UInt64(LocalStore.bulkBytes) { file.file.advise(.dontNeed) }
            return .created
        }
    }

    private func createDirectories(to name: ObjectName) throws(KedgeError) {
        for directory in name.directories {
            do throws(KedgeError) {
                let mode = LocalStore.directoryMode | LocalStore.stickyBit
                let isNew = try FileSystem.makeDirectory(directory.path, in: root, mode: mode)
                if isNew, let owner { try give(directory, to: owner) }
            } catch  where error.code == .notFound {
                // Its parent went away again: the caller's next attempt begins at the top.
                return
            }
        }
    }

    /// A new directory that its owner could not use would be in his way for good: none is left behind.
    private func give(_ directory: ObjectName, to owner: LocalStoreOwner) throws(KedgeError) {
        do throws(KedgeError) {
            try owner.take(openDirectory(directory), directory, of: self)
        } catch {
            _ = try FileSystem.removeEmptyDirectory(directory.path, in: root)
            throw error
        }
    }

    /// Makes the entry of each directory on the way to `name` durable.
    private func makeWayDurable(to name: ObjectName) throws(KedgeError) {
        guard let last = name.parent, try isNew(openDirectory(last)) else { return }
        for directory in name.directories {
            let opened = try openDirectory(directory)
            guard try isNew(opened) else { continue }
            try owner?.take(opened, directory, of: self)
            try openDirectory(directory.parent).sync()
            try opened.setMode(LocalStore.directoryMode)
        }
    }

    private func isNew(_ directory: borrowing FileDescriptor) throws(KedgeError) -> Bool {
        try directory.status().mode & LocalStore.stickyBit != 0
    }

    // MARK: Removing

    package func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        if let first = names.first { try confirmRoot(whenLookingFor: first) }
        var failures: [RemoveFailure] = []
        var removed: [ObjectName?: [ObjectName]] = [:]
        for name in names {
            do throws(KedgeError) {
                try confirmWay(to: name.parent)
                try FileSystem.removeFile(name.path, in: root)
            } catch  where error.code == .notFound {
                // Absent, perhaps by an attempt that died before it was durable: sync all the same.
            } catch {
                failures.append(RemoveFailure(name: name, error: error))
                continue
            }
            removed[name.parent, default: []].append(name)
        }
        for (directory, names) in removed {
            do throws(KedgeError) {
                try settleRemovals(in: directory)
            } catch {
                failures += names.map { RemoveFailure(name: $0, error: error) }
            }
        }
        return failures.sorted { $0.name < $1.name }
    }

    /// Removes `directory` and its parents as far as they are empty, and syncs the first that stays.
    private func settleRemovals(in directory: ObjectName?) throws(KedgeError) {
        var place = directory
        while let present = place {
            do throws(KedgeError) {
                if try !FileSystem.removeEmptyDirectory(present.path, in: root) {
                    return try openDirectory(present).sync()
                }
            } catch  where error.code == .notFound {
                // Somebody else removed it; whether that is durable shows in its parent.
            }
            place = present.parent
        }
        try root.sync()
    }

    // MARK: The root

    func openDirectory(_ directory: ObjectName?) throws(KedgeError) -> FileDescriptor {
        try confirmWay(to: directory)
        return try FileDescriptor.open(directory?.path ?? ".", in: root, [.read, .directory])
    }

    /// Throws `repository-unavailable` where a link or another file system is on the way down to `directory`, or is
    /// that itself, and `not-found` where there is no such directory: then the root may still have to be confirmed.
    ///
    /// One statx(2) for each directory of the way; what is a file there makes the call itself fail.
    private func confirmWay(to directory: ObjectName?) throws(KedgeError) {
        guard let directory else { return }
        for place in directory.directories + [directory] {
            let status = try FileStatus(of: place.path, in: root)
            if status.kind == .symbolicLink { throw elsewhere(place, "It is a symbolic link.") }
            if status.kind == .directory, status.isMountPoint || status.device != device {
                throw elsewhere(place, "Another file system is mounted there.")
            }
        }
    }

    func elsewhere(_ place: ObjectName, _ detail: String) -> KedgeError {
        KedgeError(
            .repositoryUnavailable, "could not rely on \"\(place)\" of \(location)",
            detail: detail + " What lies behind it may be out of reach at any time, and would then look as if it had "
                + "never been.",
            hint: "Keep a repository on one file system: move what lies there into the repository. If it needs another "
                + "disk, mount or link the repository's root itself.")
    }

    /// Throws `repository-unavailable` unless the root is still the directory of a repository.
    ///
    /// The marker itself may be absent when it is what is looked for: that is how `init` finds a new directory.
    func confirmRoot(whenLookingFor name: ObjectName?) throws(KedgeError) {
        guard try root.status().linkCount > 0 else {
            throw unavailable("The directory was removed while it was in use.")
        }
        guard let marker, marker != name else { return }
        do throws(KedgeError) {
            _ = try objectStatus(FileStatus(of: marker.path, in: root), of: marker)
        } catch  where error.code == .notFound {
            throw unavailable(
                "It does not hold \"\(marker)\", as every repository does"
                    + (isEmpty ? ": it is empty, as a directory is whose file system is not mounted." : "."))
        }
    }

    /// Whether there is nothing in the root. False where that can't be found out: it is only told along with an error.
    private var isEmpty: Bool {
        do throws(KedgeError) {
            return try Directory.entries(of: root).isEmpty
        } catch {
            return false
        }
    }

    private func unavailable(_ detail: String) -> KedgeError {
        KedgeError(
            .repositoryUnavailable, "could not use repository directory \"\(root.path)\"", detail: detail,
            hint: LocalStore.absentRootHint)
    }

    private static let absentRootHint =
        "Check that its file system is mounted and that the setting \"path\" is right. "
        + "For a new repository, run \"kedge init\"."

    private static let fileMode: UInt32 = 0o640
    private static let directoryMode: UInt32 = 0o750
    /// Means "not known to be durable" on a directory of ours; it has no other effect on them.
    private static let stickyBit: UInt32 = 0o1000
    private static let maximumDirectoryAttempts = 16
    /// From this size on reads and writes leave nothing in the page cache.
    private static let bulkBytes = 64 << 10
}

extension ObjectName {
    /// The file of this object, relative to the root.
    var path: RawPath { RawPath(text) }

    /// The directories on the way to this object, from the top down.
    fileprivate var directories: [ObjectName] {
        var directories: [ObjectName] = []
        var place = parent
        while let present = place {
            directories.append(present)
            place = present.parent
        }
        return directories.reversed()
    }
}

extension ObjectStatus {
    init(_ status: FileStatus) { self.init(sizeBytes: status.sizeBytes, modified: status.modified) }
}

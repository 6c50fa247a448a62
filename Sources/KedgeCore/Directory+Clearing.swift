// Removing a tree of any depth and size, with a handful of descriptors and without leaving it.

import Glibc

/// What was removed.
package struct RemovedFiles: Hashable, Sendable {
    /// Files and links; directories do not count.
    package var files: UInt64 = 0
    /// What they took up on the disk, unless another name still leads to them.
    package var bytes: UInt64 = 0

    package init() {}
}

extension Directory {
    /// Removes the directory `name` below an open one with everything in it.
    ///
    /// Links are removed, never followed, and nothing that is mounted is entered: that throws `not-empty`. A tree may
    /// be deeper than any path is long: a directory's own directories are moved up before it is removed. Killed at any
    /// point, it has only removed things of this tree, and can be begun again.
    package static func clear(
        _ name: RawPath, in parent: borrowing FileDescriptor, counting removed: inout RemovedFiles
    ) throws(KedgeError) {
        let top = try openOwn(name, in: parent)
        var number = 0
        while true {
            let entries = try entries(of: top)
            if entries.isEmpty { break }
            for entry in entries {
                guard entry.kind == .directory else {
                    try removeFile(entry.name, in: top, counting: &removed)
                    continue
                }
                try lift(entry.name, in: top, &number, counting: &removed)
            }
        }
        guard try FileSystem.removeEmptyDirectory(name, in: parent) else {
            throw KedgeError(
                .notEmpty, "could not remove directory \"\(parent.path.appending(name))\"",
                detail: "Something adds files to it, or is mounted on it.",
                hint: "Look for a process that works there, and unmount what is mounted.")
        }
    }

    /// Removes one file or link and counts it.
    package static func removeFile(
        _ name: RawPath, in directory: borrowing FileDescriptor, counting removed: inout RemovedFiles
    ) throws(KedgeError) {
        let status = try FileStatus(of: name, in: directory)
        try FileSystem.removeFile(name, in: directory)
        removed.files += 1
        if status.linkCount <= 1 { removed.bytes += status.allocatedBytes }
    }

    /// Empties the directory `name` of `top`: its files go, its directories move up into `top`. Then removes it.
    private static func lift(
        _ name: RawPath, in top: borrowing FileDescriptor, _ number: inout Int, counting removed: inout RemovedFiles
    ) throws(KedgeError) {
        let directory = try openOwn(name, in: top)
        for entry in try entries(of: directory) {
            guard entry.kind == .directory else {
                try removeFile(entry.name, in: directory, counting: &removed)
                continue
            }
            // Only an owner's right to write lets a directory be moved, since its ".." changes.
            _ = try openOwn(entry.name, in: directory)
            var target: RawPath
            repeat {
                number += 1
                target = RawPath("kedge-removed-\(number)")
            } while try exists(target, in: top)
            try FileSystem.rename(entry.name, in: directory, to: target, in: top)
        }
        _ = try FileSystem.removeEmptyDirectory(name, in: top)
    }

    private static func exists(_ name: RawPath, in directory: borrowing FileDescriptor) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            _ = try FileStatus(of: name, in: directory)
            return true
        } catch  where error.code == .notFound {
            return false
        }
    }

    /// Opens a directory that lies on the same file system as its parent, with all rights for its owner.
    private static func openOwn(
        _ name: RawPath, in parent: borrowing FileDescriptor
    ) throws(KedgeError) -> FileDescriptor {
        let status = try FileStatus(of: name, in: parent)
        let path = parent.path.appending(name)
        let device = try parent.status().device
        if status.isMountPoint || status.device != device {
            throw KedgeError(
                .notEmpty, "cannot remove directory \"\(path)\": something is mounted there",
                detail: "What is mounted is no part of this directory, so nothing in it is touched.",
                hint: "Unmount it, then run the command again.")
        }
        if status.mode & 0o700 != 0o700, status.user == FileSystem.ownUser {
            try FileSystem.setMode(of: name, in: parent, status.mode | 0o700)
        }
        return try FileDescriptor.open(name, in: parent, [.read, .directory, .noFollow])
    }
}

// MARK: - Usage

extension Directory {
    /// What a tree takes up.
    package struct Usage: Hashable, Sendable {
        /// On the disk, but for files that another name leads to as well.
        package fileprivate(set) var bytes: UInt64 = 0
        /// Files and links.
        package fileprivate(set) var files: UInt64 = 0
        /// Files, links and directories.
        package fileprivate(set) var inodes: UInt64 = 0

        package init() {}
    }

    /// What the tree at `path` takes up, or the one file there; nothing where nothing is. Follows no link, enters
    /// nothing that is mounted below it, and passes over what vanishes or lies deeper than a path can be long, and over
    /// what is the file system's own, which only root can read.
    package static func usage(at path: RawPath) throws(KedgeError) -> Usage {
        var usage = Usage()
        do throws(KedgeError) {
            let status = try FileStatus(at: path)
            usage.add(status)
            guard status.kind == .directory else { return usage }
        } catch  where error.code == .notFound {
            return usage
        }
        var rest = [path]
        while let next = rest.popLast() {
            if next.bytes.count >= 4000 { continue }
            do throws(KedgeError) {
                let directory = try FileDescriptor.open(next, [.read, .directory, .noFollow])
                for entry in try entries(of: directory) where entry.name != FileSystem.ownDirectory {
                    let status = try FileStatus(of: entry.name, in: directory)
                    usage.add(status)
                    if status.kind == .directory && !status.isMountPoint { rest.append(next.appending(entry.name)) }
                }
            } catch  where error.code == .notFound {
                // It has gone.
            }
        }
        return usage
    }
}

extension Directory.Usage {
    fileprivate mutating func add(_ status: FileStatus) {
        inodes += 1
        guard status.kind != .directory else { return }
        files += 1
        if status.linkCount <= 1 { bytes += status.allocatedBytes }
    }
}

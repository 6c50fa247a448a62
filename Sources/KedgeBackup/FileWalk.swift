// Lists a data directory and its tablespaces, in path order.
//
// Invariants:
// 1. Only the names of the directories on the way down are in memory; everything found goes to the listing.
// 2. What vanishes between two calls is normal: a directory that is gone stays as an empty one, a file is left out.
// 3. No link is followed but those of tablespaces and those of directories whose content is not taken (pg_wal).
// 4. A tablespace that lies inside the data directory, and directories of Kedge's own there, are left empty.

package import KedgeCatalog
package import KedgeCore

/// Walks one data directory. Used by one thread at a time.
package final class FileWalk {
    /// What to walk.
    package struct Options: Sendable {
        package var dataDirectory: RawPath
        package var policy: FilePolicy
        package var relationSegmentBlocks: UInt32
        /// Configuration files as the server names them; those inside the data directory are found by the walk.
        package var configurationFiles: [RawPath]
        /// Directories that are Kedge's own: the work directory, a local repository.
        package var ownDirectories: [RawPath]

        package init(
            dataDirectory: RawPath, policy: FilePolicy, relationSegmentBlocks: UInt32,
            configurationFiles: [RawPath] = [], ownDirectories: [RawPath] = []
        ) {
            self.dataDirectory = dataDirectory
            self.policy = policy
            self.relationSegmentBlocks = relationSegmentBlocks
            self.configurationFiles = configurationFiles
            self.ownDirectories = ownDirectories
        }
    }

    /// What was found out besides the listing.
    package struct Outcome: Sendable {
        /// Each a sentence about something that was left out; the first of them.
        package fileprivate(set) var warnings: [String] = []
        package fileprivate(set) var warningCount = 0
        /// The extra files that are listed.
        package fileprivate(set) var extraFiles: [RawPath] = []
        /// The tablespaces whose links or directories are listed.
        package fileprivate(set) var tablespaces: [CommitRecord.Tablespace] = []
        /// The permission bits of the data directory itself.
        package fileprivate(set) var dataDirectoryMode: UInt32 = 0o700
        /// Where `pg_wal` leads, if it is a symbolic link, as the link holds it (lesson 30).
        package fileprivate(set) var walDirectory: RawPath?

        package static let maximumWarnings = 100

        /// The warnings, and how many more there were.
        package var allWarnings: [String] {
            let more = warningCount - warnings.count
            return more == 0 ? warnings : warnings + ["\(more) more files were left out."]
        }

        fileprivate mutating func warn(_ text: String) {
            warningCount += 1
            if warnings.count < Outcome.maximumWarnings { warnings.append(text) }
        }
    }

    private struct DirectoryIdentity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    private let options: Options
    private let listing: FileListing
    private let interruption: Interruption
    private var outcome = Outcome()
    /// Directories that are listed and not entered.
    private var notEntered: Set<DirectoryIdentity> = []

    private init(_ options: Options, into listing: FileListing, unless interruption: Interruption) {
        self.options = options
        self.listing = listing
        self.interruption = interruption
    }

    /// Appends all that a backup keeps to `listing`.
    package static func run(
        _ options: Options, into listing: FileListing, unless interruption: Interruption,
        time: any TimeSource = SystemTimeSource()
    ) throws(KedgeError) -> Outcome {
        let walk = FileWalk(options, into: listing, unless: interruption)
        try walk.findDirectoriesToLeaveEmpty()
        // Absolute paths come first in path order: "/" is lower than any other byte.
        try walk.listExtraFiles()
        walk.outcome.dataDirectoryMode = try FileStatus(at: options.dataDirectory, followLinks: true).mode
        try walk.enter(nil, at: options.dataDirectory, as: .dataDirectory)
        try requireTablespaces(walk.outcome.tablespaces, of: options, time: time)
        return walk.outcome
    }

    /// Throws `not-found` where the directory of one of these tablespaces is not there.
    ///
    /// The server makes it before the link and removes the link with it (src/backend/commands/tablespace.c). Where it
    /// is missing its file system is not mounted, and the server runs all the same: a backup would lack all that is in
    /// the tablespace, and expire would remove those that have it. One that is dropped meanwhile has no link either,
    /// but for a moment: so it is looked at again for a second.
    package static func requireTablespaces(
        _ tablespaces: [CommitRecord.Tablespace], of options: Options, time: any TimeSource = SystemTimeSource()
    ) throws(KedgeError) {
        let version = options.policy.tablespaceVersionDirectory
        for tablespace in tablespaces {
            let link = options.dataDirectory.appending("pg_tblspc").appending(String(tablespace.oid))
            var looks = 100
            while looks > 0, try !isDirectory(link.appending(version)), try FileSystem.exists(link) {
                looks -= 1
                time.sleep(nanoseconds: 10_000_000)
            }
            guard looks == 0 else { continue }
            throw KedgeError(
                .notFound,
                "cannot back up tablespace \(tablespace.oid): \"\(tablespace.path)\" holds no \"\(version)\"",
                detail: "The server makes that directory with the tablespace.  Without it a backup would lack all that "
                    + "is in the tablespace.",
                hint: "Mount the file system that belongs there, or put the directory back.  Drop a tablespace that is "
                    + "lost for good; for one of temporary files alone an empty directory of that name will do.")
        }
    }

    // MARK: Extra files

    private func listExtraFiles() throws(KedgeError) {
        var paths: Set<ManifestPath> = []
        for path in options.configurationFiles {
            if let outside = try outsideDataDirectory(path) { paths.insert(ManifestPath(bytes: outside.bytes)) }
        }
        for path in paths.sorted() {
            let source = RawPath(bytes: path.bytes)
            guard path.isSafeAbsolute else {
                outcome.warn("Configuration file \"\(source)\" was left out: kedge cannot keep a file of this name.")
                continue
            }
            do throws(KedgeError) {
                let status = try FileDescriptor.open(source, .read).status()
                guard status.kind == .regular else {
                    outcome.warn("Configuration file \"\(source)\" was left out: it is no regular file.")
                    continue
                }
                guard status.sizeBytes <= FileContent.smallFileLimit else {
                    outcome.warn(
                        "Configuration file \"\(source)\" was left out: it has \(status.sizeBytes) bytes, which no "
                            + "configuration has.")
                    continue
                }
                guard outcome.extraFiles.count < ManifestEntry.extraFileLimit else {
                    outcome.warn(
                        "Configuration file \"\(source)\" was left out: a backup keeps at most "
                            + "\(ManifestEntry.extraFileLimit) from outside the data directory.")
                    continue
                }
                outcome.extraFiles.append(source)
                try append(path, status, .extraFile(sizeBytes: status.sizeBytes))
            } catch  where error.code == .notFound || error.code == .permission {
                // A restored cluster starts without it: it would not start on this host's paths either.
                outcome.warn("Configuration file \"\(source)\" was left out: \(error.detail ?? error.message)")
            }
        }
    }

    /// Where the content of a configuration file lies, if that is outside the data directory.
    private func outsideDataDirectory(_ path: RawPath) throws(KedgeError) -> RawPath? {
        guard path.isAbsolute else { return nil }
        do throws(KedgeError) {
            // The server may know the data directory by another path than we do.
            let directory = try FileSystem.canonicalPath(of: options.dataDirectory)
            guard FileWalk.lies(try FileSystem.canonicalPath(of: path.parent), in: directory) else { return path }
            // Inside, but perhaps a link to the outside, which the walk leaves out.
            guard try FileStatus(at: path).kind == .symbolicLink else { return nil }
            let target = try FileSystem.canonicalPath(of: path)
            return FileWalk.lies(target, in: directory) ? nil : target
        } catch  where error.code == .notFound {
            // Opening it will tell.
            return path
        }
    }

    private static func lies(_ path: RawPath, in directory: RawPath) -> Bool {
        path == directory || path.bytes.starts(with: directory.bytes + [0x2F])
    }

    // MARK: The tree

    private func findDirectoriesToLeaveEmpty() throws(KedgeError) {
        var directories = options.ownDirectories
        let links = options.dataDirectory.appending("pg_tblspc")
        for entry in try Directory.entries(at: links) where entry.kind == .symbolicLink {
            directories.append(links.appending(entry.name))
        }
        for directory in directories {
            do throws(KedgeError) {
                let status = try FileStatus(at: directory, followLinks: true)
                notEntered.insert(DirectoryIdentity(device: status.device, inode: status.inode))
            } catch  where error.code == .notFound {
                // A dangling link, which is refused in the end; or a directory that is still to be made.
            }
        }
    }

    /// Lists what lies in the directory whose entry, if it has one, is listed already.
    private func enter(_ path: ManifestPath?, at source: RawPath, as place: Place) throws(KedgeError) {
        try interruption.checkpoint()
        let directory: FileDescriptor
        do throws(KedgeError) {
            directory = try FileDescriptor.open(source, [.read, .directory])
        } catch  where error.code == .notFound && path != nil {
            return
        }
        let names = try Directory.entries(of: directory)
        let unlogged = place == .database ? FileWalk.unloggedRelations(names) : []
        for entry in names {
            let decision = options.policy.decide(entry.name, kind: entry.kind, in: place) { unlogged.contains($0) }
            do throws(KedgeError) {
                try apply(decision, to: entry, in: path, source: source.appending(entry.name), directory)
            } catch  where error.code == .notFound {
                // It vanished after the directory was read.
            }
        }
    }

    private static func unloggedRelations(_ names: [DirectoryEntry]) -> Set<UInt32> {
        var numbers: Set<UInt32> = []
        for entry in names {
            if let name = RelationFileName(entry.name.bytes), name.fork == .initialization {
                numbers.insert(name.number)
            }
        }
        return numbers
    }

    private func apply(
        _ decision: FileDecision, to entry: DirectoryEntry, in parent: ManifestPath?, source: RawPath,
        _ directory: borrowing FileDescriptor
    ) throws(KedgeError) {
        let path = ManifestPath(bytes: parent.map { $0.bytes + [0x2F] + entry.name.bytes } ?? entry.name.bytes)
        switch decision {
        case .skip: break
        case .skipSpecial:
            outcome.warn(
                entry.kind == .symbolicLink
                    ? "Symbolic link \"\(source)\" was left out: only links of tablespaces are kept."
                    : "\"\(source)\" was left out: it is neither a regular file nor a directory.")
        case .refuseLink: throw FileWalk.unexpectedLink(source)
        case .emptyDirectory:
            try append(path, try FileStatus(of: entry.name, in: directory, followLinks: true), .directory)
        case .directory(let place):
            let status = try FileStatus(of: entry.name, in: directory, followLinks: true)
            try append(path, status, .directory)
            if place == .wal && entry.kind == .symbolicLink {
                outcome.walDirectory = try FileSystem.symbolicLinkTarget(at: source)
            }
            if place == .tablespace { addTablespace(entry.name, path: RawPath(bytes: path.bytes), inPlace: true) }
            guard !notEntered.contains(DirectoryIdentity(device: status.device, inode: status.inode)) else { return }
            try enter(path, at: source, as: place)
        case .tablespaceLink:
            let status = try FileStatus(of: entry.name, in: directory)
            let target = try FileSystem.symbolicLinkTarget(at: source)
            try append(path, status, .symbolicLink(target.bytes))
            addTablespace(entry.name, path: target, inPlace: false)
            try enter(path, at: source, as: .tablespace)
        case .copy(let content):
            let status = try FileStatus(of: entry.name, in: directory)
            // It may have been replaced by something else since the directory was read.
            guard status.kind == .regular else { return }
            // Now rather than after hours of copying.
            let limit = path.isSmallFile ? FileContent.smallFileLimit : FileContent.maximumSize
            guard status.sizeBytes <= limit else {
                throw FileContent.tooLarge(path, sizeBytes: status.sizeBytes, limit: limit)
            }
            try append(path, status, .file(nature(of: content), sizeBytes: status.sizeBytes))
        }
    }

    private func addTablespace(_ name: RawPath, path: RawPath, inPlace: Bool) {
        // The policy has found the name to be an OID.
        guard let oid = name.text.flatMap({ UInt32($0) }) else { return }
        outcome.tablespaces.append(CommitRecord.Tablespace(oid: oid, path: path, inPlace: inPlace))
    }

    private func nature(of content: FileContentKind) -> FileNature {
        switch content {
        case .controlFile: return .controlFile
        case .whole: return .whole
        case .relation(let name):
            let block = name.firstBlock(relationSegmentBlocks: options.relationSegmentBlocks)
            return block.map { .relation(firstBlock: $0) } ?? .whole
        }
    }

    private func append(_ path: ManifestPath, _ status: FileStatus, _ kind: ListedEntry.Kind) throws(KedgeError) {
        try listing.append(
            ListedEntry(
                path: path, mode: status.mode, modificationTime: status.modifiedNanoseconds, kind: kind))
    }

    private static func isDirectory(_ path: RawPath) throws(KedgeError) -> Bool {
        do throws(KedgeError) {
            return try FileStatus(at: path, followLinks: true).kind == .directory
        } catch  where error.code == .notFound {
            return false
        }
    }

    private static func unexpectedLink(_ path: RawPath) -> KedgeError {
        KedgeError(
            .notSupported, "cannot back up symbolic link \"\(path)\"",
            detail:
                "A cluster does not start without what it leads to, and PostgreSQL makes links only for tablespaces "
                + "and pg_wal.",
            hint: "Stop the server and move the data into the data directory, or into a tablespace.")
    }
}

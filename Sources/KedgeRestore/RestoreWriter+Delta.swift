// How a restore takes possession of its directory, and what --delta does before the content of files is compared.
//
//   marker → pg_control away → sync → no server has come meanwhile → what does not belong goes, directories and links
//
// Until pg_control is away nothing of a data directory is changed; from then on no server starts on it.

import KedgeCatalog
package import KedgeCore
import KedgeRepository

/// What a restore with --delta did, or would do.
package struct DeltaOutcome: Hashable, Sendable {
    /// Bytes of files that were there, read and compared.
    package let comparedBytes: UInt64
    /// Bytes of files that were missing or differed, as restored: fetched from the repository.
    package let fetchedBytes: UInt64
    package let removed: RemovedFiles
    /// Directories of tablespaces that the data directory used and no longer does. They were not touched.
    package let abandoned: [RawPath]
    /// WAL that only the data directory had, and what became of it; nil where there was none.
    package let unarchived: UnarchivedWALOutcome?
}

extension RestoreWriter {
    /// Marks the directory as one that is being restored; with --delta, aligns its tree of files. Returns what was
    /// removed.
    ///
    /// Throws `server-running`, with everything as it was, where a server has been started since the first check; what
    /// has come after `pg_control` was away is told as a restore that could not be finished.
    func takePossession(_ directories: PackDirectories) throws(KedgeError) -> RemovedFiles {
        let roots = Array(writtenRoots.dropFirst()) + (preparation.grant?.obsolete ?? [])
        let marker = RestoreMarker(
            system: backup.server.systemIdentifier, backup: backup.label, pgdata: pgdata,
            directories: Array(Set(try roots.map(FileSystem.resolved))).sorted())
        if preparation.grant == nil {
            try marker.write(in: pgdata, random: random)
            return RemovedFiles()
        }
        try DeltaTarget.requireStopped(pgdata)
        try marker.write(in: pgdata, random: random)
        try withdrawControlFile()
        progress.begin("removing what does not belong")
        do throws(KedgeError) {
            return try align(directories)
        } catch {
            // The same error as that of the checks above, but pg_control and files are gone by now.
            throw error.code == .serverRunning ? unfinished(error) : error
        }
    }

    /// What the name of pg_control gets. The file goes with all else that is not in the backup.
    static let suffix = ".kedge-restore"

    /// Renames pg_control away, durably, and looks again whether a server runs.
    ///
    /// A server that starts makes its postmaster.pid before it reads pg_control (src/backend/postmaster/postmaster.c,
    /// PostmasterMain): so either it is seen here, or it does not find pg_control.
    private func withdrawControlFile() throws(KedgeError) {
        let data = try FileDescriptor.open(pgdata, [.read, .directory])
        switch try DeltaTarget.kind(of: "global", in: data) {
        // Whatever a link leads to is not ours, and a server would find its pg_control: the link goes.
        case .symbolicLink: try withdraw("global", in: data)
        case .directory:
            let global = try FileDescriptor.open("global", in: data, [.read, .directory, .noFollow])
            switch try DeltaTarget.kind(of: "pg_control", in: global) {
            case .directory, nil: break
            case .regular, .symbolicLink, .other: try withdraw("pg_control", in: global)
            }
        default: break
        }
    }

    private func withdraw(_ name: RawPath, in directory: borrowing FileDescriptor) throws(KedgeError) {
        let withdrawn = RawPath(bytes: name.bytes + Array(RestoreWriter.suffix.utf8))
        try FileSystem.rename(name, in: directory, to: withdrawn, in: directory)
        try directory.sync()
        do throws(KedgeError) {
            try DeltaTarget.requireStopped(pgdata)
        } catch {
            try FileSystem.rename(withdrawn, in: directory, to: name, in: directory)
            try directory.sync()
            try RestoreMarker.remove(in: pgdata)
            throw error
        }
    }

    /// Makes the tree of files that of the backup, but for the content of files.
    private func align(_ directories: PackDirectories) throws(KedgeError) -> RemovedFiles {
        var alignment = alignment
        for path in preparation.grant?.obsolete ?? [] { try alignment.clearTablespace(path) }
        let data = try FileDescriptor.open(pgdata, [.read, .directory])
        if try data.status().mode & 0o777 != preparation.survey.directoryMode {
            try data.setMode(preparation.survey.directoryMode)
        }
        try RestoreWriter.forEachStep(alignment, preparation, directories) { (step) throws(KedgeError) in
            try interruption.checkpoint()
            try alignment.apply(step)
        }
        if let owner {
            for path in preparation.keptWAL {
                let place = alignment.place(of: path)
                guard try FileSystem.exists(place) else { continue }
                try FileSystem.setOwner(of: place, user: owner.user, group: owner.group)
            }
        }
        return alignment.removed
    }

    /// Hands `body` every step from the tree that is there to that of the backup.
    static func forEachStep(
        _ alignment: TreeAlignment, _ preparation: RestorePreparation, _ directories: PackDirectories,
        _ body: (TreeStep) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        let kept = preparation.keptWAL
        var merge = try alignment.merge()
        var reader = ManifestReader(preparation.root, reader: PackReader(directories))
        while let entry = try reader.next() {
            if case .extraFile = entry.kind { continue }
            // The restore makes these itself, at the end: what is there of them goes.
            if leftOut.contains(entry.path) || madeLast.contains(entry.path) { continue }
            for step in try merge.take(entry) where try !step.passesOver(kept) { try body(step) }
        }
        for step in merge.finish() where try !step.passesOver(kept) { try body(step) }
    }

    private static let madeLast: Set<ManifestPath> = [controlFile, autoConfiguration]
}

// MARK: - Dry run

extension RestoreWriter {
    /// What a restore with --delta would fetch and remove. Reads everything that is there, and changes nothing. Nil for
    /// a restore without --delta.
    func compare() throws(KedgeError) -> DeltaOutcome? {
        guard options.isDelta else { return nil }
        guard preparation.grant != nil else { return outcome(nil, RemovedFiles()) }
        let (progress, interruption) = (progress, interruption)
        progress.begin("comparing", totalBytes: preparation.survey.totalBytes)
        let directories = PackDirectories(preparation.cluster)
        let checksums = try ChecksumList(count: 0, in: options.workDirectory, random: random)
        let content = ContentAlignment(owner: nil, isDryRun: true)
        var queue = try WriteQueue(workers: options.processMax, alignment: content, progress: progress) {
            FileWorker(
                alignment: content, directories: directories, checksums: checksums, progress: progress,
                interruption: interruption)
        }
        var removed = RemovedFiles()
        for path in preparation.grant?.obsolete ?? [] {
            removed.add(try Directory.usage(at: path.appending(preparation.versionDirectory)))
        }
        try RestoreWriter.forEachStep(alignment, preparation, directories) { (step) throws(KedgeError) in
            try interruption.checkpoint()
            switch step {
            case .remove(let path, _) where TreeAlignment.isMadeAnew(path): break
            case .remove(let path, _): removed.add(try Directory.usage(at: alignment.place(of: path)))
            case .make(let entry), .replace(let entry, _):
                if case .replace = step { removed.add(try Directory.usage(at: alignment.place(of: entry.path))) }
                content.count(fetched: entry.content?.size ?? 0, progress)
            case .keep(let entry):
                guard case .file(let file) = entry.kind else { break }
                let status = try FileStatus(at: alignment.place(of: entry.path))
                guard alignment.isUsable(status) else {
                    removed.files += 1
                    content.count(fetched: file.size, progress)
                    break
                }
                try queue.add(
                    FileTask(
                        number: 0, path: entry.path, place: alignment.place(of: entry.path), mode: entry.mode,
                        modificationTime: entry.modificationTime, content: file))
            }
        }
        try queue.finish()
        return outcome(content, removed)
    }

    /// Nil for `content`: there was nothing to compare with.
    func outcome(_ content: ContentAlignment?, _ removed: RemovedFiles) -> DeltaOutcome {
        DeltaOutcome(
            comparedBytes: content?.comparedBytes ?? 0,
            fetchedBytes: content?.fetchedBytes ?? preparation.survey.totalBytes, removed: removed,
            abandoned: preparation.grant?.abandoned ?? [], unarchived: preparation.unarchived)
    }
}

extension RemovedFiles {
    fileprivate mutating func add(_ usage: Directory.Usage) {
        files += usage.files
        bytes += usage.bytes
    }
}

extension TreeStep {
    /// Whether the step is about a file of `kept`, which stays as it is. Throws `damaged` where the backup has one of
    /// them, or no pg_wal: no server's backup is like that.
    fileprivate func passesOver(_ kept: Set<ManifestPath>) throws(KedgeError) -> Bool {
        if kept.isEmpty { return false }
        let isDirectory = path == "pg_wal"
        switch self {
        case .remove where !isDirectory: return kept.contains(path)
        case .replace where isDirectory, .remove: break
        case .make, .replace, .keep:
            guard kept.contains(path) else { return false }
        }
        throw KedgeError(
            .damaged, "cannot restore \"\(path)\" and keep the unarchived WAL of the data directory",
            detail: "The backup has other WAL in pg_wal, or no pg_wal at all.",
            hint: "Somebody may have tampered with the repository.  Restore another backup, or this one from another "
                + "repository.")
    }

    private var path: ManifestPath {
        switch self {
        case .remove(let path, _): path
        case .make(let entry), .replace(let entry, _), .keep(let entry): entry.path
        }
    }
}

extension RestorePreparation {
    /// The files of pg_wal that stay.
    fileprivate var keptWAL: Set<ManifestPath> {
        guard let unarchived, unarchived.choice == .keep else { return [] }
        return Set(unarchived.wal.keptNames.map { ManifestPath("pg_wal/" + $0) })
    }
}

// The writing half of a restore. See Restore.swift for the order and why it is that one.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository

/// Writes what was prepared.
struct RestoreWriter {
    let preparation: RestorePreparation
    let options: Restore.Options
    let progress: WorkProgress
    let random: any RandomSource
    let interruption: Interruption

    var backup: CommitRecord { preparation.plan.backup }
    var majorVersion: Int { backup.server.postgresVersion }
    var pgdata: RawPath { options.pgdata }

    static let controlFile: ManifestPath = "global/pg_control"
    static let autoConfiguration: ManifestPath = "postgresql.auto.conf"
    static let manifestFile = "backup_manifest"
    static let tablespaceMap = "tablespace_map"
    /// A backup from a standby holds its signal file; ours says what this restore is for.
    static let leftOut: Set<ManifestPath> = [
        "recovery.signal", "standby.signal", "backup_manifest", "postmaster.pid", "postmaster.opts",
        ManifestPath(bytes: RestoreMarker.name.bytes),
    ]
    /// With --delta: whom everything belongs to, where that is not us.
    let owner: DeltaOwner?
    /// Where the tree of files goes, and what of it is there.
    let alignment: TreeAlignment

    init(
        _ preparation: RestorePreparation, _ options: Restore.Options, progress: WorkProgress,
        random: any RandomSource, interruption: Interruption
    ) throws(KedgeError) {
        self.preparation = preparation
        self.options = options
        self.progress = progress
        self.random = random
        self.interruption = interruption
        owner = preparation.grant == nil ? nil : try DeltaOwner(of: options.pgdata)
        alignment = TreeAlignment(
            pgdata: options.pgdata, placements: preparation.placements, walDirectory: options.walDirectory,
            versionDirectory: RawPath(preparation.versionDirectory), owner: owner)
    }

    /// Writes everything, durably. Returns what a restore with --delta did; nil for another.
    func run() throws(KedgeError) -> DeltaOutcome? {
        let delta: DeltaOutcome?
        do throws(KedgeError) {
            delta = try write()
        } catch {
            // Before anything was touched nothing is incomplete.
            throw error.code == .locked || error.code == .serverRunning || error.code == .notEmpty
                ? error : unfinished(error)
        }
        do throws(KedgeError) {
            try RestoreMarker.remove(in: pgdata)
        } catch {
            throw error.wrapped(
                "could not remove the mark of a restore from directory \"\(pgdata)\"",
                detail: "The restore itself is complete and durable.",
                hint: "Remove \"\(RestoreMarker.name)\", and start the server.")
        }
        return delta
    }

    func unfinished(_ error: KedgeError) -> KedgeError {
        let others = writtenRoots.dropFirst().map { " and what is in \"\($0)\"" }.joined()
        return error.wrapped(
            "could not finish the restore into directory \"\(pgdata)\"",
            detail: "What was written is incomplete, and no server will start on it.",
            hint: options.isDelta
                ? "Run the command again: it goes on where this one has stopped.  \(error.hint ?? "")"
                : "Remove \"\(pgdata)\"\(others), then run the command again.  Or add \"--delta\": that goes on where "
                    + "this one has stopped.  \(error.hint ?? "")")
    }

    private func write() throws(KedgeError) -> DeltaOutcome? {
        let checksums = try ChecksumList(
            count: preparation.survey.files, in: options.workDirectory, random: random)
        let directories = PackDirectories(preparation.cluster)
        try createRoots()
        try preparation.lock.takeNew()
        let removed = try takePossession(directories)
        // In an empty directory there is nothing to compare with.
        let isComparing = preparation.grant != nil
        progress.begin(isComparing ? "comparing" : "restoring", totalBytes: preparation.survey.totalBytes)
        let content = isComparing ? ContentAlignment(owner: owner, isDryRun: false) : nil
        let held = try writeFiles(directories, checksums, content)
        progress.begin("making durable")
        try syncFileSystems()
        let control = try ControlFile.poisoned(held.control.bytes)
        let (automatic, map) = try writeConfiguration(held)
        try placePartial()
        var replaced = [RestoreWriter.controlFile: control]
        if held.automatic != nil { replaced[RestoreWriter.autoConfiguration] = automatic }
        try writeServerManifest(directories, checksums, replaced: replaced, tablespaceMap: map)
        try syncFileSystems()
        try interruption.checkpoint()
        try publishControlFile(control, mode: held.control.mode)
        return options.isDelta ? outcome(content, removed) : nil
    }

    /// From here on a server starts.
    private func publishControlFile(_ control: [UInt8], mode: UInt32) throws(KedgeError) {
        let path = path(RestoreWriter.controlFile)
        let file = try DurableFile(
            in: FileDescriptor.open(path.parent, [.read, .directory]), mode: mode, random: random)
        try owner?.apply(to: file.file, file.file.status())
        try file.file.write(control, at: 0)
        guard try file.publish(as: path.lastComponent) == .created else {
            throw KedgeError(
                .alreadyExists, "cannot create file \"\(path)\"", detail: "It has appeared just now.",
                hint: "Check whether somebody else writes there.")
        }
    }

    func path(_ path: ManifestPath) -> RawPath { pgdata.appending(RawPath(bytes: path.bytes)) }

    // MARK: - Directories

    private static let walDirectory: ManifestPath = "pg_wal"

    /// The directories outside of which nothing is written.
    var writtenRoots: [RawPath] {
        [pgdata] + preparation.placements.map(\.target) + [options.walDirectory].compactMap(\.self)
    }

    /// Makes the data directory and those of the tablespaces, with the mode that the server asks for.
    private func createRoots() throws(KedgeError) {
        let mode = preparation.survey.directoryMode
        var roots = writtenRoots
        // Replay makes no directories for the tablespaces that it creates: they have to be there.
        roots += preparation.plan.tablespaces.map(\.path).filter(\.isAbsolute)
        for root in roots {
            let isNew = try !FileSystem.exists(root)
            try Directory.createWithParents(at: root, mode: mode)
            if isNew, let owner { try FileSystem.setOwner(of: root, user: owner.user, group: owner.group) }
            let directory = try FileDescriptor.open(root, [.read, .directory])
            // A directory that holds something, such as a tablespace of another version, stays as it is.
            guard try Directory.entries(of: directory).isEmpty else { continue }
            if try directory.status().mode & 0o777 != mode { try directory.setMode(mode) }
        }
    }

    private func syncFileSystems() throws(KedgeError) {
        var seen: Set<UInt64> = []
        // What was removed must not come back either, where recovery makes a tablespace anew.
        for root in writtenRoots + (preparation.grant?.obsolete ?? []) {
            let directory = try FileDescriptor.open(root, [.read, .directory])
            if seen.insert(try directory.status().device).inserted { try directory.syncFileSystem() }
        }
        // The entries of the roots themselves lie in their parents.
        for root in writtenRoots { try Directory.sync(root.parent) }
    }

    // MARK: - Files

    /// Files that are not written as they are.
    private struct Held {
        struct File {
            var bytes: [UInt8]
            var mode: UInt32
        }

        var control = File(bytes: [], mode: 0o600)
        var automatic: File?
    }

    /// Writes all files but those that are held, and returns these.
    private func writeFiles(
        _ directories: PackDirectories, _ checksums: ChecksumList, _ alignment: ContentAlignment?
    ) throws(KedgeError) -> Held {
        let (progress, interruption) = (progress, interruption)
        var queue = try WriteQueue(workers: options.processMax, alignment: alignment, progress: progress) {
            FileWorker(
                alignment: alignment, directories: directories, checksums: checksums, progress: progress,
                interruption: interruption)
        }
        let content = ContentReader(directories)
        var held = Held()
        var number: UInt64 = 0
        var reader = ManifestReader(preparation.root, reader: PackReader(directories))
        while let entry = try reader.next() {
            switch entry.kind {
            // The alignment has made them.
            case .directory where alignment != nil: continue
            case .symbolicLink where alignment != nil: continue
            case .directory: try createDirectory(entry)
            case .symbolicLink: try createLink(entry)
            case .extraFile(let file): try writeExtraFile(entry, file, content)
            case .file(let file):
                let task = FileTask(
                    number: number, path: entry.path, place: path(entry.path), mode: entry.mode,
                    modificationTime: entry.modificationTime, content: file)
                number += 1
                if RestoreWriter.leftOut.contains(entry.path) { continue }
                let small = { () throws(KedgeError) in
                    Held.File(bytes: try content.readAll(file, path: entry.path), mode: entry.mode & 0o777)
                }
                if entry.path == RestoreWriter.controlFile {
                    held.control = try small()
                } else if entry.path == RestoreWriter.autoConfiguration {
                    held.automatic = try small()
                } else {
                    try queue.add(task)
                }
            }
        }
        try queue.finish()
        return held
    }

    private func createDirectory(_ entry: ManifestEntry) throws(KedgeError) {
        if let target = options.walDirectory, entry.path == RestoreWriter.walDirectory {
            return try FileSystem.createSymbolicLink(at: path(entry.path), target: target)
        }
        // What the server does not own by mode it could not use: the owner's rights are always there.
        guard try Directory.createPlain(at: path(entry.path), mode: (entry.mode & 0o777) | 0o700) else {
            throw KedgeError(
                .alreadyExists, "cannot create directory \"\(path(entry.path))\"", detail: "It is there already.",
                hint: "Check whether somebody else writes there.")
        }
    }

    private func createLink(_ entry: ManifestEntry) throws(KedgeError) {
        guard let oid = entry.path.tablespaceLink,
            let placement = preparation.placements.first(where: { $0.oid == oid })
        else { preconditionFailure("the survey accepts no other links") }
        try FileSystem.createSymbolicLink(at: path(entry.path), target: placement.target)
    }

    private func writeExtraFile(
        _ entry: ManifestEntry, _ file: FileContent, _ content: ContentReader
    ) throws(KedgeError) {
        guard let directory = options.extraFilesDirectory else { return }
        let target = RawPath(bytes: directory.bytes + entry.path.bytes)
        try Directory.createWithParents(at: target.parent)
        let bytes = try content.readAll(file, path: entry.path)
        if options.isDelta, try holds(target, bytes) { return }
        guard try DurableFile.write(bytes, to: target, mode: entry.mode & 0o777, random: random) == .created else {
            throw KedgeError(
                .alreadyExists, "cannot write extra file \"\(target)\"", detail: "It is there already.",
                hint: "Name an empty directory for the extra files.")
        }
    }

    /// Whether a restore before this one has written the file.
    private func holds(_ path: RawPath, _ bytes: [UInt8]) throws(KedgeError) -> Bool {
        guard try FileSystem.exists(path), try FileStatus(at: path).kind == .regular else { return false }
        return try FileDescriptor.open(path, [.read, .noFollow]).read(count: bytes.count + 1, at: 0) == bytes
    }

    // MARK: - Configuration

    /// Writes what makes the server recover. Returns the content of postgresql.auto.conf and of tablespace_map.
    private func writeConfiguration(
        _ held: Held
    ) throws(KedgeError) -> (automatic: [UInt8], tablespaceMap: [UInt8]?) {
        let automatic = preparation.settings.rewriting(held.automatic?.bytes ?? [])
        try create(
            path(RestoreWriter.autoConfiguration), automatic, mode: held.automatic?.mode ?? 0o600)
        var map: [UInt8]?
        if !preparation.placements.isEmpty {
            let entries = preparation.placements.map { TablespaceMap.Entry(oid: $0.oid, path: $0.target.bytes) }
            let bytes = TablespaceMap(entries).bytes(majorVersion: majorVersion)
            try create(pgdata.appending(RestoreWriter.tablespaceMap), bytes, mode: 0o600)
            map = bytes
        }
        try create(pgdata.appending(preparation.settings.signalFile), [], mode: 0o600)
        return (automatic, map)
    }

    private func create(_ path: RawPath, _ bytes: [UInt8], mode: UInt32) throws(KedgeError) {
        let file = try FileDescriptor.open(path, [.write, .create, .exclusive, .noFollow], mode: mode)
        try file.setMode(mode)
        try owner?.apply(to: file, file.status())
        try file.write(bytes, at: 0)
        try file.sync()
    }

    /// The server never asks for a `.partial` file, but it looks into pg_wal for what the archive does not have.
    ///
    /// What lies behind the point where the plan's history left the timeline is another branch's: it is zero, as in
    /// what `archive-get` gives out.
    private func placePartial() throws(KedgeError) {
        guard let partial = preparation.partial else { return }
        var bytes = try partial.read()
        let start = partial.segment.startLSN(segmentSize: preparation.archive.registration.walSegmentSize)
        let limit = preparation.plan.chain.limit
        if limit > start, limit - start < UInt64(bytes.count) {
            for index in Int(limit - start)..<bytes.count { bytes[index] = 0 }
        }
        try create(pgdata.appending("pg_wal").appending(partial.fileName), bytes, mode: 0o600)
    }
}

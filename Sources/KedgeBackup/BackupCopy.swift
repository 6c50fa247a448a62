// The data directory into packs, and the manifest that says where everything went.
//
// A delta goes through the parent's manifest beside its own listing: both are in path order.
//
// Order: walk → workers copy → pg_control, last of all files → (the backup stops) → backup_label → manifest → last
// pack.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import Synchronization

/// Packs of a cluster in its repository.
struct ClusterPacks: PackStore {
    let cluster: ClusterRepository
    let limits: PackLimits
    let label: Label
    let tally: PackTally

    func beginPack() throws(KedgeError) -> NewPack {
        let id = RandomID(from: cluster.repository.random)
        let name = ClusterLayout.pack(id)
        let seal = try cluster.newSeal(
            .pack, name, frameSize: Int(CopyLimits.regionBytes), backupLabel: label.text)
        let upload = try cluster.repository.store.beginUpload(cluster.name(name), expectedBytes: limits.storedBytes)
        return NewPack(id: id, seal: seal, upload: upload)
    }

    func stored(_ pack: RandomID, bytes: UInt64) { tally.add(bytes) }
}

/// Counts the packs of one backup that are stored. Any number of threads may add.
final class PackTally: Sendable {
    private let packs = Atomic<Int>(0)
    private let stored = Atomic<UInt64>(0)

    var count: Int { packs.load(ordering: .relaxed) }
    /// As stored.
    var bytes: UInt64 { stored.load(ordering: .relaxed) }

    func add(_ bytes: UInt64) {
        packs.wrappingAdd(1, ordering: .relaxed)
        stored.wrappingAdd(bytes, ordering: .relaxed)
    }
}

/// The copy of one backup. Used by one thread at a time; its workers are its own.
struct BackupCopy {
    let context: CopyContext
    let workers: Int
    let listing: FileListing
    let control: (index: UInt64, entry: ListedEntry)
    let walk: FileWalk.Outcome
    private let walkOptions: FileWalk.Options
    let findings: PageFindings
    /// What a delta builds on; nil for a full backup.
    let parent: ParentBackup?
    /// Writes what comes after the workers: `pg_control`, `backup_label`, the manifest.
    let last: FileCopier

    /// Lists the data directory. The copy itself is `copyFiles` and what follows.
    init(
        _ server: ServerCheck, startLSN: LSN, parent: ParentBackup?, packs: ClusterPacks, takenOver: TakenOverPacks?,
        options: Backup.Options, tools: Backup.Tools
    ) throws(KedgeError) {
        self.parent = parent
        tools.progress.begin("listing files")
        let random = packs.cluster.repository.random
        let policy = FilePolicy(
            majorVersion: server.control.version.major, catalogVersion: server.control.version.catalogVersion)
        let walkOptions = FileWalk.Options(
            dataDirectory: options.dataDirectory, policy: policy,
            relationSegmentBlocks: server.control.relationSegmentBlocks,
            configurationFiles: server.configurationFiles, ownDirectories: options.ownDirectories)
        self.walkOptions = walkOptions
        listing = try FileListing(in: options.workDirectory, random: random)
        walk = try FileWalk.run(walkOptions, into: listing, unless: tools.interruption, time: tools.time)
        control = try BackupCopy.findControlFile(listing)
        let findings = PageFindings(startLSN: startLSN)
        self.findings = findings
        let pageCheck =
            server.control.hasDataChecksums
            ? PageCheck(blockSize: server.control.blockSize, findings: findings, time: tools.time) : nil
        context = CopyContext(
            dataDirectory: options.dataDirectory, files: tools.files,
            packs: packs, limits: options.packLimits,
            results: try CopyResults(entries: listing.totals.entries, in: options.workDirectory, random: random),
            delta: parent.map { parent in
                DeltaCopy(
                    directories: parent.directories,
                    pages: PageScan(
                        parentStart: parent.record.span.startLSN,
                        walSegmentSize: UInt64(server.control.walSegmentSize)),
                    blockSize: server.control.blockSize, parentStart: parent.record.span.startLSN)
            },
            takenOver: takenOver, pageCheck: pageCheck,
            readRate: options.readRateBytes.map { ReadRate(bytesPerSecond: $0, time: tools.time) },
            progress: tools.progress, totals: PackTotals(), interruption: tools.interruption)
        last = FileCopier(context)
        workers = options.workers
        tools.progress.begin("copying files", totalBytes: listing.totals.bytes)
    }

    private static func findControlFile(
        _ listing: FileListing
    ) throws(KedgeError) -> (index: UInt64, entry: ListedEntry) {
        var found: (index: UInt64, entry: ListedEntry)?
        try listing.forEach { index, entry throws(KedgeError) in
            if case .file(.controlFile, _) = entry.kind { found = (index, entry) }
        }
        if let found { return found }
        throw KedgeError(
            .notFound, "could not find file \"global/pg_control\" in the data directory",
            hint: "Check that pgdata names the data directory of the server.")
    }

    /// Copies all files but `pg_control`.
    ///
    /// Where a delta finds in the midst of it that page LSNs do not show all changes, it starts over, and takes from
    /// the parent only regions that are the same as a whole.
    func copyFiles() throws(KedgeError) {
        try copyOnce()
        // Files that vanish are left out: not those of a whole tablespace.
        try FileWalk.requireTablespaces(walk.tablespaces, of: walkOptions)
        guard let delta = context.delta, delta.mustStartOver else { return }
        try context.results.removeAll()
        context.takenOver?.startOver()
        findings.removeAll()
        context.progress.begin("copying files again", totalBytes: listing.totals.bytes)
        try copyOnce()
    }

    private func copyOnce() throws(KedgeError) {
        let context = context
        // Items are small; the queue only has to keep the workers busy while one more batch is put together.
        let pool = try WorkerPool<CopyItem>(
            name: "copy", workers: workers, queueLimit: 2 * workers,
            makeState: { _ throws(KedgeError) in FileCopier(context) },
            body: { copier, item throws(KedgeError) in try copier.copy(item) },
            finishState: { copier throws(KedgeError) in try copier.finish() })
        var plan = CopyPlan()
        let before = parent?.entries()
        try listing.forEach { index, entry throws(KedgeError) in
            let file = try before?.file(for: entry)
            for item in plan.add(index, entry, parent: file) { try pool.submit(item) }
        }
        if let item = plan.finish() { try pool.submit(item) }
        try pool.finish()
    }

    /// Reads `pg_control`, which must belong to the backup that was started.
    ///
    /// Read until its CRC fits (lesson 36). Its checkpoint can't lie before the one that the start made (lesson 39).
    func copyControlFile(_ start: OnlineBackup.Start, time: any TimeSource) throws(KedgeError) {
        let path = context.dataDirectory.appending("global/pg_control")
        let status = try FileStatus(at: path)
        let bytes = try ControlFile.readBytes(dataDirectory: context.dataDirectory, time: time)
        let control = try ControlFile(parsing: bytes)
        guard control.timeline == start.timeline else {
            throw KedgeError(
                .databaseRefused, "the backup has failed: the server went to another timeline while it was taken",
                detail: "It began on timeline \(start.timeline), and pg_control is of timeline \(control.timeline).",
                hint: "Run the backup again.")
        }
        guard control.redo >= start.lsn else {
            throw KedgeError(
                .databaseRefused, "cannot use file \"\(path)\" for a backup that starts at \(start.lsn)",
                detail: "Its checkpoint begins at \(control.redo).",
                hint: "Check that the server writes to this data directory, and run the backup again.")
        }
        let extents = try last.store(bytes, path: self.control.entry.path)
        try context.results.record([
            CopyResult(
                index: self.control.index, start: 0, length: UInt64(bytes.count), isCut: false, exists: true,
                mode: status.mode, modificationTime: status.modifiedNanoseconds,
                identity: FileIdentity(inode: status.inode, birthTime: status.birthNanoseconds ?? 0),
                regions: [ContentHash(of: bytes)], extents: extents)
        ])
        context.progress.advance(bytes.count)
    }

    /// Why something was stored whole that might have been taken from the parent, as sentences.
    var fallbacks: [String] {
        var reasons = context.takenOver?.fallbacks ?? []
        guard let parent, let delta = context.delta else { return reasons }
        if let reason = parent.distrust { reasons.append("Changed regions of 1 MiB were stored whole: \(reason).") }
        if delta.auditCount > 0 {
            reasons.append(
                "self-audit: \(delta.auditCount) region(s) had changed though no page's LSN said so; regions were "
                    + "compared as wholes. Find out what writes to the data directory besides the server.")
        }
        return reasons
    }

    /// Stores `backup_label` as the stop returned it, all parts of the manifest and the last pack, and returns the
    /// root.
    func finish(label: Label, backupLabel: [UInt8], at time: Timestamp) throws(KedgeError) -> ManifestRoot {
        let path = ManifestPath("backup_label")
        let content = FileContent(
            size: UInt64(backupLabel.count), identity: nil, regions: [ContentHash(of: backupLabel)],
            extents: try last.store(backupLabel, path: path))
        let entry = ManifestEntry(
            path: path, mode: control.entry.mode, modificationTime: time.microseconds * 1000, kind: .file(content))
        let last = last
        var writer = ManifestWriter(
            label: label, reusing: parent?.root.parts ?? [], hash: { ContentHash(of: $0) }
        ) { part throws(KedgeError) in
            try last.storePart(part)
        }
        try ManifestAssembly.forEachEntry(
            of: listing, results: context.results, adding: [entry]
        ) { entry throws(KedgeError) in
            try writer.append(entry)
        }
        let root = try writer.finish()
        try last.finish()
        return root
    }
}

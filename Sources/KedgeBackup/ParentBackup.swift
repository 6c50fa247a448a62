// The backup that a delta builds on, read and checked before the server starts the new one: its manifest's root, every
// part of the manifest, and the table of every pack that it refers to.
//
// What the data frames hold is not read: that is what `verify` is for.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository

/// A parent that can be read.
struct ParentBackup {
    let record: CommitRecord
    let root: ManifestRoot
    let directories: PackDirectories
    /// The data keys that its packs are sealed with.
    let keyIDs: Set<RandomID>
    /// Why the LSNs of pages do not show their changes, as what follows "because": nil where they do.
    let distrust: String?
    /// Whether the LSNs of pages show their changes.
    var trustsPages: Bool { distrust == nil }
    private let damagedFiles: Set<ManifestPath>

    /// Reads all of it, for a delta of the server that stands here. Throws what reading throws; `damaged` where
    /// something is missing or is not what was committed.
    init(
        _ record: CommitRecord, for position: ServerPosition, in catalog: BackupCatalog,
        unless interruption: Interruption
    ) throws(KedgeError) {
        self.record = record
        root = try catalog.manifest(of: record)
        directories = PackDirectories(catalog.cluster)
        var keyIDs: Set<RandomID> = []
        for pack in root.packs {
            try interruption.checkpoint()
            keyIDs.insert(try directories.directory(of: pack.id).seal.header.keyID)
        }
        self.keyIDs = keyIDs
        distrust = record.distrustOfPages(on: position.timeline, runningSince: position.startTime)
        damagedFiles = Set(record.health.damagedPages.map(\.path))
        var reader = ManifestReader(root, reader: PackReader(directories))
        while try reader.next() != nil { try interruption.checkpoint() }
    }

    /// Its entries from the first one on.
    func entries() -> ParentEntries { ParentEntries(self) }

    /// The parent's file behind the listed one. Only main forks are told apart by page (docs/design.md section 6); a
    /// file that had damaged pages is not, since a page of it may have been repaired without an LSN of its own.
    fileprivate func file(_ content: FileContent, for listed: ListedEntry) -> ParentFile {
        var isMainFork = false
        if case .file(.relation, _) = listed.kind {
            isMainFork = RelationFileName(Array(listed.path.name))?.fork == .main
        }
        let hasVerifiedPages = trustsPages && !damagedFiles.contains(listed.path)
        return ParentFile(
            content: content, trustsPages: hasVerifiedPages && isMainFork, hasVerifiedPages: hasVerifiedPages)
    }
}

extension CommitRecord {
    /// Why no single page of a delta on `timeline` may come from this backup, as what follows "because"; nil where
    /// pages that seem unchanged may (docs/decisions/0014). `start`: when the server was started, by its clock.
    func distrustOfPages(on timeline: TimelineID, runningSince start: Timestamp) -> String? {
        if !server.dataChecksums { return "without data checksums the LSNs of pages do not show every change" }
        // Where not all damaged pages are listed, any file may have some.
        if health.damagedPageCount > UInt64(health.damagedPages.count) {
            return "the parent has more damaged pages than it lists"
        }
        // A restore into the same directory and pg_rewind keep files, and replay gives their pages the LSNs that they
        // had with other hint bits. The server is on another timeline afterwards.
        if timeline != span.timeline {
            return "the server has gone from timeline \(span.timeline) to \(timeline) since, and the pages of a data "
                + "directory that was recovered may differ where their LSNs do not"
        }
        // pg_checksums works on a server that is down. Without checksums hint bits change and no LSN says so.
        if start >= span.startTime {
            return "the server was started again since, at \(start), and data checksums may have been off meanwhile"
        }
        return nil
    }
}

/// Goes through the parent's entries beside a listing, which is in the same order. Used by one thread at a time.
final class ParentEntries {
    private let parent: ParentBackup
    private var reader: ManifestReader
    private var next: ManifestEntry?

    fileprivate init(_ parent: ParentBackup) {
        self.parent = parent
        reader = ManifestReader(parent.root, reader: PackReader(parent.directories))
    }

    /// The parent's file of the listed one's path. To be asked in path order. Throws what reading throws.
    func file(for listed: ListedEntry) throws(KedgeError) -> ParentFile? {
        guard listed.sizeBytes != nil else { return nil }
        while true {
            if next == nil { next = try reader.next() }
            guard let entry = next, entry.path <= listed.path else { return nil }
            if entry.path == listed.path { return entry.content.map { parent.file($0, for: listed) } }
            next = nil
        }
    }
}

// One backup's manifest against the packs: every entry is one that a restore accepts, every range lies in its pack, and
// every region of every file has the checksum that it is to have when restored.
//
// A region that is one whole piece of a pack has the checksum that the pack's table gives it, and reading the pack has
// held that against the bytes: so it need not be read again. A region that is made of several pieces is put together
// as a restore would.

import KedgeBackup
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeRestore

/// What the pass over a manifest found.
struct ManifestVerdict: Sendable {
    /// Why the manifest itself is of no use; nil where it is.
    var error: KedgeError?
    /// The object to blame for that.
    var errorObject: ObjectName?
    /// Files of which something is lost: at most `listedFiles`, and how many there are.
    var files: [LostFile] = []
    var fileCount: UInt64 = 0
    /// Pages that fail their checksum, that replay does not repair and that the backup does not record; as for files.
    var pages: [CommitRecord.DamagedPage] = []
    var pageCount: UInt64 = 0
    /// Whether its packs hold more such pages than are remembered, so that nobody can tell whether it has some of them.
    var omitsPages = false
    var regions: UInt64 = 0
    /// Of these, how many were put together and read.
    var regionsRead: UInt64 = 0
    /// How many were left to another time, because this backup's were all read not long ago, or it is a sample.
    var regionsLeft: UInt64 = 0

    /// Files of which something could not be read: the first of each object.
    var unread: [LostFile] = []

    static let listedFiles = 100

    /// Whether some of it is known to be lost.
    var isLost: Bool { error?.code.isDamageOfTheObject == true || fileCount > 0 || pageCount > 0 }
    /// Whether some of it could not be read.
    var isUnknown: Bool { !unread.isEmpty || omitsPages || error?.code.isDamageOfTheObject == false }
    var isSound: Bool { !isLost && !isUnknown }

    struct LostFile: Sendable {
        let path: ManifestPath
        /// The object to blame.
        let object: ObjectName
        let error: KedgeError
    }

    mutating func lose(_ path: ManifestPath, _ object: ObjectName, _ error: KedgeError) {
        guard error.code.isDamageOfTheObject else {
            guard unread.count < Self.listedFiles, !unread.contains(where: { $0.object == object }) else { return }
            return unread.append(LostFile(path: path, object: object, error: error))
        }
        if files.last?.path != path { fileCount += 1 }
        guard files.count < Self.listedFiles, files.last?.path != path || files.last?.object != object else { return }
        files.append(LostFile(path: path, object: object, error: error))
    }
}

/// Checks one backup after the other. Used by one thread at a time.
final class ManifestCheck {
    private let cluster: ClusterRepository
    private let errors: ReadErrors
    private let contents: PackContentsCache
    /// The packs that something is wrong with.
    private let verdicts: [RandomID: PackVerdict]
    private let rate: ReadRate?
    private let progress: WorkProgress
    private let interruption: Interruption
    private let packs: PackReader
    private let content: ContentReader
    private var zeroHashes: [UInt64: ContentHash] = [:]

    init(
        _ cluster: ClusterRepository, _ errors: ReadErrors, contents: PackContentsCache,
        verdicts: [RandomID: PackVerdict], rate: ReadRate?, progress: WorkProgress, interruption: Interruption
    ) {
        self.cluster = cluster
        self.errors = errors
        self.contents = contents
        self.verdicts = verdicts
        self.rate = rate
        self.progress = progress
        self.interruption = interruption
        let directories = PackDirectories(cluster)
        packs = PackReader(directories)
        content = ContentReader(directories)
    }

    /// Checks the manifests of some backups and all that they refer to, side by side: in path order, and what lies in
    /// several pieces region by region, so that a frame which they share is opened once. `readsRegions` says of each
    /// whether to put these regions together and read them. Verdicts come in the order of the backups.
    ///
    /// Throws `interrupted`, and what reading throws where no object is to blame.
    func check(_ backups: [(record: CommitRecord, readsRegions: Bool)]) throws(KedgeError) -> [ManifestVerdict] {
        var passes: [ManifestPass] = []
        for backup in backups {
            let pass = ManifestPass(
                backup.record, readsRegions: backup.readsRegions, manifest: try manifestName(backup.record.label))
            passes.append(pass)
            try tolerate(in: pass) { () throws(KedgeError) in try begin(pass) }
        }
        while let path = passes.lazy.compactMap(\.next?.path).min() {
            try interruption.checkpoint()
            let present = passes.filter { $0.next?.path == path }
            var composites: [CompositeFile] = []
            for pass in present {
                try tolerate(in: pass) { () throws(KedgeError) in
                    guard let entry = try pass.take(), let content = entry.content else { return }
                    composites += try check(content, of: entry.path, pass)
                }
            }
            try read(composites)
            for pass in present {
                try tolerate(in: pass) { () throws(KedgeError) in try pass.advance() }
            }
        }
        return passes.map(\.verdict)
    }

    /// Notes an error that is the fault of one of the backup's objects, and ends its pass.
    private func tolerate(
        in pass: ManifestPass, _ body: () throws(KedgeError) -> Void
    ) throws(KedgeError) {
        do throws(KedgeError) {
            try body()
        } catch {
            pass.fail(try errors.tolerate(error))
        }
    }

    private func begin(_ pass: ManifestPass) throws(KedgeError) {
        let root = try BackupCatalog(cluster).committedManifest(of: pass.record)
        if let lost = root.parts.lazy.compactMap(blame).first {
            pass.blamed = lost.object
            throw lost.error
        }
        let registration = cluster.registrations.last {
            $0.systemIdentifier == pass.record.server.systemIdentifier
        }
        try pass.begin(
            ManifestReader(root, reader: packs), versionDirectory: registration?.tablespaceVersionDirectory)
    }

    private func manifestName(_ label: Label) throws(KedgeError) -> ObjectName {
        guard let name = ClusterLayout.manifest(label: label.text) else {
            throw KedgeError(.defect, "cannot name the manifest of backup \"\(label)\"", hint: "Please report this.")
        }
        return name
    }

    /// The pack that a part of the manifest is lost with; nil where it is not.
    private func blame(_ part: ManifestPartReference) -> (object: ObjectName, error: KedgeError)? {
        guard let verdict = verdicts[part.pack], !verdict.isSound else { return nil }
        let object = ClusterLayout.pack(part.pack)
        if let error = verdict.error { return (object, error) }
        // The frames of a part follow each other; how many there are is for the reader to find out.
        let isLost = verdict.lostFrames.contains { $0.number == part.frame }
        return isLost ? verdict.frameError.map { (object, $0) } : nil
    }

    // MARK: - One file

    /// A piece of a file: a run of a pack's stream, or zero bytes.
    private struct Piece {
        let pack: RandomID?
        let stream: Range<UInt64>
        let contents: PackContents?
    }

    /// Holds a file's extents against the packs' tables. Returns the regions that lie in several pieces, if the rest is
    /// sound: at most one element.
    private func check(
        _ file: FileContent, of path: ManifestPath, _ pass: ManifestPass
    ) throws(KedgeError) -> [CompositeFile] {
        let (record, manifest) = (pass.record, pass.manifest)
        var verdict = pass.verdict
        defer { pass.verdict = verdict }
        verdict.regions += UInt64(file.regions.count)
        var composite: [Range<Int>] = []
        var pieces: [Piece] = []
        var filled: UInt64 = 0
        var region = 0
        var isWhole = true
        for extent in file.extents {
            guard var rest = try locate(extent, path, manifest, &verdict) else {
                isWhole = false
                break
            }
            if let pack = rest.pack {
                note(pack, rest.stream, path, UInt64(region) * regionSize + filled, record, &verdict)
            }
            if let pack = rest.pack, let lost = loss(of: pack, rest.stream) {
                verdict.lose(path, ClusterLayout.pack(pack), lost)
                isWhole = false
            }
            while !rest.stream.isEmpty {
                let size = min(regionSize, file.size - UInt64(region) * regionSize)
                let take = min(size - filled, UInt64(rest.stream.count))
                let end = rest.stream.lowerBound + take
                pieces.append(
                    Piece(pack: rest.pack, stream: rest.stream.lowerBound..<end, contents: rest.contents))
                rest = Piece(pack: rest.pack, stream: end..<rest.stream.upperBound, contents: rest.contents)
                filled += take
                guard filled == size else { continue }
                if isWhole, let expected = file.regions[region] {
                    switch checksum(of: pieces, size) {
                    case expected?: break
                    case nil: composite.append(adding: region)
                    case let found?: verdict.lose(path, manifest, mismatch(path, region, expected, found))
                    }
                }
                (region, filled, pieces) = (region + 1, 0, [])
            }
        }
        guard isWhole, !composite.isEmpty else { return [] }
        guard pass.readsRegions else {
            verdict.regionsLeft += composite.reduce(0) { $0 + UInt64($1.count) }
            return []
        }
        return [CompositeFile(pass: pass, path: path, regions: composite, cursor: ContentCursor(file, path: path))]
    }

    /// Where an extent lies. Nil where its pack can't be used, or has no such run.
    private func locate(
        _ extent: Extent, _ path: ManifestPath, _ manifest: ObjectName, _ verdict: inout ManifestVerdict
    ) throws(KedgeError) -> Piece? {
        guard case .pack(let pack, let frame, let offset) = extent.source else {
            return Piece(pack: nil, stream: 0..<extent.length, contents: nil)
        }
        let object = ClusterLayout.pack(pack)
        if let error = verdicts[pack]?.error {
            verdict.lose(path, object, error)
            return nil
        }
        do throws(KedgeError) {
            let contents = try contents.contents(of: pack)
            if let range = contents.range(frame: frame, offset: offset, length: extent.length) {
                return Piece(pack: pack, stream: range, contents: contents)
            }
        } catch {
            verdict.lose(path, object, try errors.tolerate(error))
            return nil
        }
        verdict.lose(
            path, manifest,
            KedgeError(
                .damaged, "cannot use the manifest: file \"\(path)\" refers to what pack \"\(pack)\" does not hold",
                detail: "It names \(extent.length) bytes from byte \(offset) of frame \(frame) on.",
                hint: "Restore another backup, or this one from another repository."))
        return nil
    }

    private func loss(of pack: RandomID, _ stream: Range<UInt64>) -> KedgeError? {
        guard let verdict = verdicts[pack], verdict.lostFrames.contains(where: { $0.stream.overlaps(stream) }) else {
            return nil
        }
        return verdict.frameError
    }

    /// The checksum of a region, if it is known without reading.
    private func checksum(of pieces: [Piece], _ size: UInt64) -> ContentHash? {
        if pieces.allSatisfy({ $0.pack == nil }) { return zeroHash(size) }
        guard pieces.count == 1 else { return nil }
        return pieces[0].contents?.checksum(of: pieces[0].stream)
    }

    private func zeroHash(_ size: UInt64) -> ContentHash {
        if let known = zeroHashes[size] { return known }
        let hash = ContentHash(of: [UInt8](repeating: 0, count: Int(size)))
        if zeroHashes.count < 1000 { zeroHashes[size] = hash }
        return hash
    }

    // MARK: - Regions in several pieces

    /// Reads what lies in several pieces of one file in some backups, region by region.
    private func read(_ files: [CompositeFile]) throws(KedgeError) {
        var files = files
        while let region = files.lazy.compactMap(\.next).min() {
            for index in files.indices where files[index].next == region {
                let pass = files[index].pass
                do throws(KedgeError) {
                    try interruption.checkpoint()
                    let bytes = try content.read(region, at: &files[index].cursor)
                    try rate?.take(bytes.count, unless: interruption)
                    progress.advance(bytes.count)
                    pass.verdict.regionsRead += 1
                    files[index].advance()
                } catch {
                    pass.verdict.lose(files[index].path, pass.manifest, try errors.tolerate(error))
                    files[index].regions = []
                }
            }
        }
    }

    private func mismatch(
        _ path: ManifestPath, _ region: Int, _ expected: ContentHash, _ found: ContentHash
    ) -> KedgeError {
        KedgeError(
            .damaged, "the content of file \"\(path)\" is not what was backed up",
            detail: "The region at byte \(UInt64(region) * regionSize) has checksum \(found); the manifest says "
                + "\(expected).",
            hint: "Restore another backup, or this one from another repository.")
    }

    // MARK: - Pages

    /// Judges the failing pages in a run that begins at `offset` of the file.
    private func note(
        _ pack: RandomID, _ stream: Range<UInt64>, _ path: ManifestPath, _ offset: UInt64, _ record: CommitRecord,
        _ verdict: inout ManifestVerdict
    ) {
        guard record.server.dataChecksums, let known = verdicts[pack] else { return }
        if known.omitsPages { verdict.omitsPages = true }
        for page in known.pages where page.path == path && stream.contains(page.position) {
            let block = CommitRecord.DamagedPage(path: path, block: page.block)
            let place = UInt64(page.block) * UInt64(record.server.blockSize)
            guard place == offset + (page.position - stream.lowerBound) else { continue }
            guard !record.excuses(page) else { continue }
            verdict.pageCount += 1
            if verdict.pages.count < ManifestVerdict.listedFiles { verdict.pages.append(block) }
        }
    }
}

extension CommitRecord {
    /// Whether a page that fails its checksum is no fault of this backup, if it holds it.
    func excuses(_ page: FailingPage) -> Bool {
        // Replay writes anew what was changed while the backup ran.
        let isRepaired = page.lsn > span.startLSN && page.lsn <= span.stopLSN
        let isRecorded =
            health.damagedPages.contains(DamagedPage(path: page.path, block: page.block))
            || health.damagedPageCount > UInt64(health.damagedPages.count)
        return !server.dataChecksums || isRepaired || isRecorded
    }
}

extension [Range<Int>] {
    /// Adds a number that is greater than all before.
    fileprivate mutating func append(adding number: Int) {
        if let last, last.upperBound == number {
            self[count - 1] = last.lowerBound..<number + 1
        } else {
            append(number..<number + 1)
        }
    }
}

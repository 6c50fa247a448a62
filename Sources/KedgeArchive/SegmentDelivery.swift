// What goes to the server of a segment, and how, wherever its bytes come from.
//
// While the first segment of a new timeline is not archived yet, the server asks for the old timeline's file of the
// same number, and would replay all of it, also what lies behind the switch point and belongs to another branch
// (xlogrecovery.c, XLogFileReadAnyTLI does not look at where a timeline was left). So where it is known which history
// the server follows, it gets no byte from behind a switch point: that part of the segment is zero, as in the first
// segment of a timeline that the server itself makes (xlog.c, XLogFileCopy). A segment that lies there as a whole has
// nothing for it.
//
// The file is written beside its destination and renamed: PostgreSQL never sees a part of it. What a killed run has
// left there is removed by later ones. What goes wrong here is the destination's fault, and no repository's.

import KedgeCore
import KedgePostgres

/// Hands WAL files to the server.
struct SegmentDelivery {
    let destination: RawPath
    /// The history that the asking server follows; nil where that is not known.
    let followed: TimelineHistory?
    let random: any RandomSource
    let time: any TimeSource

    /// What the history that the server follows has of a segment of one of its timelines.
    enum Share: Hashable {
        /// All of it, or nobody knows better.
        case whole
        /// This many first bytes.
        case start(Int)
        /// Nothing: it left that timeline before the segment begins, for this one, whose segment it should be.
        case nothing(instead: WALSegment)
    }

    func share(of file: WALFileName, segmentSize: UInt64) -> Share {
        guard case .segment(let name) = file, let segment = WALSegment(fileName: name, segmentSize: segmentSize),
            let history = followed, let limit = history.limit(of: segment.timeline)
        else { return .whole }
        let start = segment.startLSN(segmentSize: segmentSize)
        guard limit < segment.next.startLSN(segmentSize: segmentSize) else { return .whole }
        guard limit > start else {
            return .nothing(
                instead: WALSegment(timeline: history.timeline(containing: start), number: segment.number))
        }
        return .start(Int(limit - start))
    }

    /// Writes the file, with nothing but zeros behind its first `kept` bytes; nil: with all that it has. `file` is its
    /// name, for messages. Every error names the destination; where that is something else than a file it is
    /// `input-output`, and is left alone.
    func write(_ bytes: [UInt8], kept: Int? = nil, of file: String) throws(KedgeError) {
        var bytes = bytes
        if let kept { for index in min(kept, bytes.count)..<bytes.count { bytes[index] = 0 } }
        let attempt = attempt(file)
        try refuseOther(attempt)
        do throws(KedgeError) {
            // In full, so that an error names the file system.
            let directory = try FileDescriptor.open(FileSystem.resolved(destination.parent), [.read, .directory])
            // pg_wal may have thousands of files: of 16 MiB segments each 16th looks.
            if file.hasSuffix("0") { removeLeftovers(in: directory) }
            let copy = try DurableFile(in: directory, mode: 0o600, random: random)
            try copy.file.allocate(UInt64(bytes.count))
            try copy.file.write(bytes, at: 0)
            // A crash of the machine makes the server ask again, so nothing is synced here.
            try copy.publishWithoutSync(as: destination.lastComponent)
        } catch {
            // An error for want of room names its file system already.
            let space = error.code == .noSpace ? nil : FileSystemSpace.find(near: destination.parent)?.sentence
            throw KedgeError(
                error.code, attempt,
                detail: [error.message + ".", error.detail, space].compactMap { $0 }.joined(separator: " "),
                hint: error.hint)
        }
    }

    private func attempt(_ file: String) -> String {
        "could not write WAL file \"\(file)\" to its destination \"\(destination)\""
    }

    /// PostgreSQL names a file that is not there (xlogarchive.c, RestoreArchivedFile removes an older one), pg_rewind
    /// one that may be. A rename would put the segment in the place of a device or a link just as well.
    private func refuseOther(_ attempt: String) throws(KedgeError) {
        let kind: FileKind
        do throws(KedgeError) {
            kind = try FileStatus(at: destination).kind
        } catch  where error.code == .notFound {
            return
        }
        let what: String
        switch kind {
        case .regular: return
        case .directory: what = "a directory"
        case .symbolicLink: what = "a symbolic link"
        case .other: what = "a device, a pipe or a socket"
        }
        throw KedgeError(
            .inputOutput, attempt, detail: "There is \(what) of that name, which was left alone.",
            hint: "Give the path of a file that is not there yet; in restore_command that is \"%p\".")
    }

    /// Beside the destination nobody else clears up after a run that was killed. One that lives writes its temporary
    /// file within seconds.
    private func removeLeftovers(in directory: borrowing FileDescriptor) {
        let limit = time.now().adding(seconds: -SegmentDelivery.leftoverSeconds)
        do throws(KedgeError) {
            for entry in try Directory.entries(of: directory) where SegmentDelivery.isTemporary(entry) {
                guard try FileStatus(of: entry.name, in: directory).modified < limit else { continue }
                try FileSystem.removeFile(entry.name, in: directory)
            }
        } catch {
            // It takes room and does no other harm; the next run tries again.
        }
    }

    /// Whether it is a regular file with exactly such a name as `DurableFile` gives.
    private static func isTemporary(_ entry: DirectoryEntry) -> Bool {
        guard entry.kind == .regular, DurableFile.isTemporary(entry.name), let text = entry.name.text else {
            return false
        }
        return RandomID(hex: text.drop { $0 != "~" }.dropFirst()) != nil
    }

    private static let leftoverSeconds: Int64 = 600

    /// Moves a copy from the spool to the destination, whole. Returns false where only its bytes can go there. Throws
    /// where it is damaged or cannot be read.
    func take(_ copy: FetchedCopy, _ file: WALFileName, _ format: WALFormat) throws(KedgeError) -> Bool {
        try refuseOther(attempt(copy.name))
        let directory = try FileDescriptor.open(FileSystem.resolved(destination.parent), [.read, .directory])
        return try copy.move(to: destination.lastComponent, in: directory) { (firstPage) throws(KedgeError) in
            try SegmentDelivery.check(firstPage: firstPage, file, format)
        }
    }

    /// PostgreSQL takes a bad page for the end of the WAL: what goes to it has the right size and the right first page.
    static func check(_ bytes: [UInt8], _ file: WALFileName, _ format: WALFormat) throws(KedgeError) {
        guard case .segment = file else { return }
        _ = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFileCheck.check(name: file, firstPage: bytes, sizeBytes: UInt64(bytes.count), format: format)
        }
    }

    /// The same of a segment that has the right size, by its first page.
    static func check(
        firstPage: UnsafeRawBufferPointer, _ file: WALFileName, _ format: WALFormat
    ) throws(KedgeError) {
        _ = try WALFileCheck.check(
            name: file, firstPage: firstPage, sizeBytes: UInt64(format.segmentSize), format: format)
    }
}

// A file of pg_wal that is to be archived: its bytes, checked against pg_control and its name, and what a walk of its
// records found out.

import KedgeCatalog
import KedgeCore
import KedgePostgres

/// The local file, read and checked.
struct LocalWALFile: Sendable {
    let file: WALFileName
    let path: RawPath
    let control: ControlFile
    let bytes: [UInt8]
    /// What the walk learned; nil for history files.
    let facts: WALFacts?
    /// Nil where a note would not be safe: the file was changed just before, or while, it was read.
    var identity: FileIdentity?

    /// Reads the file at `path`, which is to be archived as `file`, and checks it against `pg_control` in
    /// `dataDirectory`. Throws `wal-foreign`, `wal-invalid`, and what reading throws.
    static func read(
        _ file: WALFileName, at path: RawPath, dataDirectory: RawPath, time: any TimeSource
    ) throws(KedgeError) -> LocalWALFile {
        let control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
        switch file {
        case .history(let timeline):
            let bytes = try readFile(path, limit: TimelineHistory.maximumFileSize)
            _ = try TimelineHistory(parsing: bytes, timeline: timeline)
            return LocalWALFile(file: file, path: path, control: control, bytes: bytes, facts: nil)
        case .backup:
            let bytes = try readFile(path, limit: 1 << 20)
            return LocalWALFile(file: file, path: path, control: control, bytes: bytes, facts: nil)
        case .segment, .partial:
            var local = try readSegment(file, at: path, control, time)
            // A page may have been read while it was written, by a disk or file system that is not quite coherent.
            if local.facts?.suspect != nil { local = try readSegment(file, at: path, control, time) }
            return local
        }
    }

    private static func readFile(_ path: RawPath, limit: Int) throws(KedgeError) -> [UInt8] {
        try FileDescriptor.openWALFile(path).readAll(limit: limit)
    }

    private static func readSegment(
        _ file: WALFileName, at path: RawPath, _ control: ControlFile, _ time: any TimeSource
    ) throws(KedgeError) -> LocalWALFile {
        let descriptor = try FileDescriptor.openWALFile(path)
        let begin = time.now()
        let identity = FileIdentity(try descriptor.status())
        let size = identity.sizeBytes
        let format = control.walFormat
        let firstPage = try descriptor.read(count: Int(min(size, UInt64(format.walBlockSize))), at: 0)
        let segment = try firstPage.withBytes { (page) throws(KedgeError) in
            try WALFileCheck.check(name: file, firstPage: page, sizeBytes: size, format: format)
        }
        let bytes = try descriptor.read(count: Int(size), at: 0)
        guard bytes.count == Int(size) else {
            throw KedgeError(
                .walInvalid, "cannot archive WAL file \"\(file.text)\": it became shorter while it was read",
                detail: "It had \(size) bytes, and then \(bytes.count).",
                hint: "Find out what else writes to pg_wal.  PostgreSQL itself never shortens a finished segment.")
        }
        let isPartial = if case .partial = file { true } else { false }
        let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts(of: bytes, segment: segment, isPartial: isPartial, format: format)
        }
        var local = LocalWALFile(file: file, path: path, control: control, bytes: bytes, facts: facts)
        if identity.isSettled(at: begin), FileIdentity(try descriptor.status()) == identity {
            local.identity = identity
        }
        return local
    }
}

extension FileDescriptor {
    /// Opens a file that is to be archived. Throws `wal-invalid` for what is no regular file, without waiting for the
    /// other end of a pipe.
    static func openWALFile(_ path: RawPath) throws(KedgeError) -> FileDescriptor {
        // Looked at before, since opening a device may do something, and after, since it could be another one by then.
        try refuseOther(path, FileStatus(at: path, followLinks: true).kind)
        let file = try open(path, [.read, .nonBlocking])
        try refuseOther(path, file.status().kind)
        return file
    }

    private static func refuseOther(_ path: RawPath, _ kind: FileKind) throws(KedgeError) {
        guard kind != .regular else { return }
        throw KedgeError(
            .walInvalid, "cannot archive \"\(path)\": it is not a regular file",
            detail: kind == .directory ? "It is a directory." : "It is a device, a pipe or a socket.",
            hint: "Use archive_command = 'kedge archive-push %p', and find out what lies there in place of WAL.")
    }
}

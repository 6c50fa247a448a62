// Segments that were fetched ahead of a recovering server, in the spool.
//
//   fetched/<server>/<segment>   the segment as it is archived, then a page with a record (FetchedCopy.swift)
//   fetched/<server>/asked       the segment that the server got last
//   fetched/<server>/lock        held by whoever fetches ahead (FetchAhead.swift)
//
// 1. A copy belongs to one run of one server: data directory, system identifier, the process and the start time in
//    postmaster.pid, and the repositories. A server that was restored, rewound or just started again finds nothing of
//    an earlier recovery (lesson 28).
// 2. A copy is what a repository held a few minutes ago at most, and every byte of it is checked before it is used.
// 3. It is as it was archived: which part of it the server may see is decided when it is used.
// 4. No copy means that the repositories have to be asked. That something is absent is never said from here.

import KedgeCodec
package import KedgeCore
import KedgePostgres

/// One run of a server that recovers.
package struct RecoveringServer: Sendable {
    package let dataDirectory: RawPath
    /// What tells this run from all others on this host.
    package let id: String
    /// Whether the postmaster is the first process of its container: then it inherits processes that lost their
    /// parent, and takes the death of one by a signal for a crash of its own (postmaster.c, HandleChildCrash).
    package let isFirstProcess: Bool
    let format: WALFormat
    let system: SystemIdentifier

    /// The server whose working directory is `dataDirectory`. Nil where none runs there, or it can't be told.
    package init?(dataDirectory: RawPath, destination: String, time: any TimeSource) {
        do throws(KedgeError) {
            let control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
            let status = try FileStatus(at: dataDirectory, followLinks: true)
            let file = try FileDescriptor.open(dataDirectory.appending("postmaster.pid"), .read)
            // Process, data directory and start time; what follows changes (src/include/utils/pidfile.h).
            let lines = try file.read(count: 8192, at: 0).split(separator: 0x0A, omittingEmptySubsequences: false)
            guard lines.count > 3 else { return nil }
            isFirstProcess = Array(lines[0]) == Array("1".utf8)
            var text: [UInt8] = Array(lines[..<3].joined(separator: [0x0A]))
            text += Array(
                " \(status.device) \(status.inode) \(control.systemIdentifier) \(control.walSegmentSize) \(destination)"
                    .utf8)
            id = ContentHash(of: text).hex
            format = control.walFormat
            system = control.systemIdentifier
            self.dataDirectory = dataDirectory
        } catch {
            return nil
        }
    }

    var segmentSize: UInt64 { UInt64(format.segmentSize) }
}

/// The copies for one server.
package struct FetchedCopies: Sendable {
    package let server: RecoveringServer
    let spool: Spool
    private let time: any TimeSource

    package init(for server: RecoveringServer, in spool: Spool, time: any TimeSource) {
        self.server = server
        self.spool = spool
        self.time = time
    }

    /// How long a copy is used.
    static let validSeconds: Int64 = 300
    var directory: RawPath { spool.path(.fetched).appending(server.id) }

    // MARK: - Copies

    /// The copy of a segment. Nil where there is none that can be used; one that is damaged is removed.
    func find(_ name: String) -> FetchedCopy? {
        do throws(KedgeError) {
            guard try spool.canBeRead() else { return nil }
            if let copy = try FetchedCopy(name, in: self, at: time.now()) { return copy }
            remove(name)
            return nil
        } catch {
            return nil
        }
    }

    /// Keeps a segment, whole as it is archived: what `fill` hands over, in order. Nothing appears where that throws.
    /// It returns the content tag of what it has handed over, with which the copy is checked when it is used;
    /// `clusterID` is the tag's. Throws `not-found` where the directory is gone: then nobody is to be fetched for any
    /// more.
    func write(
        _ name: String, from repository: String, clusterID: RandomID,
        _ fill: ((UnsafeRawBufferPointer) throws(KedgeError) -> Void) throws(KedgeError) -> ContentHash
    ) throws(KedgeError) {
        let directory = try FileDescriptor.open(self.directory, [.read, .directory, .noFollow])
        let file = try DurableFile(in: directory, mode: 0o600, random: spool.random)
        try file.file.allocate(server.segmentSize + UInt64(FetchedCopy.recordBytes))
        var offset: UInt64 = 0
        let tag = try fill { (piece) throws(KedgeError) in
            try file.file.write(piece, at: offset)
            offset += UInt64(piece.count)
        }
        let record: JSONValue = [
            "kedge": "fetched", "file": .string(name), "server": .string(server.id), "repository": .string(repository),
            "clusterId": .string(clusterID.hex), "tag": .string(tag.hex), "fetchedAt": .string(time.now().description),
        ]
        let text = Spool.sealed(record)
        guard text.count < FetchedCopy.recordBytes else { return }
        let padding = [UInt8](repeating: 0, count: FetchedCopy.recordBytes - text.count)
        try file.file.write(text + padding, at: offset)
        try file.publishWithoutSync(as: RawPath(name))
    }

    /// The segments of which there are copies, sorted.
    func names() throws(KedgeError) -> [String] {
        try Directory.entries(at: directory).compactMap { entry in
            guard let name = entry.name.text, case .segment? = WALFileName(name) else { return nil }
            return name
        }
    }

    func remove(_ name: String) {
        do throws(KedgeError) {
            try FileSystem.removeFile(at: directory.appending(name))
        } catch {
            // It is gone already, or goes with the directory.
        }
    }

    // MARK: - What the server asked for

    /// Makes note of the segment that the server got just now.
    ///
    /// In place, and not by a rename: ext4 writes a file to the disk at once that is renamed over another
    /// (auto_da_alloc), and this happens for every segment. All these records have one length.
    package func noteAsked(_ name: String) throws(KedgeError) {
        let file = try FileDescriptor.open("asked", in: try open(), [.write, .create, .noFollow], mode: 0o600)
        try file.write(Spool.sealed(["kedge": "asked", "file": .string(name)]), at: 0)
    }

    /// The segment that the server got last; nil where that is not known, or is being written just now.
    func asked() -> WALSegment? {
        do throws(KedgeError) {
            let bytes = try FileDescriptor.open(directory.appending("asked"), [.read, .noFollow]).readAll(limit: 4096)
            guard let text = Spool.checked(bytes) else { return nil }
            let record = try JSONRecord(parsing: text, what: "asked")
            try record.expectType("asked")
            return WALSegment(fileName: try record.string("file"), segmentSize: server.segmentSize)
        } catch {
            return nil
        }
    }

    // MARK: - The directory

    var lockPath: RawPath { directory.appending("lock") }

    /// Whether somebody fetches ahead for this server just now.
    package var isBeingFilled: Bool {
        do throws(KedgeError) {
            guard try FileSystem.exists(lockPath) else { return false }
            return try LockedFile.take(lockPath) == nil
        } catch {
            return false
        }
    }

    private func open() throws(KedgeError) -> FileDescriptor {
        do throws(KedgeError) {
            return try FileDescriptor.open(directory, [.read, .directory, .noFollow])
        } catch  where error.code == .notFound {
            _ = try spool.open(.fetched)
            _ = try Directory.createPlain(at: directory, mode: 0o700)
            return try FileDescriptor.open(directory, [.read, .directory, .noFollow])
        }
    }

    /// Removes what is for other servers and that nobody fills any more.
    func removeOthers() {
        for name in spool.names(in: .fetched) where name != server.id {
            let other = spool.path(.fetched).appending(name)
            do throws(KedgeError) {
                let lock = other.appending("lock")
                if try FileSystem.exists(lock), try LockedFile.take(lock) == nil { continue }
                try Directory.removeTree(at: other)
            } catch {
                // It is looked at again by the next one.
            }
        }
    }

    /// Removes all of it. For whoever holds the lock, as the last thing.
    func removeAll() {
        do throws(KedgeError) {
            try Directory.removeTree(at: directory)
        } catch {
            // The next one that fetches ahead removes it.
        }
    }
}

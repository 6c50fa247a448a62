// Looks at the files of a pg_wal and at what the repositories have of them. Reads only.
//
// A file counts as archived if one repository that can be read has the same content: by the content tag, as
// archive-push compares, or, for a segment that was not filled, because what is archived begins with all of its WAL. A
// name alone proves nothing: two servers may have written the same timeline. What cannot be read has nothing.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The survey of one directory.
struct LocalWALSurvey {
    /// Of the system that is restored; at least one.
    let archives: [WALArchive]
    let format: WALFormat
    let threads: Int
    let interruption: Interruption

    private var segmentSize: UInt64 { UInt64(format.segmentSize) }

    /// The WAL files in `directory`, regular ones only; empty where there is no such directory.
    func files(in directory: RawPath) throws(KedgeError) -> [LocalWALFile] {
        let ready = try waiting(in: directory.appending("archive_status"))
        var found: [LocalWALFile] = []
        for entry in try entries(directory) where entry.kind == .regular {
            guard let text = entry.name.text, let name = WALFileName(text) else { continue }
            try interruption.checkpoint()
            let file = try FileDescriptor.open(directory.appending(entry.name), [.read, .noFollow, .nonBlocking])
            guard var local = try look(at: file, name) else { continue }
            local.isReady = ready.contains(text)
            found.append(local)
        }
        return found
    }

    private func entries(_ directory: RawPath) throws(KedgeError) -> [DirectoryEntry] {
        do throws(KedgeError) {
            return try Directory.entries(at: directory)
        } catch  where error.code == .notFound {
            return []
        }
    }

    /// The names of files that wait for the archive.
    private func waiting(in directory: RawPath) throws(KedgeError) -> Set<String> {
        do throws(KedgeError) {
            guard try FileStatus(at: directory, followLinks: true).kind == .directory else { return [] }
        } catch  where error.code == .notFound {
            return []
        }
        let suffix = ".ready"
        return Set(
            try entries(directory).compactMap { entry in
                guard let text = entry.name.text, text.hasSuffix(suffix) else { return nil }
                return String(text.dropLast(suffix.utf8.count))
            })
    }

    /// What a file is; nil for one that is not looked at.
    private func look(at file: borrowing FileDescriptor, _ name: WALFileName) throws(KedgeError) -> LocalWALFile? {
        switch name {
        case .backup: return nil
        case .history:
            let bytes = try file.read(count: TimelineHistory.maximumFileSize + 1, at: 0)
            return LocalWALFile(name: name, content: .data, copy: try copy(of: bytes, as: [name], nil))
        case .segment(let text), .partial(let text):
            guard let segment = WALSegment(fileName: text.prefix(24), segmentSize: segmentSize) else { return nil }
            return try look(at: file, name, segment)
        }
    }

    private func look(
        at file: borrowing FileDescriptor, _ name: WALFileName, _ segment: WALSegment
    ) throws(KedgeError) -> LocalWALFile? {
        let first = try file.read(count: WALPageHeader.longSize, at: 0)
        var local = LocalWALFile(name: name, segment: segment, content: .nothing)
        switch first.withBytes({ WALRemains.origin($0, of: segment, format: format) }) {
        // Whoever lets another system's directory be overwritten has said so.
        case .foreign: return nil
        case .other: return local
        case .own: local.content = .data
        }
        guard try file.status().sizeBytes == segmentSize else { return local }
        let bytes = try file.read(count: Int(segmentSize), at: 0)
        guard bytes.count == Int(segmentSize) else { return local }
        let remains = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALRemains(of: bytes, segment: segment, format: format)
        }
        local.end = remains.end
        if remains.isBookkeeping { local.content = .bookkeeping }
        let text = segment.fileName(segmentSize: segmentSize)
        let used = Int(remains.end - segment.startLSN(segmentSize: segmentSize))
        local.copy = try copy(
            of: bytes, as: [.segment(text), .partial(text + ".partial")], remains.endsCleanly ? used : nil)
        return local
    }

    /// What the repositories have by `names`: this content, or what begins with the first `used` bytes of it, is the
    /// same. Of a partial segment any other content says nothing of this one.
    private func copy(
        of bytes: [UInt8], as names: [WALFileName], _ used: Int?
    ) throws(KedgeError) -> LocalWALFile.Copy {
        var copy = LocalWALFile.Copy.none
        for archive in archives {
            do throws(KedgeError) {
                let tag = bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: archive.cluster.clusterID) }
                for name in names {
                    for archived in try archive.find(name) {
                        if try archive.facts(of: archived).tag == tag { return .same }
                        if case .partial = name {} else { copy = .other }
                        guard let used else { continue }
                        let stored = try archive.read(archived, threads: threads).bytes
                        if stored.count >= used, stored[..<used].elementsEqual(bytes[..<used]) { return .same }
                    }
                }
            } catch {
                // What cannot be read is not known to have it.
                guard error.code != .interrupted else { throw error }
                copy = .other
            }
        }
        return copy
    }
}

// Whether a server's pg_wal still has WAL that the archive lacks: for a refusal, so that it says what to do.

import KedgeCatalog
package import KedgeCore
import KedgePostgres

/// The pg_wal of a data directory on this host.
package struct ServerWAL {
    package let directory: RawPath
    /// Whether it has the segment, under its name and with a first page of its own.
    package let has: (WALSegment) -> Bool

    package init(_ directory: RawPath, has: @escaping (WALSegment) -> Bool) {
        self.directory = directory
        self.has = has
    }
}

extension Restore.Options {
    /// The places of the directory that is restored and of the one that the configuration names.
    func serverWAL(_ archive: WALArchive) throws(KedgeError) -> [ServerWAL] {
        let format = try archive.segmentFormat()
        let places = [pgdata] + (configuredPgdata == pgdata ? [] : [configuredPgdata])
        return places.map { $0.appending("pg_wal") }.compactMap { directory in
            do throws(KedgeError) {
                guard try FileStatus(at: directory, followLinks: true).kind == .directory else { return nil }
            } catch {
                // There is none, or nobody may look.
                return nil
            }
            return ServerWAL(directory) { segment in
                Self.has(
                    directory.appending(segment.fileName(segmentSize: UInt64(format.segmentSize))), segment, format)
            }
        }
    }

    private static func has(_ path: RawPath, _ segment: WALSegment, _ format: WALFormat) -> Bool {
        do throws(KedgeError) {
            let file = try FileDescriptor.open(path, [.read, .noFollow, .nonBlocking])
            guard try file.status().sizeBytes == UInt64(format.segmentSize) else { return false }
            let first = try file.read(count: WALPageHeader.longSize, at: 0)
            return first.withBytes { WALRemains.origin($0, of: segment, format: format) } == .own
        } catch {
            // What cannot be read is of no use to anybody.
            return false
        }
    }
}

extension RestorePlanner {
    /// Whether a pg_wal on this host has the file at which replay ends: a sentence for a detail, and one for a hint
    /// where it does. Nothing is said of a file of which nothing shows that there was one.
    func remedy(_ search: ReplaySearch) -> (detail: String, hint: String?) {
        let chain = search.chain
        guard search.damage == nil, !chain.hasConflict else { return ("", nil) }
        let first = chain.missing
        func name(_ segment: WALSegment) -> String { segment.fileName(segmentSize: archive.segmentSize) }
        guard let place = serverWAL.first(where: { $0.has(first) }) else {
            guard chain.endsInHole, let place = serverWAL.first else { return ("", nil) }
            let others = serverWAL.dropFirst().map { " or \"\($0.directory)\"" }.joined()
            return ("  It is not in \"\(place.directory)\"\(others).", nil)
        }
        // As far as the hole goes; no more than anybody would type.
        var last = first
        let end = min(chain.resumesAt?.number ?? .max, first.number + 1_000)
        while last.number + 1 < end, place.has(last.next) { last = last.next }
        let (path, count) = (place.directory.appending(name(first)), last.number - first.number)
        let others = count == 0 ? "" : ", and so the files after it, up to \(name(last))"
        return (
            "  \"\(place.directory)\" has it" + (count == 0 ? "." : ", and the \(count) after it."),
            "Archive it: \"kedge archive-push \(path)\"\(others).  "
        )
    }
}

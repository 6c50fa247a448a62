// What one `archive-push` stores besides its own segment: the next ones that wait in archive_status, several at once.
//
// PostgreSQL asks for one file at a time, so that a store that answers late would set the pace. The run that stores a
// segment the long way has opened the repositories; it goes on with the segments that wait behind it and leaves a note
// for each. The calls that PostgreSQL makes for them then only acknowledge.
//
// 1. It begins once the own segment is durable, goes to the repositories that took it, so that one that is away keeps
//    the others from nothing, and is never the reason for failing: what could not be stored ahead is
//    stored, or fails, in its own call.
// 2. It ends after the first failure, after a time, and when somebody asks to stop: whatever has begun is finished.
// 3. Memory is bounded by the number of segments in flight, and processors by `process-max`.

import KedgeCatalog
package import KedgeCore
import KedgeRepository

/// How much is pushed ahead.
package struct PushAheadLimits: Sendable {
    /// How many further segments one run stores at most; 0 for none.
    package var segments: Int
    /// How many are on their way at once; 1 or more.
    package var inFlight: Int
    /// After so long no further one is begun.
    package var nanoseconds: UInt64

    package init(segments: Int, inFlight: Int, nanoseconds: UInt64 = 10_000_000_000) {
        self.segments = segments
        self.inFlight = inFlight
        self.nanoseconds = nanoseconds
    }

    /// The most bytes of WAL that are on their way at once; each segment is there twice, as it is and sealed.
    static let bytesInFlight = 128 << 20
}

/// The files that wait in `pg_wal/archive_status`, by name.
struct ReadyFiles {
    /// Sorted.
    let names: [String]

    /// Reads the directory beside the file `path`; nothing waits where there is none.
    init(beside path: RawPath) {
        do throws(KedgeError) {
            names = try Directory.entries(at: path.parent.appending("archive_status")).compactMap { entry in
                guard let name = entry.name.text, name.hasSuffix(".ready") else { return nil }
                return String(name.dropLast(6))
            }
        } catch {
            names = []
        }
    }

    /// The segments to store ahead of the call for `own`: those behind it first, in the order in which PostgreSQL asks.
    func next(after own: String, limit: Int, where isWanted: (String) -> Bool) -> [String] {
        let segments = names.filter { name in
            if name != own, case .segment? = WALFileName(name) { true } else { false }
        }
        let inOrder = segments.filter { $0 > own } + segments.filter { $0 < own }
        var next: [String] = []
        for name in inOrder {
            guard next.count < limit else { break }
            if isWanted(name) { next.append(name) }
        }
        return next
    }
}

/// What came of pushing ahead.
package struct PushedAhead: Sendable {
    /// How many further segments are durable in every repository.
    package var stored = 0
    /// Those of them that are suspect, with the reason.
    package var suspects: [String] = []
    /// What went wrong first; the segment's own call will tell it again.
    package var failure: KedgeError?
}

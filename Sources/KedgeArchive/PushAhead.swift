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
import KedgePostgres
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

extension ArchivePush {
    /// Stores the next segments that wait, and makes notes of them and of the own one. `archives` are those
    /// in which the own file is durable; a note of some of the repositories acknowledges nothing. Segments of a
    /// timeline whose history is among `waiting` are left to their own call, which stores that first or tells why it
    /// can't.
    func pushAhead(
        of own: LocalWALFile, _ copies: [PushNote.Copy], to archives: [WALArchive], behind waiting: Set<WALFileName>
    ) -> PushedAhead {
        guard let spool = options.spool, let destination = options.destination, case .segment(let name) = own.file
        else {
            return PushedAhead()
        }
        note(own, copies, spool, destination)
        let ready = ReadyFiles(beside: options.path)
        let noted = spool.names(in: .durable)
        // A segment that waits no more is not asked for again.
        let isReady = Set(ready.names)
        spool.remove(noted.filter { $0 != name && !isReady.contains($0) }, in: .durable)
        let (isNoted, repositories) = (Set(noted), Set(copies.map(\.repository)))
        let next = ready.next(after: name, limit: options.ahead.segments) { other in
            guard let file = WALFileName(other), !waiting.contains(.history(file.timeline)) else { return false }
            return !(isNoted.contains(other) && spool.hasNote(of: other, in: repositories))
        }
        guard !next.isEmpty else { return PushedAhead() }
        let progress = Monitor(PushedAhead())
        let inFlight = min(
            options.ahead.inFlight, max(1, PushAheadLimits.bytesInFlight / max(1, own.bytes.count)), next.count)
        let begin = time.monotonicNanoseconds()
        do throws(KedgeError) {
            // With one segment at a time all threads work on it.
            let (threads, gate) = (inFlight == 1 ? options.threads : 1, WorkGate(limit: options.threads))
            try parallelFor(
                count: next.count, threads: inFlight, name: "push-ahead",
                makeState: { () throws(KedgeError) in 0 },
                body: { (_, number) throws(KedgeError) in
                    try interruption.checkpoint()
                    guard time.monotonicNanoseconds() - begin < options.ahead.nanoseconds else { return }
                    let suspect = try pushOne(
                        next[number], archives, spool, destination, threads: threads, gate)
                    progress.update { progress in
                        progress.stored += 1
                        if let suspect { progress.suspects.append(suspect) }
                    }
                })
        } catch {
            if error.code != .interrupted { progress.update { $0.failure = error } }
        }
        return progress.update { $0 }
    }

    /// Stores one further segment in all repositories. Returns what is suspect about it.
    private func pushOne(
        _ name: String, _ archives: [WALArchive], _ spool: Spool, _ destination: PushDestination, threads: Int,
        _ gate: WorkGate
    ) throws(KedgeError) -> String? {
        guard let file = WALFileName(name) else { return nil }
        let local = try gate.pass { () throws(KedgeError) in
            try readChecked(file, at: options.path.parent.appending(name))
        }
        if options.refusesDamagedWAL, let suspect = local.facts?.suspect { throw refusal(file, suspect) }
        var copies: [PushNote.Copy] = []
        for archive in archives {
            do throws(KedgeError) {
                // The control file was read anew: the server could be another one by now.
                guard local.control.systemIdentifier == archive.registration.systemIdentifier else {
                    throw KedgeError(.walForeign, "cannot push on behalf of another database system")
                }
                copies.append(try store(local, in: archive, threads: threads, gate: gate).copy)
            } catch {
                throw error.wrapped(
                    "could not archive WAL file \"\(file.text)\" in repository "
                        + "\"\(archive.cluster.repository.name)\"")
            }
        }
        note(local, copies, spool, destination)
        return local.facts?.suspect.map { "\(name): at \($0.lsn): \($0.reason)" }
    }

    /// Makes a note that a file is durable. Without one the file is looked up again, so a failure costs time alone.
    private func note(
        _ local: LocalWALFile, _ copies: [PushNote.Copy], _ spool: Spool, _ destination: PushDestination
    ) {
        guard let identity = local.identity else { return }
        do throws(KedgeError) {
            let note = PushNote(
                file: local.file.text, identity: identity, system: local.control.systemIdentifier,
                destination: destination.text, copies: copies, notedAt: time.now())
            try spool.write(note.jsonValue, as: note.file, in: .durable)
        } catch {
            // The next call stores it, or finds it, the long way.
        }
    }
}

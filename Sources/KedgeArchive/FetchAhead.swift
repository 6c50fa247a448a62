// Fetches the segments that a recovering server will ask for next into the spool, while it replays.
//
//   start ─▶ take the lock, or end ─▶ ┌ what did the server get last?
//                                     │ fetch what is missing of the next ones, several at once
//                                     └ nothing to do: look again soon
//   end: the server is gone or is another one · it has got nothing for some seconds · the spool was removed · an error
//        · somebody asked to stop. What was fetched is removed then.
//
// 1. It is started by archive-get and never waited for. Whatever goes wrong here is found, and told, by archive-get
//    when it looks for the segment itself.
// 2. It answers nothing: what it does not find is looked for again by archive-get.
// 3. One for each run of a server, by a lock in the spool.

import KedgeCatalog
package import KedgeCore
import KedgePostgres
package import KedgeRepository

/// Fetches ahead of a recovering server.
package struct FetchAhead: Sendable {
    package struct Options: Sendable {
        package let clusterName: String
        package let repositories: [RepositorySource]
        /// What the configuration says of the repositories.
        package let destination: String
        /// How many segments ahead of the last one asked for; 1 or more.
        package let segments: Int
        /// How many are fetched at once; 1 or more.
        package let inFlight: Int
        /// How many threads decompress one segment that is fetched alone.
        package let threads: Int
        /// How long the server may take for one segment before this ends.
        package var idleNanoseconds: UInt64 = 5_000_000_000

        package init(
            clusterName: String, repositories: [RepositorySource], destination: String, segments: Int, inFlight: Int,
            threads: Int
        ) {
            self.clusterName = clusterName
            self.repositories = repositories
            self.destination = destination
            self.segments = segments
            self.inFlight = inFlight
            self.threads = threads
        }
    }

    private let options: Options
    private let copies: FetchedCopies
    private let random: any RandomSource
    private let time: any TimeSource
    private let interruption: Interruption

    package init(
        _ options: Options, into copies: FetchedCopies, random: any RandomSource, time: any TimeSource,
        interruption: Interruption
    ) {
        self.options = options
        self.copies = copies
        self.random = random
        self.time = time
        self.interruption = interruption
    }

    /// The most bytes that lie ahead.
    private static let bytesAhead: UInt64 = 256 << 20

    /// How many segments lie ahead at most.
    private var segmentsAhead: Int {
        min(options.segments, max(1, Int(FetchAhead.bytesAhead / copies.server.segmentSize)))
    }

    /// Fetches as long as the server asks. Returns how many segments it fetched. Throws `locked` where somebody else
    /// is at it, and the first error of a repository.
    package func run() throws(KedgeError) -> Int {
        let lock = try FileLock(at: copies.lockPath, purpose: "fetching WAL ahead", time: time)
        defer {
            copies.removeAll()
            _ = lock
        }
        copies.removeOthers()
        var archives: [WALArchive] = []
        var last: WALSegment?
        var lastChange = time.monotonicNanoseconds()
        var absent: Set<WALSegment> = []
        var fetched = 0
        while isWanted {
            try interruption.checkpoint()
            guard let asked = copies.asked() else { break }
            if asked != last {
                last = asked
                absent = []
                lastChange = time.monotonicNanoseconds()
                try forget(allBefore: asked)
            }
            let missing = try missing(behind: asked, unless: absent)
            if missing.isEmpty {
                guard time.monotonicNanoseconds() - lastChange < options.idleNanoseconds else { break }
                try time.sleep(nanoseconds: 10_000_000, unless: interruption)
                continue
            }
            if archives.isEmpty { archives = try openArchives() }
            let found = try fetch(missing, from: archives)
            fetched += found.count
            absent.formUnion(Set(missing).subtracting(found))
        }
        return fetched
    }

    /// Fetches the segments behind `asked` once, for a server that can't have anybody beside it.
    package func runOnce(behind asked: String) throws(KedgeError) {
        guard let segment = WALSegment(fileName: asked, segmentSize: copies.server.segmentSize) else { return }
        try copies.noteAsked(asked)
        copies.removeOthers()
        try forget(allBefore: segment)
        let missing = try missing(behind: segment, unless: [])
        // What is there lasts for a while.
        guard missing.count > segmentsAhead / 2 else { return }
        _ = try fetch(missing, from: openArchives())
    }

    /// Whether the same server still runs, and nobody has removed the spool.
    private var isWanted: Bool {
        let server = RecoveringServer(
            dataDirectory: copies.server.dataDirectory, destination: options.destination, time: time)
        do throws(KedgeError) {
            guard let server, server.id == copies.server.id else { return false }
            return try FileSystem.exists(copies.lockPath)
        } catch {
            return false
        }
    }

    private func forget(allBefore asked: WALSegment) throws(KedgeError) {
        for name in try copies.names() {
            guard let segment = WALSegment(fileName: name, segmentSize: copies.server.segmentSize),
                segment.timeline == asked.timeline, segment.number >= asked.number
            else {
                copies.remove(name)
                continue
            }
        }
    }

    /// The next segments up to the first one that is known to be absent, less those that were fetched.
    private func missing(
        behind asked: WALSegment, unless absent: Set<WALSegment>
    ) throws(KedgeError) -> [WALSegment] {
        let size = copies.server.segmentSize
        let present = Set(try copies.names())
        var missing: [WALSegment] = []
        var segment = asked
        for _ in 0..<segmentsAhead {
            segment = segment.next
            if absent.contains(segment) { break }
            if !present.contains(segment.fileName(segmentSize: size)) { missing.append(segment) }
        }
        return missing
    }

    private func openArchives() throws(KedgeError) -> [WALArchive] {
        var archives: [WALArchive] = []
        var failure: KedgeError?
        // One that does not answer must not hold up what another one has (decision 22).
        let isHasty = options.repositories.count > 1
        for source in options.repositories {
            do throws(KedgeError) {
                let source = isHasty ? source.hasty : source
                let cluster = try source.openCluster(options.clusterName, for: .read, random: random)
                archives.append(WALArchive(cluster, try cluster.registration(of: copies.server.system)))
            } catch {
                failure = failure ?? error
            }
        }
        if archives.isEmpty, let failure { throw failure }
        return archives
    }

    /// Fetches those of `segments` that a repository has. Returns them.
    private func fetch(
        _ segments: [WALSegment], from archives: [WALArchive]
    ) throws(KedgeError) -> [WALSegment] {
        let found = Monitor<[WALSegment]>([])
        let threads = segments.count == 1 ? options.threads : 1
        try parallelFor(
            count: segments.count, threads: options.inFlight, name: "fetch-ahead",
            makeState: { () throws(KedgeError) in 0 },
            body: { (_, number) throws(KedgeError) in
                try interruption.checkpoint()
                let name = segments[number].fileName(segmentSize: copies.server.segmentSize)
                for archive in archives {
                    // One that has it damaged, or twice, is not asked further: archive-get tells.
                    let bytes: [UInt8]?
                    do throws(KedgeError) {
                        bytes = try archive.fetch(.segment(name), threads: threads)
                    } catch {
                        guard error.code.isRetryable, archives.count > 1 else { throw error }
                        continue
                    }
                    guard let bytes else { continue }
                    try copies.write(bytes, name, from: archive.cluster.repository.name)
                    found.update { $0.append(segments[number]) }
                    return
                }
            })
        return found.update { $0 }
    }
}

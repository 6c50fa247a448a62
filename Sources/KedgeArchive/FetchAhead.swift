// Fetches the segments that a recovering server will ask for next into the spool, while it replays.
//
//   start ─▶ take the lock, or end ─▶ ┌ what did the server get last?
//                                     │ begin what is missing of the next ones, as soon as one of those on their way
//                                     │ has come
//                                     └ nothing to do: look again soon
//   end: the server is gone or is another one · it has got nothing for some seconds · the spool was removed · an error
//        · somebody asked to stop. What was fetched is removed then.
//
// 1. It is started by archive-get and never waited for. Whatever goes wrong here is found, and told, by archive-get
//    when it looks for the segment itself.
// 2. It answers nothing: what it does not find is looked for again by archive-get.
// 3. One for each run of a server, by a lock in the spool. Where the spool was removed another one may have taken a new
//    lock: whoever's lock file is not the one at the path any more ends, and leaves what is there to the other.
// 4. Memory is that of the objects on their way, at most `bytesInFlight`, and of one frame for each.

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
        /// How long the server may take for one segment before this ends.
        package var idleNanoseconds: UInt64 = 5_000_000_000

        package init(
            clusterName: String, repositories: [RepositorySource], destination: String, segments: Int, inFlight: Int
        ) {
            self.clusterName = clusterName
            self.repositories = repositories
            self.destination = destination
            self.segments = segments
            self.inFlight = inFlight
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

    /// The most bytes of objects in memory: two segments that do not compress, or some more that do.
    private static let bytesInFlight = 34 << 20

    /// How many segments lie ahead at most.
    private var segmentsAhead: Int {
        min(options.segments, max(1, Int(FetchAhead.bytesAhead / copies.server.segmentSize)))
    }

    /// Fetches as long as the server asks. Returns how many segments it fetched. Throws `locked` where somebody else
    /// is at it, and the first error of a repository.
    package func run() throws(KedgeError) -> Int {
        let lock = try FileLock(at: copies.lockPath, purpose: "fetching WAL ahead", time: time)
        defer { withExtendedLifetime(lock) { if isCurrent(lock) { copies.removeAll() } } }
        copies.removeOthers()
        let window = Monitor(Window())
        var pool: WorkerPool<WALSegment>?
        do throws(KedgeError) {
            try follow(window, lock, &pool)
        } catch {
            window.update { $0.failure = $0.failure ?? error }
        }
        // Before the copies are removed nobody may write one any more.
        window.update { $0.isClosed = true }
        try pool?.finish()
        // Without its directory nothing could be kept.
        if let failure = window.update({ $0.failure }), isCurrent(lock) { throw failure }
        return window.update { $0.fetched }
    }

    /// What is on its way, and what came of it.
    private struct Window {
        var inFlight: Set<WALSegment> = []
        /// What no repository had when the server had got the last one.
        var absent: Set<WALSegment> = []
        var fetched = 0
        var failure: KedgeError?
        /// Nothing more is begun.
        var isClosed = false
    }

    /// Follows the server until one of them ends.
    private func follow(
        _ window: Monitor<Window>, _ lock: FileLock, _ pool: inout WorkerPool<WALSegment>?
    ) throws(KedgeError) {
        var last: WALSegment?
        var lastChange = time.monotonicNanoseconds()
        while isWanted, isCurrent(lock) {
            try interruption.checkpoint()
            if let failure = window.update({ $0.failure }) { throw failure }
            guard let asked = copies.asked() ?? last else { return }
            if asked != last {
                last = asked
                window.update { $0.absent = [] }
                lastChange = time.monotonicNanoseconds()
                try forget(allBefore: asked)
            }
            // In this order: what comes meanwhile counts as on its way.
            let (busy, absent) = window.update { ($0.inFlight, $0.absent) }
            let missing = try missing(behind: asked, unless: absent).filter { !busy.contains($0) }
            if missing.isEmpty, busy.isEmpty {
                guard time.monotonicNanoseconds() - lastChange < options.idleNanoseconds else { return }
                try time.sleep(nanoseconds: 10_000_000, unless: interruption)
                continue
            }
            // One more than are worked on, so that nobody waits for the next.
            let next = missing.prefix(max(0, options.inFlight + 1 - busy.count))
            if pool == nil { pool = try startPool(window) }
            window.update { $0.inFlight.formUnion(next) }
            for segment in next { try pool?.submit(segment) }
            let count = busy.count + next.count
            _ = window.wait(atMost: .milliseconds(10)) { $0.inFlight.count < count ? () : nil }
        }
    }

    private func startPool(_ window: Monitor<Window>) throws(KedgeError) -> WorkerPool<WALSegment> {
        let (archives, gate) = (try openArchives(), WorkGate(limit: FetchAhead.bytesInFlight))
        return try WorkerPool(
            name: "fetch-ahead", workers: options.inFlight, queueLimit: options.inFlight + 1,
            makeState: { (_) throws(KedgeError) in },
            body: { (_, segment) throws(KedgeError) in
                do throws(KedgeError) {
                    guard !window.update({ $0.isClosed }) else { return }
                    let isThere = try fetch(segment, from: archives, gate)
                    window.update { window in
                        window.inFlight.remove(segment)
                        if isThere { window.fetched += 1 } else { window.absent.insert(segment) }
                    }
                } catch {
                    window.update { window in
                        window.inFlight.remove(segment)
                        window.failure = window.failure ?? error
                    }
                }
            }, finishState: { (_) throws(KedgeError) in })
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
        let (archives, gate) = (try openArchives(), WorkGate(limit: FetchAhead.bytesInFlight))
        try parallelFor(
            count: missing.count, threads: options.inFlight, name: "fetch-ahead",
            makeState: { () throws(KedgeError) in 0 },
            body: { (_, number) throws(KedgeError) in _ = try fetch(missing[number], from: archives, gate) })
    }

    /// Whether the same server still runs.
    private var isWanted: Bool {
        let server = RecoveringServer(
            dataDirectory: copies.server.dataDirectory, destination: options.destination, time: time)
        return server?.id == copies.server.id
    }

    /// Whether nobody has removed the spool.
    private func isCurrent(_ lock: FileLock) -> Bool {
        do throws(KedgeError) {
            return try lock.isCurrent()
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

    /// Fetches a segment if a repository has it. Returns whether one has.
    private func fetch(
        _ segment: WALSegment, from archives: [WALArchive], _ gate: WorkGate
    ) throws(KedgeError) -> Bool {
        let name = segment.fileName(segmentSize: copies.server.segmentSize)
        for archive in archives {
            try interruption.checkpoint()
            // One that has it damaged, or twice, is not asked further: archive-get tells.
            do throws(KedgeError) {
                guard let (archived, storedBytes) = try archive.contents(of: .segment(name)).one().first else {
                    continue
                }
                try gate.pass(counting: Int(clamping: storedBytes)) { () throws(KedgeError) in
                    try keep(name, archived, storedBytes, of: archive)
                }
                return true
            } catch {
                guard error.code.isRetryable, archives.count > 1 else { throw error }
            }
        }
        return false
    }

    private func keep(
        _ name: String, _ archived: ArchivedFile, _ storedBytes: UInt64, of archive: WALArchive
    ) throws(KedgeError) {
        let format = copies.server.format
        let cluster = archive.cluster
        try copies.write(
            name, from: cluster.repository.name, clusterID: cluster.clusterID
        ) { (take) throws(KedgeError) in
            var isFirst = true
            let facts = try archive.stream(archived, storedBytes: storedBytes) { (piece) throws(KedgeError) in
                if isFirst { try SegmentDelivery.check(firstPage: piece, archived.file, format) }
                isFirst = false
                try take(piece)
            }
            guard facts.length == copies.server.segmentSize else {
                throw KedgeError(
                    .walForeign, "cannot use WAL file \"\(name)\": it has \(facts.length) bytes",
                    detail: "The server's segments have \(copies.server.segmentSize).",
                    hint: "Leave it to archive-get, which tells what is wrong.")
            }
            return facts.tag
        }
    }
}

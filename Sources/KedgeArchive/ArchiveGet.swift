// `kedge archive-get`: fetches one WAL file, or proves that it is absent.
//
// PostgreSQL takes "absent" for the end of the WAL and may promote there, so absence is never guessed:
//
//   every repository was read ──▶ one has the file, and every byte of it was checked ──▶ fetched
//                             ──▶ none has it, and nothing says that it was ever written ──▶ absent
//                             ──▶ none has it, but a later one of its timeline is there, or another timeline
//                                 branched off behind it: a hole. Parallel pushes finish out of order, so it is
//                                 looked up again until the timeout, and then is an error (`wal-gap`)
//   one could not be read     ──▶ an error, unless another one has the file
//
// While there is another repository to turn to, one that does not answer is given up after seconds; only when none of
// the others has the file it gets all the time that there is.
//
// The file is written beside its destination and renamed: PostgreSQL never sees a part of it.
//
// While the first segment of a new timeline is not archived yet, the server asks for the old timeline's file of the
// same number, and would replay all of it, also what lies behind the switch point and belongs to another branch
// (xlogrecovery.c, XLogFileReadAnyTLI does not look at where a timeline was left). So where it is known which history
// the server follows, it gets no byte from behind a switch point: that part of the segment is zero, as in the first
// segment of a timeline that the server itself makes (xlog.c, XLogFileCopy), and a segment that lies there as a whole
// is refused.

import KedgeCatalog
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// Fetches one WAL file.
package struct ArchiveGet: Sendable {
    package struct Options: Sendable {
        /// The file's name, as PostgreSQL gives it with `%f`.
        package let fileName: String
        /// Where to write it, as PostgreSQL gives it with `%p`.
        package let destination: RawPath
        package let clusterName: String
        /// Where `global/pg_control` may be: it says which database system asks.
        package let dataDirectory: RawPath
        package let repositories: [RepositorySource]
        /// How many threads decompress; 1 or more.
        package let threads: Int
        /// How long a hole is looked at again.
        package let timeoutNanoseconds: UInt64
        /// The history that the asking server follows; nil where that is not known.
        package let followed: TimelineHistory?
        /// Takes what is wrong with a repository although another one has the file.
        package var warn: @Sendable (String) -> Void = { _ in }

        package init(
            fileName: String, destination: RawPath, clusterName: String, dataDirectory: RawPath,
            repositories: [RepositorySource], threads: Int, timeoutNanoseconds: UInt64,
            followed: TimelineHistory? = nil
        ) {
            self.fileName = fileName
            self.destination = destination
            self.clusterName = clusterName
            self.dataDirectory = dataDirectory
            self.repositories = repositories
            self.threads = threads
            self.timeoutNanoseconds = timeoutNanoseconds
            self.followed = followed
        }
    }

    package enum Outcome: Hashable, Sendable {
        /// The file is at its destination; it came from this repository.
        case fetched(repository: String)
        /// Every repository was read; none has the file, and none shows that there was more of its timeline.
        case absent
    }

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource
    private let interruption: Interruption

    package init(_ options: Options, random: any RandomSource, time: any TimeSource, interruption: Interruption) {
        self.options = options
        self.random = random
        self.time = time
        self.interruption = interruption
    }

    /// Throws `usage` for a name that is no WAL file's, `wal-gap`, `wal-foreign` for a segment of a branch that the
    /// server does not follow, `damaged`, `archive-conflict`, `interrupted`, and what opening, reading and writing
    /// throw. Nothing is at the destination then that was not there before.
    package func run() throws(KedgeError) -> Outcome {
        guard let file = WALFileName(options.fileName) else {
            throw KedgeError(
                .usage, "cannot fetch file \"\(options.fileName)\": its name is not that of a WAL file",
                hint: "Use restore_command = 'kedge archive-get %f \"%p\"'.")
        }
        // No server ever writes this one.
        if file == .history(TimelineID(1)) { return .absent }
        let system = try askingSystem()
        let start = time.monotonicNanoseconds()
        var pause: UInt64 = 50_000_000
        while true {
            let search = try lookEverywhere(for: file, system)
            if let repository = search.fetchedFrom { return .fetched(repository: repository) }
            if let failure = search.failures.error("could not look up WAL file \"\(file.text)\"") { throw failure }
            guard let hole = search.hole else { return .absent }
            guard time.monotonicNanoseconds() - start < options.timeoutNanoseconds else {
                throw gap(file, hole)
            }
            try time.sleep(nanoseconds: pause, unless: interruption)
            pause = min(pause * 2, 2_000_000_000)
        }
    }

    /// The system identifier in `pg_control`; nil where there is none to be read, as when pg_rewind or a person asks.
    private func askingSystem() throws(KedgeError) -> SystemIdentifier? {
        do throws(KedgeError) {
            return try ControlFile.read(dataDirectory: options.dataDirectory, time: time).systemIdentifier
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
    }

    // MARK: - Looking

    private struct Search {
        var fetchedFrom: String?
        /// What shows that the file is missing in the middle, as a clause.
        var hole: String?
        /// Of repositories that could not be read, or whose copy is damaged: absence is not proven then.
        var failures = RepositoryFailures()
    }

    private func lookEverywhere(for file: WALFileName, _ system: SystemIdentifier?) throws(KedgeError) -> Search {
        guard options.repositories.count > 1 else { return try look(for: file, system, options.repositories) }
        let first = try look(for: file, system, options.repositories.map(\.hasty))
        if first.fetchedFrom != nil || !first.failures.all.contains(where: \.error.code.isRetryable) { return first }
        return try look(for: file, system, options.repositories)
    }

    private func look(
        for file: WALFileName, _ system: SystemIdentifier?, _ repositories: [RepositorySource]
    ) throws(KedgeError) -> Search {
        var search = Search()
        for source in repositories {
            do throws(KedgeError) {
                let cluster = try source.openCluster(options.clusterName, for: .read, random: random)
                var registration = cluster.newestRegistration
                if let system { registration = try cluster.registration(of: system) }
                let archive = WALArchive(cluster, registration)
                if try fetch(file, from: archive) {
                    search.fetchedFrom = source.settings.name
                    for (name, error) in search.failures.all {
                        options.warn(
                            "repository \"\(name)\" could not serve WAL file \"\(file.text)\": \(error.message)")
                    }
                    return search
                }
                if search.hole == nil { search.hole = try hole(at: file, in: archive) }
            } catch {
                guard error.code != .interrupted else { throw error }
                search.failures.add(error, of: source.settings.name)
            }
        }
        return search
    }

    /// What shows that a segment existed that is not archived. Looked up only after the file was found absent, and
    /// the file once more by the caller's next round: it may have come in between.
    private func hole(at file: WALFileName, in archive: WALArchive) throws(KedgeError) -> String? {
        guard case .segment(let name) = file else { return nil }
        let segmentSize = archive.registration.walSegmentSize
        guard let segment = WALSegment(fileName: name, segmentSize: segmentSize) else { return nil }
        if let later = try archive.firstSegment(after: segment) {
            return "the later segment \"\(later.fileName(segmentSize: segmentSize))\" is archived"
        }
        guard let branch = try archive.firstBranch(behind: segment) else { return nil }
        return "timeline \(branch) branched off behind it, says \"\(branch.hex).history\""
    }

    private func gap(_ file: WALFileName, _ hole: String) -> KedgeError {
        KedgeError(
            .walGap, "could not fetch WAL file \"\(file.text)\": it is missing in the middle of the archived WAL",
            detail: "It is not archived, but \(hole); it was looked for during "
                + "\(options.timeoutNanoseconds / 1_000_000_000) s.",
            hint:
                "If the server that wrote it still has it in pg_wal, let it be archived.  Otherwise recovery can't go "
                + "beyond this point: run \"kedge info\" to see which moments can be reached.")
    }

    // MARK: - Fetching

    /// Fetches the file if this repository has it. Returns whether it had.
    private func fetch(_ file: WALFileName, from archive: WALArchive) throws(KedgeError) -> Bool {
        let found = try archive.find(file)
        guard let archived = found.first else { return false }
        guard found.count == 1 else {
            throw KedgeError(
                .archiveConflict,
                "cannot fetch WAL file \"\(file.text)\": it was archived \(found.count) times with different content",
                detail: "The objects are \(found.map { "\"\($0.name)\"" }.joined(separator: ", ")).",
                hint:
                    "Two servers wrote the same timeline.  Run \"kedge cat\" on each to see who stored it, and remove "
                    + "the one that does not belong.")
        }
        let kept = try keptLength(of: file, archive.registration)
        var bytes = try archive.read(archived, threads: options.threads).bytes
        try check(bytes, file, archive.registration)
        if let kept { for index in kept..<bytes.count { bytes[index] = 0 } }
        try interruption.checkpoint()
        try write(bytes)
        return true
    }

    /// How many bytes of the segment belong to the history that the server follows; nil where it is all of them, or
    /// nobody knows. Throws `wal-foreign` where it is none.
    private func keptLength(of file: WALFileName, _ registration: Registration) throws(KedgeError) -> Int? {
        let segmentSize = registration.walSegmentSize
        guard case .segment(let name) = file, let segment = WALSegment(fileName: name, segmentSize: segmentSize),
            let history = options.followed, let limit = history.limit(of: segment.timeline)
        else { return nil }
        let start = segment.startLSN(segmentSize: segmentSize)
        guard limit < segment.next.startLSN(segmentSize: segmentSize) else { return nil }
        guard limit > start else {
            throw KedgeError(
                .walForeign,
                "cannot give out WAL file \"\(name)\": it belongs to a branch that the server does not follow",
                detail:
                    "The server follows timeline \(history.timeline), which left timeline \(segment.timeline) at LSN "
                    + "\(limit), before this segment begins.",
                hint: "Nothing has to be done if the next segment of timeline \(history.timeline) is still to be "
                    + "archived.  To recover along timeline \(segment.timeline), set recovery_target_timeline = "
                    + "'\(segment.timeline)' in postgresql.auto.conf.")
        }
        return Int(limit - start)
    }

    /// PostgreSQL takes a bad page for the end of the WAL: what goes to it has the right size and the right first page.
    private func check(_ bytes: [UInt8], _ file: WALFileName, _ registration: Registration) throws(KedgeError) {
        guard case .segment = file else { return }
        guard let version = PostgresVersion(rawValue: registration.postgresVersion),
            let segmentSize = UInt32(exactly: registration.walSegmentSize)
        else {
            throw KedgeError(
                .notSupported, "cannot fetch WAL of PostgreSQL \(registration.postgresVersion)",
                hint: "Use a newer kedge.")
        }
        let format = WALFormat(
            systemIdentifier: registration.systemIdentifier, version: version, segmentSize: segmentSize,
            walBlockSize: registration.walBlockSize)
        _ = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFileCheck.check(name: file, firstPage: bytes, sizeBytes: UInt64(bytes.count), format: format)
        }
    }

    private func write(_ bytes: [UInt8]) throws(KedgeError) {
        let directory = try FileDescriptor.open(options.destination.parent, [.read, .directory])
        let file = try DurableFile(in: directory, mode: 0o600, random: random)
        try file.file.write(bytes, at: 0)
        // A crash of the machine makes the server ask again, so nothing is synced here.
        try file.publishWithoutSync(as: options.destination.lastComponent)
    }
}

// `kedge archive-get`: fetches one WAL file, or proves that it is absent.
//
// PostgreSQL takes "absent" for the end of the WAL and may promote there, so absence is never guessed:
//
//   every repository was read ──▶ one has the file, and every byte of it was checked ──▶ fetched
//                             ──▶ none has it, and nothing says that it was ever written ──▶ absent
//                             ──▶ none has it, but a later one of its timeline is there, or another timeline
//                                 branched off behind it, or a backup was taken there or later: a hole. Parallel
//                                 pushes finish out of order, so it is looked up again until the
//                                 timeout, and then is an error (`wal-gap`). So is a history that is missing while
//                                 anything of its timeline is there: the server would take the number again
//   one could not be read     ──▶ an error, unless another one has the file
//   one is known to be an older state of itself ──▶ the same
//
// While there is another repository to turn to, one that does not answer is given up after seconds; only when none of
// the others has the file it gets all the time that there is.
//
// A segment that was fetched ahead comes from the spool (FetchedCopies.swift): nobody is asked then. What the server
// may see of it is decided now, and absence never comes from there. How the file is handed over: SegmentDelivery.swift.

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
        /// What was fetched ahead for the asking server; nil where nothing is.
        package var fetchedAhead: FetchedCopies?

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
        /// The same, by way of the spool, where it is noted that the server asked for it.
        case fetchedAhead(repository: String)
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
    /// server does not follow while that of its own is archived, `key-outdated`, `damaged`, `archive-conflict`,
    /// `interrupted`, and what opening, reading and writing throw; what goes wrong with the destination names it, and
    /// no repository. Nothing is there then that was not there before.
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
            if let found = search.found {
                try interruption.checkpoint()
                try delivery.write(found.bytes, kept: found.kept, of: file.text)
                return .fetched(repository: found.repository)
            }
            if let failure = search.failures.error("could not look up WAL file \"\(file.text)\"") {
                throw failure.hinting(
                    ifDamaged: "Nothing was handed over.  Put a good copy of the object back, from a mirror of the "
                        + "repository or an older version in its store, or add a repository that has one.  \"kedge "
                        + "verify --full\" tells what else is damaged, and \"kedge info\" which moments can be reached."
                )
            }
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

    /// Hands over a segment that was fetched ahead. Nil where the repositories have to be asked; never `absent`. Needs
    /// no repository and no secret.
    package func runFromSpool() throws(KedgeError) -> Outcome? {
        guard let file = WALFileName(options.fileName), case .segment(let name) = file,
            let ahead = options.fetchedAhead, let copy = ahead.find(name)
        else {
            return nil
        }
        let format = ahead.server.format
        let share = delivery.share(of: file, segmentSize: UInt64(format.segmentSize))
        // The repositories are asked whether the segment of the server's own history is there.
        if case .nothing = share { return nil }
        try interruption.checkpoint()
        let bytes: [UInt8]
        do throws(KedgeError) {
            // Before it is moved: so that nobody fetches again what is not there any more.
            try ahead.noteAsked(name)
            if share == .whole, try delivery.take(copy, file, format) {
                return .fetchedAhead(repository: copy.repository)
            }
            bytes = try copy.bytes()
            try SegmentDelivery.check(bytes, file, format)
        } catch {
            // It can't have come from a repository like that.
            ahead.remove(name)
            return nil
        }
        try interruption.checkpoint()
        if case .start(let kept) = share {
            try delivery.write(bytes, kept: kept, of: name)
        } else {
            try delivery.write(bytes, of: name)
        }
        return .fetchedAhead(repository: copy.repository)
    }

    private var delivery: SegmentDelivery {
        SegmentDelivery(destination: options.destination, followed: options.followed, random: random, time: time)
    }

    // MARK: - Looking

    /// What is to be handed over. That is done outside of the search: what goes wrong there is no repository's fault.
    private struct Found {
        let repository: String
        let bytes: [UInt8]
        /// How many first bytes the server may see; nil: all.
        let kept: Int?
    }

    private struct Search {
        var found: Found?
        /// What shows that the file is missing in the middle, as a clause.
        var hole: String?
        /// Of repositories that could not be read, or whose copy is damaged: absence is not proven then.
        var failures = RepositoryFailures()
    }

    private func lookEverywhere(for file: WALFileName, _ system: SystemIdentifier?) throws(KedgeError) -> Search {
        guard options.repositories.count > 1 else { return try look(for: file, system, options.repositories) }
        let first = try look(for: file, system, options.repositories.map(\.hasty))
        if first.found != nil || !first.failures.all.contains(where: \.error.code.isRetryable) { return first }
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
                if let found = try fetch(file, from: archive, called: source.settings.name) {
                    search.found = found
                    for (name, error) in search.failures.all {
                        options.warn(
                            "repository \"\(name)\" could not serve WAL file \"\(file.text)\": \(error.message)")
                    }
                    return search
                }
                // A state that is older than one that was seen here may lack what was acknowledged since.
                if let outdated = cluster.repository.outdated { throw outdated }
                if search.hole == nil { search.hole = try hole(at: wanted(file, archive), in: archive) }
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
        if case .history(let timeline) = file { return try hole(atHistoryOf: timeline, in: archive) }
        guard case .segment(let name) = file else { return nil }
        let segmentSize = archive.registration.walSegmentSize
        guard let segment = WALSegment(fileName: name, segmentSize: segmentSize) else { return nil }
        if let later = try archive.firstSegment(after: segment) {
            return "the later segment \"\(later.fileName(segmentSize: segmentSize))\" is archived"
        }
        // What the server's own history left behind is another branch's, whoever took backups of that.
        let left = options.followed?.limit(of: segment.timeline)
        let isFollowed = left.map { $0 > segment.startLSN(segmentSize: segmentSize) } ?? true
        return try archive.evidence(of: segment, countsBackups: isFollowed)?.clause
    }

    /// What shows that a timeline exists whose history is not archived, where that matters to the server: not where it
    /// has the file itself, nor where it knows its way to a later timeline (it asks for all that lie between, and goes
    /// on without those that it does not get: timeline.c, restoreTimeLineHistoryFiles).
    private func hole(atHistoryOf timeline: TimelineID, in archive: WALArchive) throws(KedgeError) -> String? {
        if let followed = options.followed, timeline < followed.timeline { return nil }
        let own = options.dataDirectory.appending("pg_wal").appending(WALFileName.history(timeline).text)
        guard try !FileSystem.exists(own) else { return nil }
        return try archive.evidence(of: timeline)
    }

    private func gap(_ file: WALFileName, _ hole: String) -> KedgeError {
        if case .history(let timeline) = file {
            return KedgeError(
                .walGap,
                "could not fetch timeline history file \"\(file.text)\": it is missing, but its timeline is not",
                detail: "It is not archived, but \(hole).  A server that is told that there is no such history would "
                    + "take the number \(timeline) for a timeline of its own.",
                hint: "Archive it with \"kedge archive-push\" from the pg_wal of a server on that timeline.  If nobody "
                    + "has it any more, its WAL is of no use: move it out of the repository, then \(timeline) is free.")
        }
        return KedgeError(
            .walGap, "could not fetch WAL file \"\(file.text)\": it is missing in the middle of the archived WAL",
            detail: "It is not archived, but \(hole); it was looked for during "
                + "\(options.timeoutNanoseconds / 1_000_000_000) s.",
            hint:
                "If the server that wrote it still has it in pg_wal, let it be archived.  Otherwise recovery can't go "
                + "beyond this point: run \"kedge info\" to see which moments can be reached.")
    }

    // MARK: - Fetching

    /// Reads and checks the file; nil where this repository has none for the server.
    private func fetch(
        _ file: WALFileName, from archive: WALArchive, called repository: String
    ) throws(KedgeError) -> Found? {
        let segmentSize = archive.registration.walSegmentSize
        let share = delivery.share(of: file, segmentSize: segmentSize)
        if case .nothing(let own) = share {
            try refuseIfArchived(own, insteadOf: file, in: archive)
            return nil
        }
        guard let bytes = try archive.fetch(file, threads: options.threads, warn: options.warn) else { return nil }
        var kept: Int?
        if case .start(let first) = share { kept = first }
        return Found(repository: repository, bytes: bytes, kept: kept)
    }

    /// The server turns to an older timeline's segment after it was told that its own is absent, and takes a second
    /// "absent" for the end of the WAL. So its own must not have been archived in between.
    private func refuseIfArchived(
        _ own: WALSegment, insteadOf file: WALFileName, in archive: WALArchive
    ) throws(KedgeError) {
        let name = own.fileName(segmentSize: archive.registration.walSegmentSize)
        guard try !archive.find(.segment(name)).isEmpty else {
            return options.warn(
                "WAL file \"\(file.text)\" is of no use to the server: it follows timeline \(own.timeline) there, "
                    + "whose \"\(name)\" is not archived. It ends there, unless recovery_target_timeline in "
                    + "postgresql.auto.conf names the other one")
        }
        throw KedgeError(
            .walForeign,
            "cannot give out WAL file \"\(file.text)\": it belongs to a branch that the server does not follow",
            detail: "Its own, \"\(name)\", is archived.",
            hint: "If that was archived just now, start the server again.")
    }

    /// The file whose absence is to be looked into: of a segment that lies on a branch, that of the server's own
    /// history.
    private func wanted(_ file: WALFileName, _ archive: WALArchive) -> WALFileName {
        let segmentSize = archive.registration.walSegmentSize
        guard case .nothing(let own) = delivery.share(of: file, segmentSize: segmentSize) else { return file }
        return .segment(own.fileName(segmentSize: segmentSize))
    }
}

// `kedge archive-get`: fetches one WAL file, or proves that it is absent.
//
// PostgreSQL takes "absent" for the end of the WAL and may promote there, so absence is never guessed:
//
//   every repository was read ──▶ one has the file, and every byte of it was checked ──▶ fetched
//                             ──▶ none has it, and none has a later segment of its timeline ──▶ absent
//                             ──▶ none has it, but a later one is there: a hole. Parallel pushes finish out of order,
//                             so
//                                 it is looked up again until the timeout, and then is an error (`wal-gap`)
//   one could not be read     ──▶ an error, unless another one has the file
//
// The file is written beside its destination and renamed: PostgreSQL never sees a part of it.

import KedgeCatalog
package import KedgeCore
import KedgePostgres
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

        package init(
            fileName: String, destination: RawPath, clusterName: String, dataDirectory: RawPath,
            repositories: [RepositorySource], threads: Int, timeoutNanoseconds: UInt64
        ) {
            self.fileName = fileName
            self.destination = destination
            self.clusterName = clusterName
            self.dataDirectory = dataDirectory
            self.repositories = repositories
            self.threads = threads
            self.timeoutNanoseconds = timeoutNanoseconds
        }
    }

    package enum Outcome: Hashable, Sendable {
        /// The file is at its destination; it came from this repository.
        case fetched(repository: String)
        /// Every repository was read; none has the file, and none has a later segment of its timeline.
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

    /// Throws `usage` for a name that is no WAL file's, `wal-gap`, `damaged`, `archive-conflict`, `interrupted`, and
    /// what opening, reading and writing throw. Nothing is at the destination then that was not there before.
    package func run() throws(KedgeError) -> Outcome {
        guard let file = WALFileName(options.fileName) else {
            throw KedgeError(
                .usage, "cannot fetch file \"\(options.fileName)\": its name is not that of a WAL file",
                hint: "Use restore_command = 'kedge archive-get %f \"%p\"'.")
        }
        let system = try askingSystem()
        let start = time.monotonicNanoseconds()
        var pause: UInt64 = 50_000_000
        while true {
            let search = try lookEverywhere(for: file, system)
            if let repository = search.fetchedFrom { return .fetched(repository: repository) }
            if let failure = search.failure { throw failure }
            guard let later = search.laterSegment else { return .absent }
            guard time.monotonicNanoseconds() - start < options.timeoutNanoseconds else {
                throw gap(file, later)
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
        var laterSegment: String?
        /// The first repository's failure: absence is not proven then.
        var failure: KedgeError?
    }

    private func lookEverywhere(for file: WALFileName, _ system: SystemIdentifier?) throws(KedgeError) -> Search {
        var search = Search()
        for source in options.repositories {
            do throws(KedgeError) {
                let cluster = try source.openCluster(options.clusterName, for: .read, random: random)
                var registration = cluster.newestRegistration
                if let system { registration = try cluster.registration(of: system) }
                let archive = WALArchive(cluster, registration)
                if try fetch(file, from: archive) {
                    search.fetchedFrom = source.settings.name
                    return search
                }
                if search.laterSegment == nil { search.laterSegment = try laterSegment(than: file, in: archive) }
            } catch {
                guard error.code != .interrupted else { throw error }
                search.failure =
                    search.failure
                    ?? error.wrapped(
                        "could not look up WAL file \"\(file.text)\" in repository \"\(source.settings.name)\"")
            }
        }
        return search
    }

    /// A later segment that is archived although this one is not. Looked up only after the file was found absent, and
    /// the file once more by the caller's next round: it may have come in between.
    private func laterSegment(than file: WALFileName, in archive: WALArchive) throws(KedgeError) -> String? {
        guard case .segment(let name) = file else { return nil }
        let segmentSize = archive.registration.walSegmentSize
        guard let segment = WALSegment(fileName: name, segmentSize: segmentSize) else { return nil }
        return try archive.firstSegment(after: segment)?.fileName(segmentSize: segmentSize)
    }

    private func gap(_ file: WALFileName, _ later: String) -> KedgeError {
        KedgeError(
            .walGap, "could not fetch WAL file \"\(file.text)\": it is missing in the middle of the archived WAL",
            detail: "The later segment \"\(later)\" is archived, this one is not; it was looked for during "
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
        let bytes = try archive.read(archived, threads: options.threads).bytes
        try check(bytes, file, archive.registration)
        try interruption.checkpoint()
        try write(bytes)
        return true
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

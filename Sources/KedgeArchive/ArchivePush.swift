// `kedge archive-push`: stores one WAL file in every repository of the cluster.
//
// 1. The file is checked before anything is stored: its name, its size, its first page against pg_control.
// 2. Its records are walked. What fails its CRC, or is not understood, is read again; if it stays, the file is stored
//    all the same and marked suspect (a refused segment would fill pg_wal and stop the database), unless the
//    configuration says otherwise.
// 3. In each repository it is created only if absent. If it exists, all of it is read and the content tag decides:
//    equal is success once what is there is durable; other content is a conflict, and nothing is changed. A stored copy
//    that is damaged is no success: PostgreSQL would recycle the last good one (ArchivePush+StoredCopy.swift).
//    What was put off and must be there before this file comes first (ArchivePush+PutOff.swift).
// 4. Success is reported when every repository has it durably, and not before.
// 5. Then come the next segments that wait, several at once (PushAhead.swift), each with a note in the spool.

import KedgeCatalog
import KedgeCodec
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// Stores one WAL file.
package struct ArchivePush: Sendable {
    package struct Options: Sendable {
        /// The file, as PostgreSQL gives it with `%p`: absolute, or relative to the working directory.
        package let path: RawPath
        package let clusterName: String
        /// Where `global/pg_control` is: the working directory of an `archive_command`, else the configured one.
        package let dataDirectory: RawPath
        package let repositories: [RepositorySource]
        /// How many threads compress; 1 or more.
        package let threads: Int
        /// `wal-damage = refuse`: a suspect file is an error instead of a mark.
        package let refusesDamagedWAL: Bool
        package let hostName: String
        /// Where notes go; nil: there are none, and nothing is pushed ahead.
        package var spool: Spool?
        /// What the notes are about.
        package var destination: PushDestination?
        package var ahead = PushAheadLimits(segments: 0, inFlight: 1)
        /// Whether the cluster has repositories besides `repositories`: what is stored is not acknowledged then.
        package var leavesOut = false
        /// Whether the spool learns which repositories are away.
        package var notesAway = false

        package init(
            path: RawPath, clusterName: String, dataDirectory: RawPath, repositories: [RepositorySource],
            threads: Int, refusesDamagedWAL: Bool, hostName: String
        ) {
            self.path = path
            self.clusterName = clusterName
            self.dataDirectory = dataDirectory
            self.repositories = repositories
            self.threads = threads
            self.refusesDamagedWAL = refusesDamagedWAL
            self.hostName = hostName
        }
    }

    package struct Outcome: Sendable {
        package let file: WALFileName
        /// What became of it in each repository, in their order.
        package let stored: [(repository: String, outcome: PutOutcome)]
        /// Why the file is suspect; nil where all is well.
        package let suspect: WALWalk.Defect?
        /// Whether a note of the spool was enough.
        package var isFromNote = false
        /// What was stored besides.
        package var ahead = PushedAhead()
        /// Why something that was given up, or put off, earlier still waits on this host.
        package var leftBehind: [KedgeError] = []
    }

    let options: Options
    private let random: any RandomSource
    let time: any TimeSource
    let interruption: Interruption

    package init(
        _ options: Options, random: any RandomSource, time: any TimeSource, interruption: Interruption = Interruption()
    ) {
        self.options = options
        self.random = random
        self.time = time
        self.interruption = interruption
    }

    /// Throws `usage` for a name that is no WAL file's, `wal-foreign`, `wal-invalid`, `wal-suspect`,
    /// `archive-conflict`, and what opening, reading and storing throw. Where several repositories fail, all
    /// were tried, and the error names each. What is pushed ahead never throws.
    package func run() throws(KedgeError) -> Outcome {
        let attempt = try attempt()
        if let failure = attempt.failure { throw failure }
        return attempt.outcome
    }

    /// What came of trying every repository.
    package struct Attempt: Sendable {
        /// `stored` names the repositories that have the file.
        package let outcome: Outcome
        /// What `run` throws.
        package let failure: KedgeError?
        /// Whether no repository of the cluster lacks the file.
        package let isEverywhere: Bool
    }

    /// The same for whoever makes do with the repositories that work. Throws what is no repository's fault.
    package func attempt() throws(KedgeError) -> Attempt {
        // A secret that was being read when somebody stopped us is no repository's fault.
        try interruption.checkpoint()
        let file = try fileName()
        let local = try readChecked(file, at: options.path)
        if options.refusesDamagedWAL, let suspect = local.facts?.suspect { throw refusal(file, suspect) }
        let first = try putOffBefore(local)
        var stored: [Stored] = []
        var archives: [WALArchive] = []
        var failures = RepositoryFailures()
        for source in options.repositories {
            if options.notesAway { options.spool?.noteAway(source.settings.name, at: time.now()) }
            do throws(KedgeError) {
                let archive = try archive(of: local, in: source, for: .write)
                for other in first { try storeFirst(other, in: archive) }
                stored.append(try store(local, in: archive, threads: options.threads))
                archives.append(archive)
                if options.notesAway { options.spool?.noteAnswer(of: source.settings.name) }
            } catch {
                guard error.code != .interrupted else { throw error }
                let isAnswer = [.archiveConflict, .damaged, .walForeign, .walInvalid].contains(error.code)
                if options.notesAway, isAnswer { options.spool?.noteAnswer(of: source.settings.name) }
                failures.add(error, of: source.settings.name)
            }
        }
        let others = stored.map { "\"\($0.copy.repository)\"" }.joined(separator: ", ")
        let note = others.isEmpty ? nil : "It is durable in \(others); success takes all repositories."
        let failure = failures.error("could not archive WAL file \"\(file.text)\"", note: note)?.hinting(
            ifDamaged:
                "Nothing was changed there.  If it is the stored copy of this very WAL file, move that object "
                + "out of the repository: the next push stores the file again.  Otherwise put a good copy back, "
                + "from a mirror of the repository or an older version in its store.  \"kedge verify --full\" "
                + "tells what else is damaged.")
        let isEverywhere = failure == nil && !options.leavesOut
        var outcome = Outcome(
            file: file, stored: stored.map { ($0.copy.repository, $0.outcome) }, suspect: local.facts?.suspect)
        if let spool = options.spool, !archives.isEmpty {
            if isEverywhere { outcome.leftBehind = spool.tellGivenUp(to: archives) }
            let putOff = storePutOff(in: spool, besides: local, archives, isEverywhere: isEverywhere)
            outcome.leftBehind += putOff.failures
            // The repositories that took the file go on, whichever of the others is away.
            outcome.ahead = pushAhead(of: local, stored.map(\.copy), to: archives, behind: putOff.waiting)
        }
        return Attempt(outcome: outcome, failure: failure, isEverywhere: isEverywhere)
    }

    /// Does everything that a push does but storing: what it throws, a push would throw, as far as reading can tell.
    package func rehearse() throws(KedgeError) {
        let local = try readChecked(try fileName(), at: options.path)
        if options.refusesDamagedWAL, let suspect = local.facts?.suspect { throw refusal(local.file, suspect) }
        for source in options.repositories {
            let archive = try archive(of: local, in: source, for: .write)
            let facts = facts(of: local, in: archive.cluster)
            for archived in try archive.find(local.file) { try check(archived, in: archive, local, facts) }
        }
    }

    private func fileName() throws(KedgeError) -> WALFileName {
        if let text = options.path.lastComponent.text, let file = WALFileName(text) { return file }
        throw KedgeError(
            .usage, "cannot archive file \"\(options.path)\": its name is not that of a WAL file",
            detail: "WAL files are named like 000000010000000A00000042, 00000002.history, "
                + "000000010000000A00000042.00000028.backup or 000000010000000A00000042.partial.",
            hint: "Use archive_command = 'kedge archive-push %p'.")
    }

    func readChecked(_ file: WALFileName, at path: RawPath) throws(KedgeError) -> LocalWALFile {
        try LocalWALFile.read(file, at: path, dataDirectory: options.dataDirectory, time: time)
    }

    func refusal(_ file: WALFileName, _ suspect: WALWalk.Defect) -> KedgeError {
        KedgeError(
            .walSuspect, "cannot archive WAL file \"\(file.text)\": its records are damaged",
            detail: "At \(suspect.lsn): \(suspect.reason)",
            hint:
                "Check the disk under pg_wal.  With \"wal-damage = store\" the file is archived and marked; take a new "
                + "backup as soon as you can either way.")
    }

    // MARK: - One repository

    private func archive(
        of local: LocalWALFile, in source: RepositorySource, for use: RepositoryUse
    ) throws(KedgeError) -> WALArchive {
        let cluster = try source.openCluster(options.clusterName, for: use, random: random)
        return WALArchive(cluster, try cluster.registration(of: local.control.systemIdentifier))
    }

    private func facts(of local: LocalWALFile, in cluster: ClusterRepository) -> WALFileFacts {
        WALFileFacts(
            file: local.file, length: UInt64(local.bytes.count),
            tag: local.bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) },
            archivedAt: time.now(), hostName: options.hostName, segment: local.facts)
    }

    /// A copy that is durable.
    struct Stored {
        let outcome: PutOutcome
        let copy: PushNote.Copy
    }

    /// Throws `archive-conflict`, `damaged` and its like where something else is there, and what storing throws.
    func store(
        _ local: LocalWALFile, in archive: WALArchive, threads: Int, gate: WorkGate? = nil
    ) throws(KedgeError) -> Stored {
        let facts = facts(of: local, in: archive.cluster)
        var object = archive.target(of: facts)
        let outcome: PutOutcome
        switch try archive.put(local.bytes, facts: facts, threads: threads, gate: gate) {
        case .created: outcome = .created
        case .exists(let archived):
            try check(archived, in: archive, local, facts)
            try archive.cluster.repository.store.makeDurable(archive.cluster.name(archived.name))
            object = archived
            outcome = .alreadyExists
        }
        let repository = archive.cluster.repository
        return Stored(
            outcome: outcome,
            copy: PushNote.Copy(
                repository: repository.name, repositoryID: repository.identity.id,
                object: archive.cluster.name(object.name).text, sizeBytes: notedSize(of: object, in: archive)))
    }

    /// The size of an object for a note of it; nil where no note of it is held against the store, or where it is not
    /// known, so that no note of it counts.
    private func notedSize(of object: ArchivedFile, in archive: WALArchive) -> UInt64? {
        let repository = archive.cluster.repository
        let place = options.destination?.places.first { $0.repository == repository.name }
        guard place?.openStore != nil else { return nil }
        do throws(KedgeError) {
            return try repository.store.status(of: archive.cluster.name(object.name))?.sizeBytes
        } catch {
            return nil
        }
    }
}

extension KedgeError {
    /// This error; damage that says nothing of what to do gets a hint.
    func hinting(ifDamaged hint: String) -> KedgeError {
        guard code == .damaged, self.hint == nil else { return self }
        var error = self
        error.hint = hint
        return error
    }
}

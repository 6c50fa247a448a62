// `kedge archive-push`: stores one WAL file in every repository of the cluster.
//
// 1. The file is checked before anything is stored: its name, its size, its first page against pg_control.
// 2. Its records are walked. What fails its CRC, or is not understood, is read again; if it stays, the file is stored
//    all the same and marked suspect (a refused segment would fill pg_wal and stop the database), unless the
//    configuration says otherwise.
// 3. In each repository it is created only if absent. If it exists, all of it is read and the content tag decides:
//    equal is success once what is there is durable; other content is a conflict, and nothing is changed. A stored copy
//    that is damaged is no success: PostgreSQL would recycle the last good one.
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

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource
    private let interruption: Interruption

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

    /// What was put off and must be in a repository before `own` is: the history of its timeline, since a twin's
    /// segments would else continue another server's timeline and nobody would see it; and another file of the very
    /// same name, which was acknowledged before. Throws what reading them throws.
    private func putOffBefore(_ own: LocalWALFile) throws(KedgeError) -> [LocalWALFile] {
        guard let spool = options.spool else { return [] }
        var files: [LocalWALFile] = []
        for copy in spool.putOff where copy.file == own.file || copy.file == .history(own.file.timeline) {
            do throws(KedgeError) {
                if let local = try read(copy, in: spool, besides: own) { files.append(local) }
            } catch {
                // Nobody knows that it is of this system.
                if copy.system == nil, error.code == .walForeign { continue }
                throw told(error, about: copy.file)
            }
        }
        return files
    }

    private func storeFirst(_ local: LocalWALFile, in archive: WALArchive) throws(KedgeError) {
        do throws(KedgeError) {
            _ = try store(local, in: archive, threads: options.threads)
        } catch {
            guard error.code != .interrupted else { throw error }
            throw told(error, about: local.file)
        }
    }

    /// The failure of a file that was put off, as that of the file behind it.
    private func told(_ error: KedgeError, about file: WALFileName) -> KedgeError {
        KedgeError(
            error.code, "could not first store \"\(file.text)\", which was put off: \(error.message)",
            detail: error.detail, hint: error.hint, cause: error.cause)
    }

    /// Stores what was put off while too much waited, and removes it here once every repository has it. Returns what
    /// failed, which is left to the next push and keeps no other file waiting, and which files these archives lack.
    private func storePutOff(
        in spool: Spool, besides own: LocalWALFile, _ archives: [WALArchive], isEverywhere: Bool
    ) -> (failures: [KedgeError], waiting: Set<WALFileName>) {
        var failures: [KedgeError] = []
        let system = own.control.systemIdentifier
        let copies = spool.putOff.filter { $0.system ?? system == system }
        var waiting = Set(copies.map(\.file))
        for copy in copies {
            do throws(KedgeError) {
                guard let local = try read(copy, in: spool, besides: own) else { continue }
                for archive in archives { _ = try store(local, in: archive, threads: options.threads) }
                waiting.remove(copy.file)
                if isEverywhere { spool.remove([copy.spoolName], in: .putOff) }
            } catch {
                guard error.code != .interrupted else { break }
                failures.append(error.wrapped("could not store WAL file \"\(copy.file.text)\", which was put off"))
                if error.code.isRetryable { break }
            }
        }
        return (failures, waiting)
    }

    /// A file that was put off, read and checked; nil where it is of another database system than `own`.
    private func read(
        _ copy: PutOffCopy, in spool: Spool, besides own: LocalWALFile
    ) throws(KedgeError) -> LocalWALFile? {
        let system = own.control.systemIdentifier
        if let known = copy.system, known != system { return nil }
        let local = try readChecked(copy.file, at: spool.path(of: copy))
        // The control file was read anew: the server could be another one by now.
        guard local.control.systemIdentifier == system else { return nil }
        // A partial segment says itself whose it is, and was refused if it is another's. A history does not: without a
        // note of its system it is this server's if the server has the very same one.
        if copy.system == nil, local.facts == nil {
            let twin = options.path.parent.appending(copy.file.text)
            guard try FileSystem.exists(twin), try FileDescriptor.openWALFile(twin).holds(local.bytes) else {
                throw KedgeError(
                    .walForeign, "cannot tell which database system the file is of",
                    detail: "An earlier version of kedge put it off in \"\(spool.path(of: copy))\", and pg_wal does "
                        + "not hold the same file.",
                    hint: "If it is this cluster's, run \"kedge archive-push\" with that path in the data directory, "
                        + "and remove the file then.")
            }
        }
        return local
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

    private func readChecked(_ file: WALFileName, at path: RawPath) throws(KedgeError) -> LocalWALFile {
        try LocalWALFile.read(file, at: path, dataDirectory: options.dataDirectory, time: time)
    }

    private func refusal(_ file: WALFileName, _ suspect: WALWalk.Defect) -> KedgeError {
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
    private struct Stored {
        let outcome: PutOutcome
        let copy: PushNote.Copy
    }

    private func store(
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

    /// Whether the local segment is empty from where its timeline was left on, and equal to the stored one before that:
    /// it holds nothing that the stored one lacks. With `archive_mode = always` a standby archives such a segment, and
    /// the old primary may have archived its own first, which goes on behind the switch point.
    private func isFilledToTheSwitch(
        _ local: LocalWALFile, upTo difference: Int, in archive: WALArchive
    ) throws(KedgeError) -> Bool {
        guard case .segment = local.file, let start = local.facts?.startLSN else { return false }
        return try archive.histories().read.values.contains { history in
            guard let limit = history.limit(of: local.file.timeline), limit > start else { return false }
            let length = limit - start
            return length <= difference && local.bytes[Int(length)...].allSatisfy { $0 == 0 }
        }
    }

    /// What is there under the name is the same WAL, read from the first byte to the last, or the push fails and says
    /// where the two part and who wrote which. Throws `damaged` and its like for a copy that nothing can be restored
    /// from. Memory is that of the object and of one frame.
    private func check(
        _ archived: ArchivedFile, in archive: WALArchive, _ local: LocalWALFile, _ facts: WALFileFacts
    ) throws(KedgeError) {
        // Partial segments of different content lie beside each other.
        if let tag = archived.tag, tag != facts.tag, case .partial = local.file { return }
        let name = archive.cluster.name(archived.name)
        let status = try archive.cluster.repository.store.status(of: name)
        let stored = try archive.stream(archived, storedBytes: status?.sizeBytes ?? 0) { _ in }
        guard stored.tag != facts.tag else { return }
        let bytes = try archive.read(archived, threads: options.threads).bytes
        let position = zip(bytes, local.bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let difference = position ?? min(bytes.count, local.bytes.count)
        guard try !isFilledToTheSwitch(local, upTo: difference, in: archive) else { return }
        let first = WALConflict.Copy(stored, storedAt: status?.modified)
        let second = WALConflict.Copy(facts, storedAt: nil)
        let conflict = WALConflict(
            local.file, first, bytes, second, local.bytes, segmentStart: local.facts?.startLSN)
        let sentences = [
            conflict?.place, WALConflict.sentence("The stored one", first), sentence(about: second, local.path),
            conflict?.explanation("the stored one", "this one"),
        ]
        throw KedgeError(
            .archiveConflict,
            "cannot archive WAL file \"\(local.file.text)\": repository \"\(archive.cluster.repository.name)\" holds "
                + "other content under this name",
            detail: sentences.compactMap { $0 }.joined(separator: "  "),
            hint: (conflict?.hint ?? "") + "  Nothing was changed.")
    }

    private func sentence(about local: WALConflict.Copy, _ path: RawPath) -> String {
        var text = "This one is of host \"\(local.hostName)\""
        do throws(KedgeError) {
            text += ", last changed at \(try FileStatus(at: path, followLinks: true).modified)"
        } catch {
            // It was there a moment ago; what it says is known.
        }
        if let end = local.recordsEnd { text += ", its records end at \(end)" }
        if let time = local.lastEnd { text += ", its last transaction at \(time)" }
        return text + "."
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

// MARK: - Ahead

extension ArchivePush {
    /// Stores the next segments that wait, and makes notes of them and of the own one. `archives` are those
    /// in which the own file is durable; a note of some of the repositories acknowledges nothing. Segments of a
    /// timeline whose history is among `waiting` are left to their own call, which stores that first or tells why it
    /// can't.
    private func pushAhead(
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

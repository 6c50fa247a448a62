// `kedge archive-push`: stores one WAL file in every repository of the cluster.
//
// 1. The file is checked before anything is stored: its name, its size, its first page against pg_control.
// 2. Its records are walked. What fails its CRC, or is not understood, is read again; if it stays, the file is stored
//    all the same and marked suspect (a refused segment would fill pg_wal and stop the database), unless the
//    configuration says otherwise.
// 3. In each repository it is created only if absent. If it exists, the content tag decides: equal is success once what
//    is there is durable; other content is a conflict, and nothing is changed.
// 4. Success is reported when every repository has it durably, and not before.

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
    }

    private let options: Options
    private let random: any RandomSource
    private let time: any TimeSource

    package init(_ options: Options, random: any RandomSource, time: any TimeSource) {
        self.options = options
        self.random = random
        self.time = time
    }

    /// Throws `usage` for a name that is no WAL file's, `wal-foreign`, `wal-invalid`, `wal-suspect`,
    /// `archive-conflict`, and what opening, reading and storing throw. Where several repositories fail, the first
    /// error is thrown after the others were tried.
    package func run() throws(KedgeError) -> Outcome {
        let file = try fileName()
        let local = try readChecked(file)
        if options.refusesDamagedWAL, let suspect = local.facts?.suspect { throw refusal(file, suspect) }
        var stored: [(String, PutOutcome)] = []
        var failure: KedgeError?
        for source in options.repositories {
            do throws(KedgeError) {
                stored.append((source.settings.name, try store(local, in: source)))
            } catch {
                failure =
                    failure
                    ?? error.wrapped(
                        "could not archive WAL file \"\(file.text)\" in repository \"\(source.settings.name)\"")
            }
        }
        if let failure { throw failure }
        return Outcome(file: file, stored: stored, suspect: local.facts?.suspect)
    }

    /// Does everything that a push does but storing: what it throws, a push would throw, as far as reading can tell.
    package func rehearse() throws(KedgeError) {
        let local = try readChecked(try fileName())
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

    // MARK: - The local file

    /// The local file, read and checked.
    private struct LocalFile: Sendable {
        let file: WALFileName
        let control: ControlFile
        let bytes: [UInt8]
        /// What the walk learned; nil for history files.
        let facts: WALFacts?
    }

    private func readChecked(_ file: WALFileName) throws(KedgeError) -> LocalFile {
        let control = try ControlFile.read(dataDirectory: options.dataDirectory, time: time)
        switch file {
        case .history(let timeline):
            let bytes = try readFile(limit: TimelineHistory.maximumFileSize)
            _ = try TimelineHistory(parsing: bytes, timeline: timeline)
            return LocalFile(file: file, control: control, bytes: bytes, facts: nil)
        case .backup:
            return LocalFile(file: file, control: control, bytes: try readFile(limit: 1 << 20), facts: nil)
        case .segment, .partial:
            var local = try readSegment(file, control)
            // A page may have been read while it was written, by a disk or file system that is not quite coherent.
            if local.facts?.suspect != nil { local = try readSegment(file, control) }
            return local
        }
    }

    private func readFile(limit: Int) throws(KedgeError) -> [UInt8] {
        try FileDescriptor.open(options.path, .read).readAll(limit: limit)
    }

    private func readSegment(_ file: WALFileName, _ control: ControlFile) throws(KedgeError) -> LocalFile {
        let descriptor = try FileDescriptor.open(options.path, .read)
        let size = try descriptor.status().sizeBytes
        let format = control.walFormat
        let firstPage = try descriptor.read(count: Int(min(size, UInt64(format.walBlockSize))), at: 0)
        let segment = try firstPage.withBytes { (page) throws(KedgeError) in
            try WALFileCheck.check(name: file, firstPage: page, sizeBytes: size, format: format)
        }
        let bytes = try descriptor.read(count: Int(size), at: 0)
        guard bytes.count == Int(size) else {
            throw KedgeError(
                .walInvalid, "cannot archive WAL file \"\(file.text)\": it became shorter while it was read",
                detail: "It had \(size) bytes, and then \(bytes.count).",
                hint: "Find out what else writes to pg_wal.  PostgreSQL itself never shortens a finished segment.")
        }
        let isPartial = if case .partial = file { true } else { false }
        let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
            try WALFacts(of: bytes, segment: segment, isPartial: isPartial, format: format)
        }
        return LocalFile(file: file, control: control, bytes: bytes, facts: facts)
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
        of local: LocalFile, in source: RepositorySource, for use: RepositoryUse
    ) throws(KedgeError) -> WALArchive {
        let cluster = try source.openCluster(options.clusterName, for: use, random: random)
        return WALArchive(cluster, try cluster.registration(of: local.control.systemIdentifier))
    }

    private func facts(of local: LocalFile, in cluster: ClusterRepository) -> WALFileFacts {
        WALFileFacts(
            file: local.file, length: UInt64(local.bytes.count),
            tag: local.bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) },
            archivedAt: time.now(), hostName: options.hostName, segment: local.facts)
    }

    private func store(_ local: LocalFile, in source: RepositorySource) throws(KedgeError) -> PutOutcome {
        let archive = try archive(of: local, in: source, for: .write)
        let facts = facts(of: local, in: archive.cluster)
        switch try archive.put(local.bytes, facts: facts, threads: options.threads) {
        case .created: return .created
        case .exists(let archived):
            try check(archived, in: archive, local, facts)
            try archive.cluster.repository.store.makeDurable(archive.cluster.name(archived.name))
            return .alreadyExists
        }
    }

    /// Whether the local segment is empty from where its timeline was left on, and equal to the stored one before that:
    /// it holds nothing that the stored one lacks. With `archive_mode = always` a standby archives such a segment, and
    /// the old primary may have archived its own first, which goes on behind the switch point.
    private func isFilledToTheSwitch(
        _ local: LocalFile, upTo difference: Int, in archive: WALArchive
    ) throws(KedgeError) -> Bool {
        guard case .segment = local.file, let start = local.facts?.startLSN else { return false }
        return try archive.histories().read.values.contains { history in
            guard let limit = history.limit(of: local.file.timeline), limit > start else { return false }
            let length = limit - start
            return length <= difference && local.bytes[Int(length)...].allSatisfy { $0 == 0 }
        }
    }

    /// What is there under the name is the same WAL, or the push fails and says where the two part and who wrote which.
    private func check(
        _ archived: ArchivedFile, in archive: WALArchive, _ local: LocalFile, _ facts: WALFileFacts
    ) throws(KedgeError) {
        // Partial segments of different content lie beside each other.
        if let tag = archived.tag, tag != facts.tag, case .partial = local.file { return }
        let stored = try archive.facts(of: archived)
        guard stored.tag != facts.tag else { return }
        let bytes = try archive.read(archived, threads: options.threads).bytes
        let position = zip(bytes, local.bytes).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        let difference = position ?? min(bytes.count, local.bytes.count)
        guard try !isFilledToTheSwitch(local, upTo: difference, in: archive) else { return }
        let status = try archive.cluster.repository.store.status(of: archive.cluster.name(archived.name))
        let first = WALConflict.Copy(stored, storedAt: status?.modified)
        let second = WALConflict.Copy(facts, storedAt: nil)
        let conflict = WALConflict(
            local.file, first, bytes, second, local.bytes, segmentStart: local.facts?.startLSN)
        let sentences = [
            conflict?.place, WALConflict.sentence("The stored one", first), sentence(about: second),
            conflict?.explanation("the stored one", "this one"),
        ]
        throw KedgeError(
            .archiveConflict,
            "cannot archive WAL file \"\(local.file.text)\": repository \"\(archive.cluster.repository.name)\" holds "
                + "other content under this name",
            detail: sentences.compactMap { $0 }.joined(separator: "  "),
            hint: (conflict?.hint ?? "") + "  Nothing was changed.")
    }

    private func sentence(about local: WALConflict.Copy) -> String {
        var text = "This one is of host \"\(local.hostName)\""
        do throws(KedgeError) {
            text += ", last changed at \(try FileStatus(at: options.path, followLinks: true).modified)"
        } catch {
            // It was there a moment ago; what it says is known.
        }
        if let end = local.recordsEnd { text += ", its records end at \(end)" }
        if let time = local.lastEnd { text += ", its last transaction at \(time)" }
        return text + "."
    }
}

// Archived WAL files, read whole: seals, size, content tag, the header of the first page, every record's CRC, the
// facts against what the records say, and each file against the one before it.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// What reading a WAL file found.
struct WALVerdict: Sendable {
    let link: WALLink
    /// The object, where there is one.
    var object: ObjectName?
    var storedBytes: UInt64 = 0
    /// Why it can't be used at all; nil where it can.
    var error: KedgeError?
    /// Where its records stop being whole.
    var defect: WALWalk.Defect?
    /// Where it goes on with wal_level = minimal.
    var minimal: WALWalk.Defect?
    /// Whether the records could be understood.
    var isUnderstood = true

    var isSound: Bool { error == nil && defect == nil && minimal == nil }

    init(link: WALLink) { self.link = link }
}

/// Reads WAL files. One for each worker; used by one thread at a time.
struct WALCheck {
    let archive: WALArchive
    let version: PostgresVersion?
    let threads: Int
    private let errors: ReadErrors

    init(_ archive: WALArchive, _ errors: ReadErrors, threads: Int) {
        self.archive = archive
        self.errors = errors
        self.threads = threads
        version = PostgresVersion(rawValue: archive.registration.postgresVersion)
    }

    private var format: WALFormat? {
        let registration = archive.registration
        guard let version, let segmentSize = UInt32(exactly: registration.walSegmentSize) else { return nil }
        return WALFormat(
            systemIdentifier: registration.systemIdentifier, version: version, segmentSize: segmentSize,
            walBlockSize: registration.walBlockSize)
    }

    /// Reads one file. `previous` are the facts of the file before it, which are looked up where they are not known and
    /// `earlier` names it; it is given this one's.
    ///
    /// Throws what reading throws where the file is not to blame.
    func check(_ link: WALLink, after earlier: WALLink?, previous: inout WALFacts?) throws(KedgeError) -> WALVerdict {
        let before = previous
        previous = nil
        var verdict = WALVerdict(link: link)
        do throws(KedgeError) {
            let found = try archive.find(link.file(segmentSize: archive.registration.walSegmentSize))
            guard let walked = try read(found, &verdict) else { return verdict }
            verdict.defect = walked.suspect
            if verdict.defect == nil {
                var neighbour = before
                if neighbour == nil, let earlier { neighbour = try facts(of: earlier) }
                verdict.defect = neighbour.flatMap { mismatch($0, walked) }
            }
            previous = walked
        } catch {
            verdict.error = try errors.tolerate(error)
        }
        return verdict
    }

    /// Reads the file that was found. Nil where nobody can tell what its records are.
    private func read(_ found: [ArchivedFile], _ verdict: inout WALVerdict) throws(KedgeError) -> WALFacts? {
        let file = verdict.link.file(segmentSize: archive.registration.walSegmentSize)
        guard let archived = found.first else { throw missing(file) }
        verdict.object = archived.name
        verdict.storedBytes =
            try archive.cluster.repository.store.status(of: archive.cluster.name(archived.name))?.sizeBytes ?? 0
        guard found.count == 1 else { throw conflict(found) }
        let (facts, bytes) = try archive.read(archived, threads: threads)
        guard let format else {
            verdict.isUnderstood = false
            return nil
        }
        let walked = try walk(bytes, verdict.link, file, format)
        if walked.events.hasMinimalWAL {
            let segment = verdict.link.segment
            verdict.minimal = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFacts.minimalWAL(in: bytes, segment: segment, format: format)
            }
        }
        verdict.isUnderstood = facts.segment != nil
        if let stored = facts.segment, stored != walked {
            throw KedgeError(
                .damaged, "cannot use archived WAL file \"\(file.text)\": its facts are not those of its content",
                detail: "Its records were walked again and say otherwise.",
                hint: "Take it from another repository, and make a new backup.")
        }
        return walked
    }

    private func walk(
        _ bytes: [UInt8], _ link: WALLink, _ file: WALFileName, _ format: WALFormat
    ) throws(KedgeError) -> WALFacts {
        try bytes.withBytes { (bytes) throws(KedgeError) in
            // archive-get gives no other file to the server. What is wrong behind the first page the walk says.
            try WALFileCheck.check(name: file, firstPage: bytes, sizeBytes: UInt64(bytes.count), format: format)
            return try WALFacts(of: bytes, segment: link.segment, isPartial: link.isPartial, format: format)
        }
    }

    /// Whether a file carries on what the one before it began.
    private func mismatch(_ earlier: WALFacts, _ later: WALFacts) -> WALWalk.Defect? {
        guard let version, case .mismatch(let reason) = WALFacts.straddling(earlier, later, version: version) else {
            return nil
        }
        return WALWalk.Defect(lsn: earlier.walk.unfinished?.lsn ?? later.startLSN, reason: reason)
    }

    /// Holds two neighbours against each other by their facts alone. Nil where they fit, or nobody can tell.
    func mismatch(_ earlier: WALLink, _ later: WALLink) throws(KedgeError) -> WALWalk.Defect? {
        guard let first = try facts(of: earlier), let second = try facts(of: later) else { return nil }
        return mismatch(first, second)
    }

    /// The facts of one file. Nil where they can't be had, or were not understood.
    func facts(of link: WALLink) throws(KedgeError) -> WALFacts? {
        let found = try archive.find(link.file(segmentSize: archive.registration.walSegmentSize))
        guard found.count == 1 else { return nil }
        do throws(KedgeError) {
            return try archive.facts(of: found[0]).segment
        } catch {
            guard error.code.isDamageOfTheObject else { throw error }
            return nil
        }
    }

    private func missing(_ file: WALFileName) -> KedgeError {
        KedgeError(
            .notFound, "WAL file \"\(file.text)\" is missing from repository \"\(archive.cluster.repository.name)\"",
            hint: "If the server still has it in pg_wal, archive it with \"kedge archive-push\"; otherwise take a new "
                + "backup.")
    }

    private func conflict(_ found: [ArchivedFile]) -> KedgeError {
        KedgeError(
            .archiveConflict, "WAL file \"\(found[0].file.text)\" was archived several times with different content",
            detail: "The objects are \(found.map(\.name.text).joined(separator: ", ")).",
            hint: "Two servers wrote the same timeline: run \"kedge cat\" on each to see who stored it.")
    }
}

extension WALLink {
    /// The archived file.
    func file(segmentSize: UInt64) -> WALFileName {
        let name = segment.fileName(segmentSize: segmentSize)
        return isPartial ? .partial(name + ".partial") : .segment(name)
    }
}

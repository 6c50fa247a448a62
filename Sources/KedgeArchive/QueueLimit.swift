// Giving WAL up rather than let pg_wal fill the disk (archive-queue-limit), and telling everybody.
//
//   archive-push, too much waits ─▶ a record of the segment, durable on this host ─▶ "archived", and a loud warning
//   a later archive-push that could store its file ─▶ the same records in every repository ─▶ the local ones go
//
// 1. Without a durable record nothing is given up: the push goes on as ever.
//    With several repositories the segment goes first to those that are not away (AwayRepositories.swift), and is given
//    up for the others. What is 1 GiB and more beyond the limit is given up without asking any: the archive is too
//    slow.
// 2. All that waits counts, stored ahead or not (lesson 27), in segments of this cluster's size. What has to be asked
//    of no repository works in an outage.
// 3. Only segments that wait are given up, and never what somebody pushes by hand. A history, a backup history or a
//    `.partial` segment is put off: PostgreSQL archives them before the segments behind them (pgarch.c,
//    ready_file_comparator) and asks for nothing else until that worked. So a copy is made durable here, and the next
//    push that could store its file stores it from here.
// 4. The record says why something is missing. That it is missing says the archive itself: no moment behind it can be
//    reached, whatever becomes of the record.

import KedgeCatalog
package import KedgeCore
import KedgePostgres
import KedgeRepository

/// A segment that PostgreSQL was told is archived, and that is not.
package struct GivenUpSegment: Sendable {
    package let file: String
    /// How many bytes of WAL waited, and how many may.
    package let waitingBytes: UInt64
    package let limitBytes: UInt64
    let system: SystemIdentifier
    let segmentSize: UInt64
    let givenUpAt: Timestamp
    let hostName: String
    /// The repositories that have it: it was given up for the others.
    package let storedIn: [String]
    /// The name of its record in the spool. Those that name no system are of earlier versions.
    private(set) var recordName: String

    var jsonValue: JSONValue {
        [
            "kedge": "given-up", "file": .string(file), "systemIdentifier": .string(system.description),
            "segmentSize": .int(segmentSize), "waitingBytes": .int(waitingBytes), "limitBytes": .int(limitBytes),
            "givenUpAt": .string(givenUpAt.description), "hostName": .string(hostName),
            "storedIn": .array(storedIn.map { .string($0) }),
        ]
    }

    init(
        file: String, waitingBytes: UInt64, limitBytes: UInt64, system: SystemIdentifier, segmentSize: UInt64,
        givenUpAt: Timestamp, hostName: String, storedIn: [String]
    ) {
        self.file = file
        self.waitingBytes = waitingBytes
        self.limitBytes = limitBytes
        self.system = system
        self.segmentSize = segmentSize
        self.givenUpAt = givenUpAt
        self.hostName = hostName
        self.storedIn = storedIn
        recordName = "\(system)-\(file)"
    }

    /// Throws `damaged`, also for a record that is about another file or system than its name in the spool.
    init(_ record: JSONRecord, recordName: String) throws(KedgeError) {
        try record.expectType("given-up")
        file = try record.string("file")
        waitingBytes = try record.integer("waitingBytes")
        limitBytes = try record.integer("limitBytes")
        system = try record.parsed("systemIdentifier") { SystemIdentifier($0) }
        segmentSize = try record.integer("segmentSize")
        givenUpAt = try record.parsed("givenUpAt") { Timestamp(record: $0) }
        hostName = try record.string("hostName")
        // Earlier versions gave up for all repositories.
        let stored = record.value("storedIn") == nil ? [] : try record.array("storedIn")
        storedIn = stored.compactMap { if case .string(let name) = $0 { name } else { nil } }
        self.recordName = recordName
        guard recordName == "\(system)-\(file)" || recordName == file else {
            throw record.invalid("file", "is not that of the record's name")
        }
    }
}

/// The limit of what may wait.
package struct QueueLimit: Sendable {
    private let limitBytes: UInt64
    private let spool: Spool
    private let hostName: String
    private let time: any TimeSource

    package init(limitBytes: UInt64, spool: Spool, hostName: String, time: any TimeSource) {
        self.limitBytes = limitBytes
        self.spool = spool
        self.hostName = hostName
        self.time = time
    }

    /// A file that is no segment, and how much waits.
    package struct PutOffFile: Sendable {
        package let file: String
        package let waitingBytes: UInt64
        package let limitBytes: UInt64
    }

    /// Keeps a copy of the file at `path`, which is no segment, for a later push if more waits than may; nil where it
    /// is to be stored now. Throws where more waits and the copy could not be made durable; `archive-conflict` where
    /// another content of that name and database system was put off and still waits.
    package func putOff(_ path: RawPath, dataDirectory: RawPath) throws(KedgeError) -> PutOffFile? {
        guard let name = path.lastComponent.text else { return nil }
        guard let file = WALFileName(name) else { return nil }
        if case .segment = file { return nil }
        let ready = ReadyFiles(beside: path)
        guard ready.names.contains(name) else { return nil }
        let control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
        guard let waiting = tooMuch(ready, segmentSize: UInt64(control.walSegmentSize)) else { return nil }
        let bytes = try FileDescriptor.openWALFile(path).readAll(limit: Int(control.walSegmentSize))
        try spool.keep(bytes, as: PutOffCopy(file, of: control.systemIdentifier))
        return PutOffFile(file: name, waitingBytes: waiting, limitBytes: limitBytes)
    }

    /// How many bytes wait, if these are more than may and the file at `path` is one that waits; else nil. Changes
    /// nothing. Throws what reading `pg_control` throws.
    package func excess(beside path: RawPath, dataDirectory: RawPath) throws(KedgeError) -> UInt64? {
        guard let name = path.lastComponent.text else { return nil }
        let ready = ReadyFiles(beside: path)
        guard ready.names.contains(name) else { return nil }
        let control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
        return tooMuch(ready, segmentSize: UInt64(control.walSegmentSize))
    }

    /// Whether the repositories that are not away are asked first when so many bytes wait.
    package func asksFirst(waitingBytes: UInt64) -> Bool {
        waitingBytes <= limitBytes || waitingBytes - limitBytes < 1 << 30
    }

    /// How many bytes wait, if these are more than may.
    private func tooMuch(_ ready: ReadyFiles, segmentSize: UInt64) -> UInt64? {
        let segments = ready.names.filter { if case .segment? = WALFileName($0) { true } else { false } }
        let (waiting, overflow) = UInt64(segments.count).multipliedReportingOverflow(by: segmentSize)
        return overflow || waiting > limitBytes ? waiting : nil
    }

    /// Gives the segment at `path` up, but for the repositories `storedIn`, if more waits than may, and returns it; nil
    /// where it is to be stored. Throws where more waits and the record could not be made durable: the segment is not
    /// given up then.
    package func giveUp(
        _ path: RawPath, dataDirectory: RawPath, storedIn: [String] = []
    ) throws(KedgeError) -> GivenUpSegment? {
        guard let name = path.lastComponent.text, case .segment? = WALFileName(name) else { return nil }
        let ready = ReadyFiles(beside: path)
        guard ready.names.contains(name) else { return nil }
        let control = try ControlFile.read(dataDirectory: dataDirectory, time: time)
        let size = UInt64(control.walSegmentSize)
        guard WALSegment(fileName: name, segmentSize: size) != nil else { return nil }
        guard let waiting = tooMuch(ready, segmentSize: size) else { return nil }
        let segment = GivenUpSegment(
            file: name, waitingBytes: waiting, limitBytes: limitBytes, system: control.systemIdentifier,
            segmentSize: size, givenUpAt: time.now(), hostName: hostName, storedIn: storedIn)
        try spool.writeDurably(segment.jsonValue, as: segment.recordName, in: .givenUp)
        return segment
    }
}

extension Spool {
    /// The segments that were given up and that not every repository knows of, those of one system together and sorted
    /// by name.
    package func givenUpSegments() -> [GivenUpSegment] {
        var segments: [GivenUpSegment] = []
        for name in names(in: .givenUp) {
            guard let record = read(name, in: .givenUp) else { continue }
            do throws(KedgeError) {
                segments.append(try GivenUpSegment(record, recordName: name))
            } catch {
                // "kedge check" tells of it.
            }
        }
        return segments.sorted { ($0.system.number, $0.file) < ($1.system.number, $1.file) }
    }

    /// The names of records of what was given up that can't be read.
    package var unreadableGivenUp: [String] {
        let readable = Set(givenUpSegments().map(\.recordName))
        return names(in: .givenUp).filter { !readable.contains($0) && !DurableFile.isTemporary(RawPath($0)) }
    }

    /// Tells all repositories, `archives`, of what was given up. Returns why it could not be told: it is told again
    /// then. What can't be told of one system keeps nothing from being told of another.
    func tellGivenUp(to archives: [WALArchive]) -> [KedgeError] {
        var failures: [KedgeError] = []
        for run in Spool.runs(givenUpSegments()) {
            guard let first = run.first, let last = run.last else { continue }
            do throws(KedgeError) {
                try Spool.tell(archives, first, last)
                remove(run.map(\.recordName), in: .givenUp)
            } catch {
                guard error.code != .interrupted else { break }
                failures.append(
                    error.wrapped(
                        "could not tell the repositories that WAL files \"\(first.file)\" to \"\(last.file)\" of "
                            + "database system \(first.system) were given up"))
                // One that is away would be waited for again and again.
                if error.code.isRetryable { break }
            }
        }
        return failures
    }

    private static func tell(
        _ archives: [WALArchive], _ first: GivenUpSegment, _ last: GivenUpSegment
    ) throws(KedgeError) {
        let size = first.segmentSize
        guard let from = WALSegment(fileName: first.file, segmentSize: size),
            let to = WALSegment(fileName: last.file, segmentSize: size)
        else { throw KedgeError(.damaged, "cannot use segments of \(size) bytes with such names") }
        var failure: KedgeError?
        for archive in archives {
            do throws(KedgeError) {
                let registration = try archive.cluster.registration(of: first.system)
                guard registration.walSegmentSize == size else {
                    throw KedgeError(
                        .walForeign, "cannot use segments of \(size) bytes with database system \(first.system)",
                        detail: "It is registered with segments of \(registration.walSegmentSize) bytes.")
                }
                try WALArchive(archive.cluster, registration).put(
                    KnownGap(
                        systemIdentifier: first.system, timeline: from.timeline, numbers: from.number...to.number,
                        reason: .givenUp, createdAt: first.givenUpAt, hostName: first.hostName))
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    /// Consecutive segments of one timeline, one system and one size together.
    static func runs(_ segments: [GivenUpSegment]) -> [[GivenUpSegment]] {
        var runs: [[GivenUpSegment]] = []
        for segment in segments {
            if let last = runs.last?.last, last.system == segment.system, last.segmentSize == segment.segmentSize,
                let before = WALSegment(fileName: last.file, segmentSize: last.segmentSize),
                WALSegment(fileName: segment.file, segmentSize: segment.segmentSize) == before.next
            {
                runs[runs.count - 1].append(segment)
            } else {
                runs.append([segment])
            }
        }
        return runs
    }
}

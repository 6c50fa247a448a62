// Which history the server follows that runs restore_command, as far as its data directory tells.
//
// A server reads its target timeline's history before it asks for any segment, and keeps a copy in pg_wal
// (src/backend/access/transam/timeline.c, readTimeLineHistory). Which timeline that is, the configuration says:
//   a number   that one
//   latest     the newest whose history is in pg_wal: the server looks for newer ones upwards from its own. It does not
//              follow one that left its own timeline before the point that it has replayed (xlogrecovery.c,
//              rescanLatestTimeLine)
// Where the data directory does not say it, nothing is known: for a server that recovers to an end a guess could be
// wrong. A standby follows the newest unless somebody told it otherwise.

import KedgeCore
import KedgePostgres

/// Finds the history that the asking server follows.
struct FollowedTimeline {
    private let surroundings: Surroundings
    private let dataDirectory: RawPath
    /// What the server asks for.
    private let asked: WALFileName?

    private static let setting = "recovery_target_timeline"

    /// Looks at files of the working directory, which is the server's, and at `pg_control` of the data directory.
    init(_ surroundings: Surroundings, dataDirectory: RawPath, asked: WALFileName?) {
        self.surroundings = surroundings
        self.dataDirectory = dataDirectory
        self.asked = asked
    }

    /// The history; nil where the data directory does not tell it. Throws what reading throws: a server whose history
    /// is not known is given all there is, so what can't be read must not pass for what isn't there.
    func history() throws(KedgeError) -> TimelineHistory? {
        let isStandby = surroundings.fileExists("standby.signal")
        guard isStandby || surroundings.fileExists("recovery.signal") else { return nil }
        // postgresql.auto.conf is read last, so it wins.
        var value: String?
        for path in ["postgresql.auto.conf", "postgresql.conf"] where value == nil {
            value = try read(path).flatMap { FollowedTimeline.value(of: FollowedTimeline.setting, in: $0) }
        }
        switch value ?? (isStandby ? "latest" : "") {
        case "latest": return try newestHistory()
        // A leading zero would make it octal (strtoul with base 0).
        case let value where value.hasPrefix("0") || value.hasPrefix("+"): return nil
        case let value:
            guard let number = UInt32(value) else { return nil }
            return try history(of: TimelineID(number))
        }
    }

    private func history(of timeline: TimelineID) throws(KedgeError) -> TimelineHistory? {
        guard let text = try read("pg_wal/\(timeline.hex).history") else { return nil }
        return try TimelineHistory(parsing: text, timeline: timeline)
    }

    /// Nil where there is no such file.
    private func read(_ path: String) throws(KedgeError) -> [UInt8]? {
        guard surroundings.fileExists(path) else { return nil }
        return try surroundings.readFile(path, "file", 1 << 20).bytes
    }

    /// The last value of a setting in a configuration file (src/backend/utils/misc/guc-file.l); nil where it has none.
    static func value(of name: String, in bytes: [UInt8]) -> String? {
        var found: String?
        for line in bytes.split(separator: 0x0A) {
            let text = String(decoding: line, as: UTF8.self)
            let words = text.split(maxSplits: 1) { " \t=".contains($0) }
            guard words.count == 2, words[0].lowercased() == name else { continue }
            let value = words[1].drop { " \t=".contains($0) }
            found =
                value.first == "'"
                ? String(value.dropFirst().prefix { $0 != "'" }) : String(value.prefix { !" \t#\r".contains($0) })
        }
        return found
    }
}

// MARK: - Latest

extension FollowedTimeline {
    /// The newest history in pg_wal that the server can follow.
    private func newestHistory() throws(KedgeError) -> TimelineHistory? {
        guard let names = surroundings.listDirectory("pg_wal") else {
            throw KedgeError(
                .permission, "could not list directory \"pg_wal\"",
                detail: "The histories in it tell which timeline the server follows.",
                hint: "restore_command has to run in the data directory, as the server's own user.")
        }
        let timelines = names.compactMap { name in
            if case .history(let timeline)? = WALFileName(name) { timeline } else { nil }
        }
        guard !timelines.isEmpty else { return nil }
        let control = try ControlFile.read(dataDirectory: dataDirectory, time: surroundings.time)
        for timeline in timelines.sorted(by: >) {
            if let history = try history(of: timeline), !isBehind(history, control) { return history }
        }
        return nil
    }

    /// Whether the server has replayed WAL that is not part of `history`, and so will not follow it.
    ///
    /// `pg_control` says how far the server has come for certain, but that is written now and then. What is newer is
    /// in pg_wal still: a server that asks for a segment from behind a switch point, and has valid records from behind
    /// it already, went that way. It may ask for the segment with the switch point itself when it starts again, from
    /// before that point: then they prove nothing.
    private func isBehind(_ history: TimelineHistory, _ control: ControlFile) -> Bool {
        let (reached, timeline) = (control.minimumRecoveryPoint, control.minimumRecoveryTimeline)
        if reached != .invalid, !history.contains(timeline, upTo: reached) { return true }
        let segmentSize = UInt64(control.walSegmentSize)
        guard case .segment(let name)? = asked, let segment = WALSegment(fileName: name, segmentSize: segmentSize),
            let limit = history.limit(of: segment.timeline), limit <= segment.startLSN(segmentSize: segmentSize)
        else { return false }
        return hasRecord(at: limit, of: segment.timeline, control.walFormat)
    }

    /// Whether a segment in pg_wal has valid records up to `lsn` and from there on.
    private func hasRecord(at lsn: LSN, of timeline: TimelineID, _ format: WALFormat) -> Bool {
        let segmentSize = UInt64(format.segmentSize)
        let segment = WALSegment(timeline: timeline, number: lsn.position / segmentSize)
        let path = "pg_wal/" + segment.fileName(segmentSize: segmentSize)
        do throws(KedgeError) {
            let bytes = try FileDescriptor.open(RawPath(path), .read).readAll(limit: Int(segmentSize))
            let facts = try bytes.withBytes { (bytes) throws(KedgeError) in
                try WALFacts(of: bytes, segment: segment, isPartial: true, format: format)
            }
            return facts.endLSN > lsn || facts.walk.unfinished.map { $0.lsn >= lsn } ?? false
        } catch {
            return false
        }
    }
}

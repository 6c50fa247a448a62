// Holds the planner's word on one target against a real server: what it says can be reached is reached, with exactly
// the rows that it should have, and what it refuses no server reaches from any backup, however it is configured.
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

struct TimelineCheck {
    let world: TimelineWorld
    /// Said with every failure.
    let seed: UInt64

    /// What came of a target.
    struct Verdict {
        /// Nil where the planner refused.
        let server: PostgresTestServer?
        /// The events that the server has; empty where it was refused.
        let events: [TimelineWorld.Event]
        /// `reached`, or the error's code.
        let outcome: String
    }

    /// Restores to the target, or makes sure that it cannot be reached.
    @discardableResult
    func run(_ target: TimelineTarget, archiving: String = "off") throws -> Verdict {
        let directory = world.scratch()
        try world.waitForArchiver()
        let outcome = try world.cluster.attempt(
            [
                "restore", "--json", "--pgdata", directory, "--archiving", archiving, "--target-action", "promote",
            ] + target.arguments)
        let record = try JSONRecord(parsing: outcome.output, what: "outcome of restore")
        if outcome.status.isSuccess { return try follow(target, record, directory, archiving) }
        let error = try record.record("error")
        let code = try error.string("code")
        switch code {
        case "target-unreachable":
            try expectUnreachable(target, "\(try error.string("message")): \(try error.optionalString("detail") ?? "")")
        case "target-ambiguous": try expectAmbiguous(target)
        default: fail(target, "restore failed: \(outcome.outputText)")
        }
        return Verdict(server: nil, events: [], outcome: code)
    }

    private func fail(_ target: TimelineTarget, _ what: String) {
        let heads = world.heads.values.sorted { $0.timeline < $1.timeline }.map { head in
            let path = head.ancestors.map { "\($0.timeline) to \($0.switchPoint), " }.joined()
            return "timeline \(head.timeline) (\(path)\(head.events.count) events, archived to \(head.archived))"
        }
        let lines = ["\(what)", "\(target), seed \(seed)"] + heads + world.trace
        Issue.record("\(lines.joined(separator: "\n"))")
    }

    // MARK: Reached

    private func follow(
        _ target: TimelineTarget, _ plan: JSONRecord, _ directory: String, _ archiving: String
    ) throws -> Verdict {
        let timeline = try plan.integer("timeline") as UInt32
        let label = try plan.string("backup")
        let lastRecord = try plan.optionalString("stopLSN").flatMap { LSN($0) }
        guard let backup = world.backups.first(where: { $0.label == label }), let head = world.heads[timeline] else {
            fail(target, "the plan is about timeline \(timeline) and backup \(label)")
            return Verdict(server: nil, events: [], outcome: "wrong plan")
        }
        #expect(head.contains(backup))
        if let expected = expectedTimeline(target) {
            #expect(timeline == expected, "\(target), seed \(seed)")
        }
        let server = try PostgresTestServer(
            dataDirectory: directory, installation: world.cluster.server.installation)
        try server.start()
        try server.wait(until: "select not pg_is_in_recovery()")
        let rows = try TimelineWorld.rows(server)
        guard let count = target.replayed(of: head.events, from: backup, lastRecord: lastRecord) else {
            fail(target, "reached on timeline \(timeline) what is not there")
            return Verdict(server: server, events: [], outcome: "reached")
        }
        let events = Array(head.events.prefix(count))
        let expected = Set(events.compactMap(\.row))
        if rows != expected {
            fail(
                target,
                "on timeline \(timeline) from \(label): missing \(expected.subtracting(rows).sorted().prefix(5)), "
                    + "surplus \(rows.subtracting(expected).sorted().prefix(5))")
        }
        if case .latest = target.moment {
            let archived = head.events.prefix { $0.end <= head.archived }.count
            if count < archived { fail(target, "\(archived) events are archived, \(count) came back") }
        }
        if case .time(let time, let exclusive) = target.moment, target.line == .unsaid || target.line == .latest {
            let others = rivals(of: head, at: time, exclusive: exclusive, mustBeArchived: true)
            if let other = others.first(where: { $0.fork >= backup.stop }) {
                fail(target, "timelines \(timeline) and \(other.head.timeline) differ, and it was not said")
            }
        }
        return Verdict(server: server, events: events, outcome: "reached")
    }

    /// The timeline that is meant; nil where that depends on the backup that is chosen.
    private func expectedTimeline(_ target: TimelineTarget) -> UInt32? {
        func newest(_ backups: [TimelineWorld.Backup]) -> UInt32? {
            world.heads.values.filter { head in backups.contains(where: head.contains) }.map(\.timeline).max()
        }
        var isImmediate: Bool { if case .immediate = target.moment { true } else { false } }
        switch target.line {
        case .number(let number): return number
        case .unsaid where !isImmediate, .latest where !isImmediate:
            return newest(target.backup.map { [$0] } ?? world.backups)
        case .unsaid, .latest, .current:
            if let backup = target.backup { return backup.timeline }
            return world.backups.max { ($0.timeline, $0.stop) < ($1.timeline, $1.stop) }?.timeline
        }
    }

    // MARK: Not reached

    /// Lets real servers try, from the given backup, or else from the oldest and the newest on the way.
    private func expectUnreachable(_ target: TimelineTarget, _ message: String) throws {
        guard let timeline = expectedTimeline(target), let head = world.heads[timeline] else {
            return fail(target, message)
        }
        let usable = world.backups.filter { head.contains($0) && isAfter($0, target) }.sorted { $0.stop < $1.stop }
        let tried = target.backup.map { backup in usable.filter { $0.label == backup.label } } ?? usable
        for backup in Set([tried.first?.label, tried.last?.label].compactMap { $0 }).sorted() {
            if try reaches(target, backup, head) {
                fail(target, "a server reached it from \(backup) along timeline \(timeline), but: \(message)")
            }
        }
    }

    /// Targets before a backup's end are refused on purpose, although recovery may stop at its very end all the same.
    private func isAfter(_ backup: TimelineWorld.Backup, _ target: TimelineTarget) -> Bool {
        switch target.moment {
        case .time(let time, _): backup.stopTime <= time
        case .lsn(let lsn): backup.stop <= lsn
        case .latest, .immediate, .xid, .name: true
        }
    }

    /// Whether a server gets there that is configured by hand and has every partial segment in its pg_wal.
    private func reaches(_ target: TimelineTarget, _ label: String, _ head: TimelineWorld.Head) throws -> Bool {
        let directory = world.scratch()
        let prepared = try world.cluster.attempt([
            "restore", "--pgdata", directory, "--backup", label, "--target-immediate",
        ])
        // The backup itself lacks WAL.
        guard prepared.status.isSuccess else { return false }
        for timeline in head.ancestors.map(\.timeline) + [head.timeline] {
            let left = head.ancestors.drop { $0.timeline != timeline }.map(\.switchPoint).min()
            try placePartials(TimelineID(timeline), upTo: left, in: directory + "/pg_wal/")
        }
        let server = try PostgresTestServer(
            dataDirectory: directory, installation: world.cluster.server.installation)
        var append = ServerUser.command(["sh", "-c", "cat >> \"$1\"", "sh", directory + "/postgresql.auto.conf"])
        let lines = ["recovery_target = ''", "recovery_target_timeline = '\(head.timeline)'"] + target.settings
        append.input = Array(((lines + ["recovery_target_action = promote"]).joined(separator: "\n") + "\n").utf8)
        try ServerUser.run(append)
        try server.startWithoutWaiting()
        do throws(KedgeError) {
            try server.wait(until: "select not pg_is_in_recovery()")
        } catch {
            return false
        }
        try server.stop(.immediate)
        try ServerUser.run(["rm", "-rf", directory])
        return true
    }

    /// Puts partial segments under the whole ones' names. The server would take what it finds for its own history, so
    /// nothing behind the point where that left the timeline is put there.
    private func placePartials(_ timeline: TimelineID, upTo left: LSN?, in directory: String) throws {
        let found = try ServerUser.run([
            "find", world.cluster.repository + "/main/wal", "-name", timeline.hex + "*.partial-*",
        ])
        for path in found.split(separator: "\n") {
            let name = path.split(separator: "/").last.map { String($0.prefix(24)) } ?? ""
            guard let start = WALSegment(fileName: name, segmentSize: 1 << 20)?.startLSN(segmentSize: 1 << 20),
                left.map({ $0 > start }) ?? true
            else { continue }
            try world.cluster.kedge(["archive-get", name + ".partial", directory + name])
            guard let left, left < start + UInt64(1 << 20) else { continue }
            for length in [left - start, 1 << 20] {
                try ServerUser.run(["truncate", "-s", String(length), directory + name])
            }
        }
    }

    // MARK: Ambiguous

    /// Branches that went on with a transaction before the time, while `head` had none of its own by then.
    private func rivals(
        of head: TimelineWorld.Head, at time: Timestamp, exclusive: Bool, mustBeArchived: Bool
    ) -> [(head: TimelineWorld.Head, fork: LSN)] {
        let own = TimelineTarget.replayed(of: head.events, at: time, exclusive: exclusive)
        return world.heads.values.compactMap { other in
            let shared = zip(head.events, other.events).prefix { $0.kind == $1.kind && $0.end == $1.end }.count
            let theirs = TimelineTarget.replayed(of: other.events, at: time, exclusive: exclusive)
            guard other.timeline != head.timeline, theirs > shared, own >= shared,
                !head.events[shared..<own].contains(where: { $0.time != nil }),
                let first = other.events[shared..<theirs].first(where: { $0.time != nil }),
                !mustBeArchived || first.end <= other.archived
            else { return nil }
            return (other, shared == 0 ? .invalid : head.events[shared - 1].end)
        }
    }

    private func expectAmbiguous(_ target: TimelineTarget) throws {
        guard case .time(let time, let exclusive) = target.moment, let timeline = expectedTimeline(target),
            let head = world.heads[timeline]
        else { return fail(target, "called ambiguous") }
        let others = rivals(of: head, at: time, exclusive: exclusive, mustBeArchived: false)
        if others.isEmpty { fail(target, "called ambiguous, but no other timeline differs") }
        for line in [timeline] + others.prefix(1).map(\.head.timeline) {
            var explicit = target
            explicit.line = .number(line)
            let verdict = try run(explicit)
            try verdict.server?.stop(.immediate)
        }
    }
}

// A recovery target on a branching history, as the command line takes it, and what it means according to the record of
// what happened (TimelineWorld.swift).
import KedgeCore
import KedgePostgres
import KedgeTestSupport

/// What is asked of `kedge restore`.
struct TimelineTarget: CustomStringConvertible {
    enum Moment {
        case latest, immediate
        case lsn(LSN)
        case time(Timestamp, exclusive: Bool)
        case xid(UInt64, exclusive: Bool)
        case name(String)
    }

    enum Line: Equatable {
        case unsaid, latest, current
        case number(UInt32)
    }

    var moment: Moment
    var line = Line.unsaid
    var backup: TimelineWorld.Backup?

    var arguments: [String] {
        var arguments = backup.map { ["--backup", $0.label] } ?? []
        switch line {
        case .unsaid: break
        case .latest: arguments += ["--target-timeline", "latest"]
        case .current: arguments += ["--target-timeline", "current"]
        case .number(let number): arguments += ["--target-timeline", String(number)]
        }
        switch moment {
        case .latest: break
        case .immediate: arguments.append("--target-immediate")
        case .lsn(let lsn): arguments += ["--target-lsn", lsn.description]
        case .time(let time, let exclusive):
            arguments += ["--target-time", time.description] + (exclusive ? ["--target-exclusive"] : [])
        case .xid(let xid, let exclusive):
            arguments += ["--target-xid", String(xid)] + (exclusive ? ["--target-exclusive"] : [])
        case .name(let name): arguments += ["--target-name", name]
        }
        return arguments
    }

    /// The same as lines of a configuration file; empty for the two that have none.
    var settings: [String] {
        func lines(_ name: String, _ value: String, _ exclusive: Bool = false) -> [String] {
            ["recovery_target_\(name) = '\(value)'", "recovery_target_inclusive = \(exclusive ? "off" : "on")"]
        }
        return switch moment {
        case .latest, .immediate: []
        case .lsn(let lsn): lines("lsn", lsn.description)
        case .time(let time, let exclusive):
            lines("time", time.description.map { $0 == "Z" ? "+00" : String($0) }.joined(), exclusive)
        case .xid(let xid, let exclusive): lines("xid", String(xid), exclusive)
        case .name(let name): lines("name", name)
        }
    }

    var description: String { arguments.joined(separator: " ") }

    // MARK: What it means

    /// How many of a line's events are there when recovery along it stops. `lastRecord` is where the last record begins
    /// that can be replayed, `backup` the one that recovery begins with; nil where the line has no such event.
    func replayed(of events: [TimelineWorld.Event], from backup: TimelineWorld.Backup, lastRecord: LSN?) -> Int? {
        switch moment {
        case .latest: lastRecord.map { last in events.prefix { $0.begin <= last }.count }
        case .immediate: backup.events
        case .lsn(let lsn): events.prefix { $0.end <= lsn }.count
        case .time(let time, let exclusive): Self.replayed(of: events, at: time, exclusive: exclusive)
        case .xid(let xid, let exclusive):
            events.indices.last { events[$0].xid == xid }.map { exclusive ? $0 : $0 + 1 }
        case .name(let name): events.firstIndex { $0.pointName == name }.map { $0 + 1 }
        }
    }

    /// How many events are replayed before the first transaction that ended later.
    static func replayed(of events: [TimelineWorld.Event], at time: Timestamp, exclusive: Bool) -> Int {
        events.firstIndex { event in
            event.time.map { exclusive ? $0 >= time : $0 > time } ?? false
        } ?? events.count
    }

    // MARK: Choosing

    /// Any target on any timeline of the world; one in seven is on none.
    static func random(in world: TimelineWorld, _ random: SeededRandom) -> TimelineTarget {
        func pick<Element>(_ elements: [Element]) -> Element? {
            elements.isEmpty ? nil : elements[random.next(below: elements.count)]
        }
        let heads = world.heads.values.sorted { $0.timeline < $1.timeline }
        let head = pick(heads) ?? world.head
        var target = TimelineTarget(moment: .latest)
        switch random.next(below: 10) {
        case 0...4: target.line = .number(head.timeline)
        case 5: target.line = .latest
        case 6: target.line = .current
        default: break
        }
        if random.next(below: 4) == 0 { target.backup = pick(world.backups) }
        // What came before the first backup is nobody's target.
        let events = head.events
        let commits = events.filter { $0.time != nil }
        let exclusive = random.next(below: 3) == 0
        let shift = Int64(random.next(below: 3)) - 1
        switch random.next(below: 14) {
        case 0: target.moment = .immediate
        case 1...2: target.moment = .latest
        case 3: target.moment = .xid(1_000_000, exclusive: false)
        case 4: target.moment = random.next(below: 2) == 0 ? .name("nowhere") : .lsn(LSN(1 << 40))
        case 5...7: if let event = pick(events) { target.moment = .lsn(event.end) }
        case 8...10:
            if let time = pick(commits)?.time {
                let moved = Timestamp(microseconds: time.microseconds + shift)
                target.moment = .time(moved, exclusive: exclusive)
            }
        case 11...12:
            if let xid = pick(events.filter { $0.xid != nil })?.xid { target.moment = .xid(xid, exclusive: exclusive) }
        default: if let name = pick(events.filter { $0.pointName != nil })?.pointName { target.moment = .name(name) }
        }
        return target
    }
}

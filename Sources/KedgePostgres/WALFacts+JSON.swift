// WAL facts as the member `segment` of a WAL file's record (Catalog/FORMAT.md section 6, wal-facts.schema.json).
//
// Members without a value are left out: most segments hold no restore point, no tablespace and no damage, and the whole
// record should fit the first read of the object.
package import KedgeCore

extension WALFacts {
    /// The facts as one JSON object, at most about 64 KiB as text.
    package var jsonValue: JSONValue {
        var members = [
            JSONMember("format", .int(WALFacts.format)), JSONMember("timeline", .int(timeline.number)),
            JSONMember("partial", .bool(isPartial)), JSONMember("startLSN", .string(startLSN.description)),
        ]
        members += walk.jsonMembers
        members += events.jsonMembers
        return .object(members)
    }

    /// The inverse of `jsonValue`. Throws `damaged`, and `formatUnknown` for facts of a newer format.
    package init(_ record: JSONRecord) throws(KedgeError) {
        let format: Int = try record.integer("format")
        guard format == WALFacts.format else {
            throw KedgeError(
                .formatUnknown, "cannot read \(record.what)",
                detail: "Its facts have the format \(format), and this kedge knows \(WALFacts.format).",
                hint: "Use the newer kedge that wrote it.")
        }
        self.init(
            timeline: try record.timeline("timeline"), startLSN: try record.lsn("startLSN"),
            isPartial: try record.bool("partial"), walk: try WALWalk(record), events: try WALEvents(record))
    }
}

// MARK: - The walk

extension WALWalk {
    fileprivate var jsonMembers: [JSONMember] {
        var members = [
            JSONMember("pageTimelines", [.int(firstPageTimeline.number), .int(lastPageTimeline.number)]),
            JSONMember("records", .int(records)),
        ]
        members.add("firstRecordLSN", firstRecord)
        members.add("lastRecordLSN", lastRecord)
        members.add("endLSN", end)
        if let continued {
            members.append(
                JSONMember(
                    "continued",
                    ["remaining": .int(continued.remaining), "bytes": .string(continued.bytes.hex)]))
        }
        if overwritesPrevious { members.append(JSONMember("overwritesPrevious", true)) }
        if let unfinished {
            members.append(
                JSONMember(
                    "unfinished",
                    [
                        "lsn": .string(unfinished.lsn.description), "length": .int(unfinished.length),
                        "bytes": .string(unfinished.bytes.hex),
                    ]))
        }
        if remaining > 0 { members.append(JSONMember("remaining", .int(remaining))) }
        if endsWithSwitch { members.append(JSONMember("endsWithSwitch", true)) }
        if let defect {
            members.append(
                JSONMember(
                    "walkEnded", ["lsn": .string(defect.lsn.description), "reason": .string(defect.reason)]))
        }
        return members
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init()
        var timelines: [TimelineID] = []
        for item in try record.array("pageTimelines") {
            guard case .integer(let value) = item, let number = UInt32(exactly: value) else {
                throw record.invalid("pageTimelines", "holds something that is not a timeline")
            }
            timelines.append(TimelineID(number))
        }
        guard timelines.count == 2 else { throw record.invalid("pageTimelines", "does not have two items") }
        (firstPageTimeline, lastPageTimeline) = (timelines[0], timelines[1])
        records = try record.countOf("records")
        firstRecord = try record.optionalLSN("firstRecordLSN")
        lastRecord = try record.optionalLSN("lastRecordLSN")
        end = try record.optionalLSN("endLSN")
        if let item = try record.optionalRecord("continued") {
            continued = Continued(remaining: try item.integer("remaining"), bytes: try item.keptBytes("bytes"))
        }
        overwritesPrevious = try record.flag("overwritesPrevious")
        remaining = try record.optionalInteger("remaining") ?? 0
        if let item = try record.optionalRecord("unfinished") {
            unfinished = Unfinished(
                lsn: try item.lsn("lsn"), length: try item.integer("length"), remaining: remaining,
                bytes: try item.keptBytes("bytes"))
        }
        endsWithSwitch = try record.flag("endsWithSwitch")
        if let item = try record.optionalRecord("walkEnded") {
            defect = Defect(lsn: try item.lsn("lsn"), reason: try item.string("reason"))
        }
    }
}

// MARK: - The events

extension WALEvents {
    fileprivate var jsonMembers: [JSONMember] {
        var members = [JSONMember("commits", .int(commits)), JSONMember("aborts", .int(aborts))]
        for (key, end) in [
            ("firstCommit", firstCommit), ("lastCommit", lastCommit), ("firstTransactionEnd", firstEnd),
            ("lastTransactionEnd", lastEnd),
        ] {
            if let end { members.append(JSONMember(key, end.jsonValue)) }
        }
        members.add("earliestTime", earliestTime)
        members.add("latestTime", latestTime)
        if let ended = endedTransactions { members.append(JSONMember("endedTransactions", ended.jsonValue)) }
        members.add("restorePoints", restorePoints.map(\.jsonValue), omitted: restorePointsOmitted)
        members.add("tablespaces", tablespaces.map(\.jsonValue), omitted: tablespacesOmitted)
        if checkpoints > 0 { members.append(JSONMember("checkpoints", .int(checkpoints))) }
        if let checkpoint = lastCheckpoint { members.append(JSONMember("lastCheckpoint", checkpoint.jsonValue)) }
        if let end = lastEndOfRecovery { members.append(JSONMember("lastEndOfRecovery", end.jsonValue)) }
        if hasMinimalWAL { members.append(JSONMember("minimalWAL", true)) }
        return members
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init()
        commits = try record.countOf("commits")
        aborts = try record.countOf("aborts")
        firstCommit = try record.optionalRecord("firstCommit").map(TransactionEnd.init)
        lastCommit = try record.optionalRecord("lastCommit").map(TransactionEnd.init)
        firstEnd = try record.optionalRecord("firstTransactionEnd").map(TransactionEnd.init)
        lastEnd = try record.optionalRecord("lastTransactionEnd").map(TransactionEnd.init)
        earliestTime = try record.optionalParsed("earliestTime") { Timestamp(record: $0) }
        latestTime = try record.optionalParsed("latestTime") { Timestamp(record: $0) }
        switch (earliestTime, latestTime) {
        case (nil, nil): break
        case (let earliest?, let latest?) where earliest <= latest: break
        default: throw record.invalid("latestTime", "does not fit \"earliestTime\"")
        }
        endedTransactions = try record.optionalRecord("endedTransactions").map(TransactionIDSet.init)
        for item in try record.recordsOrNone("restorePoints") {
            restorePoints.append(
                RestorePoint(lsn: try item.lsn("lsn"), time: try item.time("time"), name: try item.rawText("name")))
        }
        restorePointsOmitted = try record.optionalCount("restorePointsOmitted")
        for item in try record.recordsOrNone("tablespaces") {
            tablespaces.append(
                CreatedTablespace(
                    lsn: try item.lsn("lsn"), oid: try item.integer("oid"), path: try item.rawText("path")))
        }
        tablespacesOmitted = try record.optionalCount("tablespacesOmitted")
        checkpoints = try record.optionalCount("checkpoints")
        lastCheckpoint = try record.optionalRecord("lastCheckpoint").map(CheckpointRecord.init)
        lastEndOfRecovery = try record.optionalRecord("lastEndOfRecovery").map(EndOfRecovery.init)
        hasMinimalWAL = try record.flag("minimalWAL")
    }
}

extension TransactionEnd {
    fileprivate var jsonValue: JSONValue {
        ["lsn": .string(lsn.description), "time": .string(time.description), "xid": .int(xid)]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(lsn: try record.lsn("lsn"), time: try record.time("time"), xid: try record.integer("xid"))
    }
}

extension RestorePoint {
    fileprivate var jsonValue: JSONValue {
        ["lsn": .string(lsn.description), "time": .string(time.description), "name": .rawText(name)]
    }
}

extension CreatedTablespace {
    fileprivate var jsonValue: JSONValue {
        ["lsn": .string(lsn.description), "oid": .int(oid), "path": .rawText(path)]
    }
}

extension CheckpointRecord {
    fileprivate var jsonValue: JSONValue {
        [
            "lsn": .string(lsn.description), "redo": .string(redo.description), "timeline": .int(timeline.number),
            "shutdown": .bool(isShutdown), "time": .string(time.description),
        ]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            lsn: try record.lsn("lsn"), redo: try record.lsn("redo"), timeline: try record.timeline("timeline"),
            isShutdown: try record.bool("shutdown"), time: try record.time("time"))
    }
}

extension EndOfRecovery {
    fileprivate var jsonValue: JSONValue {
        [
            "lsn": .string(lsn.description), "time": .string(time.description), "timeline": .int(timeline.number),
            "previousTimeline": .int(previousTimeline.number),
        ]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            lsn: try record.lsn("lsn"), time: try record.time("time"), timeline: try record.timeline("timeline"),
            previousTimeline: try record.timeline("previousTimeline"))
    }
}

extension TransactionIDSet {
    fileprivate var jsonValue: JSONValue {
        var members = [
            JSONMember("count", .int(count)), JSONMember("oldest", .int(oldest)), JSONMember("newest", .int(newest)),
        ]
        if let encoded = encodedRuns { members.append(JSONMember("runs", .string(encoded.hex))) }
        return .object(members)
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        let count = try record.countOf("count")
        let (oldest, newest): (UInt32, UInt32) = (try record.integer("oldest"), try record.integer("newest"))
        guard let encoded = try record.optionalParsed("runs", { [UInt8](hex: $0) }) else {
            self.init(count: count, oldest: oldest, newest: newest, runs: nil)
            return
        }
        self = try TransactionIDSet.decode(
            runs: encoded, oldest: oldest, newest: newest, what: "\(record.what), member \"runs\"")
        guard self.count == count else { throw record.invalid("count", "is not the number of ids in the runs") }
    }
}

// MARK: - Members

extension Array<JSONMember> {
    fileprivate mutating func add(_ key: String, _ value: (some CustomStringConvertible)?) {
        if let value { append(JSONMember(key, .string(value.description))) }
    }

    fileprivate mutating func add(_ key: String, _ items: [JSONValue], omitted: Int) {
        if !items.isEmpty { append(JSONMember(key, .array(items))) }
        if omitted > 0 { append(JSONMember(key + "Omitted", .int(omitted))) }
    }
}

extension JSONValue {
    /// A name or path: a string where its bytes are UTF-8, otherwise `{"hex":"…"}`.
    fileprivate static func rawText(_ text: RawPath) -> JSONValue {
        text.text.map(JSONValue.string) ?? ["hex": .string(text.bytes.hex)]
    }
}

extension JSONRecord {
    fileprivate func lsn(_ key: String) throws(KedgeError) -> LSN { try parsed(key) { LSN($0) } }

    fileprivate func optionalLSN(_ key: String) throws(KedgeError) -> LSN? { try optionalParsed(key) { LSN($0) } }

    fileprivate func time(_ key: String) throws(KedgeError) -> Timestamp { try parsed(key) { Timestamp(record: $0) } }

    fileprivate func timeline(_ key: String) throws(KedgeError) -> TimelineID {
        let number: UInt32 = try integer(key)
        guard number > 0 else { throw invalid(key, "is 0") }
        return TimelineID(number)
    }

    fileprivate func countOf(_ key: String) throws(KedgeError) -> Int {
        let count: Int = try integer(key)
        // A record has at least 24 bytes and a segment at most 2^30: sums of counts cannot overflow.
        guard (0...1 << 30).contains(count) else { throw invalid(key, "is out of range") }
        return count
    }

    fileprivate func optionalCount(_ key: String) throws(KedgeError) -> Int {
        value(key) == nil ? 0 : try countOf(key)
    }

    fileprivate func flag(_ key: String) throws(KedgeError) -> Bool { value(key) == nil ? false : try bool(key) }

    fileprivate func recordsOrNone(_ key: String) throws(KedgeError) -> [JSONRecord] {
        value(key) == nil ? [] : try records(key)
    }

    fileprivate func keptBytes(_ key: String) throws(KedgeError) -> [UInt8] {
        let bytes = try parsed(key) { [UInt8](hex: $0) }
        guard bytes.count <= WALReader.keptBytes else { throw invalid(key, "is too long") }
        return bytes
    }

    fileprivate func rawText(_ key: String) throws(KedgeError) -> RawPath {
        guard case .object = value(key) else { return RawPath(try string(key)) }
        return RawPath(bytes: try record(key).parsed("hex") { [UInt8](hex: $0) })
    }
}

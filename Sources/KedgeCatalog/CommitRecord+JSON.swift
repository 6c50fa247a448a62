// The commit record as JSON (Catalog/v1/schema/commit-record.schema.json).

package import KedgeCore

extension CommitRecord {
    package var jsonValue: JSONValue {
        let identity: [JSONMember] = [
            JSONMember("kedge", "commit-record"), JSONMember("label", .string(label.text)),
            JSONMember("type", .string(type.rawValue)), JSONMember("parent", .optional(parent?.text)),
            JSONMember("clusterName", .string(clusterName)),
        ]
        let rest: [JSONMember] = [
            JSONMember("tablespaces", .array(tablespaces.map(\.jsonValue))),
            JSONMember("dataDirectory", dataDirectory.jsonValue),
            JSONMember("dataDirectoryMode", dataDirectoryMode.map { .int($0) } ?? .null),
            JSONMember("walDirectory", walDirectory?.jsonValue ?? .null),
            JSONMember("configurationFiles", .array(configurationFiles.map(\.jsonValue))),
            JSONMember("databaseBytes", .int(sizes.databaseBytes)), JSONMember("storedBytes", .int(sizes.storedBytes)),
            JSONMember("deltaBytes", .int(sizes.deltaBytes)), JSONMember("files", .int(sizes.files)),
            JSONMember("packs", .array(packs.map(\.jsonValue))),
            JSONMember(
                "manifest", ["length": .int(manifest.length), "checksum": .string(manifest.checksum.hex)]),
        ]
        let origin: [JSONMember] = [
            JSONMember("keySlots", .array(keySlots)), JSONMember("hostName", .string(hostName)),
            JSONMember("createdBy", .string(createdBy)),
            JSONMember(
                "durations",
                .object(durations.map { JSONMember($0.phase, .int($0.milliseconds)) })),
        ]
        // Few backups have it, and older readers need not meet it.
        let resumed =
            takenOver.isEmpty ? [] : [JSONMember("resumed", .array(takenOver.map(\.jsonValue)))]
        return .object(identity + server.members + span.members + rest + health.members + resumed + origin)
    }

    /// The commit record that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("commit-record")
        let manifest = try record.record("manifest")
        let sizes = BackupSizes(
            databaseBytes: try record.integer("databaseBytes"), storedBytes: try record.integer("storedBytes"),
            deltaBytes: try record.integer("deltaBytes"), files: try record.integer("files"))
        self.init(
            label: try record.parsed("label") { Label($0) },
            type: try record.parsed("type") { BackupType(rawValue: $0) },
            parent: try record.optionalParsed("parent") { Label($0) },
            clusterName: try record.string("clusterName"),
            server: try ServerFacts(record), span: try BackupSpan(record),
            tablespaces: try record.map("tablespaces", Tablespace.init),
            dataDirectory: try record.path("dataDirectory"),
            dataDirectoryMode: try record.optionalInteger("dataDirectoryMode"),
            walDirectory: try record.optionalPath("walDirectory"),
            configurationFiles: try record.paths("configurationFiles"),
            sizes: sizes,
            takenOver: record.value("resumed") == nil ? [] : try record.map("resumed", TakenOver.init),
            packs: try record.map("packs", PackUse.init),
            manifest: ManifestSeal(
                length: try manifest.integer("length"),
                checksum: try manifest.parsed("checksum") { ContentHash(hex: $0) }),
            health: try BackupHealth(record), keySlots: try record.array("keySlots"),
            hostName: try record.string("hostName"), createdBy: try record.string("createdBy"),
            durations: try CommitRecord.readDurations(record))
        guard label.type == type else { throw record.invalid("type", "is not the one that the label names") }
        guard span.startLSN <= span.stopLSN else { throw record.invalid("stopLSN", "lies before the start") }
        guard dataDirectoryMode ?? 0 <= 0o7777 else { throw record.invalid("dataDirectoryMode", "is impossible") }
    }

    private static func readDurations(_ record: JSONRecord) throws(KedgeError) -> [PhaseDuration] {
        guard case .object(let members)? = record.value("durations") else {
            throw record.invalid("durations", "is not an object")
        }
        var durations: [PhaseDuration] = []
        for member in members {
            guard case .integer(let milliseconds) = member.value, milliseconds >= 0 else {
                throw record.invalid("durations", "holds something that is not a number of milliseconds")
            }
            durations.append(PhaseDuration(phase: member.key, milliseconds: UInt64(milliseconds)))
        }
        return durations
    }
}

extension CommitRecord.ServerFacts {
    fileprivate var members: [JSONMember] {
        [
            JSONMember("systemIdentifier", .string(systemIdentifier.description)),
            JSONMember("postgresVersion", .int(postgresVersion)), JSONMember("serverVersion", .string(serverVersion)),
            JSONMember("fromStandby", .bool(fromStandby)), JSONMember("dataChecksums", .bool(dataChecksums)),
            JSONMember("blockSize", .int(blockSize)), JSONMember("walSegmentSize", .int(walSegmentSize)),
            JSONMember("relationSegmentBlocks", .int(relationSegmentBlocks)),
        ]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            systemIdentifier: try record.parsed("systemIdentifier") { SystemIdentifier($0) },
            postgresVersion: try record.integer("postgresVersion"), serverVersion: try record.string("serverVersion"),
            fromStandby: try record.bool("fromStandby"), dataChecksums: try record.bool("dataChecksums"),
            blockSize: try record.integer("blockSize"), walSegmentSize: try record.integer("walSegmentSize"),
            relationSegmentBlocks: try record.integer("relationSegmentBlocks"))
        guard walSegmentSize.nonzeroBitCount == 1, (1 << 20...1 << 30).contains(walSegmentSize) else {
            throw record.invalid("walSegmentSize", "is out of range")
        }
        // Pages are cut by it (src/include/pg_config.h, BLCKSZ).
        guard blockSize.nonzeroBitCount == 1, (1024...32768).contains(blockSize) else {
            throw record.invalid("blockSize", "is out of range")
        }
        guard relationSegmentBlocks > 0 else { throw record.invalid("relationSegmentBlocks", "is 0") }
    }
}

extension CommitRecord.BackupSpan {
    fileprivate var members: [JSONMember] {
        [
            JSONMember("timeline", .int(timeline.number)), JSONMember("startLSN", .string(startLSN.description)),
            JSONMember("stopLSN", .string(stopLSN.description)),
            JSONMember("checkpointLSN", .string(checkpointLSN.description)),
            JSONMember("startTime", .string(startTime.description)),
            JSONMember("stopTime", .string(stopTime.description)),
            JSONMember("walFrom", .string(walFrom)), JSONMember("walTo", .string(walTo)),
            JSONMember("history", .array(history.map(\.jsonValue))), JSONMember("snapshot", .string(snapshot)),
            JSONMember("afterStopTime", .string(afterStopTime.description)),
            JSONMember("afterStopLSN", .string(afterStopLSN.description)),
        ]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            timeline: try record.parsedTimeline("timeline"),
            startLSN: try record.parsed("startLSN") { LSN($0) }, stopLSN: try record.parsed("stopLSN") { LSN($0) },
            checkpointLSN: try record.parsed("checkpointLSN") { LSN($0) },
            startTime: try record.parsed("startTime") { Timestamp(record: $0) },
            stopTime: try record.parsed("stopTime") { Timestamp(record: $0) },
            walFrom: try record.parsed("walFrom", segmentName), walTo: try record.parsed("walTo", segmentName),
            history: try record.map("history", CommitRecord.TimelineSwitch.init),
            snapshot: try record.string("snapshot"),
            afterStopTime: try record.parsed("afterStopTime") { Timestamp(record: $0) },
            afterStopLSN: try record.parsed("afterStopLSN") { LSN($0) })
    }
}

extension JSONRecord {
    /// A timeline's number: at least 1.
    fileprivate func parsedTimeline(_ key: String) throws(KedgeError) -> TimelineID {
        let number: UInt32 = try integer(key)
        guard number > 0 else { throw invalid(key, "is 0") }
        return TimelineID(number)
    }
}

/// `text`, if it is the name of a WAL segment.
private func segmentName(_ text: String) -> String? {
    guard case .segment(let name)? = WALFileName(text) else { return nil }
    return name
}

extension CommitRecord.TimelineSwitch {
    fileprivate var jsonValue: JSONValue {
        ["timeline": .int(timeline.number), "switchLSN": .string(switchLSN.description)]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            timeline: try record.parsedTimeline("timeline"),
            switchLSN: try record.parsed("switchLSN") { LSN($0) })
    }
}

extension CommitRecord.TakenOver {
    package var jsonValue: JSONValue { ["label": .string(label.text), "bytes": .int(bytes)] }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(label: try record.parsed("label") { Label($0) }, bytes: try record.integer("bytes"))
    }
}

extension CommitRecord.Tablespace {
    fileprivate var jsonValue: JSONValue {
        ["oid": .int(oid), "path": path.jsonValue, "inPlace": .bool(inPlace)]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            oid: try record.integer("oid"), path: try record.path("path"), inPlace: try record.bool("inPlace"))
        guard oid > 0 else { throw record.invalid("oid", "is 0") }
    }
}

extension CommitRecord.BackupHealth {
    fileprivate var members: [JSONMember] {
        [
            JSONMember(
                "damagedPages",
                .array(damagedPages.map { ["path": $0.path.jsonValue, "block": .int($0.block)] })),
            JSONMember("damagedPageCount", .int(damagedPageCount)),
            JSONMember(
                "walSuspect",
                .array(
                    walSuspect.map {
                        [
                            "file": .string($0.file), "lsn": .string($0.lsn.description),
                            "reason": .string($0.reason),
                        ]
                    })),
            JSONMember("fallbacks", .array(fallbacks.map(JSONValue.string))),
        ]
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            damagedPages: try record.map("damagedPages") { (page) throws(KedgeError) in
                guard let path = page.value("path") else { throw page.invalid("path", "is missing") }
                return CommitRecord.DamagedPage(
                    path: try ManifestPath(path, in: page, key: "path"), block: try page.integer("block"))
            },
            damagedPageCount: try record.integer("damagedPageCount"),
            walSuspect: try record.map("walSuspect") { (suspect) throws(KedgeError) in
                CommitRecord.SuspectWAL(
                    file: try suspect.string("file"), lsn: try suspect.parsed("lsn") { LSN($0) },
                    reason: try suspect.string("reason"))
            },
            fallbacks: try record.strings("fallbacks"))
    }
}

// The proof as JSON (Catalog/v1/schema/proof.schema.json). Members without a value are left out.

package import KedgeCore

extension ProofRecord {
    package var jsonValue: JSONValue {
        .members(
            ("kedge", "proof"), ("label", .string(label.text)), ("level", .string(level.rawValue)),
            ("result", .string(result.rawValue)),
            ("repository", ["name": .string(repositoryName), "id": .string(repositoryID.hex)]),
            ("manifest", ["length": .int(manifest.length), "checksum": .string(manifest.checksum.hex)]),
            ("started", .string(started.description)), ("readSince", (readSince?.description).map(JSONValue.string)),
            ("finished", .string(finished.description)),
            ("hostName", .string(hostName)), ("createdBy", .string(createdBy)),
            ("serverVersion", serverVersion.map(JSONValue.string)), ("target", target?.jsonValue),
            ("covers", covers?.jsonValue), ("checks", .array(checks.map(\.jsonValue))),
            ("phases", .array(phases.map(\.jsonValue))), ("objectives", objectives?.jsonValue),
            ("verifiedObjects", verified?.jsonValue))
    }

    /// The proof that `record` describes. Throws `damaged`.
    package init(_ record: JSONRecord) throws(KedgeError) {
        try record.expectType("proof")
        let repository = try record.record("repository")
        let manifest = try record.record("manifest")
        self.init(
            label: try record.parsed("label") { Label($0) },
            level: try record.parsed("level") { ProofLevel(rawValue: $0) },
            result: try record.parsed("result") { ProofResult(rawValue: $0) },
            repositoryName: try repository.string("name"),
            repositoryID: try repository.parsed("id") { RandomID(hex: $0) },
            manifest: CommitRecord.ManifestSeal(
                length: try manifest.integer("length"),
                checksum: try manifest.parsed("checksum") { ContentHash(hex: $0) }),
            started: try record.parsed("started") { Timestamp(record: $0) },
            finished: try record.parsed("finished") { Timestamp(record: $0) },
            hostName: try record.string("hostName"), createdBy: try record.string("createdBy"),
            readSince: try record.optionalParsed("readSince") { Timestamp(record: $0) },
            serverVersion: try record.optionalString("serverVersion"),
            target: try record.optional("target", Target.init),
            covers: try record.optional("covers", Coverage.init),
            checks: try record.map("checks", Check.init), phases: try record.map("phases", Phase.init),
            objectives: try record.optional("objectives", Objectives.init),
            verified: try record.optional("verifiedObjects", VerifiedObjects.init))
    }
}

extension ProofRecord.Target {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("kind", .string(kind)), ("value", value.map(JSONValue.string)),
            ("reachedTimeline", reachedTimeline.map { .int($0.number) }),
            ("reachedLSN", reachedLSN.map { .string($0.description) }),
            ("reachedTime", reachedTime.map { .string($0.description) }))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            kind: try record.string("kind"), value: try record.optionalString("value"),
            reachedTimeline: try record.optionalInteger("reachedTimeline", as: UInt32.self).map(TimelineID.init),
            reachedLSN: try record.optionalParsed("reachedLSN") { LSN($0) },
            reachedTime: try record.optionalParsed("reachedTime") { Timestamp(record: $0) })
    }
}

extension ProofRecord.Coverage {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("timeline", .int(timeline.number)), ("fromLSN", .string(fromLSN.description)),
            ("toLSN", .string(toLSN.description)), ("toTime", toTime.map { .string($0.description) }))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            timeline: TimelineID(try record.integer("timeline")), fromLSN: try record.parsed("fromLSN") { LSN($0) },
            toLSN: try record.parsed("toLSN") { LSN($0) },
            toTime: try record.optionalParsed("toTime") { Timestamp(record: $0) })
        guard fromLSN <= toLSN else { throw record.invalid("toLSN", "lies before the start") }
    }
}

extension ProofRecord.Check {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("name", .string(name)), ("result", .string(result.rawValue)), ("subject", subject.map(JSONValue.string)),
            ("detail", detail.map(JSONValue.string)), ("milliseconds", .int(milliseconds)))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            name: try record.string("name"), result: try record.parsed("result") { Result(rawValue: $0) },
            subject: try record.optionalString("subject"), detail: try record.optionalString("detail"),
            milliseconds: try record.integer("milliseconds"))
    }
}

extension ProofRecord.Phase {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("name", .string(name)), ("milliseconds", .int(milliseconds)), ("bytes", bytes.map { .int($0) }))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            name: try record.string("name"), milliseconds: try record.integer("milliseconds"),
            bytes: try record.optionalInteger("bytes"))
    }
}

extension ProofRecord.Objectives {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("rtoSeconds", rtoSeconds.map { .int($0) }), ("measuredSeconds", .int(measuredSeconds)),
            ("rpoSeconds", rpoSeconds.map { .int($0) }), ("lagSeconds", lagSeconds.map { .int($0) }))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            rtoSeconds: try record.optionalInteger("rtoSeconds"),
            measuredSeconds: try record.integer("measuredSeconds"),
            rpoSeconds: try record.optionalInteger("rpoSeconds"),
            lagSeconds: try record.optionalInteger("lagSeconds"))
    }
}

extension ProofRecord.VerifiedObjects {
    fileprivate var jsonValue: JSONValue {
        .members(
            ("systemIdentifier", .string(systemIdentifier.description)),
            ("packs", .array(packs.map { ["id": .string($0.id.hex), "bytes": .int($0.bytes)] })),
            (
                "wal",
                .array(
                    wal.map {
                        .members(
                            ("timeline", .int($0.timeline.number)), ("first", .int($0.first)),
                            ("last", .int($0.last)), ("sizes", ($0.sizes?.hex).map(JSONValue.string)))
                    })
            ),
            ("partsPerMillion", .int(partsPerMillion)))
    }

    fileprivate init(_ record: JSONRecord) throws(KedgeError) {
        self.init(
            systemIdentifier: try record.parsed("systemIdentifier") { SystemIdentifier($0) },
            packs: try record.map("packs") { (pack) throws(KedgeError) in
                Pack(id: try pack.parsed("id") { RandomID(hex: $0) }, bytes: try pack.integer("bytes"))
            },
            wal: try record.map("wal") { (range) throws(KedgeError) in
                let wal = WALRange(
                    timeline: TimelineID(try range.integer("timeline")), first: try range.integer("first"),
                    last: try range.integer("last"),
                    sizes: try range.optionalParsed("sizes") { ContentHash(hex: $0) })
                guard wal.first <= wal.last else { throw range.invalid("last", "lies before the first") }
                return wal
            },
            partsPerMillion: try record.integer("partsPerMillion"))
        guard (1...Self.everything).contains(partsPerMillion) else {
            throw record.invalid("partsPerMillion", "is out of range")
        }
    }
}

extension JSONValue {
    /// An object of those members that have a value.
    fileprivate static func members(_ members: (String, JSONValue?)...) -> JSONValue {
        .object(members.compactMap { key, value in value.map { JSONMember(key, $0) } })
    }
}

extension JSONRecord {
    /// A value made from a member that is a record; nil where it is absent.
    fileprivate func optional<Value>(
        _ key: String, _ make: (JSONRecord) throws(KedgeError) -> Value
    ) throws(KedgeError) -> Value? {
        guard let record = try optionalRecord(key) else { return nil }
        return try make(record)
    }
}

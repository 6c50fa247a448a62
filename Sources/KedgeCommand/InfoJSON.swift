// `kedge info --json`: what others build on (docs/design.md section 5). Keys may be added, never renamed or dropped.
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// The JSON of `info`.
enum InfoJSON {
    /// Everything about one cluster.
    static func cluster(_ cluster: Info.ClusterInfo) -> JSONValue {
        var infos: [RepositoryInfo] = []
        for case .success(let info) in cluster.repositories.map(\.info) { infos.append(info) }
        let registration = cluster.registration
        return [
            "name": .string(cluster.name),
            "systemIdentifier": .optional(registration?.systemIdentifier.description),
            "postgresVersion": registration.map { .int($0.postgresVersion) } ?? .null,
            "status": .string(InfoCommand.word(cluster.status)), "messages": .array(cluster.messages.map(message)),
            "repositories": .array(cluster.repositories.map(repository)),
            "backups": .array(infos.flatMap { info in info.backups.map { backup($0, info.name) } }),
            "underWay": .array(infos.flatMap(underWay)), "leases": .array(infos.flatMap(leases)),
            "recoverable": .array(infos.flatMap { info in info.windows.map { window($0, info) } }),
            "wal": .array(infos.flatMap(wal)),
            "proofs": .array(infos.flatMap { ($0.proofs ?? []).map(proof) }),
        ]
    }

    /// What counts as proven for a backup.
    private static func standing(_ standing: ProofStanding) -> JSONValue {
        let proof = standing.proof
        return [
            "level": .string(proof?.level.rawValue ?? "none"), "time": .optional(proof?.asOf.description),
            "coversLSN": .optional(proof?.covers?.toLSN.description),
            "coversTime": .optional(proof?.covers?.toTime?.description),
            "drilled": .optional(standing.drilled?.finished.description),
            "verified": .optional(standing.verified?.asOf.description),
            "failed": .optional(standing.failure?.finished.description),
            "lastDrilled": .optional(standing.lastDrilled?.finished.description),
            "lastVerified": .optional(standing.lastVerified?.asOf.description),
        ]
    }

    /// One proof, but for the list of what was read.
    static func proof(_ proof: ProofRecord) -> JSONValue {
        guard case .object(let members) = proof.jsonValue else { return .null }
        return .object(members.filter { $0.key != "kedge" && $0.key != "verifiedObjects" })
    }

    private static func message(_ message: InfoMessage) -> JSONValue {
        var members = [
            JSONMember("severity", message.severity == .error ? "error" : "warning"),
            JSONMember("repository", .string(message.repository)),
        ]
        if case .object(let error) = OutputRenderer.errorMembers(message.error) { members += error }
        return .object(members)
    }

    private static func repository(
        _ repository: (name: String, info: Result<RepositoryInfo, KedgeError>)
    ) -> JSONValue {
        switch repository.info {
        case .success(let info):
            ["name": .string(info.name), "readable": true, "location": .string(info.location)]
        case .failure: ["name": .string(repository.name), "readable": false, "location": .null]
        }
    }

    private static func backup(_ backup: RepositoryInfo.BackupInfo, _ repository: String) -> JSONValue {
        let record = backup.record
        return [
            "label": .string(record.label.text), "type": .string(record.type.rawValue),
            "parent": .optional(record.parent?.text), "repository": .string(repository),
            "startTime": .string(record.span.startTime.description),
            "stopTime": .string(record.span.stopTime.description),
            "startLSN": .string(record.span.startLSN.description),
            "stopLSN": .string(record.span.stopLSN.description), "timeline": .int(record.span.timeline.number),
            "databaseBytes": .int(record.sizes.databaseBytes), "storedBytes": .int(record.sizes.storedBytes),
            "deltaBytes": .int(record.sizes.deltaBytes), "pinned": .bool(backup.isPinned),
            "proof": standing(backup.standing), "walFrom": .string(record.span.walFrom),
            "walTo": .string(record.span.walTo), "hasItsWAL": backup.hasItsWAL.map(JSONValue.bool) ?? .null,
            "systemIdentifier": .string(record.server.systemIdentifier.description),
            "damagedPageCount": .int(record.health.damagedPageCount),
            "postgresVersion": .int(record.server.postgresVersion), "host": .string(record.hostName),
            "condemnedAt": .optional(backup.condemnedAt?.description),
            "removalHasBegun": .bool(backup.removalHasBegun),
            "deltas": .array(backup.bases.map { .string($0.text) }), "ownBytes": .int(backup.share.ownBytes),
            "dependents": .array(backup.share.dependents.map { .string($0.text) }),
            "freedBytes": .int(backup.share.bytes),
        ]
    }

    private static func underWay(_ info: RepositoryInfo) -> [JSONValue] {
        info.intents.compactMap { label, intent in
            guard case .success(let intent) = intent, !info.backups.contains(where: { $0.record.label == label }) else {
                return nil
            }
            let lease = info.lease(for: label)
            return [
                "label": .string(label.text), "type": .string(intent.type.rawValue), "repository": .string(info.name),
                "startedAt": .string(intent.startedAt.description), "startLSN": .string(intent.startLSN.description),
                "host": .string(intent.hostName), "processID": .int(intent.processID),
                "progress": lease.map { progress($0.record, $0.renewedAt) } ?? .null,
            ]
        }
    }

    private static func leases(_ info: RepositoryInfo) -> [JSONValue] {
        info.leases.map { operation, record, renewedAt in
            [
                "repository": .string(info.name), "operation": .string(operation), "readable": .bool(record != nil),
                "host": .optional(record?.process.hostName),
                "processID": record.map { .int($0.process.processID) } ?? .null, "label": .optional(record?.label),
                "takenAt": .optional(record?.takenAt.description),
                "progress": record.map { progress($0, renewedAt) } ?? .null,
            ]
        }
    }

    /// How far work is; `at` is the store's time of the last renewal.
    private static func progress(_ record: LeaseRecord, _ renewedAt: Timestamp) -> JSONValue {
        [
            "step": .string(record.step), "doneBytes": .int(record.doneBytes),
            "totalBytes": record.totalBytes.map { .int($0) } ?? .null, "at": .string(renewedAt.description),
        ]
    }

    private static func window(_ window: RepositoryInfo.WindowInfo, _ info: RepositoryInfo) -> JSONValue {
        [
            "repository": .string(info.name), "timeline": .int(window.timeline.number), "from": moment(window.from),
            "to": moment(window.to), "newestBackup": .string(window.newestBackup.text),
            "backups": .int(window.backupCount),
        ]
    }

    private static func moment(_ moment: RepositoryInfo.Moment) -> JSONValue {
        ["lsn": .string(moment.lsn.description), "time": .optional(moment.time?.description)]
    }

    private static func wal(_ info: RepositoryInfo) -> [JSONValue] {
        info.inventory.timelines.compactMap { timeline in
            guard let ends = info.ends(of: timeline) else { return nil }
            func name(_ number: UInt64) -> String {
                WALSegment(timeline: timeline.id, number: number).fileName(segmentSize: info.inventory.segmentSize)
            }
            func names(_ ranges: [ClosedRange<UInt64>]) -> JSONValue {
                .array(ranges.map { .string("\(name($0.lowerBound))-\(name($0.upperBound))") })
            }
            let missing = timeline.gaps + info.missingAtEnd(of: timeline)
            return [
                "repository": .string(info.name), "timeline": .int(timeline.id.number), "first": .string(ends.first),
                "last": .string(ends.last), "segments": .int(timeline.segmentCount),
                "storedBytes": .int(timeline.storedBytes),
                "missing": names(missing), "acknowledged": names(info.acknowledged(missing, on: timeline.id)),
                "partial": .array(timeline.partials.sorted().map { .string(name($0)) }),
                "conflicts": .array(timeline.conflicts.sorted().map { .string(name($0)) }),
            ]
        }
    }
}

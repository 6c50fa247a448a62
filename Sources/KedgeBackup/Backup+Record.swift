// The commit record of a backup: what is known of it at its end.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository

extension Backup {
    /// Throws where the repository has no key to write with.
    func record(
        _ session: Session, _ copy: BackupCopy, _ stop: OnlineBackup.Stop, _ stopTime: Timestamp,
        root: ManifestRoot, manifest: CommitRecord.ManifestSeal, wal: NeededWAL, phases: Phases
    ) throws(KedgeError) -> CommitRecord {
        let (damaged, damagedCount) = copy.findings.verdict(stopLSN: stop.lsn)
        let repository = session.cluster.repository
        // Packs of the parent may be sealed with older keys.
        var keyIDs = session.parent?.keyIDs ?? []
        if repository.settings.secret != nil { keyIDs.insert(try repository.keyRing.writingKey().id) }
        let fallbacks = (session.choice.isFallback ? [fullInstead(session.choice)] : []) + copy.fallbacks
        return CommitRecord(
            label: session.label, type: session.label.type, parent: session.parent?.record.label,
            clusterName: options.clusterName,
            server: facts(of: session.server), span: span(session, stop, stopTime, wal),
            tablespaces: copy.walk.tablespaces, dataDirectory: session.server.settings.dataDirectory,
            dataDirectoryMode: copy.walk.dataDirectoryMode,
            walDirectory: copy.walk.walDirectory, configurationFiles: copy.walk.extraFiles,
            sizes: CommitRecord.BackupSizes(
                databaseBytes: root.bytes, storedBytes: copy.context.totals.storedBytes,
                deltaBytes: copy.context.totals.rawBytes, files: root.files),
            takenOver: copy.context.takenOver?.takenOver ?? [], packs: root.packs, manifest: manifest,
            health: CommitRecord.BackupHealth(
                damagedPages: damaged, damagedPageCount: damagedCount, walSuspect: wal.suspects,
                fallbacks: fallbacks),
            keySlots: repository.slots.filter { keyIDs.contains($0.keyID) }.map(\.json), hostName: options.hostName,
            createdBy: Version.writer, durations: phases.durations)
    }

    private func fullInstead(_ choice: ParentChoice) -> String {
        "A full backup was taken instead of a delta: \(choice.reason)."
    }

    private func facts(of server: ServerCheck) -> CommitRecord.ServerFacts {
        CommitRecord.ServerFacts(
            systemIdentifier: server.settings.systemIdentifier, postgresVersion: server.control.version.major,
            serverVersion: server.serverVersion, fromStandby: server.isStandby,
            dataChecksums: server.control.hasDataChecksums, blockSize: server.control.blockSize,
            walSegmentSize: UInt64(server.control.walSegmentSize),
            relationSegmentBlocks: server.control.relationSegmentBlocks)
    }

    private func span(
        _ session: Session, _ stop: OnlineBackup.Stop, _ stopTime: Timestamp, _ wal: NeededWAL
    ) -> CommitRecord.BackupSpan {
        let start = session.online.start
        let size = session.server.registration.walSegmentSize
        return CommitRecord.BackupSpan(
            timeline: start.timeline, startLSN: start.lsn, stopLSN: stop.lsn,
            checkpointLSN: stop.label.checkpointLSN, startTime: start.time, stopTime: stopTime,
            walFrom: wal.segments.lowerBound.fileName(segmentSize: size),
            walTo: wal.segments.upperBound.fileName(segmentSize: size),
            history: wal.history.entries.compactMap { entry in
                entry.end.map { CommitRecord.TimelineSwitch(timeline: entry.timeline, switchLSN: $0) }
            },
            snapshot: stop.after.snapshot, afterStopTime: stopTime, afterStopLSN: stop.after.lsn)
    }
}

/// Measures how long each phase took.
struct Phases {
    private let time: any TimeSource
    private var last: UInt64
    private(set) var durations: [CommitRecord.PhaseDuration] = []

    init(_ time: any TimeSource) {
        self.time = time
        last = time.monotonicNanoseconds()
    }

    /// Ends the phase that began when the one before ended.
    mutating func end(_ name: String) {
        let now = time.monotonicNanoseconds()
        durations.append(CommitRecord.PhaseDuration(phase: name, milliseconds: (now - last) / 1_000_000))
        last = now
    }
}

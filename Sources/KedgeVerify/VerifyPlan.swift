// What a verification reads, and why or why not. Pure.
//
//  1. In full, everything is read.
//  2. Otherwise what an earlier verification read from the first to the last byte since `since` is remembered and not
//     read again: by the time at which that run began, and never by a time that lies in the future.
//  3. An object that changed its size since is read, whatever is remembered: objects are never changed. Of WAL the
//     sizes of neighbours are compared together (WALSizes.swift), so that those are read with it.
//  4. A proof that names a damaged object ends what earlier readings of that object tell; one that cannot be opened, or
//     does not name all, ends what all earlier readings tell.
//  5. A drill that failed ends what readings that began before its end tell of all that its backup needs.
//  6. A sample is chosen by chance from all there is, remembered or not, and is never empty where there is something.

package import KedgeCatalog
package import KedgeCore

/// How much to read.
package enum VerifyScope: Hashable, Sendable {
    case full
    /// All that was not read since then.
    case due(since: Timestamp)
    /// So many of a million parts, chosen by `seed`.
    case sample(partsPerMillion: UInt32, seed: UInt64)

    /// As proofs record it.
    package var partsPerMillion: UInt32 {
        if case .sample(let parts, _) = self { parts } else { ProofRecord.VerifiedObjects.everything }
    }
}

/// What earlier verifications read and found sound.
package struct VerifyMemory: Sendable {
    private var packs: [RandomID: (bytes: UInt64, time: Timestamp)] = [:]
    /// By system and the first segment of the block that a range lies in. Ranges may overlap.
    private var wal: [SystemIdentifier: [WALSegment: [ClosedRange<UInt64>: Timestamp]]] = [:]
    /// Backups whose files were all put together and compared.
    private var backups: [CommitRecord.ManifestSeal: Timestamp] = [:]
    /// When something was found to be wrong with an object: readings before that tell nothing.
    private var doubts = Doubts()
    /// Sizes of WAL segments, without which proofs that name some can't be told what they name.
    private let segmentSizes: [SystemIdentifier: UInt64]
    /// What WAL segments occupy now.
    private let stored: [SystemIdentifier: WALSizes]
    private let drilled: [CommitRecord.ManifestSeal: CommitRecord]

    private struct Doubts {
        var packs: [RandomID: Timestamp] = [:]
        var wal: [SystemIdentifier: [WALSegment: Timestamp]] = [:]
        /// Of WAL from a segment on, on all timelines.
        var walFrom: [SystemIdentifier: [UInt64: Timestamp]] = [:]
        var manifests: [CommitRecord.ManifestSeal: Timestamp] = [:]
        var all: Timestamp?
    }

    /// `backups` are those whose failed drills count.
    package init(
        segmentSizes: [SystemIdentifier: UInt64] = [:], stored: [SystemIdentifier: WALSizes] = [:],
        backups: [CommitRecord] = []
    ) {
        self.segmentSizes = segmentSizes
        self.stored = stored
        drilled = Dictionary(backups.map { ($0.manifest, $0) }) { first, _ in first }
    }

    /// Adds what one proof tells. A proof of another repository tells nothing; a drill, and one of the future, only
    /// what is wrong.
    package mutating func add(_ proof: ProofRecord, repositoryID: RandomID, now: Timestamp) {
        guard proof.repositoryID == repositoryID else { return }
        guard proof.level == .verified else { return addDoubts(ofDrill: proof) }
        addDoubts(proof)
        guard proof.started <= now, let verified = proof.verified else { return }
        let time = proof.started
        for pack in verified.packs where packs[pack.id].map({ $0.time < time }) ?? true {
            packs[pack.id] = (pack.bytes, time)
        }
        let system = verified.systemIdentifier
        for range in verified.wal {
            let numbers = range.first...range.last
            guard let sizes = range.sizes, sizes == stored[system]?.checksum(range.timeline, numbers) else { continue }
            let block = WALSizes.block(of: WALSegment(timeline: range.timeline, number: range.first))
            let known = wal[system]?[block]?[numbers]
            wal[system, default: [:]][block, default: [:]][numbers] = later(known, time)
        }
        // A run that relied on an earlier one did not put everything together itself.
        if proof.result == .passed, !proof.isSample {
            backups[proof.manifest] = later(backups[proof.manifest], proof.readSince ?? time)
        }
    }

    /// Takes back what readings before `time` tell.
    package mutating func doubtAll(before time: Timestamp) { doubts.all = later(doubts.all, time) }

    private mutating func addDoubts(ofDrill proof: ProofRecord) {
        guard proof.result == .failed, let backup = drilled[proof.manifest] else { return }
        // What it read last was as it found it when it ended.
        let time = proof.finished
        doubts.manifests[backup.manifest] = later(doubts.manifests[backup.manifest], time)
        for pack in backup.packs { doubts.packs[pack.id] = later(doubts.packs[pack.id], time) }
        let system = backup.server.systemIdentifier
        guard let size = segmentSizes[system] else { return }
        let first = backup.span.startLSN.position / size
        doubts.walFrom[system, default: [:]][first] = later(doubts.walFrom[system]?[first], time)
    }

    private mutating func addDoubts(_ proof: ProofRecord) {
        // Its end is behind that of every proof that was there; its start is by the clock of its host alone.
        let time = proof.finished
        if proof.result == .failed { doubts.manifests[proof.manifest] = later(doubts.manifests[proof.manifest], time) }
        let subjects = proof.checks.filter { VerifyFinding.Kind(rawValue: $0.name) != nil }.compactMap(\.subject)
        if subjects.count >= BackupJudge.listedFindings { doubtAll(before: time) }
        for subject in subjects {
            // The cluster's name comes first, and may be another one in a copy of the repository.
            let parts = subject.split(separator: "/").dropFirst().map { String($0) }
            guard let kind = parts.first, let last = parts.last, parts.count > 2, kind == "pack" || kind == "wal" else {
                continue
            }
            // History files are always read.
            if kind == "wal", parts[2] == "history" { continue }
            if kind == "pack", let id = RandomID(hex: last) {
                doubts.packs[id] = later(doubts.packs[id], time)
            } else if kind == "wal", let system = SystemIdentifier(parts[1]), let size = segmentSizes[system],
                let segment = WALSegment(fileName: last.prefix(24), segmentSize: size)
            {
                doubts.wal[system, default: [:]][segment] = later(doubts.wal[system]?[segment], time)
            } else {
                doubtAll(before: time)
            }
        }
    }

    private func later(_ one: Timestamp?, _ other: Timestamp) -> Timestamp { max(one ?? other, other) }

    /// `time`, unless there is a later doubt.
    private func trusted(_ time: Timestamp?, _ doubt: Timestamp?) -> Timestamp? {
        guard let time, time >= doubt ?? time, time >= doubts.all ?? time else { return nil }
        return time
    }

    /// When a pack was last read, and how large it was.
    fileprivate func reading(of pack: RandomID) -> (bytes: UInt64, time: Timestamp)? {
        guard let known = packs[pack], trusted(known.time, doubts.packs[pack]) != nil else { return nil }
        return known
    }

    /// When a whole segment was last read.
    fileprivate func reading(of segment: WALSegment, _ system: SystemIdentifier) -> Timestamp? {
        var last: Timestamp?
        for (numbers, time) in wal[system]?[WALSizes.block(of: segment)] ?? [:] where numbers.contains(segment.number) {
            last = later(last, time)
        }
        var doubt = doubts.wal[system]?[segment]
        for (first, time) in doubts.walFrom[system] ?? [:] where segment.number >= first { doubt = later(doubt, time) }
        return trusted(last, doubt)
    }

    /// When all files of a backup were last put together and compared.
    fileprivate func reading(of manifest: CommitRecord.ManifestSeal) -> Timestamp? {
        trusted(backups[manifest], doubts.manifests[manifest])
    }
}

/// The plan of one verification.
package struct VerifyPlan: Sendable {
    package enum Decision: Hashable, Sendable {
        case read(Reason)
        /// It was read then, and is not read again.
        case remembered(since: Timestamp)
        /// Chance left it out.
        case notInSample
    }

    package enum Reason: Hashable, Sendable {
        /// Everything is read.
        case full
        /// It never was, as far as the proofs tell.
        case neverRead
        /// It was, but too long ago.
        case readBefore(Timestamp)
        /// It has another size than when it was read.
        case changed
        case sample
    }

    package let scope: VerifyScope
    private let memory: VerifyMemory
    /// Of a sample: the packs that are in it.
    private let chosen: Set<RandomID>

    /// `packs` are those to be verified, of which a sample chooses.
    package init(_ scope: VerifyScope, memory: VerifyMemory, packs: some Collection<RandomID>) {
        self.scope = scope
        self.memory = memory
        guard case .sample(let parts, let seed) = scope else {
            chosen = []
            return
        }
        let wanted = (UInt64(packs.count) * UInt64(parts) + 999_999) / 1_000_000
        let ranked = packs.map { (mixed(seed ^ $0.low, $0.high), $0) }.sorted { $0 < $1 }
        chosen = Set(ranked.prefix(Int(wanted)).map(\.1))
    }

    /// Whether to read a pack that has `bytes` bytes now.
    package func decision(pack: RandomID, bytes: UInt64) -> Decision {
        let known = memory.reading(of: pack)
        if let known, known.bytes != bytes { return .read(.changed) }
        if case .sample = scope { return chosen.contains(pack) ? .read(.sample) : .notInSample }
        return decide(known?.time)
    }

    /// Whether to read a WAL file. The last of a run is part of every sample.
    package func decision(
        segment: WALSegment, isPartial: Bool, isLast: Bool, of system: SystemIdentifier
    ) -> Decision {
        if case .sample(let parts, let seed) = scope {
            let rank = mixed(seed ^ UInt64(segment.timeline.number), segment.number) % 1_000_000
            return isLast || rank < UInt64(parts) ? .read(.sample) : .notInSample
        }
        // A timeline that was left may get another partial segment of the same number.
        guard !isPartial else { return decide(nil) }
        return decide(memory.reading(of: segment, system))
    }

    /// Whether to put the files together whose pieces lie in several places, and compare them with the manifest.
    package func decision(backup: CommitRecord) -> Decision {
        if case .sample = scope { return .notInSample }
        return decide(memory.reading(of: backup.manifest))
    }

    private func decide(_ time: Timestamp?) -> Decision {
        switch scope {
        case .full, .sample: return .read(.full)
        case .due(let since):
            guard let time else { return .read(.neverRead) }
            return time >= since ? .remembered(since: time) : .read(.readBefore(time))
        }
    }
}

/// SplitMix64 of two words: evenly spread, and the same for the same words.
private func mixed(_ first: UInt64, _ second: UInt64) -> UInt64 {
    var state = first &* 0x9E37_79B9_7F4A_7C15 &+ second
    for _ in 0..<2 {
        state &+= 0x9E37_79B9_7F4A_7C15
        state = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        state = (state ^ (state >> 27)) &* 0x94D0_49BB_1331_11EB
        state ^= state >> 31
    }
    return state
}

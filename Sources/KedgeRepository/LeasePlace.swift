// Where a lease lies, and the single steps on its object. Every step reads before it writes, and writes only what the
// reading allows; between the two somebody else may write, which `Lease` allows for.

import KedgeCodec
import KedgeCore

/// The object of one lease.
struct LeasePlace: Sendable {
    /// What lies there.
    enum Content {
        case absent
        case unreadable
        case lease(LeaseRecord)
    }

    private let cluster: ClusterRepository
    private let relative: ObjectName
    private let process: ProcessIdentity

    private static let maximumAttempts = 5

    init(_ request: LeaseRequest, _ cluster: ClusterRepository) throws(KedgeError) {
        guard let relative = ClusterLayout.lease(request.operation) else {
            throw KedgeError(
                .defect, "cannot take a lease for \"\(request.operation)\"", hint: "Please report this.")
        }
        self.cluster = cluster
        self.relative = relative
        process = request.process
    }

    private var name: ObjectName { cluster.name(relative) }
    private var store: any ObjectStore { cluster.repository.store }

    // MARK: - Steps

    /// Stores `record` where nobody holds the lease. Throws `locked`.
    func claim(_ record: LeaseRecord) throws(KedgeError) {
        for _ in 0..<Self.maximumAttempts {
            if try cluster.putRecord(record.jsonValue, .lease, relative).outcome == .created { return }
            guard let seen = try observe() else { continue }
            switch LeaseVerdict.of(seen.observation, for: record.holder) {
            case .free: break
            case .mine: return
            case .held(let seconds): throw held(seen.observation, expiresIn: seconds)
            case .stale: try removeIfUnchanged(seen)
            }
        }
        throw KedgeError(
            .locked, "could not take lease \"\(name)\" of repository \"\(cluster.repository.name)\"",
            detail: "Others took it and gave it back all the while.", hint: "Run the command again.")
    }

    /// Replaces our lease by `next`, or says that it is another's now.
    func renew(_ next: LeaseRecord) throws(KedgeError) -> Lease.Renewal {
        switch try Self.read(relative, in: cluster) {
        case .unreadable: return .lost(to: nil)
        case .lease(let present) where present.holder != next.holder: return .lost(to: present)
        case .lease:
            try cluster.putRecord(next.jsonValue, .lease, relative, .replace)
            return .renewed
        case .absent:
            // Somebody is about to take it over, or tidied up. If it is still free, it is still ours.
            if try cluster.putRecord(next.jsonValue, .lease, relative).outcome == .created { return .renewed }
            guard case .lease(let present) = try Self.read(relative, in: cluster) else { return .lost(to: nil) }
            return present.holder == next.holder ? .renewed : .lost(to: present)
        }
    }

    /// Whether the lease is that of `record`'s holder.
    func holds(_ record: LeaseRecord) throws(KedgeError) -> Bool {
        guard case .lease(let present) = try Self.read(relative, in: cluster) else { return false }
        return present.holder == record.holder
    }

    /// Removes the lease if it is that of `record`'s holder.
    func remove(_ record: LeaseRecord) throws(KedgeError) {
        guard case .lease(let present) = try Self.read(relative, in: cluster), present.holder == record.holder else {
            return
        }
        if let failure = try store.remove([name]).first { throw failure.error }
    }

    /// The same where nobody could do anything about an error: the lease expires.
    func removeQuietly(_ record: LeaseRecord) {
        do throws(KedgeError) { try remove(record) } catch {}
    }

    // MARK: - Looking

    /// What was seen, and how to know it again.
    private struct Sight {
        let observation: LeaseObservation
        let status: ObjectStatus
    }

    /// Nil where nothing is there. See `LeaseVerdict` for the order.
    private func observe() throws(KedgeError) -> Sight? {
        let now = try storeTime()
        let content = try Self.read(relative, in: cluster)
        guard let status = try store.status(of: name) else { return nil }
        var record: LeaseRecord?
        switch content {
        case .absent: return nil
        case .unreadable: break
        case .lease(let present): record = present
        }
        return Sight(
            observation: LeaseObservation(
                record: record, ageSeconds: (now.microseconds - status.modified.microseconds) / 1_000_000,
                holderHasEnded: record?.process.hasEnded(seenBy: process) ?? false), status: status)
    }

    /// The time that the store gives to an object which is written now.
    private func storeTime() throws(KedgeError) -> Timestamp {
        let probe = cluster.name(ClusterLayout.clockProbe(RandomID(from: cluster.repository.random)))
        _ = try store.put(probe, ObjectBody([UInt8]()), .createOnly)
        let status = try store.status(of: probe)
        _ = try store.remove([probe])
        if let status { return status.modified }
        throw KedgeError(
            .repositoryUnavailable, "could not find out what time it is for \(store.location)",
            detail: "Object \"\(probe)\" was stored and is not there.",
            hint: "Run \"kedge check\": the store does not keep its promises.")
    }

    private func removeIfUnchanged(_ seen: Sight) throws(KedgeError) {
        switch (try Self.read(relative, in: cluster), seen.observation.record) {
        case (.lease(let present), let before?) where present.isSameRenewal(as: before): break
        case (.unreadable, nil):
            guard try store.status(of: name) == seen.status else { return }
        default: return
        }
        if let failure = try store.remove([name]).first { throw failure.error }
    }

    /// Reads a lease. Throws only where the store could not be asked.
    static func read(_ relative: ObjectName, in cluster: ClusterRepository) throws(KedgeError) -> Content {
        do throws(KedgeError) {
            let record = try LeaseRecord(
                cluster.readRecord(.lease, relative, what: "lease \"\(relative)\"", limit: recordLimit).record)
            return relative.lastComponent == record.operation ? .lease(record) : .unreadable
        } catch {
            switch error.code {
            case .notFound: return .absent
            case .damaged, .formatUnknown, .keyMissing, .keyWrong: return .unreadable
            default: throw error
            }
        }
    }

    private static let recordLimit = 64 << 10

    // MARK: - Words

    private func held(_ seen: LeaseObservation, expiresIn seconds: UInt64) -> KedgeError {
        let wait = HumanText.duration(.seconds(Int64(clamping: seconds)))
        return KedgeError(
            .locked,
            "could not take lease \"\(name)\" of repository \"\(cluster.repository.name)\": another kedge holds it",
            detail: seen.record.map { "It is held by \($0.sentence(ageSeconds: seen.ageSeconds))" }
                ?? "It cannot be read with the keys of this host.",
            hint: "Wait until that process has ended, and run the command again.  If you know that it is dead: its "
                + "lease counts no more in \(wait) without a renewal, or when object \"\(name)\" is removed.")
    }
}

extension LeaseRecord {
    /// `process 4711 of host "db2" since 2026-11-21T02:00:00Z, for 2026…; it was renewed 12 s ago: copying files, …`.
    fileprivate func sentence(ageSeconds: Int64) -> String {
        var text = "process \(process.processID) of host \"\(process.hostName)\" since \(takenAt) by its clock"
        if let label { text += ", for \(label)" }
        text += "; it was renewed \(HumanText.duration(.seconds(max(0, ageSeconds)))) ago"
        return text + (progressText.isEmpty ? "." : ": \(progressText).")
    }

    /// `copying files, 30 %, 1.2 GB of 4 GB`; empty before the first step.
    package var progressText: String {
        guard !step.isEmpty else { return "" }
        guard doneBytes > 0 || totalBytes != nil else { return step }
        let done = HumanText.size(doneBytes)
        guard let totalBytes, totalBytes > 0 else { return "\(step), \(done)" }
        let percent = Int(min(1, Double(doneBytes) / Double(totalBytes)) * 100)
        return "\(step), \(percent) %, \(done) of \(HumanText.size(totalBytes))"
    }
}

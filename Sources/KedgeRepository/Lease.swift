// A lease: keeps two hosts from doing the same long work at once, and shows others how far it is.
//
//   free ──take: create only──▶ held ──renew: replace──▶ held ──release: remove──▶ free
//   held by another ──its process is dead on this host, or not renewed for too long──▶ removed ──▶ free
//   held ──renew finds another holder's──▶ lost        nothing is written or removed any more
//
// What holds, and what rests on it (docs/decisions/0009-leases.md):
//  1. Of those who find the name free, one gets it (create only; on a store without conditional put, if they do not
//     overlap).
//  2. A holder that renews in time by the store's clock, and whose process lives, keeps it: nobody else takes it over.
//  3. Two may believe to hold it only after a take-over, or after a holder was silent for longer than it promised; and
//     only until one of them renews, since it then finds the other's and knows that it has lost.
//  4. Nothing but wasted work follows from 3: no promise of a repository rests on a lease. Deciding without one is as
//     safe, so a lease that can't be taken or renewed never stops the work by itself.

import KedgeCodec
package import KedgeCore
import Synchronization

/// What a lease is asked for.
package struct LeaseRequest: Sendable {
    /// A component of an object's name, such as `backup`.
    package var operation: String
    package var process: ProcessIdentity
    package var label: String?
    package var expiresAfterSeconds = LeaseVerdict.standardExpirySeconds

    package init(operation: String, process: ProcessIdentity, label: String?) {
        self.operation = operation
        self.process = process
        self.label = label
    }
}

/// A lease that was taken. May be used by several threads, one call at a time each.
package final class Lease: Sendable {
    /// What a renewal found.
    package enum Renewal: Sendable {
        case renewed
        /// Somebody took it over, and says so here; nil where what is there can't be read.
        case lost(to: LeaseRecord?)
    }

    private let place: LeasePlace
    private let time: any TimeSource
    private let state: Mutex<LeaseRecord>

    private init(_ place: LeasePlace, _ record: LeaseRecord, time: any TimeSource) {
        self.place = place
        self.time = time
        state = Mutex(record)
    }

    /// What was written last.
    package var record: LeaseRecord { state.withLock { $0 } }

    /// Takes the lease, at once or not at all.
    ///
    /// Throws `locked` where somebody else holds it, saying who and how far they are; and what reading and storing
    /// throw: then it is not held, though an object may be left that expires by itself.
    package static func take(
        _ request: LeaseRequest, in cluster: ClusterRepository, progress: WorkProgress.Snapshot, time: any TimeSource
    ) throws(KedgeError) -> Lease {
        let place = try LeasePlace(request, cluster)
        let record = LeaseRecord(
            operation: request.operation, holder: RandomID(from: cluster.repository.random), process: request.process,
            label: request.label, takenAt: time.now(), expiresAfterSeconds: request.expiresAfterSeconds,
            progress: progress, createdBy: Version.writer)
        let lease = Lease(place, record, time: time)
        do throws(KedgeError) {
            try lease.place.claim(record)
        } catch {
            // Its effect is unknown where the put itself failed; an own lease left behind would lock others out.
            if error.code != .locked { lease.place.removeQuietly(record) }
            throw error
        }
        return lease
    }

    /// Says that the work goes on, and how far it is. Throws what reading and storing throw: it is worth a try later.
    package func renew(_ progress: WorkProgress.Snapshot) throws(KedgeError) -> Renewal {
        let next = record.renewed(at: time.now(), progress)
        let renewal = try place.renew(next)
        if case .renewed = renewal { state.withLock { $0 = next } }
        return renewal
    }

    /// Whether what lies there is still ours, as far as a single look can tell: not where another has taken it over,
    /// nor where it has come and gone since. Throws what reading throws.
    package func isHeld() throws(KedgeError) -> Bool { try place.holds(record) }

    /// Gives it back, if it is still ours.
    package func release() throws(KedgeError) { try place.remove(record) }

    /// The leases that are there, with the store's time of their last renewal. What can't be read is nil.
    package static func all(
        in cluster: ClusterRepository
    ) throws(KedgeError) -> [(operation: String, record: LeaseRecord?, renewedAt: Timestamp)] {
        var leases: [(operation: String, record: LeaseRecord?, renewedAt: Timestamp)] = []
        var found: [(ObjectName, Timestamp)] = []
        try cluster.forEachObject(below: ClusterLayout.leases) { (name, status) throws(KedgeError) in
            found.append((name, status.modified))
        }
        for (name, modified) in found {
            switch try LeasePlace.read(name, in: cluster) {
            case .absent: break
            case .unreadable: leases.append((String(name.lastComponent), nil, modified))
            case .lease(let record): leases.append((record.operation, record, modified))
            }
        }
        return leases
    }
}

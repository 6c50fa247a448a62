// Whose a lease is, decided from what was seen of it. Pure: an observation in, a verdict out.
//
// The age is the store's own: the time that the store gave to a probe written just now, less the time that it gave to
// the lease. So the clocks of the hosts may differ by any amount. The probe is written before the lease is looked at,
// so that a slow look makes the age too small and never too large.

package import KedgeCore

/// A lease as it was found.
package struct LeaseObservation: Hashable, Sendable {
    /// Nil where an object is there that can't be read as a lease: damaged, or sealed with a key that is not here.
    package var record: LeaseRecord?
    /// By the store's clock. Below zero where the lease was renewed after the probe was written.
    package var ageSeconds: Int64
    /// Proven by the kernel that runs us, which ran the holder too.
    package var holderHasEnded: Bool

    package init(record: LeaseRecord?, ageSeconds: Int64, holderHasEnded: Bool) {
        self.record = record
        self.ageSeconds = ageSeconds
        self.holderHasEnded = holderHasEnded
    }
}

/// What a lease is to somebody who wants it.
package enum LeaseVerdict: Hashable, Sendable {
    /// Nobody has it.
    case free
    /// We have it: the answer to an earlier attempt was lost.
    case mine
    /// Somebody else has it. After so many seconds without a renewal it may be taken over.
    case held(expiresInSeconds: UInt64)
    /// Whoever had it is dead, or was not heard of for too long.
    case stale

    /// How long a lease that can't be read, and so says nothing about it, is left alone.
    package static let standardExpirySeconds: UInt64 = 300
    /// No lease is left alone longer without a renewal, whatever it says.
    package static let longestExpirySeconds: UInt64 = 3600

    /// The verdict for `holder` on what was observed; nil where nothing was there.
    package static func of(_ observation: LeaseObservation?, for holder: RandomID) -> LeaseVerdict {
        guard let observation else { return .free }
        if let record = observation.record, record.holder == holder { return .mine }
        if observation.record != nil, observation.holderHasEnded { return .stale }
        let promised = observation.record?.expiresAfterSeconds ?? standardExpirySeconds
        let expiry = min(max(promised, 1), longestExpirySeconds)
        let age = UInt64(max(observation.ageSeconds, 0))
        return age > expiry ? .stale : .held(expiresInSeconds: expiry - age + 1)
    }
}

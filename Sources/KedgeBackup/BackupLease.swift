// The lease of a backup: keeps a second host from backing up the same cluster into the same repository, and shows
// others how far this one is. Only that somebody else holds it stops a backup: without a lease it is as safe
// (docs/decisions/0009-leases.md).

import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The lease of one backup, or the reason why it goes without.
struct BackupLease {
    /// The name of the operation, as in the lease's object name.
    static let operation = "backup"

    private let keeper: LeaseKeeper?
    private let warning: String?

    /// Takes the lease. Throws `locked` where somebody else backs the cluster up, and `interrupted`.
    init(
        _ label: Label, in cluster: ClusterRepository, options: Backup.Options, tools: Backup.Tools
    ) throws(KedgeError) {
        let process = options.leaseHolder ?? ProcessIdentity.current(hostName: options.hostName)
        do throws(KedgeError) {
            let lease = try Lease.take(
                LeaseRequest(operation: BackupLease.operation, process: process, label: label.text), in: cluster,
                progress: tools.progress.snapshot, time: tools.time)
            keeper = try LeaseKeeper(lease, showing: tools.progress, every: options.watching.leaseInterval)
            warning = nil
        } catch {
            guard error.code != .locked, error.code != .interrupted else { throw error }
            keeper = nil
            warning = "The backup was taken without a lease: \(error.message)."
        }
    }

    /// Gives it back. Returns sentences about what somebody should know. To be called exactly once.
    func end() -> [String] { (warning.map { [$0] } ?? []) + (keeper?.end() ?? []) }
}

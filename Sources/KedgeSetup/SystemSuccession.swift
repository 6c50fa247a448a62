// Whether a database system may be registered under a name that another one has: pg_upgrade and initdb make a new
// system that takes the place of the old one (lesson 44), and a configuration that was copied to a second host makes
// two living ones share a name. Then restore would take the other's backups, and expire remove them.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository

/// What becomes of a database system that is to be registered.
enum SystemSuccession: Hashable {
    /// Nothing was registered under the name, or this very system was.
    case plain
    /// Its major version is higher than that of the newest registered one, as after pg_upgrade.
    case upgraded
    /// Somebody has named the one that it replaces.
    case confirmed
    /// Nobody can tell that the newest registered one is no more.
    case refused

    /// A system as far as the decision depends on it.
    struct System: Hashable {
        let identifier: SystemIdentifier
        /// The major version.
        let version: Int
    }

    /// Decides. `registered` in the order in which they were registered.
    static func decide(_ present: System, registered: [System], replacing: SystemIdentifier?) -> SystemSuccession {
        guard let newest = registered.last, !registered.contains(where: { $0.identifier == present.identifier })
        else { return .plain }
        if replacing == newest.identifier { return .confirmed }
        return replacing == nil && present.version > newest.version ? .upgraded : .refused
    }

    /// Throws `wal-foreign` unless the system of `control` may be registered. Reads alone.
    static func require(
        _ control: ControlFile, named clusterName: String, in repository: Repository,
        replacing: SystemIdentifier?
    ) throws(KedgeError) {
        let cluster: ClusterRepository
        do throws(KedgeError) {
            cluster = try ClusterRepository.open(repository, clusterName: clusterName)
        } catch  where error.code == .notFound {
            return
        }
        let registered = cluster.registrations.map {
            System(identifier: $0.systemIdentifier, version: $0.postgresVersion)
        }
        let present = System(identifier: control.systemIdentifier, version: control.version.major)
        guard decide(present, registered: registered, replacing: replacing) == .refused else { return }
        throw refusal(present, cluster, replacing)
    }

    private static func refusal(
        _ present: System, _ cluster: ClusterRepository, _ replacing: SystemIdentifier?
    ) -> KedgeError {
        let newest = cluster.newestRegistration
        var detail =
            "Registered is system \(newest.systemIdentifier), PostgreSQL \(newest.postgresVersion), since "
            + "\(newest.createdAt); this server is system \(present.identifier), PostgreSQL \(present.version)."
        do throws(KedgeError) {
            let backups = try BackupCatalog(cluster).list().backups.filter {
                $0.server.systemIdentifier == newest.systemIdentifier
            }
            if let last = backups.max(by: { $0.span.stopTime < $1.span.stopTime }) {
                detail += "  The newest backup of the registered one, \(last.label), is of \(last.span.stopTime)."
            }
        } catch {
            // What is said without it is enough.
        }
        if let replacing, replacing != newest.systemIdentifier {
            detail += "  The one that was named with --replace-system is \(replacing)."
        }
        return KedgeError(
            .walForeign,
            "cannot register cluster \"\(cluster.clusterName)\" in repository \"\(cluster.repository.name)\": another "
                + "database system has that name",
            detail: detail,
            hint: "If that server still lives, give this cluster a name of its own in the configuration.  If this one "
                + "has taken its place, add \"--replace-system \(newest.systemIdentifier)\".")
    }

    /// What `check` says where the system of `present` is not the one that was registered last.
    static func warning(_ cluster: ClusterRepository, present: ControlFile) -> KedgeError? {
        let newest = cluster.newestRegistration
        guard newest.systemIdentifier != present.systemIdentifier else { return nil }
        return KedgeError(
            .walForeign,
            "another database system was registered later as cluster \"\(cluster.clusterName)\"",
            detail: "It is system \(newest.systemIdentifier), PostgreSQL \(newest.postgresVersion), of "
                + "\(newest.createdAt); this server is system \(present.systemIdentifier).  A restore without "
                + "\"--backup\" takes the one registered last, and retention counts both.",
            hint: "If both servers live, give one of them a name of its own in its configuration, and run \"kedge "
                + "init\" there.  After pg_upgrade was undone this goes away with time.")
    }
}

// One `[cluster NAME]` of the configuration: what it says, with the defaults filled in.
package import KedgeCatalog
import KedgeCore

/// One `[cluster NAME]` with its defaults filled in.
package struct ClusterConfiguration: Sendable {
    package let name: String
    /// The data directory.
    package let pgdata: String
    /// Nil where libpq's default holds; the same for port, user and dbname.
    package let host: String?
    package let port: Int?
    package let user: String?
    package let dbname: String?
    /// Of a standby's primary.
    package let primaryHost: String?
    package let primaryPort: Int?
    package let binDirectory: String?
    /// The names of its repositories; at least one.
    package let repositories: [String]
    /// The name that it was registered with.
    package let registeredName: String
    package let processMax: Int
    package let workDirectory: String
    package let archiveTimeout: Duration
    package let archiveGetTimeout: Duration
    /// Bytes of WAL that may wait to be archived; nil: no limit.
    package let archiveQueueLimit: Int64?
    /// How many segments are fetched ahead of a recovering server; 0 for none.
    package let archiveGetPrefetch: Int
    /// How many segments one archive-push stores besides its own.
    package let archivePushAhead: Int
    package let refusesDamagedWAL: Bool
    /// Nil where the recovery signal file decides.
    package let onUnavailable: UnavailableAnswer?
    /// Bytes in a second; nil: no limit.
    package let readRate: Int64?
    /// Bytes as stored.
    package let packSize: Int64
    /// How long what verify has read need not be read again.
    package let verifyEvery: Duration
    /// Bytes in a second; nil: no limit.
    package let verifyRate: Int64?
    package let drill: DrillConfiguration
    /// The age of the last full backup from which on `--type auto` takes a full one.
    package let fullEvery: Duration
    package let retention: RetentionRules
}

/// What `archive-get` answers when it could not find out whether there is such a file.
package enum UnavailableAnswer: String, Sendable {
    case abort, absent
}

extension ClusterConfiguration {
    /// Where what kedge notes lies unless `work-directory` is set. A restart of the host may empty it.
    static func defaultWorkDirectory(of user: UInt32) -> String { "/tmp/kedge-\(user)" }

    /// The section's values as they are needed. Throws `configuration`.
    init(
        _ section: LayeredSection, repositories known: [String], host facts: HostFacts, path file: String
    ) throws(KedgeError) {
        name = section.name
        // The first level of a repository has entries of its own beside the clusters (docs/design.md section 4).
        guard name != "key", name != "feature", name != "kedge.json" else {
            throw ConfigurationFile.error(
                file, section.line, "a cluster cannot be called \"\(name)\"",
                hint: "Choose another name: the repository keeps something else under this one.")
        }
        pgdata = try section.requiredText(
            "pgdata", why: "kedge must know which cluster this is", example: "/var/lib/postgresql/15/main", file)
        host = section.text("host")
        port = section.integer("port").map { Int($0) }
        user = section.text("user")
        dbname = section.text("dbname")
        primaryHost = section.text("primary-host")
        primaryPort = section.integer("primary-port").map { Int($0) }
        binDirectory = section.text("bin-dir")
        processMax = section.integer("process-max").map { Int($0) } ?? min(8, max(1, facts.processors))
        workDirectory = section.text("work-directory") ?? ClusterConfiguration.defaultWorkDirectory(of: facts.userID)
        archiveTimeout = section.duration("archive-timeout")
        archiveGetTimeout = section.duration("archive-get-timeout")
        archiveQueueLimit = section.integer("archive-queue-limit")
        archiveGetPrefetch = Int(section.integer("archive-get-prefetch") ?? 0)
        archivePushAhead = Int(section.integer("archive-push-ahead") ?? 0)
        refusesDamagedWAL = section.text("wal-damage") == "refuse"
        onUnavailable = section.text("on-unavailable").flatMap(UnavailableAnswer.init)
        readRate = section.integer("read-rate")
        packSize = section.integer("pack-size") ?? 256 << 20
        fullEvery = section.duration("full-every")
        retention = section.retention
        registeredName = section.text("registered-as") ?? section.name
        verifyEvery = section.duration("verify-every")
        verifyRate = section.integer("verify-rate")
        drill = DrillConfiguration(section)
        if archiveQueueLimit != nil, section.text("work-directory") == nil {
            throw section.error(
                "archive-queue-limit",
                "work-directory is not set: what was given up is noted there, and /tmp does not "
                    + "last",
                hint: "Set work-directory to a directory that survives a restart of the host.", file)
        }
        repositories = section.list("repositories") ?? known
        guard !repositories.isEmpty else {
            throw KedgeError(
                .configuration, "cannot use configuration file \"\(file)\"",
                detail: "It has no [repository NAME] section.", hint: "Add one; \"man kedge\" shows an example.")
        }
        for repository in repositories where !known.contains(repository) {
            throw section.error(
                "repositories", "there is no repository \"\(repository)\"",
                hint: NearestName.question(repository, among: known)
                    + (known.isEmpty
                        ? "Add a [repository \(repository)] section."
                        : "The repositories are: \(known.joined(separator: ", "))."),
                file)
        }
    }
}

extension LayeredSection {
    /// What the keep keys say.
    fileprivate var retention: RetentionRules {
        var tiers: [RetentionPeriod: Int] = [:]
        for period in RetentionPeriod.allCases {
            tiers[period] = integer("keep-\(period.rawValue)").map { Int($0) }
        }
        return RetentionRules(
            keepFull: integer("keep-full").map { Int($0) }, keepDays: integer("keep-days").map { Int($0) },
            keepTiers: tiers, graceSeconds: duration("expire-grace").components.seconds,
            keepProofsSeconds: duration("keep-proofs").components.seconds)
    }
}

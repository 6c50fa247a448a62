// The one table of configuration keys. Parsing, defaults, `kedge help --man` and the user guide come from it.

/// The kinds of section a configuration file has.
package enum SectionKind: String, Sendable, CaseIterable {
    case cluster, repository
}

/// One configuration key.
package struct ConfigurationKey: Sendable {
    package let name: String
    package let section: SectionKind
    package let kind: ConfigurationValueKind
    /// The default as it would be written in the file. Nil: none, or one that depends on the host.
    package let defaultText: String?
    /// What help texts say about the default where `defaultText` is nil.
    package let defaultNote: String?
    /// One or two sentences.
    package let help: String

    private init(
        _ name: String, _ section: SectionKind, _ kind: ConfigurationValueKind, default defaultText: String? = nil,
        note: String? = nil, _ help: String
    ) {
        self.name = name
        self.section = section
        self.kind = kind
        self.defaultText = defaultText
        self.defaultNote = note
        self.help = help
    }

    /// Whether somebody may have written a secret where this key's value stands: then no message shows it.
    var mayHoldSecret: Bool { ConfigurationKey.secretBearing.contains(name) }

    private static let secretBearing: Set<String> = [
        "key-file", "passphrase-file", "passphrase-command", "access-key-id-file", "secret-access-key-file", "endpoint",
    ]

    /// All keys of all sections. No name occurs in two sections: on the command line the name alone must do.
    package static let all: [ConfigurationKey] = [
        // Cluster
        ConfigurationKey("pgdata", .cluster, .path, note: "required", "The cluster's data directory."),
        ConfigurationKey(
            "host", .cluster, .text, note: "libpq's", "The server's host name, or the directory of its Unix socket."),
        ConfigurationKey("port", .cluster, .integer(1...65535), note: "libpq's", "The server's port."),
        ConfigurationKey(
            "user", .cluster, .text, note: "libpq's",
            "The database role that kedge connects as. A password comes from ~/.pgpass or PGPASSFILE, never from "
                + "here."),
        ConfigurationKey("dbname", .cluster, .text, note: "libpq's", "The database that kedge connects to."),
        ConfigurationKey(
            "primary-host", .cluster, .text, note: "none",
            "On the host of a standby: the host name of its primary, or the directory of its Unix socket. \"backup\" "
                + "ends the last WAL segment there; without it, it waits until the primary does so."),
        ConfigurationKey(
            "primary-port", .cluster, .integer(1...65535), note: "libpq's",
            "The primary's port. User and dbname are those of the standby."),
        ConfigurationKey(
            "bin-dir", .cluster, .path, note: "none", "The directory of the server's programs, such as pg_waldump."),
        ConfigurationKey(
            "repositories", .cluster, .list, note: "all repositories of the file",
            "The repositories that hold the cluster's WAL and backups."),
        ConfigurationKey(
            "registered-as", .cluster, .text, note: "the section's name",
            "The name that the cluster was registered with, where its section and directory in the repositories were "
                + "renamed since. Without it kedge refuses what was registered with another name, since that may be "
                + "another cluster."),
        ConfigurationKey(
            "process-max", .cluster, .integer(1...256), note: "the number of processors, at most 8",
            "How many threads compress, encrypt, read and write at the same time."),
        ConfigurationKey(
            "work-directory", .cluster, .path, note: "/tmp/kedge-UID",
            "The directory for what must be sorted, and for notes: of what is durable, to save time, and of the newest "
                + "data key and the repository seen in each place, to notice another one. It is created when it is "
                + "missing, must belong to the user that runs kedge, and may be emptied while kedge is not running; "
                + "where it survives a restart, kedge notices that a disk is not mounted."),
        ConfigurationKey(
            "archive-timeout", .cluster, .duration(.seconds(1) ... .seconds(86_400)), default: "60s",
            "How long check, backup, verify and drill wait for a WAL segment to arrive in the repositories."),
        ConfigurationKey(
            "archive-get-timeout", .cluster, .duration(.zero ... .seconds(86_400)), default: "60s",
            "How long one archive-get goes on: it looks again for a segment that is missing while later ones are "
                + "there, and repeats requests to object stores that fail, all within this time. Even when it has "
                + "passed a request is made, and repeated once. A transfer that moves is never cut off."),
        ConfigurationKey(
            "archive-get-prefetch", .cluster, .integer(0...256), default: "16",
            "How many segments are fetched into work-directory ahead of a recovering server, at most 256 MB. 0 fetches "
                + "each when the server asks for it."),
        ConfigurationKey(
            "archive-push-ahead", .cluster, .integer(0...1000), default: "64",
            "How many further segments one archive-push stores when more of them wait, several at once. The calls for "
                + "them then only acknowledge. 0 stores each in its own call."),
        ConfigurationKey(
            "archive-queue-limit", .cluster, .size(1 << 20...1 << 50), note: "no limit",
            "How much WAL may wait to be archived. What waits beyond that is given up: archive-push says that it is "
                + "archived, so that pg_wal does not fill, and info says that it is not. No moment from there to the "
                + "next backup can be reached then. Of several repositories, those that work still get it. Histories "
                + "and the like wait in work-directory, which is needed, until they can be stored."),
        ConfigurationKey(
            "wal-damage", .cluster, .choice(["store", "refuse"]), default: "store",
            "What archive-push does with a segment whose records are damaged: store it and mark it as suspect, or "
                + "refuse it, which fills pg_wal until somebody steps in."),
        ConfigurationKey(
            "on-unavailable", .cluster, .choice(["abort", "absent"]),
            note: "abort in recovery and without a signal file, absent on a standby",
            "What archive-get answers when it could not find out whether there is such a file: abort ends recovery, "
                + "absent makes a standby ask again but lets a recovery end too early."),
        ConfigurationKey(
            "full-every", .cluster, .duration(.zero ... .seconds(36_500 * 86_400)), default: "7d",
            "How long after the start of a full backup \"backup --type auto\" takes the next one; in between it takes "
                + "deltas. A full one that would be due within two hours is due, so that neither a timer's jitter nor "
                + "the change of the clocks puts it off to the run after; but it is never earlier than by half the "
                + "time since the last backup."),
        ConfigurationKey(
            "read-rate", .cluster, .size(1 << 20...1 << 40), note: "no limit",
            "The most bytes that backup reads from the data directory in a second."),
        ConfigurationKey(
            "pack-size", .cluster, .size(1 << 20...1 << 30), default: "256MB",
            "How large the objects are that backup stores data in. Each of its processes fills one; what an "
                + "interrupted backup has filled, the next one need not store again."),
        ConfigurationKey(
            "verify-every", .cluster, .duration(.zero ... .seconds(3650 * 86_400)), default: "7d",
            "How long verify does not read again what it has read."),
        ConfigurationKey(
            "verify-rate", .cluster, .size(1 << 20...1 << 40), note: "no limit",
            "The most bytes that verify reads from the repositories in a second."),
        ConfigurationKey(
            "drill-directory", .cluster, .path, note: "required by drill",
            "The directory in which drill restores. It needs room for the whole cluster, is made when it is missing, "
                + "and must belong to the user that runs kedge."),
        ConfigurationKey(
            "drill-amcheck", .cluster, .choice(["sample", "full", "off"]), default: "sample",
            "How much of each database drill checks with the extension amcheck: a random part of up to 1 GB, "
                + "everything, or nothing."),
        ConfigurationKey(
            "drill-check", .cluster, .path, note: "none",
            "A file of SQL statements that drill runs in the recovered cluster; each must return true. A line "
                + "\\connect NAME changes the database."),
        ConfigurationKey(
            "drill-set", .cluster, .text, note: "none",
            "Server settings for drill's server, as name=value, separated by semicolons."),
        ConfigurationKey(
            "rto-target", .cluster, .duration(.seconds(1) ... .seconds(31_536_000)), note: "none",
            "The longest that a restore may take. A drill that takes longer ends with exit status 1."),
        ConfigurationKey(
            "rpo-target", .cluster, .duration(.seconds(1) ... .seconds(31_536_000)), note: "none",
            "The most that may be lost: how old the last commit may be that can be recovered when a drill begins. A "
                + "cluster without any commits for so long misses it too."),
        ConfigurationKey(
            "keep-full", .cluster, .integer(1...10_000), note: "no rule",
            "How many full backups expire keeps, with every later backup and all WAL from the oldest of them on. They "
                + "are counted over all timelines, and once more on the way to each timeline in use: what a recovery "
                + "to an earlier moment left behind, or a promoted copy took, takes no place there. In use is a "
                + "timeline with WAL or a backup since the oldest of those counted over all, or in the week before the "
                + "newest. "
                + "What several keep rules keep is kept; without any rule nothing is removed."),
        ConfigurationKey(
            "keep-days", .cluster, .integer(1...36_500), note: "no rule",
            "For how many days every moment stays recoverable, counted back from the newest backup."),
        ConfigurationKey(
            "keep-daily", .cluster, .integer(1...10_000), note: "no rule",
            "Of how many days with a backup expire keeps one, with all WAL after it. Days, weeks "
                + "(ISO 8601), months and years are those of UTC."),
        ConfigurationKey(
            "keep-weekly", .cluster, .integer(1...10_000), note: "no rule", "The same for weeks."),
        ConfigurationKey(
            "keep-monthly", .cluster, .integer(1...10_000), note: "no rule", "The same for months."),
        ConfigurationKey(
            "keep-yearly", .cluster, .integer(1...10_000), note: "no rule", "The same for years."),
        ConfigurationKey(
            "expire-grace", .cluster, .duration(.zero ... .seconds(366 * 86_400)), default: "24h",
            "How long a backup stays condemned before it is removed. Until then unexpire takes it back. What crashes "
                + "left behind is as old before it is removed, and at least a day."),
        ConfigurationKey(
            "keep-proofs", .cluster, .duration(.zero ... .seconds(36_500 * 86_400)), default: "1096d",
            "How long the proofs of removed backups are kept."),

        // Repository
        ConfigurationKey(
            "type", .repository, .choice(["local", "s3"]), default: "local",
            "Where the repository is: in a directory, or in a bucket of an object store that speaks the protocol of "
                + "Amazon S3."),
        ConfigurationKey(
            "path", .repository, .path, note: "required with type = local", "The repository's directory."),
        ConfigurationKey(
            "endpoint", .repository, .text, note: "https://s3.REGION.amazonaws.com",
            "The object store's address, https://HOST[:PORT]; http:// only where the network is trusted."),
        ConfigurationKey("region", .repository, .text, note: "us-east-1", "The region that the bucket is in."),
        ConfigurationKey(
            "bucket", .repository, .text, note: "required with type = s3", "The bucket. kedge never creates one."),
        ConfigurationKey(
            "prefix", .repository, .text, note: "none", "What the names of all objects in the bucket begin with."),
        ConfigurationKey(
            "uri-style", .repository, .choice(["path", "host"]), default: "path",
            "Whether the bucket's name is part of the URL's path or of its host."),
        ConfigurationKey(
            "access-key-id-file", .repository, .path,
            note: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else ~/.aws/credentials",
            "The file whose one line is the access key id. PostgreSQL's archive commands have its environment, so "
                + "files are the safer choice."),
        ConfigurationKey(
            "secret-access-key-file", .repository, .path, note: "see access-key-id-file",
            "The file whose one line is the secret access key. Others must not be able to read it."),
        ConfigurationKey(
            "ca-file", .repository, .path, note: "/etc/ssl/certs",
            "The file of certificates (PEM) that the object store's certificate is checked against."),
        ConfigurationKey(
            "storage-class", .repository, .text, note: "the store's", "The storage class of new objects."),
        ConfigurationKey(
            "server-side-encryption", .repository, .choice(["sse-s3", "sse-kms"]), note: "the bucket's",
            "Have the store encrypt objects once more, with its own keys or with those of a key management service. "
                + "That it does is read back."),
        ConfigurationKey(
            "kms-key-id", .repository, .text, note: "the bucket's", "The key for server-side-encryption = sse-kms."),
        ConfigurationKey(
            "object-lock", .repository, .choice(["governance", "compliance"]), note: "none",
            "Lock backups and WAL in the bucket, which must have been made with object lock. That the store does is "
                + "read back. What is removed by expire takes room until its lock has ended and a lifecycle rule "
                + "removes old versions."),
        ConfigurationKey(
            "object-lock-days", .repository, .integer(1...36_500), note: "required with object-lock",
            "For how many days objects are locked."),
        ConfigurationKey(
            "conditional-put", .repository, .boolean, default: "yes",
            "Whether the object store refuses to replace an object when asked to (If-None-Match). \"kedge init\" "
                + "tries it. With no, two hosts that write one object at the same moment can't be told apart."),
        ConfigurationKey(
            "compression", .repository, .compression, default: "zstd:1",
            "The codec for new objects: zstd, lz4, zlib or none, with its level. Any kedge reads all of them."),
        ConfigurationKey(
            "encryption", .repository, .choice(["aes-256-gcm", "none"]), note: "required",
            "Whether objects are encrypted. Under aes-256-gcm whatever is not encrypted is taken for damage."),
        ConfigurationKey(
            "key-file", .repository, .path, note: "one of the three is required with aes-256-gcm",
            "The file with the key-encryption key, made by \"kedge init --generate-key\". The fastest of the three."),
        ConfigurationKey(
            "passphrase-file", .repository, .path, note: "see key-file",
            "The file whose only line is the passphrase. The newline at its end does not belong to it; a second line, "
                + "a carriage return at the end (as Windows editors write it) and a byte order mark are refused. Each "
                + "run of kedge then costs a tenth of a second."),
        ConfigurationKey(
            "passphrase-command", .repository, .text, note: "see key-file",
            "The command, run by /bin/sh, that prints the passphrase as its first line, every byte of which counts."),
    ]

    /// The keys of one kind of section.
    package static func all(in section: SectionKind) -> [ConfigurationKey] { all.filter { $0.section == section } }

    package static func named(_ name: String) -> ConfigurationKey? { all.first { $0.name == name } }

    /// `PROCESS_MAX`: how the key is written in the name of an environment variable.
    var environmentName: String { ConfigurationKey.environmentName(name) }

    /// Letters as capitals, and everything that is neither letter nor digit as `_`.
    static func environmentName(_ text: String) -> String {
        String(
            decoding: text.utf8.map { byte in
                switch byte {
                case 0x61...0x7A: byte - 0x20
                case 0x41...0x5A, 0x30...0x39: byte
                default: UInt8(ascii: "_")
                }
            }, as: UTF8.self)
    }
}

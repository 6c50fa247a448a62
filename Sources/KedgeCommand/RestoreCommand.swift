// `kedge restore`.
import KedgeCore

/// The command line of `restore`.
enum RestoreCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "restore", summary: "write a data directory and prepare its recovery to a moment",
        description: [
            "Chooses the newest backup that lies before the target, says whether the target can be reached, and only "
                + "then writes. Without a target it recovers to the end of the archived WAL. Start the server yourself "
                + "afterwards.",
            "A time is written as 2026-11-20 14:30:00+02 or 2026-11-20T12:30:00Z; without a zone it is refused unless "
                + "--time-zone is given.",
        ],
        options: [
            .value("pgdata", "DIR", "Restore into this directory instead of the configured pgdata."),
            .value("backup", "LABEL", "Use this backup instead of choosing one."),
            .value("target-time", "TIME", "Recover to this time."),
            .value("target-lsn", "LSN", "Recover to this WAL position, such as 1/A2000028."),
            .value("target-xid", "XID", "Recover up to this transaction."),
            .value("target-name", "NAME", "Recover to this restore point."),
            .flag("target-immediate", "Stop as soon as the backup is consistent."),
            .flag("target-exclusive", "Stop just before the target instead of just after it."),
            .value("target-timeline", "TL", "Recover along this timeline: a number, current or latest."),
            .choice("target-action", ["pause", "promote", "shutdown"], "What the server does at the target."),
            .value("time-zone", "NAME", "Read a time without a zone in this one, such as Europe/Berlin."),
            .flag("standby", "Restore a standby: write standby.signal and no target."),
            .value(
                "tablespace", "OID=DIR", "Restore this tablespace into another directory. May be repeated.",
                isRepeatable: true),
            .choice(
                "archiving", ["keep", "off"],
                "Whether the restored cluster archives its WAL: keep in the configured pgdata, off elsewhere."),
            .flag("dry-run", "Print the plan and write nothing."),
        ])
}

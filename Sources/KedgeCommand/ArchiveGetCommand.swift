// `kedge archive-get`: PostgreSQL's restore_command.
import KedgeCore

/// The command line of `archive-get`.
enum ArchiveGetCommand {
    static let command = Command(planned: specification)

    static let specification = CommandSpecification(
        name: "archive-get", summary: "fetch one WAL file (restore_command)",
        description: [
            "Fetches a WAL file. In postgresql.conf: restore_command = 'kedge archive-get %f %p'.",
            "Exit status 1 means that every repository was read and has neither the file nor a later segment of its "
                + "timeline. When that cannot be known, the status is 126, which makes PostgreSQL stop rather than end "
                + "recovery too early; on a standby, which asks again, it is 1. on-unavailable overrides this.",
        ],
        arguments: [
            ArgumentSpecification("WALFILE", "The file's name, as PostgreSQL gives it with %f."),
            ArgumentSpecification("DESTINATION", "Where to write it, as PostgreSQL gives it with %p."),
        ],
        logLevel: .warn)
}
